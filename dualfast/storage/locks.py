"""Locks between processes. They end with the process, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(fd: int) -> bool:
    """Locks an open file or folder without waiting; False while another process holds the lock.

    A file system without locks, such as some NFS mounts, grants every lock.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


@contextmanager
def lock_folder(path: str | os.PathLike[str]) -> Iterator[None]:
    """Locks the folder at `path`, created if missing, for the length of the block.

    Raises ValueError while another process holds it.
    """
    path = Path(path)
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY)
    try:
        if not try_lock(folder):
            raise ValueError(f"{str(path)!r} is in use by another run; wait for it, or give another --out")
        yield
    finally:
        os.close(folder)

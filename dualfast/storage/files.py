"""Files that are either whole or not there."""

from __future__ import annotations

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside `path`; when the block ends well the file there is fsynced and renamed to `path`.

    When the block raises, the temporary file is deleted and `path` is as it was; what killed processes left is deleted
    the next time. Raises ValueError when the folder of `path` does not exist.
    """
    final = Path(path)
    check_folder(final)
    _sweep(final)
    handle, name = _locked_part(final)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, final)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    finally:
        os.close(handle)
    sync_folder(final.parent)


def check_folder(path: Path) -> None:
    """ValueError when the folder of `path` does not exist."""
    if not path.parent.is_dir():
        raise ValueError(f"{str(path)!r} cannot be written: the folder {str(path.parent)!r} does not exist")


def sync_folder(folder: Path) -> None:
    """Has the disk keep the names in `folder` as they are."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked_part(final: Path) -> tuple[int, str]:
    """A new file, locked for as long as the handle is open: one that is not locked has no owner left."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # not swept before it was locked
            return handle, name
        os.close(handle)


def _sweep(final: Path) -> None:
    for left in final.parent.glob(f".{glob.escape(final.name)}.????????.part"):
        with suppress(OSError):
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(left)
            finally:
                os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text under its final name all at once."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask

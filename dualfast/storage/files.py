"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from dualfast.arguments import as_path

BUFFER = 1 << 20  # bytes, of a file that is written in many small parts


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; when the block succeeds, that file is fsynced and renamed to `path`.

    When the block raises, the temporary file is deleted and `path` stays as it was; temporary files of killed processes
    are deleted on the next call. Raises ValueError when the folder of `path` does not exist, or `path` is a folder.
    """
    final = as_path("path", path)
    check_folder(final)
    _delete_abandoned(final)
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


@contextmanager
def with_sidecars(path: str | os.PathLike[str], sidecars: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """atomic() for a file with sidecars: yields the temporary path and the path to write each sidecar to, complete. It
    waits there until `path` has its name, the moment at which the old set becomes the new one; whoever reads a sidecar
    finds it in either place, by what it says of the file."""
    waiting = [waiting_for(sidecar) for sidecar in sidecars]
    try:
        with atomic(path) as part:
            yield (part, *waiting)
    except BaseException:
        for one in waiting:
            one.unlink(missing_ok=True)
        raise
    settle(sidecars)


def waiting_for(sidecar: Path) -> Path:
    """Where a sidecar waits until the file that it describes has its name."""
    return Path(f"{sidecar}.next")


def settle(sidecars: Sequence[Path]) -> None:
    """Gives waiting sidecars their names, once their file has its own."""
    for sidecar in sidecars:
        with suppress(FileNotFoundError):
            os.replace(waiting_for(sidecar), sidecar)
    sync_folder(sidecars[0].parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8 to `path`, atomically."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def check_folder(path: Path) -> None:
    """Raises ValueError when the folder of `path` does not exist, when it is a folder or a device itself, and when it
    is not UTF-8, which Arrow cannot write to."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{str(path)!r} cannot be written: it is not UTF-8; give another name") from None
    if path.is_dir():
        raise ValueError(f"{str(path)!r} cannot be written: it is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():
        raise ValueError(f"{str(path)!r} cannot be written: it is a pipe, socket or device; give another name")
    if not path.parent.is_dir():
        raise ValueError(
            f"{str(path)!r} cannot be written: the folder {str(path.parent)!r} does not exist; make it first"
        )


def named_file(path: str | os.PathLike[str], argument: str, what: str) -> Path:
    """The path as a Path; TypeError for what is no path, ValueError for an empty one, which names no file."""
    if not as_path(argument, path).name:
        raise ValueError(f"{argument} is {os.fspath(path)!r}, which names no file; give the path of {what}")
    return Path(path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file for reading. ValueError for a pipe, socket or device, which is not waited for; OSError as
    open raises."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError(f"{os.fspath(path)!r} is not a regular file but a pipe, socket or device; give a file")
    return file


def open_own(path: str | os.PathLike[str], mode: str) -> BinaryIO:
    """Opens a file with a name that others can foresee for reading and writing, and creates it when it is missing.
    mode: "rb+", or "ab+" to append. ValueError for a link, another name of a file, a pipe, socket or device, which
    somebody may have put there to have another file overwritten."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_APPEND if "a" in mode else 0)
    try:
        fd = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        what = "a link" if error.errno == errno.ELOOP else "not a regular file"
        raise ValueError(f"{os.fspath(path)!r} is {what}, and is not written to; delete it") from None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return cast(BinaryIO, os.fdopen(fd, mode, 0 if "a" in mode else BUFFER))
    os.close(fd)
    what = "a second name of a file" if stat.S_ISREG(status.st_mode) else "not a regular file"
    raise ValueError(f"{os.fspath(path)!r} is {what}, and is not written to; delete it")


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder`, as they are now, durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked_part(final: Path) -> tuple[int, str]:
    """A new temporary file, locked while its handle is open: an unlocked one belongs to no living process."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
        with suppress(OSError):  # a file system without locks: nothing is deleted there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:  # another process did not delete it before it was locked
            return handle, name
        os.close(handle)


def _delete_abandoned(final: Path) -> None:
    """Deletes the temporary files for `final` that no process holds any more."""
    for part in final.parent.glob(f".{glob.escape(final.name)}.????????.part"):
        with suppress(OSError):
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(part)
            finally:
                os.close(handle)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def start_of(path: str | os.PathLike[str], size: int) -> bytes:
    """The first bytes of a regular file."""
    with open_regular(path) as file:
        return file.read(size)


LFS_POINTER = b"version https://git-lfs"
SIGNATURES = (
    (b"\x93NUMPY", "an .npy file"),
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip archive, as torch.save and np.savez write it"),
    (b"\x80", "a pickle, which is never loaded"),
    (b"\x89HDF", "an HDF5 file"),
    (LFS_POINTER, "a Git LFS pointer; git lfs pull fetches the file"),
)


def what_is(path: str | os.PathLike[str]) -> str | None:
    """What the first bytes of a file say that it is, as "a Parquet file" or "text"; None where they say nothing."""
    try:
        start = start_of(path, 512)
    except (OSError, ValueError):
        return None
    found = next((what for signature, what in SIGNATURES if start.startswith(signature)), None)
    is_text = bool(start) and all(byte >= 32 or byte in b"\t\r\n" for byte in start)
    return found or ("text" if is_text else None)

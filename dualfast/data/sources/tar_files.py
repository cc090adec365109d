"""The members of a tar file, all of them: tarfile takes a damaged header for the end of the file."""

from __future__ import annotations

import tarfile

from dualfast.notices import warn

BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20


def members_of(tar: tarfile.TarFile, path: str) -> list[tarfile.TarInfo]:
    """What tar.getmembers() gives. Raises tarfile.ReadError for a sparse member, and where more may follow: behind a
    damaged header, and behind the end, as in archives that were put together with cat; a missing end is said in a
    warning."""
    found = tar.getmembers()
    if (sparse := next((member for member in found if member.issparse()), None)) is not None:
        raise tarfile.ReadError(f"{sparse.name} is stored without its zeros; write it without --sparse")
    file = tar.fileobj
    assert file is not None
    file.seek(tar.offset)
    block = file.read(BLOCK)
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"it is damaged at byte {tar.offset:,}")
    if not block:
        warn(f"{path} has no end-of-archive mark; it may have been cut short")
    while block:
        if block.strip(b"\0"):
            raise tarfile.ReadError("something follows its end; tar --concatenate joins archives, unlike cat")
        block = file.read(PIECE)
    return found

"""Checksums of a .beton, in the sidecar PATH.crc: they show what a disk or a copy has changed.

    magic    8 bytes: "beton-cr"
    fixed    page_size, length in bytes, CRC-32 of the tables, CRC-32 of the rest of this file: 8 bytes each
    pages    CRC-32 of every page from the file's first byte on, the last one up to the file's end: 4 bytes each

Everything is little-endian. The tables' checksum is compared when a .beton is opened, the pages' by verify, compact and
Loader(verify=...).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton.parallel import in_order
from dualfast.storage import files
from dualfast.storage.plain import read_regular

MAGIC = b"beton-cr"
FIXED = np.dtype([("page_size", "<u8"), ("length", "<u8"), ("tables", "<u8"), ("own", "<u8")])
MIN_PAGE = 1 << 12  # bytes; of a file with checksums, which bounds their number
READ_BYTES = 1 << 20  # read at once


@dataclass(frozen=True)
class Checksums:
    """The checksums of one .beton of `length` bytes: pages (ceil(length / page_size),) uint32."""

    page_size: int
    length: int
    tables: int
    pages: NDArray[np.uint32]


def of_tables(tables: Iterable[NDArray[Any]]) -> int:
    """One CRC-32 over the arrays' bytes, one array after the other."""
    value = 0
    for table in tables:
        value = crc32(table.view(np.uint8).data, value) if table.size else value
    return value


def of_page(fd: int, page_size: int, length: int, page: int) -> int:
    """CRC-32 of one page of an open file of `length` bytes. ValueError when the file is shorter."""
    value, at, end = 0, page * page_size, min((page + 1) * page_size, length)
    while at < end:
        data = os.pread(fd, min(READ_BYTES, end - at), at)
        if not data:
            raise ValueError(f"the file ends at byte {at}; it was cut short while it was read")
        value, at = crc32(data, value), at + len(data)
    return value


def of_pages(
    fd: int, page_size: int, length: int, threads: int, advance: Callable[[int], Any] = lambda n_bytes: None
) -> NDArray[np.uint32]:
    """CRC-32 of each page of an open file of `length` bytes, (ceil(length / page_size),); advance is called with each
    page's number of bytes. ValueError when the file is shorter."""
    out = np.empty(-(-length // page_size), np.uint32)
    with closing(in_order(partial(of_page, fd, page_size, length), range(len(out)), threads)) as values:
        for page, value in enumerate(values):
            out[page] = value
            advance(min(page_size, length - page * page_size))
    return out


def path_of(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}.crc")


def forget(path: str | os.PathLike[str]) -> None:
    """Deletes the checksums of the .beton at `path`."""
    for file in (path_of(path), files.waiting_for(path_of(path))):
        file.unlink(missing_ok=True)


def save(path: str | os.PathLike[str], sums: Checksums, waiting: bool = False) -> None:
    """Writes PATH.crc; waiting: where it waits until the .beton has its name."""
    pages = sums.pages.astype("<u4").tobytes()
    fixed = np.array([(sums.page_size, sums.length, sums.tables, 0)], FIXED)
    fixed["own"] = crc32(pages, crc32(fixed.tobytes()))
    file = path_of(path)
    with files.atomic(files.waiting_for(file) if waiting else file) as part:
        part.write_bytes(MAGIC + fixed.tobytes() + pages)


def load(path: str | os.PathLike[str], fd: int, n_bytes: int, tables: int) -> Checksums | None:
    """The checksums of the .beton at path, open as fd, which has n_bytes and tables of this CRC-32, or None when it has
    none. ValueError when PATH.crc is damaged, or larger than the checksums of such a file.

    Those that wait beside it are the file's when it was named and they were not: then they fit, and PATH.crc does not
    fit its tables, or the first page in which the two differ."""
    own = path_of(path)
    waiting = files.waiting_for(own)
    if not waiting.exists():
        return _load(own, n_bytes)
    new = _load(waiting, n_bytes)
    if new is None or (new.length, new.tables) != (n_bytes, tables):
        return _load(own, n_bytes)
    try:
        old = _load(own, n_bytes)
    except ValueError:
        return new
    if old is None or (old.page_size, old.length, old.tables) != (new.page_size, n_bytes, tables):
        return new
    differ = np.flatnonzero(old.pages != new.pages)[:1]
    if not len(differ):
        return new
    at = int(differ[0]) * new.page_size
    page = crc32(os.pread(fd, min(new.page_size, n_bytes - at), at))
    return new if page == new.pages[differ[0]] else old


def _load(file: Path, n_bytes: int) -> Checksums | None:
    damaged = f"{file} is damaged; delete it to continue without checksums"
    start = len(MAGIC) + FIXED.itemsize
    try:
        data = read_regular(file, start + 4 * -(-n_bytes // MIN_PAGE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{damaged} ({error})") from None
    pages = data[start:]
    if data[: len(MAGIC)] == MAGIC and len(data) >= start and len(pages) % 4 == 0:
        fixed = np.frombuffer(data, FIXED, 1, len(MAGIC)).copy()
        own, page_size, length = (int(fixed[name][0]) for name in ("own", "page_size", "length"))
        fixed["own"] = 0
        fits = page_size >= MIN_PAGE and len(pages) // 4 == -(-length // page_size)
        if fits and own == crc32(pages, crc32(fixed.tobytes())):
            return Checksums(page_size, length, int(fixed["tables"][0]), np.frombuffer(pages, "<u4"))
    raise ValueError(damaged)

"""Checksums of a .beton, in the side file PATH.crc: what the disk or a copy made of it shows.

    magic    8 bytes: "beton-cr"
    fixed    page_size, length in bytes, CRC-32 of the tables, CRC-32 of the rest of this file: 8 bytes each
    pages    CRC-32 of every page from the file's first byte on, the last one being cut by its end: 4 bytes each

Everything is little-endian. The tables' checksum is compared when a .beton is opened, the pages' by verify.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dualfast.storage import files

MAGIC = b"beton-cr"
FIXED = np.dtype([("page_size", "<u8"), ("length", "<u8"), ("tables", "<u8"), ("own", "<u8")])
PIECE = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Checksums:
    """Of one .beton of `length` bytes; pages (ceil(length / page_size),) uint32."""

    page_size: int
    length: int
    tables: int
    pages: NDArray[np.uint32]


def of_tables(tables: Iterable[NDArray[Any]]) -> int:
    """One CRC-32 over arrays, one after the other."""
    value = 0
    for table in tables:
        value = crc32(table.view(np.uint8).data, value) if table.size else value
    return value


def of_pages(
    fd: int, page_size: int, length: int, threads: int, done: Callable[[int], Any] = lambda n: None
) -> NDArray[np.uint32]:
    """CRC-32 of each page of an open file; done is told of every page's bytes. ValueError when the file is shorter."""

    def one(page: int) -> int:
        value, at, end = 0, page * page_size, min((page + 1) * page_size, length)
        while at < end:
            piece = os.pread(fd, min(PIECE, end - at), at)
            if not piece:
                raise ValueError(f"the file ends at byte {at}; it was cut short while it was read")
            value, at = crc32(piece, value), at + len(piece)
        return value

    count = -(-length // page_size)
    out = np.empty(count, np.uint32)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for page, value in enumerate(pool.map(one, range(count))):
                out[page] = value
                done(min(page_size, length - page * page_size))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return out


def path_of(path: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(path)}.crc")


def forget(path: str | os.PathLike[str]) -> None:
    """Removes the checksums of what `path` held, which is about to be replaced."""
    with suppress(FileNotFoundError):
        path_of(path).unlink()


def save(path: str | os.PathLike[str], sums: Checksums) -> None:
    pages = sums.pages.astype("<u4").tobytes()
    fixed = np.array([(sums.page_size, sums.length, sums.tables, 0)], FIXED)
    fixed["own"] = crc32(pages, crc32(fixed.tobytes()))
    with files.atomic(path_of(path)) as part:
        part.write_bytes(MAGIC + fixed.tobytes() + pages)


def load(path: str | os.PathLike[str]) -> Checksums | None:
    """The checksums of the .beton at path, or None where there are none. ValueError when their file is damaged."""
    file = path_of(path)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    start = len(MAGIC) + FIXED.itemsize
    pages = data[start:]
    if data[: len(MAGIC)] == MAGIC and len(data) >= start and len(pages) % 4 == 0:
        fixed = np.frombuffer(data, FIXED, 1, len(MAGIC)).copy()
        own, page_size, length = (int(fixed[name][0]) for name in ("own", "page_size", "length"))
        fixed["own"] = 0
        if own == crc32(pages, crc32(fixed.tobytes())) and len(pages) // 4 == -(-length // page_size):
            return Checksums(page_size, length, int(fixed["tables"][0]), np.frombuffer(pages, "<u4"))
    raise ValueError(f"{file} is damaged; delete it to go without checksums")

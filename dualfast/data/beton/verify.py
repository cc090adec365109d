"""Verifying a .beton: its tables, its checksums, and on request every image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dualfast.arguments import as_path, checked_bool
from dualfast.data.beton import checksums
from dualfast.data.beton.format import JPEG
from dualfast.data.beton.parallel import in_order, progress_bar, thread_count
from dualfast.data.beton.reader import Beton, open_beton

CHUNK = 64  # images checked by one thread at a time


def verify(path: str | os.PathLike[str], *, full: bool = False, progress: bool = True) -> Beton:
    """Checks header, tables, pointers, every sample's extent and, when PATH.crc exists, the checksum of every page;
    without it, that each JPEG starts as one. With full=True, also decodes every image.

    Raises ValueError for the first fault; that of a page names the samples in it. Returns the opened file."""
    path, full, progress = as_path("path", path), checked_bool("full", full), checked_bool("progress", progress)
    beton = open_beton(path)
    check_pages(beton, progress)
    if full or beton.sums is None:
        _check_images(beton, full, progress)
    return beton


def _check_images(beton: Beton, full: bool, progress: bool) -> None:
    def check(rows: range) -> int:
        for row in rows:
            if full:
                beton.image(row)
            elif beton.mode[row] == JPEG and os.pread(beton.fd, 2, int(beton.ptr[row])) != b"\xff\xd8":
                raise ValueError(f"sample {row} of {beton.path} does not start as a JPEG does; write it again")
        return len(rows)

    chunks = (range(at, min(at + CHUNK, beton.n_samples)) for at in range(0, beton.n_samples, CHUNK))
    with (
        closing(in_order(check, chunks, thread_count(None))) as counts,
        progress_bar(beton.n_samples, "verifying", progress) as bar,
    ):
        for count in counts:
            bar.update(count)


def check_pages(beton: Beton, progress: bool = False) -> None:
    """Compares every page with its checksum, where there is one. ValueError names the first that differs."""
    sums = beton.sums
    if sums is None:
        return
    with progress_bar(beton.bytes, "verifying", progress, unit="B") as bar:
        pages = checksums.of_pages(beton.fd, sums.page_size, sums.length, thread_count(None), bar.update)
    damaged = np.flatnonzero(pages != sums.pages)
    if len(damaged):
        raise _page_error(beton, sums, damaged)


def _page_error(beton: Beton, sums: checksums.Checksums, damaged: NDArray[np.int64]) -> ValueError:
    """For these pages, at least one: names the first, and the samples in all."""
    table = beton.allocations
    page_of = (table["ptr"] // np.uint64(sums.page_size)).astype(np.int64)
    samples = np.unique(table["sample_id"][np.isin(page_of, damaged)])
    first = int(damaged[0])
    pages_named = (
        f"page {first} (bytes {first * sums.page_size} to {min((first + 1) * sums.page_size, sums.length) - 1})"
    )
    more = f" and {len(damaged) - 1} more pages" if len(damaged) > 1 else ""
    samples_named = f"{len(samples)} samples, {samples[0]} to {samples[-1]}" if len(samples) else "no sample"
    return beton.checksum_error(f"{pages_named}{more}, with {samples_named}, differ{'' if more else 's'}")


def pages_of(ptr: NDArray[np.uint64], size: NDArray[np.uint64], page_size: int) -> NDArray[np.int64]:
    """The pages that hold these extents, ascending."""
    return np.unique(np.concatenate(_ends(ptr, size, page_size)))


def _ends(ptr: NDArray[np.uint64], size: NDArray[np.uint64], page_size: int) -> list[NDArray[np.int64]]:
    """The page of each extent's first byte, and of its last. No extent is larger than a page."""
    last = ptr + np.maximum(size, np.uint64(1)) - np.uint64(1)
    return [(byte // np.uint64(page_size)).astype(np.int64) for byte in (ptr, last)]


def checked_pages(beton: Beton, pages: NDArray[np.int64], threads: int) -> Iterator[int]:
    """Yields each of these pages once it agrees with its checksum; the next ones are read meanwhile. ValueError for the
    first that does not. Of a .beton with checksums."""
    sums = beton.sums
    assert sums is not None, "the caller looks"
    page_crc = partial(checksums.of_page, beton.fd, sums.page_size, sums.length)
    with closing(in_order(page_crc, pages.tolist(), threads)) as values:
        for page, value in zip(pages.tolist(), values, strict=True):
            if value != sums.pages[page]:
                raise _page_error(beton, sums, np.array([page]))
            yield page


class PageCheck:
    """Compares the pages of an open .beton with their checksums when a sample in them is first read, and again after
    somebody wrote to the file. ValueError when it has no checksums."""

    def __init__(self, beton: Beton, threads: int) -> None:
        if beton.sums is None:
            raise ValueError(
                f"{beton.path} has no checksums, the {checksums.path_of(beton.path).name} that dualfast.write makes; "
                "pass verify=None to read it without"
            )
        self._beton, self._sums, self._threads = beton, beton.sums, threads
        self._has_images = np.zeros(len(beton.sums.pages), bool)
        for ends in _ends(beton.ptr, beton.size, beton.sums.page_size):
            self._has_images[ends] = True
        self._expect_all()

    def _expect_all(self) -> None:
        self._modified = self._time()
        self._unchecked, self._n_unchecked = self._has_images.copy(), int(self._has_images.sum())

    def __call__(self, ids: NDArray[np.int64]) -> None:
        """Before these samples are read. ValueError, which names the page, when one differs."""
        if self._time() != self._modified:
            self._expect_all()
        if not self._n_unchecked:
            return
        pages = pages_of(self._beton.ptr[ids], self._beton.size[ids], self._sums.page_size)
        unchecked = pages[self._unchecked[pages]]
        for page in checked_pages(self._beton, unchecked, self._threads) if len(unchecked) else ():
            self._unchecked[page] = False
            self._n_unchecked -= 1

    def _time(self) -> int:
        return os.fstat(self._beton.fd).st_mtime_ns

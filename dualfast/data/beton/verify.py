"""Verifying a .beton: its tables, its checksums, and on request every image."""

from __future__ import annotations

import os
from contextlib import closing

import numpy as np

from dualfast.data.beton import checksums
from dualfast.data.beton.format import JPEG
from dualfast.data.beton.parallel import in_order, progress_bar, thread_count
from dualfast.data.beton.reader import Beton, open_beton

CHUNK = 64  # images checked by one thread at a time


def verify(path: str | os.PathLike[str], *, full: bool = False, progress: bool = True) -> Beton:
    """Checks header, tables, pointers, every sample's extent and, when PATH.crc exists, the checksum of every page;
    without it, that each JPEG starts as one. With full=True, also decodes every image.

    Raises ValueError for the first fault; that of a page names the samples in it. Returns the opened file."""
    beton = open_beton(path)
    if beton.sums is not None:
        _check_pages(beton, beton.sums, progress)
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


def _check_pages(beton: Beton, sums: checksums.Checksums, progress: bool) -> None:
    with progress_bar(beton.bytes, "verifying", progress, unit="B") as bar:
        pages = checksums.of_pages(beton.fd, sums.page_size, sums.length, thread_count(None), bar.update)
    damaged = np.flatnonzero(pages != sums.pages)
    if not len(damaged):
        return
    table = beton.allocations
    page_of = (table["ptr"] // np.uint64(sums.page_size)).astype(np.int64)
    samples = np.unique(table["sample_id"][np.isin(page_of, damaged)])
    first = int(damaged[0])
    pages_named = (
        f"page {first} (bytes {first * sums.page_size} to {min((first + 1) * sums.page_size, sums.length) - 1})"
    )
    more = f" and {len(damaged) - 1} more pages" if len(damaged) > 1 else ""
    samples_named = f"{len(samples)} samples, {samples[0]} to {samples[-1]}" if len(samples) else "no sample"
    raise beton.checksum_error(f"{pages_named}{more}, with {samples_named}, differ{'' if more else 's'}")

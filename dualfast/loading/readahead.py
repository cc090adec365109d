"""Reading ahead: the kernel is told which bytes an epoch needs next, and which it no longer needs."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.loading.read_plan import extents

REQUEST = 1 << 17  # bytes: of a longer request the kernel reads no more than this ahead


class ReadAhead:
    """Requests each window of an order from the kernel before it is visited, sorted by position on disk, and, with
    drop, evicts it from the page cache afterwards. At most two windows are cached.

    ids (n,) in the order visited; starts (w + 1,): window k is ids[starts[k] : starts[k + 1]]."""

    def __init__(self, beton: Beton, ids: NDArray[np.int64], starts: NDArray[np.int64], *, drop: bool) -> None:
        self._beton, self._ids, self._starts, self._drop = beton, ids, starts, drop
        self._oldest = self._next = -1  # the first window still cached, the first not requested in full
        self._requests: NDArray[np.int64] = np.empty((0, 2), np.int64)  # of the window _next
        self._n_sent = 0

    def advance_to(self, first: int, last: int) -> None:
        """ids[first:last] are about to be read, and nothing before them again."""
        begin, window = (np.searchsorted(self._starts, [first, last - 1], side="right") - 1).tolist()
        if self._oldest < 0:
            self._oldest = begin
            self._prepare(begin)
        for done in range(self._oldest, begin):
            self._evict(done)
        self._oldest = begin
        while self._next <= window:
            self._send(len(self._requests))
            self._prepare(self._next + 1)
        if begin == window:  # the next window in step with this one's batches, so that none waits for all of it
            start, end = self._starts[window : window + 2].tolist()
            self._send(-(-len(self._requests) * (last - start) // (end - start)))

    def finish(self) -> None:
        """Everything has been read."""
        for window in range(max(self._oldest, 0), self._next + 1):
            self._evict(window)

    def _prepare(self, window: int) -> None:
        self._next, self._requests, self._n_sent = window, self._requests_of(window), 0

    def _requests_of(self, window: int) -> NDArray[np.int64]:
        """(k, 2) first byte and length, at most REQUEST."""
        if window >= len(self._starts) - 1:
            return np.empty((0, 2), np.int64)
        start, end = self._extents(window)
        counts = -(-(end - start) // REQUEST)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        first = np.repeat(start, counts) + within * REQUEST
        return np.stack([first, np.minimum(REQUEST, np.repeat(end, counts) - first)], 1)

    def _send(self, upto: int) -> None:
        for first, length in self._requests[self._n_sent : upto].tolist():
            os.posix_fadvise(self._beton.fd, first, length, os.POSIX_FADV_WILLNEED)
        self._n_sent = max(self._n_sent, upto)

    def _evict(self, window: int) -> None:
        if self._drop and window < len(self._starts) - 1:
            for first, end in zip(*(bound.tolist() for bound in self._extents(window)), strict=True):
                os.posix_fadvise(self._beton.fd, first, end - first, os.POSIX_FADV_DONTNEED)

    def _extents(self, window: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return extents(self._beton, self._ids[self._starts[window] : self._starts[window + 1]])

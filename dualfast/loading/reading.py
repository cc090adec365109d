"""Which bytes of a .beton an epoch reads, and when: the plan made before it begins, the reading ahead while it runs."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.loading import order
from dualfast.loading.order import BLOCK

PIECE = 1 << 17  # bytes: the kernel reads ahead no more than this for one request


@dataclass(frozen=True)
class ReadPlan:
    """What an epoch over a selection reads from a cold disk. All in bytes but the counts and `spread`.

    needed: the selected samples' data. read: the blocks of 4 KiB they lie on, each read once. memory: the most of the
    file that has to stay in memory for that; in random order that is everything. spread: order.spread of the epoch, 1
    for a full shuffle. compacted: the size of a compact copy."""

    n_selected: int
    n_samples: int
    needed: int
    read: int
    memory: int
    pages: int
    n_pages: int
    spread: float
    compacted: int

    @property
    def amplification(self) -> float:
        """read / needed."""
        return self.read / self.needed

    @property
    def compacting_pays_after(self) -> float:
        """Epochs after which one compact copy, `needed` read and `compacted` written, has cost fewer bytes than going
        on with this file; inf where each epoch reads no less from the copy."""
        saved = self.read - self.compacted
        return (self.read + self.compacted) / saved if saved > 0 else float("inf")

    def __str__(self) -> str:
        pays = self.compacting_pays_after
        return "\n".join(
            (
                f"samples   {self.n_selected:,} of {self.n_samples:,}, on {self.pages:,} of {self.n_pages:,} pages",
                f"needed    {self.needed / 1e6:,.1f} MB",
                f"read      {self.read / 1e6:,.1f} MB an epoch from a cold disk, {self.amplification:.2f} x needed",
                f"memory    {self.memory / 1e6:,.1f} MB of the file at once",
                f"shuffling {self.spread:.3f} of a full shuffle's distance between neighbours",
                "compact   "
                + (
                    f"pays after {pays:,.0f} epochs ({self.compacted / 1e6:,.1f} MB)"
                    if pays < 1000
                    else "saves no reading worth a copy"
                ),
            )
        )


def extents(beton: Beton, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and end byte of the runs of whole blocks on which the images of ids lie, ascending."""
    ids = ids[np.argsort(beton.ptr[ids])]
    start = beton.ptr[ids].astype(np.int64) // BLOCK * BLOCK
    end = -(-(beton.ptr[ids] + beton.size[ids]).astype(np.int64) // BLOCK) * BLOCK
    new = np.flatnonzero(np.concatenate([[True], start[1:] > end[:-1]]))
    return start[new], np.maximum.reduceat(end, new)


def plan(beton: Beton, ids: NDArray[np.int64], kind: order.Kind, seed: int) -> ReadPlan:
    """What an epoch over `ids` in the order `kind` reads: see ReadPlan."""
    added = np.zeros(beton.n_samples, np.int64)
    added[ids] = order.block_bytes(beton.ptr[ids], beton.size[ids])
    read, needed = int(added.sum()), int(beton.size[ids].sum())
    visited, starts = order.epoch_order(kind, ids, seed, 0, beton)
    if kind != "random":
        a_window = np.add.reduceat(added[visited], starts[:-1])
        memory = int((a_window + np.append(a_window[1:], 0)).max())
    else:
        memory = read
    return ReadPlan(
        n_selected=len(ids),
        n_samples=beton.n_samples,
        needed=needed,
        read=read,
        memory=memory,
        pages=len(np.unique(beton.ptr[ids] // np.uint64(beton.page_size))),
        n_pages=len(np.unique(beton.ptr // np.uint64(beton.page_size))),
        spread=order.spread(visited),
        compacted=-(-needed // BLOCK) * BLOCK,
    )


class ReadAhead:
    """Has the kernel read each window of an order before it is visited, in the order of the disk, and, with drop,
    forget it afterwards. No more than two windows are held.

    ids (n,) in the order visited; starts (w + 1,): window k is ids[starts[k] : starts[k + 1]]."""

    def __init__(self, beton: Beton, ids: NDArray[np.int64], starts: NDArray[np.int64], *, drop: bool) -> None:
        self.beton, self.ids, self.starts, self.drop = beton, ids, starts, drop
        self.held = self.next = -1  # the first window that is held, the first that is not asked for in full
        self.pieces: NDArray[np.int64] = np.empty((0, 2), np.int64)  # of the window `next`
        self.asked = 0

    def before(self, first: int, last: int) -> None:
        """ids[first:last] are about to be read, and nothing before them any more."""
        begin, window = (np.searchsorted(self.starts, [first, last - 1], side="right") - 1).tolist()
        if self.held < 0:
            self.held = begin
            self._turn_to(begin)
        for done in range(self.held, begin):
            self._forget(done)
        self.held = begin
        while self.next <= window:
            self._ask(len(self.pieces))
            self._turn_to(self.next + 1)
        if begin == window:  # the next one is read as this one is visited, so that no batch has to wait for all of it
            start, end = self.starts[window : window + 2].tolist()
            self._ask(-(-len(self.pieces) * (last - start) // (end - start)))

    def end(self) -> None:
        """All has been read."""
        for window in range(max(self.held, 0), self.next + 1):
            self._forget(window)

    def _turn_to(self, window: int) -> None:
        self.next, self.pieces, self.asked = window, self._pieces(window), 0

    def _pieces(self, window: int) -> NDArray[np.int64]:
        """(k, 2) first byte and length, each at most PIECE."""
        if window >= len(self.starts) - 1:
            return np.empty((0, 2), np.int64)
        start, end = extents(self.beton, self.ids[self.starts[window] : self.starts[window + 1]])
        counts = -(-(end - start) // PIECE)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        first = np.repeat(start, counts) + within * PIECE
        return np.stack([first, np.minimum(PIECE, np.repeat(end, counts) - first)], 1)

    def _ask(self, upto: int) -> None:
        for first, length in self.pieces[self.asked : upto].tolist():
            os.posix_fadvise(self.beton.fd, first, length, os.POSIX_FADV_WILLNEED)
        self.asked = max(self.asked, upto)

    def _forget(self, window: int) -> None:
        if self.drop and window < len(self.starts) - 1:
            start, end = extents(self.beton, self.ids[self.starts[window] : self.starts[window + 1]])
            for first, last in zip(start.tolist(), end.tolist(), strict=True):
                os.posix_fadvise(self.beton.fd, first, last - first, os.POSIX_FADV_DONTNEED)

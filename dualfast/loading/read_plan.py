"""Which bytes of a .beton an epoch reads, known before it begins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.loading import order
from dualfast.loading.order import BLOCK


@dataclass(frozen=True)
class ReadPlan:
    """What an epoch over a selection reads from a cold disk. In bytes, except the counts and `spread`.

    needed: the selected samples' data. read: the blocks of 4 KiB that hold them, each read once. memory: the most of
    the file that must stay in memory so that each block is read once; in random order all that is read. spread:
    order.spread of the epoch, 1 for a full shuffle. compacted: the size of a compact copy."""

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
        """Epochs after which reading a compact copy has cost fewer bytes than reading this file, making it included
        (`read` read and `compacted` written); inf where an epoch reads no less from the copy."""
        saved = self.read - self.compacted
        return (self.read + self.compacted) / saved if saved > 0 else float("inf")

    def __str__(self) -> str:
        pays = self.compacting_pays_after
        return "\n".join(
            (
                f"samples   {self.n_selected:,} of {self.n_samples:,}, on {self.pages:,} of {self.n_pages:,} pages",
                f"needed    {self.needed / 1e6:,.1f} MB",
                f"read      {self.read / 1e6:,.1f} MB per epoch from a cold disk, {self.amplification:.2f} x needed",
                f"memory    {self.memory / 1e6:,.1f} MB of the file at once",
                f"shuffling {self.spread:.3f} of a full shuffle's distance between neighbours",
                "compact   "
                + (
                    f"pays after {pays:,.0f} epochs ({self.compacted / 1e6:,.1f} MB)"
                    if pays < 1000
                    else "would save next to nothing"
                ),
            )
        )


def extents(beton: Beton, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First byte and end, ascending, of the runs of whole blocks that hold the images of ids."""
    ids = ids[np.argsort(beton.ptr[ids])]
    start = beton.ptr[ids].astype(np.int64) // BLOCK * BLOCK
    end = -(-(beton.ptr[ids] + beton.size[ids]).astype(np.int64) // BLOCK) * BLOCK
    new = np.flatnonzero(np.concatenate([[True], start[1:] > end[:-1]]))
    return start[new], np.maximum.reduceat(end, new)


def plan(beton: Beton, ids: NDArray[np.int64], kind: order.OrderKind, seed: int) -> ReadPlan:
    """What an epoch over `ids` in the order `kind` reads: see ReadPlan."""
    added = np.zeros(beton.n_samples, np.int64)
    added[ids] = order.block_bytes(beton.ptr[ids], beton.size[ids])
    read, needed = int(added.sum()), int(beton.size[ids].sum())
    visited, starts = order.epoch_order(kind, ids, seed, 0, beton)
    if kind != "random":
        window_bytes = np.add.reduceat(added[visited], starts[:-1])
        memory = int((window_bytes + np.append(window_bytes[1:], 0)).max())
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

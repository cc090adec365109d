"""In which order samples are visited: pure functions of (seed, epoch), the same for any number of workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.data.beton import Beton

PAGES = 1 << 62  # pages draw from the shuffle's keys beyond all sample ids
BLOCK = 4096  # bytes: what the kernel reads at least
WINDOW = 1 << 24  # bytes that are read ahead in sequential order


def random_order(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """ids shuffled. Each id's place follows a 64-bit Philox key of (seed, epoch, id), so a subset keeps the relative
    order it has in the full shuffle; equal keys fall back on the id."""
    ids = np.sort(ids)
    return ids[np.argsort(ops.order_keys(ids, seed, epoch), kind="stable")]


@dataclass(frozen=True)
class PageRandom:
    """Random within windows of whole pages, for a file larger than memory: the pages that hold a selected sample come
    in random order, those that fit into half of budget_bytes together make a window, and the window's samples are
    shuffled. Each page is read once, from its first to its last sample; two windows, the one in use and the one being
    read, are within budget_bytes, as long as no batch is larger than a window."""

    budget_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if isinstance(self.budget_bytes, bool) or not isinstance(self.budget_bytes, int | np.integer):
            raise TypeError(f"budget_bytes is {self.budget_bytes!r}; give an integer")
        if self.budget_bytes < 1:
            raise ValueError(f"budget_bytes is {self.budget_bytes}; give the bytes that may be held in memory")


Kind: TypeAlias = Literal["random", "sequential"] | PageRandom


def epoch_order(
    kind: Kind, ids: NDArray[np.int64], seed: int, epoch: int, beton: Beton
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids in the order of an epoch, and where each window of it starts, ending with len(ids): what is read ahead
    together, all of it in random order. A pure function of its arguments."""
    if kind == "random":
        return random_order(ids, seed, epoch), np.array([0, len(ids)])
    if kind == "sequential":
        ends = np.cumsum(block_bytes(beton.ptr[ids], beton.size[ids]))
        return ids, np.append(np.flatnonzero(np.diff(ends // WINDOW, prepend=-1)), len(ids))
    ids = np.sort(ids)
    held = block_bytes(beton.ptr[ids], beton.size[ids])
    return page_random_order(ids, beton.ptr[ids] // np.uint64(beton.page_size), held, kind.budget_bytes, seed, epoch)


def block_bytes(ptr: NDArray[np.uint64], size: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bytes that reading each extent adds in whole blocks, those it shares with an earlier one being there already."""
    at = np.argsort(ptr, kind="stable")
    start = ptr[at].astype(np.int64) // BLOCK
    end = -(-(ptr[at] + size[at]).astype(np.int64) // BLOCK)
    added = np.empty(len(ptr), np.int64)
    added[at] = (end - np.maximum(start, np.concatenate([[0], end[:-1]]))) * BLOCK
    return added


def page_random_order(
    ids: NDArray[np.int64],
    pages: NDArray[np.uint64],
    held: NDArray[np.int64],
    budget_bytes: int,
    seed: int,
    epoch: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids (n,), ascending, in the order of PageRandom, and where each window starts. pages and held (n,): the page each
    of them lies on and the bytes it takes in memory. ValueError when two pages do not fit into the budget."""
    used, page_of = np.unique(pages.astype(np.int64), return_inverse=True)
    a_page = np.bincount(page_of, held.astype(np.float64)).astype(np.int64)  # exact: far below 2**53
    half = budget_bytes // 2
    if a_page.max() > half:
        raise ValueError(
            f"budget_bytes is {budget_bytes}; a page holds up to {a_page.max()} bytes of selected samples and two must "
            f"fit; give at least {2 * a_page.max()}"
        )
    shuffled = np.searchsorted(used, random_order(used + PAGES, seed, epoch) - PAGES)
    ends = np.cumsum(a_page[shuffled])
    window_of = np.empty(len(used), np.int64)
    first = window = 0
    while first < len(used):
        last = int(np.searchsorted(ends, (ends[first - 1] if first else 0) + half, side="right"))
        window_of[shuffled[first:last]] = window
        first, window = last, window + 1
    windows = window_of[page_of]
    starts = np.concatenate([[0], np.cumsum(np.bincount(windows))])
    return ids[np.lexsort((ops.order_keys(ids, seed, epoch), windows))], starts


def spread(visited: NDArray[np.int64]) -> float:
    """How far apart an order takes samples that are neighbours in the file, on average, over the n/3 places of a full
    shuffle: 1 for a full shuffle, about w/n in windows of w samples, 3/n for the file's own order."""
    n = len(visited)
    if n < 2:
        return 1.0
    return float(np.abs(np.diff(np.argsort(visited, kind="stable"))).mean() / (n / 3))


@dataclass(frozen=True)
class Share:
    """What one rank visits in an epoch: batch k is ids[starts[k] : starts[k + 1]]. The last `padding` ids repeat
    samples that another rank visits, one a batch, only so that every rank takes as many steps; they are not to be
    scored."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    padding: int

    def __len__(self) -> int:
        return len(self.starts) - 1


Leg: TypeAlias = tuple[int, int, int]
"""A stretch of an epoch: batch_size, world_size, and how many batches every rank took."""


def left_over(n: int, legs: Sequence[Leg], drop_last: bool) -> NDArray[np.bool_]:
    """Which places of an epoch's order of n samples are still to be visited after legs, each of which shared what the
    one before had left."""
    left = np.ones(n, np.bool_)
    for batch_size, world_size, batches in legs:
        places = np.flatnonzero(left)
        for rank in range(world_size):
            mine = share(places, batch_size, rank=rank, world_size=world_size, drop_last=drop_last)
            left[mine.ids[: mine.starts[batches]]] = False
    return left


def n_batches(n: int, batch_size: int, world_size: int, drop_last: bool) -> int:
    """Steps of every rank in an epoch over n samples."""
    a_step = batch_size * world_size
    return n // a_step if drop_last else -(-n // a_step)


def share(
    order: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1, drop_last: bool = False
) -> Share:
    """The part of `order` that `rank` of `world_size` visits, in batches of at most batch_size.

    Over all ranks every sample comes exactly once, and every rank takes ceil(n / (batch_size * world_size)) steps, the
    tail being spread so that no batch is empty; a rank that has fewer samples than steps pads (Share.padding). With
    drop_last every batch is full and the tail of order is left out."""
    steps = n_batches(len(order), batch_size, world_size, drop_last)
    if drop_last:
        order = order[: steps * batch_size * world_size]
    mine = np.ascontiguousarray(order[rank::world_size])
    padding = max(0, steps - len(mine))
    if padding:
        mine = np.concatenate([mine, np.resize(order, padding)])
    # As full as can be while each later batch still gets one.
    ends = np.minimum(np.arange(1, steps + 1) * batch_size, len(mine) - np.arange(steps - 1, -1, -1))
    return Share(mine, np.concatenate([[0], ends]).astype(np.int64), padding)

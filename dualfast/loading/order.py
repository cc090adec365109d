"""The order of an epoch and how ranks share it: pure functions of (seed, epoch), the same for any num_workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.data.beton import Beton

PAGE_IDS = 1 << 62  # pages are shuffled by the same keys as samples, with ids beyond all of theirs
BLOCK = 4096  # bytes: the least that the kernel reads
WINDOW = 1 << 24  # bytes that are read ahead at a time in sequential order


def random_order(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """ids shuffled: sorted by a 64-bit Philox key of (seed, epoch, id), so that a subset keeps the relative order that
    it has in the full shuffle; ties go to the lower id."""
    ids = np.sort(ids)
    return ids[np.argsort(ops.order_keys(ids, seed, epoch), kind="stable")]


@dataclass(frozen=True)
class PageRandom:
    """Random within windows of whole pages, for a file larger than memory: the pages that hold a selected sample are
    shuffled, as many as fit into half of budget_bytes make a window, and the samples of a window are shuffled. Each
    page is read once, from its first to its last selected sample; two windows, the one in use and the one being read,
    fit into budget_bytes, as long as no batch is larger than a window."""

    budget_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if isinstance(self.budget_bytes, bool) or not isinstance(self.budget_bytes, int | np.integer):
            raise TypeError(f"budget_bytes is {self.budget_bytes!r}; give an integer")
        if self.budget_bytes < 1:
            raise ValueError(f"budget_bytes is {self.budget_bytes}; give the bytes that may be held in memory")


OrderKind: TypeAlias = Literal["random", "sequential"] | PageRandom


def order_kind(order: Any) -> OrderKind:
    """The order that Loader's argument asks for: a name, an FFCV OrderOption, or PageRandom. ValueError for others."""
    if isinstance(order, PageRandom):
        return order
    kinds: dict[str, OrderKind] = {"random": "random", "sequential": "sequential"}
    kinds |= dict.fromkeys(("page_random", "quasi_random"), PageRandom())
    name = getattr(order, "name", order)  # of an OrderOption
    if isinstance(name, str) and name.lower() in kinds:
        return kinds[name.lower()]
    raise ValueError(
        f'order is {order!r}; give "random", "sequential", "page_random", PageRandom(budget_bytes) or an OrderOption'
    )


def epoch_order(
    kind: OrderKind, ids: NDArray[np.int64], seed: int, epoch: int, beton: Beton
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids in the order of an epoch, and where each window starts in it, followed by len(ids). A window is what is read
    ahead together; random order is one window. A pure function of its arguments."""
    if kind == "random":
        return random_order(ids, seed, epoch), np.array([0, len(ids)])
    if kind == "sequential":
        ends = np.cumsum(block_bytes(beton.ptr[ids], beton.size[ids]))
        return ids, np.append(np.flatnonzero(np.diff(ends // WINDOW, prepend=-1)), len(ids))
    ids = np.sort(ids)
    sizes = block_bytes(beton.ptr[ids], beton.size[ids])
    return page_random_order(ids, beton.ptr[ids] // np.uint64(beton.page_size), sizes, kind.budget_bytes, seed, epoch)


def block_bytes(ptr: NDArray[np.uint64], size: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(n,) bytes, in whole blocks, that each extent adds to what is read; a block shared with an earlier extent counts
    there."""
    at = np.argsort(ptr, kind="stable")
    start = ptr[at].astype(np.int64) // BLOCK
    end = -(-(ptr[at] + size[at]).astype(np.int64) // BLOCK)
    added = np.empty(len(ptr), np.int64)
    added[at] = (end - np.maximum(start, np.concatenate([[0], end[:-1]]))) * BLOCK
    return added


def page_random_order(
    ids: NDArray[np.int64],
    pages: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    budget_bytes: int,
    seed: int,
    epoch: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """ids (n,), ascending, in the order of PageRandom, and where each window starts. pages and sizes (n,): the page of
    each sample and the bytes it takes in memory. ValueError when two pages do not fit into the budget."""
    used, page_of = np.unique(pages.astype(np.int64), return_inverse=True)
    page_bytes = np.bincount(page_of, sizes.astype(np.float64)).astype(np.int64)  # exact: far below 2**53
    half = budget_bytes // 2
    if page_bytes.max() > half:
        raise ValueError(
            f"budget_bytes is {budget_bytes}; a page holds up to {page_bytes.max()} bytes of selected samples and two "
            f"must fit; give at least {2 * page_bytes.max()}"
        )
    shuffled = np.searchsorted(used, random_order(used + PAGE_IDS, seed, epoch) - PAGE_IDS)
    ends = np.cumsum(page_bytes[shuffled])
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
    """How well an order shuffles: the mean distance in it between samples that are neighbours in the file, divided by
    n/3, that of a full shuffle. 1 for a full shuffle, about w/n in windows of w samples, 3/n for the file's own
    order."""
    n = len(visited)
    if n < 2:
        return 1.0
    return float(np.abs(np.diff(np.argsort(visited, kind="stable"))).mean() / (n / 3))


# ---- sharing an epoch between ranks ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """What one rank visits in an epoch: batch k is ids[starts[k] : starts[k + 1]]. The last `padding` ids repeat
    samples that another rank visits, one per batch, so that every rank takes as many steps; they must not be scored."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    padding: int

    def __len__(self) -> int:
        return len(self.starts) - 1


def share(
    order: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1, drop_last: bool = False
) -> Share:
    """The part of `order` that `rank` of `world_size` visits, in batches of at most batch_size.

    Over all ranks every sample comes exactly once, and every rank takes ceil(n / (batch_size * world_size)) steps; the
    last batches shrink so that none is empty, and a rank with fewer samples than steps pads (Share.padding). With
    drop_last every batch is full and the tail of order is left out."""
    steps = n_batches(len(order), batch_size, world_size, drop_last)
    if drop_last:
        order = order[: steps * batch_size * world_size]
    ids = np.ascontiguousarray(order[rank::world_size])
    padding = max(0, steps - len(ids))
    if padding:
        ids = np.concatenate([ids, np.resize(order, padding)])
    # Each batch as full as leaves one sample for every later one.
    ends = np.minimum(np.arange(1, steps + 1) * batch_size, len(ids) - np.arange(steps - 1, -1, -1))
    return Share(ids, np.concatenate([[0], ends]).astype(np.int64), padding)


def n_batches(n: int, batch_size: int, world_size: int, drop_last: bool) -> int:
    """Steps of every rank in an epoch over n samples."""
    per_step = batch_size * world_size
    return n // per_step if drop_last else -(-n // per_step)


class EpochSegment(NamedTuple):
    """A part of an epoch that one number of ranks visited: every one of them took `batches` batches."""

    batch_size: int
    world_size: int
    batches: int


def unvisited(n: int, segments: Sequence[EpochSegment], drop_last: bool) -> NDArray[np.bool_]:
    """(n,) which positions of an epoch's order are still to be visited after segments, each of which shared what the
    one before had left."""
    left = np.ones(n, np.bool_)
    for batch_size, world_size, batches in segments:
        positions = np.flatnonzero(left)
        for rank in range(world_size):
            visited = share(positions, batch_size, rank=rank, world_size=world_size, drop_last=drop_last)
            left[visited.ids[: visited.starts[batches]]] = False
    return left

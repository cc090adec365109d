"""select from scores that no process holds whole: each rank has its own, and the ids kept are the same on all."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dualfast import ops
from dualfast.comm.collectives import gather_rows, wire_device
from dualfast.config import GivenCD
from dualfast.scoring.table import Scores
from dualfast.selection import beta
from dualfast.selection.select import LOW_IS_KEPT, bad_scores, check_method, filled_up, kept_count

RADIX_BITS = 16


def select(
    scores: Scores,
    prune_ratio: float,
    *,
    method: str = "dual+beta",
    c_d: GivenCD = 4.0,
    seed: int = 0,
    group: Any = None,
    keep: Literal["high", "low"] | None = None,
) -> NDArray[np.int64]:
    """dualfast.select from scores that no process holds whole: the same ids, sorted, on every rank.

    scores: this rank's ShardedTable.local_scores(). method: "dual+beta", "random" or a score by name. Only histograms
    of keys and the ids kept travel, for c_d="auto" the dual and mean of 65,536 samples too. Raises as dualfast.select
    does, on every rank; for "ccs", "stratified" and quotas, which look at all scores at once, ValueError: gather them.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    error: Exception | None = None
    columns: list[NDArray[np.float64]] = []
    ids = rank + size * np.arange(len(scores), dtype=np.int64)
    counts = _sum(np.array([len(scores)]), group)
    if counts[0] < 1:
        raise ValueError("there are 0 samples to select from; give the scores of at least one")
    n = kept_count(int(counts[0]), prune_ratio)
    try:
        columns = _columns(scores, ids, method, keep)
    except (ValueError, TypeError) as raised:
        error = raised
    if _sum(np.array([error is not None]), group)[0]:
        raise error or ValueError(f"another rank cannot select by {method!r}; its message says why")
    if method == "random":
        keys = ops.race_keys(ops.Race(len(ids), seed, ids=ids))
    elif method == "dual+beta":
        mu = _mu(scores, group)
        if c_d == "auto":
            c_d = beta.auto_from(_thin(scores, int(counts[0]), group), mu, prune_ratio)
            if rank == 0:
                warnings.warn(f"c_d auto is {c_d:g} for these scores at {prune_ratio:g}", stacklevel=2)
        law, (dual, mean) = beta.beta_from(mu, prune_ratio, c_d), columns
        keys = ops.race_keys(ops.Race(len(ids), seed, dual, mean, law.a, law.b, ids))
        positive = int(_sum(np.array([np.count_nonzero(dual)]), group)[0])
        if rank == 0 and positive < n:
            warnings.warn(filled_up(positive, int(counts[0]), n), stacklevel=2)
    else:
        low = (keep or ("low" if method in LOW_IS_KEPT else "high")) == "low"
        keys = columns[0] if low else -columns[0]
    mine = ids[_smallest(keys, ids, n, group)]
    parts = gather_rows(torch.from_numpy(mine), group)
    assert parts is not None
    return np.sort(torch.cat(parts).numpy())


def _mu(scores: Scores, group: Any) -> float:
    """Average `mean` of the ten samples of highest dual over all ranks, added up in the order one process has them."""
    top = ops.largest(np.ascontiguousarray(scores.dual), beta.TOP_SAMPLES)
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    mine = np.stack([-scores.dual[top], top * size + rank, scores.mean[top]], 1).astype(np.float64)
    parts = gather_rows(torch.from_numpy(mine), group)
    assert parts is not None
    rows = torch.cat(parts).numpy()
    first = rows[np.lexsort((rows[:, 1], rows[:, 0]))][: beta.TOP_SAMPLES]
    return float(np.ascontiguousarray(first[:, 2]).mean()) if len(first) else float("nan")


def _thin(scores: Scores, total: int, group: Any) -> beta.Thin:
    """The samples, of all ranks', that one process takes expectations over."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    ids = beta.thinned(total)
    ids = ids[ids % size == rank]
    mine = np.stack([ids, scores.dual[ids // size], scores.mean[ids // size]], 1).astype(np.float64)
    parts = gather_rows(torch.from_numpy(mine), group)
    assert parts is not None
    rows = torch.cat(parts).numpy()
    rows = rows[np.argsort(rows[:, 0])]
    return beta.Thin(np.ascontiguousarray(rows[:, 1]), np.ascontiguousarray(rows[:, 2]))


def _columns(scores: Scores, ids: NDArray[np.int64], method: str, keep: str | None) -> list[NDArray[np.float64]]:
    """What the method reads of this rank's scores, checked."""
    check_method(method, {} if keep is None else {"keep": keep})
    if method in ("ccs", "stratified"):
        raise ValueError(f"method {method!r} needs all scores at once; use table.scores() and select")
    columns = []
    for name in {"dual+beta": ("dual", "mean"), "random": ()}.get(method, (method,)):
        column = getattr(scores, name)
        if column is None:
            raise ValueError(f"the scores have no {name}; gather them with DualLoss")
        bad = bad_scores(name, column)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(f"{name}[{ids[at]}] is {column[at]:g}, with {int(bad.sum())} such samples on this rank")
        columns.append(np.ascontiguousarray(column, np.float64))
    return columns


def _smallest(keys: NDArray[np.float64], ids: NDArray[np.int64], n: int, group: Any) -> NDArray[np.bool_]:
    """Which of this rank's keys are among the n smallest of all ranks; ties go to the lower id."""
    bits = (keys + 0.0).view(np.uint64)  # +0.0: both zeros have the same bits
    negative = bits >> np.uint64(63) != 0
    ranked = np.where(negative, ~bits, bits | np.uint64(1 << 63))
    value, below = _nth(ranked, n, group)
    kept: NDArray[np.bool_] = ranked < value
    tied = np.flatnonzero(ranked == value)
    last, _ = _nth(ids[tied].astype(np.uint64), n - below, group)
    kept[tied] = ids[tied].astype(np.uint64) <= last if n > below else False
    return kept


def _nth(values: NDArray[np.uint64], n: int, group: Any) -> tuple[np.uint64, int]:
    """The n-th smallest (from 1) of all ranks' values and how many are smaller, by histograms of 16 bits at a time."""
    prefix, below = np.uint64(0), 0
    if n < 1:
        return prefix, 0
    for shift in range(64 - RADIX_BITS, -1, -RADIX_BITS):
        digits = (values >> np.uint64(shift) & np.uint64((1 << RADIX_BITS) - 1)).astype(np.int64)
        ends = np.cumsum(_sum(np.bincount(digits, minlength=1 << RADIX_BITS), group))
        digit = int(np.searchsorted(ends, n - below))
        below += int(ends[digit - 1]) if digit else 0
        prefix |= np.uint64(digit) << np.uint64(shift)
        values = values[digits == digit]
    return prefix, below


def _sum(counts: NDArray[Any], group: Any) -> NDArray[np.int64]:
    total = torch.from_numpy(counts.astype(np.int64)).to(wire_device(group))
    dist.all_reduce(total, group=group)
    summed: NDArray[np.int64] = total.cpu().numpy()
    return summed

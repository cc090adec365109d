"""select from scores that no process holds whole: each rank has its own, and the ids kept are the same on all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dualfast import ops
from dualfast.comm.collectives import gather_rows, wire_device
from dualfast.config import DEFAULT_C_D, DEFAULT_METHOD, GivenCD
from dualfast.notices import silent, warn
from dualfast.ops import Floats, Ints
from dualfast.scoring.scores import lacks
from dualfast.scoring.table import Scores
from dualfast.selection import beta
from dualfast.selection.draw import warn_if_filled_up
from dualfast.selection.methods import Columns, KeyedMethod, Samples, bad_scores
from dualfast.selection.quotas import kept_count
from dualfast.selection.spec import SelectionSpec

RADIX_BITS = 16


def select(
    scores: Scores,
    prune_ratio: float,
    *,
    method: str = DEFAULT_METHOD,
    c_d: GivenCD = DEFAULT_C_D,
    seed: int = 0,
    group: Any = None,
    **options: Any,
) -> Ints:
    """dualfast.select from scores that no process holds whole: the same ids, sorted, on every rank.

    scores: this rank's ShardedTable.local_scores(). method: "dual+beta", "random" or a score by name; options: the
    method's, as keep="low". Only histograms
    of keys and the ids kept travel, for c_d="auto" the dual and mean of 65,536 samples too. Raises as dualfast.select
    does, on every rank; for "ccs", "stratified" and quotas, which need all scores at once, ValueError: gather them.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    total = int(_sum(np.array([len(scores)]), group)[0])
    if total < 1:
        raise ValueError("there are 0 samples to select from; give the scores of at least one")
    ids = rank + size * np.arange(len(scores), dtype=np.int64)
    spec: SelectionSpec | None = None
    columns: Columns = ()
    error: Exception | None = None
    try:
        spec = SelectionSpec(prune_ratio=prune_ratio, method=method, c_d=c_d, seed=seed, options=options)
        columns = _columns(scores, ids, spec)
    except (ValueError, TypeError) as raised:
        error = raised
    if _sum(np.array([error is not None]), group)[0]:
        raise error or ValueError(f"another rank cannot select by {method!r}; its message says why")
    assert spec is not None
    statistics = beta.Statistics(lambda: _mu(scores, group), lambda: _subset(scores, total, group))
    spec = spec.resolve(statistics, warn if rank == 0 else silent)
    fit = spec.configured.fit(statistics, spec.prune_ratio)
    assert isinstance(fit, KeyedMethod)
    samples = Samples(len(ids), spec.seed, columns, ids)
    n = kept_count(total, spec.prune_ratio)
    positive = int(_sum(np.array([fit.n_positive(samples)]), group)[0])
    if rank == 0:
        warn_if_filled_up(positive, total, n)
    kept = ids[_smallest(fit.keys(samples), ids, n, group)]
    return np.sort(_gather(kept, group))


def _mu(scores: Scores, group: Any) -> float:
    """Average `mean` of the ten samples of highest dual over all ranks, added up in the order one process has them."""
    top = ops.largest(np.ascontiguousarray(scores.dual), beta.TOP_SAMPLES)
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    rows = _gather(np.stack([-scores.dual[top], top * size + rank, scores.mean[top]], 1).astype(np.float64), group)
    hardest = rows[np.lexsort((rows[:, 1], rows[:, 0]))][: beta.TOP_SAMPLES]
    return float(np.ascontiguousarray(hardest[:, 2]).mean()) if len(hardest) else math.nan


def _subset(scores: Scores, total: int, group: Any) -> beta.ScoreSubset:
    """The samples, over all ranks, that one process takes expectations over."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    ids = beta.subset_positions(total)
    ids = ids[ids % size == rank]
    rows = _gather(np.stack([ids, scores.dual[ids // size], scores.mean[ids // size]], 1).astype(np.float64), group)
    rows = rows[np.argsort(rows[:, 0])]
    return beta.ScoreSubset(np.ascontiguousarray(rows[:, 1]), np.ascontiguousarray(rows[:, 2]))


def _columns(scores: Scores, ids: Ints, spec: SelectionSpec) -> Columns:
    """The columns that the method needs of this rank's scores, checked."""
    if not spec.can_stream:
        raise ValueError(f"method {spec.method!r} needs all scores at once; use table.scores() and select")
    columns = []
    for name in spec.configured.columns:
        column = getattr(scores, name)
        if column is None:
            raise lacks(name)
        bad = bad_scores(name, column)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"{name}[{ids[at]}] is {column[at]:g}, with {int(bad.sum())} such samples on this rank; leave them out "
                "with select(table.scores(), ..., skip_unscored=True)"
            )
        columns.append(np.ascontiguousarray(column, np.float64))
    return tuple(columns)


def _smallest(keys: Floats, ids: Ints, n: int, group: Any) -> NDArray[np.bool_]:
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


def _sum(counts: NDArray[Any], group: Any) -> Ints:
    total = torch.from_numpy(counts.astype(np.int64)).to(wire_device(group))
    dist.all_reduce(total, group=group)
    summed: Ints = total.cpu().numpy()
    return summed


def _gather(rows: NDArray[Any], group: Any) -> NDArray[Any]:
    """The rows of all ranks, in order of rank, on every rank."""
    parts = gather_rows(torch.from_numpy(rows), group)
    assert parts is not None
    gathered: NDArray[Any] = torch.cat(parts).numpy()
    return gathered

"""Cuts at given ranks of a column within each group, exact and in a few passes at the speed of memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dualfast import ops
from dualfast.ops import Cuts, DigitLevel, Groups, Ints, Ranking

SLOTS = 1 << 20  # counters of a histogram, over all threads, to stay in the second-level caches
FEWEST_SLOTS = 1 << 12  # where there are few samples, as zeroing more takes longer than another pass
FEW = 1 / 8  # of the samples, which are taken out for the rest of the search


def ranking_of(column: ops.Column, groups: Groups = ops.ALL, descending: bool = False) -> Ranking:
    """Of a column; where counters are shared by many groups, with integers from 0 up, so that the first digits differ
    already."""
    ranking = Ranking(column, groups, descending, bits=8 * column.itemsize)
    if groups.numbers is None:
        return ranking
    low, high = ops.extents(replace(ranking, groups=Groups(allowed=groups.allowed)))
    base = min(int(low[0]), int(high[0]))  # where nothing may be drawn there is no smallest
    return replace(ranking, base=base, bits=(int(high[0]) - base).bit_length())


def cuts_at(ranking: Ranking, ranks: Ints, threads: int | None = None) -> Cuts:
    """The cuts below which ranks[g, k] samples of group g lie; ranks (groups, K) int64, ascending in each row, at most
    the size of the group.

    Each pass counts the next digits of the integers near the cuts, as many as the counters suffice for, until no
    samples of different values are left on both sides.
    """
    threads = threads or torch.get_num_threads()
    keys, ties, left = np.zeros(ranks.size, np.uint64), np.zeros(ranks.size, np.int64), ranks.flatten()
    where = np.flatnonzero(left)  # the cuts that are not known yet; nothing is below the key 0
    node, nodes = where // ranks.shape[1], ranking.groups.count
    levels: list[DigitLevel] = []
    shift = ranking.bits
    while len(where):
        slots = min(SLOTS // threads, max(2 * len(ranking.column), FEWEST_SLOTS))
        bits = min(max((slots // nodes).bit_length() - 1, 2), shift)
        shift -= bits
        counts = ops.digit_histogram(ranking, levels, shift, bits, nodes, threads)
        ends = np.concatenate([[0], np.cumsum(counts)])
        target = ends[node << bits] + left[where]
        slot = np.searchsorted(ends[1:], target, side="right")
        whole = slot >= (node + 1) << bits  # all samples of the group are below
        keys[where[whole]] = np.iinfo(np.uint64).max
        where, target, slot = where[~whole], target[~whole], slot[~whole]
        left[where] = target - ends[slot]
        keys[where] |= (slot & ((1 << bits) - 1)).astype(np.uint64) << np.uint64(shift)
        if shift == 0:
            ties[where] = left[where]
            break
        divided = left[where] > 0
        where, slot = where[divided], slot[divided]
        needed, node = np.unique(slot, return_inverse=True)
        child = np.full(nodes << bits, -1, np.int32)
        child[needed] = np.arange(len(needed))
        levels.append(DigitLevel(shift, bits, child))
        nodes = len(needed)
        if counts[needed].sum() < FEW * len(ranking.column):
            positions, numbers = ops.at_nodes(ranking, levels, threads)
            ranking, levels = replace(ranking, column=ranking.column[positions], groups=Groups(nodes, numbers)), []
    return Cuts(keys.reshape(ranks.shape), ties.reshape(ranks.shape))

"""The draw: n of N samples by an exponential race, for columns in memory or in pieces from a file.

A probe of N^(2/3) exact keys brackets the threshold. One pass in float32 decides nearly every sample and orders the
undecided ones well enough that only those next to the threshold need exact keys. The result is that of exact keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.notices import warn
from dualfast.ops import Bits, Floats, Ints, Race

NO_PROBE_UP_TO = 8192  # samples; a smaller set is decided without a probe
EVERYTHING = (-math.inf, math.inf)


@dataclass(frozen=True)
class Pool:
    """What may be drawn: quotas (groups.count,) says how many samples of each group; the forced, ascending ids that are
    in no group, are kept in any case, beyond the quotas."""

    quotas: Ints
    groups: ops.Groups = ops.ALL
    forced: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, n: int) -> Pool:
        """n of all samples."""
        return cls(np.array([n], np.int64))

    @property
    def n(self) -> int:
        """How many samples are kept, the forced ones included."""
        return int(self.quotas.sum()) + len(self.forced)

    def members(self, n_samples: int) -> Iterator[tuple[Ints, int]]:
        """The ascending positions of each group, and its quota."""
        groups = self.groups
        where = np.arange(n_samples)
        if groups.allowed is not None:
            where = np.flatnonzero(np.unpackbits(groups.allowed, count=n_samples, bitorder="little"))
        if groups.numbers is not None:
            where = where[np.argsort(groups.numbers[where], kind="stable")]
        ends = np.cumsum(groups.sizes(n_samples))
        yield from zip(np.split(where, ends)[: groups.count], self.quotas.tolist(), strict=True)

    def ids(self, bits: Bits, threads: int | None = None, out: Ints | None = None) -> Ints:
        """The ascending ids kept, given the bits of those drawn."""
        ops.set_bits(bits, self.forced)
        return ops.positions(bits, self.n, threads, out)


def draw(race: Race, pool: Pool, threads: int | None = None) -> tuple[Ints, Floats]:
    """The ascending positions of the samples of each group with the smallest race_keys, as many as its quota, ties to
    the lower position, and the forced ones; and the largest key that was drawn of each group, -inf where it is not
    known but not one of a weight of zero.

    The same for any number of threads and any processor. Raises ValueError as ops.classify does.
    """
    if pool.groups.numbers is None:
        return _draw_from_one(race, pool, threads)
    return _draw_by_groups(race, pool, threads)


def _draw_from_one(race: Race, pool: Pool, threads: int | None) -> tuple[Ints, Floats]:
    allowed, n = pool.groups.allowed, int(pool.quotas[0])
    where = probe(0, race.count, race.count)
    total = race.count
    if allowed is not None:
        where, total = where[ops.bits_at(allowed, where)], ops.count_bits(allowed)
    low, high = bracket(ops.race_keys(race, where, threads), n, total)
    drawn = np.empty(pool.n, np.int64)
    while True:
        classified = ops.classify(race, low, high, threads, drawn, allowed)
        missing = n - classified.n_kept
        if 0 <= missing <= len(classified.undecided):
            limits = ratio_limits(classified.ratios, classified.error, missing)
            n_settled, undecided = ops.settle_by_ratio(classified, *limits)
            keys = ops.race_keys(race, undecided, threads)
            chosen = smallest(keys, missing - n_settled)
            last = keys[chosen].max(initial=-math.inf, keepdims=True)
            if (low, high) == EVERYTHING or low <= last <= high:
                ops.set_bits(classified.kept, undecided[chosen])
                return pool.ids(classified.kept, threads, drawn), last
        low, high = EVERYTHING


def _draw_by_groups(race: Race, pool: Pool, threads: int | None) -> tuple[Ints, Floats]:
    """One pass counts the keys of each group in intervals, one classifies all samples against the interval that holds
    the threshold of their group."""
    low, high, origin = brackets(race, pool, threads)
    while True:
        kept, n_kept, undecided = ops.classify_groups(race, pool.groups, low, high, origin, threads)
        keys = ops.race_keys(race, undecided, threads)
        missing = pool.quotas - n_kept
        last = ops.settle_groups(kept, pool.groups, race.count, undecided, keys, missing, low, high)
        unsettled = np.isnan(last)
        if not unsettled.any():
            return pool.ids(kept, threads), last
        assert not (np.isneginf(low) & np.isposinf(high) & unsettled).any(), "a quota exceeds its group"
        low[unsettled], high[unsettled] = EVERYTHING


def brackets(race: Race, pool: Pool, threads: int | None = None) -> tuple[Floats, Floats, float]:
    """(low, high) of each group, between which its threshold lies, all but certainly; and the origin they are measured
    from."""
    n_groups = pool.groups.count
    everything = np.full(n_groups, EVERYTHING[0]), np.full(n_groups, EVERYTHING[1])
    sample = ops.race_keys(race, probe(0, race.count, race.count), threads)
    sample = np.sort(sample[sample < ops.ZERO_WEIGHT_KEY / 2])
    if not len(sample):
        return (*everything, 0.0)
    origin = float(sample[min(int(len(sample) * pool.n / race.count), len(sample) - 1)])
    least, most = max(float(sample[0]), origin - ops.REACH), min(float(sample[-1]), origin + ops.REACH)
    low, high = intervals(*ops.key_histogram(race, pool.groups, least, most, origin, threads), pool.quotas)
    return low, high, origin


@lru_cache(maxsize=1)  # the next selection from the same data takes the same
def probe(first: int, last: int, total: int) -> Ints:
    """The positions in first..last-1 of `total` whose keys estimate the threshold: about total^(2/3) in all, one in
    each of as many equal parts; none of a small set."""
    if total <= NO_PROBE_UP_TO:
        return np.empty(0, np.int64)
    parts = int(total ** (2 / 3))
    width = total / parts
    at = np.arange(int(first / width), min(int(last / width) + 1, parts), dtype=np.float64)
    # The golden ratio spreads the places within their parts, so that no period in the data coincides with ours.
    turns = at * 0.6180339887498949
    where = ((at + turns - np.floor(turns)) * width).astype(np.int64)
    where = where[(where >= first) & (where < last)]
    where.flags.writeable = False
    return where


def bracket(sample: Floats, n: int, total: int) -> tuple[float, float]:
    """(low, high) between which the n-th smallest key of `total` samples lies, all but certainly (five standard
    deviations), given the keys of a probe of them."""
    share = n / total
    spread = 5 * math.sqrt(len(sample) * share * (1 - share)) + 5
    low, high = (math.floor(len(sample) * share + side) for side in (-spread, spread))
    return (
        float(np.partition(sample, low)[low]) if low >= 0 else -math.inf,
        float(np.partition(sample, high)[high]) if high < len(sample) else math.inf,
    )


def intervals(counts: Ints, edges: Floats, error: float, quotas: Ints) -> tuple[Floats, Floats]:
    """(low, high) of each group between which its quota-th smallest key lies, all but certainly, given how many of its
    keys, known up to an error, lie between edges."""
    ends = np.cumsum(counts, axis=1)
    slack = 2 + (ends[:, -1] >> 18)  # ranks: the few keys with u next to 1 have a larger error
    first = np.argmax(ends >= np.maximum(quotas - slack, 1)[:, None], axis=1)
    last = np.argmax(ends >= np.minimum(quotas + slack, ends[:, -1])[:, None], axis=1)
    low, high = edges[first] - error, edges[last + 1] + error
    low[quotas == 0] = high[quotas == 0] = -math.inf
    return low, high


def ratio_limits(ratios: NDArray[np.float32], error: float, n: int) -> tuple[float, float]:
    """(low, high) around the n-th smallest of numbers that are known only to within a factor `error`, or not at all
    (NaN). Numbers below low are certainly among the n smallest; numbers above high are certainly not."""
    if n == 0:
        return -math.inf, -math.inf
    unknown = int(np.count_nonzero(np.isnan(ratios)))
    least, most = n - 1 - unknown, n - 1  # ranks that the n-th may have among the known ones; NaN is sorted last
    low = float(np.partition(ratios, least)[least]) / error**2 if least >= 0 else -math.inf
    high = float(np.partition(ratios, most)[most]) * error**2 if most < len(ratios) - unknown else math.inf
    return low, high


def within(keys: Floats, n: int, low: float, high: float, at_ends: int = 0) -> bool:
    """Whether the n-th smallest of the undecided keys lies in the bracket; if not, a wider one is needed. at_ends: how
    many more there are whose key is low or high."""
    return int(np.count_nonzero(keys < low)) < n <= int(np.count_nonzero(keys <= high)) + at_ends


def smallest(keys: Floats, n: int) -> Ints:
    """Positions (n,) int64, ascending, of the n smallest of keys (N,) float64; ties go to the lower position."""
    if n == 0:
        return np.empty(0, np.int64)
    last = np.partition(keys, n - 1)[n - 1]
    if np.isnan(last):
        raise ValueError(f"the keys of {int(np.isnan(keys).sum()):,} samples are NaN; a method gives each a number")
    kept = keys <= last
    over = int(np.count_nonzero(kept)) - n
    if over:
        kept[np.flatnonzero(keys == last)[-over:]] = False
    return np.flatnonzero(kept)


def warn_if_filled_up(positive: int, n_samples: int, n: int) -> None:
    """Says so when fewer than n of the samples have a positive weight."""
    if positive < n:
        warn(f"only {positive} of {n_samples} samples have a positive weight; {n - positive} more were drawn uniformly")

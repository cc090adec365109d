"""The draw: n of N samples by an exponential race, for columns in memory or in pieces from a file.

A probe of N^(2/3) / 2 exact keys brackets the threshold; one pass in float32 settles nearly every sample and orders the
few left open so far that exact keys are needed only of those next to the threshold. The outcome is that of the exact
keys alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.ops import Bits, Floats, Ints, Race

SURE_BELOW = 8192  # samples of which no probe is taken


def draw(race: Race, n: int, threads: int | None = None) -> tuple[Bits, float]:
    """A bit a sample, set for those with the n smallest race_keys, ties to the lower position; and the n-th smallest
    key, -inf for n = 0.

    The same for any number of threads and any processor. Raises ValueError as ops.sift does.
    """
    sample = ops.race_keys(race, probe(0, race.count, race.count), threads)
    low, high = bracket(sample, n, race.count)
    while True:
        found = ops.sift(race, low, high, threads)
        missing = n - found.n_kept
        if 0 <= missing <= len(found.open):
            sure, doubtful = narrowed(found.ratios, found.error, missing)
            keys = ops.race_keys(race, found.open[doubtful], threads)
            chosen = smallest(keys, missing - len(sure))
            last = float(keys[chosen].max(initial=-math.inf))
            if (low, high) == EVERYTHING or low <= last <= high:
                ops.set_bits(found.kept, found.open[sure])
                ops.set_bits(found.kept, found.open[doubtful[chosen]])
                return found.kept, last
        low, high = EVERYTHING


EVERYTHING = (-math.inf, math.inf)


def probe(first: int, last: int, total: int) -> Ints:
    """The positions in first..last-1 of `total` whose keys tell where the threshold lies: about total^(2/3) / 2 in all,
    one in each of as many equal parts; none of few."""
    if total <= SURE_BELOW:
        return np.empty(0, np.int64)
    parts = int(total ** (2 / 3) / 2)
    width = total / parts
    at = np.arange(int(first / width), min(int(last / width) + 1, parts), dtype=np.float64)
    # The golden ratio spreads the places within their parts, lest a period of the data meet one of ours.
    turns = at * 0.6180339887498949
    where = ((at + turns - np.floor(turns)) * width).astype(np.int64)
    return where[(where >= first) & (where < last)]


def bracket(sample: Floats, n: int, total: int) -> tuple[float, float]:
    """(low, high) between which the n-th smallest key of `total` samples lies, all but certainly (five standard
    deviations), given the keys of a probe of them."""
    share = n / total
    spread = 5 * math.sqrt(len(sample) * share * (1 - share)) + 5
    low, high = (math.floor(len(sample) * share + side) for side in (-spread, spread))
    inside = [at for at in (low, high) if 0 <= at < len(sample)]
    ordered = np.partition(sample, inside) if inside else sample
    return (
        float(ordered[low]) if low >= 0 else -math.inf,
        float(ordered[high]) if high < len(sample) else math.inf,
    )


def narrowed(ratios: NDArray[np.float32], error: float, n: int) -> tuple[Ints, Ints]:
    """Of numbers known to a factor `error`, or not at all (NaN), which are surely among the n smallest, and which may
    be; the n-th smallest is one of the latter. Both ascending positions."""
    if n == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    unknown = int(np.count_nonzero(np.isnan(ratios)))
    least, most = n - 1 - unknown, n - 1  # where the n-th may stand among the known ones; NaN is sorted last
    known = len(ratios) - unknown
    inside = [at for at in (least, most) if 0 <= at < known]
    ordered = np.partition(ratios, inside) if inside else ratios
    low = float(ordered[least]) / error**2 if least >= 0 else -math.inf
    high = float(ordered[most]) * error**2 if most < known else math.inf
    sure = ratios < low
    return np.flatnonzero(sure), np.flatnonzero(~(sure | (ratios > high)))


def within(keys: Floats, n: int, low: float, high: float) -> bool:
    """Whether the n-th smallest of the open keys lies in the bracket; if not, a wider one is needed."""
    return int(np.count_nonzero(keys < low)) < n <= int(np.count_nonzero(keys <= high))


def smallest(keys: Floats, n: int) -> Ints:
    """Positions (n,) int64, ascending, of the n smallest of keys (N,) float64; ties go to the lower position."""
    if n == 0:
        return np.empty(0, np.int64)
    last = np.partition(keys, n - 1)[n - 1]
    kept = keys <= last
    over = int(np.count_nonzero(kept)) - n
    if over:
        kept[np.flatnonzero(keys == last)[-over:]] = False
    return np.flatnonzero(kept)

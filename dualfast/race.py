"""The draw: n of N samples by an exponential race, for columns in memory or in pieces from a file.

A probe of about 2 N^(2/3) exact keys brackets the threshold; one pass in float32 settles nearly every sample; the few
left open, about 1% of them, get exact keys. The outcome is that of the exact keys alone.
"""

from __future__ import annotations

import math

import numpy as np

from dualfast import ops
from dualfast.ops import Bits, Floats, Ints, Race

SURE_BELOW = 8192  # samples whose keys are all computed exactly


def draw(race: Race, n: int, threads: int | None = None) -> tuple[Bits, float]:
    """A bit a sample, set for those with the n smallest race_keys, ties to the lower position; and the n-th smallest
    key, -inf for n = 0.

    The same for any number of threads and any processor. Raises ValueError as ops.sift does.
    """
    sample = ops.race_keys(race, probe(0, race.count, race.count), threads)
    low, high = bracket(sample, n, race.count)
    while True:
        kept, n_kept, unsure = ops.sift(race, low, high, threads)
        keys = ops.race_keys(race, unsure, threads)
        if (low, high) == EVERYTHING or within(keys, n - n_kept, low, high):
            chosen = smallest(keys, n - n_kept)
            ops.set_bits(kept, unsure[chosen])
            return kept, float(keys[chosen].max(initial=-math.inf))
        low, high = EVERYTHING


EVERYTHING = (-math.inf, math.inf)


def probe(first: int, last: int, total: int) -> Ints:
    """The positions in first..last-1 of `total` whose keys tell where the threshold lies: about 2 total^(2/3) in all,
    one in each of as many equal parts; none of few."""
    if total <= SURE_BELOW:
        return np.empty(0, np.int64)
    parts = int(2 * total ** (2 / 3))
    width = total / parts
    at = np.arange(int(first / width), min(int(last / width) + 1, parts), dtype=np.float64)
    # The golden ratio spreads the places within their parts, lest a period of the data meet one of ours.
    turns = at * 0.6180339887498949
    where = ((at + turns - np.floor(turns)) * width).astype(np.int64)
    return where[(where >= first) & (where < last)]


def bracket(sample: Floats, n: int, total: int) -> tuple[float, float]:
    """(low, high) between which the n-th smallest key of `total` samples lies, all but certainly (six standard
    deviations), given the keys of a probe of them."""
    share = n / total
    spread = 6 * math.sqrt(len(sample) * share * (1 - share)) + 6
    low, high = (math.floor(len(sample) * share + side) for side in (-spread, spread))
    return (
        float(np.partition(sample, low)[low]) if low >= 0 else -math.inf,
        float(np.partition(sample, high)[high]) if high < len(sample) else math.inf,
    )


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

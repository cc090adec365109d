"""The draw: n of N samples by an exponential race, for columns in memory or in pieces from a file.

A probe of N^(2/3) exact keys brackets the threshold. One pass in float32 decides nearly every sample and orders the
undecided ones well enough that only those next to the threshold need exact keys. The result is that of exact keys.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.notices import warn
from dualfast.ops import Floats, Ints, Race

NO_PROBE_UP_TO = 8192  # samples; a smaller set is decided without a probe
EVERYTHING = (-math.inf, math.inf)


def draw(race: Race, n: int, threads: int | None = None) -> tuple[Ints, float]:
    """The ascending positions (n,) int64 of the n smallest race_keys, ties to the lower position; and the n-th smallest
    key, -inf for n = 0.

    The same for any number of threads and any processor. Raises ValueError as ops.classify does.
    """
    sample = ops.race_keys(race, probe(0, race.count, race.count), threads)
    low, high = bracket(sample, n, race.count)
    drawn = np.empty(n, np.int64)
    while True:
        classified = ops.classify(race, low, high, threads, drawn)
        missing = n - classified.n_kept
        if 0 <= missing <= len(classified.undecided):
            limits = ratio_limits(classified.ratios, classified.error, missing)
            n_settled, undecided = ops.settle_by_ratio(classified, *limits)
            keys = ops.race_keys(race, undecided, threads)
            chosen = smallest(keys, missing - n_settled)
            last = float(keys[chosen].max(initial=-math.inf))
            if (low, high) == EVERYTHING or low <= last <= high:
                ops.set_bits(classified.kept, undecided[chosen])
                return ops.positions(classified.kept, n, threads, drawn), last
        low, high = EVERYTHING


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
    return where[(where >= first) & (where < last)]


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


def ratio_limits(ratios: NDArray[np.float32], error: float, n: int) -> tuple[float, float]:
    """(low, high) for numbers known to a factor `error`, or not at all (NaN): those below low are certainly among the n
    smallest, those above high are not, and the n-th smallest lies between."""
    if n == 0:
        return -math.inf, -math.inf
    unknown = int(np.count_nonzero(np.isnan(ratios)))
    least, most = n - 1 - unknown, n - 1  # ranks that the n-th may have among the known ones; NaN is sorted last
    low = float(np.partition(ratios, least)[least]) / error**2 if least >= 0 else -math.inf
    high = float(np.partition(ratios, most)[most]) * error**2 if most < len(ratios) - unknown else math.inf
    return low, high


def within(keys: Floats, n: int, low: float, high: float) -> bool:
    """Whether the n-th smallest of the undecided keys lies in the bracket; if not, a wider one is needed."""
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


def warn_if_filled_up(positive: int, n_samples: int, n: int) -> None:
    """Says so when fewer than n of the samples have a positive weight."""
    if positive < n:
        warn(f"only {positive} of {n_samples} samples have a positive weight; {n - positive} more were drawn uniformly")

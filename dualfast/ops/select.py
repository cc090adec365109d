"""The sampler's operations on columns: keys of the race, classification against a bracket, and the positions kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch  # before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C
from dualfast.config import checked_seed

Floats: TypeAlias = NDArray[np.float64]
Column: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.uint8]  # one bit per sample, the lowest of a byte first
Numbers: TypeAlias = NDArray[np.uint16] | NDArray[np.int32]

ZERO_WEIGHT_KEY = 2000.0  # what a weight of zero adds to its key: past the key of any positive weight


@dataclass(frozen=True)
class Race:
    """Successive sampling without replacement as an exponential race over `count` samples.

    The key of a sample is log(-log u) - log w; the n smallest are a draw with weights w (Efraimidis and Spirakis,
    2006). u comes from Philox of (seed, id) with 53 bits, w = score * mean^(a-1) * (1-mean)^(b-1); w = score without
    a mean, 1 without either. A weight of zero has the key ZERO_WEIGHT_KEY + log(-log u). score and mean (count,)
    float32 or float64, contiguous, never copied; ids (count,) int64, None: first, first + 1, ...; seed of 64 bits.
    """

    count: int
    seed: int
    score: Column | None = None
    mean: Column | None = None
    a: float = 1.0
    b: float = 1.0
    ids: Ints | None = None
    first: int = 0

    def at(self, where: Ints) -> Race:
        """The race of the samples at these positions alone; their keys are the same."""
        ids = where + self.first if self.ids is None else self.ids[where]
        score, mean = (None if column is None else column[where] for column in (self.score, self.mean))
        return replace(self, count=len(where), score=score, mean=mean, ids=ids)


def race_keys(race: Race, where: Ints | None = None, threads: int | None = None) -> Floats:
    """The keys float64 of all samples, or of those at the ascending positions `where`: the same bits for any number of
    threads and any processor."""
    assert where is None or not len(where) or 0 <= where[0] <= where[-1] < race.count
    keys: Floats = _C.race_keys(*_fields(race), threads or torch.get_num_threads(), where)
    return keys


def _fields(race: Race) -> tuple[Column | None, Column | None, Ints | None, int, int, float, float, int]:
    checked_seed(race.seed)
    return race.mean, race.score, race.ids, race.first, race.count, race.a, race.b, race.seed


def set_level(level: int) -> None:
    """For tests: the instruction set that selection uses, 2 AVX-512, 1 AVX2, 0 neither; at most what the processor
    has."""
    _C.set_level(level)


@dataclass(frozen=True)
class Groups:
    """Which of N samples may be drawn, each within its group.

    numbers: (N,) uint16 or int32, the group of each sample; None: all are in group 0. allowed: ceil(N / 8) bytes; None:
    all. A sample whose bit is not set, or whose number is not in 0..count-1, is in no group.
    """

    count: int = 1
    numbers: Numbers | None = None
    allowed: Bits | None = None

    def sizes(self, n_samples: int, threads: int | None = None) -> Ints:
        """How many samples each group has (count,)."""
        if self.numbers is None:
            return np.array([n_samples if self.allowed is None else count_bits(self.allowed)])
        sizes: Ints = _C.count_groups(
            self.numbers, self.allowed, n_samples, self.count, threads or torch.get_num_threads()
        )
        return sizes


ALL = Groups()


@dataclass(frozen=True)
class Classified:
    """The samples of a race, compared with a bracket [low, high] in float32.

    kept: ceil(count / 8) bytes, a bit set for each of the n_kept samples whose key is certainly below low. undecided:
    ascending positions of every sample whose key may lie in the bracket; the keys of all others are above high.
    ratios: float32, exp(key) of each undecided sample up to a factor that all share, within a factor of `error`; NaN
    where it is not known. race_keys decides the undecided.
    """

    kept: Bits
    n_kept: int
    undecided: Ints
    ratios: NDArray[np.float32]
    error: float


def classify(
    race: Race,
    low: float,
    high: float,
    threads: int | None = None,
    prefault_buffer: Ints | None = None,
    allowed: Bits | None = None,
) -> Classified:
    """Compares every key with [low, high] as far as float32 can decide, at the speed of memory. prefault_buffer: an
    uninitialised array whose pages are requested meanwhile. allowed: as of Groups; the others are not looked at.

    Raises ValueError for a score that is negative, NaN or infinite and a mean outside [0, 1].
    """
    origin = low if np.isfinite(low) else high if np.isfinite(high) else math.log(math.log(2))
    bounds = np.array([low]), np.array([high])
    groups = Groups(1, None, allowed)
    kept, n_kept, undecided, ratios, error = _classify(race, groups, *bounds, origin, threads, prefault_buffer)
    return Classified(kept, int(n_kept[0]), undecided, ratios, error)


def classify_groups(
    race: Race, groups: Groups, low: Floats, high: Floats, origin: float, threads: int | None = None
) -> tuple[Bits, Ints, Ints]:
    """classify for a bracket per group, low and high (groups.count,): the bits, how many are set of each group, and the
    undecided. origin: a key near the brackets; those further than REACH from it decide nothing. Raises as classify."""
    kept, n_kept, undecided, _, _ = _classify(race, groups, low, high, origin, threads, None)
    return kept, n_kept, undecided


def _classify(
    race: Race,
    groups: Groups,
    low: Floats,
    high: Floats,
    origin: float,
    threads: int | None,
    prefault_buffer: Ints | None,
) -> tuple[Bits, Ints, Ints, NDArray[np.float32], float]:
    threads = threads or torch.get_num_threads()
    kept, n_kept, undecided, ratios, error, bad = _C.classify(
        *_fields(race), threads, groups.numbers, groups.allowed, low, high, origin, prefault_buffer
    )
    if bad >= 0:
        for name, column, most in (("score", race.score, np.finfo(np.float64).max), ("mean", race.mean, 1.0)):
            if column is not None and not 0 <= column[bad] <= most:
                raise ValueError(f"{name}[{bad}] is {column[bad]}; it must lie in [0, {'1]' if most == 1 else 'inf)'}")
    return kept, n_kept, undecided, ratios, error


REACH = 40.0  # how far from each other the keys may lie that float32 compares with brackets of groups
BINS = 1 << 20  # of a histogram of keys, over all groups and threads, to stay in the second-level caches


def key_histogram(
    race: Race, groups: Groups, low: float, high: float, origin: float, threads: int | None = None
) -> tuple[Ints, Floats, float]:
    """How many keys of each group lie between edges (bins + 1,), -inf and inf at the ends, that divide low to high:
    counts (groups.count, bins), where each key is known up to the error that is returned last. 16 to 4096 bins. origin:
    as for classify_groups."""
    threads = threads or torch.get_num_threads()
    bins = min(max(BINS // threads // groups.count, 16), 4096)
    counts, edges, error = _C.key_histogram(
        *_fields(race), threads, groups.numbers, groups.allowed, groups.count, low, high, origin, bins
    )
    return counts, edges, error


def settle_groups(
    kept: Bits, groups: Groups, n_samples: int, undecided: Ints, keys: Floats, missing: Ints, low: Floats, high: Floats
) -> Floats:
    """Marks as kept, of the undecided samples with these keys, the missing[g] smallest of each group g, ties to the
    lower position. Returns the largest key that was chosen of each group, -inf for none, and NaN for a group whose
    bracket did not contain the threshold: it has to be drawn again with a wider one."""
    last: Floats = _C.settle_groups(
        kept, groups.numbers, groups.allowed, n_samples, undecided, keys, missing, low, high
    )
    return last


def outside(
    column: Column, low: float, high: float, bits: Bits | None = None, threads: int | None = None
) -> tuple[int, int]:
    """How many values of column (N,) lie outside [low, high], are infinite or NaN, and the position of the first, or
    -1. With bits, ceil(N / 8) bytes, theirs are cleared."""
    most = np.finfo(np.float64).max
    n, first = _C.outside(column, max(low, -most), min(high, most), threads or torch.get_num_threads(), bits)
    return n, first


def number_labels(labels: NDArray[Any], threads: int | None = None) -> tuple[NDArray[np.uint16], Ints] | None:
    """Labels (N,) of any integers as uint16, and how many there are of each, 0 up to the largest; None where one is
    negative or above 65534."""
    if labels.dtype not in (np.int32, np.int64):
        labels = labels.astype(np.int32 if labels.itemsize < 4 else np.int64)
    numbers, sizes = _C.number_labels(np.ascontiguousarray(labels), threads or torch.get_num_threads())
    return (numbers, sizes) if len(sizes) else None


def largest(column: Column, k: int, threads: int | None = None) -> Ints:
    """Positions of the k largest of column (N,) float32 or float64, the largest first; ties go to the lower position.
    NaN is skipped, so that there may be fewer. For a small k."""
    top: Ints = _C.largest(column, k, threads or torch.get_num_threads())
    return top


def settle_by_ratio(classified: Classified, low: float, high: float) -> tuple[int, Ints]:
    """Marks as kept the undecided samples whose ratio is below `low`; returns their number, and the ascending positions
    of those whose ratio may lie in [low, high]."""
    n_settled, undecided = _C.settle_by_ratio(classified.kept, classified.undecided, classified.ratios, low, high)
    return n_settled, undecided


def positions(bits: Bits, n: int, threads: int | None = None, out: Ints | None = None) -> Ints:
    """The ascending positions (n,) int64 of the n bits that are set, written to `out` where that is given."""
    where = np.empty(n, np.int64) if out is None else out
    _C.positions(bits, where, threads or torch.get_num_threads())
    return where


def count_bits(bits: Bits) -> int:
    """How many bits are set."""
    n: int = _C.count_bits(bits)
    return n


def bits_at(bits: Bits, where: Ints) -> NDArray[np.bool_]:
    """Whether the bits at these positions are set."""
    at: NDArray[np.bool_] = (bits[where >> 3] >> (where & 7) & 1).astype(np.bool_)
    return at


def set_bits(bits: Bits, where: Ints) -> None:
    """Sets the bits at these ascending positions, in place."""
    assert not len(where) or 0 <= where[0] <= where[-1] < 8 * len(bits)
    _C.set_bits(bits, where)

"""Order statistics within groups: histograms of digits, and the samples on either side of cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

import dualfast._C as _C
from dualfast.ops.select import ALL, Bits, Column, Floats, Groups, Ints

Keys: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True)
class Ranking:
    """The samples of each group in order of a column (N,), float32 or float64 without NaN, or against that order; equal
    values in order of position. Values are taken as integers of the same order, less `base`, of `bits` bits."""

    column: Column
    groups: Groups = ALL
    descending: bool = False
    base: int = 0
    bits: int = 64


@dataclass(frozen=True)
class DigitLevel:
    """A step of a search for order statistics, which looks at `bits` of the integers from bit `shift` on.

    child: int32, at [node << bits | digit] the node of the next step, -1 where none is needed. The nodes of the first
    step are the groups.
    """

    shift: int
    bits: int
    child: NDArray[np.int32]


@dataclass(frozen=True)
class Cuts:
    """Places between the samples of each group: keys and ties (groups, K), ascending. Below a cut are the samples whose
    integer is smaller than its key, and the first `ties` of those where it is equal."""

    keys: Keys
    ties: Ints


@dataclass(frozen=True)
class Bands:
    """Intervals of equal width (groups,) from the `low` (groups,) of each group; the last has all above it."""

    count: int
    low: Floats
    width: Floats


def digit_histogram(
    ranking: Ranking, levels: Sequence[DigitLevel], shift: int, bits: int, nodes: int, threads: int | None = None
) -> Ints:
    """How many samples with each digit, `bits` of the integers from bit `shift` on, come to each of the nodes that the
    levels lead to: (nodes << bits,)."""
    counts: Ints = _C.digit_histogram(*_fields(ranking, threads), _levels(levels), shift, bits, nodes)
    return counts


def at_nodes(
    ranking: Ranking, levels: Sequence[DigitLevel], threads: int | None = None
) -> tuple[Ints, NDArray[np.int32]]:
    """The samples that come to the nodes that the levels lead to: ascending positions, and the node of each."""
    positions, nodes = _C.at_nodes(*_fields(ranking, threads), _levels(levels))
    return positions, nodes


def extents(ranking: Ranking, least: Keys | None = None, threads: int | None = None) -> tuple[Keys, Keys]:
    """The smallest and the largest integer of each group (groups,) among those not below `least` (groups,); 2^64 - 1
    and 0 where there are none."""
    if least is None:
        least = np.zeros(ranking.groups.count, np.uint64)
    low, high = _C.extents(*_fields(ranking, threads), least)
    return low, high


def values_of(ranking: Ranking, keys: Keys) -> Floats:
    """The values that the integers of an ascending ranking stand for, as float64."""
    assert not ranking.descending
    keys = keys + np.uint64(ranking.base)
    if ranking.column.dtype == np.float32:
        narrow = keys.astype(np.uint32)
        sign = np.uint32(1 << 31)
        return np.where(narrow & sign, narrow ^ sign, ~narrow).view(np.float32).astype(np.float64)
    sign64 = np.uint64(1 << 63)
    return np.where(keys & sign64, keys ^ sign64, ~keys).view(np.float64)


def mark_below(ranking: Ranking, cuts: Cuts, threads: int | None = None) -> Bits:
    """A bit for each sample, set for those below the cut of their group; one cut per group."""
    bits: Bits = _C.mark_below(*_fields(ranking, threads), cuts.keys, cuts.ties)
    return bits


def stratify(ranking: Ranking, cuts: Cuts, bands: Bands | None = None, threads: int | None = None) -> Groups:
    """New groups: group * strata + stratum. The strata of a group are the K + 1 sets that its cuts divide it into, or,
    with one cut, the bands, computed in the type of the column; what lies below that cut is then in no group."""
    strata = cuts.keys.shape[1] + 1 if bands is None else bands.count
    low, width = (None, None) if bands is None else (bands.low, bands.width)
    numbers = _C.stratify(*_fields(ranking, threads), cuts.keys, cuts.ties, strata, low, width)
    return Groups(ranking.groups.count * strata, numbers)


def _levels(levels: Sequence[DigitLevel]) -> list[tuple[int, int, NDArray[np.int32]]]:
    return [(level.shift, level.bits, level.child) for level in levels]


def _fields(
    ranking: Ranking, threads: int | None
) -> tuple[Column, bool, int, NDArray[np.uint16] | NDArray[np.int32] | None, int, Bits | None, int]:
    groups = ranking.groups
    return (
        ranking.column,
        ranking.descending,
        ranking.base,
        groups.numbers,
        groups.count,
        groups.allowed,
        threads or torch.get_num_threads(),
    )

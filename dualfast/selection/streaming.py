"""select for score tables larger than memory: two passes over columns on disk, with the result that select would give.

The first pass gathers statistics of the scores and the columns of a probe. They give the parameters of the draw: the
method, fit to the scores, and a bracket around the threshold. The second pass classifies every piece against the
bracket; the undecided samples keep their exact keys and are settled at the end. Those whose keys equal an end of the
bracket, which with tied scores may be half of all, take a bit each. Memory: one to three bits per sample, 16 bytes per
undecided one (below 1%), and a piece. Several processes may pass over shards of their own; the results are merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualfast import ops
from dualfast.config import DEFAULT_C_D, DEFAULT_METHOD, GivenCD
from dualfast.data.index_list import check_name, write_keep
from dualfast.ops import Floats, Ints
from dualfast.selection import beta
from dualfast.selection import draw as race
from dualfast.selection.methods import Columns, KeyedMethod, Samples, bad_scores
from dualfast.selection.quotas import kept_count
from dualfast.selection.shards import Path, Shard, Source, shards_of
from dualfast.selection.spec import SelectionSpec

Progress = Callable[[int], None]


def select_files(
    source: Source | Sequence[Source],
    prune_ratio: float,
    out: Path,
    *,
    method: str = DEFAULT_METHOD,
    c_d: GivenCD = DEFAULT_C_D,
    seed: int = 0,
    fingerprint: str | None = None,
    progress: Progress = lambda _: None,
    **options: Any,
) -> tuple[int, int]:
    """Writes to `out` (.npy, with its .json) the ids that select keeps; returns (kept, removed).

    source: a Parquet score table, a mapping from column names to .npy files, or a list of either, shards whose ids
    follow each other. method: "dual+beta", "random" or any score by name; options: the method's,
    as keep="low". progress is called with the number of samples processed, twice the total in all. Memory as described
    above. Nothing appears under the name `out` before it is complete. ValueError as for select, and for files that
    cannot be read.
    """
    check_name(out, "out")
    spec = SelectionSpec(prune_ratio=prune_ratio, method=method, c_d=c_d, seed=seed, options=options)
    return write_selection(spec, shards_of(source), out, fingerprint=fingerprint, progress=progress)


def write_selection(
    spec: SelectionSpec,
    shards: Sequence[Shard],
    out: Path,
    *,
    fingerprint: str | None = None,
    progress: Progress = lambda _: None,
) -> tuple[int, int]:
    """select_files for a spec."""
    if not spec.can_stream:
        raise ValueError(f"method {spec.method!r}, or what restricts it, needs its scores in memory; call select")
    total = sum(shard.count for shard in shards)
    if total < 1:
        raise ValueError(
            f"{', '.join(shard.name for shard in shards)!r} has no samples to select from; give a table with rows"
        )
    n = kept_count(total, spec.prune_ratio)
    firsts = [first_pass(shard, spec, total, progress) for shard in shards]
    spec, params = draw_params(spec, total, firsts)
    seconds = [second_pass(shard, params, progress) for shard in shards]
    chosen = settle(params, n, seconds)
    if chosen is None:
        params = replace(params, low=race.EVERYTHING[0], high=race.EVERYTHING[1])
        seconds = [second_pass(shard, params) for shard in shards]
        chosen = settle(params, n, seconds)
        assert chosen is not None
    race.warn_if_filled_up(sum(first.positive for first in firsts), total, n)
    about = spec.sidecar()
    write_keep(out, kept_ids(seconds, chosen), n, n_samples=total, fingerprint=fingerprint, **about)
    return n, total - n


@dataclass(frozen=True)
class FirstPass:
    """What the first pass gathers from a shard.

    hardest: the samples of highest dual as rows (dual, id, mean); subset: the columns of its share of
    beta.subset_positions; both only where the method is fit to them. positive: number of positive weights. probe_ids,
    probe: ids and columns of its share of the probe.
    """

    hardest: list[tuple[float, int, float]]
    subset: Columns
    positive: int
    probe_ids: Ints
    probe: Columns


def first_pass(shard: Shard, spec: SelectionSpec, total: int, progress: Progress = lambda _: None) -> FirstPass:
    """The first pass over a shard, of `total` samples in all."""
    method = _keyed(spec)
    hardest: list[tuple[float, int, float]] = []
    positive = 0
    subset_at = beta.subset_positions(total) if method.fits else np.empty(0, np.int64)
    nothing = tuple(np.empty(0) for _ in method.columns)
    subsets, probe_ids = [nothing], [np.empty(0, np.int64)]
    probes: list[Columns] = []
    for first, count, columns in shard.pieces(method.columns):
        ids = race.probe(first, first + count, total)
        probe_ids.append(ids)
        probes.append(tuple(column[ids - first] for column in columns))
        if method.fits:
            within = subset_at[slice(*np.searchsorted(subset_at, [first, first + count]))] - first
            subsets.append(tuple(column[within] for column in columns))
            dual, mean = columns
            top = ops.largest(dual, beta.TOP_SAMPLES)
            hardest += [(float(dual[i]), first + int(i), float(mean[i])) for i in top]
            hardest = _hardest(hardest)
        positive += method.n_positive(Samples(count, spec.seed, columns, first=first))
        progress(count)
    return FirstPass(hardest, _joined(subsets), positive, np.concatenate(probe_ids), _joined(probes))


def _hardest(rows: list[tuple[float, int, float]]) -> list[tuple[float, int, float]]:
    return sorted(rows, key=lambda row: (-row[0], row[1]))[: beta.TOP_SAMPLES]


def _joined(parts: Sequence[Columns]) -> Columns:
    """Each column of the parts, one after the other."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _keyed(spec: SelectionSpec) -> KeyedMethod:
    assert isinstance(spec.configured, KeyedMethod)
    return spec.configured


@dataclass(frozen=True)
class DrawParams:
    """What the second pass needs: the method, fit to the scores, the seed, and the bracket around the threshold."""

    method: KeyedMethod
    seed: int
    low: float
    high: float


def draw_params(spec: SelectionSpec, total: int, firsts: Sequence[FirstPass]) -> tuple[SelectionSpec, DrawParams]:
    """From the first pass over all shards: the resolved spec, and the parameters of its draw."""

    def mu() -> float:
        means = np.array([row[2] for row in _hardest([row for first in firsts for row in first.hardest])])
        return float(means.mean()) if len(means) else math.nan

    def subset() -> beta.ScoreSubset:
        dual, mean = _joined([first.subset for first in firsts])
        return beta.ScoreSubset(dual.astype(np.float64), mean.astype(np.float64))

    statistics = beta.Statistics(mu, subset)
    spec = spec.resolve(statistics)
    method = _keyed(spec).fit(statistics, spec.prune_ratio)
    assert isinstance(method, KeyedMethod)
    probes = [Samples(len(f.probe_ids), spec.seed, f.probe, f.probe_ids) for f in firsts if len(f.probe_ids)]
    keys = [method.keys(probe) for probe in probes]
    n = kept_count(total, spec.prune_ratio)
    low, high = race.bracket(np.concatenate(keys) if keys else np.empty(0), n, total)
    return spec, DrawParams(method, spec.seed, low, high)


Marked = tuple[int, ops.Bits]  # how many samples of a piece, and a bit per sample, set for these


@dataclass(frozen=True)
class Piece:
    """`count` samples in order of their ids: those certainly kept, and of the undecided ones those whose key is the low
    end of the bracket, and the high end."""

    count: int
    kept: Marked
    ends: tuple[Marked, Marked]


@dataclass(frozen=True)
class SecondPass:
    """What the second pass finds in a shard: its pieces, and the ids and keys of all other undecided samples."""

    first: int
    pieces: list[Piece]
    ids: Ints
    keys: Floats

    def at_end(self, side: int) -> int:
        """How many keys are the low end of the bracket, side 0, or the high end, side 1."""
        return sum(piece.ends[side][0] for piece in self.pieces)


def second_pass(shard: Shard, params: DrawParams, progress: Progress = lambda _: None) -> SecondPass:
    """The second pass over a shard. Raises ValueError for bad scores, with the id of the first."""
    pieces: list[Piece] = []
    ids: list[Ints] = [np.empty(0, np.int64)]
    keys: list[Floats] = [np.empty(0)]
    method = params.method
    for first, count, columns in shard.pieces(method.columns):
        if not method.checks_scores:
            _check(shard, method.columns, first, columns)
        try:
            samples = Samples(count, params.seed, columns, first=first)
            bits, n_kept, undecided, undecided_keys = method.classify(samples, params.low, params.high)
        except ValueError:
            _check(shard, method.columns, first, columns)  # names the score and the id
            raise
        low = undecided_keys == params.low
        high = (undecided_keys == params.high) & ~low
        ids.append(undecided[~(low | high)] + first)
        keys.append(undecided_keys[~(low | high)])
        pieces.append(Piece(count, (n_kept, bits), (_marked(undecided[low], count), _marked(undecided[high], count))))
        progress(count)
    return SecondPass(shard.first, pieces, np.concatenate(ids), np.concatenate(keys))


def _marked(where: Ints, count: int) -> Marked:
    bits = np.zeros(-(-count // 8) if len(where) else 0, np.uint8)
    ops.set_bits(bits, where)
    return len(where), bits


def _check(shard: Shard, names: Sequence[str], first: int, columns: Columns) -> None:
    for name, column in zip(names, columns, strict=True):
        bad = bad_scores(name, column)
        if bad.any():
            at = int(np.argmax(bad))
            raise ValueError(
                f"{shard.name!r}: {name}[{first + at}] is {column[at]:g}; skip_unscored=True leaves such samples out"
            )


@dataclass(frozen=True)
class Chosen:
    """The undecided samples that are kept: how many of those at the low and the high end of the bracket, by ascending
    id, and the ascending ids of the others."""

    at_ends: tuple[int, int]
    ids: Ints


def settle(params: DrawParams, n: int, seconds: Sequence[SecondPass]) -> Chosen | None:
    """Which of the undecided samples are kept so that n are in all, ties to the lower id; None where the bracket missed
    the threshold."""
    ids, keys = np.concatenate([s.ids for s in seconds]), np.concatenate([s.keys for s in seconds])
    missing = n - sum(piece.kept[0] for s in seconds for piece in s.pieces)
    n_low, n_high = (sum(s.at_end(side) for s in seconds) for side in (0, 1))
    below, inside = (int(np.count_nonzero(chosen)) for chosen in (keys < params.low, keys <= params.high))
    bracket = params.low, params.high
    if bracket != race.EVERYTHING and not race.within(keys, missing, *bracket, n_low + n_high):
        return None
    low = min(max(missing - below, 0), n_low)
    high = min(max(missing - inside - n_low, 0), n_high)
    return Chosen((low, high), ids[race.smallest(keys, missing - low - high)])


def kept_ids(seconds: Sequence[SecondPass], chosen: Chosen) -> Iterator[Ints]:
    """The ids kept, ascending, a piece at a time."""
    left = list(chosen.at_ends)
    for second in seconds:
        first = second.first
        for piece in second.pieces:
            n_kept, bits = piece.kept
            more = [chosen.ids[slice(*np.searchsorted(chosen.ids, [first, first + piece.count]))] - first]
            for side, (n_tied, tied) in enumerate(piece.ends):
                more.append(ops.positions(tied, min(n_tied, left[side])))
                left[side] -= len(more[-1])
            for where in more:
                ops.set_bits(bits, where)
            yield ops.positions(bits, n_kept + sum(map(len, more))) + first
            first += piece.count

"""select for score tables larger than memory: two passes over columns on disk, the answer select would give.

The first pass surveys: the hardest samples, and the columns of a probe. From them follow the law (Beta parameters) and
a bracket around the threshold. The second sifts every piece; what stays open has exact keys and is settled at the
end. Memory: a bit a sample, 16 bytes for each open one (below 1%), and a piece. Shards may be surveyed and sifted
apart, by several processes, and put together.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.config import GivenCD
from dualfast.data.index_list import write_keep
from dualfast.selection import beta
from dualfast.selection import draw as race
from dualfast.selection.select import LOW_IS_KEPT, bad_scores, check_method, filled_up, kept_count

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Columns = list[NDArray[Any]]
Path = str | os.PathLike[str]
Source = Path | Mapping[str, Path]

ROWS = 1 << 20  # samples of a piece
AHEAD = 4  # pieces that are read from the disk while one is looked at


class Shard:
    """Columns on disk: a Parquet score table, or a mapping from column names to .npy files.

    `first` is the id of its first sample; the others follow. Raises ValueError for files that are missing, damaged,
    or disagree in length.
    """

    def __init__(self, source: Source, first: int = 0) -> None:
        self.first, self.name = first, ", ".join(map(str, source.values())) if isinstance(source, Mapping) else source
        try:
            if isinstance(source, Mapping):
                self.arrays = {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in source.items()}
                self.parquet = None
                lengths = {name: len(array) for name, array in self.arrays.items()}
                if len(set(lengths.values())) != 1 or any(a.ndim != 1 for a in self.arrays.values()):
                    raise ValueError(f"columns must be 1-D and of one length; they have {lengths}")
                self.count = next(iter(lengths.values()))
            else:
                import pyarrow.parquet as pq

                self.parquet = pq.ParquetFile(source, memory_map=True)
                self.count = self.parquet.metadata.num_rows
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{str(self.name)!r} is no score table: {str(error).splitlines()[0]}") from None

    @property
    def fingerprint(self) -> str | None:
        """Of the data that a score table was written for, where it says so."""
        noted = {} if self.parquet is None else self.parquet.schema_arrow.metadata or {}
        found: str | None = json.loads(noted.get(b"dualfast", b"{}")).get("fingerprint")
        return found

    def pieces(self, names: Sequence[str], rows: int = ROWS) -> Iterator[tuple[int, Columns]]:
        """(id of the first, columns) of one piece after the other."""
        at = self.first
        if self.parquet is None:
            missing = [name for name in names if name not in self.arrays]
            self._need(missing, list(self.arrays))
            columns = [self.arrays[name] for name in names]
            with ExitStack() as stack:
                files = [stack.enter_context(open(column.filename, "rb")) for column in columns]
                reader = stack.enter_context(ThreadPoolExecutor(1))

                def ask(begin: int, many: int) -> None:
                    # Else each piece would be waited for: a mapped file is read a few pages ahead.
                    for column, file in zip(columns, files, strict=True):
                        size = column.itemsize
                        os.posix_fadvise(
                            file.fileno(), column.offset + begin * size, many * size, os.POSIX_FADV_WILLNEED
                        )

                for begin in range(0, self.count, rows):  # asking takes time of its own, hence the thread
                    reader.submit(ask, begin + AHEAD * rows if begin else 0, rows if begin else (AHEAD + 1) * rows)
                    yield at + begin, [_floats(column[begin : begin + rows]) for column in columns]
            return
        have = self.parquet.schema_arrow.names
        self._need([name for name in names if name not in have], have)
        ids = ["id"] if "id" in have else []
        try:
            for batch in self.parquet.iter_batches(rows, columns=[*names, *ids]):
                if ids and not (batch["id"].to_numpy() == np.arange(at, at + batch.num_rows)).all():
                    raise ValueError(f"the ids are not {at}, {at + 1}, ...: sort the table by id, shards in order")
                yield at, [_floats(batch[name].to_numpy(zero_copy_only=False)) for name in names]
                at += batch.num_rows
        except (OSError, ValueError) as error:
            raise ValueError(f"{str(self.name)!r} cannot be read: {str(error).splitlines()[0]}") from None

    def _need(self, missing: list[str], have: list[str]) -> None:
        if missing:
            raise ValueError(f"{str(self.name)!r} has no column {missing[0]!r}; it has {', '.join(have)}")


def shards_of(source: Source | Sequence[Source]) -> list[Shard]:
    """One source, or several that follow each other."""
    sources = list(source) if isinstance(source, list | tuple) else [cast(Source, source)]
    shards: list[Shard] = []
    for one in sources:
        shards.append(Shard(one, shards[-1].first + shards[-1].count if shards else 0))
    return shards


@dataclass(frozen=True)
class Plan:
    """What is to be drawn from `total` samples; the same for every shard."""

    method: str
    prune_ratio: float
    total: int
    seed: int = 0
    c_d: GivenCD = 4.0
    low_is_kept: bool = False

    @property
    def names(self) -> list[str]:
        return {"dual+beta": ["dual", "mean"], "random": []}.get(self.method, [self.method])

    @property
    def kept(self) -> int:
        return kept_count(self.total, self.prune_ratio)

    def race(self, first: int, columns: Columns, law: tuple[float, float], ids: Ints | None = None) -> ops.Race:
        count = len(columns[0]) if ids is None else len(ids)
        if not columns:
            return ops.Race(count, self.seed, ids=ids, first=first)
        return ops.Race(count, self.seed, columns[0], columns[1], *law, ids=ids, first=first)

    def keys(self, first: int, columns: Columns, law: tuple[float, float], ids: Ints | None = None) -> Floats:
        """Exact keys: of the race, or the score itself."""
        if self.method in ("dual+beta", "random"):
            return ops.race_keys(self.race(first, columns, law, ids))
        score = columns[0].astype(np.float64)
        return score if self.low_is_kept else -score


@dataclass(frozen=True)
class Survey:
    """What the first pass finds in a shard: the hardest samples as rows (dual, id, mean), how many weights are
    positive, the ids and columns of its share of the probe, and for c_d "auto" the columns of its share of
    beta.thinned."""

    hardest: list[tuple[float, int, float]]
    positive: int
    ids: Ints
    columns: Columns
    thin: Columns


def survey(shard: Shard, plan: Plan, progress: Callable[[int], None] = lambda _: None) -> Survey:
    """The first pass over a shard."""
    hardest: list[tuple[float, int, float]] = []
    positive = 0
    parts: list[tuple[Ints, Columns]] = []
    auto = plan.method == "dual+beta" and plan.c_d == "auto"
    thinned = beta.thinned(plan.total) if auto else np.empty(0, np.int64)
    thin: list[Columns] = [[np.empty(0)] * len(plan.names)]
    for first, columns in _pieces(shard, plan):
        count = _count(columns, shard, first)
        few = thinned[slice(*np.searchsorted(thinned, [first, first + count]))] - first
        thin.append([column[few] for column in columns])
        at = race.probe(first, first + count, plan.total)
        parts.append((at, [column[at - first] for column in columns]))
        if plan.method == "dual+beta":
            dual, mean = columns
            top = ops.largest(dual, beta.TOP_SAMPLES)
            hardest += [(float(dual[i]), first + int(i), float(mean[i])) for i in top]
            hardest = sorted(hardest, key=lambda row: (-row[0], row[1]))[: beta.TOP_SAMPLES]
            positive += int(np.count_nonzero(dual))
        progress(count)
    ids = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.int64)
    return Survey(hardest, positive, ids, _joined([part[1] for part in parts]), _joined(thin))


def _joined(parts: Sequence[Columns]) -> Columns:
    """Each column of the parts, one after the other."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


@dataclass(frozen=True)
class Law:
    """What the second pass needs: c_D and the Beta parameters from it, and the bracket."""

    c_d: float
    a: float
    b: float
    low: float
    high: float


def law_of(plan: Plan, surveys: Sequence[Survey]) -> Law:
    """Put together from the surveys of all shards."""
    a = b = c_d = 1.0
    given: GivenCD = plan.c_d
    if plan.method == "dual+beta":
        rows = sorted((row for s in surveys for row in s.hardest), key=lambda row: (-row[0], row[1]))
        means = np.array([row[2] for row in rows[: beta.TOP_SAMPLES]])
        mu = float(means.mean()) if len(means) else math.nan
        if plan.c_d == "auto":
            dual, mean = _joined([s.thin for s in surveys])
            given = beta.auto_from(beta.Thin(dual.astype(np.float64), mean.astype(np.float64)), mu, plan.prune_ratio)
        law = beta.beta_from(mu, plan.prune_ratio, given)
        a, b, c_d = law.a, law.b, law.c_d
    keys = [plan.keys(0, s.columns, (a, b), s.ids) for s in surveys if len(s.ids)]
    return Law(c_d, a, b, *race.bracket(np.concatenate(keys) if keys else np.empty(0), plan.kept, plan.total))


@dataclass(frozen=True)
class Part:
    """What the second pass finds in a shard: for each piece its number of samples, how many of them are surely kept,
    and a bit a sample, set for these; and the open ones."""

    first: int
    pieces: list[tuple[int, int, ops.Bits]]
    ids: Ints
    keys: Floats


def sift(shard: Shard, plan: Plan, law: Law, progress: Callable[[int], None] = lambda _: None) -> Part:
    """The second pass over a shard. Raises ValueError for bad scores, with the id of the first."""
    pieces: list[tuple[int, int, ops.Bits]] = []
    ids: list[Ints] = []
    keys: list[Floats] = []
    for first, columns in _pieces(shard, plan):
        count = _count(columns, shard, first)
        if plan.method in ("dual+beta", "random"):
            piece = plan.race(first, columns, (law.a, law.b), None if columns else np.arange(first, first + count))
            try:
                sifted = ops.sift(piece, law.low, law.high)
            except ValueError as error:
                raise ValueError(f"{str(shard.name)!r}, samples from {first} on: {error}") from None
            kept, n_kept, unsure = sifted.kept, sifted.n_kept, sifted.open
            keys.append(ops.race_keys(piece, unsure))
        else:
            mine = plan.keys(first, columns, (1.0, 1.0))
            bad = bad_scores(plan.method, columns[0])
            if bad.any():
                at = int(np.argmax(bad))
                raise ValueError(f"{str(shard.name)!r}: {plan.method}[{first + at}] is {columns[0][at]:g}")
            kept = np.packbits(mine < law.low, bitorder="little")
            n_kept, unsure = (
                int(np.count_nonzero(mine < law.low)),
                np.flatnonzero((mine >= law.low) & (mine <= law.high)),
            )
            keys.append(mine[unsure])
        ids.append(unsure + first)
        pieces.append((count, n_kept, kept))
        progress(count)
    if not pieces:
        return Part(shard.first, [], np.empty(0, np.int64), np.empty(0))
    return Part(shard.first, pieces, np.concatenate(ids), np.concatenate(keys))


def settle(plan: Plan, law: Law, parts: Sequence[Part]) -> Ints | None:
    """Which of the open samples are kept, ascending ids; None where the bracket was wrong."""
    ids, keys = np.concatenate([p.ids for p in parts]), np.concatenate([p.keys for p in parts])
    missing = plan.kept - sum(n_kept for p in parts for _, n_kept, _ in p.pieces)
    if (law.low, law.high) != race.EVERYTHING and not race.within(keys, missing, law.low, law.high):
        return None
    chosen: Ints = ids[race.smallest(keys, missing)]
    return chosen


def emit(parts: Sequence[Part], chosen: Ints) -> Iterator[Ints]:
    """The ids kept, ascending, a piece at a time."""
    for part in parts:
        first = part.first
        for count, n_kept, bits in part.pieces:
            mine = chosen[slice(*np.searchsorted(chosen, [first, first + count]))] - first
            ops.set_bits(bits, mine)
            yield ops.positions(bits, n_kept + len(mine)) + first
            first += count


def select_files(
    source: Source | Sequence[Source],
    prune_ratio: float,
    out: Path,
    *,
    method: str = "dual+beta",
    c_d: GivenCD = 4.0,
    seed: int = 0,
    keep: str | None = None,
    fingerprint: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
    **how: Any,
) -> tuple[int, int]:
    """Writes to `out` (.npy, with its .json) the ids that select keeps; returns (kept, removed).

    source: a Parquet score table, a mapping from column names to .npy files, or a list of either, shards whose ids
    follow each other. method: "dual+beta", "random" or any score by name. `how` is noted in the side file; progress
    is called with the number of samples done, twice the total in all. Memory as said above. Nothing appears under the
    name `out` before it is whole. ValueError as for select, and for files that cannot be read.
    """
    options = {} if keep is None else {"keep": keep}
    check_method(method, options)
    if method in ("ccs", "stratified"):
        raise ValueError(f"method {method!r} needs its scores in memory; call select")
    shards = shards_of(source)
    total = sum(shard.count for shard in shards)
    if total < 1:
        raise ValueError(f"{str(shards[0].name) if shards else source!r} has no samples to select from")
    seed = int(seed)
    plan = Plan(method, prune_ratio, total, seed, c_d, (keep or ("low" if method in LOW_IS_KEPT else "high")) == "low")
    n = plan.kept
    surveys = [survey(shard, plan, progress) for shard in shards]
    law = law_of(plan, surveys)
    parts = [sift(shard, plan, law, progress) for shard in shards]
    chosen = settle(plan, law, parts)
    if chosen is None:
        law = replace(law, low=race.EVERYTHING[0], high=race.EVERYTHING[1])
        parts = [sift(shard, plan, law) for shard in shards]
        chosen = settle(plan, law, parts)
        assert chosen is not None
    positive = sum(s.positive for s in surveys)
    if method == "dual+beta" and positive < n:
        warnings.warn(filled_up(positive, total, n), stacklevel=2)
    about = {"method": method, "prune_ratio": prune_ratio, "seed": seed, **options, **how}
    if method == "dual+beta":
        about["c_d"] = law.c_d
        if c_d == "auto":
            warnings.warn(f"c_d auto is {law.c_d:g} for these scores at {prune_ratio:g}", stacklevel=2)
    write_keep(out, emit(parts, chosen), n, n_samples=total, fingerprint=fingerprint, **about)
    return n, total - n


def _pieces(shard: Shard, plan: Plan) -> Iterator[tuple[int, Columns]]:
    if plan.names:
        yield from shard.pieces(plan.names)
    else:
        yield from ((shard.first + begin, []) for begin in range(0, shard.count, ROWS))


def _count(columns: Columns, shard: Shard, first: int) -> int:
    return len(columns[0]) if columns else min(ROWS, shard.first + shard.count - first)


def _floats(column: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(column, None if column.dtype in (np.float32, np.float64) else np.float64)

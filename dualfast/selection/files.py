"""From score files to an index list: the engine that can draw a spec is chosen here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast.data.index_list import check_name, save_keep
from dualfast.notices import warn
from dualfast.scoring.scores import COLUMNS, Scores
from dualfast.selection.audit import AUDITED
from dualfast.selection.beta import Statistics
from dualfast.selection.quotas import class_counts, without_samples
from dualfast.selection.select import select_in_memory
from dualfast.selection.shards import Shard, Source, shards_of
from dualfast.selection.spec import SelectionSpec
from dualfast.selection.streaming import write_selection
from dualfast.selection.where import ids_where
from dualfast.storage.files import check_folder
from dualfast.storage.npy import NpyFile


def write_list(
    spec: SelectionSpec,
    paths: tuple[str, ...],
    out: str,
    *,
    fingerprint: str | None = None,
    plan: Callable[[int], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Draws from `paths`, a score table, several that follow each other, or one .npy per column named after it, and
    writes `out` with its sidecar; returns (kept, removed).

    A spec that can stream takes bounded memory; the others are drawn in memory; `where` needs a single table. Raises
    ValueError as they do, and when the table is of other data than `fingerprint`. `plan` is told how many samples will
    be processed, `progress` how many more have been.
    """
    check_name(out)
    check_folder(Path(out))
    _check_no_input(out, [*paths, spec.exclude, spec.force])
    columns = all(path.endswith(".npy") for path in paths)
    stems = [Path(path).stem for path in paths]
    twice = [path for path, stem in zip(paths, stems, strict=True) if stems.count(stem) > 1]
    if columns and twice:
        raise ValueError(
            f"{' '.join(twice)}: a .npy is one whole column, named after it, and each is given once; give tables that "
            "follow each other as .parquet"
        )
    sources: list[Source] = [{Path(path).stem: path for path in paths}] if columns else list(paths)
    shards = shards_of(sources)
    for path, shard in zip(paths, shards, strict=False):
        if fingerprint is not None and shard.fingerprint not in (None, fingerprint):
            raise ValueError(
                f"{path!r} was written for the data {shard.fingerprint}; the list was drawn from {fingerprint}"
            )
    if spec.can_stream:
        plan(2 * sum(shard.count for shard in shards))
        counts = write_selection(spec, shards, out, fingerprint=shards[0].fingerprint, progress=progress)
        _warn_of_lost_classes(lambda: _class_counts(shards, out), shards[0])
        return counts
    if spec.where is not None and (columns or len(paths) > 1):
        raise ValueError(f"where is {spec.where!r}, which needs one .parquet score table; there is {' '.join(paths)}")
    scores, labels = _load(shards, spec), _labels(shards)
    spec = spec.resolve(Statistics.of(scores, labels))
    kept = select_in_memory(
        spec,
        scores,
        labels=labels if spec.per_class else None,
        among=None if spec.where is None else ids_where(paths[0], spec.where),
    )
    save_keep(out, kept, n_samples=len(scores), fingerprint=shards[0].fingerprint, **spec.sidecar())
    if labels is not None:
        _warn_of_lost_classes(lambda: (class_counts(labels), class_counts(labels[kept])), shards[0])
    return len(kept), len(scores) - len(kept)


def _check_no_input(out: str, inputs: Sequence[Any]) -> None:
    """ValueError for a list that would take the place of one of the files that it is drawn from."""
    read = [path for path in inputs if isinstance(path, str | os.PathLike)]
    written = [os.path.realpath(path) for path in (out, Path(out).with_suffix(".json"))]
    if (same := next((path for path in read if os.path.realpath(path) in written), None)) is not None:
        raise ValueError(
            f"out is {out!r}, which would replace {os.fspath(same)!r}, one of its inputs; give another name"
        )


def _load(shards: list[Shard], spec: SelectionSpec) -> Scores:
    """The scores that a spec needs, from one table in any order of ids, or from the columns of several files."""
    if len(shards) == 1 and {"dual", "mean"} <= set(shards[0].columns) and not shards[0].arrays:
        return Scores.load(shards[0].name)
    audited = [name for name in AUDITED if all(name in shard.columns for shard in shards)] or ["aum"]
    needed = sorted({*spec.configured.columns, *(audited if spec.mislabel_cut else [])})
    pieces = [columns for shard in shards for _, _, columns in shard.pieces(needed)]
    found = {name: np.concatenate([piece[at] for piece in pieces]) for at, name in enumerate(needed)}
    absent = np.full(sum(shard.count for shard in shards), np.nan)  # never read
    known: dict[str, Any] = {name: found.pop(name, absent) for name in ("dual", "mean")}
    known |= {name: found.pop(name) for name in COLUMNS if name in found}
    return Scores(extra=found, **known)


def _labels(shards: list[Shard]) -> NDArray[Any] | None:
    """The column label, where every file has it."""
    if not all("label" in shard.columns for shard in shards):
        return None
    return np.concatenate([s.arrays["label"].array() if s.arrays else Scores.about(s.name)["labels"] for s in shards])


Counts: TypeAlias = tuple[Counter[Any], Counter[Any]]


def _warn_of_lost_classes(counts: Callable[[], Counts], shard: Shard) -> None:
    with suppress(ValueError, TypeError):  # labels of a table that others made may be anything
        if lost := without_samples(*counts(), shard.about.get("class_names")):
            warn(lost)


def _class_counts(shards: Sequence[Shard], out: str) -> Counts:
    """The number of samples of each class in the score tables, and of those in the list `out`; none where a table has
    no labels. Piece by piece."""
    total: Counter[Any] = Counter()
    kept: Counter[Any] = Counter()
    if not all("label" in shard.columns for shard in shards):
        return total, kept
    with NpyFile(out) as ids:
        at = 0
        for shard in shards:
            for first, count, (labels,) in shard.pieces(["label"]):
                piece = ids.rows(at, at + count)
                piece = piece[piece < first + count]
                at += len(piece)
                total.update(class_counts(labels))
                kept.update(class_counts(labels[piece - first]))
    return total, kept

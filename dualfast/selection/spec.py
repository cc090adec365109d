"""A draw as its side file notes it: from score files to an index list, and again from the note."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dualfast.config import GivenCD, published
from dualfast.data.index_list import save_keep
from dualfast.scoring.table import Scores
from dualfast.selection.beta import auto_c_d
from dualfast.selection.select import check_method, select
from dualfast.selection.streaming import Source, select_files, shards_of

# What the side file says about the outcome, not about how to draw it again.
OUTCOME = {"n_samples", "kept", "removed", "fingerprint", "dualfast"}


@dataclass(frozen=True, kw_only=True)
class Draw:
    """The arguments of select by name, with sets of ids as files: `where`, a DuckDB expression over the columns of the
    score table, and `exclude` and `force`, .npy files of ids or masks. options: those of the method."""

    prune_ratio: float
    method: str = "dual+beta"
    seed: int = 0
    c_d: GivenCD = 4.0
    per_class: bool | Literal["equal"] = False
    where: str | None = None
    exclude: str | None = None
    force: str | None = None
    mislabel_cut: int = 0
    skip_bad: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name in self.options:
                raise ValueError(
                    f"options holds {f.name!r}, which is an argument; give {f.name}={self.options[f.name]!r}"
                )

    def note(self) -> dict[str, Any]:
        """What goes into the side file: all that is not left at its default, and how the method draws."""
        always = {"prune_ratio", "method", "seed", "per_class"} | ({"c_d"} if self.method == "dual+beta" else set())
        unset = {f.name: f.default for f in fields(self) if f.name not in always}
        noted = {k: v for k, v in asdict(self).items() if k != "options" and (k in always or v != unset[k])}
        if "c_d" in noted:
            noted["c_d"] = published(self.c_d)
        return noted | self.options

    @property
    def streams(self) -> bool:
        """Whether select_files can do it."""
        plain = not (self.per_class or self.where or self.exclude or self.force or self.mislabel_cut or self.skip_bad)
        return plain and self.method not in ("ccs", "stratified")


def like(path: str | os.PathLike[str]) -> tuple[Draw, str | None]:
    """The draw that the side file (.json, or the .npy beside it) notes, and the fingerprint of its data.

    Raises ValueError for a file that is no such note.
    """
    path = Path(path).with_suffix(".json")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Draw)} - {"options"}
        options = {name: value for name, value in about.items() if name not in known | OUTCOME}
        draw = Draw(**{name: about[name] for name in known if name in about}, options=options)
        check_method(draw.method, options)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} does not say how a list was drawn: {error}") from None
    return draw, about.get("fingerprint")


def write(
    draw: Draw,
    paths: tuple[str, ...],
    out: str,
    *,
    fingerprint: str | None = None,
    plan: Callable[[int], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, int]:
    """Draws from `paths`, a score table, several that follow each other, or one .npy a column named after it, and
    writes `out` with its side file; returns (kept, removed).

    What select_files can do runs in bounded memory, the rest in memory, from one score table. Raises ValueError as
    they do, and when the table is of other data than `fingerprint`. `plan` is told how many samples will be gone
    through, `progress` how many more have been.
    """
    check_method(draw.method, draw.options)
    columns = all(path.endswith(".npy") for path in paths)
    stems = [Path(path).stem for path in paths]
    twice = [path for path, stem in zip(paths, stems, strict=True) if stems.count(stem) > 1]
    if columns and twice:
        raise ValueError(
            f"{' '.join(twice)}: a .npy is one whole column, named after it, and each is given once; give what follows "
            "each other as .parquet score tables"
        )
    sources: list[Source] = [{Path(path).stem: path for path in paths}] if columns else list(paths)
    shards = shards_of(sources)
    theirs = shards[0].fingerprint
    for path, shard in zip(paths, shards, strict=False):
        if fingerprint is not None and shard.fingerprint not in (None, fingerprint):
            raise ValueError(
                f"{path!r} was written for the data {shard.fingerprint}; the list was drawn from {fingerprint}"
            )
    note = draw.note()
    if draw.streams:
        plan(2 * sum(shard.count for shard in shards))
        about = {k: v for k, v in note.items() if k not in ("method", "prune_ratio", "seed", "c_d", *draw.options)}
        how: dict[str, Any] = {"c_d": draw.c_d} if draw.method == "dual+beta" else {}
        how |= {"method": draw.method, "seed": draw.seed, **draw.options, **about}
        return select_files(sources, draw.prune_ratio, out, fingerprint=theirs, progress=progress, **how)
    if columns or len(paths) > 1:
        raise ValueError(f"{' '.join(paths)}: sets, classes and method {draw.method!r} need one .parquet score table")
    scores = Scores.load(paths[0])
    if note.get("c_d") == "auto":
        note["c_d"] = auto_c_d(scores, draw.prune_ratio)
    kept = select(
        scores,
        draw.prune_ratio,
        method=draw.method,
        c_d=draw.c_d,
        seed=draw.seed,
        labels=Scores.about(paths[0])["labels"] if draw.per_class else None,
        per_class=draw.per_class,
        among=None if draw.where is None else _where(paths[0], draw.where, len(scores)),
        exclude=None if draw.exclude is None else _loaded(draw.exclude),
        force=None if draw.force is None else _loaded(draw.force),
        mislabel_cut=draw.mislabel_cut,
        skip_bad=draw.skip_bad,
        **draw.options,
    )
    save_keep(out, kept, n_samples=len(scores), fingerprint=theirs, **note)
    return len(kept), len(scores) - len(kept)


def _where(path: str, expression: str, n_samples: int) -> NDArray[np.int64]:
    import duckdb

    try:
        with duckdb.connect() as database:
            # file_row_number: a table without ids has them in the order of its rows.
            rows = database.read_parquet(path, file_row_number=True)
            number = "id" if "id" in rows.columns else "file_row_number"
            ids = rows.filter(expression).project(number).fetchnumpy()[number]
    except duckdb.Error as error:
        raise ValueError(f"where is {expression!r}: {str(error).splitlines()[0]}") from None
    assert ids.max(initial=0) < n_samples
    return np.sort(np.asarray(ids, np.int64))


def _loaded(path: str) -> NDArray[Any]:
    try:
        ids: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path!r} is no list of ids: {error}") from None
    return ids

"""Scores of a data set: a column per score, in memory and in Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias
from zlib import crc32

import numpy as np
import torch

from dualfast.arguments import as_array, as_path, as_texts
from dualfast.ops import layout
from dualfast.storage.files import atomic, named_file, open_regular, what_is
from dualfast.storage.plain import parse_json

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
End: TypeAlias = Literal["high", "low"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of N samples, 1-D arrays of length N; `dual` and `mean` are required, the others may be None.

    dual        mean over windows of std * (1 - mean) of the true-class probability (arXiv 2502.06905); high: keep
    dyn_unc     mean over windows of std (arXiv 2306.05175); high: keep
    mean        mean true-class probability over the visits, in [0, 1]
    last_mean   the same over the last window - 1 visits; low: hard or mislabelled
    aum         mean of the true logit minus the largest other (arXiv 2001.10528); low: hard or mislabelled
    aum_prob    the same of probabilities, in [-1, 1]: what CCS's authors call AUM (arXiv 2210.15809); low: as aum
    late_margin mean of that margin, the k-th visit weighted with k^2; low: mislabelled
    el2n        mean over the first ten visits of the L2 norm of softmax minus one-hot (arXiv 2107.07075); high: keep
    entropy     of the softmax at the last visit, in nats (arXiv 1906.11829); high: keep
    tdds        moving average of how unevenly the softmax changes from visit to visit (arXiv 2311.13613); high: keep
    forgetting  correct to wrong transitions; a sample never right has its visits + 1 (arXiv 1812.05159); high: keep
    loss        mean cross-entropy over the visits
    top_other   the class, its label's left out, that most often had the largest logit, if it had it at more than half
                of the visits (Boyer and Moore's vote), else one that often did; -1 without visits
    visits      how often the sample was seen
    extra       scores registered with dualfast.score, by name; each is also an attribute: scores.NAME
    extra_keep  which end of each of them to keep, "high" or "low"

    A score that needs more visits than a sample had is NaN. Raises TypeError and ValueError for arrays that do not fit.
    """

    dual: Array
    mean: Array
    dyn_unc: Array | None = None
    last_mean: Array | None = None
    aum: Array | None = None
    aum_prob: Array | None = None
    late_margin: Array | None = None
    el2n: Array | None = None
    entropy: Array | None = None
    forgetting: Array | None = None
    loss: Array | None = None
    tdds: Array | None = None
    top_other: np.ndarray[Any, np.dtype[np.int64]] | None = None
    visits: np.ndarray[Any, np.dtype[np.int64]] | None = None
    extra: Mapping[str, Array] = field(default_factory=dict)
    extra_keep: Mapping[str, End] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in COLUMNS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._checked(name, value))
            elif name in ("dual", "mean"):
                raise TypeError(f"{name} is None; Scores needs dual and mean")
        if not isinstance(self.extra, Mapping) or not isinstance(self.extra_keep, Mapping):
            raise TypeError("extra and extra_keep are dicts by the name of a score")
        if taken := sorted({*ABOUT_SAMPLES, *COLUMNS} & self.extra.keys()):
            raise ValueError(f"extra has {taken[0]!r}, which is a column of its own; give it another name")
        extra = {name: self._checked(name, value) for name, value in self.extra.items()}
        object.__setattr__(self, "extra", extra)
        object.__setattr__(self, "extra_keep", {name: self.extra_keep.get(name, "high") for name in extra})

    def _checked(self, name: str, value: Any) -> Array:
        array = as_array(name, value)
        array = array.astype(np.float64) if array.dtype == np.longdouble else array  # which files cannot hold
        if array.ndim != 1 or array.dtype.kind not in "fiu":
            raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}; give 1-D numbers")
        if len(array) != len(self.dual):
            raise ValueError(
                f"{name} has {len(array)} samples and dual has {len(self.dual)}; give one value per sample"
            )
        return array

    def __getattr__(self, name: str) -> Array:
        extra: Mapping[str, Array] = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"Scores has no {name!r}; it has {', '.join([*COLUMNS, *extra])}")

    def __len__(self) -> int:
        return len(self.dual)

    @property
    def columns(self) -> dict[str, Array]:
        """Every score that is there, by name, extra ones too."""
        return {name: value for name in COLUMNS if (value := getattr(self, name)) is not None} | dict(self.extra)

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        labels: Any = None,
        names: Any = None,
        class_names: Sequence[str] | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """Writes a Parquet table with the columns id, name, label and class (those that are given) and one for each
        score, atomically. labels: (N,) int; names: (N,) texts; class_names: by label, for which labels are needed.
        Every column of numbers has a checksum in the table's note, and every page one of Parquet's own."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {"id": np.arange(len(self), dtype=np.int64)}
        if not isinstance(fingerprint, str | None):
            raise TypeError(f"fingerprint is {fingerprint!r:.80}; give the text that Loader.fingerprint is")
        class_names = None if class_names is None else as_texts("class_names", class_names)
        if names is not None:
            names = names if isinstance(names, pa.Array | pa.ChunkedArray) else as_texts("names", names)
            if len(names) != len(self):
                raise ValueError(f"names are {len(names)}; {len(self)} samples need as many")
            columns["name"] = names
        if labels is not None:
            labels = as_array("labels", labels)
            if labels.shape != (len(self),):
                raise ValueError(f"labels have the shape {labels.shape}; {len(self)} samples need ({len(self)},)")
            columns["label"] = labels = _class_numbers(labels)
            if class_names is not None:
                named = (labels >= 0) & (labels < len(class_names))
                classes = pa.array(np.where(named, labels, 0).astype(np.int32), mask=~named)
                columns["class"] = pa.DictionaryArray.from_arrays(classes, pa.array(class_names, pa.string()))
        columns |= self.columns
        about: dict[str, Any] = {"n_samples": len(self), "fingerprint": fingerprint}
        if class_names is not None:
            about["class_names"] = class_names
        if self.extra:
            about["extra"] = dict(self.extra_keep)
        about["crc32"] = {
            name: crc32(np.ascontiguousarray(column).data)
            for name, column in columns.items()
            if isinstance(column, np.ndarray) and column.dtype.kind in "fiu"
        }
        table = pa.table(columns).replace_schema_metadata({"dualfast": json.dumps(about)})
        with atomic(path) as part:
            # Plain: Arrow's dictionaries and snappy crash, instead of raising, when memory is full.
            pq.write_table(table, part, compression="none", use_dictionary=False, write_page_checksum=True)

    @staticmethod
    def about(path: str | os.PathLike[str]) -> dict[str, Any]:
        """What save() wrote besides the scores: n_samples, fingerprint or None, labels (N,) int64 in order of id or
        None, class_names if there were any, and, if there are extra scores, extra: the end to keep of each by name."""
        with open_table(as_path("path", path)) as file:
            names, noted = file.schema_arrow.names, note_of(path, file.schema_arrow)
            labels = read_columns(path, file, ["label"])["label"] if "label" in names else None
        return {"n_samples": None, "fingerprint": None, **noted, "labels": labels}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, fingerprint: str | None = None) -> Scores:
        """Reads a table that save() wrote, rows in order of id.

        Raises ValueError for a missing, damaged or foreign file, for columns that differ from their checksums, and when
        `fingerprint` is given and the file was written for other data.
        """
        named_file(path, "scores", "a score table, scores.parquet")
        with open_table(path) as file:
            names = file.schema_arrow.names
            missing = {"dual", "mean"} - set(names)
            if missing:
                raise ValueError(f"{os.fspath(path)!r} has no column {sorted(missing)[0]!r}; it has {', '.join(names)}")
            about = note_of(path, file.schema_arrow)
            written = about.get("fingerprint")
            if fingerprint is not None and written is not None and written != fingerprint:
                raise ValueError(f"{os.fspath(path)!r} was written for the data {written}; these are {fingerprint}")
            for name in ("id", *COLUMNS):
                if name in names:
                    check_column(os.fspath(path), name, file.schema_arrow.field(name).type)
            ids = read_columns(path, file, ["id"])["id"] if "id" in names else None
            if ids is not None and not np.array_equal(ids, np.arange(len(ids))):
                raise ValueError(f"{os.fspath(path)!r} has gaps or repeats in its ids; they must be 0 to N-1")
            keep = {name: end for name, end in about.get("extra", {}).items() if name in names}
            extra = read_columns(path, file, keep)
            columns = read_columns(path, file, [name for name in COLUMNS if name in names])
        return cls(**columns, extra=extra, extra_keep=keep)


@contextmanager
def open_table(path: str | os.PathLike[str]) -> Iterator[Any]:
    """A score table as a pyarrow.parquet.ParquetFile. ValueError, while it is read too, for a missing, damaged or
    foreign file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        open_regular(path).close()  # for a pipe Arrow would wait
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        kind = what_is(path)
        why = str(error).splitlines()[0] if kind in (None, "a Parquet file") else f"it is {kind}"
        raise ValueError(
            f"{os.fspath(path)!r} is not a score table: {why}; give the scores.parquet of dualfast score or run"
        ) from None


def read_columns(path: str | os.PathLike[str], file: Any, names: Iterable[str]) -> dict[str, Any]:
    """These columns of a table, which has them, in order of id. One is read at a time, so that memory holds little but
    the result.

    Raises ValueError when a column differs from the checksum that the table's note has, or has none there while others
    have; a note of 0.1 or of others has none at all.
    """
    sums = note_of(path, file.schema_arrow).get("crc32", {})
    order = None
    if "id" in file.schema_arrow.names:
        ids = file.read(["id"]).column(0).to_numpy()
        order = np.argsort(ids, kind="stable") if (ids[1:] < ids[:-1]).any() else None
    found = {}
    for name in names:
        column = file.read([name]).column(0).to_numpy()
        found[name] = column = np.ascontiguousarray(column if order is None else column[order])
        if sums and (not isinstance(sums, dict) or name not in sums or crc32(column.data) != sums[name]):
            raise ValueError(f"{os.fspath(path)!r} is damaged: {name} differs from its checksum; write the table again")
    return found


def columns_in(path: str | os.PathLike[str]) -> set[str]:
    """The names of the columns of a score table."""
    with open_table(path) as file:
        return set(file.schema_arrow.names)


def note_of(path: str | os.PathLike[str], schema: Any) -> dict[str, Any]:
    """What save() noted in the metadata of a table with this schema; empty for a table of others. ValueError when it is
    damaged."""
    what = f"the note of {os.fspath(path)!r}"
    note = parse_json((schema.metadata or {}).get(b"dualfast", b"{}"), what)
    if not isinstance(note, dict) or not isinstance(note.get("extra", {}), dict):
        raise ValueError(f"{what} is damaged; write the table again")
    return note


def check_column(path: str, name: str, kind: Any) -> None:
    """ValueError when a column of a score table, of this Arrow type, does not hold numbers."""
    import pyarrow as pa

    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        ids = "ids are the samples' rows in the data set, 0 to N-1; drop the column if the rows are in that order"
        raise ValueError(f"{path!r}: {name} is {kind}; {ids if name == 'id' else 'a score is a number'}")


TRACKED = {score: f"track_{score}=True" for score in layout.BESIDE.values()} | {"tdds": "tdds=n_classes"}
"""The columns that a ScoreTable keeps when it is told to, and how."""
ABOUT_SAMPLES = ("id", "name", "label", "class")
"""The columns of a table beside the scores."""
COLUMNS = tuple(f.name for f in fields(Scores) if f.name not in ("extra", "extra_keep"))


def lacks(name: str, instead: str = "") -> ValueError:
    """The error for scores that have no such column; instead: what else one may give."""
    how = f"with ScoreTable({TRACKED[name]})" if name in TRACKED else "with DualLoss"
    if name not in COLUMNS:
        how = "with ScoreTable(n, trajectories=True) and a function that @dualfast.score registers before training"
    return ValueError(f"the scores have no {name}; gather it {how}{', or ' * bool(instead)}{instead}")


def _class_numbers(labels: Any) -> Any:
    """labels (N,) as int64. TypeError and ValueError for what numbers no classes."""
    if labels.dtype.kind not in "iubf":
        raise TypeError(f"labels are {labels.dtype}; give class numbers, and the names as class_names")
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.floor(labels))).all():
        raise ValueError(f"labels are {labels.dtype} and not whole numbers; give class numbers")
    return labels.astype(np.int64)


def has_by_products(tails: torch.Tensor) -> bool:
    """Whether every visit in the lines' tails (N, TAIL_WORDS) int32 came with margin, EL2N and entropy."""
    return not bool(tails[:, layout.MARGIN_SUM].contiguous().view(torch.float32).isnan().any())


def tails_of(lines: torch.Tensor, window: int) -> torch.Tensor:
    """What scores_of() takes of lines (N, words) int32: the sum of each ring, as float32 bits, and the tail, (N, 1 +
    TAIL_WORDS) int32."""
    ring = lines[:, : window - 1].contiguous().view(torch.float32).sum(1)
    return torch.cat([ring.view(torch.int32)[:, None], lines[:, -layout.TAIL_WORDS :]], 1)


def scores_of(
    tails: torch.Tensor,
    window: int,
    *,
    beside: Mapping[str, torch.Tensor] | None = None,
    by_products: bool = True,
    **columns: Any,
) -> Scores:
    """Scores from tails_of() lines (N, 1 + TAIL_WORDS) int32 and what is kept beside them (N,), by the names in
    ops.Lines.

    by_products=False leaves out aum, aum_prob, late_margin, el2n and entropy. columns: further fields of Scores."""
    words = tails.cpu().contiguous().numpy()
    ring_sum, words = words[:, 0].copy().view(np.float32).astype(np.float64), words[:, 1:].copy()
    tail = words.view(np.float32).astype(np.float64)
    packed = words[:, layout.COUNTERS].view(np.uint32)
    visits = layout.VISITS.of(packed).astype(np.int64)
    forgotten = layout.FORGOTTEN.of(packed).astype(np.float64)
    ever_correct = layout.EVER_CORRECT.of(packed) == 1
    windows = np.maximum(visits - window + 1, 0)
    seen = np.where(visits > 0, visits, np.nan)
    full = np.where(windows > 0, windows, np.nan)
    if by_products:
        columns["aum"] = tail[:, layout.MARGIN_SUM] / seen
        columns["el2n"] = tail[:, layout.EL2N_SUM] / np.minimum(seen, layout.EL2N_VISITS)
        columns["entropy"] = np.where(visits > 0, tail[:, layout.ENTROPY], np.nan)
    kept = {name: value.cpu().numpy() for name, value in (beside or {}).items()}
    if "votes" in kept:
        elected = layout.VOTE_CLASS.of(kept.pop("votes").view(np.uint32)).astype(np.int64)
        columns["top_other"] = np.where(visits > 0, elected, -1)
    if "late_margin_sums" in kept:
        weights = seen * (seen + 1) * (2 * seen + 1) / 6  # of 1, 4, ..., k^2
        late_margin = kept.pop("late_margin_sums").astype(np.float64) / weights
        columns["late_margin"] = late_margin if by_products else None
    means = {name: sums.astype(np.float64) / seen for name, sums in kept.items()}
    return Scores(
        dual=tail[:, layout.DUAL_SUM] / full,
        dyn_unc=tail[:, layout.STD_SUM] / full,
        mean=tail[:, layout.P_SUM] / seen,
        last_mean=ring_sum / np.minimum(seen, window - 1),
        forgetting=np.where(visits == 0, np.nan, np.where(ever_correct, forgotten, visits + 1.0)),
        loss=means.get("loss_sums"),
        aum_prob=means.get("prob_margin_sums") if by_products else None,
        visits=visits,
        **columns,
    )

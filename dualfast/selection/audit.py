"""audit: which labels look wrong, from the scores of the training that learned them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.arguments import as_array, as_texts
from dualfast.errors import printable
from dualfast.ops import Floats, Ints
from dualfast.scoring.scores import Scores, lacks, note_of
from dualfast.storage.files import atomic

FEWEST_VISITS = 10
AUDITED = ("late_margin", "aum", "last_mean", "aum_prob", "top_other", "visits")  # the columns that audit() reads
BINS = 1 << 16  # of margins, where there are more of them
SURE = 2 / 3  # a probability that counts in any case: a network that is surer still has wrong labels that it learned
SLOPE = 1.5  # of the log-odds of a right label over its margin


@dataclass(frozen=True, eq=False)
class Audit:
    """What audit() found in N labels of C classes.

    quality     (N,) float64 in [0, 1], low where the label looks wrong; the sum of 1 - quality is n_wrong
    ranking     (N,) int64, the ids, most suspicious first
    n_wrong     estimated number of wrong labels: so many from the top of the ranking are the suspects
    method      how n_wrong was estimated: "confident joint" or "mixture", see audit()
    likely      (N,) int64, the class that each sample looks like: a suspect's top_other, else its label; or None when
                the scores do not have top_other
    confusion   (C, C) int64, how many samples labelled a look like b; without `likely` only those that are not suspects
    labels      (N,) int64, as they were given
    names       the samples' names, (N,), or None
    class_names by class, or None
    """

    quality: Floats
    ranking: Ints
    n_wrong: int
    method: str
    likely: Ints | None
    confusion: Ints
    labels: Ints
    names: Sequence[str] | None = None
    class_names: Sequence[str] | None = None

    @property
    def suspects(self) -> Ints:
        """The ids of the labels that look wrong, (n_wrong,) int64, most suspicious first."""
        return self.ranking[: self.n_wrong]

    @property
    def wrong_rates(self) -> Floats:
        """The fraction of each class's labels that look wrong, (C,) float64, NaN for a class without samples."""
        classes = len(self.confusion)
        counts = np.bincount(self.labels, minlength=classes)
        wrong = np.bincount(self.labels[self.suspects], minlength=classes)
        return np.where(counts > 0, wrong / np.maximum(counts, 1), np.nan)

    @property
    def classes(self) -> list[str]:
        """The names of all classes; their numbers where they have none."""
        return [self.class_name(c) for c in range(len(self.confusion))]

    def class_name(self, number: int) -> str:
        """The name of a class; its number where it has none."""
        known = self.class_names is not None and number < len(self.class_names)
        return self.class_names[number] if known and self.class_names is not None else str(number)

    def confused(self, most: int = 10) -> list[tuple[int, int, int]]:
        """The commonest mistakes as (given class, likely class, how many), the most frequent first."""
        off = self.confusion - np.diag(np.diag(self.confusion))
        order = np.argsort(-off, axis=None, kind="stable")[:most]
        rows, columns = np.unravel_index(order, off.shape)
        return [(int(a), int(b), int(off[a, b])) for a, b in zip(rows, columns, strict=True) if off[a, b]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a table of all samples, most suspicious first, as .csv or .parquet: id, name, label, class, quality,
        suspect, likely and likely_class, those that are known. Atomically; ValueError for another suffix."""
        import pyarrow as pa

        suffix = Path(path).suffix
        if suffix not in (".csv", ".parquet"):
            raise ValueError(f"path is {os.fspath(path)!r}; give a name that ends in .csv or .parquet")
        order = self.ranking
        columns: dict[str, Any] = {"id": order}
        if self.names is not None:
            columns["name"] = pa.array(self.names).take(pa.array(order))
        columns |= self._classes("label", "class", self.labels[order])
        columns |= {"quality": self.quality[order], "suspect": np.arange(len(order)) < self.n_wrong}
        if self.likely is not None:
            columns |= self._classes("likely", "likely_class", self.likely[order])
        note = {"n_samples": len(order), "n_wrong": self.n_wrong, "method": self.method}
        table = pa.table(columns).replace_schema_metadata({"dualfast": json.dumps(note)})
        with atomic(path) as part:
            if suffix == ".csv":
                from pyarrow import csv

                csv.write_csv(table, part)
            else:
                from pyarrow import parquet

                parquet.write_table(table, part, write_page_checksum=True)

    def _classes(self, number: str, name: str, classes: Ints) -> dict[str, Any]:
        if self.class_names is None:
            return {number: classes}
        return {number: classes, name: np.array(self.classes)[classes]}

    def __str__(self) -> str:
        n = len(self.labels)
        lines = [f"{self.n_wrong:,} of {n:,} labels look wrong ({self.n_wrong / n:.1%}, estimated by {self.method})"]
        for given, likely, count in self.confused(5):
            here, there = printable(self.class_name(given)), printable(self.class_name(likely))
            lines.append(f"  {count:,} labelled {here} look like {there}")
        rates = self.wrong_rates
        worst = [c for c in np.argsort(-np.nan_to_num(rates), kind="stable")[:3].tolist() if rates[c] > 0]
        if worst:
            shares = ", ".join(f"{printable(self.class_name(c))} {rates[c]:.1%}" for c in worst)
            lines.append(f"  most in the classes {shares}")
        return "\n".join(lines)


def audit(scores: Any, labels: Any, *, names: Any = None, class_names: Sequence[str] | None = None) -> Audit:
    """Which labels look wrong, and how many, from the scores of one training on these labels.

    scores: a Scores, or any object with its arrays, of at least ten visits per sample. labels (N,) int: those the
    network was trained with. names (N,): the samples' names, all different, for tables; class_names by class.

    Samples are ranked by late_margin, the mean margin of logits in which late visits count for more; by aum, the plain
    mean (arXiv 2001.10528), where the scores lack it. The number of wrong labels is estimated without clean ones. With
    last_mean, aum_prob and top_other ("confident joint", after arXiv 1911.00068, from one training instead of
    cross-validation): a label is counted as wrong when its margin is negative and its probability, last_mean, below
    that of the strongest other class, and that one is at least what its own samples have on average, or two thirds.
    Without them ("mixture"): the share of the lower of two normal distributions fitted to the margins, at most that of
    the negative ones, which is coarse.
    quality is 1 / (1 + exp(SLOPE (c - margin))), with the c for which the sum of 1 - quality is the estimated number.

    Raises TypeError for scores or labels of another kind; ValueError for scores without aum, with NaN or with fewer
    than ten visits, labels of another length, below 0, of one class, or that the network cannot have been trained
    with, and for names that repeat.
    """
    margin = _column(scores, margin_column(scores))
    n = len(margin)
    class_names = None if class_names is None else as_texts("class_names", class_names)
    labels = _labels(labels, n)
    _check_visits(scores, n)
    if names is not None:
        names = _unique_names(names, n)
    top_other = None if _lacks(scores, "top_other") else _top_other(scores, labels)
    classes = 1 + max(int(labels.max()), -1 if top_other is None else int(top_other.max()))
    if class_names is not None and len(class_names) > classes:
        classes = len(class_names)
    if top_other is None or _lacks(scores, "last_mean") or _lacks(scores, "aum_prob"):
        n_wrong, method = min(_mixture(margin), int((margin < 0).sum())), "mixture"
    else:
        own = _column(scores, "last_mean")
        other = own - _column(scores, "aum_prob")
        n_wrong = _confident_joint(labels, top_other, own, np.where(margin < 0, other, 0.0), classes)
        method = "confident joint"
    ranking = np.argsort(margin, kind="stable")
    confusion = np.zeros((classes, classes), np.int64)
    likely = None
    if top_other is None:
        trusted = labels[ranking[n_wrong:]]
        np.add.at(confusion, (trusted, trusted), 1)
    else:
        likely = labels.copy()
        likely[ranking[:n_wrong]] = top_other[ranking[:n_wrong]]
        np.add.at(confusion, (labels, likely), 1)
    return Audit(_quality(margin, n_wrong), ranking, n_wrong, method, likely, confusion, labels, names, class_names)


def audit_table(path: str | os.PathLike[str]) -> Audit:
    """audit() of a score table that Scores.save() wrote with the labels, with the names and classes that it tells.
    ValueError as audit() and Scores.load() do, and for a table without labels."""
    import pyarrow.parquet as pq

    scores = Scores.load(path)
    schema = pq.read_schema(path)
    if "label" not in schema.names:
        raise ValueError(
            f"{os.fspath(path)!r} has no column label; write it with Scores.save(labels=...), or call dualfast.audit"
        )
    names = None
    if {"id", "name"} <= set(schema.names):
        names = pq.read_table(path, columns=["id", "name"]).sort_by("id")["name"].to_pylist()
    return audit(
        scores, Scores.about(path)["labels"], names=names, class_names=note_of(path, schema).get("class_names")
    )


# ---- arguments -------------------------------------------------------------------------------------------------------


def margin_column(scores: Any) -> str:
    """The column whose lowest samples look mislabelled."""
    return "aum" if _lacks(scores, "late_margin") else "late_margin"


def _lacks(scores: Any, name: str) -> bool:
    return getattr(scores, name, None) is None


def _column(scores: Any, name: str) -> Floats:
    """A column that is there, float64; ValueError for one that is not, or with NaN. Infinite values, as of masked
    classes, become the largest finite ones."""
    if not hasattr(scores, "dual"):
        raise TypeError(f"scores is a {type(scores).__name__}; give Scores, as ScoreTable.scores() or Scores.load() do")
    values = getattr(scores, name, None)
    if values is None:
        raise lacks(name, "call it with by_products=True" if name == "aum" else "")
    column = as_array(name, values).astype(np.float64, copy=False)
    if column.ndim != 1 or not len(column):
        raise ValueError(f"{name} has the shape {column.shape}; give scores of at least one sample, (N,)")
    if (bad := np.isnan(column)).any():
        raise ValueError(
            f"{name}[{int(bad.argmax())}] is nan (a sample that was never recorded), with {int(bad.sum())} such "
            f"samples of {len(column)}; train with DualLoss on every sample, or audit the others alone"
        )
    finite = column[np.isfinite(column)]
    return np.clip(column, finite.min(), finite.max()) if len(finite) else np.zeros(len(column))


def _labels(given: Any, n: int) -> Ints:
    if given is None:
        raise TypeError("labels is None; give the labels that the network was trained with, (N,) int")
    labels = as_array("labels", given)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise TypeError(f"labels has shape {labels.shape} and dtype {labels.dtype}; give class numbers, (N,) int")
    if len(labels) != n:
        raise ValueError(f"labels has {len(labels)} samples and the scores have {n}; give the labels of the same data")
    if labels.min() < 0:
        at = int((labels < 0).argmax())
        raise ValueError(f"labels[{at}] is {labels[at]}; classes start at 0, so audit the labelled samples alone")
    if labels.min() == labels.max():
        raise ValueError(f"labels has one class, {labels[0]}; a label can only be wrong among two or more")
    return labels.astype(np.int64)


def _top_other(scores: Any, labels: Ints) -> Ints:
    top_other = as_array("top_other", scores.top_other).astype(np.int64)
    if top_other.shape != labels.shape:
        raise ValueError(f"top_other has the shape {top_other.shape}; {len(labels)} samples need ({len(labels)},)")
    if top_other.min() < 0:
        at = int((top_other < 0).argmax())
        raise ValueError(
            f"top_other[{at}] is {top_other[at]} (a sample that was never recorded); audit the others alone"
        )
    if (same := top_other == labels).any():
        at = int(same.argmax())
        raise ValueError(
            f"labels[{at}] is {labels[at]}, which the network saw as a wrong class there, with {int(same.sum())} such "
            f"samples of {len(labels)}; give the labels that it was trained with, in the order of their ids"
        )
    return top_other


def _check_visits(scores: Any, n: int) -> None:
    """ValueError for samples that were seen too few times for their margin to mean something."""
    if _lacks(scores, "visits"):
        return
    visits = as_array("visits", scores.visits)
    if (few := visits < FEWEST_VISITS).any():
        at = int(few.argmax())
        raise ValueError(
            f"visits[{at}] is {visits[at]}, with {int(few.sum())} such samples of {n}; an audit needs {FEWEST_VISITS} "
            f"visits of each: train for {FEWEST_VISITS} epochs or more with DualLoss (dualfast score --score-epochs "
            f"{FEWEST_VISITS})"
        )


def _unique_names(given: Any, n: int) -> list[str]:
    names = as_texts("names", given)
    if len(names) != n:
        raise ValueError(f"names are {len(names)}; {n} samples need as many")
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if first.setdefault(name, at) != at:
            raise ValueError(f"names[{at}] is {name!r}, as is names[{first[name]}]; give each sample a name of its own")
    return names


# ---- how many, and how sure ------------------------------------------------------------------------------------------


def _confident_joint(labels: Ints, top_other: Ints, own: Floats, other: Floats, classes: int) -> int:
    """How many labels lose to a class that is as probable as it is on average for the samples labelled so, or SURE.

    own, other: probability of the label and of the strongest other class, or 0 where that is not to count."""
    sums = np.bincount(labels, own, classes)
    counts = np.bincount(labels, minlength=classes)
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    wrong = (other > own) & (other >= np.minimum(usual, SURE)[top_other])
    return int(wrong.sum())


def _mixture(x: Floats, rounds: int = 500) -> int:
    """How many samples fall to the lower of two normal distributions, fitted by expectation maximization: to the values
    themselves or, of many samples, to a histogram of them."""
    n, width = len(x), float(x.std())
    if width == 0:
        return 0
    z, count = (x - x.mean()) / width, np.ones(1)
    if n > BINS:
        count, edges = np.histogram(z, BINS)
        z = (edges[1:] + edges[:-1]) / 2
    means, widths, shares = np.quantile(x, [0.1, 0.7]), np.array([0.5, 0.5]), np.array([0.2, 0.8])
    means = (means - x.mean()) / width
    for _ in range(rounds):
        log_p = np.log(shares / widths)[:, None] - 0.5 * ((z - means[:, None]) / widths[:, None]) ** 2
        belongs = count / (1 + np.exp(np.clip(log_p[::-1] - log_p, -700, 700)))
        total = np.maximum(belongs.sum(1), 1e-9)
        before, shares = shares, total / n
        means = (belongs * z).sum(1) / total
        widths = np.sqrt(np.maximum((belongs * (z - means[:, None]) ** 2).sum(1) / total, 1e-6))
        if abs(shares[0] - before[0]) < 1e-7:
            break
    return round(float(shares[means.argmin()]) * n)


def _quality(margin: Floats, n_wrong: int) -> Floats:
    """1 / (1 + exp(SLOPE (c - margin))), with the c for which the sum of the rest to 1 is n_wrong."""
    n = len(margin)

    def quality(c: float) -> Floats:
        out: Floats = 1 / (1 + np.exp(np.clip(SLOPE * (c - margin), -700, 700)))
        return out

    if n_wrong in (0, n):
        return np.full(n, float(n_wrong == 0))
    low, high = float(margin.min()) - 40, float(margin.max()) + 40
    return quality(_bisect(lambda c: float((1 - quality(c)).sum()) - n_wrong, low, high))


def _bisect(rising: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return low

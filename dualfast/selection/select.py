"""select: which samples to keep, from scores in memory. Exact in count and a function of (seed, id) alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array, checked_bool
from dualfast.config import DEFAULT_C_D, DEFAULT_METHOD, GivenCD, GivenCut
from dualfast.data.index_list import as_bits, as_indices
from dualfast.notices import warn
from dualfast.ops import Bits, Ints
from dualfast.scoring.scores import lacks
from dualfast.selection import beta
from dualfast.selection.audit import margin_column
from dualfast.selection.draw import Pool
from dualfast.selection.methods import Method, Samples, bad_scores, valid_range
from dualfast.selection.quotas import Classes, PerClass, checked_labels, class_counts, class_quotas, without_samples
from dualfast.selection.quotas import kept_count as kept_count
from dualfast.selection.ranks import cuts_at, ranking_of
from dualfast.selection.spec import SelectionSpec


def select(
    scores: Any,
    prune_ratio: float,
    *,
    method: str = DEFAULT_METHOD,
    c_d: GivenCD = DEFAULT_C_D,
    seed: int = 0,
    labels: Any = None,
    per_class: PerClass = False,
    among: Any = None,
    exclude: Any = None,
    force: Any = None,
    mislabel_cut: GivenCut = 0,
    skip_unscored: bool = False,
    as_mask: bool = False,
    **options: Any,
) -> NDArray[Any]:
    """The ids to keep, sorted int64, kept_count(N, prune_ratio) of them; as_mask: a bool array (N,) instead.

    scores: a Scores or any object with its arrays; a plain N is enough for "random". Contiguous float32 and float64
    columns, memory-mapped ones too, are not copied by "dual+beta". prune_ratio: the fraction REMOVED, in [0, 1).
    method: "dual+beta" draws without replacement with weights BetaPDF(mean) * dual (arXiv 2502.06905; c_d a positive
    number, "cifar100" (4) or "imagenet" (11) as its authors' code has them, or "auto", see beta.auto_c_d); "random"
    uniformly; "ccs" covers strata of a score after dropping the hardest (arXiv 2210.15809; options score="aum_prob",
    mis_ratio=0.0, strata=50); "stratified" draws uniformly from strata of equal size along a score, from each its share
    (Neyman, 1934; options score="dual", strata=50); any score by name, "dual" among them, keeps its usual end, or
    keep="high" | "low".

    per_class with labels (N,) int: True, every class keeps its share (largest remainder), and at least one sample where
    the number allows; "equal", all the same number; a mapping, as many of each class as it says, kept_count in all. A
    class with too few samples gives the rest to the others, with a warning. With labels, classes that keep no sample
    are named in a warning. among, exclude, force: ids, a mask (N,), or the path of an .npy with either; what may be
    kept, what may not, and what is kept in any case and counts towards the number. mislabel_cut: number of samples of
    lowest late_margin, or aum where the scores lack it, to leave out; "auto", which needs labels: as many as audit()
    takes for mislabelled. skip_unscored: samples without a score are left out instead of refused.

    The result depends only on the arguments: not on threads, not on the machine. Raises ValueError or TypeError for
    values out of range, NaN or negative scores (count and first position), an unknown method or option, labels that are
    missing, and when fewer samples may be kept than should be.
    """
    if "skip_bad" in options:
        warnings.warn("skip_bad is called skip_unscored now", DeprecationWarning, stacklevel=2)
        skip_unscored = checked_bool("skip_bad", options.pop("skip_bad")) or skip_unscored
    spec = SelectionSpec(
        prune_ratio=prune_ratio,
        method=method,
        c_d=c_d,
        seed=seed,
        per_class=per_class,
        exclude=exclude,
        force=force,
        mislabel_cut=mislabel_cut,
        skip_unscored=skip_unscored,
        options=options,
    )
    as_mask = checked_bool("as_mask", as_mask)
    ids = select_in_memory(spec, scores, labels=labels, among=among)
    if labels is not None and not isinstance(per_class, Mapping):
        _warn_of_lost_classes(checked_labels(labels, _count(scores)), ids, among, exclude)
    if not as_mask:
        return ids
    mask = np.zeros(_count(scores), np.bool_)
    mask[ids] = True
    return mask


def _warn_of_lost_classes(labels: NDArray[Any], kept: Ints, among: Any, exclude: Any) -> None:
    """Names the classes that keep no sample, of those that might."""
    might = None if among is None else as_bits(among, len(labels), name="among")
    if exclude is not None:
        others = ~as_bits(exclude, len(labels), name="exclude")
        might = others if might is None else might & others
    if lost := without_samples(class_counts(labels, might), class_counts(labels[kept])):
        warn(lost)


def select_in_memory(spec: SelectionSpec, scores: Any, *, labels: Any = None, among: Any = None) -> Ints:
    """The ids that a spec keeps, sorted; scores, labels and among as for select."""
    n_samples = _count(scores)
    if n_samples < 1:
        raise ValueError(f"there are {n_samples} samples to select from; give the scores of at least one")
    n = kept_count(n_samples, spec.prune_ratio)
    columns = _Columns(scores, n_samples, spec.configured)
    statistics = beta.Statistics.of(scores, labels)
    spec = spec.resolve(statistics)
    method = spec.configured.fit(statistics, spec.prune_ratio)
    forced = (
        np.empty(0, np.int64) if spec.force is None else as_indices(spec.force, n_samples, name="force", as_set=True)
    )
    allowed = _allowed(spec, columns, among, forced)
    if allowed is None and not method.checks_scores:
        columns.check()
    drawable = n_samples - len(forced) if allowed is None else ops.count_bits(allowed)
    if not 0 <= n - len(forced) <= drawable:
        raise ValueError(
            f"prune_ratio {spec.prune_ratio} keeps {n} of {n_samples} samples, but {len(forced)} are forced and "
            f"{drawable} more may be kept; change prune_ratio, or what is forced or left out"
        )
    pool = _pool(spec, n, forced, allowed, None if spec.per_class is False else Classes.of(labels, n_samples))
    try:
        return method.draw(columns.samples(spec.seed), pool)
    except ValueError:
        columns.check()  # names the score and counts the samples
        raise


def _count(scores: Any) -> int:
    if isinstance(scores, int | np.integer):
        return int(scores)
    if not hasattr(scores, "dual"):
        what = repr(scores) if isinstance(scores, float) else f"a {type(scores).__name__}"
        raise TypeError(f"scores is {what}; give Scores, or an object with its arrays, or a number of samples")
    dual = as_array("dual", scores.dual)
    if dual.ndim != 1:
        raise ValueError(f"dual has the shape {dual.shape}; give one value per sample, (N,)")
    return len(dual)


def _pool(spec: SelectionSpec, n: int, forced: Ints, allowed: Bits | None, classes: Classes | None) -> Pool:
    """n samples in all: of all that are allowed, or of each class its share."""
    if classes is None:
        return Pool(np.array([n - len(forced)]), ops.Groups(allowed=allowed), forced)
    groups = ops.Groups(len(classes.sizes), classes.numbers, allowed)
    available = classes.sizes if allowed is None else groups.sizes(len(classes.numbers))
    return Pool(class_quotas(classes, spec.per_class, n, forced, available), groups, forced)


def _allowed(spec: SelectionSpec, columns: _Columns, among: Any, forced: Ints) -> Bits | None:
    """A bit for each sample that may be drawn, or None: all."""
    cut, n_samples = spec.mislabel_cut, columns.n_samples
    if among is None and not len(forced) and spec.restricting <= {"per_class", "force"}:
        return None
    if among is None:
        bits = np.packbits(np.ones(n_samples, np.bool_), bitorder="little")
    else:
        bits = as_bits(among, n_samples, name="among")
    if spec.exclude is not None:
        excluded = as_bits(spec.exclude, n_samples, name="exclude")
        both = forced[ops.bits_at(excluded, forced)]
        if len(both):
            raise ValueError(f"sample {both[0]} is both excluded and forced; leave it out of one of the two")
        bits &= ~excluded
    bits &= ~as_bits(forced, n_samples)
    if cut:
        assert cut != "auto", "resolve comes first"
        if cut >= n_samples:
            raise ValueError(f"mislabel_cut is {cut}; give a number of samples, 0 to {n_samples - 1}, or auto")
        name = margin_column(columns.scores)
        margin = columns[name]
        if not spec.skip_unscored:
            columns.check(name)
        elif ops.outside(margin, *valid_range(name))[0]:
            margin = np.where(bad_scores(name, margin), np.inf, margin)
        ranking = ranking_of(margin)
        bits &= ~ops.mark_below(ranking, cuts_at(ranking, np.array([[cut]])))
    if spec.skip_unscored:
        for name in columns.needed:
            ops.outside(columns[name], *valid_range(name), bits)
    else:
        columns.check()
    return bits


class _Columns:
    """The columns that a method needs, from scores in memory."""

    def __init__(self, scores: Any, n_samples: int, method: Method) -> None:
        self.scores, self.n_samples, self.method, self.needed = scores, n_samples, method, method.columns
        if self.needed and isinstance(scores, int | np.integer):
            raise TypeError(f"scores is {scores}; method {method.name!r} needs Scores")
        self._all = tuple(self[name] for name in self.needed)

    def __getitem__(self, name: str) -> NDArray[Any]:
        column = getattr(self.scores, name, None)
        if column is None:
            raise lacks(name, self.method.instead if name in self.needed else "")
        if callable(column):
            kind = type(self.scores).__name__
            raise TypeError(f"scores is a {kind}, whose {name} is a method; give Scores with its columns")
        column = as_array(name, column)
        if column.shape != (self.n_samples,):
            raise ValueError(f"{name} has the shape {column.shape}; {self.n_samples} samples need ({self.n_samples},)")
        return np.ascontiguousarray(column, None if column.dtype in (np.float32, np.float64) else np.float64)

    def samples(self, seed: int) -> Samples:
        return Samples(self.n_samples, seed, self._all)

    def check(self, *names: str) -> None:
        """ValueError for a sample without a valid score, with the number of such samples."""
        for name in names or self.needed:
            column = self[name]
            n_bad, first = ops.outside(column, *valid_range(name))
            if n_bad:
                why = "seen too few times to be scored" if math.isnan(column[first]) else "out of its range"
                raise ValueError(
                    f"{name}[{first}] is {column[first]:g} ({why}), with {n_bad} such samples of {self.n_samples}; "
                    "score them, or give skip_unscored=True to leave them out"
                )


@dataclass(frozen=True)
class Explanation:
    """What a Beta draw will keep, before it is done. Expectations over at most 65,536 evenly spaced samples."""

    n_samples: int
    kept: int
    c_d: float
    mu: float
    a: float
    b: float
    expected_mean: float
    """Average prediction mean of the kept samples."""
    effective_samples: float
    """(sum w)^2 / sum w^2 of the weights, scaled to n_samples."""
    per_class: dict[int, float] | None
    """Expected number kept of each class, when labels are given and the draw is over all classes at once."""


def explain(scores: Any, prune_ratio: float, *, c_d: GivenCD = DEFAULT_C_D, labels: Any = None) -> Explanation:
    """What select(scores, prune_ratio, method="dual+beta", c_d=c_d) would keep; arguments and errors as there."""
    spec = SelectionSpec(prune_ratio=prune_ratio, c_d=c_d)
    n_samples = _count(scores)
    _Columns(scores, n_samples, spec.configured).check()
    n = kept_count(n_samples, prune_ratio)
    density = beta.beta_of(scores, spec.prune_ratio, c_d)
    where = beta.subset_positions(n_samples)
    subset = beta.ScoreSubset.of(scores, where)
    log_w = beta.log_weights(subset, density)
    inclusion = beta.expected_inclusion(log_w, spec.prune_ratio)
    counts = None
    if labels is not None:
        classes = Classes.of(labels, n_samples)
        expected = np.bincount(classes.numbers[where], inclusion, len(classes.sizes)) * (n / inclusion.sum())
        counts = dict(zip(classes.names, expected[classes.rows].tolist(), strict=True))
    return Explanation(
        n_samples,
        n,
        density.c_d,
        density.mu,
        density.a,
        density.b,
        float(np.average(subset.mean, weights=inclusion)),
        beta.effective_samples(log_w) * n_samples / len(where),
        counts,
    )

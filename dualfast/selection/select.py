"""select: which samples to keep. Beta sampling and its baselines, exact in count and a function of (seed, id) alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.config import GivenCD
from dualfast.selection import beta
from dualfast.selection.draw import draw, smallest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HIGH_IS_KEPT = {"dual", "dyn_unc", "el2n", "entropy", "forgetting", "loss", "tdds"}
LOW_IS_KEPT = {"aum", "mean"}
METHODS = ("dual+beta", "dual", "ccs", "stratified", "random")
OPTIONS: dict[str, set[str]] = {
    "dual+beta": {"c_d"},
    "random": set(),
    "ccs": {"score", "mis_ratio", "strata"},
    "stratified": {"score", "strata"},
}


def kept_count(n_samples: int, prune_ratio: float) -> int:
    """round((1 - prune_ratio) * n_samples), half up, exact in decimal: 0.9 of 50,000 keeps 5,000.

    prune_ratio is the fraction REMOVED, in [0, 1); ValueError otherwise.
    """
    if not isinstance(prune_ratio, int | float | np.floating | np.integer) or isinstance(prune_ratio, bool):
        raise TypeError(f"prune_ratio is {prune_ratio!r}; give a number in [0, 1), the fraction REMOVED")
    if not 0 <= prune_ratio < 1:
        raise ValueError(f"prune_ratio is {prune_ratio}; it is the fraction REMOVED and lies in [0, 1)")
    return math.floor((1 - Fraction(str(float(prune_ratio)))) * n_samples + Fraction(1, 2))


def select(
    scores: Any,
    prune_ratio: float,
    *,
    method: str = "dual+beta",
    c_d: GivenCD = 4.0,
    seed: int = 0,
    labels: Any = None,
    per_class: bool | Literal["equal"] | Mapping[int, int] = False,
    among: Any = None,
    exclude: Any = None,
    force: Any = None,
    mislabel_cut: int = 0,
    skip_bad: bool = False,
    as_mask: bool = False,
    **options: Any,
) -> NDArray[Any]:
    """The ids to keep, sorted int64, kept_count(N, prune_ratio) of them; as_mask: a bool array (N,) instead.

    scores: a Scores or anything with its arrays; a plain N will do for "random". Contiguous float32 and float64
    columns, memory-mapped ones too, are not copied by "dual+beta". prune_ratio: the fraction REMOVED, in [0, 1).
    method: "dual+beta" draws without replacement with weights BetaPDF(mean) * dual (arXiv 2502.06905; c_d a positive
    number, "cifar10", "cifar100" or "imagenet" for the published one, or "auto", see beta.auto_c_d); "random"
    uniformly; "ccs" covers strata of a score after dropping the hardest (arXiv 2210.15809; options score="aum",
    mis_ratio=0.0, strata=50); "stratified" draws from as many strata of equal size along a score its share of each,
    uniformly (Neyman, 1934; options score="dual", strata=50); any score by name, "dual" among them, keeps its usual
    end, or keep="high" | "low".

    per_class with labels (N,) int: True, every class keeps its share (largest remainder); "equal", all the same number;
    a mapping, as many of each class as it says, kept_count in all. A class that has fewer gives the rest to the others,
    with a warning.
    among, exclude, force: ids or a mask (N,); what may be kept, what may not, and what is kept in any case and counts
    towards the number. mislabel_cut: so many samples of lowest aum are left out. skip_bad: samples without a score are
    left out, instead of refused.

    The result depends on nothing but the arguments: not on threads, not on the machine. Raises ValueError or TypeError
    for values out of range, NaN or negative scores (count and first position), an unknown method or option, labels that
    are missing, and when fewer samples may be kept than should be.
    """
    n_samples = int(scores) if isinstance(scores, int | np.integer) else len(scores.dual)
    if n_samples < 1:
        raise ValueError(f"there are {n_samples} samples to select from; give the scores of at least one")
    n = kept_count(n_samples, prune_ratio)
    method_of = _Method(scores, n_samples, prune_ratio, method, c_d, seed, options)
    forced = np.empty(0, np.int64) if force is None else _ids("force", force, n_samples)
    allowed = _allowed(method_of, among, exclude, forced, mislabel_cut, skip_bad)
    if allowed is None and method != "dual+beta":  # whose draw meets every score
        method_of.check()
    able = n_samples - len(forced) if allowed is None else int(np.count_nonzero(allowed))
    if not 0 <= n - len(forced) <= able:
        raise ValueError(
            f"prune_ratio {prune_ratio} keeps {n} of {n_samples} samples, but {len(forced)} are forced and {able} more "
            "may be kept; change prune_ratio, or what is forced or left out"
        )
    kept = [forced]
    if per_class is False:
        kept.append(method_of(None if allowed is None else np.flatnonzero(allowed), n - len(forced)))
    else:
        for members, quota in _classes(labels, per_class, n_samples, n, forced, allowed):
            if quota:
                kept.append(method_of(members, quota))
    ids = kept[1] if len(kept) == 2 and not len(forced) else np.sort(np.concatenate(kept))
    if not as_mask:
        return ids
    mask = np.zeros(n_samples, np.bool_)
    mask[ids] = True
    return mask


def _ids(name: str, given: Any, n_samples: int) -> Ints:
    """Ids or a mask of n_samples as ids."""
    array = np.asarray(given)
    if array.dtype == np.bool_ and array.shape == (n_samples,):
        return np.flatnonzero(array)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise ValueError(f"{name} has shape {array.shape} and dtype {array.dtype}; give ids or a mask of {n_samples}")
    array = np.unique(array.astype(np.int64))
    if len(array) and not 0 <= array[0] <= array[-1] < n_samples:
        bad = array[0] if array[0] < 0 else array[-1]
        raise ValueError(f"{name} holds the id {bad}; the data set has samples 0 to {n_samples - 1}")
    return array


def _allowed(
    method: _Method, among: Any, exclude: Any, forced: Ints, mislabel_cut: int, skip_bad: bool
) -> NDArray[np.bool_] | None:
    """Mask (N,) of what may be drawn, or None: all."""
    if among is None and exclude is None and not len(forced) and not mislabel_cut and not skip_bad:
        return None
    n_samples = method.n_samples
    mask = np.full(n_samples, among is None)
    if among is not None:
        mask[_ids("among", among, n_samples)] = True
    if exclude is not None:
        out = _ids("exclude", exclude, n_samples)
        both = np.intersect1d(out, forced)
        if len(both):
            raise ValueError(f"sample {both[0]} is both excluded and forced; leave it out of one of the two")
        mask[out] = False
    mask[forced] = False
    if mislabel_cut:
        if (
            isinstance(mislabel_cut, bool)
            or not isinstance(mislabel_cut, int | np.integer)
            or not 0 < mislabel_cut < n_samples
        ):
            raise ValueError(f"mislabel_cut is {mislabel_cut!r}; give a number of samples, 0 to {n_samples - 1}")
        aum = method.column_of("aum").astype(np.float64)
        if skip_bad:
            aum[bad_scores("aum", aum)] = np.inf
        else:
            method.check("aum")
        mask[smallest(aum, mislabel_cut)] = False
    if skip_bad:
        for name in method.columns:
            mask &= ~method.bad(name)
    else:
        method.check()
    return mask


def _classes(
    labels: Any,
    per_class: Literal[True, "equal"] | Mapping[int, int],
    n_samples: int,
    n: int,
    forced: Ints,
    allowed: NDArray[np.bool_] | None,
) -> list[tuple[Ints, int]]:
    """For each class what may be drawn, and how much of it, so that with what is forced n come out."""
    if labels is None:
        raise ValueError("per_class needs labels, one int a sample")
    labels = np.asarray(labels)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels have shape {labels.shape} and dtype {labels.dtype}; give ({n_samples},) integers")
    classes, inverse = np.unique(labels, return_inverse=True)
    sizes: list[int] = np.bincount(inverse, minlength=len(classes)).tolist()
    if per_class is True:
        quotas = shares(sizes, n)
    elif per_class == "equal":
        quotas = shares([1] * len(classes), n)
    elif isinstance(per_class, Mapping):
        unknown = set(per_class) - set(classes.tolist())
        if unknown:
            raise ValueError(f"per_class names the class {min(unknown)}, which no sample has")
        quotas = [int(per_class.get(c, 0)) for c in classes.tolist()]
        if min(quotas) < 0 or sum(quotas) != n:
            raise ValueError(f"the quotas of per_class add up to {sum(quotas)}; prune_ratio keeps {n}")
    else:
        raise ValueError(f"per_class is {per_class!r}; give True, False, equal or a mapping from class to number")
    already: list[int] = np.bincount(inverse[forced], minlength=len(classes)).tolist()
    drawable = np.arange(n_samples) if allowed is None else np.flatnonzero(allowed)
    by_class = drawable[np.argsort(inverse[drawable], kind="stable")]
    room: list[int] = np.bincount(inverse[drawable], minlength=len(classes)).tolist()
    wanted = [max(quota - done, 0) for quota, done in zip(quotas, already, strict=True)]
    settled = fitted(wanted, room, n - len(forced))
    short = {c: w - s for c, w, s in zip(classes.tolist(), wanted, settled, strict=True) if s < w}
    if short:
        named = ", ".join(f"{c} ({missing})" for c, missing in list(short.items())[:5])
        warnings.warn(f"{len(short)} classes fall short of their quota: {named}; others fill the number", stacklevel=3)
    return list(zip(np.split(by_class, np.cumsum(room)[:-1]), settled, strict=True))


def fitted(wanted: list[int], room: list[int], n: int) -> list[int]:
    """wanted brought to the total n within 0..room: what one cannot take goes to those with room left, in proportion
    to it; what is too much comes off in proportion to what they have."""
    out = [min(w, r) for w, r in zip(wanted, room, strict=True)]
    missing = n - sum(out)
    if missing > 0:
        more = shares([r - o for o, r in zip(out, room, strict=True)], missing)
        out = [o + m for o, m in zip(out, more, strict=True)]
    elif missing < 0:
        less = shares(out, -missing)
        out = [o - x for o, x in zip(out, less, strict=True)]
    return out


def shares(sizes: list[int], n: int) -> list[int]:
    """n split in proportion to sizes, exact in total: largest remainder, ties to the earlier."""
    total = sum(sizes)
    exact = [Fraction(size * n, total) for size in sizes]
    quotas = [math.floor(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: (quotas[i] - exact[i], i))
    for i in order[: n - sum(quotas)]:
        quotas[i] += 1
    return quotas


def check_method(method: str, options: Mapping[str, Any]) -> None:
    """ValueError unless `method` is known and takes these options (c_d and mislabel_cut are arguments of select)."""
    known = {*METHODS, *HIGH_IS_KEPT, *LOW_IS_KEPT}
    if method not in known:
        raise ValueError(f"method is {method!r}; give one of {', '.join(sorted(known))}")
    allowed = OPTIONS.get(method, {"keep"}) | ({"mislabel_cut"} if method != "random" else set())
    for name in options:
        if name not in allowed:
            raise ValueError(
                f"method {method!r} has no option {name!r}; it takes {', '.join(sorted(allowed)) or 'none'}"
            )
    if (keep := options.get("keep", "high")) not in ("high", "low"):
        raise ValueError(f"keep is {keep!r}; give high or low")


def bad_scores(name: str, column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples have no such score: aum is any finite number, mean lies in [0, 1], the others in [0, inf)."""
    bad: NDArray[np.bool_] = ~np.isfinite(column) if name == "aum" else ~((column >= 0) & (column < np.inf))
    return bad | (column > 1) if name == "mean" else bad


def filled_up(positive: int, n_samples: int, n: int) -> str:
    """What is said of a draw of n where fewer have a weight."""
    return f"only {positive} of {n_samples} samples have a positive weight; {n - positive} more were drawn uniformly"


class _Method:
    """A method with its options checked, to be applied to all samples or to some."""

    def __init__(
        self,
        scores: Any,
        n_samples: int,
        prune_ratio: float,
        method: str,
        c_d: GivenCD,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        check_method(method, options)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed!r}; give an integer of 64 bits, 0 to 2**64 - 1")
        if method != "random" and isinstance(scores, int | np.integer):
            raise TypeError(f"scores is {scores}; method {method!r} needs Scores")
        self.scores, self.method, self.seed, self.n_samples = scores, method, int(seed), n_samples
        self.columns: tuple[str, ...] = ()
        if method == "dual+beta":
            self.columns = ("dual", "mean")
            self.dual, self.mean = self.column_of("dual"), self.column_of("mean")
            self.beta = beta.beta_of(scores, prune_ratio, c_d)
            if c_d == "auto":
                warnings.warn(f"c_d auto is {self.beta.c_d:g} for these scores at {prune_ratio:g}", stacklevel=3)
        elif method in ("ccs", "stratified"):
            self.columns = (options.get("score", "aum" if method == "ccs" else "dual"),)
            self.strata = options.get("strata", 50)
            self.mis_ratio = float(options.get("mis_ratio", 0.0))
            if not 0 <= self.mis_ratio < 1:
                raise ValueError(f"mis_ratio is {self.mis_ratio}; give a number in [0, 1)")
            if isinstance(self.strata, bool) or not isinstance(self.strata, int | np.integer) or self.strata < 1:
                raise ValueError(f"strata is {self.strata!r}; give an integer, at least 1")
        elif method != "random":
            self.columns = (method,)
            self.sign = 1.0 if options.get("keep", "low" if method in LOW_IS_KEPT else "high") == "low" else -1.0
        if self.columns and method != "dual+beta":
            self.column = self.column_of(self.columns[0])

    def column_of(self, name: str) -> NDArray[Any]:
        column = getattr(self.scores, name, None)
        if column is None:
            raise ValueError(f"the scores have no {name}; gather them with DualLoss")
        column = np.asarray(column)
        if column.shape != (self.n_samples,):
            raise ValueError(f"{name} has the shape {column.shape}; {self.n_samples} samples need ({self.n_samples},)")
        return np.ascontiguousarray(column, None if column.dtype in (np.float32, np.float64) else np.float64)

    def bad(self, name: str) -> NDArray[np.bool_]:
        return bad_scores(name, self.column_of(name))

    def check(self, *names: str) -> None:
        for name in names or self.columns:
            bad = self.bad(name)
            if bad.any():
                at, value = int(np.argmax(bad)), float(self.column_of(name)[np.argmax(bad)])
                why = "seen too few times to be scored" if math.isnan(value) else "out of its range"
                raise ValueError(
                    f"{name}[{at}] is {value:g} ({why}), with {int(bad.sum())} such samples of {self.n_samples}; score "
                    "them, or give skip_bad=True to leave them out"
                )

    def __call__(self, ids: Ints | None, n: int) -> Ints:
        """n of ids (None: of all), sorted."""
        if self.method == "random":
            where, _ = draw(ops.Race(self.n_samples if ids is None else len(ids), self.seed, ids=ids), n)
            return _at(ids, where)
        if self.method == "dual+beta":
            return self._dual_beta(ids, n)
        column = self.column if ids is None else self.column[ids]
        if self.method == "ccs":
            return self._ccs(column, ids, n)
        if self.method == "stratified":
            return self._stratified(column, ids, n)
        return _at(ids, smallest(self.sign * column.astype(np.float64), n))

    def _dual_beta(self, ids: Ints | None, n: int) -> Ints:
        race = ops.Race(self.n_samples, self.seed, self.dual, self.mean, self.beta.a, self.beta.b)
        if ids is not None:
            race = race.at(ids)
        try:
            where, last = draw(race, n)
        except ValueError:
            self.check()  # says more
            raise
        if last > ops.ZERO_WEIGHT_KEY / 2:
            able = int(np.count_nonzero(self.dual if ids is None else self.dual[ids]))
            warnings.warn(filled_up(able, race.count, n), stacklevel=4)
        return _at(ids, where)

    def _keys(self, ids: Ints | None) -> Floats:
        return ops.race_keys(ops.Race(self.n_samples if ids is None else len(ids), self.seed, ids=ids))

    def _ccs(self, column: NDArray[Any], ids: Ints | None, n: int) -> Ints:
        """Drop the hardest, then share n over equal-width strata, from the smallest stratum up."""
        hardest = min(math.floor(self.mis_ratio * len(column)), len(column) - n)
        rest = np.sort(np.argsort(column, kind="stable")[hardest:])
        column, keys = column[rest], self._keys(ids)[rest]
        low, high = float(column.min()), float(column.max())
        width = (high - low) / self.strata or 1.0
        stratum = np.minimum(((column - low) / width).astype(np.int64), self.strata - 1)
        members = sorted((np.flatnonzero(stratum == s) for s in np.unique(stratum)), key=len)
        kept: list[Ints] = []
        left = n
        for at, member in enumerate(members):
            quota = min(len(member), left // (len(members) - at))
            kept.append(member[smallest(keys[member], quota)])
            left -= quota
        return _at(ids, rest[np.sort(np.concatenate(kept))])

    def _stratified(self, column: NDArray[Any], ids: Ints | None, n: int) -> Ints:
        """Strata of equal size along the score; of each its share, uniformly."""
        members = [m for m in np.array_split(np.argsort(column, kind="stable"), self.strata) if len(m)]
        keys = self._keys(ids)
        quotas = shares([len(m) for m in members], n)
        kept = [m[smallest(keys[m], quota)] for m, quota in zip(members, quotas, strict=True)]
        return _at(ids, np.sort(np.concatenate(kept)))


def _at(ids: Ints | None, where: Ints) -> Ints:
    return where if ids is None else ids[where]


@dataclass(frozen=True)
class Explanation:
    """What a Beta draw will do, before it is done. Expectations over at most 65,536 evenly spaced samples."""

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


def explain(scores: Any, prune_ratio: float, *, c_d: GivenCD = 4.0, labels: Any = None) -> Explanation:
    """What select(scores, prune_ratio, method="dual+beta", c_d=c_d) would keep; arguments and errors as there."""
    n_samples = len(scores.dual)
    method = _Method(scores, n_samples, prune_ratio, "dual+beta", 1.0, 0, {})
    method.check()
    n = kept_count(n_samples, prune_ratio)
    law = beta.beta_of(scores, prune_ratio, c_d)
    where = beta.thinned(n_samples)
    few = beta.Thin.of(scores, where)
    log_w = beta.log_weights(few, law)
    inclusion = beta.expected_inclusion(log_w, prune_ratio)
    counts = None
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
            raise ValueError(f"labels have shape {labels.shape} and dtype {labels.dtype}; give ({n_samples},) integers")
        classes, inverse = np.unique(labels, return_inverse=True)
        expected = np.bincount(inverse[where], inclusion, len(classes)) * (n / inclusion.sum())
        counts = dict(zip(classes.tolist(), expected.tolist(), strict=True))
    return Explanation(
        n_samples,
        n,
        law.c_d,
        law.mu,
        law.a,
        law.b,
        float(np.average(few.mean, weights=inclusion)),
        beta.effective_samples(log_w) * n_samples / len(where),
        counts,
    )

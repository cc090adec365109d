"""select: which samples to keep. Beta sampling and its baselines, exact in count and a function of (seed, id) alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast import ops

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONCENTRATION = 15.0  # K: a + b - 1 of the Beta density
TOP_SAMPLES = 10  # the hardest by dual, whose mean is mu
HIGH_IS_KEPT = {"dual", "dyn_unc", "el2n", "entropy", "forgetting", "loss"}
LOW_IS_KEPT = {"aum", "mean"}
METHODS = ("dual+beta", "dual", "ccs", "random")
OPTIONS = {"dual+beta": {"c_d"}, "random": set(), "ccs": {"score", "mis_ratio", "strata"}}


def kept_count(n_samples: int, prune_ratio: float) -> int:
    """round((1 - prune_ratio) * n_samples), half up, exact in decimal: 0.9 of 50,000 keeps 5,000.

    prune_ratio is the fraction REMOVED, in [0, 1); ValueError otherwise.
    """
    if not isinstance(prune_ratio, int | float | np.floating | np.integer) or isinstance(prune_ratio, bool):
        raise TypeError(f"prune_ratio is {prune_ratio!r}; give a number in [0, 1), the fraction REMOVED")
    if not 0 <= prune_ratio < 1:
        raise ValueError(f"prune_ratio is {prune_ratio}; it is the fraction REMOVED and lies in [0, 1)")
    return math.floor((1 - Fraction(str(float(prune_ratio)))) * n_samples + Fraction(1, 2))


@dataclass(frozen=True)
class Beta:
    """The density of Beta sampling over the prediction mean: Beta(a, b), from mu and c_D."""

    a: float
    b: float
    mu: float
    c_d: float


def beta_of(scores: Any, prune_ratio: float, c_d: float = 4.0) -> Beta:
    """b = K (1 - mu)(1 - r^c_D), a = K + 1 - b with K = 15, mu the average `mean` of the ten highest `dual`.

    Source: arXiv 2502.06905. ValueError for a c_D that is not positive.
    """
    if not (isinstance(c_d, int | float) and math.isfinite(c_d) and c_d > 0):
        raise ValueError(f"c_d is {c_d!r}; give a positive number (4 CIFAR-100, 5.5 CIFAR-10, 11 ImageNet-1k)")
    dual, mean = np.asarray(scores.dual, np.float64), np.asarray(scores.mean, np.float64)
    top = np.argsort(-dual, kind="stable")[:TOP_SAMPLES]
    mu = float(mean[top].mean())
    b = CONCENTRATION * (1 - mu) * (1 - prune_ratio**c_d)
    # At r = 0 and mu = 0 or r near 1 one parameter reaches 0, where there is no density.
    b = min(max(b, 1e-6), CONCENTRATION + 1 - 1e-6)
    return Beta(CONCENTRATION + 1 - b, b, mu, c_d)


def select(
    scores: Any,
    prune_ratio: float,
    *,
    method: str = "dual+beta",
    c_d: float = 4.0,
    seed: int = 0,
    labels: Any = None,
    per_class: bool = False,
    **options: Any,
) -> Ints:
    """The ids to keep, sorted int64, kept_count(N, prune_ratio) of them.

    scores: a Scores or anything with its arrays; a plain N will do for "random". prune_ratio: the fraction REMOVED,
    in [0, 1). method: "dual+beta" draws without replacement with weights BetaPDF(mean) * dual (arXiv 2502.06905);
    "random" uniformly; "ccs" covers strata of a score after dropping the hardest (arXiv 2210.15809; options
    score="aum", mis_ratio=0.0, strata=50); any score by name, "dual" among them, keeps its usual end, or keep="high"
    | "low". per_class with labels (N,) int: every class keeps its share (largest remainder).
    The result depends on nothing but the arguments: not on threads, not on the machine.

    Raises ValueError or TypeError for values out of range, NaN or negative scores (count and first position), an
    unknown method or option, and labels that are missing.
    """
    n_samples = scores if isinstance(scores, int) else len(scores.dual)
    n = kept_count(n_samples, prune_ratio)
    draw = _Draw(scores, n_samples, prune_ratio, method, c_d, seed, options)
    if not per_class:
        return draw(np.arange(n_samples, dtype=np.int64), n)
    if labels is None:
        raise ValueError("per_class=True needs labels, one int a sample")
    labels = np.asarray(labels)
    if labels.shape != (n_samples,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels have shape {labels.shape} and dtype {labels.dtype}; give ({n_samples},) integers")
    classes = np.unique(labels)
    members = [np.flatnonzero(labels == c) for c in classes]
    quotas = shares([len(m) for m in members], n)
    return np.sort(np.concatenate([draw(m, q) for m, q in zip(members, quotas, strict=True)]))


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
    """ValueError unless `method` is known and takes these options (c_d is an argument of select, and allowed)."""
    known = {*METHODS, *HIGH_IS_KEPT, *LOW_IS_KEPT}
    if method not in known:
        raise ValueError(f"method is {method!r}; give one of {', '.join(sorted(known))}")
    allowed = OPTIONS.get(method, {"keep"})
    for name in options:
        if name not in allowed:
            raise ValueError(f"method {method!r} has no option {name!r}; it takes {', '.join(allowed) or 'none'}")


class _Draw:
    """A method with its options checked, to be applied to all samples or to those of a class."""

    def __init__(
        self,
        scores: Any,
        n_samples: int,
        prune_ratio: float,
        method: str,
        c_d: float,
        seed: int,
        options: dict[str, Any],
    ) -> None:
        check_method(method, options)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed!r}; give an integer of 64 bits, 0 to 2**64 - 1")
        if method != "random" and isinstance(scores, int):
            raise TypeError(f"scores is {scores}; method {method!r} needs Scores")
        self.method, self.seed, self.options, self.n_samples = method, int(seed), options, n_samples
        if method == "dual+beta":
            self.dual = self._column(scores, "dual")
            self.mean = self._column(scores, "mean")
            if (self.mean > 1).any():
                at = int(np.argmax(self.mean > 1))
                raise ValueError(f"mean[{at}] is {self.mean[at]}; a mean of probabilities lies in [0, 1]")
            self.beta = beta_of(scores, prune_ratio, c_d)
        elif method == "ccs":
            self.column = self._column(scores, options.get("score", "aum"))
            self.strata = int(options.get("strata", 50))
            self.mis_ratio = float(options.get("mis_ratio", 0.0))
            if not 0 <= self.mis_ratio < 1:
                raise ValueError(f"mis_ratio is {self.mis_ratio}; give a number in [0, 1)")
            if self.strata < 1:
                raise ValueError(f"strata is {self.strata}; give at least 1")
        elif method != "random":
            keep = options.get("keep", "low" if method in LOW_IS_KEPT else "high")
            if keep not in ("high", "low"):
                raise ValueError(f"keep is {keep!r}; give high or low")
            column = self._column(scores, method)
            self.column = column if keep == "low" else -column

    def _column(self, scores: Any, name: str) -> Floats:
        column = getattr(scores, name, None)
        if column is None:
            raise ValueError(f"the scores have no {name}; gather them with DualLoss")
        column = np.ascontiguousarray(column, np.float64)
        if column.shape != (self_n := len(scores.dual),):
            raise ValueError(f"{name} has the shape {column.shape}; {self_n} samples need ({self_n},)")
        bad = np.isnan(column) if name == "aum" else ~(column >= 0)
        if bad.any():
            at = int(np.argmax(bad))
            why = "seen too few times to be scored" if np.isnan(column[at]) else "negative"
            raise ValueError(f"{name}[{at}] is {column[at]} ({why}), with {int(bad.sum())} such samples of {self_n}")
        return column

    def __call__(self, ids: Ints, n: int) -> Ints:
        if self.method == "random":
            return ids[ops.smallest(ops.race_keys(len(ids), seed=self.seed, ids=ids), n)]
        if self.method == "ccs":
            return self._ccs(ids, n)
        if self.method != "dual+beta":
            return ids[ops.smallest(np.ascontiguousarray(self.column[ids]), n)]
        dual = np.ascontiguousarray(self.dual[ids])
        mean = np.ascontiguousarray(self.mean[ids])
        keys = ops.race_keys(len(ids), seed=self.seed, score=dual, mean=mean, a=self.beta.a, b=self.beta.b, ids=ids)
        able = np.isfinite(keys)
        if (short := n - int(able.sum())) <= 0:
            return ids[ops.smallest(keys, n)]
        warnings.warn(
            f"only {n - short} of {len(ids)} samples have a positive weight; {short} more were drawn uniformly",
            stacklevel=4,
        )
        rest = ids[~able]
        more = rest[ops.smallest(ops.race_keys(len(rest), seed=self.seed, ids=rest), short)]
        return np.sort(np.concatenate([ids[able], more]))

    def _ccs(self, ids: Ints, n: int) -> Ints:
        """Drop the hardest, then share n over equal-width strata, from the smallest stratum up."""
        column = self.column[ids]
        hardest = min(math.floor(self.mis_ratio * len(ids)), len(ids) - n)
        rest = np.sort(np.argsort(column, kind="stable")[hardest:])
        column, ids = column[rest], ids[rest]
        low, high = float(column.min()), float(column.max())
        width = (high - low) / self.strata or 1.0
        stratum = np.minimum(((column - low) / width).astype(np.int64), self.strata - 1)
        keys = ops.race_keys(len(ids), seed=self.seed, ids=np.ascontiguousarray(ids))
        members = sorted((np.flatnonzero(stratum == s) for s in np.unique(stratum)), key=len)
        kept: list[Ints] = []
        left = n
        for at, member in enumerate(members):
            quota = min(len(member), left // (len(members) - at))
            kept.append(ids[member[ops.smallest(np.ascontiguousarray(keys[member]), quota)]])
            left -= quota
        return np.sort(np.concatenate(kept))

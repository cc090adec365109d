"""The density of Beta sampling over the prediction mean, how c_D is chosen, and what a choice of it will keep."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array
from dualfast.config import DEFAULT_C_D, GivenCD, check_c_d, published
from dualfast.selection.audit import Audit, audit

CONCENTRATION = 15.0  # K: a + b - 1 of the Beta density
TOP_SAMPLES = 10  # the hardest by dual, whose mean is mu
AUTO_C_D = np.arange(1, 11.01, 0.25)  # what "auto" chooses from: the published values, 4 to 11, and below
USUAL_C_D = 4.0
AUTO_NEAR = 0.005  # an expected mean this much further from the target than the best counts as equally good
MEAN_EDGE = 1e-12  # a mean of 0 or 1 makes the density 0 or infinite
MOST = 65536  # samples an expectation is taken over


@dataclass(frozen=True)
class Beta:
    """The density of Beta sampling over the prediction mean: Beta(a, b), from mu and c_D."""

    a: float
    b: float
    mu: float
    c_d: float


@dataclass(frozen=True)
class ScoreSubset:
    """dual and mean (M,) of some samples, as float64, and their logarithms, computed once."""

    dual: NDArray[np.float64]
    mean: NDArray[np.float64]

    @cached_property
    def log_dual(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            log: NDArray[np.float64] = np.log(self.dual)
        return log

    @cached_property
    def log_mean(self) -> NDArray[np.float64]:
        log: NDArray[np.float64] = np.log(np.maximum(self.mean, MEAN_EDGE))
        return log

    @cached_property
    def log_rest(self) -> NDArray[np.float64]:
        log: NDArray[np.float64] = np.log(np.maximum(1 - self.mean, MEAN_EDGE))
        return log

    @classmethod
    def of(cls, scores: Any, where: NDArray[np.int64]) -> ScoreSubset:
        return cls(_column(scores, "dual")[where].astype(np.float64), _column(scores, "mean")[where].astype(np.float64))


class Statistics:
    """What a selection needs to know of all scores together, each computed when it is first asked for.

    mu: the average `mean` of the ten samples of highest dual that have a mean; NaN without any. subset: the samples at
    subset_positions, which expectations are taken over. audit: of the labels.
    """

    def __init__(
        self, mu: Callable[[], float], subset: Callable[[], ScoreSubset], audit: Callable[[], Audit] | None = None
    ) -> None:
        self._mu, self._subset, self._audit = mu, subset, audit

    @classmethod
    def of(cls, scores: Any, labels: Any = None) -> Statistics:
        """The statistics of scores in memory, or of those that a function returns when they are needed."""
        load: Callable[[], Any] = cache(scores) if callable(scores) else lambda: scores
        audited = None if labels is None else lambda: audit(load(), labels)
        return cls(lambda: _mu(load()), lambda: ScoreSubset.of(load(), subset_positions(len(load().dual))), audited)

    @cached_property
    def mu(self) -> float:
        return self._mu()

    @cached_property
    def subset(self) -> ScoreSubset:
        return self._subset()

    @cached_property
    def audit(self) -> Audit:
        if self._audit is None:
            raise ValueError("mislabel_cut is 'auto', and the labels are not known; give labels, or a number")
        return self._audit()


def _mu(scores: Any) -> float:
    dual, mean = _column(scores, "dual"), _column(scores, "mean")
    top = ops.largest(dual, TOP_SAMPLES)
    if np.isnan(mean[top]).any():
        top = ops.largest(np.where(np.isnan(mean), np.nan, dual), TOP_SAMPLES)
    return float(mean[top].astype(np.float64).mean()) if len(top) else math.nan


def beta_of(scores: Any, prune_ratio: float, c_d: GivenCD = DEFAULT_C_D) -> Beta:
    """b = K (1 - mu)(1 - r^c_D), a = K + 1 - b with K = 15, mu the average `mean` of the ten highest `dual`.

    Source: arXiv 2502.06905. c_d "auto": as auto_c_d chooses; "cifar100" (4) and "imagenet" (11): as its authors' code
    has them. ValueError for a c_D that is not positive.
    """
    statistics = Statistics.of(scores)
    return beta_from(statistics.mu, prune_ratio, c_d_number(c_d, statistics, prune_ratio))


def c_d_number(c_d: GivenCD, statistics: Statistics, prune_ratio: float) -> float:
    """c_d as a number: as given, as published for the data set named, or for "auto" as auto_c_d chooses."""
    check_c_d(c_d)
    return _auto(statistics, prune_ratio) if c_d == "auto" else float(published(c_d))


def beta_from(mu: float, prune_ratio: float, c_d: float) -> Beta:
    """beta_of, given mu and c_D as a number."""
    b = CONCENTRATION * (1 - mu) * (1 - prune_ratio**c_d)
    # At r = 0 and mu = 0 or r near 1 one parameter reaches 0, where there is no density.
    b = min(max(b, 1e-6), CONCENTRATION + 1 - 1e-6)
    return Beta(CONCENTRATION + 1 - b, b, mu, float(c_d))


def auto_c_d(scores: Any, prune_ratio: float) -> float:
    """c_D computed from the scores and the ratio alone: of the values 1 to 11 in steps of 1/4, at least 4 r - 1, the
    one for which the expected mean of the kept samples comes nearest to auto_target; where several come as near, within
    0.005, the one nearest to 4, the default of the authors' code. Expectations as in expected_inclusion, over at most
    65,536 samples.

    Where a network is sure of nearly every sample, as with handwritten digits, no density reaches the target, and a set
    easier than that of 4 r - 1 teaches less.
    """
    return _auto(Statistics.of(scores), prune_ratio)


def _auto(statistics: Statistics, prune_ratio: float) -> float:
    """auto_c_d; 4 where no sample of the subset has a score."""
    subset, mu = statistics.subset, statistics.mu
    scored = (subset.dual >= 0) & (subset.dual < np.inf) & (subset.mean >= 0) & (subset.mean <= 1)
    if not (scored.any() and math.isfinite(mu)):
        return USUAL_C_D
    subset = ScoreSubset(subset.dual[scored], subset.mean[scored])
    target = auto_target(float(subset.mean.mean()), prune_ratio)
    choices = AUTO_C_D[4 * prune_ratio - 1 <= AUTO_C_D]
    usual = int(np.flatnonzero(choices == USUAL_C_D)[0])

    @cache
    def above(i: int) -> float:
        return expected_mean(subset, beta_from(mu, prune_ratio, float(choices[i])), prune_ratio) - target

    return float(choices[nearest_to_usual(above, len(choices), usual)])


def nearest_to_usual(above: Callable[[int], float], n: int, usual: int) -> int:
    """Of 0..n-1, the one nearest to `usual` of those whose |above| comes within AUTO_NEAR of the least.

    above falls: a larger c_D tilts all weights to lower means, and so the mean of what is kept. Few values are asked.
    """
    if abs(above(usual)) <= AUTO_NEAR:
        return usual
    crossing = bisect_left(range(n), True, key=lambda i: above(i) <= 0)
    least = min(abs(above(i)) for i in (crossing - 1, crossing) if 0 <= i < n)
    # On the way from usual to the crossing |above| falls; if none there is near enough, the one beyond is the least.
    up = usual < crossing
    way = range(usual, crossing) if up else range(usual, crossing - 1, -1)
    at = bisect_left(way, True, key=lambda i: abs(above(i)) <= least + AUTO_NEAR)
    return way[at] if at < len(way) else crossing - (not up)


def auto_target(mean: float, prune_ratio: float) -> float:
    """The mean that "auto" wants the kept samples to have, given that of all samples, m: m + 2 (r - 1/2)^2 (1 - m)
    where more than half are removed, m - 2 (r - 1/2)^2 m where fewer are.

    When half are removed, the kept set matches the data set's mean difficulty; the more are removed, the easier it is.
    A fixed value cannot follow how sure the network was, which depends on the scoring epochs and the amount of data.
    The rule is fitted to the sweeps c_d and c_d-all of benchmarks/accuracy/run.py: CIFAR-10, two networks, scores of 30
    and of 15 epochs.
    """
    far = prune_ratio - 0.5
    return mean + 2 * far * abs(far) * (1 - mean if far > 0 else mean)


def subset_positions(count: int) -> NDArray[np.int64]:
    """All positions, or 65,536 evenly spaced ones."""
    return np.arange(min(count, MOST)) * count // min(count, MOST)


def log_weights(subset: ScoreSubset, beta: Beta) -> NDArray[np.float64]:
    """log of dual * mean^(a-1) * (1-mean)^(b-1), -inf where dual is 0."""
    return subset.log_dual + ((beta.a - 1) * subset.log_mean + (beta.b - 1) * subset.log_rest)


def expected_inclusion(log_w: NDArray[np.float64], prune_ratio: float) -> NDArray[np.float64]:
    """The probability of each sample to be kept, 1 - exp(-t w) with t such that they add up to the number kept: the
    limit of successive sampling for many samples (Rosén, 1972)."""
    w = np.exp(log_w - log_w.max()) if np.isfinite(log_w).any() else np.ones(len(log_w))
    kept = (1 - prune_ratio) * len(w)
    positive = int(np.count_nonzero(w))
    if kept >= positive:  # every sample with a weight, and a share of the others
        share = (kept - positive) / max(len(w) - positive, 1)
        return np.where(w > 0, 1.0, share)
    inclusion: NDArray[np.float64] = -np.expm1(-np.exp(_log_rate(w, kept)) * w)
    return inclusion


def _log_rate(w: NDArray[np.float64], kept: float) -> float:
    """log t such that the sum of 1 - exp(-t w) is `kept`, below the number of positive weights: by Newton's steps, kept
    within the bracket that is known."""
    low, high = math.log(kept / w.sum()), 700.0  # 1 - exp(-x) is at most x
    at = low
    for _ in range(100):
        x = math.exp(at) * w
        rest = np.exp(-x)
        over, slope = len(w) - float(rest.sum()) - kept, float((x * rest).sum())  # @ waits for BLAS's threads
        low, high = (at, high) if over < 0 else (low, at)
        to = at - over / slope if slope > 0 else math.inf
        if not low <= to <= high:
            at = (low + high) / 2
        elif abs(to - at) < 1e-7:  # a step squares the error
            return to
        else:
            at = to
    return at


def expected_mean(subset: ScoreSubset, beta: Beta, prune_ratio: float) -> float:
    """The expected average `mean` of the kept samples."""
    return float(np.average(subset.mean, weights=expected_inclusion(log_weights(subset, beta), prune_ratio)))


def effective_samples(log_w: NDArray[np.float64]) -> float:
    """Kish's effective sample size of the weights, (sum w)^2 / sum w^2: how many equal weights spread as far."""
    if not np.isfinite(log_w).any():
        return 0.0
    w = np.exp(log_w - log_w.max())
    return float(w.sum() ** 2 / np.square(w).sum())


def _column(scores: Any, name: str) -> NDArray[Any]:
    column = as_array(name, getattr(scores, name))
    return column if column.dtype in (np.float32, np.float64) and column.flags.c_contiguous else column.astype(float)

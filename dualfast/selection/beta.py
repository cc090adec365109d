"""The density of Beta sampling over the prediction mean, and what a choice of it will keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.config import GivenCD, published

CONCENTRATION = 15.0  # K: a + b - 1 of the Beta density
TOP_SAMPLES = 10  # the hardest by dual, whose mean is mu
AUTO_C_D = np.arange(1, 11.01, 0.25)  # what "auto" chooses from: the published values, 4 to 11, and below
USUAL_C_D = 4.0
AUTO_NEAR = 0.005  # a kept mean no further off than this beyond the best is as good
MOST = 65536  # samples an expectation is taken over


@dataclass(frozen=True)
class Beta:
    """The density of Beta sampling over the prediction mean: Beta(a, b), from mu and c_D."""

    a: float
    b: float
    mu: float
    c_d: float


def beta_of(scores: Any, prune_ratio: float, c_d: GivenCD = 4.0) -> Beta:
    """b = K (1 - mu)(1 - r^c_D), a = K + 1 - b with K = 15, mu the average `mean` of the ten highest `dual`.

    Source: arXiv 2502.06905. c_d "auto": as auto_c_d chooses; a data set's name: as published for it. ValueError for a
    c_D that is not positive.
    """
    mu = mu_of(scores)
    return beta_from(mu, prune_ratio, _auto(scores, mu, prune_ratio) if c_d == "auto" else c_d)


def mu_of(scores: Any) -> float:
    """The average `mean` of the ten samples of highest dual that have a mean; NaN without any."""
    dual, mean = _column(scores, "dual"), _column(scores, "mean")
    top = ops.largest(dual, TOP_SAMPLES)
    if np.isnan(mean[top]).any():
        top = ops.largest(np.where(np.isnan(mean), np.nan, dual), TOP_SAMPLES)
    return float(mean[top].astype(np.float64).mean()) if len(top) else math.nan


def beta_from(mu: float, prune_ratio: float, c_d: GivenCD) -> Beta:
    """beta_of, given mu, for a c_D other than auto."""
    c_d = published(c_d)
    if isinstance(c_d, bool) or not (
        isinstance(c_d, int | float | np.floating | np.integer) and math.isfinite(c_d) and c_d > 0
    ):
        raise ValueError(f"c_d is {c_d!r}; give a positive number, auto, cifar10, cifar100 or imagenet")
    b = CONCENTRATION * (1 - mu) * (1 - prune_ratio**c_d)
    # At r = 0 and mu = 0 or r near 1 one parameter reaches 0, where there is no density.
    b = min(max(b, 1e-6), CONCENTRATION + 1 - 1e-6)
    return Beta(CONCENTRATION + 1 - b, b, mu, float(c_d))


def auto_c_d(scores: Any, prune_ratio: float) -> float:
    """c_D read off the scores and the ratio alone: of the values 1 to 11 in steps of 1/4, at least 4 r - 1, the one for
    which the kept samples' expected mean comes nearest to auto_target; where several come as near, within 0.005, the
    one nearest to the published 4. Expectations as in expected_inclusion, over at most 65,536 samples.

    Where a network is sure of nearly all, as of handwritten digits, no density reaches the target, and what is easier
    than 4 r - 1 teaches less.
    """
    return _auto(scores, mu_of(scores), prune_ratio)


def _auto(scores: Any, mu: float, prune_ratio: float) -> float:
    return auto_from(Thin.of(scores, thinned(len(scores.dual))), mu, prune_ratio)


def auto_from(few: Thin, mu: float, prune_ratio: float) -> float:
    """auto_c_d, given mu and the samples that expectations are taken over; 4 where none of them has a score."""
    scored = (few.dual >= 0) & (few.dual < np.inf) & (few.mean >= 0) & (few.mean <= 1)
    if not (scored.any() and math.isfinite(mu)):
        return USUAL_C_D
    few = Thin(few.dual[scored], few.mean[scored])
    target = auto_target(float(few.mean.mean()), prune_ratio)
    choices = AUTO_C_D[4 * prune_ratio - 1 <= AUTO_C_D]
    reached = [expected_mean(few, beta_from(mu, prune_ratio, float(c)), prune_ratio) for c in choices]
    off = np.abs(np.array(reached) - target)
    near = choices[off <= off.min() + AUTO_NEAR]
    return float(near[np.argmin(np.abs(near - USUAL_C_D))])


def auto_target(mean: float, prune_ratio: float) -> float:
    """The mean that "auto" wants of the kept samples, given that of all, m: m + 2 (r - 1/2)^2 (1 - m) where more than
    half are removed, m - 2 (r - 1/2)^2 m where fewer are.

    When half are removed, what is kept is as easy as all is; the more are removed, the easier. A preset cannot follow
    how sure the network was, as fewer scoring epochs or more data make it. The rule is fitted to the sweeps c_d and
    c_d-all of benchmarks/accuracy/run.py: CIFAR-10, two networks, scores of 30 and of 15 epochs.
    """
    far = prune_ratio - 0.5
    return mean + 2 * far * abs(far) * (1 - mean if far > 0 else mean)


@dataclass(frozen=True)
class Thin:
    """dual and mean of some samples, as float64."""

    dual: NDArray[np.float64]
    mean: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Any, where: NDArray[np.int64]) -> Thin:
        return cls(_column(scores, "dual")[where].astype(np.float64), _column(scores, "mean")[where].astype(np.float64))


def thinned(count: int) -> NDArray[np.int64]:
    """All positions, or 65,536 evenly spaced ones."""
    return np.arange(min(count, MOST)) * count // min(count, MOST)


def log_weights(few: Thin, beta: Beta) -> NDArray[np.float64]:
    """log of dual * mean^(a-1) * (1-mean)^(b-1), -inf where dual is 0."""
    edge = 1e-12
    with np.errstate(divide="ignore"):
        score: NDArray[np.float64] = np.log(few.dual)
    score += (beta.a - 1) * np.log(np.maximum(few.mean, edge)) + (beta.b - 1) * np.log(np.maximum(1 - few.mean, edge))
    return score


def expected_inclusion(log_w: NDArray[np.float64], prune_ratio: float) -> NDArray[np.float64]:
    """The probability of each sample to be kept, 1 - exp(-t w) with t such that they add up to the number kept: what
    successive sampling comes to for many samples (Rosén, 1972)."""
    w = np.exp(log_w - log_w.max()) if np.isfinite(log_w).any() else np.ones(len(log_w))
    kept = (1 - prune_ratio) * len(w)
    positive = int(np.count_nonzero(w))
    if kept >= positive:  # all that have a weight, and of the others what is missing
        rest = (kept - positive) / max(len(w) - positive, 1)
        return np.where(w > 0, 1.0, rest)
    low, high = -60.0, 800.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if -np.expm1(-np.exp(middle) * w).sum() < kept else (low, middle)
    inclusion: NDArray[np.float64] = -np.expm1(-np.exp(high) * w)
    return inclusion


def expected_mean(few: Thin, beta: Beta, prune_ratio: float) -> float:
    """The expected average `mean` of the kept samples."""
    return float(np.average(few.mean, weights=expected_inclusion(log_weights(few, beta), prune_ratio)))


def effective_samples(log_w: NDArray[np.float64]) -> float:
    """Kish's effective sample size of the weights, (sum w)^2 / sum w^2: how many equal weights spread as far."""
    if not np.isfinite(log_w).any():
        return 0.0
    w = np.exp(log_w - log_w.max())
    return float(w.sum() ** 2 / np.square(w).sum())


def _column(scores: Any, name: str) -> NDArray[Any]:
    column = np.asarray(getattr(scores, name))
    return column if column.dtype in (np.float32, np.float64) and column.flags.c_contiguous else column.astype(float)

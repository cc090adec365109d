"""How c_D is chosen: the rule as it is stated, value by value, against the search that asks for few of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize

import dualfast
from dualfast.selection import beta
from dualfast.selection.beta import AUTO_C_D, AUTO_NEAR, ScoreSubset, beta_from, expected_inclusion, nearest_to_usual


def scores_of(seed: int) -> dualfast.Scores:
    """Of networks from unsure to sure, with samples of no weight and means of 0 and 1."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(50, 1500))
    mean = rng.beta(rng.uniform(0.3, 12), rng.uniform(0.3, 4), n).astype(rng.choice([np.float32, np.float64]))
    dual = mean * (1 - mean) * rng.random(n).astype(mean.dtype) ** rng.uniform(0, 3)
    dual[rng.random(n) < rng.choice([0, 0.1, 0.6])] = 0
    mean[rng.random(n) < rng.choice([0, 0.05])] = rng.integers(0, 2)
    return dualfast.Scores(dual=dual, mean=mean)


def inclusion_by_root(log_w: np.ndarray, prune_ratio: float) -> np.ndarray:
    w = np.exp(log_w - log_w.max()) if np.isfinite(log_w).any() else np.ones(len(log_w))
    kept, positive = (1 - prune_ratio) * len(w), np.count_nonzero(w)
    if kept >= positive:
        return np.where(w > 0, 1.0, (kept - positive) / max(len(w) - positive, 1))
    log_t = optimize.brentq(lambda s: -np.expm1(-math.exp(s) * w).sum() - kept, -60, 700, xtol=1e-13)
    return -np.expm1(-math.exp(log_t) * w)


def by_the_rule(scores: dualfast.Scores, prune_ratio: float) -> float:
    """Every choice of c_D is tried."""
    subset = ScoreSubset(np.asarray(scores.dual, np.float64), np.asarray(scores.mean, np.float64))
    mu = beta.Statistics.of(scores).mu
    choices = AUTO_C_D[4 * prune_ratio - 1 <= AUTO_C_D]
    target = beta.auto_target(float(subset.mean.mean()), prune_ratio)
    off = []
    for c_d in choices:
        law = beta_from(mu, prune_ratio, float(c_d))
        with np.errstate(divide="ignore"):
            log_w = np.log(subset.dual) + (law.a - 1) * np.log(np.maximum(subset.mean, 1e-12))
        log_w += (law.b - 1) * np.log(np.maximum(1 - subset.mean, 1e-12))
        off.append(abs(np.average(subset.mean, weights=inclusion_by_root(log_w, prune_ratio)) - target))
    near = choices[np.array(off) <= min(off) + AUTO_NEAR]
    return float(near[np.argmin(np.abs(near - 4))])


@pytest.mark.parametrize("first", range(0, 240, 60))
def test_auto_is_what_the_rule_says(first: int) -> None:
    chosen = set()
    for seed in range(first, first + 60):
        scores = scores_of(seed)
        ratio = float(np.random.default_rng(seed).choice([0.05, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.99]))
        assert beta.auto_c_d(scores, ratio) == by_the_rule(scores, ratio), (seed, ratio)
        chosen.add(beta.auto_c_d(scores, ratio))
    assert len(chosen) > 8  # from below 4 to above


def test_the_nearest_of_those_that_come_near() -> None:
    rng = np.random.default_rng(0)
    for _ in range(3000):
        n = int(rng.integers(1, 42))
        above = np.sort(rng.normal(rng.normal(0, 0.02), rng.choice([1e-4, 3e-3, 0.02, 0.2]), n))[::-1]
        usual, asked = int(rng.integers(0, n)), set()

        def ask(i: int, above: Any = above, asked: Any = asked) -> float:
            asked.add(i)
            return float(above[i])

        near = np.flatnonzero(np.abs(above) <= np.abs(above).min() + AUTO_NEAR)
        assert nearest_to_usual(ask, n, usual) == near[np.argmin(np.abs(near - usual))]
        assert len(asked) <= 2 + 2 * math.ceil(math.log2(n + 1))


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 300.0])
def test_inclusion_adds_up_to_what_is_kept(spread: float) -> None:
    rng = np.random.default_rng(0)
    for prune_ratio in (0.0, 0.001, 0.3, 0.9, 0.9999):
        for share_of_zeros in (0.0, 0.4):
            log_w = rng.normal(0, spread, 4000)
            log_w[rng.random(4000) < share_of_zeros] = -np.inf
            got = expected_inclusion(log_w, prune_ratio)
            assert got.sum() == pytest.approx((1 - prune_ratio) * 4000, rel=1e-9)
            np.testing.assert_allclose(got, inclusion_by_root(log_w, prune_ratio), rtol=1e-9, atol=1e-12)

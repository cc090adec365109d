"""The float64 specification against closed forms, torch in float64 and hand-made cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dualfast import reference
from dualfast.reference import Visit


def test_cross_entropy_is_torchs_in_float64() -> None:
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (40, 7)), rng.integers(0, 7, 40)
    targets[5] = -100
    weight = rng.uniform(0.1, 3, 7)
    for smoothing in (0.0, 0.2):
        for w in (None, weight):
            z = torch.tensor(logits, requires_grad=True)
            theirs = torch.nn.functional.cross_entropy(
                z,
                torch.tensor(targets),
                weight=None if w is None else torch.tensor(w),
                label_smoothing=smoothing,
            )
            theirs.backward()
            loss, grad, denominator = reference.cross_entropy(logits, targets, weight=w, label_smoothing=smoothing)
            assert loss.sum() / denominator == pytest.approx(float(theirs.detach()), rel=1e-13)
            np.testing.assert_allclose(grad, z.grad.numpy(), rtol=1e-11, atol=1e-15)


def test_uniform_logits_in_closed_form() -> None:
    n = 8
    seen = reference.visit(np.full(n, 3.5), 2)
    assert seen is not None
    assert (seen.p, seen.margin, seen.correct) == (pytest.approx(1 / n), 0.0, False)
    assert seen.entropy == pytest.approx(math.log(n))
    assert seen.el2n == pytest.approx(math.sqrt((n - 1) / n**2 + ((n - 1) / n) ** 2))


def test_two_classes_in_closed_form() -> None:
    seen = reference.visit([math.log(3.0), 0.0], 0)
    assert seen is not None
    assert seen.p == pytest.approx(0.75)
    assert seen.margin == pytest.approx(math.log(3))
    assert seen.el2n == pytest.approx(0.25 * math.sqrt(2))
    assert seen.entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


@pytest.mark.parametrize(("target", "margin"), [(0, 0.2), (1, -0.2), (2, -0.3)])
def test_the_margin_of_probabilities(target: int, margin: float) -> None:
    seen = reference.visit(np.log([0.5, 0.3, 0.2]), target)
    assert seen is not None
    assert seen.prob_margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("logits", "margin"), [([-900.0, 0.0, 0.0], -0.5), ([-900.0, 0.0, -900.0], -1.0), ([5.0], 1.0)]
)
def test_the_margin_of_probabilities_at_its_ends(logits: list[float], margin: float) -> None:
    seen = reference.visit(logits, 0)
    assert seen is not None
    assert seen.prob_margin == margin


def test_what_is_not_finite_is_no_visit() -> None:
    assert reference.visit([np.nan, 0.0], 1) is None
    assert reference.visit([np.inf, 0.0], 0) is None
    assert reference.visit([0.0, -np.inf], 1) is None
    assert reference.visit([0.0, -np.inf], 0) is not None


@pytest.mark.parametrize(
    ("logits", "target", "top_other"),
    [([1.0, 3.0, 2.0], 1, 2), ([1.0, 1.0, 0.0], 2, 0), ([0.0, -np.inf, -np.inf], 0, 1), ([5.0], 0, 0)],
)
def test_the_wrong_class_with_the_largest_logit(logits: list[float], target: int, top_other: int) -> None:
    seen = reference.visit(logits, target)
    assert seen is not None
    assert seen.top_other == top_other


def test_a_class_with_more_than_half_of_the_votes_is_elected() -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 30):
        votes = rng.permutation(np.r_[np.full(n // 2 + 1, 7), rng.integers(0, 5, n - n // 2 - 1)]).tolist()
        assert reference.majority(votes) == 7
    assert reference.majority([3, 4]) == 3
    assert reference.majority([]) == -1


def visits(ps: list[float], correct: list[bool] | None = None) -> list[Visit]:
    correct = [p > 0.5 for p in ps] if correct is None else correct
    return [Visit(p, 2 * p, 1 - p, p / 2, c, p - 1) for p, c in zip(ps, correct, strict=True)]


def test_alternating_probabilities_in_closed_form() -> None:
    """0, 1, 0, 1: every window of two has the std 1/sqrt(2) and the mean 1/2."""
    found = reference.scores(visits([0.0, 1.0, 0.0, 1.0]), window=2)
    assert found["dyn_unc"] == pytest.approx(math.sqrt(0.5))
    assert found["dual"] == pytest.approx(math.sqrt(0.5) / 2)
    assert (found["mean"], found["aum"], found["aum_prob"]) == (0.5, 1.0, -0.5)
    assert found["late_margin"] == 2 * (4 + 16) / (1 + 4 + 9 + 16)
    assert (found["el2n"], found["entropy"]) == (0.5, 0.5)
    assert found["forgetting"] == 1


def test_constant_probabilities_have_no_uncertainty() -> None:
    found = reference.scores(visits([0.3] * 12))
    assert found["dual"] == pytest.approx(0, abs=1e-15)
    assert found["forgetting"] == 13  # never right: one more than any count of events
    assert found["visits"] == 12


def test_only_the_first_epochs_count() -> None:
    ps = [0.1, 0.9, 0.2, 0.8, 0.3]
    assert reference.scores(visits(ps), window=2, epochs=3) == reference.scores(visits(ps[:3]), window=2)


def test_el2n_stops_after_ten_visits() -> None:
    found = reference.scores(visits([0.5] * 10 + [0.0] * 5))
    assert found["el2n"] == 0.5


def test_too_few_visits_are_nan() -> None:
    found = reference.scores(visits([0.5, 0.6]), window=3)
    assert math.isnan(found["dual"])
    assert math.isnan(found["dyn_unc"])
    assert found["mean"] == pytest.approx(0.55)
    assert math.isnan(reference.scores([])["mean"])

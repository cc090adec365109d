"""Scores and CCS as their authors compute them.

tests/fixtures/baselines.npz: logits (30, 96, 10) float16 and labels that a training of ours on 480 digits, 15% of them
mislabelled, logged over 30 epochs for 96 of them; and what the authors' published functions give for these (values, not
code; docs/scores.md names the sources).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import dualfast
from dualfast import DualLoss, Scores, ScoreTable, select

FIXTURE = Path(__file__).parents[1] / "fixtures" / "baselines.npz"
EPOCHS, WINDOW = 30, 10
# What the authors' value is divided by to be ours, and the largest difference relative to the largest value.
SCALES = {
    "dual": (10, 1e-5),
    "dyn_unc": (10, 1e-5),
    "mean": (1, 1e-6),
    "aum": (1, 1e-6),
    "aum_prob": (EPOCHS, 1e-6),  # theirs is a sum
    "el2n": (10, 1e-6),  # a sum over ten epochs
    "entropy": (1, 1e-6),
    "tdds": (1, 2e-2),  # our last probabilities are kept in float16
}


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    with np.load(FIXTURE, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def scores(published: dict[str, Any]) -> Scores:
    logits, labels = torch.from_numpy(published["logits"]).float(), torch.from_numpy(published["labels"])
    table = ScoreTable(len(labels), window=WINDOW, epochs=EPOCHS, track_aum_prob=True, tdds=10)
    criterion = DualLoss(table)
    for epoch, rows in enumerate(logits):
        for part in torch.randperm(len(labels), generator=torch.Generator().manual_seed(epoch)).split(40):
            criterion(rows[part], labels[part], part)
    return table.scores()


@pytest.mark.parametrize("name", SCALES)
def test_scores_are_those_of_their_authors(name: str, scores: Scores, published: dict[str, Any]) -> None:
    ours, theirs = np.asarray(getattr(scores, name)), published[name]
    scale, tolerance = SCALES[name]
    assert spearmanr(ours, theirs).statistic > 0.9999
    np.testing.assert_allclose(ours, theirs / scale, rtol=0, atol=tolerance * np.abs(theirs / scale).max())


def test_forgetting_is_that_of_its_authors(scores: Scores, published: dict[str, Any]) -> None:
    """They give a sample that was never learned its number of epochs, we one more: the rank is the same."""
    ours, theirs = np.asarray(scores.forgetting), published["forgetting"]
    never = ours == EPOCHS + 1
    assert 0 < never.sum() < len(ours)
    np.testing.assert_array_equal(np.where(never, EPOCHS, ours), theirs)
    assert spearmanr(ours, theirs).statistic == pytest.approx(1)


def test_ccs_takes_as_many_of_each_stratum_as_its_authors(scores: Scores, published: dict[str, Any]) -> None:
    column = np.asarray(scores.aum_prob)
    kept = select(scores, 1 - 30 / 96, method="ccs", mis_ratio=0.1)
    assert len(kept) == 30
    left = np.sort(column)[9:]  # int(0.1 * 96) are cut
    edges = np.linspace(left[0], left[-1] * 1.0001, 51)
    counts = [np.histogram(values, edges)[0].tolist() for values in (left, column[kept])]
    # Which of two strata of one size gets the remainder is a matter of the sort.
    assert sorted(zip(*counts, strict=True)) == sorted(
        zip(published["ccs_sizes"], published["ccs_budgets"], strict=True)
    )


def test_the_margin_of_logits_is_another_score(scores: Scores) -> None:
    """What CCS would cover instead; and dualfast's default is the one of its authors."""
    assert spearmanr(np.asarray(scores.aum), np.asarray(scores.aum_prob)).statistic < 0.9999
    ours, logits = (dualfast.select(scores, 0.7, method="ccs", **how) for how in ({}, {"score": "aum"}))
    assert not np.array_equal(ours, logits)

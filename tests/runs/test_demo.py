"""dualfast demo: what it says is what came out."""

from __future__ import annotations

import csv
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualfast import cli
from dualfast.data.sources.sklearn_digits import digits, wrong_labels
from dualfast.runs import demo


def test_the_demo_ends_in_three_true_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"epochs": 12, "score_epochs": 10, "prune_ratio": (0.5,), "method": ("dual+beta",), "seed": (0,)}
    monkeypatch.setattr(demo, "CONFIG", replace(demo.CONFIG, threads=1, num_workers=1, **short))
    assert cli.main(["demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    cost, result, found = facts["sentences"]
    full, pruned = sorted(facts["trainings"], key=lambda row: row["prune_ratio"])
    percent = 100 * pruned["score_seconds"] / full["train_seconds"]
    assert f" {percent:.0f}% of the time of one training" in cost
    assert "Keeping 50% of 1,437 images" in result
    numbers = re.fullmatch(r"Of the (\d+) wrong labels, (\d+) are among the (\d+) that look .*: (.*)", found)
    assert numbers is not None
    assert (numbers[1], numbers[3]) == ("43", "86")
    with open(numbers[4], newline="") as file:
        first = [int(row["id"]) for row in itertools.islice(csv.DictReader(file), 86)]
    _, rows = wrong_labels(digits()[1])
    assert int(numbers[2]) == np.isin(rows, first).sum() > 25
    assert (tmp_path / "demo" / "report.html").exists()


def test_the_wrong_labels_are_the_same_at_every_call_and_wrong() -> None:
    labels = digits()[1]
    noisy, rows = wrong_labels(labels)
    assert (noisy == wrong_labels(labels)[0]).all()
    assert np.flatnonzero(noisy != labels).tolist() == rows.tolist()
    assert (len(rows), noisy.min(), noisy.max()) == (43, 0, 9)

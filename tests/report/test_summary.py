"""dualfast.report.summary: the sentences state what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import report_fixture

from dualfast.report import summary

pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")


def test_the_sentence_says_what_was_measured(tmp_path: Path) -> None:
    run_dir = report_fixture.make_run(
        tmp_path / "run", accuracy={"full": 0.9, "dual+beta": 0.893, "dual": 0.7, "random": 0.88}
    )
    sentence, notes = summary.headline(summary.groups(run_dir.records("trained")))
    assert sentence == (
        "Keeping 20% of 60 images with dual+beta costs 0.7 ± 0.0 points of test accuracy compared with training on all "
        "of them and takes 20% of the training time (40% including scoring); random selection costs 2.0 ± 0.0 points."
    )
    assert any("2 seeds" in note for note in notes)
    assert not any("apart" in note for note in notes)
    rows = run_dir.records("trained")
    for row in rows:
        # Random is better with one seed and worse with the other: the mean difference is within its spread.
        if row["method"] == "random":
            row["accuracy"] = 0.93 if row["seed"] else 0.88
        if row["method"] == "dual+beta":
            row["accuracy"] = 0.92
    sentence, notes = summary.headline(summary.groups(rows))
    assert "gains 1.5 ± 0.7 points" in sentence
    assert any("do not tell them apart" in note for note in notes)


def test_the_notes_say_how_the_prune_ratio_was_chosen(tmp_path: Path) -> None:
    def notes(**change: Any) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return summary.headline(summary.groups(report_fixture.make_run(folder, **change).records("trained")))[1]

    tolerable = notes(accuracy={"full": 0.9, "dual+beta": 0.893})
    assert tolerable[0].startswith("This is the largest prune ratio at which dual+beta loses at most 1 point")
    costly = notes(accuracy={"full": 0.9, "dual+beta": 0.8, "random": 0.8})
    assert costly[0].startswith("dual+beta loses more than 1 point compared with training on all images at every")
    assert "At this prune ratio dual+beta and random selection are equally accurate." in costly
    assert "did not train on all images" in notes(full=False)[0]

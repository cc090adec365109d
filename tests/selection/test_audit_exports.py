"""What other tools read of an audit, and the decisions of a person."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualfast
from dualfast import Scores, cli
from dualfast.selection.audit import Audit
from dualfast.selection.audit_exports import EXPORTS, apply_labels, export

NAMES = ["a/0.png", "a/1 1.png", "b/2.png", "b/3.png"]
LABELS = np.array([0, 0, 1, 1])


def scores() -> Scores:
    """Sample 1, labelled ant, looks like bee."""
    own = np.array([0.9, 0.1, 0.9, 0.9])
    columns: dict[str, Any] = {"mean": own, "last_mean": own, "aum": 10 * (own - 0.5), "visits": np.full(4, 12)}
    return Scores(dual=own, aum_prob=2 * own - 1, top_other=1 - LABELS, **columns)


def found(names: list[str] | None = NAMES) -> Audit:
    return dualfast.audit(scores(), LABELS, names=names, class_names=["ant", "bee"])


def test_cleanlab_has_the_columns_of_datalab(tmp_path: Path) -> None:
    export(found(), "cleanlab", tmp_path / "issues.csv")
    with open(tmp_path / "issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["is_label_issue", "label_score", "given_label", "predicted_label"]
    assert [row["is_label_issue"] for row in rows] == ["False", "True", "False", "False"]
    assert [row["given_label"] for row in rows] == ["ant", "ant", "bee", "bee"]
    assert [row["predicted_label"] for row in rows] == ["ant", "bee", "bee", "bee"]
    assert [float(row["label_score"]) for row in rows] == found().quality.tolist()


def test_fiftyone_gets_a_classification_per_image(tmp_path: Path) -> None:
    export(found(), "fiftyone", tmp_path / "labels.json")
    made = json.loads((tmp_path / "labels.json").read_text())
    assert made["classes"] == ["ant", "bee"]
    assert next(iter(made["labels"])) == "a/1 1"
    assert set(made["labels"]) == {"a/0", "a/1 1", "b/2", "b/3"}
    suspect = made["labels"]["a/1 1"]
    assert (suspect["label"], suspect["attributes"]) == (0, {"suspect": True, "likely": "bee", "sample": 1})
    assert suspect["confidence"] == found().quality[1]


def test_label_studio_gets_a_task_per_suspect_with_the_likely_class(tmp_path: Path) -> None:
    export(found(), "labelstudio", tmp_path / "tasks.json")
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"] == {"image": "/data/local-files/?d=a/1%201.png", "id": 1, "given": "ant"}
    (prediction,) = task["predictions"]
    assert prediction["score"] == found().quality[1]
    choice = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": ["bee"]}}
    assert prediction["result"] == [choice]


def test_an_export_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    for kind, (_, suffix) in EXPORTS.items():
        with pytest.raises(ValueError, match=f"a file for {kind} ends in \\{suffix}"):
            export(found(), kind, tmp_path / "a.txt")
    for kind in ("fiftyone", "labelstudio"):
        with pytest.raises(ValueError, match="the samples have no names"):
            export(found(None), kind, tmp_path / "a.json")
    with pytest.raises(ValueError, match="two samples are 'a/0' without their suffix"):
        export(found(["a/0.png", "a/0.jpg", "b", "c"]), "fiftyone", tmp_path / "a.json")
    without = dualfast.audit(Scores(dual=scores().dual, mean=scores().mean, aum=scores().aum), LABELS, names=NAMES)
    with pytest.raises(ValueError, match="no top_other"):
        export(without, "cleanlab", tmp_path / "a.csv")
    assert not list(tmp_path.iterdir())


def decided(path: Path, decisions: dict[int, str]) -> Path:
    """audit.csv with a column of decisions by id."""
    found().save(path)
    with open(path, newline="") as file:
        rows = [row | {"decision": decisions.get(int(row["id"]), "")} for row in csv.DictReader(file)]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_decisions_become_corrected_labels_or_an_exclude_list(tmp_path: Path) -> None:
    path = decided(tmp_path / "audit.csv", {1: "bee", 3: "exclude"})
    assert cli.main(["apply-labels", str(path), str(tmp_path / "labels.csv")]) == 0
    assert (tmp_path / "labels.csv").read_text().splitlines() == [
        "file_name,label",
        "a/0.png,ant",
        "a/1 1.png,bee",
        "b/2.png,bee",
    ]
    path = decided(tmp_path / "audit.csv", {3: "exclude", 1: " exclude"})
    assert apply_labels(path, tmp_path / "exclude.npy") == (0, 2)
    ids = np.load(tmp_path / "exclude.npy", allow_pickle=False)
    assert ids.dtype == np.int64
    assert ids.tolist() == [1, 3]


def test_decisions_on_some_samples_are_put_into_the_table_of_all(tmp_path: Path) -> None:
    found().save(tmp_path / "audit.csv")
    some = tmp_path / "decisions.csv"
    some.write_text("id,label,decision\n1,0,bee\n3,1,exclude\n")
    command = ["apply-labels", str(some), str(tmp_path / "labels.csv")]
    assert cli.main([*command, "--audit", str(tmp_path / "audit.csv")]) == 0
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines == ["file_name,label", "a/0.png,ant", "a/1 1.png,bee", "b/2.png,bee"]
    with pytest.raises(ValueError, match=r"no column name.*name the audit.csv of all with --audit"):
        apply_labels(some, tmp_path / "labels.csv")
    for text, words in (("7,0,bee", "id 7, labelled 0, which is not there"), ("1,1,ant", "is labelled 0 there")):
        some.write_text(f"id,label,decision\n{text}\n")
        with pytest.raises(ValueError, match=f"{words}: .*audit.csv' is of other data"):
            apply_labels(some, tmp_path / "labels.csv", tmp_path / "audit.csv")


def test_decisions_that_cannot_be_applied_say_why(tmp_path: Path) -> None:
    path = decided(tmp_path / "audit.csv", {1: "bee"})
    with pytest.raises(ValueError, match=r"1 decisions are classes, which .* cannot hold; give a .csv"):
        apply_labels(path, tmp_path / "exclude.npy")
    with pytest.raises(ValueError, match=r"ends in .npy or .csv"):
        apply_labels(path, tmp_path / "labels.txt")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]))
    with pytest.raises(ValueError, match="does not have every id from 0 once"):
        apply_labels(path, tmp_path / "labels.csv")
    with pytest.raises(ValueError, match=r"the decision for id 1 is 'cow'.*ant, bee"):
        apply_labels(decided(path, {1: "cow"}), tmp_path / "labels.csv")
    for text, words in (
        ("id,label\n0,1\n", "has no column decision"),
        ("id,label,decision\n", "has no rows"),
        ("id,label,decision\n0,1\n", "row 1 of .* has other columns"),
        ("id,label,decision\nx,1,\n", "row 1 of .* or no id"),
        ("id,label,decision\n0,1,\n", "has no column name"),
        (f"id,label,decision\n0,1,{'x' * 200_000}\n", "is not a table"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            apply_labels(path, tmp_path / "labels.csv")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit.csv"]


def test_the_command_line_writes_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores().save(tmp_path / "scores.parquet", labels=LABELS, names=NAMES, class_names=["ant", "bee"])
    table = str(tmp_path / "scores.parquet")
    assert cli.main(["audit", table, "--format", "fiftyone", "--out", str(tmp_path / "labels.json")]) == 0
    assert "fiftyone: " in capsys.readouterr().out
    assert json.loads((tmp_path / "labels.json").read_text())["classes"] == ["ant", "bee"]
    assert cli.main(["audit", table, "--format", "fiftyone"]) == 2
    assert "name the file for fiftyone with --out" in capsys.readouterr().err

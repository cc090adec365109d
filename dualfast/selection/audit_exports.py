"""An audit as the files that other tools read, and the decisions of a person who looked through it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from dualfast.selection.audit import Audit
from dualfast.storage.files import atomic, write_text
from dualfast.storage.plain import read_regular

EXCLUDE = "exclude"
MAX_BYTES = 1 << 30
Rows = list[dict[str, str]]


def cleanlab(found: Audit) -> list[dict[str, Any]]:
    """The columns of Datalab.get_issues("label"), a row for each sample in order of id."""
    suspect = np.zeros(len(found.labels), bool)
    suspect[found.suspects] = True
    return [
        {
            "is_label_issue": bool(suspect[id_]),
            "label_score": float(found.quality[id_]),
            "given_label": found.class_name(int(found.labels[id_])),
            "predicted_label": _likely(found, id_),
        }
        for id_ in range(len(found.labels))
    ]


def fiftyone(found: Audit) -> dict[str, Any]:
    """labels.json of a FiftyOneImageClassificationDataset. Its keys are the names without their suffix, below
    data_path; the confidence of a label is its quality."""
    suspects = set(found.suspects.tolist())
    labels = {}
    for id_ in found.ranking.tolist():
        key = os.path.splitext(_name(found, id_))[0]
        if key in labels:
            raise ValueError(
                f"two samples are {key!r} without their suffix, and FiftyOne tells them apart by that alone"
            )
        about = {"suspect": id_ in suspects, "likely": _likely(found, id_), "sample": id_}  # id is FiftyOne's own
        label, quality = int(found.labels[id_]), float(found.quality[id_])
        labels[key] = {"label": label, "confidence": quality, "attributes": about}
    return {"classes": found.classes, "labels": labels}


def labelstudio(found: Audit) -> list[dict[str, Any]]:
    """Label Studio's tasks for the suspects, with the likely class as prediction; images as its local storage serves
    them. For <Image name="image" value="$image"/> and <Choices name="choice" toName="image">. A score is the quality of
    the given label, as Label Studio shows the lowest first."""
    tasks = []
    for id_ in found.suspects.tolist():
        data = {"image": f"/data/local-files/?d={quote(_name(found, id_))}", "id": id_}
        data["given"] = found.class_name(int(found.labels[id_]))
        choice = {"from_name": "choice", "to_name": "image", "type": "choices"}
        result = [choice | {"value": {"choices": [_likely(found, id_)]}}]
        prediction = {"model_version": "dualfast", "score": float(found.quality[id_]), "result": result}
        tasks.append({"data": data, "predictions": [prediction]})
    return tasks


EXPORTS: dict[str, tuple[Callable[[Audit], Any], str]] = {
    "cleanlab": (cleanlab, ".csv"),
    "fiftyone": (fiftyone, ".json"),
    "labelstudio": (labelstudio, ".json"),
}
"""What makes the contents of each kind of file, and the suffix of its name."""


def export(found: Audit, kind: str, path: str | os.PathLike[str]) -> None:
    """Writes an audit as the file that a tool reads, atomically. kind: one of EXPORTS.

    Raises ValueError for a name without the suffix of its kind, and for an audit that lacks names or likely classes
    where the tool needs them."""
    make, suffix = EXPORTS[kind]
    if Path(path).suffix != suffix:
        raise ValueError(f"path is {os.fspath(path)!r}; a file for {kind} ends in {suffix}")
    if suffix == ".csv":
        _write_csv(path, make(found))
    else:
        write_text(Path(path), json.dumps(make(found), indent=1) + "\n")


def _likely(found: Audit, id_: int) -> str:
    if found.likely is None:
        raise ValueError(
            "the scores have no top_other, the likely class; gather it with ScoreTable(track_top_other=True)"
        )
    return found.class_name(int(found.likely[id_]))


def _name(found: Audit, id_: int) -> str:
    if found.names is None:
        raise ValueError("the samples have no names, by which the tool finds the images; write the scores with names")
    return str(found.names[id_])


# ---- decisions -------------------------------------------------------------------------------------------------------


def apply_labels(
    path: str | os.PathLike[str], out: str | os.PathLike[str], audit: str | os.PathLike[str] | None = None
) -> tuple[int, int]:
    """Turns an audit's .csv with a further column `decision` into what a training reads; returns how many labels it
    corrects and how many samples it leaves out. audit: the .csv of all samples, where `path`, as saved from the page of
    a run, holds some of them.

    A decision is empty (the label is right), a class (the right one), or "exclude". out: exclude.npy, the sorted ids
    of the samples to leave out, for select's exclude: those of "exclude"; or labels.csv, file_name and label of all
    others, corrected, as --data and --labels take it. ValueError for a table without these columns, for classes that no
    sample has, and for decisions that `out` cannot hold."""
    rows = _table(path, {"id", "label", "decision"})
    if audit is not None:
        rows = _completed(rows, path, audit)
    suffix = Path(out).suffix
    if suffix == ".csv" and "name" not in rows[0]:
        raise ValueError(f"{os.fspath(path)!r} has no column name, by which the images are found{_MORE}")
    given = "class" if "class" in rows[0] else "label"
    known = {row[given] for row in rows} | {row.get(f"likely_{given}", row.get("likely", "")) for row in rows}
    excluded = [row for row in rows if row["decision"] == EXCLUDE]
    corrected = [row for row in rows if row["decision"] not in ("", EXCLUDE, row[given])]
    for row in corrected:
        if row["decision"] not in known:
            raise ValueError(
                f"{os.fspath(path)!r}: the decision for id {row['id']} is {row['decision']!r}; give nothing, "
                f'"{EXCLUDE}" or a class: {", ".join(sorted(known - {""})[:20])}'
            )
    if suffix == ".npy":
        if corrected:
            raise ValueError(
                f"{len(corrected)} decisions are classes, which {os.fspath(out)!r} cannot hold; give a .csv"
            )
        ids = np.sort(np.array([int(row["id"]) for row in excluded], np.int64))
        with atomic(out) as part, part.open("wb") as file:
            np.save(file, ids)
    elif suffix == ".csv":
        if [int(row["id"]) for row in rows] != list(range(len(rows))):
            raise ValueError(
                f"{os.fspath(path)!r} does not have every id from 0 once; keep all rows of audit.csv{_MORE}"
            )
        kept = (row for row in rows if row["decision"] != EXCLUDE)
        _write_csv(out, [{"file_name": row["name"], "label": row["decision"] or row[given]} for row in kept])
    else:
        raise ValueError(f"out is {os.fspath(out)!r}; give a name that ends in .npy or .csv")
    return len(corrected), len(excluded)


def has_decisions(path: str | os.PathLike[str]) -> bool:
    """Whether there is a table with decisions in it."""
    if Path(path).suffix != ".csv" or not Path(path).is_file():
        return False
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return any((row.get("decision") or "").strip() for row in csv.DictReader(file))


_MORE = "; for decisions on some samples, name the audit.csv of all with --audit"


def _completed(decided: Rows, path: str | os.PathLike[str], audit: str | os.PathLike[str]) -> Rows:
    """The rows of an audit's table, with the decisions on some of them. ValueError where these are of other samples."""
    rows = _table(audit, {"id", "label"})
    by_id = {row["id"]: row for row in rows}
    for row in rows:
        row["decision"] = ""
    for row in decided:
        sample = by_id.get(row["id"])
        if sample is None or sample["label"] != row["label"]:
            given = "is not there" if sample is None else f"is labelled {sample['label']} there"
            raise ValueError(
                f"{os.fspath(path)!r} has id {row['id']}, labelled {row['label']}, which {given}: {os.fspath(audit)!r} "
                "is of other data; give the audit.csv of the same run"
            )
        sample["decision"] = row["decision"]
    return rows


def _table(path: str | os.PathLike[str], needed: set[str]) -> Rows:
    """The rows of an audit's .csv, which has these columns, in order of id."""
    where = os.fspath(path)
    text = read_regular(Path(path), MAX_BYTES).decode("utf-8-sig", errors="replace")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        table = list(reader)
    except csv.Error as error:
        raise ValueError(f"{where!r} is not a table: {error}") from None
    if lacking := needed - set(reader.fieldnames or ()):
        more = " with a further column decision" if "decision" in needed else ""
        raise ValueError(f"{where!r} has no column {sorted(lacking)[0]}; give the audit.csv of dualfast audit{more}")
    for number, row in enumerate(table, 1):
        if None in row or None in row.values() or not row["id"].isdecimal():
            raise ValueError(f"row {number} of {where!r} has other columns than its header, or no id")
        if "decision" in row:
            row["decision"] = row["decision"].strip()
    if not table:
        raise ValueError(f"{where!r} has no rows")
    return sorted(table, key=lambda row: int(row["id"]))


def _write_csv(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> None:
    with atomic(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["file_name", "label"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

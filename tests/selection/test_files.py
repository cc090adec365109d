"""Score files as people have them: columns, parts, other types. What select would keep, or one line that says why."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dualfast
from dualfast.data.index_list import load_keep
from dualfast.selection.files import write_list
from dualfast.selection.select import select
from dualfast.selection.spec import SelectionSpec

pa = pytest.importorskip("pyarrow")
N = 200
LABELS = np.arange(N) % 3


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def el2n() -> np.ndarray[Any, Any]:
    values = np.random.default_rng(0).random(N)
    values[7] = np.nan
    return values


def drawn(paths: tuple[str, ...], method: str, **restricting: Any) -> list[int]:
    write_list(SelectionSpec(prune_ratio=0.7, method=method, **restricting), paths, "keep.npy")
    return load_keep("keep.npy", n_samples=N).tolist()


def table(path: str, rows: slice = slice(None), **columns: Any) -> str:
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table({"id": np.arange(N)[rows]} | {name: column[rows] for name, column in columns.items()}), path
    )
    return path


RESTRICTING: list[dict[str, Any]] = [{}, {"per_class": True}, {"exclude": [3]}]


@pytest.mark.parametrize("restricting", RESTRICTING, ids=str)
def test_columns_and_parts_are_drawn_from_as_one_table_is(restricting: dict[str, Any]) -> None:
    scores = dualfast.Scores(dual=np.zeros(N), mean=np.zeros(N), el2n=el2n())
    given = restricting | {"skip_unscored": True}
    labels = LABELS if "per_class" in restricting else None
    want = select(scores, 0.7, method="el2n", labels=labels, **given).tolist()
    assert 7 not in want
    np.save("el2n.npy", scores.el2n)
    np.save("label.npy", LABELS)
    table("whole.parquet", el2n=scores.el2n, label=LABELS)
    parts = [table(f"{i}.parquet", slice(i * 100, i * 100 + 100), el2n=scores.el2n, label=LABELS) for i in (0, 1)]
    for paths in (("el2n.npy", "label.npy"), ("whole.parquet",), tuple(parts)):
        assert drawn(paths, "el2n", **given) == want
    names = np.array(["cat", "dog", "ant"])[LABELS]
    table("whole.parquet", el2n=scores.el2n, label=names)
    assert drawn(("whole.parquet",), "el2n", **given) == want


def test_a_sample_without_a_score_is_named_with_the_way_out() -> None:
    np.save("el2n.npy", el2n())
    with pytest.raises(ValueError, match=r"el2n\[7\] is nan; skip_unscored=True leaves such samples out"):
        drawn(("el2n.npy",), "el2n")


def test_where_needs_one_table() -> None:
    np.save("el2n.npy", el2n())
    with pytest.raises(ValueError, match=r"where is 'el2n > 0', which needs one \.parquet"):
        drawn(("el2n.npy",), "el2n", where="el2n > 0")


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(N)
    torch.save(torch.from_numpy(values), "el2n.pt")
    Path("el2n.csv").write_text("id,el2n\n0,0.5\n")
    Path("lfs.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    buffer = io.BytesIO()
    np.save(buffer, values)
    Path("el2n.parquet").write_bytes(buffer.getvalue())
    np.save("log.npy", np.zeros((30, N)))
    np.save("text.npy", np.array(["a"] * N))
    for path, says in (
        ("el2n.pt", "it is a zip archive, as torch.save"),
        ("el2n.csv", "it is text; save the scores as Parquet, or each column with np.save"),
        ("lfs.parquet", "Git LFS pointer"),
        ("log.npy", r"log has the shape \(30, 200\); .*score_trajectories"),
        ("text.npy", "text is <U1; a score is a number"),
        (table("ids.parquet", id=np.array(["a.jpg"] * N), dual=values, mean=values), "id is string; ids are"),
        (table("lists.parquet", dual=pa.array([[1.0]] * N), mean=values), "dual is list<.*>; a score is a number"),
    ):
        for given in ({}, {"skip_unscored": True}):
            with pytest.raises(ValueError, match=says):
                drawn((path,), "dual", **given)


def test_the_name_of_the_list_is_checked_before_anything_is_read() -> None:
    for out, says in (("keep", r"end it in \.npy"), ("nowhere/keep.npy", "does not exist")):
        with pytest.raises(ValueError, match=says):
            write_list(SelectionSpec(prune_ratio=0.5), ("missing.parquet",), out)

"""Scores: a file that has changed is refused, or right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualfast import Scores

pytest.importorskip("pyarrow")


def test_no_flipped_bit_loads_other_scores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = Scores(dual=rng.random(500), mean=rng.random(500, np.float32), visits=np.arange(500))
    path = tmp_path / "scores.parquet"
    scores.save(path, labels=np.arange(500) % 7, fingerprint="f")
    whole = path.read_bytes()
    refused = 0
    for at, bit in zip(rng.integers(4, len(whole), 600), rng.integers(0, 8, 600), strict=True):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        try:
            loaded, labels = Scores.load(path), Scores.about(path)["labels"]
        except ValueError:
            refused += 1
            continue
        for name in ("dual", "mean"):
            np.testing.assert_array_equal(getattr(loaded, name), getattr(scores, name))
        assert labels is None or (labels == np.arange(500) % 7).all()
    assert refused > 300


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    from dualfast.selection.audit import audit_table
    from dualfast.selection.sample_rows import rows_of_table
    from dualfast.selection.shards import shards_of

    os.mkfifo(tmp_path / "scores.parquet")
    for read in (Scores.load, Scores.about, audit_table, lambda path: list(rows_of_table(path)), shards_of):
        with pytest.raises(ValueError, match="not a regular file but a pipe"):
            read(tmp_path / "scores.parquet")


def test_columns_without_their_checksum_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "scores.parquet"
    Scores(dual=np.arange(5.0), mean=np.full(5, 0.5)).save(path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "dual", pa.array(np.arange(5.0)[::-1])), path)
    with pytest.raises(ValueError, match="dual differs from its checksum"):
        Scores.load(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert Scores.load(path).dual.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("note", [b"[]", b"1", b"{", b'{"extra": 1}', b"[" * 99999])
def test_a_damaged_note_is_named(note: bytes, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"dual": [1.0], "mean": [0.5]}).replace_schema_metadata({b"dualfast": note})
    pq.write_table(table, tmp_path / "s.parquet")
    for read in (Scores.load, Scores.about):
        with pytest.raises(ValueError, match=r"note of .*s\.parquet"):
            read(tmp_path / "s.parquet")


def test_names_and_classes_stand_beside_checksums_of_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    about = {"labels": [0, 1, 0], "names": ["x", "y", "z"], "class_names": ("a", "b")}
    Scores(dual=np.arange(3.0), mean=np.full(3, 0.5)).save(path, **about)
    assert Scores.load(path).dual.tolist() == [0, 1, 2]
    found = Scores.about(path)
    assert (set(found["crc32"]), found["class_names"]) == ({"id", "label", "dual", "mean"}, ["a", "b"])
    assert found["labels"].tolist() == [0, 1, 0]


def test_columns_are_read_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "s.parquet"
    Scores(dual=np.arange(3.0), mean=np.full(3, 0.5), aum=np.ones(3)).save(
        path, labels=[0, 1, 0], names=["x", "y", "z"]
    )
    read, asked = pq.ParquetFile.read, []

    def noted(self: pq.ParquetFile, columns: list[str]) -> object:
        asked.append(columns)
        return read(self, columns)

    monkeypatch.setattr(pq.ParquetFile, "read", noted)
    Scores.load(path)
    assert all(len(columns) == 1 for columns in asked)
    assert {columns[0] for columns in asked} == {"id", "dual", "mean", "aum"}  # and no names or labels


def test_rows_in_any_order_are_held_to_their_checksums(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path, order = tmp_path / "s.parquet", [2, 0, 1]
    Scores(dual=np.arange(3.0), mean=np.full(3, 0.5)).save(path, labels=[5, 6, 7])
    pq.write_table(pq.read_table(path).take(order), path)
    assert Scores.load(path).dual.tolist() == [0, 1, 2]
    assert Scores.about(path)["labels"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("labels", "error"), [([0.0, 1.7], ValueError), ([0.0, float("nan")], ValueError), (["cat", "dog"], TypeError)]
)
def test_labels_of_a_table_are_class_numbers(labels: list[Any], error: type[Exception], tmp_path: Path) -> None:
    scores = Scores(dual=np.full(2, 0.5), mean=np.full(2, 0.5))
    with pytest.raises(error, match=r"labels are .*; give class numbers"):
        scores.save(tmp_path / "s.parquet", labels=labels)
    scores.save(tmp_path / "s.parquet", labels=[0.0, 1.0])
    assert Scores.about(tmp_path / "s.parquet")["labels"].tolist() == [0, 1]

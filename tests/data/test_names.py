"""The names of the samples, beside the .beton."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file, tar_file

from dualfast import compact
from dualfast.data import beton, names, sources
from dualfast.data.beton import checksums
from dualfast.storage.files import waiting_for

pytest.importorskip("PIL")
pq = pytest.importorskip("pyarrow.parquet")


def names_of(path: Path) -> list[str]:
    found = beton.open_beton(path).names
    assert found is not None
    listed: list[str] = found.column.to_pylist()
    return listed


def test_each_sample_has_its_name(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "set", {"a": 2, "b": 1})
    beton.write(folder, tmp_path / "folder.beton", progress=False)
    assert names_of(tmp_path / "folder.beton") == ["a/0.jpg", "a/1.jpg", "b/0.jpg"]
    assert b"a/1.jpg" in (tmp_path / "folder.beton.names.parquet").read_bytes()  # grep finds it
    table = pq.read_table(tmp_path / "folder.beton.names.parquet")
    assert table["id"].to_pylist() == [0, 1, 2]
    assert table["size"].to_pylist() == [(folder / name).stat().st_size for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg")]

    (tmp_path / "shards").mkdir()
    for shard in range(2):
        parquet_file(tmp_path / "shards" / f"{shard}.parquet", {"image": [jpeg(0)] * 2, "label": [0, 1]})
    beton.write(tmp_path / "shards", tmp_path / "shards.beton", progress=False)
    assert names_of(tmp_path / "shards.beton") == ["0.parquet:0", "0.parquet:1", "1.parquet:0", "1.parquet:1"]

    tar = tar_file(tmp_path / "t.tar", {"d/1.jpg": jpeg(1), "d/1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"})
    beton.write(tar, tmp_path / "tar.beton", progress=False)
    assert names_of(tmp_path / "tar.beton") == ["t.tar:d/1.jpg", "t.tar:2.jpg"]

    beton.write((np.zeros((2, 4, 4), np.uint8), [0, 1]), tmp_path / "arrays.beton", progress=False)
    assert names_of(tmp_path / "arrays.beton") == ["images[0]", "images[1]"]


def test_compact_keeps_the_names_of_what_it_keeps(tmp_path: Path) -> None:
    beton.write(class_folders(tmp_path / "set", {"a": 3, "b": 3}), tmp_path / "x.beton", progress=False)
    compact(tmp_path / "x.beton", [1, 2, 5], tmp_path / "small.beton", progress=False)
    assert names_of(tmp_path / "small.beton") == ["a/1.jpg", "a/2.jpg", "b/2.jpg"]


def test_names_of_other_data_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    beton.write((np.zeros((3, 4, 4), np.uint8), [0, 1, 1]), path, progress=False)
    theirs = names.path_of(path).read_bytes()
    beton.write((np.ones((3, 4, 4), np.uint8), [0, 1, 1]), path, rewrite=True, progress=False)
    ours = names.path_of(path).read_bytes()
    names.path_of(path).write_bytes(theirs)
    assert beton.open_beton(path).names is None
    for damaged in (ours[:-20], b"", b"no parquet"):
        names.path_of(path).write_bytes(damaged)
        with pytest.raises(ValueError, match=r"names\.parquet is damaged; delete it"):
            _ = beton.open_beton(path).names
    names.path_of(path).unlink()
    assert beton.open_beton(path).names is None


def test_names_that_grow_when_they_are_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    beton.write((np.zeros((3, 4, 4), np.uint8), [0, 1, 1]), path, progress=False)
    table = pq.read_table(names.path_of(path))
    long = table.set_column(1, "name", [["a" * 100_000] * 3])
    for made, options in (
        (long, {"compression": "snappy"}),
        (long, {}),
        (table.take([0] * 4), {"use_dictionary": False}),
    ):
        pq.write_table(made, names.path_of(path), **({"compression": "none"} | options))
        with pytest.raises(ValueError, match=r"names\.parquet is damaged"):
            _ = beton.open_beton(path).names


def test_names_that_wait_are_found_once_the_file_is_theirs(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    beton.write((np.ones((2, 4, 4), np.uint8), [0, 1]), path, rewrite=True, progress=False)
    new, theirs = path.read_bytes(), names.path_of(path).read_bytes()
    beton.write((np.zeros((3, 4, 4), np.uint8), [0, 1, 1]), path, rewrite=True, progress=False)
    waiting_for(names.path_of(path)).write_bytes(theirs)
    assert len(names_of(path)) == 3
    checksums.forget(path)
    path.write_bytes(new)
    assert len(names_of(path)) == 2


def test_names_are_refused_where_a_pipe_stands(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    beton.write((np.ones((2, 4, 4), np.uint8), [0, 1]), path, rewrite=True, progress=False)
    names.path_of(path).unlink()
    os.mkfifo(names.path_of(path))
    with pytest.raises(ValueError, match=r"names\.parquet is damaged"):
        _ = beton.open_beton(path).names


def test_arrow_is_given_paths_and_no_python_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads may let go of a Python file while Python ends, which aborts the process."""

    beton.write((np.zeros((4, 4, 4), np.uint8), [0, 1, 0, 1]), tmp_path / "x.beton", progress=False)
    (tmp_path / "images").mkdir()
    for at in range(2):
        (tmp_path / "images" / f"{at}.jpg").write_bytes(jpeg(at))
    table = parquet_file(tmp_path / "images" / "metadata.parquet", {"file_name": ["0.jpg", "1.jpg"], "label": [0, 1]})
    opened: list[Any] = []
    for name in ("ParquetFile", "read_schema"):
        real = getattr(pq, name)
        monkeypatch.setattr(pq, name, lambda where, *_, real=real, **how: (opened.append(where), real(where, **how))[1])
    assert beton.open_beton(tmp_path / "x.beton").names is not None
    assert len(sources.open_source(tmp_path / "images")) == 2
    assert {str(where) for where in opened} == {str(tmp_path / "x.beton.names.parquet"), str(table)}

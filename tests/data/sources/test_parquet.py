"""Parquet files and folders of shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import assert_refused, jpeg, parquet_file

from dualfast.data import sources

pytest.importorskip("PIL")
pytest.importorskip("pyarrow")


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    images = [{"bytes": jpeg(v), "path": f"{v}.jpg"} for v in range(5)]
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    path = parquet_file(
        tmp_path / "a.parquet", {"id": [1, 2, 3, 4, 5], "img": images, "label": [0, 1, 1, 0, 1]}, features
    )
    opened = sources.open_source(path)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 1, 1, 0, 1]
    assert [*opened.items()] == [image["bytes"] for image in images]
    assert "row 3" in opened.describe(3)


def test_parquet_shards_of_a_folder_are_one_set(tmp_path: Path) -> None:
    for shard in range(2):
        parquet_file(tmp_path / f"train-{shard}.parquet", {"image": [jpeg(shard), jpeg(9)], "label": ["b", "a"]})
    opened = sources.open_source(tmp_path)
    assert opened.class_names == ("a", "b")
    assert opened.labels.tolist() == [1, 0, 1, 0]
    assert [*opened.items()][2] == jpeg(1)
    assert opened.describe(2) == f"row 0 of {tmp_path / 'train-1.parquet'}"
    parquet_file(tmp_path / "test-0.parquet", {"image": [jpeg(0)], "label": ["a"]})
    with pytest.raises(ValueError, match="several splits"):
        sources.open_source(tmp_path)


def test_parquet_follows_paths_only_inside_the_data_set(tmp_path: Path) -> None:
    inside = tmp_path / "set"
    inside.mkdir()
    (inside / "x.jpg").write_bytes(jpeg(3))
    (tmp_path / "secret.jpg").write_bytes(jpeg(4))
    rows = [{"bytes": None, "path": "x.jpg"}, {"bytes": None, "path": "../secret.jpg"}]
    opened = sources.open_source(parquet_file(inside / "a.parquet", {"image": rows, "label": [0, 1]}))
    items = opened.items()
    assert next(items) == jpeg(3)
    with pytest.raises(ValueError, match="outside the data set"):
        next(items)


def test_parquet_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    assert_refused(tmp_path / "broken.parquet", "is not a Parquet file")
    no_image = parquet_file(tmp_path / "no_image.parquet", {"text": ["a", "b"], "label": [0, 1]})
    assert_refused(no_image, "its columns: text, label")
    no_label = parquet_file(tmp_path / "no_label.parquet", {"image": [jpeg(0)], "size": [1.0]})
    assert_refused(no_label, "its columns: image, size")
    null_label = parquet_file(tmp_path / "null.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, None]})
    assert_refused(null_label, "row 1")
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard, labels in enumerate(([0, 1, 0], [1, None, 0])):
        parquet_file(shards / f"{shard}.parquet", {"image": [jpeg(0)] * 3, "label": labels})
    assert_refused(shards, r"row 1 of .*1\.parquet has no label")
    parquet_file(shards / "1.parquet", {"img": [jpeg(0)], "label": [0]})
    assert_refused(shards, r"1\.parquet lacks the column 'image' or 'label' that .*0\.parquet has")

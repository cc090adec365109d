"""Which columns of a Parquet file are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_sets import assert_refused, jpeg, parquet_file

from dualfast.config import Reading
from dualfast.data import sources

pytest.importorskip("PIL")
pytest.importorskip("pyarrow")

IMAGES = [jpeg(1), jpeg(2)]
OTHERS = [jpeg(3), jpeg(4)]
STRUCTS = [{"bytes": data, "path": None} for data in IMAGES]
OTHER_STRUCTS = [{"bytes": data, "path": None} for data in OTHERS]
IMAGE, AUDIO, CLASSES = {"_type": "Image"}, {"_type": "Audio"}, {"_type": "ClassLabel", "names": ["cat", "dog"]}


def opened(
    tmp_path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None, **reading: str
) -> sources.Source:
    return sources.open_source(parquet_file(tmp_path / "a.parquet", columns, features), Reading(**reading))


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"thumb": OTHER_STRUCTS, "photo": STRUCTS}, {"photo": IMAGE, "thumb": {"_type": "Value"}}),
        ({"md5": [b"1", b"2"], "photo": STRUCTS}, None),
        ({"md5": [b"1", b"2"], "photo": IMAGES}, None),
        ({"mask": OTHER_STRUCTS, "image": STRUCTS}, None),
        ({"mask": OTHERS, "Image": IMAGES}, None),
        ({"sound": OTHER_STRUCTS, "photo": STRUCTS}, {"sound": AUDIO}),
        ({"image": [b"no image", b"but so named"], "photo": STRUCTS}, None),
    ],
)
def test_the_image_column_is_the_one_that_says_so_best(
    columns: dict[str, Any], features: dict[str, Any] | None, tmp_path: Path
) -> None:
    assert [*opened(tmp_path, columns | {"label": [0, 1]}, features).items()] == IMAGES


def test_image_columns_that_are_ambiguous_or_of_another_type(tmp_path: Path) -> None:
    def refused(words: str, columns: dict[str, Any], features: dict[str, Any] | None = None, **reading: str) -> None:
        with pytest.raises(ValueError, match=words):
            opened(tmp_path, columns | {"label": [0, 1]}, features, **reading)

    both = {"front": STRUCTS, "back": OTHER_STRUCTS}
    refused("several image columns: front, back; choose with image_column='front'", both)
    refused("several image columns: front, back", both, {"front": IMAGE, "back": IMAGE})
    refused("several image columns: img, jpg", {"img": IMAGES, "jpg": OTHERS})
    assert [*opened(tmp_path, both | {"label": [0, 1]}, image_column="back").items()] == OTHERS
    refused(
        r"image_column is 'top'; .* has the columns front \(struct<bytes: .*, label \(int64\)", both, image_column="top"
    )
    refused("label is int64; an image is binary", both, image_column="label")
    refused(r"image is list<int64>; an image is binary", {"image": [[1, 2], [3]]})
    refused(r"image is string; .*cast_column", {"image": ["a.jpg", "b.jpg"]})
    refused(r"the first values of md5 are not images\); an image is binary", {"md5": [b"1", b"2"]})

    refused(r"image is list<list<int64>>; .* np\.savez\('data\.npz'", {"image": [[[1], [2]], [[3], [4]]]})


def test_columns_that_could_be_meant_too_are_said(tmp_path: Path) -> None:
    columns = {"mask": OTHER_STRUCTS, "image": STRUCTS, "coarse_label": [0, 0], "fine_label": [1, 0], "score": [5, 6]}
    assert opened(tmp_path, columns).notes() == [
        "image columns: image is used, mask not; image_column=NAME chooses",
        "label columns: fine_label is used, coarse_label not; label_column=NAME chooses",
    ]
    chosen = opened(tmp_path, columns | {"coarse_label": [0, 1]}, image_column="mask", label_column="coarse_label")
    assert chosen.labels.tolist() == [0, 1]
    assert chosen.notes() == []
    assert opened(tmp_path, {"image": IMAGES, "label": [0, 1], "species": [0, 1]}).notes() == []
    assert len(opened(tmp_path, {"image": IMAGES, "label": [0, 1], "kind": [0, 1]}, {"kind": CLASSES}).notes()) == 1


@pytest.mark.parametrize(
    ("columns", "features"),
    [
        ({"labels": [0, 0], "label": [1, 0]}, None),
        ({"coarse_label": [0, 0], "fine_label": [1, 0]}, {"coarse_label": CLASSES, "fine_label": CLASSES}),
        ({"label": [0, 0], "species": [1, 0]}, {"species": CLASSES}),
        ({"labels": [[0], [1]], "target": [1, 0]}, None),
        ({"Label": [1, 0]}, None),
    ],
)
def test_the_label_column_is_the_one_that_says_so_best(
    columns: dict[str, Any], features: dict[str, Any] | None, tmp_path: Path
) -> None:
    assert opened(tmp_path, {"image": IMAGES} | columns, features).labels.tolist() == [1, 0]


def test_label_columns_that_are_ambiguous_or_have_another_name(tmp_path: Path) -> None:
    both = {"image": IMAGES, "target": [0, 1], "class": [1, 0]}
    with pytest.raises(ValueError, match="several label columns: target, class; choose with label_column='target'"):
        opened(tmp_path, both)
    assert opened(tmp_path, both, label_column="class").labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"no label column .*label_column=NAME; its columns: .*category_id \(int64\)"):
        opened(tmp_path, {"image": IMAGES, "category_id": [0, 1]})
    with pytest.raises(ValueError, match="label_column is 'other'"):
        opened(tmp_path, both, label_column="other")
    with pytest.raises(ValueError, match="image is binary"):
        opened(tmp_path, {"image": IMAGES, "label": [0, 1]}, label_column="image")


def test_tables_of_files_and_columns_of_one_name_are_refused_with_a_way_out(tmp_path: Path) -> None:
    files = parquet_file(tmp_path / "files.parquet", {"file_name": ["0.jpg", "1.jpg"], "label": [0, 1]})
    assert_refused(files, r"no image column; .*of a table of files give their folder, with labels='.*files\.parquet'")
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = [pa.array([jpeg(0), jpeg(1)]), pa.array([0, 1]), pa.array([1, 0])]
    pq.write_table(pa.Table.from_arrays(columns, ["image", "label", "label"]), tmp_path / "twice.parquet")
    assert_refused(tmp_path / "twice.parquet", "has several columns called label; rename them")

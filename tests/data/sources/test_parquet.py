"""Parquet files and folders of shards."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import assert_refused, jpeg, parquet_file

from dualfast.config import Reading
from dualfast.data import sources
from dualfast.data.inventory import changes
from dualfast.data.sources.parquet import files_at

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


def test_images_that_are_named_by_their_paths_are_files_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(4):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i))
    cells = [{"bytes": None, "path": f"images/{i}.jpg"} for i in (0, 1, 1, 9)]
    stored = [{"bytes": jpeg(5), "path": "images/3.jpg"}, {"bytes": jpeg(6), "path": "images/2.jpg"}]
    outside = [{"bytes": None, "path": "../secret.jpg"}, {"bytes": None, "path": "a\0b"}]
    (tmp_path.parent / "secret.jpg").write_bytes(jpeg(0))
    path = parquet_file(tmp_path / "a.parquet", {"image": [*cells, *stored, *outside], "label": [0, 1] * 4})
    source = sources.open_source(str(path))
    before = source.inventory.files
    assert before.names.to_pylist() == ["a.parquet", "images/0.jpg", "images/1.jpg"]
    assert changes(before, sources.files_of(str(path))) is None
    (tmp_path / "images" / "1.jpg").write_bytes(jpeg(200, (90, 90)))
    (tmp_path / "images" / "9.jpg").write_bytes(jpeg(9))
    (tmp_path / "images" / "0.jpg").unlink()
    said = "files: 1 added (images/9.jpg), 1 removed (images/0.jpg), 1 changed (images/1.jpg)"
    assert changes(before, sources.files_of(str(path))) == said
    assert sources.files_of(str(path), Reading(follow_links=True)).names[-1].as_py().endswith("secret.jpg")
    path.write_bytes(b"broken")
    assert len(sources.files_of(str(path))) == 1


def test_images_beside_shards_of_several_folders_are_told_apart(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / "data" / part).mkdir(parents=True)
        (tmp_path / "data" / part / "0.jpg").write_bytes(jpeg(0))
    names = files_at((str(tmp_path / "data" / part), "0.jpg") for part in ("a", "b")).names.to_pylist()
    assert names == ["a/0.jpg", "b/0.jpg"]


def test_parquet_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    assert_refused(tmp_path / "broken.parquet", "is not a Parquet file")
    no_image = parquet_file(tmp_path / "no_image.parquet", {"text": ["a", "b"], "label": [0, 1]})
    assert_refused(no_image, r"its columns: text \(string\), label \(int64\)")
    no_label = parquet_file(tmp_path / "no_label.parquet", {"image": [jpeg(0)], "size": [1.0]})
    assert_refused(no_label, r"its columns: image \(binary\), size \(double\)")
    null_label = parquet_file(tmp_path / "null.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, None]})
    assert_refused(null_label, "row 1")
    shards = tmp_path / "shards"
    shards.mkdir()
    for shard, labels in enumerate(([0, 1, 0], [1, None, 0])):
        parquet_file(shards / f"{shard}.parquet", {"image": [jpeg(0)] * 3, "label": labels})
    assert_refused(shards, r"row 1 of .*1\.parquet has no label")
    parquet_file(shards / "1.parquet", {"img": [jpeg(0)], "label": [0]})
    assert_refused(shards, r"1\.parquet lacks the column 'image'; its columns: img")
    (tmp_path / "lfs.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n")
    assert_refused(tmp_path / "lfs.parquet", "git lfs pull")


# ---- types of labels ------------------------------------------------------------------------------------------------

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
TAKEN = {
    "bool": (pa.array([True, False, True]), [1, 0, 1], ("False", "True")),
    "uint8": (pa.array([2, 0, 2], pa.uint8()), [2, 0, 2], None),
    "whole floats": (pa.array([2.0, 0.0, 2.0]), [2, 0, 2], None),
    "whole float16": (pa.array(np.array([2, 0, 2], np.float16)), [2, 0, 2], None),
    "decimal": (pa.array([Decimal("2.00"), Decimal("0.00"), Decimal("2.00")]), [2, 0, 2], None),
    "large_string": (pa.array(["b", "a", "b"], pa.large_string()), [1, 0, 1], ("a", "b")),
    "string_view": (pa.array(["b", "a", "b"], pa.string_view()), [1, 0, 1], ("a", "b")),
    "bytes": (pa.array([b"b", b"a", b"b"]), [1, 0, 1], ("a", "b")),
    "bytes of one size": (pa.array([b"bird", b"cat\0", b"bird"], pa.binary(4)), [0, 1, 0], ("bird", "cat")),
    "dictionary": (pa.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1], ("a", "b")),
    "dictionary of numbers": (pa.array([7, 0, 7]).dictionary_encode(), [7, 0, 7], None),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_labels_of_every_type_that_names_one_class(kind: str, tmp_path: Path) -> None:
    column, labels, names = TAKEN[kind]
    images = [jpeg(value) for value in range(3)]
    opened = sources.open_source(parquet_file(tmp_path / "a.parquet", {"image": images, "label": column}))
    assert opened.labels.tolist() == labels
    assert opened.class_names == names


REFUSED = {
    "list": (pa.array([[0, 2], [1]]), r"a\.parquet: label is list<int64>; this library trains one class per image"),
    "struct": (pa.array([{"id": 1}, {"id": 0}]), "label is struct<id: int64>; this library trains one class per image"),
    "date": (pa.array([0, 1], pa.date32()), r"label is date32\[day\]; this library trains one class"),
    "float": (
        pa.array([1.0, 0.5]),
        r"label is double \(row 1 of .* has 0\.5\); .*one class per image.*label_column=NAME",
    ),
    "infinite": (pa.array([1.0, float("inf")]), r"row 1 of .* has inf\); "),
    "decimal": (pa.array([Decimal("1.0"), Decimal("0.5")]), r"label is decimal128.* has 0\.5\)"),
    "NaN": (pa.array([1.0, float("nan")]), r"row 1 of .*a\.parquet has no label"),
    "null": (pa.array(["a", None]), r"row 1 of .*a\.parquet has no label"),
    "null in a dictionary": (pa.array(["a", None]).dictionary_encode(), "row 1 of .* has no label"),
    "empty": (pa.array(["a", ""]), "row 1 of .* has no label"),
    "no UTF-8": (pa.array([b"a", b"\xff"]), "row 1 of .* has bytes that are not UTF-8 text"),
    "too large": (pa.array([0, 2**63], pa.uint64()), f"row 1 of .* has the label {2**63}; number the classes"),
    "no class number": (pa.array([0, 2**40]), f"row 1 of .* has the label {2**40}; labels number the classes from 0"),
    "beyond the names": (pa.array([0, 5]), r"row 1 of .* has the label 5, and 2 classes have names \(cat to dog\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_that_are_not_one_class_are_named_with_their_type(kind: str, tmp_path: Path) -> None:
    column, words = REFUSED[kind]
    features = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}} if kind == "beyond the names" else None
    images = [jpeg(value) for value in range(2)]
    assert_refused(parquet_file(tmp_path / "a.parquet", {"image": images, "label": column}, features), words)


def shards(folder: Path, *columns: Any, features: Any = (None, None)) -> Path:
    for number, (labels, described) in enumerate(zip(columns, features, strict=True)):
        images = [jpeg(value) for value in range(len(labels))]
        parquet_file(folder / f"{number}.parquet", {"image": images, "label": labels}, described)
    return folder


def test_shards_may_differ_in_the_width_of_their_integers_only(tmp_path: Path) -> None:
    opened = sources.open_source(shards(tmp_path, pa.array([0, 1], pa.int32()), pa.array([2, 0], pa.int64())))
    assert opened.labels.tolist() == [0, 1, 2, 0]
    opened = sources.open_source(shards(tmp_path, pa.array(["b", "a"]), pa.array(["c", "a"]).dictionary_encode()))
    assert opened.class_names == ("a", "b", "c")
    opened = sources.open_source(shards(tmp_path, pa.array([], pa.null()), pa.array([1, 0])))
    assert opened.labels.tolist() == [1, 0]
    shards(tmp_path, pa.array([0, 1]), pa.array(["0", "1"]))
    assert_refused(tmp_path, r"1\.parquet: label is text, and integer in .*0\.parquet")
    shards(tmp_path, pa.array([0, 1]), pa.array([[0], [1]]))
    assert_refused(tmp_path, r"1\.parquet: label is list<int64>")
    parquet_file(tmp_path / "1.parquet", {"image": ["a.jpg"], "label": [0]})
    assert_refused(tmp_path, r"1\.parquet: image is string")
    features = [{"label": {"_type": "ClassLabel", "names": names}} for names in (["cat", "dog"], ["dog", "cat"])]
    shards(tmp_path, pa.array([0, 1]), pa.array([0, 1]), features=features)
    assert_refused(tmp_path, r"1\.parquet declares the class names dog, cat for label, and the first shard cat, dog")


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_damaged_column_is_named_with_its_file(column: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"image": [jpeg(value) for value in range(4)], "label": pa.array([0, 1, 0, 1])})
    pq.write_table(table, path, use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(0)
    chunk = next(group.column(i) for i in (0, 1) if group.column(i).path_in_schema == column)
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset)
        file.write(b"\xff" * 8)
    with pytest.raises(ValueError, match=rf"a\.parquet: the column {column} cannot be read: "):
        list(sources.open_source(path).items())


def test_a_large_row_group_is_read_a_piece_at_a_time(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, image = 20_000, np.random.default_rng(0).bytes(2000)
    table = pa.table({"image": [image] * n, "label": np.arange(n) % 2})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=n, use_dictionary=False, compression="none")
    del table
    items = sources.open_source(tmp_path / "a.parquet").items()
    before = pa.total_allocated_bytes()
    assert max(pa.total_allocated_bytes() - before for _ in items) < n * len(image) / 4


def test_a_column_tells_the_split(tmp_path: Path) -> None:
    columns = {"image": [jpeg(k) for k in range(6)], "label": [0, 1, 0, 1, 0, 1], "nr": list(range(6))}
    path = str(parquet_file(tmp_path / "p.parquet", columns | {"Split": ["train"] * 4 + ["Test"] * 2}))
    assert sources.splits(path) == (f"{path}:train", f"{path}:test")
    with pytest.raises(
        ValueError, match=r"p\.parquet holds several splits \(train, test\); give one, as .*p\.parquet:train"
    ):
        sources.open_source(path)
    train, test = (sources.open_source(f"{path}:{name}") for name in ("train", "test"))
    assert (len(train), test.labels.tolist(), list(test.items())) == (4, [0, 1], [jpeg(4), jpeg(5)])
    assert test.names().to_pylist() == ["p.parquet:4", "p.parquet:5"]
    assert len(sources.files_of(f"{path}:train")) == 1
    with pytest.raises(ValueError, match=r"has no split 'val'; it has train, test"):
        sources.open_source(f"{path}:val")
    other = parquet_file(tmp_path / "o.parquet", columns | {"split": ["a", "b", "c", "a", "b", "c"]})
    assert sources.open_source(other).notes() == ["the column split holds a, b, c; all rows are used"]
    with pytest.raises(ValueError, match=r"o\.parquet has no split 'train'; it has none"):
        sources.open_source(f"{other}:train")


def test_captions_are_no_classes(tmp_path: Path) -> None:
    images = [jpeg(k) for k in range(12)]
    captions = [f"a photo of thing number {k}" for k in range(12)]
    path = parquet_file(tmp_path / "p.parquet", {"image": images, "label": captions})
    with pytest.raises(ValueError, match=r"12 different texts for 12 images \(row 0 .*\) are no classes"):
        sources.open_source(path)
    names = parquet_file(tmp_path / "n.parquet", {"image": images, "label": [f"class {k}" for k in range(12)]})
    assert len(sources.open_source(names).class_names or ()) == 12


@pytest.mark.parametrize("label", ["['a']", "a|b", "c|b", "a b", "a/b", "a + b", "51 616", "{'a': 1}", "[1, 2]"])
def test_several_classes_in_a_text_are_refused(label: str, tmp_path: Path) -> None:
    path = parquet_file(tmp_path / "p.parquet", {"image": [jpeg(k) for k in range(3)], "label": ["a", "b", label]})
    with pytest.raises(ValueError, match=r"row 2 of .*p\.parquet has the label .* one class per image"):
        sources.open_source(path)
    other = parquet_file(tmp_path / "o.parquet", {"image": [jpeg(k) for k in range(3)], "label": ["a", "b", "a c"]})
    assert sources.open_source(other).class_names == ("a", "a c", "b")
    images = [jpeg(k) for k in range(3)]
    path = parquet_file(tmp_path / "q.parquet", {"image": images, "label": ["None", "Edema|Mass", "Mass|Nodule"]})
    with pytest.raises(ValueError, match=r"row 1 of .* has the label 'Edema\|Mass', which are 2 classes"):
        sources.open_source(path)
    path = parquet_file(tmp_path / "r.parquet", {"image": images, "label": ["[unknown]", "a|b", "c"]})
    assert sources.open_source(path).class_names == ("[unknown]", "a|b", "c")

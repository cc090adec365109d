"""Where training and test images are."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file

from dualfast.data import sources


def test_splits_find_train_and_test(tmp_path: Path) -> None:
    assert sources.splits("digits") == ("digits:train", "digits:test")
    assert sources.splits(str(tmp_path)) == (str(tmp_path), None)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert sources.splits(str(tmp_path)) == (str(tmp_path / "train"), str(tmp_path / "val"))
    assert sources.splits(str(tmp_path), "x.npz") == (str(tmp_path), "x.npz")
    assert sources.splits("digits", "digits") == ("digits:train", "digits:test")
    assert sources.splits("a.beton", "c.tar.gz") == ("a.beton", "c.tar.gz:test")
    assert sources.splits("c.tgz", "c.tgz:train") == ("c.tgz", "c.tgz:train")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train", "test"):
        (other / f"{name}.parquet").touch()
    assert sources.splits(str(other)) == (str(other / "train.parquet"), str(other / "test.parquet"))


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("Training", "Validation"), ("Training", "Validation")),
        (("TRAIN", "dev", "Test"), ("TRAIN", "dev")),
        (("train", "testing"), ("train", "testing")),
        (("train", "eval"), ("train", "eval")),
        (("train",), ("train", None)),
        (("train", "plane", "car"), None),  # toys
        (("val", "test"), None),
    ],
)
def test_folders_of_splits(folders: tuple[str, ...], expected: tuple[str, str | None] | None, tmp_path: Path) -> None:
    for name in folders:
        class_folders(tmp_path / name, {"a": 1, "b": 1})
    train, test = sources.splits(str(tmp_path))
    if expected is None:
        assert (train, test) == (str(tmp_path), None)
        return
    assert train == str(tmp_path / expected[0])
    assert test == (expected[1] and str(tmp_path / expected[1]))
    assert sources.open_source(f"{tmp_path}:{expected[0].lower()}").location == train


def test_test_images_without_classes_are_no_test_images(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"a": 1, "b": 1})
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").write_bytes(jpeg(1))
    assert sources.splits(str(tmp_path)) == (str(tmp_path / "train"), None)
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n1.jpg,a\n")
    assert sources.splits(str(tmp_path))[1] == str(tmp_path / "test")


def test_what_is_held_out_is_stratified_and_depends_on_the_seed_alone() -> None:
    labels = np.repeat([0, 1, 2, 3], [40, 20, 2, 1])
    images = np.zeros((63, 4, 4), np.uint8)
    images[:, 0, 0] = np.arange(63)
    source = sources.open_source((images, labels))
    train, test = sources.hold_out(source, 0.1)
    assert np.bincount(train.labels).tolist() == [36, 18, 1, 1]
    assert np.bincount(test.labels, minlength=4).tolist() == [4, 2, 1, 0]
    rows = [int(np.asarray(image)[0, 0, 0]) for part in (train, test) for image in part.items()]
    assert sorted(rows) == list(range(63))
    assert rows[-7:] == [int(name[7:-1]) for name in test.names().to_pylist()]
    assert test.describe(0) == f"image {rows[-7]} of a pair of arrays"
    again = sources.hold_out(source, 0.1)[1].names().to_pylist()
    assert again == test.names().to_pylist() != sources.hold_out(source, 0.1, seed=1)[1].names().to_pylist()
    spread = [name for part in range(20) for name in sources.hold_out(source, 0.1, part)[1].names().to_pylist()]
    assert len(set(spread)) > 40, "not the same few every time"


def test_a_fraction_of_classes_of_one_image_leaves_no_test_images() -> None:
    source = sources.open_source((np.zeros((3, 4, 4), np.uint8), [0, 1, 2]))
    with pytest.raises(ValueError, match=r"test_fraction is 0\.3, and every class of .* has a single image"):
        sources.hold_out(source, 0.3)


def test_archives_that_are_called_like_splits_are_these(tmp_path: Path) -> None:
    for name in ("train", "val", "extra"):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for label in "ab":
                archive.writestr(f"{label}/0.jpg", jpeg(0))
    data = str(tmp_path)
    assert sources.splits(data) == (f"{data}/train.zip", f"{data}/val.zip")
    assert len(sources.open_source(sources.splits(data)[0])) == 2
    (tmp_path / "train").mkdir()
    assert sources.splits(data) == (f"{data}/train", None), "they have been unpacked"


def test_arrays_of_a_third_split_are_named(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 4, 4), np.uint8), np.array([0, 1])
    splits = ("train", "val", "test")
    np.savez(tmp_path / "a.npz", **{f"x_{n}": images for n in splits}, **{f"y_{n}": labels for n in splits})
    data = str(tmp_path / "a.npz")
    assert sources.splits(data) == (f"{data}:train", f"{data}:val")
    assert sources.unused_parts(data, sources.splits(data)) == ["test"]
    assert sources.unused_parts(f"{data}:train", sources.splits(f"{data}:train")) == []


def test_rows_of_a_third_split_are_named(tmp_path: Path) -> None:
    for at in range(6):
        (tmp_path / f"{at}.jpg").write_bytes(jpeg(at))
    parts = ("train", "train", "val", "val", "test", "test")
    table = tmp_path / "table.csv"
    table.write_text("file,label,split\n" + "".join(f"{at}.jpg,{at % 2},{part}\n" for at, part in enumerate(parts)))
    data, labels = str(tmp_path), str(table)
    assert sources.unused_parts(labels, sources.splits(labels)) == ["test"]
    assert sources.unused_parts(data, sources.splits(data, labels=labels), labels) == ["test"]


def test_parts_that_are_not_used_are_named(tmp_path: Path) -> None:
    for name in ("train", "val", "test", "extra"):
        class_folders(tmp_path / "ds" / name, {"a": 1, "b": 1})
    (tmp_path / "ds" / "loose.jpg").write_bytes(jpeg(0))
    (tmp_path / "ds" / "readme.txt").write_text("")
    data = str(tmp_path / "ds")
    assert sources.unused_parts(data, sources.splits(data)) == ["extra/", "loose.jpg", "test/"]
    assert sources.unused_parts(f"{data}/train", (f"{data}/train", None)) == []
    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("train-0", "train-1", "test-0", "validation-0", "part-0"):
        parquet_file(tables / f"{name}.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    used = sources.splits(str(tables))
    assert sorted(sources.unused_parts(str(tables), used)) == ["part-0.parquet", "test"]


@pytest.mark.parametrize("parts", [("train", "test"), ("train",), ("val",)])
def test_splits_beside_another_folder_are_no_classes(parts: tuple[str, ...], tmp_path: Path) -> None:
    for name in parts:
        class_folders(tmp_path / name, {"a": 1, "b": 1})
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "logo.jpg").write_bytes(jpeg(0))
    root = str(tmp_path)
    with pytest.raises(ValueError, match=rf"holds splits \({', '.join(parts)}\), not class folders; give one of them"):
        sources.open_source(root)
    if parts[0] == "train":
        test = f"{root}/test" if len(parts) > 1 else None
        assert sources.splits(root) == (f"{root}/train", test)
        assert sources.unused_parts(root, sources.splits(root)) == ["assets/"]


def test_train_is_the_folder_training_too(tmp_path: Path) -> None:
    class_folders(tmp_path / "training", {"a": 1, "b": 1})
    class_folders(tmp_path / "EVAL", {"a": 1, "b": 1})
    assert sources.open_source(f"{tmp_path}:train").location == f"{tmp_path}/training"
    with pytest.raises(ValueError, match="has no split 'test'; it has"):
        sources.open_source(f"{tmp_path}:test")

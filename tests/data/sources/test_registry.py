"""Opening a data set: each kind is found, and what is not one is refused in one line that says what to give."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, parquet_file, tar_file, zip_file

from dualfast.data import beton, sources
from dualfast.data.sources import (
    archive,
    arrays,
    cifar,
    class_tars,
    file_list,
    folder,
    hugging_face,
    idx,
    parquet,
    registry,
    sklearn_digits,
    webdataset,
)
from dualfast.data.sources.registry import find_kind


@pytest.mark.parametrize(
    "name", ["d.tar.gz", "cifar-10-python.tar.gz", "d.tar", "d.zip", "d.npz", "d.parquet", "d.csv"]
)
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match="is not a data set that can be read"):
        sources.open_source(tmp_path / name)


def test_each_path_is_opened_by_its_kind(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("pyarrow")
    (tmp_path / "shards").mkdir()
    parquet_file(tmp_path / "shards" / "0.PARQUET", {"image": [b""], "label": [0]})
    (tmp_path / "tars").mkdir()
    tar_file(tmp_path / "tars" / "0.tar", {})
    classes = class_folders(tmp_path / "classes", {"a": 1})
    (classes / "labels.parquet").touch()  # class folders come first
    np.savez(tmp_path / "a.npz")
    (tmp_path / "labels.csv").touch()
    (tmp_path / "train-images-idx3-ubyte").touch()
    expected = {
        "digits": sklearn_digits.KIND,
        "digits:test": sklearn_digits.KIND,
        "nowhere/cifar.tar.gz:test": cifar.KIND,
        tmp_path / "a.npz": arrays.KIND,
        tmp_path / "shards": parquet.KIND,
        tmp_path / "shards" / "0.PARQUET": parquet.KIND,
        tmp_path / "tars": webdataset.KIND,
        tmp_path / "tars" / "0.tar": webdataset.KIND,
        zip_file(tmp_path / "a.zip", {}): archive.KIND,
        tmp_path / "labels.csv": file_list.KIND,
        tmp_path / "train-images-idx3-ubyte": idx.KIND,
        "hf://me/pets:train": hugging_face.KIND,
        tar_file(tmp_path / "classes.tar", {"a.tar": b""}): class_tars.KIND,
        classes: folder.KIND,
        tmp_path / "nowhere": None,
    }
    for path, kind in expected.items():
        assert find_kind(str(path)) is kind, path


def test_what_is_not_a_data_set_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", 'does not exist; give "digits".*, a folder of class folders')
    (tmp_path / "strange.xyz").touch()
    assert_refused(tmp_path / "strange.xyz", "is not a data set that can be read; give")
    assert_refused(3, "int", TypeError)


def altered(**changes: Any) -> sources.Source:
    """A source of 40 images with some of its attributes replaced."""
    source = sources.open_source((np.zeros((40, 5, 5), np.uint8), np.arange(40) % 2))
    return sources.Source(**{**vars(source), **changes})


@pytest.mark.parametrize(("yielded", "words"), [(39, "declared 40 samples, yielded 39"), (41, "yielded more")])
def test_a_source_that_yields_another_number_is_refused(tmp_path: Path, yielded: int, words: str) -> None:
    pytest.importorskip("PIL")
    images = np.zeros((yielded, 5, 5, 1), np.uint8)
    with pytest.raises(ValueError, match=words):
        beton.write(altered(items=lambda: iter(images)), tmp_path / "a.beton", progress=False)
    assert not (tmp_path / "a.beton").exists()


def test_what_a_source_left_out_is_listed(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    images = [np.zeros((5, 5, 1), np.uint8)] * 39
    source = altered(left_out=("x.jpg: no label",), items=lambda: iter([ValueError("damaged"), *images]))
    written = beton.write(source, tmp_path / "a.beton", skip_bad=True, progress=False)
    assert written.n_samples == 39
    assert written.skipped == ("x.jpg: no label", "image 0 of a pair of arrays: damaged")
    assert beton.open_beton(written.path).sidecar["skipped"] == list(written.skipped)


def test_paths_that_do_not_exist_say_what_may_be_meant(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert_refused(tmp_path / "photo", rf"does not exist; did you mean {tmp_path}/photos\?; give")
    (tmp_path / "link").symlink_to("/gone/photos")
    assert_refused(tmp_path / "link", "does not exist; it is a link to /gone/photos, which is not there; give")
    assert_refused("~/photos", r"does not exist; ~ means a folder without quotes only: give /")
    assert_refused("pipe:curl x", "commands are never run: give the files themselves")
    assert_refused("a.tar::b.tar", "several paths are given one after the other, without ::")


class ImageFolder:
    """As torchvision's: it knows its folder, has a length and gives pairs."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __len__(self) -> int:
        return 1

    def __getitem__(self, row: int) -> tuple[None, int]:
        return None, 0


def test_objects_of_other_libraries_say_what_to_give(tmp_path: Path) -> None:
    for source, words in (
        (ImageFolder(tmp_path), rf"a ImageFolder; .*of this one its folder, '{tmp_path}'"),
        (ImageFolder(tmp_path / "none"), r"np\.stack\(\[np\.asarray\(x\) for x, _ in source\]\) and the labels"),
        ({"images": [], "labels": []}, "of a dict the arrays in it"),
        ([("a.png", 0), ("b.png", 1)], r"a list; .*files and labels are read from a \.csv"),
        ([("a.png", 0)] * 3, r"a list; .*files and labels are read from a \.csv"),
        (b"photos", r"a bytes; give a path, .*of arrays$"),
    ):
        assert_refused(source, words, TypeError)
    pandas = pytest.importorskip("pandas")
    assert_refused(pandas.DataFrame(), r"a DataFrame; .*source\.to_csv\('labels\.csv'", TypeError)
    datasets = pytest.importorskip("datasets")
    assert_refused(datasets.DatasetDict(), "of datasets.DatasetDict one of its splits", TypeError)


def test_braces_in_urls_are_expanded() -> None:
    assert registry.expand("https://x.org/train-{08..10}.tar") == [
        *("https://x.org/train-08.tar", "https://x.org/train-09.tar", "https://x.org/train-10.tar")
    ]
    assert registry.expand("s3://bucket/train-*.tar") == ["s3://bucket/train-*.tar"], "fetch looks these up"

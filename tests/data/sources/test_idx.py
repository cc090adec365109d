"""MNIST's idx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused, idx_file

from dualfast.data import sources

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1], np.uint8)


def mnist(folder: Path, end: str = "", stem: str = "", tests: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train", 3), *([("t10k", 2)] if tests else [])):
        idx_file(folder / f"{stem}{name}-images-idx3-ubyte{end}", IMAGES[:n])
        idx_file(folder / f"{stem}{name}-labels-idx1-ubyte{end}", LABELS[:n])
    return folder


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_a_folder_of_idx_files(end: str, below: str, tmp_path: Path) -> None:
    files = mnist(tmp_path / below, end)
    train, test = sources.splits(str(tmp_path))
    assert train == str(files / f"train-images-idx3-ubyte{end}")
    opened = sources.open_source(train)
    assert np.array_equal(np.stack([*opened.items()])[..., 0], IMAGES)
    assert opened.labels.tolist() == [2, 0, 1]
    assert sources.open_source(test).labels.tolist() == [2, 0]
    assert sources.splits(train) == (train, test)
    assert opened.inventory.files.names.to_pylist() == [f"train-{n}-ubyte{end}" for n in ("images-idx3", "labels-idx1")]
    assert_refused(tmp_path, r"holds several splits \(t(rain|est), t(rain|est)\)")


def test_files_that_are_unpacked_too_count_once(tmp_path: Path) -> None:
    mnist(mnist(tmp_path), ".gz", tests=False)
    assert sources.splits(str(tmp_path))[0] == str(tmp_path / "train-images-idx3-ubyte")
    mnist(tmp_path, ".gz", "emnist-letters-")
    assert_refused(tmp_path, "holds several data sets .*emnist-letters-train.*; give one of these files")
    letters = tmp_path / "emnist-letters-train-images-idx3-ubyte.gz"
    assert sources.splits(str(letters))[1] == str(tmp_path / "emnist-letters-t10k-images-idx3-ubyte.gz")


def test_idx_files_that_are_refused(tmp_path: Path) -> None:
    images = mnist(tmp_path, tests=False) / "train-images-idx3-ubyte"
    labels = tmp_path / "train-labels-idx1-ubyte"
    whole = images.read_bytes()
    for data, words in (
        (whole[:-1], r"images-idx3-ubyte should hold 60 values and is cut off"),
        (whole + b"x", "should hold 60 values and holds more"),
        (whole[:4] + b"\xff" * 12, "it says that it holds"),
        (b"\0\0\x0d\3" + whole[4:], "it is not a file of bytes of 3 axes"),
        (b"", "it is not a file of bytes of 3 axes"),
    ):
        images.write_bytes(data)
        assert_refused(images, words)
    images.write_bytes(whole)
    labels.unlink()
    assert_refused(images, r"labels-idx1-ubyte does not exist")
    idx_file(labels, LABELS[:2])
    assert_refused(images, r"labels have the shape \(2,\); 3 images need \(3,\)")

"""CIFAR's binary archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import tar_file

from dualfast.data import sources


def archive(path: Path, members: dict[str, bytes]) -> Path:
    return tar_file(path, members, "w:gz")


def cifar_record(labels: tuple[int, ...], red: int, green: int, blue: int) -> bytes:
    return bytes(labels) + bytes([red] * 1024 + [green] * 1023 + [255 - green] + [blue] * 1024)


def test_cifar_10_in_its_binary_form(tmp_path: Path) -> None:
    folder = "cifar-10-batches-bin"
    path = archive(
        tmp_path / "cifar-10-binary.tar.gz",
        {
            f"{folder}/data_batch_2.bin": cifar_record((2,), 7, 8, 9),
            f"{folder}/data_batch_1.bin": cifar_record((0,), 1, 2, 3) + cifar_record((1,), 4, 5, 6),
            f"{folder}/test_batch.bin": cifar_record((2,), 10, 11, 12) + cifar_record((0,), 13, 14, 15),
            f"{folder}/batches.meta.txt": b"plane\ncar\nbird\n\n",
        },
    )
    assert sources.splits(str(path)) == (f"{path}:train", f"{path}:test")
    opened = sources.open_source(path)
    assert opened.labels.tolist() == [0, 1, 2]
    assert opened.class_names == ("plane", "car", "bird")
    images = np.stack([np.asarray(image) for image in opened.items()])
    assert images.shape == (3, 32, 32, 3)
    assert images[:, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert images[0, 31, 31].tolist() == [1, 253, 3]  # the last pixel of a plane is the lower right one
    tests = sources.open_source(f"{path}:test")
    assert tests.labels.tolist() == [2, 0]
    assert next(iter(tests.items()))[0, 0].tolist() == [10, 11, 12]


def test_cifar_100_counts_its_fine_labels(tmp_path: Path) -> None:
    records = {"train.bin": cifar_record((1, 2), 1, 2, 3) + cifar_record((1, 0), 4, 5, 6)}
    path = archive(
        tmp_path / "c.tgz", records | {"test.bin": cifar_record((0, 1), 7, 8, 9) + cifar_record((1, 0), 1, 1, 1)}
    )
    assert sources.open_source(path).labels.tolist() == [2, 0]
    assert sources.open_source(f"{path}:test").labels.tolist() == [1, 0]
    assert sources.open_source(path).class_names is None


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"cifar-10-batches-py/data_batch_1": b"\x80\x02pickle"}, "pickles are never loaded"),
        ({"data_batch_1.bin": cifar_record((1,), 1, 2, 3)[:-1]}, "3072 bytes, not a multiple of 3073"),
        ({"data_batch_1.bin": cifar_record((9,), 1, 2, 3), "batches.meta.txt": b"a b"}, "label 9 and names 2"),
        ({"readme.txt": b"nothing"}, "no train images"),
    ],
)
def test_a_cifar_archive_that_cannot_be_read(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sources.open_source(archive(tmp_path / "x.tar.gz", members))


def test_a_cifar_archive_that_is_cut_off_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with pytest.raises(ValueError, match="does not exist"):
        sources.open_source(path)
    rng = np.random.default_rng(0)
    archive(path, {"data_batch_1.bin": b"".join(b"\1" + rng.bytes(3072) for _ in range(20))})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ValueError, match=r"cannot be read as a \.tar\.gz file"):
        sources.open_source(path)

"""CIFAR's binary archives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import python_2_pickle, tar_file

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


def python_files(images: list[tuple[int, int, int]], labels: list[int]) -> dict[str, Any]:
    data = np.stack([np.repeat(np.array(colours, np.uint8), 1024) for colours in images])
    return {"data": data, "labels": labels, "batch_label": "batch 1", "filenames": ["a.png"] * len(labels)}


def test_cifar_in_its_python_form(tmp_path: Path) -> None:
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name, value in {
        "data_batch_1": python_files([(1, 2, 3), (4, 5, 6)], [0, 2]),
        "data_batch_2": python_files([(7, 8, 9)], [1]),
        "test_batch": python_files([(9, 9, 9)], [1]),
        "batches.meta": {"label_names": ["plane", "car", "bird"], "num_vis": 3072},
    }.items():
        (batches / name).write_bytes(python_2_pickle(value))
    archived = {f"cifar-10-batches-py/{file.name}": file.read_bytes() for file in sorted(batches.iterdir())}
    for path in (batches, archive(tmp_path / "cifar-10-python.tar.gz", archived)):
        train, test = sources.splits(str(path))
        assert (train, test) == (f"{path}:train", f"{path}:test")
        opened = sources.open_source(train)
        assert opened.labels.tolist() == [0, 2, 1]
        assert opened.class_names == ("plane", "car", "bird")
        assert [np.asarray(image)[5, 7].tolist() for image in opened.items()] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        assert sources.open_source(test, is_test=True).labels.tolist() == [1]
    assert sources.files_of(str(batches)).names.to_pylist() == sorted(p.name for p in batches.iterdir())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_cifar_that_python_3_wrote_below_torchvision_s_root(protocol: int, as_bytes: bool, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, value in {
        "data_batch_1": python_files([(1, 2, 3), (4, 5, 6)], [0, 1]),
        "test_batch": python_files([(9, 9, 9)], [1]),
        "batches.meta": {"label_names": ["plane", "car"]},
    }.items():
        mine = {key.encode() if as_bytes else key: item for key, item in value.items()}
        (folder / name).write_bytes(pickle.dumps(mine, protocol))
    for path in (folder, tmp_path / "data"):
        train, test = sources.splits(str(path))
        opened = sources.open_source(train)
        assert (opened.labels.tolist(), opened.class_names) == ([0, 1], ("plane", "car"))
        assert [np.asarray(image)[5, 7].tolist() for image in opened.items()] == [[1, 2, 3], [4, 5, 6]]
        assert sources.open_source(test, is_test=True).labels.tolist() == [1]
        assert len(sources.files_of(str(path))) == 3


def test_cifar_100_in_its_python_form(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, labels in (("train", [1, 0]), ("test", [0, 1])):
        found = python_files([(1, 2, 3), (4, 5, 6)], labels)
        found = {"fine_labels": found.pop("labels"), "coarse_labels": [0, 0]} | found
        (folder / name).write_bytes(python_2_pickle(found))
    (folder / "meta").write_bytes(python_2_pickle({"fine_label_names": ["apple", "bear"], "coarse_label_names": ["x"]}))
    train, test = sources.splits(str(folder))
    assert sources.open_source(train).labels.tolist() == [1, 0]
    assert sources.open_source(test).class_names == ("apple", "bear")


HOSTILE = {
    "call": b"\x80\x02cos\nsystem\n(U\x0ftouch /tmp/PWNEDtR.",
    "call of a constructor": b"\x80\x02cnumpy\nndarray\n(J\0\0\0\x7ftR.",
    "float array": pickle.dumps({"data": np.zeros((1, 3072), np.float32), "labels": [0]}, 4),
    "object": pickle.dumps({"data": Path("x"), "labels": [0]}, 4),
    "instance": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "no dictionary": python_2_pickle([1]),
    "no end": python_2_pickle({"data": 1})[:-1],
    "no mark": b"\x80\x02}u.",
    "empty stack": b"\x80\x020.",
    "unknown memory": b"\x80\x02h\x05.",
    "list as key": b"\x80\x02}(]K\x01u.",
    "data too short": python_2_pickle({"data": np.zeros((1, 3071), np.uint8), "labels": [0]}),
    "shape of other data": python_2_pickle({"data": np.zeros((1, 9), np.uint8)}).replace(b"J\x09\0", b"J\x08\0"),
    "labels that are text": python_2_pickle({"data": np.zeros((1, 3072), np.uint8), "labels": ["0"]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_other_pickles_are_refused_and_nothing_runs(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(HOSTILE[kind])
    with pytest.raises(ValueError, match=r"data_batch_1 in .*; give CIFAR's binary archive") as caught:
        sources.open_source(f"{folder}:train")
    assert "\n" not in str(caught.value)
    assert ("it is not as published (a call of os.system)" in str(caught.value)) == (kind == "call")
    assert not Path("/tmp/PWNED").exists()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"cifar-10-batches-py/data_batch_1": b"\x80\x02pickle"}, "pickles are never loaded"),
        ({"data_batch_1.bin": cifar_record((1,), 1, 2, 3)[:-1]}, "3072 bytes, not a multiple of 3073"),
        ({"data_batch_1.bin": cifar_record((9,), 1, 2, 3), "batches.meta.txt": b"a b"}, "label 9 and names 2"),
        ({"test_batch.bin": cifar_record((1,), 1, 2, 3)}, "no train images"),
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


def test_images_that_are_missing_are_said(tmp_path: Path) -> None:
    names = b"".join(b"class-%d\n" % at for at in range(10))
    records = {"data_batch_1.bin": cifar_record((0,), 1, 2, 3) + cifar_record((9,), 4, 5, 6), "batches.meta.txt": names}
    notes = sources.open_source(archive(tmp_path / "c.tgz", records)).inventory.notes()
    assert notes == ["2 images, and CIFAR-10 has 50,000 for training; are files missing?"]

"""Tar files that hold a tar file per class."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_sets import assert_refused, jpeg, tar_file

from dualfast.data import beton, sources

pytest.importorskip("PIL")

CLASSES = {"n01440764": [10, 20], "n01443537": [30]}


def class_tars(folder: Path) -> Path:
    """As ImageNet's, one .tar per class."""
    folder.mkdir()
    for name, values in CLASSES.items():
        tar_file(folder / f"{name}.tar", {f"{name}_{i}.JPEG": jpeg(value) for i, value in enumerate(values)})
    return folder


@pytest.mark.parametrize("outer", [True, False])
def test_class_tars_are_read_in_place(outer: bool, tmp_path: Path) -> None:
    folder = class_tars(tmp_path / "classes")
    path = folder
    if outer:
        path = tmp_path / "ILSVRC2012_img_train.tar"
        members = {"README": b"", "empty.tar": bytes(10240)}
        tar_file(path, {f"{name}.tar": (folder / f"{name}.tar").read_bytes() for name in CLASSES} | members)
    opened = sources.open_source(path)
    assert opened.class_names == ("n01440764", "n01443537")
    assert opened.labels.tolist() == [0, 0, 1]
    assert [*opened.items()] == [jpeg(10), jpeg(20), jpeg(30)]
    where = "ILSVRC2012_img_train.tar:n01443537.tar/" if outer else "n01443537.tar:"
    assert opened.names().to_pylist()[2] == f"{where}n01443537_0.JPEG"
    assert opened.inventory.without_images == (("empty",) if outer else ())
    assert opened.inventory.files.sizes.sum() == sum(
        file.stat().st_size for file in ([path] if outer else path.iterdir())
    )
    beton.write(path, tmp_path / "x.beton", progress=False)
    assert beton.open_beton(tmp_path / "x.beton").labels.tolist() == [0, 0, 1]


def test_shards_without_labels_are_no_classes(tmp_path: Path) -> None:
    for shard in range(2):
        tar_file(tmp_path / f"{shard:05}.tar", {f"{shard}{i}.jpg": jpeg(i) for i in range(2)})
    assert_refused(tmp_path, "has no label; put a .cls, .txt or .json member")


def test_tars_in_a_tar_that_are_refused(tmp_path: Path) -> None:
    assert_refused(tar_file(tmp_path / "cut.tar", {"a.tar": b"x" * 600}), r"a\.tar in .*cut\.tar cannot be read")
    texts = (tar_file(tmp_path / "inner.tar", {"a.txt": b""})).read_bytes()
    assert_refused(tar_file(tmp_path / "none.tar", {"a.tar": texts}), r"holds no images; left out: 1 \.txt")

"""docs/data.md shows each layout with the output that its command has: built, run and compared here. After a change of
the output: python tests/test_data_page.py --write"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent / "support"))  # when it is run as a program

from data_sets import class_folders, idx_file, jpeg, parquet_file, python_2_pickle, tar_file, zip_file

import dualfast
from dualfast import cli

PAGE = Path(__file__).resolve().parent.parent / "docs" / "data.md"
CLASSES = {"cat": 2, "dog": 3}
MEMBERS = {f"photos/{name}/{i}.jpg": jpeg(i) for name, count in CLASSES.items() for i in range(count)}


class Layout(NamedTuple):
    """title: of its section. build(folder): makes the data in an empty folder, and returns the lines of a tree of what
    is elsewhere. command: what is run there, or Python's code. setting(): where it can be run."""

    title: str
    build: Callable[[Path], object]
    command: str
    setting: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def _zip(folder: Path) -> None:
    zip_file(folder / "photos.zip", MEMBERS)


def _splits(folder: Path) -> None:
    class_folders(folder / "photos" / "train", CLASSES)
    class_folders(folder / "photos" / "val", {"cat": 1, "dog": 1})


def _listed(folder: Path) -> None:
    (folder / "images").mkdir()
    rows = ["file,label"]
    for i, label in enumerate(("cat", "dog", "dog")):
        (folder / "images" / f"{i}.jpg").write_bytes(jpeg(i))
        rows.append(f"{i}.jpg,{label}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def _metadata(folder: Path) -> None:
    _listed(folder)
    text = (folder / "train.csv").read_text().replace("file,", "file_name,")
    (folder / "images" / "metadata.csv").write_text(text)
    (folder / "train.csv").unlink()


def _metadata_lines(folder: Path) -> None:
    _metadata(folder)
    (folder / "images" / "metadata.csv").unlink()
    rows = [{"file_name": f"{i}.jpg", "label": label} for i, label in enumerate(("cat", "dog", "dog"))]
    (folder / "images" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _table_of_splits(folder: Path) -> None:
    (folder / "images").mkdir()
    rows = ["file,label,split"]
    for i in range(6):
        (folder / "images" / f"{i}.jpg").write_bytes(jpeg(i))
        rows.append(f"{i}.jpg,{('cat', 'dog')[i % 2]},{'train' if i < 4 else 'test'}")
    (folder / "all.csv").write_text("\n".join(rows) + "\n")


def _imagenet_train(folder: Path) -> None:
    inner = {}
    for synset in ("n01440764", "n01443537"):
        path = tar_file(folder / "inner.tar", {f"{synset}_{i}.JPEG": jpeg(i) for i in range(2)})
        inner[f"{synset}.tar"] = path.read_bytes()
    tar_file(folder / "ILSVRC2012_img_train.tar", inner)
    path.unlink()


def _cifar(folder: Path) -> None:
    images = np.zeros((2, 3072), np.uint8)
    files = {name: {"data": images, "labels": [0, 1]} for name in ("data_batch_1", "data_batch_2", "test_batch")}
    files |= {"batches.meta": {"label_names": ["airplane", "automobile"]}}
    members = {f"cifar-10-batches-py/{name}": python_2_pickle(value) for name, value in files.items()}
    tar_file(folder / "cifar-10-python.tar.gz", members, "w:gz")


def _several(folder: Path) -> None:
    class_folders(folder / "mine", {"cat": 2, "dog": 2})
    class_folders(folder / "theirs", {"dog": 1, "fox": 2})


HUB = ("hf://me/pets", "    data/", "        test-00000-of-00001.parquet", "        train-00000-of-00001.parquet")


@contextlib.contextmanager
def _hub() -> Iterator[None]:
    """A stand-in for the hub, which no test reaches."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [{"bytes": jpeg(i), "path": None} for i in range(4)]
    data = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 1]}, features)
    with (
        mock.patch.object(datasets, "get_dataset_split_names", return_value=["train", "test"]),
        mock.patch.object(datasets, "load_dataset", return_value=data),
    ):
        yield


@contextlib.contextmanager
def _bucket() -> Iterator[None]:
    """The memory of fsspec, for a bucket, and a cache in the folder."""
    import fsspec

    system = fsspec.filesystem("memory")
    for name, data in MEMBERS.items():
        system.makedirs(f"/bucket/{name}".rpartition("/")[0], exist_ok=True)
        system.pipe_file(f"/bucket/{name}", data)
    with mock.patch.dict(os.environ, DUALFAST_CACHE="cache"):
        yield
    system.rm("/bucket", recursive=True)


BUCKET = ("memory://bucket/photos", *(f"    {name.removeprefix('photos/')}" for name in MEMBERS))


def _official(folder: Path) -> None:
    class_folders(folder / "images", {"apple_pie": 2, "ramen": 2})
    (folder / "meta").mkdir()
    for at, part in enumerate(("train", "test")):
        (folder / "meta" / f"{part}.txt").write_text(f"apple_pie/{at}\nramen/{at}\n")


def _imagenet(folder: Path) -> None:
    (folder / "val").mkdir()
    rows = ["ImageId,PredictionString"]
    for i, synset in enumerate(("n01440764", "n01443537", "n01440764")):
        (folder / "val" / f"ILSVRC2012_val_{i:08}.JPEG").write_bytes(jpeg(i))
        rows.append(f"ILSVRC2012_val_{i:08},{synset} 0 0 20 30")
    (folder / "LOC_val_solution.csv").write_text("\n".join(rows) + "\n")


def _tiny_imagenet(folder: Path) -> None:
    root = folder / "tiny-imagenet-200"
    for synset in ("n01443537", "n01629819"):
        class_folders(root / "train" / synset, {"images": 1})
    (root / "val" / "images").mkdir(parents=True)
    for i in range(2):
        (root / "val" / "images" / f"val_{i}.JPEG").write_bytes(jpeg(i))
    rows = ["val_0.JPEG\tn01629819\t0\t0\t19\t29", "val_1.JPEG\tn01443537\t0\t0\t19\t29"]
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")


def _parquet(folder: Path) -> None:
    (folder / "cars" / "data").mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["fiat", "saab"]}}
    for part in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        images = [{"bytes": jpeg(i), "path": None} for i in range(3)]
        parquet_file(folder / "cars" / "data" / f"{part}.parquet", {"image": images, "label": [0, 1, 0]}, features)


def _webdataset(folder: Path) -> None:
    (folder / "shards").mkdir()
    for shard in range(2):
        members = {}
        for i in range(3):
            members |= {f"{shard}{i}.jpg": jpeg(i), f"{shard}{i}.cls": str(i % 2).encode()}
        tar_file(folder / "shards" / f"train-{shard:06}.tar", members)


def _arrays(folder: Path) -> None:
    pixels, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1])
    np.savez(folder / "arrays.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)


def _idx(folder: Path) -> None:
    (folder / "mnist").mkdir()
    for part in ("train", "t10k"):
        idx_file(folder / "mnist" / f"{part}-images-idx3-ubyte.gz", np.zeros((4, 28, 28), np.uint8))
        idx_file(folder / "mnist" / f"{part}-labels-idx1-ubyte.gz", np.array([0, 1, 0, 1], np.uint8))


LAYOUTS = (
    Layout("Class folders", lambda folder: class_folders(folder / "photos", CLASSES), "write photos photos.beton"),
    Layout("Class folders in splits", _splits, "write photos/train train.beton"),
    Layout("A .zip or .tar.gz of class folders", _zip, "write photos.zip p.beton"),
    Layout("A folder and a table of labels", _listed, "write images photos.beton --labels train.csv"),
    Layout("A folder with metadata.csv", _metadata, "write images photos.beton"),
    Layout("A folder with metadata.jsonl, or metadata.parquet", _metadata_lines, "write images photos.beton"),
    Layout("A table that says what is for testing", _table_of_splits, "write images:train p.beton --labels all.csv"),
    Layout("ImageNet's training images, as downloaded", _imagenet_train, "write ILSVRC2012_img_train.tar train.beton"),
    Layout("ImageNet's validation images", _imagenet, "write val val.beton --labels LOC_val_solution.csv"),
    Layout("An official split, as Food-101's", _official, "write images train.beton --labels meta/train.txt"),
    Layout("Tiny ImageNet", _tiny_imagenet, "write tiny-imagenet-200/val val.beton"),
    Layout("A repository of the Hugging Face hub, as cloned", _parquet, "write cars/data:train cars.beton"),
    Layout("Shards of WebDataset", _webdataset, "write 'shards/train-{000000..000001}.tar' train.beton"),
    Layout("Arrays", _arrays, "write arrays.npz:train train.beton"),
    Layout("MNIST's files", _idx, "write mnist:train train.beton"),
    Layout("CIFAR's archives", _cifar, "write cifar-10-python.tar.gz:train train.beton"),
    Layout("A data set on the Hugging Face hub", lambda folder: HUB, "write hf://me/pets:train train.beton", _hub),
    Layout("A folder behind a URL", lambda folder: BUCKET, "write memory://bucket/photos photos.beton", _bucket),
    Layout("Several data sets as one", _several, 'dualfast.write(["mine", "theirs"], "all.beton")'),
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.title)
def test_the_page_shows_what_is_printed(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("PIL", "pyarrow", "datasets", "fsspec"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    assert section(layout, tmp_path) in PAGE.read_text(encoding="utf-8"), "run python tests/test_data_page.py --write"


def section(layout: Layout, folder: Path) -> str:
    """The section of a layout, which is built in `folder`, the working folder."""
    elsewhere = layout.build(folder)
    shown = "\n".join([*tree(folder), *(elsewhere if isinstance(elsewhere, tuple) else ())])
    out = io.StringIO()
    with layout.setting(), contextlib.redirect_stdout(out):
        if (code := layout.command).startswith("dualfast."):
            print(eval(code, {"dualfast": dualfast}))
            prompt = f">>> {code}"
        else:
            assert cli.main(shlex.split(code)) == 0
            prompt = f"$ dualfast {code}"
    return f"### {layout.title}\n\n```\n{shown}\n\n{prompt}\n{out.getvalue()}```\n"


def tree(folder: Path, indent: str = "") -> list[str]:
    """The lines of a folder's tree, with what archives and tables hold."""
    lines = []
    for entry in sorted(folder.iterdir()):
        lines.append(f"{indent}{entry.name}{'/' * entry.is_dir()}")
        lines += tree(entry, indent + "    ") if entry.is_dir() else [f"{indent}    {line}" for line in content(entry)]
    return lines


def content(path: Path) -> list[str]:
    if path.suffix in (".zip", ".npz"):
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    if path.suffix == ".tar" or path.name.endswith(".tar.gz"):
        with tarfile.open(path) as tar:
            return tar.getnames()
    return path.read_text().splitlines() if path.suffix in (".csv", ".txt", ".jsonl") else []


def with_layouts(text: str) -> str:
    """docs/data.md with the sections of all layouts."""
    sections = []
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            sections.append(section(layout, Path(os.curdir).resolve()))
    block = "<!-- made: layouts -->\n" + "\n".join(sections) + "<!-- end -->"
    return re.sub(r"<!-- made: layouts -->\n.*?<!-- end -->", lambda _: block, text, flags=re.S)


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(with_layouts(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

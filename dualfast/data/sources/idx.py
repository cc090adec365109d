"""MNIST and its relatives in their idx files, compressed or not: the images, whose labels lie beside them, or the
folder. Source: http://yann.lecun.com/exdb/mnist, as torchvision, Fashion-MNIST and EMNIST keep them."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import Files
from dualfast.data.sources.arrays import MAX_RATIO, from_arrays
from dualfast.data.sources.paths import pick, split_of
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.files import open_regular

_IMAGES = re.compile(r"(.*)(train|t10k|test)-images([-.])idx3-ubyte(\.gz)?", re.I)
FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw")  # below which torchvision keeps them


def _splits(path: str) -> dict[str, str]:
    """The files of images by their split, "train" or "test": that at `path`, with its sibling, or those in the folder.
    ValueError when these are several sets."""
    if os.path.isfile(path):
        return {_split(path): path} if _IMAGES.fullmatch(os.path.basename(path)) else {}
    for folder in (os.path.join(path, name) for name in FOLDERS) if os.path.isdir(path) else ():
        names = sorted(filter(_IMAGES.fullmatch, os.listdir(folder))) if os.path.isdir(folder) else []
        names = [name for name in names if name.removesuffix(".gz") == name or name.removesuffix(".gz") not in names]
        splits = {_split(name): os.path.join(folder, name) for name in names}
        if len(splits) < len(names):
            raise ValueError(f"{folder} holds several data sets ({', '.join(names)}); give one of these files")
        if splits:
            return splits
    return {}


def _split(name: str) -> str:
    found = _IMAGES.fullmatch(os.path.basename(name))
    assert found is not None
    return "train" if found[2].lower() == "train" else "test"


def _labels_of(images: str) -> str:
    """The file of the labels of a file of images."""
    folder, name = os.path.split(images)
    found = _IMAGES.fullmatch(name)
    assert found is not None
    plain = os.path.join(folder, f"{found[1]}{found[2]}-labels{found[3]}idx1-ubyte")
    return next((path for path in (plain, plain + ".gz") if os.path.isfile(path)), plain)


def read(path: str, n_axes: int) -> NDArray[np.uint8]:
    """The uint8 array in an idx file. ValueError for one that is missing, damaged, or has another number of axes."""
    length = 4 + 4 * n_axes
    try:
        with open_regular(path) as raw, gzip.open(raw) if path.endswith(".gz") else raw as file:
            head = file.read(length)
            shape = np.frombuffer(head, ">u4")[1:].tolist()
            n_bytes = int(np.prod(shape, dtype=object))
            if head[:4] != bytes([0, 0, 8, n_axes]) or len(head) < length:
                raise ValueError(f"it is not a file of bytes of {n_axes} axes")
            if n_bytes > os.path.getsize(path) * MAX_RATIO:
                raise ValueError(f"it says that it holds {n_bytes:,} bytes")
            data = file.read(n_bytes + 1)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; it belongs to the data set too") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ValueError(f"{path} cannot be read as an idx file: {error}") from None
    if len(data) != n_bytes:
        raise ValueError(
            f"{path} should hold {n_bytes:,} values and {'is cut off' if len(data) < n_bytes else 'holds more'}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _open(path: str) -> Source:
    folder, split = split_of(path)
    images = pick(folder, split, _splits(folder))
    labels = _labels_of(images)
    return from_arrays(
        *(read(images, 3), read(labels, 1)),
        kind="idx",
        location=images,
        name=_split(images),
        files=Files.of([images, labels]),
    )


def _parts(path: str) -> dict[str, str]:
    splits = _splits(path)
    if os.path.isfile(path) and splits.keys() == {"train"}:
        folder, name = os.path.split(path)
        test = next(filter(os.path.isfile, _splits_beside(folder, name)), None)
        splits |= {} if test is None else {"test": test}
    return splits


def _splits_beside(folder: str, name: str) -> list[str]:
    """What the test images that belong to a file of training images may be called, the usual name first."""
    found = _IMAGES.fullmatch(name)
    assert found is not None
    return [
        os.path.join(folder, f"{found[1]}{split}-images{found[3]}idx3-ubyte{end}")
        for split in ("t10k", "test")
        for end in ("", ".gz")
    ]


def _files(path: str) -> Files:
    folder, split = split_of(path)
    images = pick(folder, split, _splits(folder))
    return Files.of([images, _labels_of(images)])


KIND = Kind(
    accepts="MNIST's idx files",
    recognizes=lambda path: bool(Path(path).exists() and _splits(path)),
    open=_open,
    files=_files,
    splits=_parts,
)

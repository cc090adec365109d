"""CIFAR-10 and CIFAR-100 in their binary version: a .tar.gz of .bin files, read in place.

PATH means the training images, as PATH:train does; PATH:test the test images. The Python version consists of pickles,
which are never loaded."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import Files
from dualfast.data.sources.arrays import from_arrays
from dualfast.data.sources.source import Kind, Source

SUFFIXES = (".tar.gz", ".tgz")
SIDE = 32
PIXELS = 3 * SIDE * SIDE  # red, green and blue planes, rows from the top
MAX_BYTES = 1 << 30  # of one member; the published ones have up to 154 MB


def read(path: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...] | None]:
    """Images (n, 32, 32, 3) uint8, labels (n,) int64 and class names of the "train" or "test" part of an archive.

    A record is one label byte (CIFAR-10), or a coarse and a fine one, of which the fine one counts (CIFAR-100), and
    3,072 pixels; the archive is CIFAR-100 when it has a train.bin. Test images are in the files whose name begins
    with test. Source: https://www.cs.toronto.edu/~kriz/cifar.html. Raises ValueError for an archive that is missing,
    damaged or not CIFAR's.
    """
    try:
        with tarfile.open(path, "r:gz") as tar:
            members = {PurePosixPath(m.name).name: m for m in tar if m.isfile() and m.size <= MAX_BYTES}
            coarse = "train.bin" in members
            wanted = [
                name
                for name in sorted(members)
                if name.endswith(".bin") and name.startswith("test") == (split == "test")
            ]
            blocks = [_records(_bytes(tar, members[name]), 1 + coarse, f"{name} in {path}") for name in wanted]
            listed = members.get("fine_label_names.txt" if coarse else "batches.meta.txt")
            names = _bytes(tar, listed).decode("utf-8", "replace").split() if listed is not None else None
            pickled = any("_batch" in name and not name.endswith(".bin") for name in members)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give CIFAR's binary archive, as cifar-10-binary.tar.gz") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a .tar.gz file: {error}") from None
    if not blocks:
        why = "it is the Python version, whose pickles are never loaded" if pickled else "it has no such .bin file"
        raise ValueError(f"{path} has no {split} images: {why}; give CIFAR's binary archive, as cifar-10-binary.tar.gz")
    records = np.concatenate(blocks)
    images = records[:, -PIXELS:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    labels = records[:, -PIXELS - 1].astype(np.int64)
    if names is not None and len(labels) and int(labels.max()) >= len(names):
        raise ValueError(f"{path} has the label {labels.max()} and names {len(names)} classes; it is damaged")
    return np.ascontiguousarray(images), labels, tuple(names) if names else None


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _records(data: bytes, label_bytes: int, where: str) -> NDArray[np.uint8]:
    length = label_bytes + PIXELS
    if not data or len(data) % length:
        raise ValueError(f"{where} has {len(data)} bytes, not a multiple of {length}; it is damaged")
    return np.frombuffer(data, np.uint8).reshape(-1, length)


def _open(path: str) -> Source:
    archive, split = _archive_and_split(path)
    images, labels, class_names = read(archive, split)
    return from_arrays(
        *(images, labels),
        kind="cifar",
        location=f"{archive} ({split})",
        class_names=class_names,
        name=split,
        files=Files.of([archive]),
    )


def _archive_and_split(path: str) -> tuple[str, str]:
    archive, _, split = path.rpartition(":") if path.endswith((":train", ":test")) else (path, "", "train")
    return archive, split


KIND = Kind(
    accepts="CIFAR's binary .tar.gz",
    recognizes=lambda path: path.removesuffix(":train").removesuffix(":test").endswith(SUFFIXES),
    open=_open,
    files=lambda path: Files.of([_archive_and_split(path)[0]]),
    splits=lambda path: (f"{path}:train", f"{path}:test") if path.endswith(SUFFIXES) else None,
)

"""CIFAR-10 and CIFAR-100: the published .tar.gz, read in place, or the folder in it, in the binary or Python version.

PATH means the training images, as PATH:train does; PATH:test the test images. Source of the formats:
https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import Files
from dualfast.data.sources import cifar_python
from dualfast.data.sources.arrays import from_arrays
from dualfast.data.sources.paths import addresses, split_of
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.plain import read_regular

SUFFIXES = (".tar.gz", ".tgz")
PUBLISHED = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
SIDE = 32
PIXELS = 3 * SIDE * SIDE  # red, green and blue planes, rows from the top
MAX_BYTES = 1 << 30  # of one file; the published ones have up to 155 MB
N_BATCHES = 5  # of CIFAR-10
N_PUBLISHED = {"train": 50_000, "test": 10_000}  # images
WAY_OUT = "give CIFAR's binary archive, as cifar-10-binary.tar.gz"
_FILES = re.compile(r"(data_batch_\d+|test_batch|batches\.meta|train|test|meta)(\.bin|\.txt)?|fine_label_names\.txt")

Contents = Mapping[str, Callable[[], bytes]]
"""What reads a file, by its name."""
Part = tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...] | None]


def read(path: str, split: str) -> Part:
    """Images (n, 32, 32, 3) uint8, labels (n,) int64 and class names of the "train" or "test" part of an archive, or of
    its folder. Of CIFAR-100, known by its train.bin or train, the fine labels count. Test images are in the files whose
    name begins with test. Raises ValueError for what is missing, damaged or not CIFAR's."""
    if os.path.isdir(path):
        folder = _folder(path)
        files = {name: os.path.join(folder, name) for name in os.listdir(folder) if _FILES.fullmatch(name)}
        return _read({n: lambda at=at: read_regular(at, MAX_BYTES) for n, at in files.items()}, path, split)  # type: ignore[misc]
    try:
        with tarfile.open(path, "r:gz") as tar:
            members = {PurePosixPath(m.name).name: m for m in tar if m.isfile() and m.size <= MAX_BYTES}
            return _read({n: lambda m=m: _bytes(tar, m) for n, m in members.items()}, path, split)  # type: ignore[misc]
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {WAY_OUT}, or an archive of class folders") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as a .tar.gz file: {error}") from None


def _read(files: Contents, path: str, split: str) -> Part:
    is_python = not any(name.endswith(".bin") for name in files)
    suffix, names_suffix = ("", "") if is_python else (".bin", ".txt")
    coarse = f"train{suffix}" in files
    images = re.compile((r"(train|test)" if coarse else r"(data_batch_\d+|test_batch)") + re.escape(suffix))
    wanted = [n for n in sorted(files) if images.fullmatch(n) and n.startswith("test") == (split == "test")]
    if not wanted:
        raise ValueError(f"{path} has no {split} images: it has no such .bin file; {WAY_OUT}")
    named = next(
        (n for n in (("meta", "fine_label_names.txt") if coarse else (f"batches.meta{names_suffix}",)) if n in files),
        None,
    )
    if is_python:
        key = "fine_labels" if coarse else "labels"
        blocks = [_python_records(files[name], key, f"{name} in {path}") for name in wanted]
        names = None
        if named is not None:
            names = _python_names(files[named], "fine_label_names" if coarse else "label_names", f"{named} in {path}")
    else:
        blocks = [_binary_records(files[name](), 1 + coarse, f"{name} in {path}") for name in wanted]
        names = files[named]().decode("utf-8", "replace").split() if named is not None else None
    planes, labels = (np.concatenate([block[i] for block in blocks]) for i in (0, 1))
    if names is not None and len(labels) and int(labels.max()) >= len(names):
        raise ValueError(f"{path} has the label {labels.max()} and names {len(names)} classes; it is damaged")
    pixels = planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels.astype(np.int64), tuple(map(str, names)) if names else None


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _binary_records(data: bytes, label_bytes: int, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The pixels (n, 3072) and the labels (n,) of a .bin: a record is one label byte, or a coarse and a fine one, and
    3,072 pixels."""
    length = label_bytes + PIXELS
    if not data or len(data) % length:
        raise ValueError(f"{where} has {len(data)} bytes, not a multiple of {length}; it is damaged")
    records = np.frombuffer(data, np.uint8).reshape(-1, length)
    return records[:, -PIXELS:], records[:, -PIXELS - 1]


def _python_records(content: Callable[[], bytes], key: str, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same of a pickled dictionary of "data" and labels."""
    found = _unpickled(content, where)
    data, labels = found.get("data"), found.get(key)
    if not isinstance(data, np.ndarray) or not isinstance(labels, list) or data.shape != (len(labels), PIXELS):
        raise ValueError(f"{where} lacks data of {PIXELS} values per image, or {key}; {WAY_OUT}")
    if not all(isinstance(label, int) for label in labels):
        raise ValueError(f"{where} has labels that are no numbers; {WAY_OUT}")
    return data, np.array(labels, np.int64)


def _python_names(content: Callable[[], bytes], key: str, where: str) -> list[str]:
    names = _unpickled(content, where).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{where} lacks {key}; {WAY_OUT}")
    return names


def _unpickled(content: Callable[[], bytes], where: str) -> dict[str, Any]:
    try:
        return cifar_python.read(content())
    except ValueError as error:
        raise ValueError(f"{where}: {error}; {WAY_OUT}") from None


def _open(path: str) -> Source:
    archive, split = _archive_and_split(path)
    images, labels, class_names = read(archive, split)
    source = from_arrays(
        *(images, labels),
        kind="cifar",
        location=f"{archive} ({split})",
        class_names=class_names,
        name=split,
        files=_files(path),
    )
    lacks = _lacks(split, len(images), len(class_names or ()), source.inventory.files.names.to_pylist())
    if not lacks:
        return source
    return replace(source, inventory=replace(source.inventory, remarks=(f"{lacks}; are files missing?",)))


def _lacks(split: str, n_images: int, n_classes: int, files: list[str]) -> str | None:
    """How the files differ from those of the published data sets; None where they do not."""
    batches = sum(name.startswith("data_batch_") for name in files)
    if split == "train" and 0 < batches < N_BATCHES:
        return f"{batches} of the {N_BATCHES} data batches of CIFAR-10 are there"
    if n_classes not in (10, 100) or n_images == N_PUBLISHED[split]:
        return None
    return f"{n_images:,} images, and CIFAR-{n_classes} has {N_PUBLISHED[split]:,} for {split}ing"


def _archive_and_split(path: str) -> tuple[str, str]:
    archive, split = split_of(path)
    return archive, split or "train"


def _files(path: str) -> Files:
    archive, _ = _archive_and_split(path)
    if not os.path.isdir(archive):
        return Files.of([archive])
    folder = _folder(archive)
    return Files.of(Path(folder, name) for name in sorted(os.listdir(folder)) if _FILES.fullmatch(name))


def _folder(path: str) -> str:
    """The folder of the files: the only one of PUBLISHED in `path`, as in torchvision's root, or `path` itself."""
    inside = [folder for name in PUBLISHED if os.path.isdir(folder := os.path.join(path, name))]
    return inside[0] if len(inside) == 1 else path


def _recognizes(path: str) -> bool:
    """An archive whose first file is one of CIFAR's, or that is not there; a folder of such files, and none else that
    could be meant."""
    if os.path.isdir(path):
        with os.scandir(_folder(path)) as entries:
            names = {entry.name for entry in entries if entry.is_file()}
        return not names.isdisjoint({"data_batch_1", "data_batch_1.bin", "train.bin"}) or {"train", "meta"} <= names
    if not path.lower().endswith(SUFFIXES):
        return False
    if not os.path.isfile(path):
        return True
    try:
        with tarfile.open(path, "r:gz") as tar:
            first = next((member for member in tar if member.isfile()), None)
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        return False
    return first is not None and (
        "cifar-10" in first.name or _FILES.fullmatch(PurePosixPath(first.name).name) is not None
    )


KIND = Kind(
    accepts="CIFAR's .tar.gz",
    recognizes=_recognizes,
    open=_open,
    files=_files,
    splits=lambda path: addresses(path, ("train", "test")) if _recognizes(path) else {},
)

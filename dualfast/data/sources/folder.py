"""A folder with one folder of images per class, at any depth. Classes are numbered by sorted name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dualfast.data.images import Payload
from dualfast.data.sources.paths import SPLIT_NAMES, is_folder, subfolders
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.files import open_regular

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)


def _open(path: str) -> Source:
    root = Path(path)
    classes = subfolders(str(root))
    if not classes:
        raise ValueError(f"{root} holds no class folder; put each class's images into a folder named after it")
    names = tuple(entry.name for entry in classes)
    if all(name.lower() in SPLIT_NAMES for name in names):
        raise ValueError(
            f"{root} holds splits ({', '.join(names)}), not classes; give one of them, as {root / names[0]}"
        )
    real_root = os.path.realpath(root)
    by_class = [_image_files(entry.path, real_root, []) for entry in classes]
    files = [file for files in by_class for file in files]
    if not files:
        raise ValueError(f"{root} holds no images in its {len(names)} class folders")
    return Source(
        kind="folder",
        location=str(root),
        labels=np.repeat(np.arange(len(names), dtype=np.int64), [len(files) for files in by_class]),
        class_names=names,
        items=lambda: map(_read, files),
        describe=lambda row: files[row],
    )


def _image_files(folder: str, root: str, ancestors: list[str]) -> list[str]:
    """Paths of the images below `folder`, sorted. ancestors: the real paths of the folders above, which end a cycle of
    links."""
    real = os.path.realpath(folder)
    if real in ancestors:
        return []
    files: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if is_folder(entry, root):
            files += _image_files(entry.path, root, [*ancestors, real])
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            files.append(entry.path)
    return files


def _read(path: str) -> Payload | Exception:
    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        return error


def _splits(path: str) -> tuple[str, str] | None:
    """A folder that holds train and one of val, test, valid, validation: folders or Parquet files."""
    for suffix in ("", ".parquet"):
        if (train := Path(path, "train" + suffix)).exists():
            for name in ("val", "test", "valid", "validation"):
                if (test := Path(path, name + suffix)).exists():
                    return str(train), str(test)
    return None


KIND = Kind(accepts="a folder of class folders", recognizes=os.path.isdir, open=_open, splits=_splits)

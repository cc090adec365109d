"""A folder with one folder of images per class, at any depth. Classes are numbered by sorted name."""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from dualfast.data.images import Payload, is_image, suffixes
from dualfast.data.inventory import (
    BESIDE_CLASSES,
    NOT_IMAGES,
    SYSTEM,
    Files,
    Inventory,
    left_out_text,
    text_array,
    valid_text,
)
from dualfast.data.sources.paths import SPLIT_NAMES, is_folder, is_junk
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.files import open_regular

HIDDEN = "hidden"
NO_SUFFIX = "without suffix"


class _Scan:
    """One pass over the names and sizes in a folder of class folders; nothing is decoded.

    folders: the class folders by sorted name. counts: the images of each. paths: of the images, in the order of the
    classes, relative to the folder."""

    def __init__(self, root: str) -> None:
        self.root, self.real_root = root, os.path.realpath(root)
        self.folders: list[str] = []
        self.counts: list[int] = []
        self.paths: list[str] = []
        self.left_out: dict[str, Counter[str]] = defaultdict(Counter)
        self._sizes, self._times = array("q"), array("q")
        self._suffixes = suffixes()
        for entry in _sorted_entries(root):
            if self._skips(entry):
                continue
            if is_folder(entry, self.real_root):
                before = len(self.paths)
                self._add(entry.path, f"{entry.name}/", [])
                self.folders.append(entry.name)
                self.counts.append(len(self.paths) - before)
            elif (suffix := _suffix(entry.name)) in self._suffixes:
                self.left_out[BESIDE_CLASSES][suffix] += 1

    def _add(self, folder: str, prefix: str, ancestors: list[str]) -> None:
        """Adds the images below `folder`, sorted. ancestors: the real paths of the folders above, which end a cycle of
        links."""
        real = os.path.realpath(folder)
        if real in ancestors:
            return
        for entry in _sorted_entries(folder):
            if self._skips(entry):
                continue
            if is_folder(entry, self.real_root):
                self._add(entry.path, f"{prefix}{entry.name}/", [*ancestors, real])
                continue
            suffix = _suffix(entry.name)
            if suffix in self._suffixes or is_image(entry.path):
                self._add_file(entry, prefix + entry.name)
            else:
                self.left_out[NOT_IMAGES][suffix or NO_SUFFIX] += 1

    def _add_file(self, entry: os.DirEntry[str], path: str) -> None:
        self.paths.append(path)
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere: reading it says so
            self._sizes.append(-1)
            self._times.append(0)
        else:
            self._sizes.append(status.st_size)
            self._times.append(status.st_mtime_ns)

    def _skips(self, entry: os.DirEntry[str]) -> bool:
        """Whether the entry is hidden, or junk; counts it."""
        if not entry.name.startswith(".") and not is_junk(entry.name):
            return False
        suffix = _suffix(entry.name)
        if is_junk(entry.name):
            self.left_out[SYSTEM][entry.name if entry.is_dir() else suffix or entry.name] += 1
        elif suffix in self._suffixes:
            self.left_out[HIDDEN][suffix] += 1
        return True

    @property
    def files(self) -> Files:
        sizes, times = (np.array(column, np.int64) for column in (self._sizes, self._times))
        return Files(text_array(self.paths), sizes, times)


def _sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _open(path: str) -> Source:
    scan = _Scan(path)
    root = Path(path)
    if not scan.folders:
        raise ValueError(f"{root} holds no class folder; put each class's images into a folder named after it")
    if all(name.lower() in SPLIT_NAMES for name in scan.folders):
        raise ValueError(
            f"{root} holds splits ({', '.join(scan.folders)}), not classes; give one of them, as "
            f"{root / scan.folders[0]}"
        )
    left_out = {reason: counts for reason, counts in scan.left_out.items() if reason != SYSTEM}
    if not scan.paths:
        others = f"; left out: {left_out_text(left_out)}" if left_out else ""
        raise ValueError(f"{root} holds no images in its {len(scan.folders)} class folders{others}")
    counts = np.array(scan.counts)
    files = scan.files
    names = [valid_text(name) for name in scan.folders]
    return Source(
        kind="folder",
        location=str(root),
        labels=np.repeat(np.arange(np.count_nonzero(counts), dtype=np.int64), counts[counts > 0]),
        class_names=tuple(name for name, count in zip(names, counts, strict=True) if count),
        items=lambda: (_read(os.path.join(path, name)) for name in scan.paths),
        names=lambda: files.names,
        describe=lambda row: valid_text(str(root / scan.paths[row])),
        inventory=Inventory(
            files=files,
            left_out=scan.left_out,
            without_images=tuple(name for name, count in zip(names, counts, strict=True) if not count),
        ),
        one_file_each=True,
    )


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


KIND = Kind(
    accepts="a folder of class folders",
    recognizes=os.path.isdir,
    open=_open,
    files=lambda path: _Scan(path).files,
    splits=_splits,
)

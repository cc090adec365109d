"""The image files below a folder, found in one pass over names and sizes; nothing is decoded."""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from contextlib import suppress

import numpy as np

from dualfast.data.images import Payload, is_image, suffixes
from dualfast.data.inventory import BESIDE_CLASSES, NOT_IMAGES, SYSTEM, Files, left_out_text
from dualfast.data.sources.path_list import PathList
from dualfast.data.sources.paths import inner_folders, inside, is_inside, is_junk
from dualfast.storage.files import open_regular

HIDDEN = "hidden"
OUTSIDE = "links out of the data set"
CYCLE = "links to a folder that holds them"
NO_SUFFIX = "without suffix"


class Scan:
    """paths: of the images found so far, relative to the folder, sorted in each. folders: those that hold some.
    left_out: the number of other files, by reason and suffix."""

    def __init__(self, root: str, follow_links: bool = False) -> None:
        self.root, self.follow_links, self.real_root = root, follow_links, os.path.realpath(root)
        self.paths = PathList()
        self.folders: list[str] = []
        self.left_out: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sizes, self._times = array("q"), array("q")
        self._suffixes = suffixes()

    def class_folders(self) -> dict[str, int]:
        """Adds the images of every folder in the root; the number of images by the folder's name, sorted. ValueError
        for a link to a folder that is not there, and for two that are the same folder."""
        counts: dict[str, int] = {}
        places: dict[str, str] = {}
        for entry in _sorted_entries(self.root):
            if self._skips(entry):
                continue
            if _is_folder(entry):
                before = len(self.paths)
                self._enter(entry, f"{entry.name}/", (self.real_root,))
                counts[entry.name] = len(self.paths) - before
                first = places.setdefault(os.path.realpath(entry.path), entry.name)
                if first != entry.name:
                    raise ValueError(
                        f"{first} and {entry.name} in {self.root} are one folder, by a link, and would be two classes "
                        "of the same images; remove the link"
                    )
            elif entry.is_symlink() and not os.path.exists(entry.path) and not suffix_of(entry.name):
                raise ValueError(
                    f"{entry.path} is a link to {os.readlink(entry.path)}, which is not there; mount it, or remove the "
                    "link"
                )
            elif (suffix := suffix_of(entry.name)) in self._suffixes:
                self.left_out[BESIDE_CLASSES][suffix] += 1
        return counts

    def add(self, folder: str, prefix: str = "", ancestors: tuple[str, ...] = ()) -> None:
        """Adds the images below `folder`, sorted. ancestors: the real paths of the folders above, which end a cycle of
        links. ValueError for an image or folder that is a link out of the root, unless links are followed."""
        real = os.path.realpath(folder)
        if real in ancestors:
            self.left_out[CYCLE][os.path.basename(folder)] += 1
            return
        has_images = False
        for entry in _sorted_entries(folder):
            if self._skips(entry):
                continue
            if _is_folder(entry):
                self._enter(entry, f"{prefix}{entry.name}/", (*ancestors, real))
                continue
            suffix = suffix_of(entry.name)
            if suffix in self._suffixes:
                self._add_file(entry, prefix + entry.name)
                has_images = True
            elif entry.is_symlink() and not is_inside(entry.path, self.real_root, self.follow_links):
                self.left_out[OUTSIDE][suffix or NO_SUFFIX] += 1
            elif is_image(entry.path):
                self._add_file(entry, prefix + entry.name)
                has_images = True
            else:
                self.left_out[NOT_IMAGES][suffix or NO_SUFFIX] += 1
        if has_images:
            self.folders.append(prefix[:-1])

    def _enter(self, entry: os.DirEntry[str], prefix: str, ancestors: tuple[str, ...]) -> None:
        if entry.is_symlink():
            inside(entry.path, self.real_root, self.follow_links)
        self.add(entry.path, prefix, ancestors)

    def _add_file(self, entry: os.DirEntry[str], path: str) -> None:
        if entry.is_symlink():
            inside(entry.path, self.real_root, self.follow_links)
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
        """Whether the entry is hidden, or junk; counts it, or the images in a hidden folder."""
        if not entry.name.startswith(".") and not is_junk(entry.name):
            return False
        if is_junk(entry.name):
            self.left_out[SYSTEM][entry.name if entry.is_dir() else suffix_of(entry.name) or entry.name] += 1
            return True
        names = [entry.name]
        if entry.is_dir():
            with suppress(OSError):
                names = os.listdir(entry.path)
        hidden = Counter(suffix for name in names if (suffix := suffix_of(name)) in self._suffixes)
        if hidden:
            self.left_out[HIDDEN] += hidden
        return True

    def inner(self) -> list[str]:
        """Folders with images in class folders that hold several."""
        return inner_folders(self.folders)

    @property
    def files(self) -> Files:
        sizes, times = (np.frombuffer(column, np.int64) for column in (self._sizes, self._times))
        return Files.of_images(self.paths.to_arrow(), sizes, times)

    @property
    def left_out_text(self) -> str:
        """As "; left out: 2 .heic (not images that Pillow opens)", empty where nothing is."""
        left_out = {reason: counts for reason, counts in self.left_out.items() if reason != SYSTEM}
        return f"; left out: {left_out_text(left_out)}" if left_out else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def read_image(path: str) -> Payload | Exception:
    """The bytes of an image file, or why it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read()
    except (OSError, ValueError) as error:
        return error

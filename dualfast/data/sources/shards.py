"""Data sets in shards, Parquet or tar files: which files they are, and of which split.

A split is in the name of a file (train-00000-of-00002.parquet) or of its folder (train/0000.parquet), as in Hugging
Face's repositories, which keep their shards in a folder data, or one per configuration.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from dualfast.data.images import suffixes
from dualfast.data.sources.paths import SPLIT_NAMES, addresses, inside, is_hidden, pick, split_of
from dualfast.notices import warn

DEPTH = 3  # of folders that are looked into
IMAGE_FOLDERS = 2  # with so many, it is a folder of class folders
UNNAMED = "unnamed"
_NUMBERED = re.compile(r"-(\d+)-of-(\d+)")
_SPLIT = re.compile(rf"(?<![a-z0-9])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])")


def find(path: str, suffix: str) -> dict[str, list[Path]]:
    """The shards, sorted, whose names end in `suffix`, by split, UNNAMED where the names call none: the file at `path`,
    or those in the folder. Empty where there are none, and for a folder whose subfolders hold images."""
    if not os.path.isdir(path):
        is_one = path.lower().endswith(suffix) and os.path.isfile(path)
        return {UNNAMED: [Path(path)]} if is_one else {}
    splits: dict[str, list[Path]] = {}
    for name in _shards(path, suffix):
        found = _SPLIT.search(name.lower())
        splits.setdefault(found[1] if found else UNNAMED, []).append(Path(path, name))
    return splits


def splits_in(paths: Iterable[str]) -> list[str]:
    """The splits that the names of files call, sorted."""
    found = (_SPLIT.search(os.path.basename(path).lower()) for path in paths)
    return sorted({call[1] for call in found if call})


def chosen(path: str, suffix: str, follow_links: bool) -> list[Path]:
    """The shards that open reads: those of the split that PATH:SPLIT names, or all. ValueError where they are of
    several splits or configurations, are not regular files, or links out of the folder that are not followed."""
    path, split = split_of(path)
    files = pick(path, split, find(path, suffix))
    if not os.path.isdir(path):
        return files
    _warn_of_missing(path, files)
    configurations = sorted({_without_split(file.relative_to(path).parent) for file in files})
    if len(configurations) > 1:
        names = ", ".join(configurations)
        if suffix == ".parquet" and all("=" in name for name in configurations):
            raise ValueError(
                f'{path} is partitioned ({names}); python -c "import pyarrow.parquet as pq; pq.write_table('
                f"pq.read_table('{path}'), 'all.parquet')\" makes one file of it, which is read"
            )
        raise ValueError(
            f"{path} holds several data sets ({names}); give one of them, as {Path(path, configurations[0])}"
        )
    root = os.path.realpath(path)
    for file in files:
        inside(str(file), root, follow_links)
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is not a regular file; remove it")
    return files


def _warn_of_missing(path: str, files: list[Path]) -> None:
    """Says which shards are not there, of those that say how many they are: train-00000-of-00003.parquet."""
    there: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if found := _NUMBERED.search(file.name):
            there.setdefault((file.name[: found.start()], int(found[2])), set()).add(int(found[1]))
    for (name, total), numbers in there.items():
        if missing := total - len(numbers):
            warn(f"{path}: {missing:,} of the {total:,} shards of {name} are not there; the download may be incomplete")


def train_and_test(path: str, suffix: str) -> tuple[str, str | None] | None:
    """What to give for the training and the test shards in a folder."""
    splits = find(path, suffix)
    found = addresses(path, splits)
    return found and (_plain(found[0], splits), found[1] and _plain(found[1], splits))


def _plain(address: str, splits: dict[str, list[Path]]) -> str:
    """The file itself where a split is one file."""
    files = splits[split_of(address)[1] or UNNAMED]
    return str(files[0]) if len(files) == 1 else address


def location(path: str, files: list[Path]) -> str:
    """What messages call a set of shards: the file, or what was given when there are several."""
    return str(files[0] if len(files) == 1 else Path(path))


def _without_split(folder: Path) -> str:
    return str(Path(*(part for part in folder.parts if part.lower() not in SPLIT_NAMES)))


def _shards(root: str, suffix: str) -> list[str]:
    """The shards below `root`, relative to it, sorted. A folder with images is none of shards; files beside such
    folders are, when their names call a split."""
    found: list[str] = []
    image_folders = 0
    for folder, files, has_images in _walk(root, suffix, 0):
        if folder == root:
            top = files
        elif has_images:
            image_folders += 1
            if image_folders == IMAGE_FOLDERS:
                return []
        else:
            found += files
    found += [file for file in top if not image_folders or _SPLIT.search(os.path.basename(file).lower())]
    return sorted(os.path.relpath(file, root) for file in found)


def _walk(folder: str, suffix: str, depth: int) -> Iterator[tuple[str, list[str], bool]]:
    """Each folder with its shards and whether it holds images; below one with images nothing is looked at."""
    files, folders, has_images = [], [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            name = entry.name.lower()
            if name.endswith(suffix):
                files.append(entry.path)
            elif os.path.splitext(name)[1] in suffixes():
                has_images = True
                if depth:
                    break
            elif depth < DEPTH and entry.is_dir():
                folders.append(entry.path)
    yield folder, files, has_images
    if not depth or not has_images:
        for inner in sorted(folders):
            yield from _walk(inner, suffix, depth + 1)

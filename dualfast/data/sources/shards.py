"""Data sets in shards, Parquet or tar files: which files they are, and of which split.

A split is in the name of a file (train-00000-of-00002.parquet) or of its folder (train/0000.parquet), as in Hugging
Face's repositories, which keep their shards in a folder data, or one per configuration.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dualfast.data.images import suffixes
from dualfast.data.inventory import some
from dualfast.data.sources.paths import SPLIT_NAMES, inside, is_hidden, pick, split_of

DEPTH = 3  # of folders that are looked into
IMAGE_FOLDERS = 2  # with so many, it is a folder of class folders
UNNAMED = "unnamed"
BESIDE_SHARDS = "beside the shards"
OTHER_DATA = (".parquet", ".tar", ".csv", ".npz", ".zip", ".tar.gz", ".tgz", ".arrow")
INCOMPLETE, BESIDE = "; the download may be incomplete", " lie beside and are not read"
_COUNTED = re.compile(r"-(\d+)-of-(\d+)")
_NUMBER = re.compile(r"\d{2,}(?=\D*$)")
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
    configurations = sorted({_without_split(file.relative_to(path).parent) for file in files})
    if len(configurations) > 1:
        names = ", ".join(configurations)
        if suffix == ".parquet" and all("=" in name for name in configurations):
            raise ValueError(
                f'{path} is partitioned ({names}); python -c "import pyarrow.parquet as pq; pq.write_table('
                f"pq.read_table('{path}'), 'all.parquet')\" makes one file of it, which is read"
            )
        first = next(name for name in configurations if name != ".")
        raise ValueError(f"{path} holds several data sets ({names}); give one of them, as {Path(path, first)}")
    root = os.path.realpath(path)
    for file in files:
        inside(str(file), root, follow_links)
        if file.exists() and not file.is_file():
            raise ValueError(f"{file} is not a regular file; remove it")
    return files


def missing(files: Iterable[Path]) -> tuple[str, ...]:
    """Sentences on the shards that are not there, of those that say how many they are (train-00000-of-00003.parquet)
    and of those that are numbered (000000.tar, 000002.tar)."""
    files = list(files)
    given = {file.name for file in files}
    counted: dict[tuple[str, int], set[int]] = {}
    numbered: dict[tuple[str, str], dict[int, str]] = {}
    for file in files:
        if found := _COUNTED.search(file.name):
            counted.setdefault((file.name[: found.start()], int(found[2])), set()).add(int(found[1]))
        elif found := _NUMBER.search(file.name):
            around = file.name[: found.start()], file.name[found.end() :]
            numbered.setdefault(around, {})[int(found[0])] = found[0]
    gaps, beside = [], []
    for (name, total), there in counted.items():
        lacking = total - len(there)
        others = [file for folder in {f.parent for f in files} for file in folder.glob(f"{glob.escape(name)}-*-of-*")]
        if lacking and len({file.name for file in others} - given) >= lacking:
            beside.append(f"{lacking:,} of the {total:,} shards of {name}{BESIDE}")
        elif lacking:
            gaps.append(f"{lacking:,} of the {total:,} shards of {name} are not there")
    for (before, behind), texts in numbered.items():
        low, high = min(texts), max(texts)
        if 2 <= len(texts) < high - low + 1 <= 2 * len(texts):  # else the numbers may be dates, or sizes
            absent = [n for n in range(low, high + 1) if n not in texts]
            names = [f"{before}{n:0{len(texts[low])}}{behind}" for n in absent]
            gaps.append(f"shards are missing among those that are numbered: {some(names)}")
    return (*beside, *(f"{gap}{INCOMPLETE}" for gap in gaps))


def left_out(path: str, suffix: str, *, has_files: bool = False) -> dict[str, Counter[str]]:
    """The number of other tables, archives and images below a folder of shards, by suffix. has_files: its images may
    be those that the shards name."""
    path = split_of(path)[0]
    if not os.path.isdir(path):
        return {}
    shards = {str(file) for files in find(path, suffix).values() for file in files}
    kinds = OTHER_DATA if has_files else (*OTHER_DATA, *suffixes())
    counts: Counter[str] = Counter()
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not is_hidden(name)]
        data = [name for name in names if name.lower().endswith(kinds) and not is_hidden(name)]
        counts.update(os.path.splitext(name)[1].lower() for name in data if os.path.join(place, name) not in shards)
    return {BESIDE_SHARDS: counts} if counts else {}


def splits(path: str, suffix: str) -> dict[str, str]:
    """What to give for the shards of each split in a folder, by its name: the file itself where it is one. Of those
    whose names call no split, the files by their own names."""
    found = find(path, suffix) if os.path.isdir(path) else {}
    named = {
        name: str(files[0]) if len(files) == 1 else f"{path}:{name}" for name, files in found.items() if name != UNNAMED
    }
    return named | {file.name: str(file) for file in found.get(UNNAMED, ())}


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

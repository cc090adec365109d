"""Names in a data set: splits, junk, links, which must stay inside it unless they are to be followed."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import TypeVar

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("val", "valid", "validation", "dev", "eval", "test", "testing")
"""What splits are called, in any case; of several test splits the first of this list is used."""
SPLIT_NAMES = frozenset(TRAIN_NAMES + TEST_NAMES)
JUNK = frozenset(
    {
        *("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", ".ipynb_checkpoints"),
        *("#recycle", "@recycle", "recycler", "#snapshot"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"),
    }
)
"""Files and folders that archivers and operating systems leave behind, lower case."""

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LISTS = (*METADATA, "val_annotations.txt", "LOC_val_solution.csv")
"""What a list of files and labels is called in the folder of its images."""
OF_IMAGES = {"images", "image", "imgs", "img", "jpg", "jpegs", "jpegimages", "photos"}
OF_MASKS = {
    *("masks", "mask", "annotations", "annotation", "segmentation", "segmentations", "segmentationclass"),
    *("segmentationobject", "segmim", "trimaps", "ground_truth", "gt", "labels"),
}
"""What folders of images, and of images that mark what is in others, are called, lower case."""
OF_PARTS = re.compile(r".*(images?|part|batch|chunk|shard)[_-]?\d+")
T = TypeVar("T")


# ---- names ----------------------------------------------------------------------------------------------------------


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left behind by an archiver or an operating system: ._x.jpg,
    Thumbs.db."""
    return name.startswith("._") or name.lower() in JUNK


def is_hidden(name: str) -> bool:
    """Whether it is not looked into: hidden, junk, or the names that lie beside a .beton."""
    return name.startswith(".") or name.endswith(".beton.names.parquet") or is_junk(name)


# ---- splits: PATH:train is a part of PATH ---------------------------------------------------------------------------


def split_of(path: str) -> tuple[str, str | None]:
    """PATH and the split, lower case, of PATH:SPLIT; any other path and None."""
    rest, _, name = path.rpartition(":")
    if rest and name.lower() in SPLIT_NAMES and not os.path.exists(path):
        return rest, name.lower()
    return path, None


def train_and_test(names: Collection[str]) -> tuple[str, str | None] | None:
    """Those of the names that call the training and the test split; None without a training split."""
    train = next((name for name in TRAIN_NAMES if name in names), None)
    return None if train is None else (train, next((name for name in TEST_NAMES if name in names), None))


def are_splits(folders: Collection[str], of_classes: Collection[str]) -> bool:
    """Whether a data set's folders are its splits, or some of them are, rather than classes. of_classes: those that
    hold folders of images. Splits are called so, all of them; or hold classes, beside folders of other things: train
    and val whatever lies there, train alone where nothing else holds folders of images."""
    named = {name for name in folders if name.lower() in SPLIT_NAMES}
    if len(named) == len(folders) or named.isdisjoint(of_classes):
        return len(named) == len(folders) > 0
    parts = train_and_test([name.lower() for name in named])
    return (parts is not None and parts[1] is not None) or named.issuperset(of_classes)


def split_like(folders: Collection[str]) -> list[str]:
    """Those of the names that hold the words of splits, training and test among them: seg_train, TestSet, val2017."""
    words = {name: set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())) for name in folders}
    train, test = ([n for n in sorted(words) if not words[n].isdisjoint(own)] for own in (TRAIN_NAMES, TEST_NAMES))
    return [*train, *(name for name in test if name not in train)] if train and test else []


def no_classes(place: str, classes: Collection[str], inner: Collection[str], *, packed: bool = False) -> str | None:
    """Why the folders in `place` are no classes by their names, and what to do; None where they may be classes. inner:
    the folders in those that hold several. packed: they are in an archive."""
    if (told := _in_each_class(inner)) is not None:
        return f"{place} holds {told}"
    if (called := _called(classes, inner)) is None:
        return None
    one, what = called
    give, folder = ("unpack it, and give", "the folder") if packed else ("give", place)
    if one:
        folder = f"one of them, as {one if packed else os.path.join(place, one)},"
    unless = " unless class folders are in it" if one else ""
    return f"{place} holds {what}; {give} {folder} with labels='TABLE.csv'{unless}, or rename them"


def _called(classes: Collection[str], inner: Collection[str]) -> tuple[str, str] | None:
    """The class folder to give instead of all, empty for all with a table of labels, and what their names say that they
    are; None where they may be classes."""
    if alike := called_like_splits(classes, inner):
        return alike[0], f"{', '.join(alike)}, which are called like splits, not classes"
    names = sorted(classes)
    images, masks = ([name for name in names if name.lower() in called] for called in (OF_IMAGES, OF_MASKS))
    if images and masks and len(images) + len(masks) == len(names):
        return images[0], f"{', '.join(names)}, which are called like images and what is marked in them, not classes"
    if len(names) > 1 and all(OF_PARTS.fullmatch(name.lower()) for name in names):
        return "", f"{', '.join(names[:3])}, which are called like parts of one set, not classes"
    return None


def _in_each_class(inner: Collection[str]) -> str | None:
    """What the folders in class folders, CLASS/..., are by their names, if they are no parts of the class."""
    below: dict[str, set[str]] = {}
    for folder in inner:
        outer, name = folder.split("/")[:2]
        below.setdefault(outer, set()).add(name)
    for outer, names in sorted(below.items()):
        shown = ", ".join(f"{outer}/{name}" for name in sorted(names)[:3])
        lower = {name.lower() for name in names}
        if not lower.isdisjoint(TRAIN_NAMES) and not lower.isdisjoint(TEST_NAMES):
            hold_classes = any(folder.startswith(f"{outer}/") and folder.count("/") > 1 for folder in inner)
            way_out = (
                f"give its folder {outer}" if hold_classes else f"move them out, as train/{outer} and test/{outer}"
            )
            return f"splits in its class folders ({shown}); {way_out}"
        if not lower.isdisjoint(OF_MASKS) and lower <= OF_MASKS | OF_IMAGES:
            return f"masks in its class folders ({shown}); move them out, as images/{outer} and masks/{outer}"
    return None


def called_like_splits(classes: Collection[str], inner: Collection[str]) -> list[str]:
    """Class folders that are splits by their names: all of them, or those that hold several folders, as `inner`."""
    holding = split_like({folder.partition("/")[0] for folder in inner})
    every = split_like(classes)
    return holding or (every if len(every) == len(classes) else [])


def inner_folders(folders: Collection[str]) -> list[str]:
    """Of the folders with images, as CLASS/..., those in classes that hold several: animals/cats, animals/dogs."""
    found = [folder for folder in folders if "/" in folder]
    count = Counter(folder.partition("/")[0] for folder in found)
    return sorted(folder for folder in found if count[folder.partition("/")[0]] > 1)


def are_below_letters(folders: Collection[str]) -> bool:
    """Whether the folders with images are below folders that sort them by their first letter, as SUN397's a/abbey and
    c/church/indoor: those are the classes, then."""
    pairs = [folder.split("/", 1) for folder in folders]
    letters = Counter(pair[0] for pair in pairs)
    are_first = all(len(a) == 1 and a.isalpha() and b[:1].lower() == a.lower() for a, b in map(_pair, pairs))
    return len(letters) > 1 and max(letters.values()) > 1 and are_first


def _pair(parts: list[str]) -> tuple[str, str]:
    return parts[0], parts[1] if len(parts) > 1 else ""


BELOW_LETTERS = "the class folders are below those of their first letters"


def shared_levels(paths: Collection[Sequence[str]]) -> tuple[str, ...]:
    """The folders that all of these paths, as the names of their levels, begin with."""
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*paths, strict=False)))


def folder_above(folders: Collection[str]) -> str:
    """The folder that holds all of these, as far as they share one."""
    shared = os.path.commonpath(folders)
    return os.path.dirname(shared) if shared in folders else shared


def addresses(path: str, names: Collection[str]) -> dict[str, str]:
    """PATH:NAME, by name, for a path that holds the splits of these names."""
    return {name: f"{path}:{name}" for name in names if name in SPLIT_NAMES}


def pick(path: str, split: str | None, splits: Mapping[str, T], address: str | None = None) -> T:
    """The split that is asked for, or the only one. ValueError, naming those of `path`, when that is not clear.
    address: what to give with the name of a split, if not `path`."""
    known = ", ".join(splits)
    if split is not None:
        same = [name for name in TRAIN_NAMES if name in splits] if split in TRAIN_NAMES else []
        if split not in splits and len(same) == 1:
            split = same[0]
        if split not in splits:
            raise ValueError(f"{path} has no split {split!r}; it has {known or 'none'}")
        return splits[split]
    if len(splits) > 1:
        first = next((name for name in TRAIN_NAMES if name in splits), next(iter(splits)))
        raise ValueError(f"{path} holds several splits ({known}); give one, as {address or path}:{first}")
    return next(iter(splits.values()))


def folder_of(path: str) -> str:
    """The folder that a path names: of PATH:train the one called train in PATH, or in the only folder there, in any
    case."""
    path, split = split_of(path)
    if split is None:
        return path
    while not (found := split_folders(path)) and len(inner := subfolders(path)) == 1:
        path = os.path.join(path, inner[0])
    return os.path.join(path, pick(path, split, found))


def split_folders(path: str) -> dict[str, str]:
    """The names of the folders in `path` that are called like splits, by that in lower case."""
    with os.scandir(path) as entries:
        return by_split(path, [entry.name for entry in entries if entry.name.lower() in SPLIT_NAMES and entry.is_dir()])


def by_split(path: str, names: Collection[str]) -> dict[str, str]:
    """Names of splits by themselves in lower case. ValueError for two that differ only in case."""
    found: dict[str, str] = {}
    for name in sorted(names):
        other = found.setdefault(name.lower(), name)
        if other != name:
            raise ValueError(f"{path} holds {other} and {name}, which name one split; rename one")
    return found


def subfolders(path: str) -> list[str]:
    """The names of the folders in `path`, but for those that are not looked into."""
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir()]


# ---- links ----------------------------------------------------------------------------------------------------------


def is_hub_blob(real: str) -> bool:
    """Whether a real path is a file of Hugging Face's cache, to which the snapshots there link:
    datasets--user--name/blobs/HASH."""
    blobs = os.path.dirname(real)
    return os.path.basename(blobs) == "blobs" and os.path.basename(os.path.dirname(blobs)).startswith("datasets--")


def is_inside(path: str, root: str, follow_links: bool = False) -> bool:
    """Whether `path` leads to a place in `root`, a real path, or may lead anywhere."""
    try:
        inside(path, root, follow_links)
    except ValueError:
        return False
    return True


def inside(path: str, root: str, follow_links: bool = False) -> str:
    """The real path of `path`. ValueError when it is outside `root`, a real path, unless links are followed."""
    real = os.path.realpath(path)
    if follow_links or is_hub_blob(real):
        return real
    if os.path.commonpath((real, root)) != root:
        raise ValueError(
            f"{path} leads outside the data set, to {real}, which a data set from others could use to read your files; "
            "follow_links=True follows such links"
        )
    return real


def hub_snapshot(path: str) -> str:
    """Of a folder in Hugging Face's cache (datasets--user--name) the snapshot that refs/main names, or the latest; any
    other path itself."""
    snapshots = os.path.join(path, "snapshots")
    if not os.path.basename(os.path.abspath(path)).startswith("datasets--") or not os.path.isdir(snapshots):
        return path
    try:
        with open(os.path.join(path, "refs", "main"), encoding="ascii") as file:
            named = os.path.join(snapshots, os.path.basename(file.read(200).strip()))
    except (OSError, ValueError):
        named = snapshots
    if named != snapshots and os.path.isdir(named):
        return named
    found = [entry for entry in os.scandir(snapshots) if entry.is_dir()]
    return max(found, key=lambda entry: entry.stat().st_mtime).path if found else path

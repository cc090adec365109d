"""A folder with one folder of images per class, at any depth. Classes are numbered by sorted name."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from dualfast.data.images import suffixes
from dualfast.data.inventory import BESIDE_CLASSES, NOT_IMAGES, Files, Inventory, some, valid_text
from dualfast.data.sources import archive, file_list, unsupported
from dualfast.data.sources.paths import (
    BELOW_LETTERS,
    SPLIT_NAMES,
    TRAIN_NAMES,
    are_below_letters,
    are_splits,
    folder_above,
    folder_of,
    is_hidden,
    no_classes,
    split_folders,
    subfolders,
    train_and_test,
)
from dualfast.data.sources.scan import Scan, read_image, suffix_of
from dualfast.data.sources.source import Kind, Source, number_classes


def _open(path: str, *, follow_links: bool = False) -> Source:
    path = folder_of(path)
    scan, root = Scan(path, follow_links), Path(path)
    classes = scan.class_folders()
    if not classes:
        has_images = bool(scan.left_out[BESIDE_CLASSES])
        others = None if has_images else unsupported.hint_in(path) or _of_archives(root) or _of_tables(root)
        way_out = others or _way_to_labels(root, scan)
        raise ValueError(f"{root} holds no class folder; {way_out}")
    inner = scan.inner()
    splits = [name for name in classes if name.lower() in SPLIT_NAMES]
    if are_splits(classes, {folder.partition("/")[0] for folder in scan.folders if "/" in folder}):
        raise ValueError(_of_splits(root, sorted(splits, key=lambda name: name.lower() not in TRAIN_NAMES)))
    within = {folder for folder in inner if folder.partition("/")[2].lower() not in SPLIT_NAMES}
    if _is_of_a_detector(classes) and within:
        outer = root / min(within).partition("/")[0]
        raise ValueError(f"{root} holds {', '.join(classes)}; the class folders are in {outer}: give that")
    if _is_of_a_detector(classes):
        raise ValueError(
            f"{root} holds {', '.join(classes)}: images and the boxes in them, for a detector; this library trains one "
            "class per image: cut the boxes out, into a folder per class, or give a table of files and labels with "
            "labels='TABLE.csv'"
        )
    if not scan.paths:
        packed = next(filter(None, (_of_archives(root / name, f"the archives in {name}") for name in classes)), "")
        others = "; write them as PNG or JPEG, with a program that reads them" if scan.left_out[NOT_IMAGES] else ""
        hint = f"; {packed}" if packed else others
        raise ValueError(f"{root} holds no images in its {len(classes)} class folders{scan.left_out_text}{hint}")
    files = scan.files
    if sets := _same_in_each(classes, inner):
        raise ValueError(
            f"{root} holds {some(list(classes))}, each with the same folders ({some(sets)}), as of several data sets; "
            f"give one of them, as {root / min(classes)}, or rename the folders in them if these are the classes"
        )
    if (again := _holding_all_again(classes, inner)) is not None:
        raise ValueError(
            f"{root} holds {some(list(classes))}, and {again} the same folders again; give {root / again}, or remove it"
        )
    if told := no_classes(str(root), [name for name, count in classes.items() if count], inner):
        raise ValueError(told)
    counts = [count for count in classes.values() if count]
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    names = tuple(valid_text(name) for name, count in classes.items() if count)
    remarks = _tables_in(path) + _masks_in(scan.paths)
    if are_below_letters(scan.folders):
        labels, names = number_classes([valid_text(os.path.dirname(name)[2:]) for name in scan.paths])
        remarks, inner = (BELOW_LETTERS, *remarks), []
    return Source(
        kind="folder",
        location=str(root),
        labels=labels,
        class_names=names,
        items=lambda: (read_image(os.path.join(path, name)) for name in scan.paths),
        names=lambda: files.names,
        describe=lambda row: valid_text(str(root / scan.paths[row])),
        inventory=Inventory(
            files=files,
            left_out=scan.left_out,
            without_images=tuple(valid_text(name) for name, count in classes.items() if not count),
            inner=tuple(map(valid_text, inner)),
            remarks=remarks,
        ),
        one_file_each=True,
        if_one_class=_if_one_class(root, inner, [name for name, count in classes.items() if not count], scan),
    )


def _if_one_class(root: Path, inner: Collection[str], empty: list[str], scan: Scan) -> str:
    """What to do where all images are of one class folder."""
    if inner:
        return f"; where the classes are {some(list(inner))}, give {root / folder_above(inner)}"
    return f"; no images in {some(empty)}{scan.left_out_text}" if empty else ""


MANY_INNER = 5


def _same_in_each(classes: Collection[str], inner: Collection[str]) -> list[str]:
    """The folders that each class folder holds, where these are the same ones in all and far more: versions of one data
    set, as PlantVillage's color, grayscale and segmented."""
    below = {outer: {f.split("/")[1] for f in inner if f.startswith(f"{outer}/")} for outer in classes}
    first, *others = below.values()
    return sorted(first) if others and all(o == first for o in others) and len(first) >= MANY_INNER * len(below) else []


def _holding_all_again(classes: Collection[str], inner: Collection[str]) -> str | None:
    """The class folder in which all others are once more, as in a data set that was unpacked into itself."""
    for outer in classes:
        below = {folder.split("/")[1] for folder in inner if folder.startswith(f"{outer}/")}
        if len(classes) > 2 and below >= set(classes) - {outer}:
            return outer
    return None


def _masks_in(paths: Sequence[str]) -> tuple[str, ...]:
    """A sentence on images that are called masks of others: scan.png and scan_mask.png."""
    found = [path for path in paths if "_mask" in path and _MASK.search(path)]
    stems = {os.path.splitext(path)[0] for path in paths} if found else set()
    masks = [path for path in found if _MASK.sub("", path) in stems]
    if not masks:
        return ()
    called = "1 image is called the mask" if len(masks) == 1 else f"{len(masks):,} images are called masks"
    return (f"{called} of others and used like them: {some(masks)}",)


_MASK = re.compile(r"_mask(_\d+)?\.\w+$")


def _tables_in(folder: str) -> tuple[str, ...]:
    """A sentence on the tables beside the class folders, which may hold the labels."""
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.name.lower().endswith(TABLES) and not is_hidden(e.name))
    if not names:
        return ()
    are, given = "is" if len(names) == 1 else "are", os.path.join(folder, names[0])
    return (
        f"the folders are the classes, and {some(names)} {are} not read; labels={given!r} would be a table of labels",
    )


def _of_splits(root: Path, splits: list[str]) -> str:
    """What to do about a folder of these splits, the training one first."""
    lacking = [name for name in splits if _lacks_classes(str(root / name))]
    if not lacking:
        return f"{root} holds splits ({', '.join(splits)}), not class folders; give one of them, as {root / splits[0]}"
    flat, other = root / lacking[0], next((root / name for name in splits if name not in lacking), None)
    table = next(iter(sorted(root.glob(f"{flat.name}*.csv")) or sorted(root.glob("*.csv"))), root / "TABLE.csv")
    return (
        f"{root} holds splits ({', '.join(splits)}), and {flat} images without class folders; give "
        f"{f'{other} alone, or ' if other else ''}{flat} and a table that lists file and label with "
        f"labels={str(table)!r}"
    )


TABLES = (".csv", ".tsv", ".jsonl")
DETECTORS = ({"labels", "annotations"}, {"images", "jpegimages"}, re.compile(r"(train|val|test)20\d\d"))
"""Folders beside the images of a detector, as YOLO, Pascal VOC and COCO have them, and those of its images."""


def _is_of_a_detector(classes: dict[str, int]) -> bool:
    boxes, images, years = DETECTORS
    full = [name.lower() for name, count in classes.items() if count]
    empty = {name.lower() for name, count in classes.items() if not count}
    return bool(full) and not boxes.isdisjoint(empty) and all(n in images or years.fullmatch(n) for n in full)


def _of_archives(root: Path, which: str = "its archives") -> str:
    """What to do about a folder of archives; nothing for one without."""
    if parts := archive.KIND.splits(str(root)):
        return f"of {which} ({some(list(parts))}) give one, as {root}:{next(iter(parts))}"
    found = sorted(file.name for file in root.iterdir() if file.name.lower().endswith(archive.SUFFIXES))
    return f"of {which} ({some(found)}) unpack each into a folder, or give one" if found else ""


def _of_tables(root: Path) -> str:
    """What to do about a folder of tables and nothing else; nothing for one without."""
    found = sorted(file.name for file in root.iterdir() if file.name.lower().endswith(TABLES))
    return f"of its tables ({some(found)}) give the one that lists images or holds their pixels" if found else ""


def _way_to_labels(root: Path, scan: Scan) -> str:
    """What to do about a folder without class folders."""
    put = "put each class's images into a folder named after it"
    if not scan.left_out[BESIDE_CLASSES]:
        return put
    found = [file for place in (root, root.resolve().parent) for file in place.glob("*.csv")]
    tables = sorted(
        found, key=lambda file: (root.name not in file.name, "sample" in file.name, "test" in file.name, str(file))
    )
    table = tables[0] if tables else "TABLE.csv"
    return f"{put}, or give a table that lists file and label with labels={str(table)!r}"


def _splits(path: str) -> dict[str, str]:
    """The folders called train, val, test and the like, in any case, but for those whose images have no classes. None
    where train is one of several classes by that name."""
    named = split_folders(path) if os.path.isdir(path) else {}
    places = {name: os.path.join(path, own) for name, own in named.items()}
    found = {name: place for name, place in places.items() if not _lacks_classes(place)}
    parts = train_and_test(found)
    if parts is None or parts[1] is not None or len(folders := subfolders(path)) == len(named):
        return found
    of_classes = [name for name in folders if subfolders(os.path.join(path, name))]
    return found if are_splits(folders, of_classes) else {}


def _lacks_classes(path: str) -> bool:
    """Whether a folder holds images and nothing that says of which class they are."""
    if subfolders(path) or file_list.list_in(path):
        return False
    with os.scandir(path) as entries:
        return any(suffix_of(entry.name) in suffixes() for entry in entries)


def _files(path: str, *, follow_links: bool = False) -> Files:
    scan = Scan(folder_of(path), follow_links)
    scan.class_folders()
    return scan.files


KIND = Kind(
    accepts="a folder of class folders",
    recognizes=os.path.isdir,
    open=_open,
    options=("follow_links",),
    files=_files,
    splits=_splits,
)

"""A table of files and labels (see label_table) beside a folder of images.

Found by its name in the folder (metadata.csv, .jsonl or .parquet as Hugging Face's ImageFolder, val_annotations.txt of
Tiny ImageNet, LOC_val_solution.csv of ImageNet), given itself (labels.csv: its images lie below its folder), or named
with labels=. A file is listed by its path, its name, or its name without suffix; a text file of labels alone is in the
order of the sorted images. Where a column says of which split a row is, PATH:train are the rows of one. A text of files
alone, as those of a split, is for images in class folders.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualfast.data.classes import FREE
from dualfast.data.columns import LABEL_NAMES, has_usual_name, is_class_name
from dualfast.data.inventory import NOT_IMAGES, Files, Inventory, some, valid_text
from dualfast.data.sources import label_table
from dualfast.data.sources.archive import COMPRESSED
from dualfast.data.sources.label_table import TRIED_ROWS, Table
from dualfast.data.sources.labels import LabelWords, check_no_captions, labels_of, number_texts
from dualfast.data.sources.listed import (
    Places,
    has_files_alone,
    image_column_in,
    labels_in,
    places_of,
    splits_of,
    unused_split,
)
from dualfast.data.sources.path_list import PathList
from dualfast.data.sources.paths import (
    BELOW_LETTERS,
    LISTS,
    METADATA,
    SPLIT_NAMES,
    TRAIN_NAMES,
    addresses,
    are_below_letters,
    folder_above,
    folder_of,
    inner_folders,
    pick,
    split_folders,
    split_of,
)
from dualfast.data.sources.remote import is_url
from dualfast.data.sources.scan import NO_SUFFIX, Scan, read_image, suffix_of
from dualfast.data.sources.source import Kind, Source

CAPTIONS = frozenset({"text", "texts", "caption", "captions", "prompt", "description"})
"""The names of columns that are no labels."""
NOT_LISTED = "not in the list"
FEW_ROWS, MANY_ROWS = 3, 20


class _Rows(NamedTuple):
    """at (n,): the places of the listed images among the paths of the folder; cells: their labels. image, label: the
    columns that these are from, where there are several. inner: as of Inventory."""

    at: NDArray[np.int64]
    cells: list[Any]
    image: int | None = None
    label: int | None = None
    remarks: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()


def list_in(folder: str) -> str | None:
    """The path of the list of files and labels that a folder holds, None without one."""
    found = next((path for name in LISTS if os.path.isfile(path := os.path.join(folder, name))), None)
    if found is not None and os.path.basename(found) in METADATA:
        columns = label_table.column_names(found)
        is_label = len(columns) == 2 and CAPTIONS.isdisjoint(map(str.lower, columns))
        has_label = is_label or any(has_usual_name(name, LABEL_NAMES) for name in columns)
        return found if "file_name" in columns and has_label else None
    return found


def _open(
    path: str,
    *,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
) -> Source:
    folder, table_path, split = _where(path, labels)
    scan = Scan(folder, follow_links)
    scan.add(folder)
    _forget(scan, table_path)
    places = Places(scan.paths, folder)
    by_number = label_column is not None and label_column.isdecimal()
    whole = label_table.read(table_path, places.has, by_number=by_number)
    table = _of_split(whole, path, split)
    if len(table.rows[0]) > 1 or table.names is not None:
        rows = _of_columns(whole, table, folder, scan, places, image_column, label_column)
    elif _lists_files(table, places):
        rows = _of_folders(table, 0, folder, scan.paths, places)
    else:
        rows = _in_order(table, folder, scan.paths)
    at, remarks = rows.at, rows.remarks
    cells = [row[rows.image] for row in whole.rows if split and rows.image is not None and len(row) > rows.image]
    listed = {place for place in map(places.of, cells) if place is not None} | set(at.tolist())
    numbers, class_names = _numbered(rows.cells, table)
    if class_names is None and (column := _column_of_names(table, rows.label)) is not None:
        class_names = _names_beside(numbers, table, column, scan.paths)
        remarks = _remarks(remarks, table, column, is_used=class_names is not None)
    if labels is None and os.path.isdir(split_of(path)[0]):
        _check_most_listed(table_path, folder, [scan.paths[i] for i in listed], scan.paths)
    order = np.argsort(at, kind="stable")
    at, numbers = at[order], numbers[order]
    unused = Counter(suffix_of(path) or NO_SUFFIX for i, path in enumerate(scan.paths) if i not in listed)
    files = Files.of_rows(scan.files.rows(at)) + Files.of([table_path])
    names = files.names.slice(0, len(at))
    return Source(
        kind="file_list",
        location=f"{folder} by {table_path}" + ("" if split is None else f":{split}"),
        labels=numbers,
        class_names=class_names,
        items=lambda: (read_image(os.path.join(folder, scan.paths[i])) for i in at.tolist()),
        names=lambda: names,
        describe=lambda row: os.path.join(folder, scan.paths[int(at[row])]),
        inventory=Inventory(
            files=files,
            left_out=scan.left_out | ({NOT_LISTED: unused} if unused else {}),
            inner=rows.inner,
            remarks=remarks,
        ),
        one_file_each=True,
    )


def _forget(scan: Scan, table: str) -> None:
    """The table is none of the files that are left out."""
    if os.path.realpath(table).startswith(os.path.join(scan.real_root, "")):
        scan.left_out[NOT_IMAGES] -= Counter([suffix_of(table)])
        if not scan.left_out[NOT_IMAGES]:
            del scan.left_out[NOT_IMAGES]


def _where(path: str, labels: str | None) -> tuple[str, str, str | None]:
    """Where the images are, their list, and of which split of the list they are."""
    bare, split = split_of(path)
    if labels is not None:
        if not os.path.isdir(bare):
            unpack = "; unpack it, and give the folder" if bare.lower().endswith((".zip", ".tar", *COMPRESSED)) else ""
            raise ValueError(
                f"labels is {labels!r}, the labels of the images in a folder; {bare} is not a folder{unpack}"
            )
        if not os.path.isfile(labels):
            if is_url(labels):
                raise ValueError(f"labels is {labels!r}, which is a URL; download it, and give the file")
            raise ValueError(f"labels is {labels!r}, which is not a file; give a table of files and labels")
        return (folder_of(path) if split in split_folders(bare) else bare), labels, split
    if os.path.isdir(bare) and (table := list_in(bare)) is not None:
        return bare, table, split
    beside = os.path.splitext(bare)[0]  # train/ of train.csv
    return (beside if os.path.isdir(beside) else os.path.dirname(bare) or "."), bare, split


def _of_split(table: Table, path: str, split: str | None) -> Table:
    """The rows of a split. ValueError where the table has several and none is chosen, or lacks it, unless it is that of
    a folder's name."""
    found, bare = splits_of(table), split_of(path)[0]
    if found is None and (split is None or (os.path.isdir(bare) and split in split_folders(bare))):
        return table
    wanted = pick(table.path, split, {name: name for name in dict.fromkeys(found or ())}, bare)
    return table.take([row for row, name in enumerate(found or ()) if name == wanted])


def _lists_files(table: Table, places: Places) -> bool:
    """Whether the only column names files."""
    cells = [row[0] for row in table.rows]
    tried = cells[:TRIED_ROWS]
    each_once = len(cells) >= FEW_ROWS and len(set(cells)) == len(cells)
    are_paths = all("/" in cell or label_table.is_file(cell) for cell in tried)
    return all(map(places.has, tried)) and (each_once or are_paths)


def _of_columns(
    whole: Table,
    table: Table,
    folder: str,
    scan: Scan,
    places: Places,
    image_column: str | None,
    label_column: str | None,
) -> _Rows:
    """Files and labels, in columns of their own; or files and their splits, of images in class folders."""
    image, remarks = image_column_in(table, places, folder, image_column, scan.left_out_text)
    if label_column is None and has_files_alone(whole, image) and all("/" in path for path in scan.paths):
        return _of_folders(table, image, folder, scan.paths, places)
    at, (cells, label, on_labels) = places_of(table, image, places, folder), labels_in(table, image, label_column)
    _check_no_row_numbers(table, image, cells)
    remarks += on_labels + _of_another_folder(table.path, folder, places) + unused_split(table)
    return _Rows(at, cells, image, label, remarks)


def _of_folders(table: Table, image: int, folder: str, paths: Sequence[str], places: Places) -> _Rows:
    """Files alone, as those of a split: the class of each is its folder. ValueError unless class folders hold them."""
    at = places_of(table, image, places, folder)
    below_letters = are_below_letters({os.path.dirname(path) for path in paths})
    classes = [os.path.dirname(paths[i])[2:] if below_letters else _first_folder(paths[i]) for i in at.tolist()]
    names = set(classes)
    if "" in names or names <= SPLIT_NAMES:
        raise ValueError(
            f"{table.path} lists files and no labels ({table.line(0)}: {table.rows[0][image]}), and the images are in "
            "no class folders; list the class after each file"
        )
    inner = [] if below_letters else inner_folders({os.path.dirname(paths[i]) for i in at.tolist()})
    if len(names) == 1 and inner:
        raise ValueError(
            f"{table.path} lists files alone, and in {folder} all of them are in {classes[0]}; give the folder that "
            f"holds the class folders, {os.path.join(folder, folder_above(inner))}, with labels={table.path!r}"
        )
    remark = f"{table.path} lists files alone; {BELOW_LETTERS if below_letters else 'the folder of each is its class'}"
    return _Rows(at, list(map(valid_text, classes)), image, None, (remark,), tuple(map(valid_text, inner)))


def _first_folder(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _check_most_listed(table: str, folder: str, listed: Sequence[str], images: Sequence[str]) -> None:
    """ValueError for a list found in the folder that leaves out most of its images, as ImageNet's of val above all."""
    if 2 * len(listed) >= len(images):
        return
    place = os.path.normpath(os.path.join(folder, os.path.commonpath([os.path.dirname(path) for path in listed])))
    train = next((path for name in sorted(TRAIN_NAMES) if os.path.isdir(path := os.path.join(place, "..", name))), None)
    others = "" if train is None else f", and {os.path.normpath(train)} for the others"
    raise ValueError(
        f"{table} lists {len(listed):,} of the {len(images):,} images in {folder}; give {place} with labels={table!r} "
        f"for these{others}"
    )


def _in_order(table: Table, folder: str, paths: Sequence[str]) -> _Rows:
    """Labels alone, of all images in their order."""
    cells = [row[0] for row in table.rows]
    n = len(paths)
    if not all(map(str.isdecimal, cells)):
        check_no_captions(cells, table.path, table.line, "list the class of each image, or its file and its class")
    if len(cells) != n:
        raise ValueError(
            f"{table.path} has {len(cells):,} labels, and {folder} {n:,} images; list the name of the file before each "
            "label"
        )
    by_name = sorted(paths)
    for another in (sorted(paths, key=_by_number), sorted(paths, key=str.casefold)):
        differing = [pair for pair in zip(by_name, another, strict=True) if pair[0] != pair[1]]
        if differing:
            raise ValueError(
                f"{table.path} has labels alone, for the images in the order of their names, in which "
                f"{differing[0][0]} comes before {differing[0][1]}; list the name of the file before each label"
            )
    return _Rows(np.arange(n), cells)


def _by_number(path: str) -> list[tuple[str, int]]:
    """A key by which 2.jpg comes before 10.jpg."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", path)]


def _numbered(found: list[Any], table: Table) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Labels (n,) int64 and the class names by label, None where the labels are numbers."""
    objects = np.empty(len(found), object)
    objects[:] = found
    words = LabelWords(what=f"{table.path}: labels", describe=table.line, way_out="give one per image")
    labels = labels_of(objects, words)
    return number_texts(labels.values, table.line) if isinstance(labels.values, list) else labels.numbered()


def _column_of_names(table: Table, label: int | None) -> int | None:
    """The column that may name the classes whose numbers are in the column `label`."""
    if label is None:
        return None
    found = (at for at, name in enumerate(table.names or ()) if at != label and is_class_name(name))
    return next(found, None)


def _remarks(remarks: tuple[str, ...], table: Table, column: int, *, is_used: bool) -> tuple[str, ...]:
    """The remarks of labels_in, and on a column of names that is not used."""
    name = (table.names or ())[column]
    if is_used:
        return tuple(text for text in remarks if f" {name} not;" not in text)
    noted = any(name in text for text in remarks)
    return remarks if noted else (*remarks, f"{name} is not used: it does not give each class number a name of its own")


def _names_beside(numbers: NDArray[np.int64], table: Table, column: int, images: PathList) -> tuple[str, ...] | None:
    """The class names by number of a table that has a column of them, as export writes it. Classes without a row are
    called as the folders of the images are, where the others are too, else by their number. None unless each number
    has one name, and each name one number."""
    pairs = {
        (n, str(row[column]) if len(row) > column else "") for n, row in zip(numbers.tolist(), table.rows, strict=True)
    }
    found = dict(pairs)
    if len(found) < len(pairs) or not all(found.values()) or min(found) < 0 or max(found) >= FREE:
        return None
    names = [found.get(n, str(n)) for n in range(max(found) + 1)]
    if len(found) < len(names) or len(images) > len(numbers):
        folders = sorted({path.partition("/")[0] for path in images if "/" in path})
        folders = list(map(valid_text, folders))
        if all(folders[n : n + 1] == [name] for n, name in found.items()):
            names = folders
    return tuple(names) if len(set(names)) == len(names) else None


def _of_another_folder(table: str, folder: str, places: Places) -> tuple[str, ...]:
    """A sentence on paths that begin with the name of another folder than that of the images."""
    if not places.taken_for_root:
        return ()
    return (f"{table} lists files of {some(sorted(places.taken_for_root))}, which {folder} is taken for",)


def _check_no_row_numbers(table: Table, image: int, cells: Sequence[Any]) -> None:
    """ValueError for numbers that count the lines, as in CUB's images.txt, and behind the files in ImageNet's val.txt;
    a few that stand behind them, or below a header, may be classes of an image each."""
    n = len(cells)
    if n < (FEW_ROWS if image and table.names is None else MANY_ROWS):
        return
    if any([str(cell) for cell in cells] == [str(at) for at in range(first, first + n)] for first in (0, 1)):
        raise ValueError(
            f"{table.path} numbers its lines ({table.line(0)}: {', '.join(map(str, table.rows[0]))}), and lists no "
            "labels; list the class after each file, or, where the images lie in class folders, leave labels out"
        )


def table_splits(path: str, labels: str | None = None) -> dict[str, str]:
    """What to give for the rows of each split of a table that has several; empty for any other."""
    if split_of(path)[1] is not None or not (os.path.isdir(path) if labels else _recognizes(path)):
        return {}
    try:
        table = label_table.read(_where(path, labels)[1], lambda cell: False)
        return addresses(path, sorted(set(splits_of(table) or ())))
    except ValueError:  # opening it says what is wrong
        return {}


def _files(path: str, **options: Any) -> Files:
    return _open(path, **options).inventory.files


def _recognizes(path: str) -> bool:
    if os.path.isfile(path):
        return path.lower().endswith((*label_table.TEXT_SUFFIXES, ".jsonl"))
    return os.path.isdir(path) and list_in(path) is not None


KIND = Kind(
    accepts="a .csv of files and labels",
    recognizes=_recognizes,
    open=_open,
    options=("labels", "image_column", "label_column", "follow_links"),
    files=_files,
    splits=table_splits,
)

"""A table that lists files and their labels, beside a folder of images: CSV, TSV or lines of "file label".

Found by its name in the folder (metadata.csv as Hugging Face's ImageFolder, val_annotations.txt of Tiny ImageNet,
LOC_val_solution.csv of ImageNet), given itself (labels.csv: its images lie below its folder), or named with labels=. A
file is listed by its path, its name, or its name without suffix; a text file of labels alone is in the order of the
sorted images.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dualfast.data.columns import LABEL_NAMES, has_usual_name, the_one
from dualfast.data.inventory import NOT_IMAGES, Files, Inventory, some
from dualfast.data.sources.labels import LabelWords, labels_of, number_texts
from dualfast.data.sources.paths import folder_of, split_of
from dualfast.data.sources.scan import Scan, read_image, suffix_of
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.plain import read_regular

SUFFIXES = (".csv", ".tsv", ".txt")
MAX_BYTES = 1 << 30
METADATA = "metadata.csv"
LISTS = (METADATA, "val_annotations.txt", "LOC_val_solution.csv")
"""What a list is called in the folder of its images."""
FILE_NAMES = (
    ("file_name", "filename", "file", "path", "filepath", "image_path"),
    ("image", "image_id", "imageid", "img", "id", "name"),
)
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
NOT_LISTED = "not in the list"
TRIED_ROWS = 20
_NONE, _SEVERAL = "", "\0"


class _Table(NamedTuple):
    """names: of the columns, None for a list without header. first: the number of the line of rows[0]."""

    path: str
    names: list[str] | None
    rows: list[list[str]]
    first: int

    def line(self, row: int) -> str:
        return f"line {row + self.first} of {self.path}"

    def column(self, argument: str, name: str) -> int:
        if self.names is None or name not in self.names:
            columns = "no header" if self.names is None else f"the columns {', '.join(self.names)}"
            raise ValueError(f"{argument} is {name!r}; {self.path} has {columns}")
        return self.names.index(name)


def list_in(folder: str) -> str | None:
    """The path of the list of files and labels that a folder holds, None without one."""
    found = next((path for name in LISTS if os.path.isfile(path := os.path.join(folder, name))), None)
    if found is not None and os.path.basename(found) == METADATA:
        with open(found, encoding="utf-8-sig", errors="replace") as file:
            columns = next(csv.reader([file.readline()]), [])
        if "file_name" not in columns or not (len(columns) == 2 or any(_is_label(name) for name in columns)):
            return None
    return found


def _is_label(name: str) -> bool:
    return has_usual_name(name, LABEL_NAMES)


def _open(
    path: str,
    *,
    labels: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
) -> Source:
    folder, table_path = _folder_and_table(path, labels)
    scan = Scan(folder, follow_links)
    scan.add(folder)
    _forget(scan, table_path)
    if not scan.paths:
        raise ValueError(f"{folder} holds no images for {table_path}{scan.left_out_text}")
    table, at, texts = _read(table_path, folder, scan.paths, image_column, label_column)
    words = LabelWords(what=f"{table_path}: the label", describe=table.line, way_out="give one per image")
    values = labels_of(np.array(texts, object), words).values
    assert isinstance(values, list)
    numbers, class_names = number_texts(values, table.line)
    order = np.argsort(at, kind="stable")
    at, numbers = at[order], numbers[order]
    unused = Counter(suffix_of(scan.paths[i]) for i in sorted(set(range(len(scan.paths))) - set(at.tolist())))
    files = Files.of_rows(scan.files.rows(at)) + Files.of([table_path])
    names = files.names.slice(0, len(at))
    return Source(
        kind="file_list",
        location=f"{folder} by {table_path}",
        labels=numbers,
        class_names=class_names,
        items=lambda: (read_image(os.path.join(folder, scan.paths[i])) for i in at.tolist()),
        names=lambda: names,
        describe=lambda row: os.path.join(folder, scan.paths[int(at[row])]),
        inventory=Inventory(files=files, left_out=scan.left_out | ({NOT_LISTED: unused} if unused else {})),
        one_file_each=True,
    )


def _forget(scan: Scan, table: str) -> None:
    """The table is none of the files that are left out."""
    if os.path.realpath(table).startswith(os.path.join(scan.real_root, "")):
        left_out = scan.left_out[NOT_IMAGES]
        left_out[suffix_of(table)] -= 1
        if not +left_out:
            del scan.left_out[NOT_IMAGES]


def _folder_and_table(path: str, labels: str | None) -> tuple[str, str]:
    """Where the images are, and their list."""
    path = folder_of(path) if split_of(path)[1] else path
    if labels is not None:
        if not os.path.isdir(path):
            raise ValueError(f"labels is {labels!r}, the labels of the images in a folder; {path} is not a folder")
        if not os.path.isfile(labels):
            raise ValueError(f"labels is {labels!r}, which is not a file; give a table that lists file and label")
        return path, labels
    if (table := list_in(path)) is not None:
        return path, table
    beside = os.path.splitext(path)[0]  # train/ of train.csv
    return beside if os.path.isdir(beside) else os.path.dirname(path) or ".", path


# ---- reading the table ----------------------------------------------------------------------------------------------


def _read(
    path: str, folder: str, images: Sequence[str], image_column: str | None, label_column: str | None
) -> tuple[_Table, np.ndarray[tuple[int], np.dtype[np.int64]], list[str]]:
    """The table, the place in `images` of the file that each of its rows lists, and the text of its label."""
    if os.path.basename(path) == DEVKIT:
        raise ValueError(
            f"{path} numbers the classes as ImageNet's development kit does, not in the order of their names; give "
            "LOC_val_solution.csv, or the synset of each image in a line"
        )
    places = _places(images)
    table = _table(path, places)
    if len(table.rows[0]) == 1:
        if len(table.rows) != len(images):
            raise ValueError(
                f"{path} has {len(table.rows):,} labels, and {folder} {len(images):,} images; list the name of the "
                "file before each label"
            )
        return table, np.arange(len(images)), [row[0] for row in table.rows]
    image = _image_column(table, places, folder) if image_column is None else table.column("image_column", image_column)
    label = _label_column(table, image) if label_column is None else table.column("label_column", label_column)
    widest = max(image, label)
    for row, cells in enumerate(table.rows):
        if len(cells) <= widest:
            raise ValueError(f"{table.line(row)} has {len(cells)} columns; the label is in column {label + 1}")
    at = _listed(table, image, places, folder)
    boxes = table.names is not None and table.names[label] == "PredictionString"  # "class x1 y1 x2 y2 ..."
    texts = [cells[label].strip() for cells in table.rows]
    return table, at, [text.split()[0] if boxes and text else text for text in texts]


def _places(images: Sequence[str]) -> dict[str, int]:
    """The place of each image by its path, name, and name without suffix; -1 for a name that several have."""
    places: dict[str, int] = {}
    names = [os.path.basename(path) for path in images]
    for naming in (images, names, [os.path.splitext(name)[0] for name in names]):
        found: dict[str, int] = {}
        for place, name in enumerate(naming):
            found[name] = -1 if name in found else place
        places = found | places  # the more exact name counts
    return places


def _table(path: str, places: dict[str, int]) -> _Table:
    """The rows of the file. Its first line is a header unless it lists an image, or it is a text of labels alone."""
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
        head = text[: text.find("\n") + 1 or None]
        delimiter = next((mark for mark in "\t,;" if mark in head), " ")
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of files and labels: {error}") from None
    while rows and not any(rows[-1]):
        rows.pop()
    if any(not any(row) for row in rows):
        raise ValueError(f"{path} has an empty line; remove it")
    has_header = bool(rows) and len(rows[0]) > 1 and all(_place(places, cell) is None for cell in rows[0])
    names = rows.pop(0) if has_header else None
    if not rows:
        raise ValueError(f"{path} lists no files")
    return _Table(path, names, rows, 2 if has_header else 1)


def _plain(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/")) if name else name


def _image_column(table: _Table, places: dict[str, int], folder: str) -> int:
    """The column whose first values name images."""
    rows = table.rows[:TRIED_ROWS]
    width = min(map(len, rows))
    found = [column for column in range(width) if all(_place(places, row[column]) is not None for row in rows)]
    if not found and table.names is not None:
        found = [column for column in range(width) if has_usual_name(table.names[column], FILE_NAMES)]
    if not found:
        raise ValueError(
            f"{table.path}: none of its columns names images in {folder} (its first row: {', '.join(rows[0])}); give "
            f"the folder of the images with labels={table.path!r}"
        )
    if len(found) == 1 or table.names is None:
        return found[0]
    names = [table.names[column] for column in found]
    return table.names.index(the_one(names, FILE_NAMES, table.path, "columns that name images", "image_column"))


def _label_column(table: _Table, image: int) -> int:
    if table.names is None:
        return 1 if image == 0 else 0
    others = [name for place, name in enumerate(table.names) if place != image]
    found = [name for name in others if _is_label(name) or name == "PredictionString"] or others
    if len(found) > 1 and not any(map(_is_label, found)):
        raise ValueError(f"{table.path} has the columns {', '.join(others)}; name the labels with label_column=NAME")
    return table.names.index(the_one(found, LABEL_NAMES, table.path, "label columns", "label_column"))


def _place(places: dict[str, int], name: str) -> int | None:
    """Of the image that is listed by this name, whose folder may be called differently there."""
    name = _plain(name)
    return places.get(name, places.get(os.path.basename(name)))


def _listed(
    table: _Table, image: int, places: dict[str, int], folder: str
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found = [_place(places, row[image]) for row in table.rows]
    missing = [row[image] for row, place in zip(table.rows, found, strict=True) if place is None]
    if missing:
        raise ValueError(
            f"{table.path} lists {len(missing):,} files that are not in {folder}: {some(missing)}; remove these lines, "
            f"or give the folder that holds them, with labels={table.path!r}"
        )
    if -1 in found:
        name = table.rows[found.index(-1)][image]
        raise ValueError(
            f"{table.line(found.index(-1))} lists {name}, a name that several images in {folder} have; list their "
            "paths, or give the folder that is meant"
        )
    at = np.array(found, np.int64)
    images, counts = np.unique(at, return_counts=True)
    if (counts > 1).any():
        row = found.index(int(images[counts.argmax()]))
        raise ValueError(f"{table.line(row)} lists {table.rows[row][image]}, as another line does; list it once")
    return at


def _files(path: str, *, labels: str | None = None, follow_links: bool = False) -> Files:
    return _open(path, labels=labels, follow_links=follow_links).inventory.files


KIND = Kind(
    accepts="a .csv of files and labels",
    recognizes=lambda path: (
        path.lower().endswith(SUFFIXES) if os.path.isfile(path) else os.path.isdir(path) and list_in(path) is not None
    ),
    open=_open,
    options=("labels", "image_column", "label_column", "follow_links"),
    files=_files,
)

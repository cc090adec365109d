"""Which of a folder's images a table lists, and which of its columns say so: the names of the files, their labels, and
the split they belong to."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from dualfast.data.columns import (
    DOUBTFUL,
    FILE_NAMES,
    FOLDS,
    LABEL_NAMES,
    SPLIT_COLUMNS,
    has_usual_name,
    remark,
    the_one,
)
from dualfast.data.inventory import some, valid_text
from dualfast.data.sources import pixel_table
from dualfast.data.sources.label_table import TRIED_ROWS, Table, is_file, is_number
from dualfast.data.sources.labels import ONE_CLASS, check_no_captions
from dualfast.data.sources.paths import SPLIT_NAMES

INDEX_NAMES = (("", "id", "index", "unnamed: 0"),)
BOXES = "PredictionString"  # "class x1 y1 x2 y2 ..."
BOX_COLUMNS = 4  # that a box needs, at least
SHOWN_CELLS, SHOWN_CHARACTERS = 20, 80
SEVERAL = -1

Place = np.ndarray[tuple[int], np.dtype[np.int64]]


class Places:
    """Where an image is in a list of paths below a folder, by its path, its name, or its name without suffix, the more
    exact one first; and if none is so called, whatever the case of the letters and the form of their accents."""

    def __init__(self, images: Sequence[str], folder: str) -> None:
        self._images, self._root = images, os.path.basename(os.path.abspath(folder))
        self.taken_for_root: set[str] = set()  # names of folders in a table that are not the name of this one
        self._paths = {path: place for place, path in enumerate(images)}
        self._names = self._by(os.path.basename)
        self._stems = self._by(lambda path: os.path.splitext(os.path.basename(path))[0])

    @property
    def example(self) -> str:
        """The end of a sentence on a table that names no images."""
        return f"; an image: {_short(valid_text(self._images[0]))}" if self._images else ""

    def _by(self, naming: Callable[[str], str]) -> dict[str, int | list[int]]:
        """The place of the image so called; of several, all."""
        found: dict[str, int | list[int]] = {}
        for place, path in enumerate(self._images):
            before = found.setdefault(name := naming(path), place)
            if isinstance(before, list):
                before.append(place)
            elif before != place:
                found[name] = [before, place]
        return found

    @cached_property
    def _folded_names(self) -> dict[str, int | list[int]]:
        return self._by(lambda path: _folded(os.path.basename(path)))

    @cached_property
    def _folded_stems(self) -> dict[str, int | list[int]]:
        return self._by(lambda path: _folded(os.path.splitext(os.path.basename(path))[0]))

    def of(self, cell: Any) -> int | None:
        """Of the image that is listed by this name; SEVERAL where several images have it, None for no image. The path
        may begin further up, or further down, than the folder."""
        if not isinstance(cell, str | int) or cell == "":
            return None
        name = os.path.normpath(str(cell).replace("\\", "/"))
        if (place := self._paths.get(name)) is not None:
            return place
        base = os.path.basename(name)
        called = self._names.get(base, self._stems.get(base))
        if called is None:
            called = self._folded_names.get(_folded(base), self._folded_stems.get(_folded(base)))
        if called is None:
            return None
        return self._nearest(name, called if isinstance(called, list) else [called])

    def _nearest(self, name: str, places: Sequence[int]) -> int | None:
        """Of images of the listed name that with most of the folders before it; none whose folders are others."""
        listed = [_folded(part) for part in name.split("/")[-2::-1] if part not in ("", ".", "..")]
        fits: dict[int, list[int]] = {}
        for place in places:
            own = [_folded(part) for part in self._images[place].split("/")[-2::-1]]
            shared = min(len(own), len(listed))
            above = listed[len(own) : len(own) + 1]
            is_other_split = above and above[0] != _folded(self._root) and {above[0], self._root.lower()} <= SPLIT_NAMES
            if own[:shared] == listed[:shared] and not is_other_split:
                fits.setdefault(shared, []).append(place)
                if above and above[0] != _folded(self._root):
                    self.taken_for_root.add(above[0])
        best = fits[max(fits)] if fits else []
        return (best[0] if len(best) == 1 else SEVERAL) if best else None

    def with_zeros(self, number: str) -> str | None:
        """The image whose name is this number with zeros in front; None without any."""
        stem = next((s for s in self._stems if s.isdecimal() and s != number and int(s) == int(number)), None)
        place = None if stem is None else self._stems[stem]
        return self._images[place] if isinstance(place, int) else None

    def has(self, cell: Any) -> bool:
        return self.of(cell) is not None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


# ---- the files ------------------------------------------------------------------------------------------------------


def image_column_in(
    table: Table, places: Places, folder: str, image_column: str | None, left_out: str = ""
) -> tuple[int, tuple[str, ...]]:
    """The column that is given, or whose name or cells are those of files; else the one that names most images, at
    least once each if one does so. And sentences on others that could be meant. left_out: what a folder without any
    images holds instead, for the message."""
    if image_column is not None:
        return table.column("image_column", image_column), ()
    if pixels := pixel_table.hint(table):
        raise ValueError(pixels)
    rows = table.rows[:TRIED_ROWS]
    width = min(map(len, rows))
    hits = [sum(places.has(row[column]) for row in rows) for column in range(width)]
    best = max(hits)
    if not best:
        raise ValueError(_no_images(table, places, folder, width, left_out))
    if (certain := _certain_image_column(table)) is not None:
        return certain, ()
    found = [column for column in range(width) if hits[column] == best]
    files = [column for column in found if all(is_file(row[column]) for row in rows)]
    once = [column for column in found if len({str(row[column]) for row in rows}) == len(rows)]
    found = files or once or found
    if len(found) == 1 or table.names is None:
        return found[0], ()
    found = sorted(found, key=lambda column: all(str(row[column]).isdecimal() for row in rows))  # row numbers last
    names = [table.names[column] for column in found]
    used = the_one(names, FILE_NAMES, table.path, *IMAGE_ARGUMENT)
    return table.names.index(used), remark(names, used, *IMAGE_ARGUMENT)


IMAGE_ARGUMENT = ("columns that name images", "image_column")


def _certain_image_column(table: Table) -> int | None:
    """The only column whose cells are all names of images, or, without one, that is called a file's name, whatever the
    folder holds: an index that happens to fit names of images is never taken for them."""
    width = min(map(len, table.rows))
    files = [column for column in range(width) if all(is_file(row[column]) for row in table.rows)]
    named = [at for at, name in enumerate((table.names or ())[:width]) if name.lower() in FILE_NAMES[0]]
    return files[0] if len(files) == 1 else named[0] if len(named) == 1 and not files else None


def _no_images(table: Table, places: Places, folder: str, width: int, left_out: str) -> str:
    shown = ", ".join(_short(str(cell)) for cell in table.rows[0][:SHOWN_CELLS])
    for cell in map(str, table.rows[0][:width]):
        if cell.isdecimal() and (full := places.with_zeros(cell)) is not None:
            return (
                f"{table.path}: {cell} is no image in {folder}, and {full} is: its numbers have lost their zeros, "
                "which spreadsheets and pandas drop; write the names as text"
            )
    paths = [cell for cell in table.rows[0][:width] if isinstance(cell, str) and os.path.isabs(cell)]
    where = next((os.path.dirname(path) for path in paths if os.path.exists(path)), None)
    given = f"the folder of the images, {where}," if where else "the folder of the images"
    return (
        f"{table.path}: none of its columns names images in {folder} (its first row: {shown}{places.example}); give "
        f"{given} with labels={table.path!r}, or write the names as the images have them{left_out}"
    )


def _way_to(missing: str, folder: str) -> str:
    """What to do about a file that is not in the folder: it is in one beside that, as of a set in parts, or lost."""
    above = os.path.dirname(os.path.realpath(folder))
    pattern = os.path.join(glob.escape(above), "*", glob.escape(os.path.basename(missing)))
    found = {os.path.basename(os.path.dirname(path)) for path in glob.glob(pattern) + glob.glob(f"{pattern}.*")}
    parts = sorted(name for name in found if name.lower() not in SPLIT_NAMES)
    return f"give {above}, which holds {parts[0]} too" if parts else _LOST


_LOST = "remove these lines, or give the folder that holds them"


def _short(cell: str) -> str:
    return cell if len(cell) <= SHOWN_CHARACTERS else f"{cell[:SHOWN_CHARACTERS]}..."


def places_of(table: Table, image: int, places: Places, folder: str) -> Place:
    """The place of the image of each row. ValueError for a row that lists none, or one that is listed before."""
    short = next((row for row, cells in enumerate(table.rows) if len(cells) <= image), None)
    if short is not None:
        raise ValueError(f"{table.line(short)} has {len(table.rows[short])} columns; the file is in column {image + 1}")
    found = [places.of(row[image]) for row in table.rows]
    missing = [str(row[image]) for row, place in zip(table.rows, found, strict=True) if place is None]
    if missing:
        files = "1 file that is" if len(missing) == 1 else f"{len(missing):,} files that are"
        raise ValueError(
            f"{table.path} lists {files} not in {folder}: {some(missing)}; {_way_to(missing[0], folder)}, with "
            f"labels={table.path!r}"
        )
    if SEVERAL in found:
        row = found.index(SEVERAL)
        raise ValueError(
            f"{table.line(row)} lists {table.rows[row][image]}, a name that several images in {folder} have; list "
            "their paths, remove copies, or give the folder that is meant"
        )
    at = np.array(found, np.int64)
    images, counts = np.unique(at, return_counts=True)
    if (counts > 1).any():
        row = found.index(int(images[counts.argmax()]))
        boxes = (
            f"; of a table of boxes keep one per image, as {ONE_CLASS}" if len(table.rows[row]) > BOX_COLUMNS else ""
        )
        raise ValueError(f"{table.line(row)} lists {table.rows[row][image]}, as another line does; list it once{boxes}")
    return at


# ---- their labels ---------------------------------------------------------------------------------------------------


class RowLabels(NamedTuple):
    """cells: the label of each row; column: where they are from, None for a 1 among columns of 0 and 1; remarks:
    sentences on columns that could be meant, too."""

    cells: list[Any]
    column: int | None
    remarks: tuple[str, ...] = ()


def labels_in(table: Table, image: int, label_column: str | None) -> RowLabels:
    """The labels of the column that is given, or named so, or the only one; or the name of the column that has the
    row's only 1 among columns of 0 and 1."""
    split = split_column(table)
    others = [at for at in range(len(table.names or table.rows[0])) if at not in (image, split)]
    if label_column is not None:
        return _of_column(table, image, table.column("label_column", label_column))
    if table.names is None:
        return _of_column(table, image, _without_header(table, others))
    if len(table.names) != len(set(table.names)):
        raise ValueError(f"{table.path} has two columns of the same name ({', '.join(table.names)}); rename one")
    names = [table.names[at] for at in others]
    usual = [name for name in names if has_usual_name(name, LABEL_NAMES) and not _is_coordinate(name, names)]
    usual = usual or [name for name in names if name == BOXES]
    if usual:
        label = the_one(usual, LABEL_NAMES, table.path, *LABEL_ARGUMENT)
        return _of_column(table, image, table.names.index(label), remark(usual, label, *LABEL_ARGUMENT))
    if len(others) > 1 and (found := _one_hot(table, others)) is not None:
        return RowLabels(found, None)
    if len(names) != 1 or names[0].lower() in FOLDS:
        columns = f"the columns {', '.join(names)}" if names else "no column of labels"
        raise ValueError(f"{table.path} has {columns}; name the labels with label_column=NAME")
    labels = _of_column(table, image, others[0])
    check_no_captions(labels.cells, f"{table.path}: {names[0]}", table.line, "name the labels with label_column=NAME")
    return labels


def _without_header(table: Table, others: Sequence[int]) -> int:
    """The only column beside the files, or the only one of words. ValueError where others could be meant."""
    others = [at for at in others if not set(_cells_as_text(table, at)) <= SPLIT_NAMES]
    if len(others) < 2:
        return others[0] if others else 1
    words = [at for at in others if not all(is_number(row[at]) for row in table.rows if len(row) > at)]
    if len(words) == 1:
        return words[0]
    shown = ", ".join(_short(str(cell)) for cell in table.rows[0][:SHOWN_CELLS])
    raise ValueError(
        f"{table.path} has no header, and more columns than file and label ({table.line(0)}: {shown}); choose the "
        "labels by the number of their column, as label_column='2'"
    )


LABEL_ARGUMENT = ("label columns", "label_column")


def _is_coordinate(name: str, names: Sequence[str]) -> bool:
    """Whether it is the y beside an x."""
    return name.lower() == "y" and any(other.lower() == "x" for other in names)


def _of_column(table: Table, image: int, label: int, remarks: tuple[str, ...] = ()) -> RowLabels:
    widest = max(image, label)
    for row, cells in enumerate(table.rows):
        if len(cells) <= widest:
            raise ValueError(f"{table.line(row)} has {len(cells)} columns; the label is in column {label + 1}")
    found = [cells[label] for cells in table.rows]
    has_boxes = table.names is not None and table.names[label] == BOXES
    return RowLabels(
        [text.split()[0] if text.strip() else "" for text in found] if has_boxes else found, label, remarks
    )


def has_files_alone(table: Table, image: int) -> bool:
    """Whether its columns are the files and, perhaps, their split."""
    if table.names is None:
        return False
    known = [NAMELESS, *(table.names[at] for at in (image, split_column(table)) if at is not None)]
    return all(name in known for name in table.names)


NAMELESS = ""  # pandas' index


def unused_split(table: Table) -> tuple[str, ...]:
    """A sentence on a column that may tell parts by other names than those of splits."""
    for at, name in enumerate(table.names or ()):
        cells = set(_cells_as_text(table, at)) if name.lower() in DOUBTFUL else set()
        if 1 < len(cells) < len(table.rows) and not cells <= SPLIT_NAMES:
            return (f"the column {name} holds {some(sorted(cells))}; all rows are used",)
    return ()


BITS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "False": 0, "True": 1, "false": 0, "true": 1}


def _one_hot(table: Table, others: Sequence[int]) -> list[str] | None:
    """The names of the columns that hold each row's only 1, among those of nothing but 0 and 1; None unless there are
    two, and nothing beside them but an index."""
    assert table.names is not None
    if any(len(cells) != len(table.names) for cells in table.rows):
        return None
    columns = [at for at in others if all(str(cells[at]) in BITS for cells in table.rows)]
    rest = [table.names[at] for at in others if at not in columns]
    if len(columns) < 2 or not all(has_usual_name(name, INDEX_NAMES) for name in rest):
        return None
    found = []
    for row, cells in enumerate(table.rows):
        values = [BITS[str(cells[at])] for at in columns]
        if values.count(1) != 1:
            names = some([table.names[at] for at in columns])
            raise ValueError(
                f"{table.line(row)} has a 1 in {values.count(1)} of the columns {names}; {ONE_CLASS}; remove "
                "such rows, or name a column of labels with label_column=NAME"
            )
        found.append(table.names[columns[values.index(1)]])
    return found


# ---- their splits ---------------------------------------------------------------------------------------------------


def split_column(table: Table) -> int | None:
    """The column whose cells are names of several splits, and whose own name is not that of labels. ValueError for one
    that is called so and holds something else."""
    for at, name in enumerate(table.names or ()):
        if not has_usual_name(name, LABEL_NAMES) and _are_splits(_called(table, at)):
            return at
    for at, name in enumerate(table.names or ()):
        if name.lower() in SPLIT_COLUMNS - DOUBTFUL and 1 < len(cells := set(_cells_as_text(table, at))) < len(
            table.rows
        ):
            raise ValueError(
                f"{table.path}: the column {name} holds {some(sorted(cells))}; call the parts train, val or test, keep "
                "the rows of one in a table, or rename the column if it tells none"
            )
    return None


def splits_of(table: Table) -> list[str] | None:
    """The split of each row in lower case, by a column that says so, or by the first folder of all files, where these
    are several splits; else None."""
    column = split_column(table)
    if column is not None:
        return _called(table, column)
    for at in range(len(table.rows[0])):
        folders = [text.replace("\\", "/").removeprefix("./").partition("/")[0] for text in _cells_as_text(table, at)]
        if _are_splits(folders):
            return folders
    return None


SWITCHES = {"is_train": ("test", "train"), "is_test": ("train", "test")} | dict.fromkeys(
    ("is_val", "is_valid", "is_validation"), ("train", "val")
)
"""What 0 and 1 mean in columns of these names."""


def _called(table: Table, column: int) -> list[str]:
    """The cells of a column, with the names of splits for 0 and 1 where its own name says which they are."""
    cells = _cells_as_text(table, column)
    means = SWITCHES.get(table.names[column].lower()) if table.names is not None else None
    if means is None or not set(cells) <= BITS.keys():
        return cells
    return [means[BITS[cell]] for cell in cells]


def _are_splits(texts: Sequence[str]) -> bool:
    found = set(texts)
    return len(found) > 1 and found <= SPLIT_NAMES


def _cells_as_text(table: Table, column: int) -> list[str]:
    return [str(row[column]).strip().lower() if len(row) > column else "" for row in table.rows]

"""A table of files and labels: CSV, TSV, lines of "file label", JSON lines or Parquet."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dualfast.data.columns import FILE_NAMES, LABEL_NAMES, has_usual_name
from dualfast.data.images import suffixes
from dualfast.data.sources import unsupported
from dualfast.data.sources.parquet_columns import BINARY
from dualfast.data.sources.paths import SPLIT_NAMES
from dualfast.data.sources.scan import suffix_of
from dualfast.storage.files import open_regular, start_of
from dualfast.storage.plain import parse_json, read_regular

TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".parquet")
MAX_BYTES = 1 << 30
MAX_HEADER = 1 << 20
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
CELEBA_PARTS = "list_eval_partition.txt"
_PARTS_OF_CELEBA = re.compile(rb"\d+\.jpg [012]\s")
GZIP = b"\x1f\x8b"
SEPARATOR = re.compile(r'"?sep=(.)"?', re.I)
TRIED_ROWS = 20  # that tell what a column holds
FILE = "file"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Table(NamedTuple):
    """names: of the columns, None for a list without header. rows: of cells, text or the values of JSON and Parquet.
    lines: the number of the line (unit) of each row."""

    path: str
    names: list[str] | None
    rows: list[list[Any]]
    lines: Sequence[int]
    unit: str = "line"

    def line(self, row: int) -> str:
        return f"{self.unit} {self.lines[row]} of {self.path}"

    def column(self, argument: str, name: str) -> int:
        """The column of this name; without a header, of this number, from 1."""
        if self.names is None and name.isdecimal() and 1 <= int(name) <= min(map(len, self.rows)):
            return int(name) - 1
        if self.names is None or name not in self.names:
            columns = "no header" if self.names is None else f"the columns {', '.join(self.names)}"
            raise ValueError(f"{argument} is {name!r}; {self.path} has {columns}")
        return self.names.index(name)

    def take(self, rows: Sequence[int]) -> Table:
        return self._replace(rows=[self.rows[row] for row in rows], lines=[self.lines[row] for row in rows])


def read(path: str, is_listed: Callable[[Any], bool], *, by_number: bool = False) -> Table:
    """The table in a file. is_listed(cell): whether the cell names an image; the first line of a text is a header
    unless it does, or it is a text of labels alone. by_number: the labels are a column that is chosen by its number, so
    that lines of words are columns. ValueError for a file that is no table."""
    if os.path.basename(path) == DEVKIT:
        raise ValueError(
            f"{path} numbers the classes as ImageNet's development kit does, not in the order of their names; give "
            "LOC_val_solution.csv, or the synset of each image in a line"
        )
    if os.path.basename(path) == CELEBA_PARTS and _PARTS_OF_CELEBA.match(start_of(path, 64)):
        raise ValueError(
            f"{path} tells which images are for training and for testing, not their classes; give list_attr_celeba.txt "
            "with label_column=NAME, or identity_CelebA.txt"
        )
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".mat":
        raise ValueError(
            f"{path} is a MATLAB file; scipy.io.loadmat reads it: write the names of the files and their labels as a "
            ".csv, below the line file,label"
        )
    if suffix not in SUFFIXES and (hint := unsupported.hint(path)):
        raise ValueError(f"{path} is {hint}")
    try:
        if suffix == ".parquet":
            table = _parquet(path)
        elif suffix == ".jsonl":
            table = _json_lines(path)
        else:
            table = _text(path, is_listed, by_number)
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table of files and labels: {error}") from None
    empty = next((at for at, row in enumerate(table.rows) if not any(cell not in ("", None) for cell in row)), None)
    if empty is not None:
        raise ValueError(f"{path} has an empty line ({table.unit} {table.lines[empty]}); remove it")
    if not table.rows:
        raise ValueError(f"{path} lists no files")
    return table


def _text(path: str, is_listed: Callable[[Any], bool], by_number: bool) -> Table:
    text, skipped, delimiter = _without_preamble(_decoded(read_regular(path, MAX_BYTES)))
    head = text[: text.find("\n") + 1 or None]
    delimiter = delimiter or next((mark for mark in "\t,;|" if mark in head), None)
    if delimiter == "|" and " " in head.partition("|")[0].strip() and not is_file(head.partition("|")[0].strip()):
        delimiter = None  # between two classes of a line of words
    if delimiter is None:
        rows = _words(text.splitlines(), is_listed, by_number)
    else:
        guard = "" if GUARD in text else GUARD
        text = _guarded(text) if guard else text
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        rows = [[cell.strip().replace(guard, " ") if guard else cell.strip() for cell in row] for row in lines]
    while rows and not any(rows[-1]):
        rows.pop()
    has_header = bool(rows) and _is_header(rows[0], rows[1:], is_listed)
    names = rows.pop(0) if has_header else None
    first = skipped + (2 if has_header else 1)
    if names is not None and len(names) == 1:
        names = None  # labels alone
    if delimiter is not None:
        _check_widths(names, rows, first, delimiter)
    return Table(path, names, rows, range(first, first + len(rows)))


def _guarded(text: str) -> str:
    """The text with the spaces at the ends of quoted cells, which are meant, as GUARD."""
    return _QUOTED_ENDS.sub(lambda found: (found[1] or "") + GUARD * len(found[2] or found[3]), text)


GUARD = "\ue000"  # of Unicode's private use
_QUOTED_ENDS = re.compile(r'(?m)((?:^|[\t,;|]) *")( +)|(?<=[^\s,;|])( +)(?=" *(?:[\t,;|]|$))')


def _without_preamble(text: str) -> tuple[str, int, str | None]:
    """The text without the lines before the table, and how many these are: comments, Excel's sep=;, and the number of
    rows, as CelebA has it; and the delimiter that they tell."""
    lines = text.splitlines(keepends=True)
    skipped, delimiter = 0, None
    while skipped < len(lines) - 1:
        line = lines[skipped].strip()
        rest = len(lines) - skipped - 1
        if told := SEPARATOR.fullmatch(line):
            delimiter = told[1]
        elif not line.startswith("#") and not (
            line.isdecimal() and int(line) in (rest, rest - 1) and re.search(r"[\s,;|]", lines[-1].strip())
        ):
            break
        skipped += 1
    return "".join(lines[skipped:]), skipped, delimiter


def _is_header(first: list[str], rows: list[list[str]], is_listed: Callable[[Any], bool]) -> bool:
    """Whether the first row names the columns, and is not one of a file that is missing."""
    if any(is_listed(cell) or is_file(cell) for cell in first):
        return False
    if len(first) == 1:
        if rows and all(row and is_listed(row[0]) for row in rows[:TRIED_ROWS]):
            return True
        return has_usual_name(first[0], LABEL_NAMES) and first not in rows
    if all(map(is_number, first)):
        return False
    hits = [sum(len(row) > at and is_listed(row[at]) for row in rows[:TRIED_ROWS]) for at in range(len(first))]
    files = hits.index(max(hits)) if any(hits) else None
    if files is not None and any(_pattern(first[files]) == _pattern(row[files]) for row in rows if len(row) > files):
        return False
    if any(has_usual_name(cell, (*FILE_NAMES, *LABEL_NAMES)) for cell in first):
        return True
    if len(first) == 2 and any(map(is_number, first)):
        return False
    others = [at for at, cell in enumerate(first) if at != files and cell and not is_number(cell)]
    return not any(len(row) > at and row[at] == first[at] for at in others for row in rows)


def _pattern(cell: str) -> str:
    """What the names of numbered files share."""
    return re.sub(r"\d+", "0", cell)


def _check_widths(names: list[str] | None, rows: list[list[str]], first: int, delimiter: str) -> None:
    """ValueError for a row with more cells than the header or, without one, than another row: its name or its class may
    contain the delimiter."""
    width = len(names) if names else min((len(row) for row in rows if len(row) > 1), default=1)
    long = next((at for at, row in enumerate(rows) if any(row[width:])), None)
    if long is not None:
        others = "the header" if names else "others"
        raise ValueError(
            f"line {first + long} has {len(rows[long])} columns and {others} {width}; put a cell that contains "
            f"{delimiter!r} in double quotes"
        )


def _decoded(data: bytes) -> str:
    if data.startswith(GZIP):
        raise ValueError("it is compressed; gunzip makes the text that is read")
    try:
        return data.decode("utf-16" if data.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8; save it as CSV in UTF-8") from None


def _words(lines: list[str], is_listed: Callable[[Any], bool], by_number: bool) -> list[list[str]]:
    """Rows that are separated by spaces, of which names of files and classes may have some themselves: columns where
    they are told by a header, numbers or names of splits; else the file and all the rest, or all before the last space,
    and the class."""
    rows = [line.split() for line in lines]
    widths = {len(row) for row in rows[1:]}
    if max(map(len, rows), default=0) < 3 or (by_number and {len(rows[0])} >= widths):
        return rows

    if all(len(row) > 2 and is_number(row[0]) and is_file(row[1]) for row in rows):
        return _with_class(rows, 2)

    def are_files(rows: list[list[str]]) -> bool:
        return bool(rows) and all(row and (is_listed(row[0]) or is_file(row[0])) for row in rows[:TRIED_ROWS])

    below, has_header = rows[1:], not are_files(rows[:1]) and are_files(rows[1:])
    lacks_file = {len(rows[0]) + 1} == widths and not has_usual_name(rows[0][0], FILE_NAMES)
    if has_header and lacks_file and all(is_number(cell) for row in below for cell in row[1:]):
        rows[0].insert(0, FILE)  # which the header of CelebA's list leaves out
    elif has_header and len(rows[0]) == 2:
        return [rows[0], *(line.strip().split(None, 1) for line in lines[1:])]
    if widths == {len(rows[0])}:
        numbers = any(all(is_number(row[at]) for row in below) for at in range(1, len(rows[0])))
        if numbers or has_header or _split_at(rows) is not None:
            if not has_header:
                _check_no_numbered_names(rows)
            return rows
    if not are_files(rows[:1]):
        return [line.strip().rsplit(None, 1) for line in lines]
    at = _split_at(rows)
    if at == -1:
        return [[*short, row[-1]] for short, row in zip(_with_class([row[:-1] for row in rows], 1), rows, strict=True)]
    has_number = all(len(row) > 2 and is_number(row[1]) and not is_number(row[2]) for row in rows)
    return _with_class(rows, 2 if at == 1 or has_number else 1)


def _with_class(rows: list[list[str]], at: int) -> list[list[str]]:
    """The rows with all words from `at` on as one, a class. ValueError where the words of the rows are combined in more
    ways than any of them has, as those of columns are: normal rsna, normal cohen, covid cohen."""
    words = [tuple(row[at:]) for row in rows]
    if len({len(row) for row in words}) == 1 and len(set(words)) > max(
        len(set(column)) for column in zip(*words, strict=True)
    ):
        raise ValueError(
            f"line 1 may name the class {' '.join(words[0])!r}, or have a column for each word; put tabs or commas "
            "between the columns, or choose one by its number, as label_column='2'"
        )
    return [[*row[:at], " ".join(row[at:])] for row in rows]


def _check_no_numbered_names(rows: list[list[str]]) -> None:
    """ValueError for files, a word and a number each (1.png Boeing 707) where the number may be a part of the class:
    unless each word has one number of its own."""
    if any(len(row) != 3 or is_number(row[1]) or not is_number(row[2]) for row in rows):
        return
    if len({(row[1], row[2]) for row in rows}) > len({row[1] for row in rows}):
        raise ValueError(
            f"line 1 may name the class {' '.join(rows[0][1:])!r}, or {rows[0][1]!r} beside a number; put tabs or "
            "commas between the columns"
        )


def _split_at(rows: list[list[str]]) -> int | None:
    """Where the words of each row tell its split: 1 or -1; None where they do not."""
    return next((at for at in (1, -1) if all(len(row) > 2 and row[at].lower() in SPLIT_NAMES for row in rows)), None)


def is_file(cell: Any) -> bool:
    """Whether a cell is text that ends as the name of an image does."""
    return isinstance(cell, str) and suffix_of(cell) in suffixes()


def is_number(cell: Any) -> bool:
    """Whether a cell is a number, or text that reads as one."""
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def _json_lines(path: str) -> Table:
    lines = _decoded(read_regular(path, MAX_BYTES)).rstrip().split("\n")
    records = [parse_json(line.encode(), f"line {at}") for at, line in enumerate(lines, 1) if line.strip() or at > 1]
    for at, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise ValueError(f'line {at} is not an object, such as {{"file_name": "0.jpg", "label": "cat"}}')
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table(path, names, [[record.get(name) for name in names] for record in records], range(1, len(records) + 1))


def _parquet(path: str) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    open_regular(path).close()
    try:
        with pq.ParquetFile(path) as opened:
            schema = opened.schema_arrow
            names = [f.name for f in schema if str(f.type) not in BINARY and not pa.types.is_struct(f.type)]
            columns = [opened.read([name]).column(0).to_pylist() for name in names]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error).splitlines()[0]) from None
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Table(path, names, rows, range(len(rows)), "row")


def column_names(path: str) -> list[str]:
    """The names of the columns in the first line of a table, in the first lines of JSON, or in a schema; none where it
    cannot be read."""
    try:
        if path.endswith(".parquet"):
            import pyarrow.parquet as pq

            open_regular(path).close()
            return list(pq.read_schema(path).names)
        with open_regular(path) as file:
            if not path.endswith(".jsonl"):
                return next(csv.reader([_decoded(file.readline(MAX_HEADER))]), [])
            lines = [_decoded(line) for line in file.readlines(MAX_HEADER)[:TRIED_ROWS]]
        records = [parse_json(line.encode(), path) for line in lines if line.strip()]
        return list(dict.fromkeys(name for record in records if isinstance(record, dict) for name in record))
    except (OSError, ValueError, csv.Error):
        return []

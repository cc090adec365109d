"""Parquet: one file, or a folder of shards. parquet_columns chooses the columns.

An image is binary, or a struct of bytes and path, as Hugging Face writes it; a label is any value that names one class.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualfast.data.columns import SPLIT_COLUMNS
from dualfast.data.images import Payload
from dualfast.data.inventory import Files, Inventory, size_and_time, some, text_array
from dualfast.data.sources import parquet_columns, paths, shards
from dualfast.data.sources.labels import Labels, LabelWords, labels_of
from dualfast.data.sources.parquet_columns import Columns
from dualfast.data.sources.source import Kind, OtherColumns, Source, common_columns
from dualfast.storage.files import LFS_POINTER, open_regular, start_of

SUFFIX = ".parquet"
BATCH_ROWS = 256
BUFFER = 1 << 20  # bytes of a column that are read at once; by default Arrow reads a row group whole


def _open(
    path: str, *, image_column: str | None = None, label_column: str | None = None, follow_links: bool = False
) -> Source:
    found, split = _chosen(path, follow_links)
    files = [file for file in found if _n_rows(file)] or found[:1]
    with _opened(files[0]) as file:
        columns = parquet_columns.choose(file, files[0], image_column, label_column)
    parts = [_read_labels(file, columns) for file in files]
    _check_same_kind(files, parts, columns)
    starts = np.cumsum([0, *(len(part.values) for part in parts)])

    def describe(row: int) -> str:
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        return f"row {row - int(starts[shard])} of {files[shard]}"

    labels, class_names = _joined(parts).numbered()
    all_files = _files(files, follow_links)
    by_column = _splits_of_rows(files, columns)
    source = Source(
        kind="parquet",
        location=shards.location(path, files),
        labels=labels,
        class_names=class_names or columns.class_names,
        items=lambda: _images(files, columns.image, follow_links),
        names=lambda: text_array(
            [f"{file.name}:{row}" for file, part in zip(files, parts, strict=True) for row in range(len(part.values))]
        ),
        describe=describe,
        inventory=Inventory(
            files=all_files,
            left_out=shards.left_out(path, SUFFIX, has_files=len(all_files) > len(files)),
            remarks=(*columns.remarks, *shards.missing(found), *by_column.remarks),
        ),
        other_columns=lambda: common_columns([_other_columns(file, columns) for file in files]),
    )
    if by_column.rows is None and split is None:
        return source
    names = {name: name for name in dict.fromkeys(by_column.rows or ())}
    wanted = paths.pick(source.location, split, names, paths.split_of(path)[0])
    part = source.subset(np.array([name == wanted for name in by_column.rows or ()], bool), with_other_files=True)
    return replace(part, location=f"{source.location}:{wanted}")


# ---- splits by a column ---------------------------------------------------------------------------------------------


class RowSplits(NamedTuple):
    """rows: the split of each row in lower case, by a column that says so, None without one. remarks: a sentence on a
    column that is called so and holds something else."""

    rows: list[str] | None = None
    remarks: tuple[str, ...] = ()


def _chosen(path: str, follow_links: bool) -> tuple[list[Path], str | None]:
    """The shards of a path, and the split in PATH:SPLIT where it is none of their names."""
    bare, split = paths.split_of(path)
    if split is None or split in shards.find(bare, SUFFIX) or len(shards.splits(bare, SUFFIX)) > 1:
        return shards.chosen(path, SUFFIX, follow_links), None
    return shards.chosen(bare, SUFFIX, follow_links), split


def _splits_of_rows(files: list[Path], columns: Columns | None) -> RowSplits:
    import pyarrow as pa

    with _opened(files[0]) as file:
        own = columns and (columns.image, columns.label)
        fields = [f for f in file.schema_arrow if f.name.lower() in SPLIT_COLUMNS and f.name not in (own or ())]
    for field in fields:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if str(kind) not in parquet_columns.TEXT:
            continue
        rows = [str(text).strip().lower() for path in files for text in _texts(path, field.name)]
        if len(found := set(rows)) > 1 and found <= paths.SPLIT_NAMES:
            return RowSplits(rows)
        if 1 < len(found) < len(rows):
            return RowSplits(None, (f"the column {field.name} holds {some(sorted(found))}; all rows are used",))
    return RowSplits()


def _texts(path: Path, column: str) -> list[str | None]:
    with _opened(path) as file, _naming(path, column):
        if column not in file.schema_arrow.names:
            return [""] * file.metadata.num_rows
        found: list[str | None] = file.read(columns=[column]).column(0).to_pylist()
        return found


def _splits(path: str) -> dict[str, str]:
    """What to give for the shards, or the rows, of each split."""
    found = shards.splits(path, SUFFIX)
    if len(found) > 1 or not _recognizes(path):
        return found
    try:
        rows = _splits_of_rows(shards.chosen(path, SUFFIX, True), None).rows
    except (ValueError, OSError):  # opening it says what is wrong
        return found
    return paths.addresses(path, sorted(set(rows))) if rows else found


def _opened(path: Path) -> Any:
    """The file as a pyarrow.parquet.ParquetFile; ValueError when it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        if start_of(path, len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the file itself; git lfs pull fetches it") from None
        raise ValueError(
            f"{path} is not a Parquet file, or not one that can be read: {str(error).splitlines()[0]}"
        ) from None


@contextmanager
def _naming(path: Path, column: str) -> Iterator[None]:
    """Turns what Arrow raises for damaged data into a ValueError that names the file and the column."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: the column {column} cannot be read: {str(error).splitlines()[0]}") from None


def _n_rows(path: Path) -> int:
    with _opened(path) as file:
        return int(file.metadata.num_rows)


# ---- labels ---------------------------------------------------------------------------------------------------------


def _read_labels(path: Path, columns: Columns) -> Labels:
    """The labels of one shard. ValueError, naming it, when it lacks a column, declares other class names, or its labels
    are not one class per image."""
    import pyarrow as pa

    with _opened(path) as file:
        parquet_columns.check(file.schema_arrow, path, columns)
        words = LabelWords(
            what=f"{path}: {columns.label} is {parquet_columns.type_text(file.schema_arrow.field(columns.label).type)}",
            describe=lambda row: f"row {row} of {path}",
            way_out=parquet_columns.LABEL_WAY_OUT,
        )
        try:
            with _naming(path, columns.label):
                column = file.read(columns=[columns.label]).column(0)
        except pa.ArrowNotImplementedError:  # categories that are pandas' intervals
            raise ValueError(words.refusal()) from None
    if column.null_count:
        raise words.missing(column.is_null().to_pylist().index(True))
    return labels_of(as_array(column), words)


def as_array(column: Any) -> NDArray[Any]:
    """An Arrow column without nulls: numbers and booleans as they are, everything else as objects. Values
    of fixed_size_binary lose the zeros at their end, which are padding."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        array: NDArray[Any] = column.to_numpy()
        return array
    array = np.empty(len(column), object)
    values = column.to_pylist()
    array[:] = [value.rstrip(b"\0") for value in values] if pa.types.is_fixed_size_binary(kind) else values
    return array


def _check_same_kind(files: list[Path], parts: list[Labels], columns: Columns) -> None:
    first = parts[0].kind
    for path, part in zip(files, parts, strict=True):
        if part.kind != first:
            raise ValueError(
                f"{path}: {columns.label} is {part.kind}, and {first} in {files[0]}; write all shards with one type"
            )


def _joined(parts: list[Labels]) -> Labels:
    if parts[0].kind == "text":
        return Labels("text", list(chain.from_iterable(part.values for part in parts)))
    return Labels(parts[0].kind, np.concatenate([part.values for part in parts]))


# ---- images ---------------------------------------------------------------------------------------------------------


def _images(files: list[Path], image: str, follow_links: bool) -> Iterator[Payload | Exception]:
    for path in files:
        folder = os.path.realpath(path.parent)
        with _opened(path) as file, _naming(path, image):
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[image]):
                for cell in batch.column(0):
                    yield cell_bytes(cell.as_py(), folder, follow_links)


def cell_bytes(cell: Any, folder: str, follow_links: bool = False) -> Payload | Exception:
    """The image in a cell: its bytes, or those of the file at its path in `folder`, a real path. ValueError for a path
    that leads out of it, unless links are followed."""
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    path = cell.get("path") if isinstance(cell, dict) else None
    if not path:
        return ValueError("the image is empty")
    try:
        with open_regular(paths.inside(os.path.join(folder, path), folder, follow_links)) as file:
            return file.read()
    except OSError as error:
        return error


def _other_columns(path: Path, columns: Columns) -> OtherColumns:
    import pyarrow as pa

    with _opened(path) as file:
        schema = file.schema_arrow
    own = [at for at, field in enumerate(schema) if field.name not in (columns.image, columns.label)]
    names = [schema.names[at] for at in own]

    def tables() -> Iterator[Any]:
        with _opened(path) as file, _naming(path, ", ".join(names)):
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
                yield pa.Table.from_batches([batch])

    return OtherColumns(pa.schema([schema.field(at) for at in own], schema.metadata), tables)


# ---- files ----------------------------------------------------------------------------------------------------------


def _files(files: list[Path], follow_links: bool) -> Files:
    """The shards, and the files of images that they name by their paths alone."""
    folders = ((os.path.realpath(shard.parent), shard) for shard in files)
    named = ((folder, path) for folder, shard in folders for path in _paths_in(shard))
    return Files.of(files) + files_at(named, follow_links)


def _paths_in(shard: Path) -> Iterator[str]:
    """The paths in the image columns of a shard, of the row groups that have images without bytes. None of a shard that
    cannot be read, of which size and time say enough."""
    import pyarrow as pa

    with suppress(ValueError, OSError, pa.ArrowException), _opened(shard) as file:
        for name in parquet_columns.columns_with_paths(file.schema_arrow):
            groups = [at for at in range(file.num_row_groups) if _lacks_bytes(file.metadata.row_group(at), name)]
            for batch in file.iter_batches(row_groups=groups, columns=[f"{name}.path"]) if groups else ():
                yield from batch.column(0).field("path").drop_null().to_pylist()


def _lacks_bytes(group: Any, name: str) -> bool:
    """Whether some images of a row group may have no bytes, by its statistics."""
    columns = (group.column(at) for at in range(group.num_columns))
    stored = next((column for column in columns if column.path_in_schema == f"{name}.bytes"), None)
    statistics = stored and stored.statistics
    return statistics is None or not statistics.has_null_count or statistics.null_count > 0


def files_at(named: Iterable[tuple[str, str]], follow_links: bool = False) -> Files:
    """The files that pairs (real folder, path in it) name, each once, as far as they are there, by their places below
    the folder that all have in common. Those outside of their folder are not looked at, unless links are followed."""
    roots: set[str] = set()
    found: dict[str, None] = {}
    for folder, path in named:
        place = os.path.normpath(os.path.join(folder, path))
        if follow_links or place.startswith(os.path.join(folder, "")):
            roots.add(folder)
            found[place] = None
    if not found:
        return Files.none()
    common = os.path.join(os.path.commonpath(roots), "")
    rows = ((place.removeprefix(common), *size_and_time(place)) for place in found)
    return Files.of_rows(row for row in rows if row[1] >= 0)


def _recognizes(path: str) -> bool:
    return bool(shards.find(path, SUFFIX))


KIND = Kind(
    accepts="a .parquet file or a folder of them",
    recognizes=_recognizes,
    open=_open,
    options=("image_column", "label_column", "follow_links"),
    files=lambda path, *, follow_links=False: _files(_chosen(path, follow_links)[0], follow_links),
    splits=_splits,
)

"""Parquet: one file, or a folder of shards. parquet_columns chooses the columns.

An image is binary, or a struct of bytes and path, as Hugging Face writes it; a label is any value that names one class.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.images import Payload
from dualfast.data.inventory import Files, Inventory, text_array
from dualfast.data.sources import parquet_columns, paths
from dualfast.data.sources.labels import Labels, LabelWords, labels_of
from dualfast.data.sources.parquet_columns import Columns
from dualfast.data.sources.source import Kind, Source
from dualfast.storage.files import open_regular

BATCH_ROWS = 256
LFS = b"version https://git-lfs"


def _open(path: str, *, image_column: str | None = None, label_column: str | None = None) -> Source:
    found = _files(path)
    files = [file for file in found if _n_rows(file)] or found[:1]
    with _opened(files[0]) as file:
        columns = parquet_columns.choose(file, files[0], image_column, label_column)
    shards = [_read_labels(file, columns) for file in files]
    _check_same_kind(files, shards, columns)
    starts = np.cumsum([0, *(len(shard.values) for shard in shards)])

    def describe(row: int) -> str:
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        return f"row {row - int(starts[shard])} of {files[shard]}"

    labels, class_names = _joined(shards).numbered()
    return Source(
        kind="parquet",
        location=paths.location(files),
        labels=labels,
        class_names=class_names or columns.class_names,
        items=lambda: _images(files, columns.image),
        names=lambda: text_array(
            [
                f"{file.name}:{row}"
                for file, shard in zip(files, shards, strict=True)
                for row in range(len(shard.values))
            ]
        ),
        describe=describe,
        inventory=Inventory(files=Files.of(files)),
    )


def _files(path: str) -> list[Path]:
    return paths.check_one_split(paths.shards(path, ".parquet"))


def _opened(path: Path) -> Any:
    """The file as a pyarrow.parquet.ParquetFile; ValueError when it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        with open(path, "rb") as file:
            pointer = file.read(len(LFS)) == LFS
        if pointer:
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
    return labels_of(_as_array(column), words)


def _as_array(column: Any) -> NDArray[Any]:
    """An Arrow column without nulls: numbers and booleans as they are, everything else as objects."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        array: NDArray[Any] = column.to_numpy()
        return array
    array = np.empty(len(column), object)
    array[:] = column.to_pylist()
    return array


def _check_same_kind(files: list[Path], shards: list[Labels], columns: Columns) -> None:
    first = shards[0].kind
    for path, shard in zip(files, shards, strict=True):
        if shard.kind != first:
            raise ValueError(
                f"{path}: {columns.label} is {shard.kind}, and {first} in {files[0]}; write all shards with one type"
            )


def _joined(shards: list[Labels]) -> Labels:
    if shards[0].kind == "text":
        return Labels("text", list(chain.from_iterable(shard.values for shard in shards)))
    return Labels(shards[0].kind, np.concatenate([shard.values for shard in shards]))


# ---- images ---------------------------------------------------------------------------------------------------------


def _images(files: list[Path], image: str) -> Iterator[Payload | Exception]:
    for path in files:
        folder = os.path.realpath(path.parent)
        with _opened(path) as file, _naming(path, image):
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[image]):
                for cell in batch.column(0):
                    yield _cell_bytes(cell.as_py(), folder)


def _cell_bytes(cell: Any, folder: str) -> Payload | Exception:
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    path = cell.get("path") if isinstance(cell, dict) else None
    if not path:
        return ValueError("the image is empty")
    try:
        with open_regular(paths.inside(os.path.join(folder, path), folder)) as file:
            return file.read()
    except OSError as error:
        return error


KIND = Kind(
    accepts="a .parquet file or a folder of them",
    recognizes=lambda path: bool(paths.shards(path, ".parquet")),
    open=_open,
    options=("image_column", "label_column"),
    files=lambda path: Files.of(_files(path)),
)

"""Parquet: one file, or a folder of shards. The columns are chosen by Hugging Face's metadata, by name and by type.

An image is binary, or a struct of bytes and path, as Hugging Face writes it; a label is an integer or a class name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.images import Payload
from dualfast.data.sources import paths
from dualfast.data.sources.source import Kind, Source, number_classes

IMAGE_NAMES = ("image", "img", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "cls", "y")
BATCH_ROWS = 256


def _open(path: str) -> Source:
    files = paths.check_one_split(paths.shards(path, ".parquet"))
    image, label, declared_names = _choose_columns(files[0])
    columns = [_read_labels(file, image, label, files[0]) for file in files]
    starts = np.cumsum([0, *map(len, columns)])

    def describe(row: int) -> str:
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        return f"row {row - int(starts[shard])} of {files[shard]}"

    labels, class_names = _number_labels(columns, declared_names, describe)
    return Source(
        kind="parquet",
        location=paths.location(files),
        labels=labels,
        class_names=class_names,
        items=lambda: _images(files, image),
        describe=describe,
    )


# ---- columns --------------------------------------------------------------------------------------------------------


def _choose_columns(file: Path) -> tuple[str, str, tuple[str, ...] | None]:
    """The names of the image and label column, and the class names that Hugging Face's metadata declare."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} is not a Parquet file: {str(error).splitlines()[0]}") from None
    features = _huggingface_features(schema.metadata)
    columns = ", ".join(schema.names)
    image = _image_column(schema, features)
    if image is None:
        raise ValueError(f"{file} has no image column (binary, or a struct of bytes and path); its columns: {columns}")
    label = _label_column(schema, features)
    if label is None:
        raise ValueError(f"{file} has no label column (named label, labels, target or class); its columns: {columns}")
    names = features.get(label, {}).get("names")
    return image, label, tuple(map(str, names)) if names else None


def _huggingface_features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _image_column(schema: Any, features: dict[str, Any]) -> str | None:
    import pyarrow as pa

    def can_hold_images(field: Any) -> bool:
        if pa.types.is_struct(field.type):
            return any(field.type.field(i).name == "bytes" for i in range(field.type.num_fields))
        return bool(pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type))

    candidates = [field.name for field in schema if can_hold_images(field)]
    declared = [name for name in candidates if features.get(name, {}).get("_type") == "Image"]
    return next(iter([*declared, *(name for name in IMAGE_NAMES if name in candidates), *candidates]), None)


def _label_column(schema: Any, features: dict[str, Any]) -> str | None:
    import pyarrow as pa

    def can_hold_labels(field: Any) -> bool:
        return bool(
            pa.types.is_integer(field.type) or pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        )

    candidates = [field.name for field in schema if can_hold_labels(field)]
    declared = [name for name in candidates if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in LABEL_NAMES if name in candidates]
    both = [name for name in named if name in declared]
    return next(iter([*both, *declared, *named]), None)


# ---- rows -----------------------------------------------------------------------------------------------------------


def _read_labels(file: Path, image: str, label: str, first: Path) -> Any:
    import pyarrow.parquet as pq

    names = pq.read_schema(file).names
    if image not in names or label not in names:
        raise ValueError(
            f"{file} lacks the column {image!r} or {label!r} that {first} has; its columns: {', '.join(names)}"
        )
    return pq.read_table(file, columns=[label]).column(0)


def _number_labels(
    columns: list[Any], declared_names: tuple[str, ...] | None, describe: Callable[[int], str]
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    import pyarrow as pa

    column = pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"{describe(row)} has no label; remove unlabelled rows")
    if pa.types.is_integer(column.type):
        return column.to_numpy().astype(np.int64), declared_names
    return number_classes(column.to_pylist())


def _images(files: list[Path], image: str) -> Iterator[Payload | Exception]:
    import pyarrow.parquet as pq

    for path in files:
        folder = os.path.realpath(path.parent)
        with pq.ParquetFile(path) as file:
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
        return Path(paths.inside(os.path.join(folder, path), folder)).read_bytes()
    except OSError as error:
        return error


KIND = Kind(
    accepts="a .parquet file or a folder of them",
    recognizes=lambda path: bool(paths.shards(path, ".parquet")),
    open=_open,
)

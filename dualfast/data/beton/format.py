"""The layout of a .beton file: FFCV's format, version 2. Everything is little-endian.

    header        24 bytes: version, num_fields, page_size, num_samples, alloc_table_ptr
    descriptors   1,041 bytes per field: type, name, arguments
    metadata      one row per sample: (mode, width, height, data_ptr) of the image, the label
    pages         page-aligned; no sample crosses a page boundary; image mode 0 is JPEG bytes, 1 raw RGB pixels
    allocations   to the end of the file: (sample_id, ptr, size), 24 bytes each

Sidecars hold what the format has no room for: PATH.json class names and the source, PATH.names.parquet the names of the
samples and the files they came from, PATH.crc checksums.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 2
JPEG, RAW = 0, 1
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
EXTENT = np.dtype([("ptr", "<u8"), ("size", "<u8")])
FLOAT_TYPE, INT_TYPE, IMAGE_TYPE, CUSTOM_TYPE = 0, 1, 2, 255
ARRAY_TYPES = (4, 6)  # NumPy's and torch's
TYPE_NAMES = {
    FLOAT_TYPE: "float",
    INT_TYPE: "integer",
    IMAGE_TYPE: "image",
    3: "bytes",
    4: "array",
    5: "JSON",
    6: "tensor",
}
ORIGINAL_INDEX = "original_index"
"""The integer field that compact adds: each row's id in the file that was compacted."""
FIELD_DTYPES = {
    FLOAT_TYPE: np.dtype("<f8"),
    INT_TYPE: np.dtype("<i8"),
    IMAGE_TYPE: IMAGE,
    3: EXTENT,  # bytes
    4: np.dtype("<u8"),
    5: EXTENT,  # JSON
    6: np.dtype("<u8"),
}
ARRAY_ARGUMENTS = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])  # then the dtype, as JSON of dtype.descr


def array_bytes(arguments: NDArray[np.uint8]) -> int:
    """The bytes of each value of an array field, by its arguments (1024,). ValueError when they describe no array of
    plain values."""
    fixed = arguments[: ARRAY_ARGUMENTS.itemsize].view(ARRAY_ARGUMENTS)[0]
    sides = fixed["shape"].tolist()
    while sides and sides[-1] == 0:
        sides.pop()
    text = arguments[ARRAY_ARGUMENTS.itemsize :][: min(int(fixed["type_length"]), len(arguments))].tobytes()
    try:
        ((name, kind),) = json.loads(text)
        dtype = np.dtype(kind) if name == "" and isinstance(kind, str) else None
    except (ValueError, TypeError, RecursionError):
        dtype = None
    if (
        dtype is None
        or dtype.kind not in "biufcSUmM"
        or dtype.subdtype
        or not dtype.itemsize
        or 0 in sides
        or not sides
    ):
        raise ValueError("its arguments describe no array")
    return int(prod(sides) * dtype.itemsize)


def row_dtype(fields: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """The dtype of a metadata row with these fields, which become f0, f1, ..."""
    return np.dtype([("", field) for field in fields], align=True)


def describe_field(name: str, type_id: int) -> NDArray[np.void]:
    """(1,) descriptor of a field without arguments; the name has up to 16 ASCII characters."""
    descriptor = np.zeros(1, DESCRIPTOR)
    descriptor["type_id"] = type_id
    descriptor["name"][0, : len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    return descriptor


def start_of_pages(tables: int, page_size: int) -> int:
    """The first page boundary after so many bytes of header, descriptors and metadata."""
    return -(-tables // page_size) * page_size


def head(
    descriptors: NDArray[np.void], metadata: NDArray[np.void], *, n_samples: int, page_size: int, table_start: int
) -> bytes:
    """The file's first bytes: header, descriptors, metadata. table_start: where the allocation table begins."""
    header = np.array([(VERSION, len(descriptors), page_size, n_samples, table_start)], HEADER)
    return header.tobytes() + descriptors.tobytes() + metadata.tobytes()

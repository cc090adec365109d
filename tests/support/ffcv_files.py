"""Files as FFCV's DatasetWriter makes them, with fields of any name and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import format as layout

PAGE = 1 << 21
Field = NDArray[Any]


def ffcv_file(path: Path, fields: dict[str, Field]) -> Path:
    """fields: by name, (n, height, width, 3) uint8 of an image field, (n,) integers or floats of a number field."""
    kinds = {name: _kind(values) for name, values in fields.items()}
    n = len(next(iter(fields.values())))
    metadata = np.zeros(n, layout.row_dtype(layout.FIELD_DTYPES[kind] for kind in kinds.values()))
    descriptors = np.concatenate([layout.describe_field(name, kind) for name, kind in kinds.items()])
    end = start = layout.start_of_pages(layout.HEADER.itemsize + descriptors.nbytes + metadata.nbytes, PAGE)
    allocations, pixels = [], b""
    for at, values in enumerate(fields.values()):
        if values.ndim == 1:
            metadata[f"f{at}"] = values
            continue
        for row, image in enumerate(values):
            metadata[f"f{at}"][row] = (layout.RAW, image.shape[1], image.shape[0], end)
            allocations.append((row, end, image.nbytes))
            pixels += image.tobytes()
            end += image.nbytes
    assert end - start <= PAGE
    tables = layout.head(descriptors, metadata, n_samples=n, page_size=PAGE, table_start=end)
    path.write_bytes(tables.ljust(start, b"\0") + pixels + np.array(allocations, layout.ALLOCATION).tobytes())
    return path


def _kind(values: Field) -> int:
    if values.ndim > 1:
        return layout.IMAGE_TYPE
    return layout.INT_TYPE if np.issubdtype(values.dtype, np.integer) else layout.FLOAT_TYPE

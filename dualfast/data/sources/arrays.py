"""Images and labels in memory, or as the arrays "images" and "labels" of an .npz file. Pickles are never loaded."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.data.sources.source import Kind, Source


def from_arrays(
    images: Any,
    labels: Any,
    *,
    kind: str = "arrays",
    location: str = "a pair of arrays",
    class_names: Sequence[str] | None = None,
) -> Source:
    """images: uint8 of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3); labels: (N,) integers. Raises TypeError for other
    dtypes, ValueError for other shapes."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise TypeError(f"images are {images.dtype}; they must be uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise ValueError(f"images have the shape {images.shape}; it must be (N, H, W), (N, H, W, 1) or (N, H, W, 3)")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"labels have the shape {labels.shape}; {len(images)} images need ({len(images)},)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels are {labels.dtype}; they must be integers")
    return Source(
        kind=kind,
        location=location,
        labels=labels.astype(np.int64),
        class_names=tuple(class_names) if class_names is not None else None,
        items=lambda: iter(images),
        describe=lambda row: f"image {row} of {location}",
    )


def _open(path: str) -> Source:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{Path(path)} is not an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.keys())
            arrays = {name: file[name] for name in ("images", "labels") if name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{Path(path)} cannot be read (pickled objects are never loaded): {error}") from None
    for name in ("images", "labels"):
        if name not in arrays:
            raise ValueError(f"{Path(path)} has no array {name!r}; it has {', '.join(names) or 'none'}")
    return from_arrays(arrays["images"], arrays["labels"], kind="npz", location=str(Path(path)))


KIND = Kind(
    accepts="an .npz file",
    recognizes=lambda path: path.lower().endswith(".npz") and os.path.isfile(path),
    open=_open,
)

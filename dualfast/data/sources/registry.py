"""The kinds of data sets, and opening one."""

from __future__ import annotations

import os
from typing import Any

from dualfast.data.sources import arrays, cifar, folder, parquet, sklearn_digits, webdataset
from dualfast.data.sources.source import Kind, Source, check

# The first that recognizes a path opens it, so the more particular ones come first.
KINDS: tuple[Kind, ...] = (
    sklearn_digits.KIND,
    cifar.KIND,
    arrays.KIND,
    parquet.KIND,
    webdataset.KIND,
    folder.KIND,
)


def open_source(source: Any) -> Source:
    """Opens `source`: a path or name that one of KINDS recognizes, a pair (images, labels) of arrays, images uint8 of
    shape (N, H, W) or (N, H, W, 1 or 3), or a Source.

    Raises ValueError (one line, with the way out) when the path does not exist or no kind recognizes it, when there is
    nothing to read, when the image or label column is missing, when all labels are equal or one is negative, or when a
    link or path leads outside the data set; TypeError for anything else than the above."""
    if isinstance(source, Source):
        return check(source)
    if isinstance(source, str | os.PathLike):
        return check(_open_path(os.fspath(source)))
    if isinstance(source, tuple | list) and len(source) == 2:
        return check(arrays.from_arrays(*source))
    raise TypeError(f'source is a {type(source).__name__}; give a path, "digits", or a pair (images, labels) of arrays')


def find_kind(path: str) -> Kind | None:
    """The kind that opens `path`, or None."""
    return next((kind for kind in KINDS if kind.recognizes(path)), None)


def _open_path(path: str) -> Source:
    kind = find_kind(path)
    if kind is None:
        problem = "is not a data set that can be read" if os.path.exists(path) else "does not exist"
        raise ValueError(f"{path} {problem}; give {', '.join(kind.accepts for kind in KINDS)}")
    return kind.open(path)

"""The kinds of data sets, and opening one."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Any

from dualfast.config import Reading
from dualfast.data.inventory import Files
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


def open_source(source: Any, reading: Reading | None = None, *, is_test: bool = False) -> Source:
    """Opens `source`: a path or name that one of KINDS recognizes, a pair (images, labels) of arrays, images uint8 of
    shape (N, H, W) or (N, H, W, 1 or 3), or a Source.

    reading: how to read it. is_test: all samples of the path may be of one class. Raises ValueError (one line, with the
    way out) when the path does not exist or no kind recognizes it, when there is nothing to read, when the image or
    label column is missing or ambiguous, when all labels are equal, or one is negative or beyond the class names, when
    a link or path leads outside the data set, or when the kind does not take an option of `reading`; TypeError for
    anything else than the above."""
    given = {name: value for name, value in asdict(reading or Reading()).items() if value is not None}
    if isinstance(source, str | os.PathLike):
        return check(replace(_open_path(os.fspath(source), given), is_test=is_test))
    for name in given:
        raise _unused(name, given[name], "the source")
    if isinstance(source, Source):
        return check(source)
    if isinstance(source, tuple | list) and len(source) == 2:
        return check(arrays.from_arrays(*source))
    raise TypeError(f'source is a {type(source).__name__}; give a path, "digits", or a pair (images, labels) of arrays')


def find_kind(path: str) -> Kind | None:
    """The kind that opens `path`, or None."""
    return next((kind for kind in KINDS if kind.recognizes(path)), None)


def files_of(path: str) -> Files:
    """The files that open_source would read the data set at `path` from, by name, size and time; nothing is decoded.
    None for what does not lie in files, and a size of -1 for one that is not there."""
    kind = find_kind(path)
    return Files.of([path]) if kind is None else kind.files(path)


def _open_path(path: str, given: dict[str, Any]) -> Source:
    if not path:
        raise ValueError('the path of the data is empty (""); was a shell variable unset?')
    kind = find_kind(path)
    if kind is None:
        problem = "is not a data set that can be read" if os.path.exists(path) else "does not exist"
        raise ValueError(f"{path} {problem}; give {', '.join(kind.accepts for kind in KINDS)}")
    for name in given.keys() - set(kind.options):
        raise _unused(name, given[name], path)
    return kind.open(path, **given)


def _unused(name: str, value: object, what: str) -> ValueError:
    users = ", ".join(kind.accepts for kind in KINDS if name in kind.options)
    return ValueError(f"{name} is {value!r}, which is for {users}; {what} is none of these; leave {name} out")

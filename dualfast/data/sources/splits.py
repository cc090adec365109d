"""Where the training and the test images of a data set are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dualfast.data.images import suffixes
from dualfast.data.sources import folder
from dualfast.data.sources.file_list import table_splits
from dualfast.data.sources.paths import is_hidden, split_folders, train_and_test
from dualfast.data.sources.registry import KINDS, expand, local
from dualfast.data.sources.scan import suffix_of
from dualfast.data.sources.source import Kind, Source
from dualfast.ops.philox import order_keys

Where = str | tuple[str, ...]
"""A path or name for open_source, or several, which are joined."""


def splits(
    data: str | Sequence[str], test: str | Sequence[str] | None = None, labels: str | None = None
) -> tuple[Where, Where | None]:
    """The training images that `data` names and the test images that `test` names, for open_source.

    Without `test`, the two parts of `data` that the kinds find: of the digits, of an archive, of arrays or shards whose
    names say so, of a folder that holds train and val (or test), of a table, such as `labels`, that says so; no test
    images where it does not hold both. A `test` that is the digits or an archive means its test part. Several paths are
    divided one by one."""
    trains = _expanded(data)
    if test is None:
        by_table = [_train_and_test(table_splits(path, labels)) if labels else None for path in trains]
        found = [parts or _parts(path, KINDS) or (path, None) for parts, path in zip(by_table, trains, strict=True)]
        tests = [part for _, part in found if part is not None]
        return _one([train for train, _ in found]), _one(tests) if tests else None
    kinds = [kind for kind in KINDS if kind is not folder.KIND]  # a folder is taken as it is
    tests = [parts[1] or path if (parts := _parts(path, kinds)) else path for path in _expanded(test)]
    return _one(["digits:train" if path == "digits" else path for path in trains]), _one(tests)


def flat_test(data: str | Sequence[str]) -> str | None:
    """The folder of test images beside the training images of a path, whether or not class folders are in it."""
    if len(paths := _expanded(data)) != 1 or not os.path.isdir(paths[0]):
        return None
    named = split_folders(paths[0])
    parts = train_and_test(named)
    return os.path.join(paths[0], named[parts[1]]) if parts and parts[1] else None


def unused_parts(data: str | Sequence[str], used: Sequence[Where | None], labels: str | None = None) -> list[str]:
    """The names of what a data set holds beside the parts in use, which splits found: further splits, or folders and
    loose images beside train and val. labels: as for splits."""
    if len(paths := _expanded(data)) != 1 or paths[0] in used:
        return []
    (path,) = paths
    kinds = [kind for kind in KINDS if kind is not folder.KIND]
    divided = table_splits(path, labels) if labels else next(filter(None, (kind.splits(path) for kind in kinds)), {})
    if divided or not os.path.isdir(path):
        return [name for name, address in divided.items() if address not in used]
    inside = [
        os.path.relpath(part, path) for part in used if isinstance(part, str) and part.startswith(f"{path}{os.sep}")
    ]
    with os.scandir(path) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in entries if not is_hidden(entry.name))
    is_data = [name for name in names if name.endswith("/") or suffix_of(name) in suffixes()]
    return [name for name in is_data if name.rstrip("/") not in inside] if inside else []


def hold_out(source: Source, fraction: float, seed: int = 0) -> tuple[Source, Source]:
    """A training and a test part of the samples. The test part holds `fraction` of each class, rounded, and of a class
    of two or more at least one; the shuffle of `seed` decides which. ValueError where that leaves no test images."""
    if (twice := _first_twice(source)) is not None:
        raise ValueError(
            f"test_fraction is {fraction}, and {twice} is there more than once, which puts it into both parts; give "
            "each path once"
        )
    ids = np.arange(len(source), dtype=np.int64)
    by_class = np.lexsort((order_keys(ids, seed, 0), source.labels))
    counts = np.bincount(source.labels)
    rank = np.empty(len(source), np.int64)
    rank[by_class] = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    n_test = np.clip(np.rint(fraction * counts), counts > 1, np.maximum(counts - 1, 0)).astype(np.int64)
    is_test = rank < n_test[source.labels]
    if not is_test.any():
        raise ValueError(
            f"test_fraction is {fraction}, and every class of {source.location} has a single image, which training "
            "needs; give more images, or name the test images with --test PATH"
        )
    train, test = (source.subset(mask, with_other_files=mask is not is_test) for mask in (~is_test, is_test))
    part = f"{fraction:.4g} of each class"
    return (
        replace(train, location=f"{source.location} without {part}"),
        replace(test, location=f"{source.location}, {part}, by seed {seed}", is_test=True),
    )


def _first_twice(source: Source) -> str | None:
    """The first name that several samples have; None where each has its own."""
    import pyarrow.compute as pc

    names = source.names().slice(0, len(source))
    if pc.count_distinct(names).as_py() == len(names):
        return None
    counts = pc.value_counts(names)
    several = pc.greater(counts.field("counts"), 1)
    return str(counts.field("values").filter(several)[0].as_py())


def _expanded(source: str | Sequence[str]) -> list[str]:
    return [local(path) for path in expand(source)]


def _one(paths: list[str]) -> Where:
    return paths[0] if len(paths) == 1 else tuple(paths)


def _parts(path: str, kinds: Sequence[Kind]) -> tuple[str, str | None] | None:
    return next((parts for kind in kinds if (parts := _train_and_test(kind.splits(path))) is not None), None)


def _train_and_test(addresses: dict[str, str]) -> tuple[str, str | None] | None:
    """What to give for the training part and for the test part, None where that is missing; None without the former."""
    names = train_and_test(addresses)
    return names and (addresses[names[0]], names[1] and addresses[names[1]])

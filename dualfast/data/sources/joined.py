"""Several data sets as one."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.data.inventory import Files, Inventory, some
from dualfast.data.sources import shards
from dualfast.data.sources.source import OtherColumns, Source, common_columns, number_classes
from dualfast.notices import warn


def join(paths: Sequence[str], parts: Sequence[Source]) -> Source:
    """The samples of all parts, one after the other. Classes are joined by name, or by number where no part has names.
    ValueError where only some have. Warns of a path that is given more than once."""
    real = [os.path.realpath(path) for path in paths]
    if len(set(real)) < len(real):
        twice = next(path for path, place in zip(paths, real, strict=True) if real.count(place) > 1)
        warn(f"{twice} is given more than once, and its images are there as often")
    files = [path for path in paths if os.path.isfile(path)]
    if len(splits := shards.splits_in(files)) > 1:
        warn(f"{some(files)} are files of several splits ({', '.join(splits)}), which are read as one data set")
    named = [part.class_names is not None for part in parts]
    if any(named) and not all(named):
        with_names, without = paths[named.index(True)], paths[named.index(False)]
        raise ValueError(f"{with_names} has class names and {without} has none; give data of one kind")
    labels, class_names = [part.labels for part in parts], parts[0].class_names
    if any(part.class_names != class_names for part in parts):
        _, class_names = number_classes([name for part in parts for name in part.class_names or ()])
        numbers = {name: number for number, name in enumerate(class_names)}
        labels = [np.array([numbers[n] for n in part.class_names or ()], np.int64)[part.labels] for part in parts]
    starts = np.cumsum([0, *map(len, parts)])
    others = [part.other_columns for part in parts]
    prefixes = _prefixes(paths)

    def describe(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return parts[part].describe(row - int(starts[part]))

    return Source(
        kind=parts[0].kind,
        location=some(paths, 2),
        labels=np.concatenate(labels),
        class_names=class_names,
        items=lambda: chain.from_iterable(part.items() for part in parts),
        names=lambda: _joined_names(prefixes, parts),
        describe=describe,
        left_out=tuple(text for part in parts for text in part.left_out),
        inventory=_joined_inventory(prefixes, parts, shards.missing(map(Path, files))),
        one_file_each=all(part.one_file_each for part in parts),
        other_columns=None if others.count(None) == len(others) else lambda: _joined_columns(others),
    )


def _joined_columns(parts: Sequence[Callable[[], OtherColumns] | None]) -> OtherColumns:
    """The other columns that all parts have; none where one is no table."""
    found = common_columns([own() for own in parts if own is not None])
    if None not in parts:
        return found
    import pyarrow as pa

    return OtherColumns(pa.schema([]), lambda: iter(()), (*found.schema.names, *found.differ))


def joined_files(paths: Sequence[str], parts: Sequence[Files]) -> Files:
    """The files of all parts, by the names that join gives them."""
    return sum((_below(prefix, files) for prefix, files in zip(_prefixes(paths), parts, strict=True)), Files.none())


def _prefixes(paths: Sequence[str]) -> list[str]:
    """What tells the names of one part from those of the others: its folder, as seen from the one that all share."""
    folders = [os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path)) for path in paths]
    common = os.path.commonpath(folders)
    relative = [os.path.relpath(folder, common) for folder in folders]
    return ["" if folder == "." else f"{folder}/" for folder in relative]


def _below(prefix: str, files: Files) -> Files:
    return replace(files, names=_prefixed(prefix, files.names))


def _prefixed(prefix: str, names: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(pa.scalar(prefix), names, "") if prefix else names


def _joined_names(prefixes: Sequence[str], parts: Sequence[Source]) -> Any:
    import pyarrow as pa

    names = [_prefixed(prefix, part.names().slice(0, len(part))) for prefix, part in zip(prefixes, parts, strict=True)]
    chunks = chain.from_iterable(n.chunks if isinstance(n, pa.ChunkedArray) else [n] for n in names)
    return pa.chunked_array(list(chunks), pa.string())


def _joined_inventory(prefixes: Sequence[str], parts: Sequence[Source], missing: Sequence[str]) -> Inventory:
    """Its files, those of samples first where each has one. missing: sentences on the shards that are not there."""
    each = all(part.one_file_each for part in parts)
    samples, others, without_images, inner = Files.none(), Files.none(), [], []
    remarks: dict[str, None] = dict.fromkeys(missing)
    left_out: dict[str, Counter[str]] = defaultdict(Counter)
    for prefix, part in zip(prefixes, parts, strict=True):
        files, n = _below(prefix, part.inventory.files), len(part) if each else 0
        samples += files.slice(0, n)
        others += files.slice(n, len(files))
        without_images += [prefix + name for name in part.inventory.without_images]
        inner += [prefix + name for name in part.inventory.inner]
        own = part.inventory.remarks
        if len(part.inventory.files) == 1:  # the others of its shards may be other parts
            own = tuple(remark for remark in own if not remark.endswith((shards.INCOMPLETE, shards.BESIDE)))
        remarks |= dict.fromkeys(own)
        for reason, counts in part.inventory.left_out.items():
            left_out[reason].update(counts)
    return Inventory(
        files=samples + others,
        left_out=left_out,
        without_images=tuple(without_images),
        inner=tuple(inner),
        remarks=tuple(remarks),
    )

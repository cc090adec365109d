"""compact: the samples that are kept, byte for byte, in a smaller .beton."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import checksums
from dualfast.data.beton.format import (
    DESCRIPTOR,
    FIELD_DTYPES,
    FLOAT_TYPE,
    HEADER,
    IMAGE_TYPE,
    INT_TYPE,
    VERSION,
    Beton,
    open_beton,
)
from dualfast.data.beton.write import Written, checksums_of, progress_bar, threads_of
from dualfast.data.index_list import selected_ids
from dualfast.storage import files
from dualfast.storage.resumable import Partial

ORIGINAL_INDEX = "original_index"
SAVE_EVERY = 1 << 28  # bytes copied between two notes of how far a copy has come


def compact(
    src: str | os.PathLike[str], indices: Any, dst: str | os.PathLike[str], *, progress: bool = True
) -> Written:
    """Copies the samples `indices` of `src` to the smaller .beton `dst`, byte for byte: nothing is decoded or encoded.

    indices: as for index_list.as_indices; rows of dst follow in ascending order. All fields are kept, and an integer
    field original_index holds each row's id in the first file (a file that was compacted before keeps its own). A copy
    that is stopped goes on from where it was when it is asked for again; it lies in DST.partial until it is whole.

    Raises ValueError for indices outside src, for fields of a type that FFCV does not define, and when dst is src."""
    source = open_beton(src)
    strange = [n for n, t in zip(source.field_names, source.field_types, strict=True) if t not in FIELD_DTYPES]
    if strange:
        raise ValueError(f"the field {strange[0]!r} of {src} has a custom type; compact cannot tell where its data lie")
    if Path(dst).exists() and Path(dst).samefile(src):
        raise ValueError(f"dst is src, {os.fspath(src)!r}; give another name")
    ids = np.unique(selected_ids(indices, source))
    table, moved = _moved(source, ids)
    metadata, descriptors = _rows(source, ids, table, moved)
    end = int(moved[-1] + table["size"][-1])
    asked = hashlib.blake2b(source.fingerprint.encode() + str(Path(src).stat().st_mtime_ns).encode() + ids.tobytes())
    with Partial(dst, asked.hexdigest()) as partial:
        write_to = partial.file

        def save(copied: int) -> None:
            os.fdatasync(write_to.fileno())
            partial.step(str(copied))

        done = int(partial.steps[-1]) if partial.steps else 0
        _copy(source.fd, write_to.fileno(), table, moved, done, save, progress)
        write_to.truncate(end)
        write_to.seek(end)
        table = table.copy()
        table["ptr"], table["sample_id"] = moved, np.searchsorted(ids, table["sample_id"].astype(np.int64))
        write_to.write(table.tobytes())
        write_to.seek(0)
        write_to.write(np.array([(VERSION, len(descriptors), source.page_size, len(ids), end)], HEADER).tobytes())
        write_to.write(descriptors.tobytes() + metadata.tobytes())
        write_to.flush()
        sums = checksums_of(partial.path, progress, threads_of(None))
        source.check_unchanged()
        made = open_beton(partial.path)
        side = source.side | {"n_samples": made.n_samples, "fingerprint": made.fingerprint, "skipped": []}
        side["compacted_from"] = {"n_samples": source.n_samples, "fingerprint": source.fingerprint}
        checksums.forget(dst)
        files.write_text(f"{os.fspath(dst)}.json", json.dumps(side, indent=1) + "\n")  # no file without its names
        partial.finish()
    checksums.save(dst, sums)
    return Written(Path(dst), made.n_samples, source.class_names, made.bytes, made.fingerprint, ())


def _moved(source: Beton, ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """The kept extents in the order they lie in, and where each of them goes: packed, none across a page's border."""
    kept = np.zeros(source.n_samples, bool)
    kept[ids] = True
    table = source.allocations
    table = table[kept[table["sample_id"]]]
    extra = 0 if ORIGINAL_INDEX in source.field_names else DESCRIPTOR.itemsize + 16 * len(ids)
    tables = HEADER.itemsize + source.descriptors.nbytes + len(ids) * source.metadata.dtype.itemsize + extra
    ends = np.cumsum(table["size"], dtype=np.uint64)
    moved = np.empty(len(table), np.uint64)
    page, first = -(-tables // source.page_size), 0
    while first < len(table):
        start = int(ends[first] - table["size"][first])
        last = int(np.searchsorted(ends, start + source.page_size, side="right"))
        moved[first:last] = ends[first:last] - table["size"][first:last] + np.uint64(page * source.page_size) - start
        page, first = page + 1, last
    return table, moved


def _rows(
    source: Beton, ids: NDArray[np.int64], table: NDArray[np.void], moved: NDArray[np.uint64]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Metadata rows whose pointers lead to the moved extents, and field descriptors, with original_index."""
    types, descriptors = list(source.field_types), source.descriptors
    if ORIGINAL_INDEX not in source.field_names:
        added = np.zeros(1, DESCRIPTOR)
        added["type_id"] = INT_TYPE
        added["name"][0, : len(ORIGINAL_INDEX)] = np.frombuffer(ORIGINAL_INDEX.encode(), np.uint8)
        types, descriptors = [*types, INT_TYPE], np.concatenate([descriptors, added])
    metadata = np.zeros(len(ids), np.dtype([("", FIELD_DTYPES[t]) for t in types], align=True))
    old = source.metadata[ids]
    places = 2 * table["ptr"] + (table["size"] > 0)  # an empty extent may lie where another begins
    for at, kind in enumerate(types):
        name = f"f{at}"
        if at == len(source.field_types):
            metadata[name] = ids
            continue
        metadata[name] = old[name]
        if kind not in (FLOAT_TYPE, INT_TYPE):
            pointer: Any = metadata[name]
            filled: Any = True
            if kind == IMAGE_TYPE:
                pointer = pointer["data_ptr"]
            elif pointer.dtype.names:
                pointer, filled = pointer["ptr"], pointer["size"] > 0
            pointer[:] = moved[np.minimum(np.searchsorted(places, 2 * pointer + filled), len(table) - 1)]
    return metadata, descriptors


def _copy(
    read: int, write_to: int, table: NDArray[np.void], moved: NDArray[np.uint64], done: int, save: Any, progress: bool
) -> None:
    """Copies extents that adjoin in both files in one call; the first `done` bytes are there already."""
    ptr, size = table["ptr"].astype(np.int64), table["size"].astype(np.int64)
    to = moved.astype(np.int64)
    adjoin = (ptr[:-1] + size[:-1] == ptr[1:]) & (to[:-1] + size[:-1] == to[1:])
    first = np.flatnonzero(np.concatenate([[True], ~adjoin]))
    length = np.add.reduceat(size, first)
    copied = saved = 0
    with progress_bar(int(length.sum()), "copying", progress, unit="B") as bar:
        for start, goal, left in zip(ptr[first].tolist(), to[first].tolist(), length.tolist(), strict=True):
            copied += left
            bar.update(left)
            if copied <= done:
                saved = copied
                continue
            while left:
                count = _copy_range(read, write_to, min(left, 1 << 26), start, goal)
                if not count:
                    raise ValueError(f"the source ends at byte {start}; it was cut short while it was copied")
                start, goal, left = start + count, goal + count, left - count
            if copied - saved >= SAVE_EVERY:
                save(copied)
                saved = copied


def _copy_range(read: int, write_to: int, count: int, start: int, goal: int) -> int:
    """In the kernel where both files lie on one file system."""
    try:
        return os.copy_file_range(read, write_to, count, start, goal)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return os.pwrite(write_to, os.pread(read, min(count, 1 << 20), start), goal)

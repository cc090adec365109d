"""Compacting: copies the kept samples, byte for byte, into a smaller .beton."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dualfast.arguments import as_path, checked_bool
from dualfast.data.beton import format as layout
from dualfast.data.beton.parallel import progress_bar, thread_count
from dualfast.data.beton.publish import Written, publish
from dualfast.data.beton.reader import Beton, open_beton
from dualfast.data.beton.verify import checked_pages, pages_of
from dualfast.data.index_list import selected_ids
from dualfast.storage.resumable import Partial

SAVE_EVERY = 1 << 28  # bytes copied between two steps of the journal
COPY_BYTES = 1 << 26  # in one call


def compact(
    src: str | os.PathLike[str],
    indices: Any,
    dst: str | os.PathLike[str],
    *,
    progress: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Written:
    """Copies the samples `indices` of `src` to the smaller .beton `dst`, byte for byte: nothing is decoded or encoded.

    indices: as for index_list.as_indices; the rows of dst are in ascending order. All fields are kept, and an integer
    field original_index holds each row's id in the original file (that of a file that was compacted before is kept). A
    copy that is stopped resumes from DST.partial when it is called again. image_column, label_column: of a file with
    several image or integer fields, those that the index list was drawn with.

    Raises ValueError for indices outside src, for fields of a type that FFCV does not define, when dst is src or exists
    and is none that compact made, and for a page with kept samples that differs from its checksum."""
    src, dst, progress = as_path("src", src), as_path("dst", dst), checked_bool("progress", progress)
    source = open_beton(src, image_column=image_column, label_column=label_column)
    custom = [n for n, t in zip(source.field_names, source.field_types, strict=True) if t not in layout.FIELD_DTYPES]
    if custom:
        raise ValueError(f"the field {custom[0]!r} of {src} has a custom type; compact does not know where its data is")
    if dst.exists() and dst.samefile(src):
        raise ValueError(f"dst is src, {str(src)!r}; give another name")
    _check_replaceable(dst)
    ids = np.unique(selected_ids(indices, source))
    kept, new_ptr = _new_places(source, ids)
    with Partial(dst, _request_hash(source, ids)) as partial:
        _copy_data(source, partial, kept, new_ptr, progress)
        _write_tables(source, partial.file, ids, kept, new_ptr)
        source.check_unchanged()
        sidecar = source.sidecar | {"n_samples": len(ids), "fingerprint": "", "skipped": []}
        sidecar["compacted_from"] = {"n_samples": source.n_samples, "fingerprint": source.fingerprint}
        for of_the_whole in ("inventory", "notes", "content", "options", "made_from"):
            sidecar.pop(of_the_whole, None)
        names = None if source.names is None else source.names.take(ids)
        return publish(partial, dst, sidecar, names, thread_count(None), progress)


def _check_replaceable(dst: Path) -> None:
    """ValueError where `dst` is anything but a file that compact made."""
    if not dst.exists():
        return
    try:
        with closing(open_beton(dst)) as found:
            is_compacted = "compacted_from" in found.sidecar
    except (ValueError, OSError):
        is_compacted = False
    if not is_compacted:
        raise ValueError(
            f"dst is {str(dst)!r}, which exists and was not made by compact; give another name, or delete it"
        )


def _request_hash(source: Beton, ids: NDArray[np.int64]) -> str:
    modified = str(source.path.stat().st_mtime_ns)
    return hashlib.blake2b(source.fingerprint.encode() + modified.encode() + ids.tobytes()).hexdigest()


def _new_places(source: Beton, ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """The kept rows of the allocation table by ascending ptr, and the new ptr of each: without gaps, except that none
    crosses a page boundary."""
    is_kept = np.zeros(source.n_samples, bool)
    is_kept[ids] = True
    table = source.allocations
    table = table[is_kept[table["sample_id"]]]
    added = 0 if layout.ORIGINAL_INDEX in source.field_names else layout.DESCRIPTOR.itemsize + 16 * len(ids)
    tables = layout.HEADER.itemsize + source.descriptors.nbytes + len(ids) * source.metadata.dtype.itemsize + added
    ends = np.cumsum(table["size"], dtype=np.uint64)
    new_ptr = np.empty(len(table), np.uint64)
    page_start, first = layout.start_of_pages(tables, source.page_size), 0
    while first < len(table):
        start = int(ends[first] - table["size"][first])
        last = int(np.searchsorted(ends, start + source.page_size, side="right"))
        new_ptr[first:last] = ends[first:last] - table["size"][first:last] + np.uint64(page_start) - start
        page_start, first = page_start + source.page_size, last
    return table, new_ptr


# ---- tables ---------------------------------------------------------------------------------------------------------


def _write_tables(
    source: Beton, file: BinaryIO, ids: NDArray[np.int64], kept: NDArray[np.void], new_ptr: NDArray[np.uint64]
) -> None:
    """The allocation table at the end, then all other tables at the start."""
    metadata, descriptors = _rows(source, ids, kept, new_ptr)
    end = int(new_ptr[-1] + kept["size"][-1])
    allocations = kept.copy()
    allocations["ptr"] = new_ptr
    allocations["sample_id"] = np.searchsorted(ids, kept["sample_id"].astype(np.int64))
    file.truncate(end)
    file.seek(end)
    file.write(allocations.tobytes())
    file.seek(0)
    file.write(layout.head(descriptors, metadata, n_samples=len(ids), page_size=source.page_size, table_start=end))
    file.flush()


def _rows(
    source: Beton, ids: NDArray[np.int64], kept: NDArray[np.void], new_ptr: NDArray[np.uint64]
) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """The kept metadata rows, with their new pointers and original_index, and the field descriptors."""
    types, descriptors = list(source.field_types), source.descriptors
    if layout.ORIGINAL_INDEX not in source.field_names:
        types, descriptors = (
            [*types, layout.INT_TYPE],
            np.concatenate([descriptors, layout.describe_field(layout.ORIGINAL_INDEX, layout.INT_TYPE)]),
        )
    metadata = np.zeros(len(ids), layout.row_dtype(layout.FIELD_DTYPES[t] for t in types))
    old = source.metadata[ids]
    extents = 2 * kept["ptr"] + (kept["size"] > 0)  # a sort key: an empty extent has the ptr of the next one
    for at, type_id in enumerate(types):
        name = f"f{at}"
        if at == len(source.field_types):
            metadata[name] = ids
            continue
        metadata[name] = old[name]
        if type_id not in (layout.FLOAT_TYPE, layout.INT_TYPE):
            ptr: Any = metadata[name]
            not_empty: Any = True
            if type_id == layout.IMAGE_TYPE:
                ptr = ptr["data_ptr"]
            elif ptr.dtype.names:
                ptr, not_empty = ptr["ptr"], ptr["size"] > 0
            ptr[:] = new_ptr[np.minimum(np.searchsorted(extents, 2 * ptr + not_empty), len(kept) - 1)]
    return metadata, descriptors


# ---- data -----------------------------------------------------------------------------------------------------------


def _copy_data(
    source: Beton, partial: Partial, kept: NDArray[np.void], new_ptr: NDArray[np.uint64], progress: bool
) -> None:
    """Copies the kept extents that an earlier attempt did not. A step's line in the journal is the number of bytes
    copied so far."""
    runs = _runs(kept, new_ptr)
    done = int(partial.steps[-1]) if partial.steps else 0
    checked = _checked(source, kept)
    target = partial.file.fileno()
    copied = saved = 0
    with progress_bar(int(kept["size"].sum()), "copying", progress, unit="B") as bar:
        for start, goal, length in runs:
            copied += length
            bar.update(length)
            if copied <= done:
                saved = copied
                continue
            checked(start + length)
            _copy_run(source.fd, target, start, goal, length)
            if copied - saved >= SAVE_EVERY:
                os.fdatasync(target)
                partial.step(str(copied))
                saved = copied


def _checked(source: Beton, kept: NDArray[np.void]) -> Callable[[int], None]:
    """A function that compares the pages of the kept extents with their checksums, up to a byte. ValueError for damage,
    which a copy with checksums of its own would hide."""
    if source.sums is None:
        return lambda end: None
    page_size = source.sums.page_size
    pages = checked_pages(source, pages_of(kept["ptr"], kept["size"], page_size), thread_count(None))
    last = -1

    def upto(end: int) -> None:
        nonlocal last
        while last < (end - 1) // page_size and (page := next(pages, None)) is not None:
            last = page

    return upto


def _runs(kept: NDArray[np.void], new_ptr: NDArray[np.uint64]) -> list[tuple[int, int, int]]:
    """(old ptr, new ptr, bytes) of each run of extents that are contiguous in both files, to copy in one call."""
    ptr, size, new = kept["ptr"].astype(np.int64), kept["size"].astype(np.int64), new_ptr.astype(np.int64)
    contiguous = (ptr[:-1] + size[:-1] == ptr[1:]) & (new[:-1] + size[:-1] == new[1:])
    first = np.flatnonzero(np.concatenate([[True], ~contiguous]))
    lengths = np.add.reduceat(size, first)
    return list(zip(ptr[first].tolist(), new[first].tolist(), lengths.tolist(), strict=True))


def _copy_run(source: int, target: int, start: int, goal: int, length: int) -> None:
    while length:
        count = _copy_range(source, target, min(length, COPY_BYTES), start, goal)
        if not count:
            raise ValueError(f"the source ends at byte {start}; it was cut short while it was copied")
        start, goal, length = start + count, goal + count, length - count


def _copy_range(source: int, target: int, count: int, start: int, goal: int) -> int:
    """Copies up to `count` bytes, in the kernel when both files are on one file system; returns how many."""
    try:
        return os.copy_file_range(source, target, count, start, goal)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            raise
    return os.pwrite(target, os.pread(source, min(count, 1 << 20), start), goal)

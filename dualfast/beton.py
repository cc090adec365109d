"""Making and checking .beton files without FFCV: write, verify, compact. The format itself: beton_file."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dualfast import checksums, files, order, sources
from dualfast.beton_file import (
    ALLOCATION,
    DESCRIPTOR,
    FIELD_DTYPES,
    FLOAT_TYPE,
    HEADER,
    IMAGE,
    IMAGE_TYPE,
    INT_TYPE,
    JPEG,
    RAW,
    VERSION,
    Beton,
    fingerprint,
    open_beton,
)

__all__ = ["JPEG", "RAW", "Beton", "Written", "compact", "fingerprint", "open_beton", "verify", "write"]

MIN_PAGE, MAX_PAGE = 1 << 21, 1 << 31
DEFAULT_PAGE = 1 << 23
SMALL_SET = 10_000  # samples; up to here small pages keep the file small
RAW_UP_TO = 64


@dataclass(frozen=True)
class Written:
    """What write() made. skipped: the images left out with skip_bad, by name, with the reason."""

    path: Path
    n_samples: int
    class_names: tuple[str, ...] | None
    bytes: int
    fingerprint: str
    skipped: tuple[str, ...]


def verify(path: str | os.PathLike[str], *, full: bool = False, progress: bool = True) -> Beton:
    """Checks header, tables, pointers, every sample's extent and, where PATH.crc holds them, the checksum of every
    page; without them that each JPEG starts as one. With full=True decodes every image too.

    Raises ValueError naming what is wrong first, for a page with the samples in it. Returns the opened file."""
    beton = open_beton(path)
    if beton.sums is not None:
        _check_pages(beton, beton.sums, progress)

    def check(rows: range) -> int:
        for row in rows:
            if full:
                beton.image(row)
            elif beton.mode[row] == JPEG and os.pread(beton.fd, 2, int(beton.ptr[row])) != b"\xff\xd8":
                raise ValueError(f"sample {row} of {beton.path} does not start as a JPEG does; write it again")
        return len(rows)

    if full or beton.sums is None:
        chunks = (range(at, min(at + 64, beton.n_samples)) for at in range(0, beton.n_samples, 64))
        with (
            ThreadPoolExecutor(_threads(None)) as pool,
            closing(_ordered(pool, check, chunks)) as futures,
            _progress(beton.n_samples, "verifying", progress) as bar,
        ):
            for future in futures:
                bar.update(future.result())
    return beton


def _check_pages(beton: Beton, sums: checksums.Checksums, progress: bool) -> None:
    with _progress(beton.bytes, "verifying", progress, unit="B") as bar:
        found = checksums.of_pages(beton.fd, sums.page_size, sums.length, _threads(None), bar.update)
    bad = np.flatnonzero(found != sums.pages)
    if len(bad):
        pages = (beton.allocations["ptr"] // np.uint64(sums.page_size)).astype(np.int64)
        inside = np.unique(beton.allocations["sample_id"][np.isin(pages, bad)])
        first = int(bad[0])
        where = f"page {first} (bytes {first * sums.page_size} to {min((first + 1) * sums.page_size, sums.length) - 1})"
        more = f" and {len(bad) - 1} more pages" if len(bad) > 1 else ""
        samples = f"{len(inside)} samples, {inside[0]} to {inside[-1]}" if len(inside) else "no sample"
        raise beton.differs(f"{where}{more}, with {samples}, differ{'' if more else 's'}")


# ---- writing --------------------------------------------------------------------------------------------------------


def write(
    source: Any,
    path: str | os.PathLike[str],
    *,
    max_size: int | None = None,
    jpeg_quality: int = 90,
    mode: Literal["auto", "jpeg", "raw"] = "auto",
    skip_bad: bool = False,
    progress: bool = True,
    page_size: int | None = None,
    num_workers: int | None = None,
) -> Written:
    """Writes `source` (see sources.open_source) to `path` as a .beton with the fields image and label, PATH.json and
    the checksums PATH.crc.

    mode "auto" stores images of up to 64 px raw and larger ones as JPEG; a JPEG that needs no change (RGB or gray,
    upright, not scaled down) keeps its bytes, anything else is encoded at jpeg_quality (1..100). max_size scales the
    longer side down to so many pixels. page_size: bytes, a power of two from 2 MiB; grown where an image needs more.
    The same source gives the same bytes for any num_workers. The file appears under its name only when it is whole.

    Raises ValueError for a bad argument or source and, naming it, for an image that cannot be read; with
    skip_bad=True such images are left out and listed in the result."""
    if mode not in ("auto", "jpeg", "raw"):
        raise ValueError(f'mode is {mode!r}; give "auto", "jpeg" or "raw"')
    if not 1 <= jpeg_quality <= 100:
        raise ValueError(f"jpeg_quality is {jpeg_quality}; give 1 to 100")
    if max_size is not None and max_size < 1:
        raise ValueError(f"max_size is {max_size}; give at least 1 px, or None")
    if page_size is not None and (not MIN_PAGE <= page_size <= MAX_PAGE or page_size & (page_size - 1)):
        raise ValueError(f"page_size is {page_size}; give a power of two from {MIN_PAGE} to {MAX_PAGE}")
    opened = sources.open_source(source)
    encoder = _Encoder(mode, max_size, jpeg_quality)
    page = page_size or (DEFAULT_PAGE if len(opened) > SMALL_SET else MIN_PAGE)
    with files.atomic(path) as part:
        while True:
            try:
                rows, skipped = _write_file(opened, part, encoder, page, skip_bad, progress, _threads(num_workers))
                break
            except _PageTooSmall as need:
                page = 1 << (need.size - 1).bit_length()
        sums = _checksums(part, progress, _threads(num_workers))
        checksums.forget(path)
    checksums.save(path, sums)
    beton = open_beton(path)
    side = {
        "n_samples": beton.n_samples,
        "class_names": opened.class_names,
        "source": opened.location,
        "source_kind": opened.kind,
        "fingerprint": beton.fingerprint,
        "skipped": skipped,
    }
    files.write_text(f"{os.fspath(path)}.json", json.dumps(side, indent=1) + "\n")
    return Written(Path(path), rows, opened.class_names, beton.bytes, beton.fingerprint, tuple(skipped))


class _PageTooSmall(Exception):
    def __init__(self, size: int) -> None:
        self.size = size


@dataclass(frozen=True)
class _Encoder:
    """From what a source yields to what the file stores: (mode, width, height, bytes), or the exception."""

    mode: str
    max_size: int | None
    quality: int

    def __call__(self, payload: sources.Payload | Exception) -> tuple[int, int, int, bytes] | Exception:
        if isinstance(payload, Exception):
            return payload
        try:
            return self._as_it_is(payload) or self._encoded(payload)
        except Exception as error:  # whatever Pillow raises, for write() to name the image
            return error

    def _as_it_is(self, payload: sources.Payload) -> tuple[int, int, int, bytes] | None:
        """The JPEG's own bytes where nothing asks for a change."""
        if self.mode == "raw" or not isinstance(payload, bytes) or payload[:2] != b"\xff\xd8":
            return None
        from PIL import ExifTags, Image

        with Image.open(io.BytesIO(payload)) as image:
            width, height = image.size
            longest = max(width, height)
            if (
                image.format != "JPEG"
                or image.mode not in ("RGB", "L")
                or (self.mode == "auto" and longest <= RAW_UP_TO)
                or (self.max_size is not None and longest > self.max_size)
                or image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            ):
                return None
            if b"\xff\xd9" not in payload[-1024:]:  # no end marker: cut short, unless it decodes whole
                image.load()
        return JPEG, width, height, payload

    def _encoded(self, payload: sources.Payload) -> tuple[int, int, int, bytes]:
        image = sources.decode(payload, max_size=self.max_size)
        width, height = image.size
        if max(width, height) > 0xFFFF:
            raise ValueError(f"{width} x {height} px is more than the format holds; pass max_size")
        if self.mode == "raw" or (self.mode == "auto" and max(width, height) <= RAW_UP_TO):
            return RAW, width, height, image.tobytes()
        out = io.BytesIO()
        image.save(out, "JPEG", quality=self.quality)
        return JPEG, width, height, out.getvalue()


def _write_file(
    source: sources.Source, path: Path, encoder: _Encoder, page: int, skip_bad: bool, progress: bool, threads: int
) -> tuple[int, list[str]]:
    """Header last, so a file that was not finished never looks like one."""
    count = len(source)
    dtype = np.dtype([("", IMAGE), ("", np.dtype("<i8"))], align=True)
    metadata = np.zeros(count, dtype)
    allocations = np.zeros(count, ALLOCATION)
    descriptors = np.zeros(2, DESCRIPTOR)
    for row, (name, type_id) in zip(descriptors, (("image", IMAGE_TYPE), ("label", INT_TYPE)), strict=True):
        row["type_id"] = type_id
        row["name"][: len(name)] = np.frombuffer(name.encode("ascii"), np.uint8)
    tables = HEADER.itemsize + descriptors.nbytes + metadata.nbytes
    at = -(-tables // page) * page
    rows, skipped = 0, []
    items = iter(source.items())
    chunks = iter(lambda: list(islice(items, 32)), [])
    with (
        open(path, "wb") as file,
        ThreadPoolExecutor(threads) as pool,
        closing(_ordered(pool, lambda chunk: [encoder(payload) for payload in chunk], chunks)) as futures,
        _progress(count, "writing", progress) as bar,
    ):
        file.seek(at)
        number = -1
        for future in futures:
            encoded = future.result()
            for outcome in encoded:
                number += 1
                if isinstance(outcome, Exception):
                    trouble = f"{source.describe(number)}: {str(outcome) or type(outcome).__name__}"
                    if not skip_bad:
                        raise ValueError(f"cannot read {trouble}; skip_bad=True (--skip-bad) leaves such images out")
                    skipped.append(trouble)
                    continue
                mode, width, height, data = outcome
                if len(data) > page:
                    raise _PageTooSmall(len(data))
                if at % page + len(data) > page:
                    at = -(-at // page) * page
                    file.seek(at)
                file.write(data)
                metadata[rows] = ((mode, width, height, at), source.labels[number])
                allocations[rows] = (rows, at, len(data))
                at += len(data)
                rows += 1
            bar.update(len(encoded))
        if number + 1 != count:
            raise ValueError(f"{source.location} announced {count} images and gave {number + 1}")
        if rows == 0:
            raise ValueError(f"{source.location}: none of its {count} images can be read; the first is {skipped[0]}")
        file.write(allocations[:rows].tobytes())
        file.seek(HEADER.itemsize)
        file.write(descriptors.tobytes() + metadata[:rows].tobytes())
        file.seek(0)
        file.write(np.array([(VERSION, 2, page, rows, at)], HEADER).tobytes())
    return rows, skipped


# ---- compacting -----------------------------------------------------------------------------------------------------

ORIGINAL_INDEX = "original_index"
SAVE_EVERY = 1 << 28  # bytes copied between two notes of how far a copy has come


def compact(
    src: str | os.PathLike[str], indices: Any, dst: str | os.PathLike[str], *, progress: bool = True
) -> Written:
    """Copies the samples `indices` of `src` to the smaller .beton `dst`, byte for byte: nothing is decoded or encoded.

    indices: in any form of order.as_indices; rows of dst follow in ascending order. All fields are kept, and an integer
    field original_index holds each row's id in the first file (a file that was compacted before keeps its own). A copy
    that is stopped goes on from where it was when it is asked for again; it lies in DST.partial until it is whole.

    Raises ValueError for indices outside src, for fields of a type that FFCV does not define, and when dst is src."""
    source = open_beton(src)
    strange = [n for n, t in zip(source.field_names, source.field_types, strict=True) if t not in FIELD_DTYPES]
    if strange:
        raise ValueError(f"the field {strange[0]!r} of {src} has a custom type; compact cannot tell where its data lie")
    if Path(dst).exists() and Path(dst).samefile(src):
        raise ValueError(f"dst is src, {os.fspath(src)!r}; give another name")
    ids = np.unique(order.as_indices(indices, source.n_samples))
    table, moved = _moved(source, ids)
    metadata, descriptors = _rows(source, ids, table, moved)
    end = int(moved[-1] + table["size"][-1])
    asked = hashlib.blake2b(source.fingerprint.encode() + str(Path(src).stat().st_mtime_ns).encode() + ids.tobytes())
    partial, note = Path(f"{os.fspath(dst)}.partial"), Path(f"{os.fspath(dst)}.partial.json")
    done = 0
    if partial.exists() and note.exists():
        before = json.loads(note.read_text(encoding="utf-8"))
        done = before["copied"] if before["asked"] == asked.hexdigest() else 0
    with open(partial, "rb+" if done else "wb") as write_to:

        def save(copied: int) -> None:
            os.fdatasync(write_to.fileno())
            files.write_text(note, json.dumps({"asked": asked.hexdigest(), "copied": copied}))

        _copy(source.fd, write_to.fileno(), table, moved, done, save, progress)
        write_to.truncate(end)
        write_to.seek(end)
        table = table.copy()
        table["ptr"], table["sample_id"] = moved, np.searchsorted(ids, table["sample_id"].astype(np.int64))
        write_to.write(table.tobytes())
        write_to.seek(HEADER.itemsize)
        write_to.write(descriptors.tobytes() + metadata.tobytes())
        write_to.flush()
        os.fsync(write_to.fileno())
        write_to.seek(0)
        header = (VERSION, len(descriptors), source.page_size, len(ids), end)
        write_to.write(np.array([header], HEADER).tobytes())
        write_to.flush()
        os.fsync(write_to.fileno())
    sums = _checksums(partial, progress, _threads(None))
    source.check_unchanged()
    checksums.forget(dst)
    os.replace(partial, dst)
    checksums.save(dst, sums)
    note.unlink(missing_ok=True)
    made = open_beton(dst)
    side = source.side | {"n_samples": made.n_samples, "fingerprint": made.fingerprint, "skipped": []}
    side["compacted_from"] = {"n_samples": source.n_samples, "fingerprint": source.fingerprint}
    files.write_text(f"{os.fspath(dst)}.json", json.dumps(side, indent=1) + "\n")
    return Written(Path(dst), made.n_samples, made.class_names, made.bytes, made.fingerprint, ())


def _moved(source: Beton, ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.uint64]]:
    """The kept extents in the order they lie in, and where each of them goes: packed, none across a page's border."""
    kept = np.zeros(source.n_samples, bool)
    kept[ids] = True
    table = source.allocations[kept[source.allocations["sample_id"]]]
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
    for at, kind in enumerate(types):
        name = f"f{at}"
        if at == len(source.field_types):
            metadata[name] = ids
            continue
        metadata[name] = old[name]
        if kind not in (FLOAT_TYPE, INT_TYPE):
            pointer = metadata[name]
            if pointer.dtype.names:
                pointer = pointer["data_ptr" if kind == IMAGE_TYPE else "ptr"]
            pointer[:] = moved[np.minimum(np.searchsorted(table["ptr"], pointer), len(table) - 1)]
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
    with _progress(int(length.sum()), "copying", progress, unit="B") as bar:
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


# ---- shared ---------------------------------------------------------------------------------------------------------


def _ordered(pool: ThreadPoolExecutor, work: Any, chunks: Iterator[Any]) -> Generator[Future[Any], None, None]:
    """Runs work(chunk) on the pool, a few chunks ahead, and yields the futures in order. Closed early, it cancels what
    has not begun, so that an error or an interrupt does not wait for it."""
    waiting: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > 4 * pool._max_workers:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for future in waiting:
            future.cancel()


def _checksums(path: Path, progress: bool, threads: int) -> checksums.Checksums:
    made = Beton(path)
    with _progress(made.bytes, "checksums", progress, unit="B") as bar:
        pages = checksums.of_pages(made.fd, made.page_size, made.bytes, threads, bar.update)
    return checksums.Checksums(made.page_size, made.bytes, made.tables_crc, pages)


def _progress(total: int, what: str, wanted: bool, unit: str = " images") -> Any:
    """A bar on a terminal, after two seconds."""
    from tqdm import tqdm

    quiet = None if wanted else True
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", delay=2, disable=quiet, leave=False)


def _threads(asked: int | None) -> int:
    return asked if asked and asked > 0 else len(os.sched_getaffinity(0))

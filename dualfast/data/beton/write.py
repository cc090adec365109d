"""Making and checking .beton files without FFCV: write and verify. The format itself: beton_file."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np

from dualfast.data import sources
from dualfast.data.beton import checksums
from dualfast.data.beton.format import (
    ALLOCATION,
    DESCRIPTOR,
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
from dualfast.storage import files
from dualfast.storage.resumable import Partial

__all__ = ["JPEG", "RAW", "Beton", "Written", "fingerprint", "open_beton", "verify", "write"]

MIN_PAGE, MAX_PAGE = 1 << 21, 1 << 31
DEFAULT_PAGE = 1 << 23
SMALL_SET = 10_000  # samples; up to here small pages keep the file small
RAW_UP_TO = 64
CHUNK = 32  # images that are encoded, and noted as done, together


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
            ThreadPoolExecutor(threads_of(None)) as pool,
            closing(_ordered(pool, check, chunks)) as futures,
            progress_bar(beton.n_samples, "verifying", progress) as bar,
        ):
            for future in futures:
                bar.update(future.result())
    return beton


def _check_pages(beton: Beton, sums: checksums.Checksums, progress: bool) -> None:
    with progress_bar(beton.bytes, "verifying", progress, unit="B") as bar:
        found = checksums.of_pages(beton.fd, sums.page_size, sums.length, threads_of(None), bar.update)
    bad = np.flatnonzero(found != sums.pages)
    if len(bad):
        table = beton.allocations
        pages = (table["ptr"] // np.uint64(sums.page_size)).astype(np.int64)
        inside = np.unique(table["sample_id"][np.isin(pages, bad)])
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
    The same source gives the same bytes for any num_workers. The file appears under its name only when it is whole; a
    write that is stopped, or killed, goes on in PATH.partial when it is asked for again: images that are there are
    compared with the source by checksum, not encoded anew.

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
    import PIL

    opened = sources.open_source(source)
    encoder = _Encoder(mode, max_size, jpeg_quality)
    asked = hashlib.blake2b(repr((encoder, page_size, PIL.__version__)).encode() + opened.labels.tobytes())
    with Partial(path, asked.hexdigest()) as partial:
        page = page_size or (DEFAULT_PAGE if len(opened) > SMALL_SET else MIN_PAGE)
        if partial.steps:
            page = json.loads(partial.steps[0])["page"]
        while True:
            try:
                rows, skipped = _write_file(opened, partial, encoder, page, skip_bad, progress, threads_of(num_workers))
                break
            except _PageTooSmall as need:
                page = 1 << (need.size - 1).bit_length()
                partial.truncate_steps(0)
            except _StepDiffers as found:
                partial.truncate_steps(found.step)
        sums = checksums_of(partial.path, progress, threads_of(num_workers))
        beton = open_beton(partial.path)
        side = {
            "n_samples": beton.n_samples,
            "class_names": opened.class_names,
            "source": opened.location,
            "source_kind": opened.kind,
            "fingerprint": beton.fingerprint,
            "skipped": skipped,
        }
        checksums.forget(path)
        files.write_text(f"{os.fspath(path)}.json", json.dumps(side, indent=1) + "\n")  # no file without its names
        partial.finish()
    checksums.save(path, sums)
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
            image.draft(image.mode, (1, 1))  # at an eighth of its size: all of it is read, and most of the work saved
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


class _StepDiffers(Exception):
    """An earlier try's step that the source or the file no longer agrees with."""

    def __init__(self, step: int) -> None:
        self.step = step


def _write_file(
    source: sources.Source, partial: Partial, encoder: _Encoder, page: int, skip_bad: bool, progress: bool, threads: int
) -> tuple[int, list[str]]:
    """Fills partial.file. A step is a chunk of the source; its line holds, of each image, the checksum of what the
    source gave and either its metadata with the checksum of what was stored, or why it cannot be read."""
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
    file, kept = partial.file, len(partial.steps)
    number, rows, skipped = 0, 0, []

    def work(chunk: tuple[list[sources.Payload | Exception], bytes | None]) -> list[tuple[Any, bytes]] | None:
        payloads, step = chunk
        if step is None:
            return [_stored(payload, encoder(payload)) for payload in payloads]
        images = json.loads(step)["images"]
        same = len(images) == len(payloads) and all(map(is_there, images, payloads))
        return [(image, b"") for image in images] if same else None

    def is_there(image: list[Any], payload: sources.Payload | Exception) -> bool:
        if image[0] != _crc(payload):
            return False
        return len(image) == 2 or crc32(os.pread(file.fileno(), image[5], image[4])) == image[6]

    items = iter(source.items())
    chunks = zip(iter(lambda: list(islice(items, CHUNK)), []), chain(partial.steps, repeat(None)), strict=False)
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(_ordered(pool, work, chunks)) as futures,
        progress_bar(count, "writing", progress) as bar,
    ):
        for step, future in enumerate(futures):
            images = future.result()
            if images is None:
                raise _StepDiffers(step)
            if step == kept:
                file.truncate(at)  # what an earlier try left behind its last step
            for image, data in images:
                if len(image) == 2:
                    trouble = f"{source.describe(number)}: {image[1]}"
                    if not skip_bad:
                        raise ValueError(f"cannot read {trouble}; skip_bad=True (--skip-bad) leaves such images out")
                    skipped.append(trouble)
                else:
                    _, mode, width, height, ptr, size, _ = image
                    if step >= kept:
                        if size > page:
                            raise _PageTooSmall(size)
                        ptr = image[4] = at if at % page + size <= page else -(-at // page) * page
                        file.seek(ptr)
                        file.write(data)
                    metadata[rows] = ((mode, width, height, ptr), source.labels[number])
                    allocations[rows] = (rows, ptr, size)
                    at = ptr + size
                    rows += 1
                number += 1
            if step >= kept:
                file.flush()
                partial.step(json.dumps({"page": page, "images": [image for image, _ in images]}))
            bar.update(len(images))
        if number != count:
            raise ValueError(f"{source.location} announced {count} images and gave {number}")
        if rows == 0:
            raise ValueError(f"{source.location}: none of its {count} images can be read; the first is {skipped[0]}")
        file.truncate(at)
        file.seek(at)
        file.write(allocations[:rows].tobytes())
        file.seek(0)
        file.write(np.array([(VERSION, 2, page, rows, at)], HEADER).tobytes())
        file.write(descriptors.tobytes() + metadata.tobytes())
        file.flush()
    return rows, skipped


def _stored(
    payload: sources.Payload | Exception, outcome: tuple[int, int, int, bytes] | Exception
) -> tuple[list[Any], bytes]:
    """An image as its step's line holds it, its place still open, and its bytes."""
    if isinstance(outcome, Exception):
        return [_crc(payload), str(outcome) or type(outcome).__name__], b""
    mode, width, height, data = outcome
    return [_crc(payload), mode, width, height, 0, len(data), crc32(data)], data


def _crc(payload: sources.Payload | Exception) -> int:
    if isinstance(payload, np.ndarray):
        return crc32(np.ascontiguousarray(payload).data, crc32(str(payload.shape).encode()))
    return crc32(payload if isinstance(payload, bytes) else str(payload).encode())


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


def checksums_of(path: Path, progress: bool, threads: int) -> checksums.Checksums:
    made = Beton(path)
    with progress_bar(made.bytes, "checksums", progress, unit="B") as bar:
        pages = checksums.of_pages(made.fd, made.page_size, made.bytes, threads, bar.update)
    return checksums.Checksums(made.page_size, made.bytes, made.tables_crc, pages)


def progress_bar(total: int, what: str, wanted: bool, unit: str = " images") -> Any:
    """A bar on a terminal, after two seconds."""
    from tqdm import tqdm

    quiet = None if wanted else True
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", delay=2, disable=quiet, leave=False)


def threads_of(asked: int | None) -> int:
    return asked if asked and asked > 0 else len(os.sched_getaffinity(0))

"""Writing a .beton without FFCV."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial as bind
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple
from zlib import crc32

import numpy as np

from dualfast.arguments import as_path, checked_bool, checked_choice, checked_int
from dualfast.config import DEFAULT_JPEG_QUALITY, MIN_SIZE, Reading
from dualfast.data import sources
from dualfast.data.beton.encode import Encoder
from dualfast.data.beton.format import (
    ALLOCATION,
    FIELD_DTYPES,
    HEADER,
    IMAGE_TYPE,
    INT_TYPE,
    describe_field,
    head,
    row_dtype,
    start_of_pages,
)
from dualfast.data.beton.parallel import AHEAD_PER_THREAD, in_order, progress_bar, thread_count
from dualfast.data.beton.publish import Written, publish
from dualfast.data.beton.reader import open_beton
from dualfast.data.beton.space import check_space
from dualfast.data.beton.target import already_there, content_digest, made_from, payload_crc
from dualfast.data.images import DARK, DEEP, FLOAT, FLOAT_255, FRAMES, HUGE, TRANSPARENT, Payload, parse_colour
from dualfast.data.inventory import some
from dualfast.data.names import Names
from dualfast.notices import warn
from dualfast.storage.resumable import Partial

MIN_PAGE = 1 << 21  # bytes
MAX_PAGE = 1 << 28  # the images begin a page after the tables, and what lies between is checksummed
DEFAULT_PAGE = 1 << 23
SMALL_SET = 10_000  # samples; up to here MIN_PAGE is the default, which keeps the file small
CHUNK = 32  # images that are encoded by one thread and become one step of the journal

Chunk = list[Payload | Exception]

CHANGED = {
    TRANSPARENT: "with transparent parts, composited on {background}; background=COLOUR takes another",
    FLOAT: "with float values in 0..1, scaled to 0..255",
    FLOAT_255: "with float values in 0..255, rounded",
    HUGE: "above Pillow's pixel limit, scaled down to {max_size} px",
    DEEP: "of 16 bits per pixel, of which the upper 8 are kept",
    DARK: "of 16 bits per pixel with values below 4,096, whose upper 8 bits, which are kept, look black; multiply "
    "the values by 16 first",
    FRAMES: "with several frames or pages, of which the first is used",
}
"""What is said of the images of a kind that was changed."""


def write(
    source: Any,
    path: str | os.PathLike[str],
    *,
    max_size: int | None = None,
    jpeg_quality: int = DEFAULT_JPEG_QUALITY,
    mode: Literal["auto", "jpeg", "raw"] = "auto",
    background: str = "white",
    skip_bad: bool = False,
    rewrite: bool = False,
    progress: bool = True,
    page_size: int | None = None,
    num_workers: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: str | None = None,
    follow_links: bool = False,
) -> Written:
    """Writes `source` (see sources.open_source) to `path` as a .beton with the fields image and label, with PATH.json,
    the names of the samples PATH.names.parquet and the checksums PATH.crc.

    mode "auto" stores images of up to 64 px raw and larger ones as JPEG; a JPEG that needs no change (RGB or gray,
    upright, not scaled down) keeps its bytes, anything else is encoded at jpeg_quality (1..100). max_size: scales the
    longer side down to this many pixels. background: the colour behind transparent parts, a name or "#rrggbb".
    page_size: bytes, a power of two from 2 to 256 MiB; it grows when an image needs more. image_column, label_column:
    the Parquet columns, or .npz arrays, to read, where name and type do not tell. labels: a table of the files in the
    folder `source` and their labels. follow_links: also links that lead out of that folder. The same source gives the
    same bytes for any num_workers. The file appears under its name only when it is complete; a write that is stopped,
    or killed, resumes from PATH.partial when it is called again: images stored there are compared with the source by
    checksum, not encoded again. A .beton at `path` that was made of these data with these options stays as it is
    (already_there of the result); one of other data or options is replaced with rewrite=True only, no other file is.

    Warns of files that are left out, of class folders without images, and of each kind of image that is changed. Raises
    ValueError for an invalid argument or source and, naming it, for an image that cannot be read; with skip_bad=True
    such images are left out and listed in the result."""
    path = as_path("path", path)
    skip_bad, rewrite = checked_bool("skip_bad", skip_bad), checked_bool("rewrite", rewrite)
    follow_links, progress = checked_bool("follow_links", follow_links), checked_bool("progress", progress)
    checked_choice("mode", mode, ("auto", "jpeg", "raw"))
    jpeg_quality = checked_int("jpeg_quality", jpeg_quality, 1, 100)
    if max_size is not None:
        max_size = checked_int("max_size", max_size, MIN_SIZE)
    if page_size is not None:
        page_size = checked_int("page_size", page_size)
        if not MIN_PAGE <= page_size <= MAX_PAGE or page_size & (page_size - 1):
            raise ValueError(f"page_size is {page_size}; give a power of two from {MIN_PAGE} to {MAX_PAGE}")
    if not isinstance(labels, str | os.PathLike | None):
        raise TypeError(
            f"labels is a {type(labels).__name__}; give the path of a table of files and labels, or images and labels "
            "in memory as a pair: write((images, labels), path)"
        )
    encoder = Encoder(mode, max_size, jpeg_quality, parse_colour(background))
    reading = Reading(image_column=image_column, label_column=label_column, labels=labels, follow_links=follow_links)
    opened = sources.open_source(source, reading)
    options: dict[str, Any] = {"mode": mode, "max_size": max_size, "jpeg_quality": jpeg_quality}
    options |= {"background": f"#{bytes(encoder.background).hex()}", "page_size": page_size}
    chosen = opened.reading if opened is source else reading
    options |= {"image_column": chosen.image_column, "label_column": chosen.label_column}
    found = already_there(path, opened, options, skip_bad=skip_bad, rewrite=rewrite)
    if found is not None:
        warn_of_notes(open_beton(found.path).sidecar, opened.location)
        return found
    notes = opened.notes()
    for note in notes:
        warn(f"{opened.location}: {note}")
    threads = thread_count(num_workers)
    with Partial(path, _request_hash(opened, encoder, page_size)) as partial:
        rows = _write_images(opened, encoder, partial, page_size, skip_bad, threads, progress)
        rows.write_tables(partial.file)
        changed = [*_changed(rows, encoder, background)]
        for note in changed:
            warn(f"{opened.location}: {note}")
        sidecar = {
            "n_samples": rows.stored,
            "class_names": opened.class_names,
            "source": opened.location,
            "source_kind": opened.kind,
            "fingerprint": "",  # publish adds it here
            "skipped": [*opened.left_out, *rows.skipped],
            "inventory": opened.inventory.summary() | {"changed": dict(rows.changed)},
            "notes": notes + changed,
            "options": options,
            "content": None if len(opened.inventory.files) else rows.content.hexdigest(),
            "made_from": made_from(opened),
        }
        return publish(partial, path, sidecar, Names.of(opened, rows.is_stored), threads, progress)


def _changed(rows: _Rows, encoder: Encoder, background: str) -> Iterator[str]:
    """A sentence on each kind of image that was changed, and on those that were left out."""
    for kind, count in rows.changed.items():
        text = CHANGED[kind].format(background=background, max_size=encoder.max_size)
        yield f"{count:,} {'image' if count == 1 else 'images'} {text}"
    if rows.skipped:
        yield f"{len(rows.skipped):,} unreadable, left out: {some(rows.skipped, 3)}"
        labels, names = rows.source.labels, rows.source.class_names
        lost = np.setdiff1d(labels, labels[rows.is_stored]).tolist()
        if lost:
            left = [names[label] if names else str(label) for label in lost]
            yield f"{'1 class has' if len(left) == 1 else f'{len(left):,} classes have'} no image left: {some(left)}"


def warn_of_notes(sidecar: Mapping[str, Any], location: str) -> None:
    """Warns again of what write warned of, which PATH.json keeps."""
    notes = sidecar.get("notes")
    for note in notes if isinstance(notes, list) else ():
        warn(f"{location}: {note}")


def _request_hash(source: sources.Source, encoder: Encoder, page_size: int | None) -> str:
    """Equal hashes: an earlier attempt may be resumed."""
    import PIL

    request = repr((encoder, page_size, PIL.__version__))
    return hashlib.blake2b(request.encode() + source.labels.tobytes()).hexdigest()


# ---- the journal: a step is a chunk of the source -------------------------------------------------------------------


class _Stored(NamedTuple):
    """An image as its step records it. payload_crc: of what the source yielded; data_crc: of what the file holds;
    kinds: of change, as in Encoded."""

    payload_crc: int
    mode: int
    width: int
    height: int
    ptr: int
    size: int
    data_crc: int
    kinds: tuple[str, ...] = ()


class _Unreadable(NamedTuple):
    payload_crc: int
    reason: str


EncodedChunk = list[tuple[_Stored | _Unreadable, bytes]]


def _parse_step(line: bytes) -> list[_Stored | _Unreadable]:
    images = json.loads(line)["images"]
    return [_Unreadable(*image) if len(image) == 2 else _Stored(*image) for image in images]


def _finished_steps(partial: Partial, chunks: Iterator[Chunk], threads: int) -> tuple[list[bytes], Iterator[Chunk]]:
    """The steps of an earlier attempt up to the first that disagrees with the source or the file, and the chunks of the
    source after them."""

    def agrees(pair: tuple[Chunk, bytes]) -> bool:
        payloads, images = pair[0], _parse_step(pair[1])
        return len(payloads) == len(images) and all(map(bind(_is_stored, partial.file), images, payloads))

    finished: list[bytes] = []
    while len(finished) < len(partial.steps):
        lines = partial.steps[len(finished) :][: AHEAD_PER_THREAD * threads]
        batch = list(islice(chunks, len(lines)))
        same = [*in_order(agrees, zip(batch, lines, strict=False), threads), False].index(False)
        finished += lines[:same]
        if same < len(lines):
            return finished, chain(batch[same:], chunks)
    return finished, chunks


def _is_stored(file: BinaryIO, image: _Stored | _Unreadable, payload: Payload | Exception) -> bool:
    if image.payload_crc != payload_crc(payload):
        return False
    return isinstance(image, _Unreadable) or crc32(os.pread(file.fileno(), image.size, image.ptr)) == image.data_crc


# ---- writing --------------------------------------------------------------------------------------------------------


class _Rows:
    """The tables of the file while it grows. Images follow each other without gaps, except that none crosses a page
    boundary.

    n_read: samples of the source seen so far; stored: those in the file; end: where the last one ends, in bytes;
    is_stored: a mask over the samples of the source; skipped: those that are not stored, as "name: reason"; changed:
    the number of images of each kind that was changed; content: as target.content_of."""

    def __init__(self, source: sources.Source, page_size: int, skip_bad: bool) -> None:
        self.source, self.page_size, self.skip_bad = source, page_size, skip_bad
        self.descriptors = np.concatenate([describe_field("image", IMAGE_TYPE), describe_field("label", INT_TYPE)])
        self.metadata = np.zeros(len(source), row_dtype((FIELD_DTYPES[IMAGE_TYPE], FIELD_DTYPES[INT_TYPE])))
        self.allocations = np.zeros(len(source), ALLOCATION)
        self.n_read = self.stored = 0
        self.end = start_of_pages(HEADER.itemsize + self.descriptors.nbytes + self.metadata.nbytes, page_size)
        self.is_stored = np.zeros(len(source), bool)
        self.skipped: list[str] = []
        self.changed: Counter[str] = Counter()
        self.content = content_digest(source)

    def next_ptr(self, size: int) -> int:
        """Where an image of so many bytes goes."""
        fits = self.end % self.page_size + size <= self.page_size
        return self.end if fits else start_of_pages(self.end, self.page_size)

    def add(self, images: list[_Stored | _Unreadable]) -> None:
        """Adds the next samples of the source. ValueError for an unreadable one unless skip_bad, or too many."""
        first, last = self.n_read, self.n_read + len(images)
        if last > len(self.source):
            raise ValueError(f"{self.source.location} declared {len(self.source)} samples and yielded more")
        metadata: list[tuple[tuple[int, ...], int]] = []
        allocations: list[tuple[int, ...]] = []
        for at, (image, label) in enumerate(zip(images, self.source.labels[first:last].tolist(), strict=True), first):
            self.content.update(image.payload_crc.to_bytes(4, "little"))
            if isinstance(image, _Unreadable):
                self._skip(at, image)
                continue
            metadata.append(((image.mode, image.width, image.height, image.ptr), label))
            allocations.append((self.stored + len(allocations), image.ptr, image.size))
            self.end = image.ptr + image.size
            self.is_stored[at] = True
            if image.kinds:
                self.changed.update(image.kinds)
        stored = self.stored + len(metadata)
        if metadata:
            self.metadata[self.stored : stored], self.allocations[self.stored : stored] = metadata, allocations
        self.n_read, self.stored = last, stored

    def _skip(self, row: int, image: _Unreadable) -> None:
        trouble = f"{self.source.describe(row)}: {image.reason}"
        if not self.skip_bad:
            raise ValueError(f"cannot read {trouble}; skip_bad=True leaves such images out")
        self.skipped.append(trouble)

    def write_tables(self, file: BinaryIO) -> None:
        """The allocation table at the end, then all other tables at the start. ValueError when the source yielded too
        few samples, or none that can be read."""
        if self.n_read != len(self.source):
            raise ValueError(f"{self.source.location} declared {len(self.source)} samples, yielded {self.n_read}")
        if self.stored == 0:
            raise ValueError(
                f"{self.source.location}: none of its {self.n_read} images can be read; the first: {self.skipped[0]}"
            )
        file.seek(self.end)
        file.write(self.allocations[: self.stored].view(np.uint8).data)
        file.seek(0)
        table = {"n_samples": self.stored, "page_size": self.page_size, "table_start": self.end}
        file.write(head(self.descriptors, self.metadata, **table))
        file.flush()
        del self.metadata, self.allocations  # the file, which is checked next, is read into as much memory


def _write_images(
    source: sources.Source,
    encoder: Encoder,
    partial: Partial,
    page_size: int | None,
    skip_bad: bool,
    threads: int,
    progress: bool,
) -> _Rows:
    """Fills partial.file with the images: those that an earlier attempt stored stay, the others are encoded. When an
    image turns out larger than a page, it starts over with larger pages: sizes are known only after encoding."""
    page = page_size or (DEFAULT_PAGE if len(source) > SMALL_SET else MIN_PAGE)
    finished, chunks = _finished_steps(partial, _chunks(source), threads)
    if finished:
        page = json.loads(partial.steps[0])["page"]
    partial.truncate_steps(len(finished))
    with progress_bar(len(source), "writing", progress) as bar:
        while True:
            rows = _Rows(source, page, skip_bad)
            for line in finished:
                rows.add(_parse_step(line))
            bar.update(rows.n_read)
            too_large = _append(chunks, rows, encoder, partial, threads, bar)
            if too_large is None:
                return rows
            page = 1 << (too_large - 1).bit_length()
            finished, chunks = [], _chunks(source)
            partial.truncate_steps(0)
            bar.reset()


def _append(
    chunks: Iterator[Chunk], rows: _Rows, encoder: Encoder, partial: Partial, threads: int, bar: Any
) -> int | None:
    """Encodes the chunks and appends them to partial.file, each as one step. Returns None, or the size of the first
    image that is larger than a page, where it stops."""
    file = partial.file
    file.truncate(rows.end)  # an earlier attempt may have begun another step
    file.seek(rows.end)
    with closing(in_order(bind(_encode, encoder), chunks, threads)) as encoded:
        for chunk in _checked(encoded, rows, partial.final):
            images = []
            for image, data in chunk:
                if isinstance(image, _Stored):
                    if image.size > rows.page_size:
                        return image.size
                    ptr = rows.next_ptr(image.size)
                    if ptr != rows.end:
                        file.seek(ptr)  # only here, as each seek empties the file's buffer
                    file.write(data)
                    image, rows.end = image._replace(ptr=ptr), ptr + image.size
                images.append(image)
            rows.add(images)
            file.flush()
            partial.step(json.dumps({"page": rows.page_size, "images": images}))
            bar.update(len(images))
    return None


def _checked(encoded: Iterator[EncodedChunk], rows: _Rows, path: Path) -> Iterator[EncodedChunk]:
    """The chunks themselves. ValueError, before the first is written, when the disk has no room for all."""
    for number, chunk in enumerate(encoded):
        if number == 0:
            check_space(path, rows.source, rows.n_read, [len(data) for _, data in chunk])
        yield chunk


def _encode(encoder: Encoder, chunk: Chunk) -> EncodedChunk:
    """The images of a chunk, without their ptr, and their bytes."""
    images: EncodedChunk = []
    for payload in chunk:
        encoded = encoder(payload)
        if isinstance(encoded, Exception):
            images.append((_Unreadable(payload_crc(payload), str(encoded) or type(encoded).__name__), b""))
        else:
            mode, width, height, data, *kinds = encoded
            images.append((_Stored(payload_crc(payload), mode, width, height, 0, len(data), crc32(data), *kinds), data))
    return images


def _chunks(source: sources.Source) -> Iterator[Chunk]:
    items = iter(source.items())
    return iter(lambda: list(islice(items, CHUNK)), [])

"""The images of a run as they came: from the files, tables or archives that they were read from, where these are there
and unchanged, else as stored in the .beton."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualfast.config import Reading
from dualfast.data import sources
from dualfast.data.beton import Beton, open_beton
from dualfast.data.beton.format import JPEG
from dualfast.data.beton.verify import PageCheck, check_pages
from dualfast.data.images import open_image
from dualfast.data.inventory import changes
from dualfast.data.names import path_of
from dualfast.data.sources import Source
from dualfast.data.sources.file_list import list_in
from dualfast.data.sources.paths import folder_of, split_folders, split_of
from dualfast.data.sources.source import OtherColumns

ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")  # a byte that is not UTF-8, as inventory.valid_text writes it


SUFFIXES = {"JPEG": ".jpg", "JPEG2000": ".jp2", "TIFF": ".tif"}  # of other formats it is their name
PIXELS = "they come as pixels in arrays, and are written as PNG"
STORED_PNG = "these are not there unchanged; the pixels that the .beton holds are written as PNG"
STORED_JPEG = "these are not there unchanged; the JPEG that the .beton holds is written"
"""What is said of images that are not the bytes of the originals."""


class Image(NamedTuple):
    """path: of the original, if it is a file of its own; else its bytes, or what takes their place, and the suffix for
    them. instead: None for an original, else one of the above."""

    row: int
    path: Path | None = None
    data: bytes = b""
    suffix: str = ""
    instead: str | None = None

    def read(self) -> bytes:
        return self.data if self.path is None else self.path.read_bytes()


class Origin(NamedTuple):
    """A source, and of each sample of the run its place there."""

    source: Source
    places: NDArray[np.int64]

    def taken(self, ids: NDArray[np.int64], rows: Iterator[Any]) -> Iterator[Any]:
        """Those of the source's rows that belong to the samples `ids`, ascending."""
        wanted = iter(self.places[ids].tolist())
        place = next(wanted, None)
        for at, row in enumerate(rows):
            if at == place:
                yield row
                place = next(wanted, None)
            if place is None:
                return


class Originals:
    """beton: the run's images. data: what they were made of, the paths of it, or several such, one of which it is;
    reading: how it was read."""

    def __init__(self, beton: Beton, data: Sequence[tuple[str, ...]], reading: Reading | None = None) -> None:
        self.beton, self._data, self._reading = beton, data, reading
        self._stats = None
        names = beton.names
        if names is not None and "size" in names.table.column_names:
            sizes, times = (names.table[column].to_numpy() for column in ("size", "modified"))
            self._stats = names.column, sizes, times
        found = [] if self._stats is None else map(_folder_of, data)
        self._folders = [folder for folder in found if folder is not None]

    @cached_property
    def origin(self) -> Origin | None:
        """The table, archive or arrays that the samples were read from; None where these are files of their own, or it
        has changed or is not there."""
        if self._stats is not None or self.beton.names is None or not len(self.beton.made_of):
            return None
        for paths in self._data:
            with suppress(ValueError, OSError, ImportError), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the run has said it
                source = sources.open_source(sources.splits(paths)[0], self._reading, is_test=True)
                places = _places_in(source.names(), self.beton.names.column)
                if changes(self.beton.made_of, source.inventory.files) is None and places is not None:
                    return Origin(source, places)
        return None

    def images(self, ids: NDArray[np.int64]) -> Iterator[Image]:
        """The images of the samples `ids`, ascending."""
        if self.origin is None:
            for row in ids.tolist():
                path = self.path(row)
                yield Image(row, path) if path is not None else self._stored(row)
            return
        payloads = self.origin.taken(ids, iter(self.origin.source.items()))
        for row, payload in zip(ids.tolist(), payloads, strict=True):
            if isinstance(payload, Exception):
                yield self._stored(row)
            elif isinstance(payload, bytes):
                yield Image(row, data=payload, suffix=_suffix_of(payload))
            else:
                yield Image(row, data=_png(payload), suffix=".png", instead=PIXELS)

    def other_columns(self) -> OtherColumns | None:
        """The other columns of the table that the samples were read from; None where it is none, or not there."""
        found = self.origin and self.origin.source.other_columns
        return found() if found else None

    def taken_tables(self, ids: NDArray[np.int64], columns: OtherColumns) -> Iterator[Any]:
        """The rows of the samples `ids`, ascending, of those columns."""
        assert self.origin is not None
        places, first = self.origin.places[ids], 0
        for table in columns.tables():
            last = first + len(table)
            begin, end = np.searchsorted(places, (first, last))
            if end > begin:
                yield table.take(places[begin:end] - first)
            first = last

    @property
    def left_columns(self) -> str | None:
        """A sentence on columns of the data that may be there and cannot be had; None where there are none."""
        kind, location = (self.beton.sidecar.get(key) for key in ("source_kind", "source"))
        if kind in ("parquet", "datasets") and self.origin is None:
            return f"other columns of {location} are left out: it is not there unchanged"
        return f"other columns of the table in {location} are left out" if kind == "file_list" else None

    def _stored(self, row: int) -> Image:
        data, suffix = self.stored(row)
        instead = STORED_PNG if suffix == ".png" else STORED_JPEG
        if self.beton.names is None:
            written = instead.partition("; ")[2]
            instead = f"without {path_of(self.beton.path).name}, which is missing, their files are not known; {written}"
        return Image(row, data=data, suffix=suffix, instead=instead)

    def class_folder(self, label: str) -> str:
        """The name of a class's folder as its file system has it, which the .beton escapes where it is not UTF-8."""
        name = _unescaped(label)
        is_there = any((folder / name).is_dir() and not (folder / label).is_dir() for folder in self._folders)
        return name if name != label and is_there else label

    def path(self, row: int) -> Path | None:
        """The file that a sample is of, absolute; None where it is no file, or the file is gone or has changed."""
        if self._stats is None:
            return None
        _, sizes, times = self._stats
        for path in self._places(row):
            try:
                stat = path.stat()
            except (OSError, ValueError):
                continue
            if (stat.st_size, stat.st_mtime_ns) == (sizes[row], times[row]):
                return path
        return None

    def _places(self, row: int) -> list[Path]:
        """Where the file of a sample may be. Names that are not UTF-8 are escaped in the .beton; others may look so."""
        assert self._stats is not None
        text = self._stats[0][row].as_py()
        name = PurePosixPath(text)
        if name.is_absolute() or ".." in name.parts:  # no name that write makes; the names may be somebody else's
            return []
        names = dict.fromkeys((text, _unescaped(text)))
        return [folder / name for folder in self._folders for name in names]

    def name(self, row: int) -> str:
        names = self.beton.names
        return f"sample {row}" if names is None else str(names.column[row].as_py())

    def why_none(self, row: int) -> str:
        """Why path() is None, as the end of a sentence that begins with the sample's name."""
        places = [] if self._stats is None else self._places(row)
        if not places:
            return "is not a file of its own"
        if there := next(filter(os.path.isfile, places), None):
            return f"has changed since the run ({there})"
        return f"is not in {' or '.join(dict.fromkeys(map(str, self._folders)))}"

    @cached_property
    def _check_pages(self) -> Callable[[NDArray[np.int64]], None]:
        return (lambda ids: None) if self.beton.sums is None else PageCheck(self.beton, 1)

    def stored(self, row: int) -> tuple[bytes, str]:
        """A sample as the .beton has it, the bytes of a JPEG or a PNG of its pixels, and its suffix. ValueError for one
        that is damaged."""
        self._check_pages(np.array([row]))
        if self.beton.mode[row] == JPEG:
            return self.beton.payload(row), ".jpg"
        return _png(self.beton.image(row)), ".png"


def open_whole(path: str | os.PathLike[str], **columns: str | None) -> Beton:
    """A .beton of a run. ValueError for one whose .json is of other data because it is damaged."""
    opened = open_beton(path, **columns)
    if not opened.sidecar and os.path.exists(f"{opened.path}.json"):
        check_pages(opened)
    return opened


def made_from(beton: Beton) -> tuple[tuple[str, ...], Reading] | None:
    """The files and folders that a .beton tells that it was made of, and how they were read; None where it tells of
    none, or of something else. Nothing is believed: what is taken from there must have its sizes and times."""
    told = beton.sidecar.get("made_from")
    if not isinstance(told, dict) or not isinstance(told.get("paths"), list) or not len(beton.made_of):
        return None
    labels = told.get("labels")
    places = [*told["paths"], *([] if labels is None else [labels])]
    if not told["paths"] or not all(isinstance(place, str) for place in places) or any(map(sources.is_url, places)):
        return None
    return tuple(told["paths"]), Reading(labels=labels, follow_links=told.get("follow_links") is True)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return out.getvalue()


def _suffix_of(data: bytes) -> str:
    """The suffix of an encoded image; empty for one that is not recognized."""
    with suppress(Exception), open_image(data) as image:
        kind = str(image.format)
        return SUFFIXES.get(kind, f".{kind.lower()}")
    return ""


def _unescaped(text: str) -> str:
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _places_in(names: Any, own: Any) -> NDArray[np.int64] | None:
    """The place of each of the samples' own names among those of the source; None where one is not there, or they are
    in another order."""
    import pyarrow.compute as pc

    places = pc.index_in(own, value_set=names.combine_chunks() if hasattr(names, "chunks") else names)
    if places.null_count:
        return None
    found: NDArray[np.int64] = places.to_numpy(zero_copy_only=False).astype(np.int64)
    return found if (np.diff(found) > 0).all() else None


def _folder_of(data: tuple[str, ...]) -> Path | None:
    """The folder that the names of the samples are relative to; None where the data are gone."""
    try:
        train = sources.splits(data)[0]
        folders = [_folder(path) for path in ([train] if isinstance(train, str) else train)]
    except (ValueError, OSError, ImportError):
        return None
    return Path(os.path.commonpath(folders))


def _folder(path: str) -> str:
    bare, split = split_of(path)
    if not os.path.isdir(bare):
        return os.path.abspath(os.path.dirname(bare))
    is_folder = split is not None and split in split_folders(bare) and list_in(bare) is None
    return os.path.abspath(folder_of(path) if is_folder else bare)

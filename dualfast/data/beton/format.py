"""The .beton file, FFCV's format version 2, opened and checked without FFCV.

    header        24 bytes: version, num_fields, page_size, num_samples, alloc_table_ptr
    descriptors   1,041 bytes a field: type, name, arguments
    metadata      one row a sample: (mode, width, height, data_ptr) of the image, the label
    pages         page-aligned; no sample straddles a page; image mode 0 is JPEG bytes, 1 raw RGB pixels
    allocations   to the end of the file: (sample_id, ptr, size), 24 bytes each

Everything is little-endian. Side files hold what the format has no room for: PATH.json class names and the source,
PATH.crc checksums.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import weakref
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data import sources
from dualfast.data.beton import checksums
from dualfast.errors import DataChanged

VERSION = 2
JPEG, RAW = 0, 1
HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "<u1"), ("name", "<u1", 16), ("arguments", "<u1", 1024)])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
EXTENT = np.dtype([("ptr", "<u8"), ("size", "<u8")])
FLOAT_TYPE, INT_TYPE, IMAGE_TYPE = 0, 1, 2
FIELD_DTYPES = {
    FLOAT_TYPE: np.dtype("<f8"),
    INT_TYPE: np.dtype("<i8"),
    IMAGE_TYPE: IMAGE,
    3: EXTENT,  # bytes
    4: np.dtype("<u8"),  # array
    5: EXTENT,  # JSON
    6: np.dtype("<u8"),  # tensor
}
FINGERPRINT_SAMPLES = 64
PIECE = 1 << 14  # rows that are checked at once: they stay in the cache


class Beton:
    """A .beton opened for reading: tables in memory, data on disk. ValueError when the tables contradict themselves
    or the file's length, so nothing read later can lie outside it, or differ from their checksum in PATH.crc. The file
    is held open as `fd`: when another one takes its name, this stays what it was.

    n_samples; page_size; field_names; metadata: the rows as stored; labels (n,) int64; and, a sample, mode uint8 (0
    JPEG, 1 raw), width and height uint16 (px), ptr and size uint64 (bytes)."""

    def __init__(self, path: str | os.PathLike[str], custom_fields: Mapping[str, Any] | None = None) -> None:
        """custom_fields: for fields of FFCV's custom type, by name, what turns their 1,024 bytes of arguments into an
        object with the attribute metadata_type."""
        self.path = Path(path)
        self._custom = custom_fields or {}
        if not self.path.exists():
            raise ValueError(f"{self.path} does not exist; dualfast.write makes it")
        if not self.path.is_file():
            what = "a folder; dualfast.write makes a .beton of it" if self.path.is_dir() else "no regular file"
            raise ValueError(f"{self.path} is {what}")
        self.fd = os.open(self.path, os.O_RDONLY)
        self._closed = weakref.finalize(self, os.close, self.fd)
        self._state = os.fstat(self.fd)
        with open(self.fd, "rb", closefd=False) as file:
            self._read(file, self._state.st_size)

    def close(self) -> None:
        """Closes the file; the tables stay."""
        self._closed()
        self.fd = -1  # its number may soon be another file's

    def __reduce__(self) -> Any:
        return Beton, (self.path, self._custom)

    def __str__(self) -> str:
        parts = [f"{self.n_samples:,} samples"]
        if self.label_field is not None and self.n_samples:
            parts.append(f"{len(np.unique(self.labels)):,} classes")
        if self.image_field is not None and self.n_samples:
            size = self.constant_size
            kinds = [name for name, mode in (("JPEG", JPEG), ("raw", RAW)) if (self.mode == mode).any()]
            parts.append(f"{' and '.join(kinds)} images" + (f" of {size[1]} x {size[0]} px" if size else ""))
        return f"{self.path}: {', '.join([*parts, f'{self.bytes / 1e6:,.1f} MB'])}"

    def _read(self, file: io.BufferedReader, length: int) -> None:
        first = _read_array(file, HEADER, 1, 0, self._damaged)
        header = first[0]
        if header["version"] != VERSION:
            raise self._damaged(f"its format version is {header['version']}, not {VERSION}")
        self.n_samples = int(header["num_samples"])
        self.page_size = int(header["page_size"])
        self.bytes = length
        n_fields, table = int(header["num_fields"]), int(header["alloc_table_ptr"])
        if not 0 < n_fields <= 4096:
            raise self._damaged(f"it claims {n_fields} fields")
        if self.page_size == 0 or self.page_size & (self.page_size - 1):
            raise self._damaged(f"its page size {self.page_size} is no power of two")
        descriptors = _read_array(file, DESCRIPTOR, n_fields, HEADER.itemsize, self._damaged)
        self.field_types = [int(t) for t in descriptors["type_id"]]
        self.field_names = [bytes(row).split(b"\0")[0].decode("ascii", "replace") for row in descriptors["name"]]
        self.descriptors = descriptors
        dtype = np.dtype([("", self._field_dtype(at)) for at in range(n_fields)], align=True)
        start = HEADER.itemsize + descriptors.nbytes
        if not 0 < table <= length or start + self.n_samples * dtype.itemsize > table:
            raise self._damaged(
                f"{self.n_samples} samples and the table at byte {table} do not fit into {length} bytes"
            )
        if (length - table) % ALLOCATION.itemsize:
            raise self._damaged("its allocation table is cut short")
        self.metadata: NDArray[np.void] = _read_array(file, dtype, self.n_samples, start, self._damaged)
        self.metadata.setflags(write=False)
        self.data_start = -(-(start + self.metadata.nbytes) // self.page_size) * self.page_size
        self.table_start = table
        tables = (first, descriptors, self.metadata)
        self.tables_crc = checksums.of_tables(chain(tables, self._allocation_pieces(file)))
        if self.sums is not None and (self.sums.length, self.sums.tables) != (length, self.tables_crc):
            raise self.differs("its tables differ")
        sizes = self._sizes_in_order(file)
        if sizes is None:
            sizes = self._sizes_by_search(self._sorted_allocations(file))
        if self.image_field is not None:
            self._check_images(sizes)
            self.size = sizes

    def _allocation_pieces(self, file: io.BufferedReader) -> Iterator[NDArray[np.void]]:
        for at in range(self.table_start, self.bytes, PIECE * ALLOCATION.itemsize):
            count = min(PIECE, (self.bytes - at) // ALLOCATION.itemsize)
            yield _read_array(file, ALLOCATION, count, at, self._damaged)

    def _sorted_allocations(self, file: io.BufferedReader) -> NDArray[np.void]:
        """The allocation table by ascending ptr, checked. FFCV writes empty extents too: each lies where the next one
        begins, and comes before it here."""
        count = (self.bytes - self.table_start) // ALLOCATION.itemsize
        table = _read_array(file, ALLOCATION, count, self.table_start, self._damaged)
        if not (table["ptr"][1:] > table["ptr"][:-1]).all():
            table = table[np.lexsort((table["size"], table["ptr"]))]
        self._check_extents(table, 0)
        return table

    @property
    def allocations(self) -> NDArray[np.void]:
        """The allocation table by ascending ptr; read again each time, since few need it and it is large."""
        with open(self.fd, "rb", closefd=False) as file:
            table = self._sorted_allocations(file)
        self.check_unchanged()
        return table

    def _field_dtype(self, at: int) -> np.dtype[Any]:
        name, kind = self.field_names[at], self.field_types[at]
        if name in self._custom:
            metadata_type: np.dtype[Any] = self._custom[name](self.descriptors[at]["arguments"]).metadata_type
            return metadata_type
        if kind not in FIELD_DTYPES:
            raise ValueError(f"the field {name!r} of {self.path} has the custom type {kind}; pass it in custom_fields")
        return FIELD_DTYPES[kind]

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.path} is damaged or was never finished: {why}; write it again")

    def differs(self, what: str) -> ValueError:
        crc = checksums.path_of(self.path)
        return ValueError(
            f"{self.path} is damaged: {what} from the checksum in {crc.name}; write it again, or delete {crc} if the "
            "file was replaced on purpose"
        )

    @cached_property
    def sums(self) -> checksums.Checksums | None:
        """What PATH.crc holds; None where there is none."""
        return checksums.load(self.path)

    def check_unchanged(self) -> None:
        """DataChanged when the open file was written to since: its length, or its time and its tables, are others."""
        now, before = os.fstat(self.fd), self._state
        if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
            return
        try:  # a new time alone may mean nothing
            same = Beton(f"/proc/self/fd/{self.fd}", self._custom).tables_crc == self.tables_crc
        except ValueError:
            same = False
        if now.st_size != before.st_size or not same:
            raise DataChanged(f"{self.path} was changed while it was open; open it again")
        self._state = now

    def _check_extents(self, table: NDArray[np.void], end: int) -> int:
        """Rows by ascending ptr: every extent lies between the metadata and the table, none before `end`, inside
        another, or larger than a page. Returns where the last one ends."""
        if not len(table):
            return end
        ptr, size, sample = (np.ascontiguousarray(table[name]) for name in ("ptr", "size", "sample_id"))
        ends = ptr + size
        if max(ptr.max(), size.max(), ends.max()) > self.table_start:
            raise self._damaged("a sample's data would lie outside it")
        if size.max() > self.page_size:
            raise self._damaged(f"a sample's data are larger than its pages of {self.page_size} bytes")
        if ptr[0] < HEADER.itemsize + len(self.field_types) * DESCRIPTOR.itemsize + self.metadata.nbytes:
            raise self._damaged("a sample's data would lie inside its tables")
        if sample.max() >= self.n_samples:
            raise self._damaged(f"its allocation table names sample {sample.max()} of {self.n_samples}")
        if ptr[0] < end or (ends[:-1] > ptr[1:]).any():
            raise self._damaged("two samples' data overlap")
        return int(ends[-1])

    def _sizes_in_order(self, file: io.BufferedReader) -> NDArray[np.uint64] | None:
        """Bytes of each sample's image where the allocation table's rows are the samples', in order and ascending, or
        None. The table is checked by pieces: it is never in memory as a whole."""
        if self.image_field is None or self.table_start + self.n_samples * ALLOCATION.itemsize != self.bytes:
            return None
        sizes = np.empty(self.n_samples, np.uint64)
        first = end = 0
        for table in self._allocation_pieces(file):
            rows = slice(first, first + len(table))
            ptr, sample = np.ascontiguousarray(table["ptr"]), table["sample_id"]
            in_order = (ptr == self.ptr[rows]).all() and (sample == np.arange(first, rows.stop, dtype=np.uint64)).all()
            if not in_order or (ptr[1:] <= ptr[:-1]).any() or ptr[0] < end:
                return None
            end = self._check_extents(table, end)
            sizes[rows] = table["size"]
            first = rows.stop
        return sizes

    def _sizes_by_search(self, table: NDArray[np.void]) -> NDArray[np.uint64]:
        """The same from a table in any order, with rows for other fields; each image has a row of its own."""
        sizes = np.empty(self.n_samples, np.uint64)
        if self.image_field is None or not self.n_samples:
            return sizes
        if not len(table):
            raise self._damaged("its allocation table is empty")
        for first in range(0, self.n_samples, PIECE):
            ptr = self.ptr[first : first + PIECE]
            found = table[np.searchsorted(table["ptr"], ptr, side="right") - 1]  # not the empty ones before it
            number = np.arange(first, first + len(ptr), dtype=np.uint64)
            if (found["ptr"] != ptr).any() or (found["sample_id"] != number).any():
                raise self._damaged("an image's pointer and the allocation table disagree")
            sizes[first : first + PIECE] = found["size"]
        return sizes

    def _check_images(self, sizes: NDArray[np.uint64]) -> None:
        for first in range(0, self.n_samples, PIECE):
            rows = slice(first, first + PIECE)
            mode, size = self.mode[rows], sizes[rows]
            pixels = np.multiply(self.width[rows], self.height[rows], dtype=np.uint64) * np.uint64(3)
            if mode.max() > RAW:
                raise self._damaged("an image is neither JPEG nor raw")
            if pixels.min() == 0 or size.min() == 0:
                raise self._damaged("an image is empty")
            if ((size != pixels) & (mode == RAW)).any():
                raise self._damaged("a raw image's length differs from its width x height x 3")

    def _first(self, type_id: int) -> int | None:
        return self.field_types.index(type_id) if type_id in self.field_types else None

    @property
    def image_field(self) -> int | None:
        """Position of the first image field, or None."""
        return self._first(IMAGE_TYPE)

    @property
    def label_field(self) -> int | None:
        """Position of the field named label, else of the first integer field, or None."""
        named = [i for i, n in enumerate(self.field_names) if n == "label" and self.field_types[i] == INT_TYPE]
        return named[0] if named else self._first(INT_TYPE)

    def _column(self, name: str) -> NDArray[Any]:
        if self.image_field is None:
            raise ValueError(f"{self.path} has no image field; its fields: {', '.join(self.field_names)}")
        return np.ascontiguousarray(self.metadata[f"f{self.image_field}"][name])

    @cached_property
    def mode(self) -> NDArray[np.uint8]:
        return self._column("mode")

    @cached_property
    def width(self) -> NDArray[np.uint16]:
        return self._column("width")

    @cached_property
    def height(self) -> NDArray[np.uint16]:
        return self._column("height")

    @cached_property
    def ptr(self) -> NDArray[np.uint64]:
        return self._column("data_ptr")

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        if self.label_field is None:
            raise ValueError(f"{self.path} has no integer field; its fields: {', '.join(self.field_names)}")
        labels = np.ascontiguousarray(self.metadata[f"f{self.label_field}"], np.int64)
        labels.setflags(write=False)
        return labels

    @cached_property
    def side(self) -> dict[str, Any]:
        """The side file's content; empty when there is none or when it belongs to other data."""
        try:
            found = json.loads(Path(f"{self.path}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict) or found.get("n_samples") != self.n_samples:
            return {}
        return found if found.get("fingerprint") == self.fingerprint else {}

    @property
    def class_names(self) -> tuple[str, ...] | None:
        names = self.side.get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else None

    @property
    def constant_size(self) -> tuple[int, int] | None:
        """(height, width) when all images have the same, else None."""
        if not self.n_samples:
            return None
        height, width = int(self.height[0]), int(self.width[0])
        return (height, width) if (self.height == height).all() and (self.width == width).all() else None

    def payload(self, row: int) -> bytes:
        """The stored bytes of one image. OSError or ValueError when they cannot be read."""
        if not 0 <= row < self.n_samples:
            raise ValueError(f"row is {row}; {self.path} has {self.n_samples} samples")
        data = os.pread(self.fd, int(self.size[row]), int(self.ptr[row]))
        if len(data) != self.size[row]:
            raise self._damaged(f"it ends inside sample {row}")
        return data

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image, (height, width, 3) uint8 RGB. ValueError when it cannot be decoded."""
        data = self.payload(row)
        height, width = int(self.height[row]), int(self.width[row])
        if self.mode[row] == RAW:
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        try:
            image = sources.decode(data)
        except Exception as error:  # Pillow raises half a dozen kinds
            raise ValueError(f"sample {row} of {self.path} cannot be decoded: {error}") from error
        if image.size != (width, height):
            raise ValueError(f"sample {row} of {self.path} is {image.size} px, its row says {(width, height)}")
        return np.asarray(image)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over the number of samples, all labels and image sizes, and the content of up to 64 samples
        spread over the set. Equal data have equal fingerprints wherever and in whatever pages they are stored."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.uint64(self.n_samples).tobytes())
        digest.update(self.labels.tobytes())
        for column in (self.mode, self.width, self.height, self.size):
            digest.update(column.tobytes())
        rows = np.unique(np.linspace(0, self.n_samples - 1, min(FINGERPRINT_SAMPLES, self.n_samples)).astype(np.int64))
        for row in rows.tolist():
            digest.update(self.payload(row))
        return digest.hexdigest()


def open_beton(path: str | os.PathLike[str]) -> Beton:
    """Opens a .beton with one image and one integer field and checks its tables. ValueError when they are damaged."""
    beton = Beton(path)
    if beton.image_field is None or beton.label_field is None:
        raise ValueError(f"{path} needs an image and an integer field; it has {', '.join(beton.field_names)}")
    return beton


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Beton.fingerprint of the file at path."""
    return open_beton(path).fingerprint


def _read_array(file: io.BufferedReader, dtype: np.dtype[Any], count: int, at: int, damaged: Any) -> NDArray[Any]:
    file.seek(at)
    data = np.fromfile(file, dtype, count)
    if len(data) != count:
        raise damaged("it is cut short")
    return data

"""The tables of a .beton, read and checked without FFCV."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data import columns
from dualfast.data.beton import checksums
from dualfast.data.beton.format import (
    ALLOCATION,
    ARRAY_TYPES,
    CUSTOM_TYPE,
    DESCRIPTOR,
    EXTENT,
    FIELD_DTYPES,
    HEADER,
    IMAGE,
    IMAGE_TYPE,
    INT_TYPE,
    ORIGINAL_INDEX,
    RAW,
    TYPE_NAMES,
    VERSION,
    array_bytes,
    row_dtype,
    start_of_pages,
)

CHUNK_ROWS = 1 << 14  # checked at once: they fit into the cache
_MEANT = {IMAGE_TYPE: ("image", columns.IMAGE_NAMES), INT_TYPE: ("label", columns.LABEL_NAMES)}


class Tables:
    """Header, field descriptors and metadata of a .beton in memory. ValueError when they, or the allocation table,
    contradict each other or the file's length, so that nothing read later can lie outside the file or be larger than
    its row and its field say, when they differ from their checksum in PATH.crc, and for an image_column or label_column
    that is no such field. Of a custom field only the pointers are checked, where its rows are like those of FFCV's
    image or bytes fields; the rest is up to custom_fields.

    n_samples; page_size, bytes (the file's), data_start, table_start (bytes); field_names, field_types, descriptors
    (n_fields,); metadata (n,), the rows as stored; labels (n,) int64; per sample mode uint8 (0 JPEG, 1 raw), width and
    height uint16 (px), ptr and size uint64 (bytes)."""

    def __init__(
        self,
        file: io.BufferedReader,
        path: Path,
        custom_fields: Mapping[str, Any],
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        self.path = path
        self._custom_fields = custom_fields
        self._given = {IMAGE_TYPE: image_column, INT_TYPE: label_column}
        self._fileno = file.fileno()
        self.bytes = os.fstat(self._fileno).st_size
        header = self._read_header(file)
        self._check_given()
        self._read_rows(file)
        tables = chain((header, self.descriptors, self.metadata), self._allocation_chunks(file))
        self.tables_crc = checksums.of_tables(tables)
        if self.sums is not None and (self.sums.length, self.sums.tables) != (self.bytes, self.tables_crc):
            raise self.checksum_error("its tables differ")
        others = [at for at in range(len(self.field_types)) if self._points(at) and at != self.image_field]
        sizes = None if others else self._sizes_in_order(file)
        if sizes is None:
            allocations = self._sorted_allocations(file)
            for at in others:
                self._check_field(at, allocations)
            sizes = self._sizes_of(self.image_field, allocations)
        if self.image_field is not None:
            self._check_images(self.image_field, sizes)
            self.__dict__["size"] = sizes

    # ---- reading ----------------------------------------------------------------------------------------------------

    def _read_header(self, file: io.BufferedReader) -> NDArray[np.void]:
        header = self._read_array(file, HEADER, 1, 0)
        version, n_fields, self.page_size, self.n_samples, self.table_start = map(int, header[0])
        if version != VERSION:
            raise self.damaged(f"its format version is {version}, not {VERSION}")
        if not 0 < n_fields <= 4096:
            raise self.damaged(f"it claims {n_fields} fields")
        if self.page_size < checksums.MIN_PAGE or self.page_size & (self.page_size - 1):
            raise self.damaged(f"its page size {self.page_size} is not a power of two from {checksums.MIN_PAGE}")
        self.descriptors: NDArray[np.void] = self._read_array(file, DESCRIPTOR, n_fields, HEADER.itemsize)
        self.field_types = [int(type_id) for type_id in self.descriptors["type_id"]]
        names = self.descriptors["name"]
        self.field_names = [bytes(name).split(b"\0")[0].decode("ascii", "replace") for name in names]
        if len(set(self.field_names)) < n_fields:
            raise self.damaged("two of its fields have one name")
        return header

    def _read_rows(self, file: io.BufferedReader) -> None:
        dtype = row_dtype(map(self._field_dtype, range(len(self.descriptors))))
        start = HEADER.itemsize + self.descriptors.nbytes
        if not 0 < self.table_start <= self.bytes or start + self.n_samples * dtype.itemsize > self.table_start:
            raise self.damaged(
                f"{self.n_samples} samples and the table at byte {self.table_start} do not fit into {self.bytes} bytes"
            )
        if (self.bytes - self.table_start) % ALLOCATION.itemsize:
            raise self.damaged("its allocation table is cut short")
        self.metadata: NDArray[np.void] = self._read_array(file, dtype, self.n_samples, start)
        self.metadata.setflags(write=False)
        self.data_start = start_of_pages(start + self.metadata.nbytes, self.page_size)

    def _field_dtype(self, at: int) -> np.dtype[Any]:
        name, type_id = self.field_names[at], self.field_types[at]
        if name in self._custom_fields and type_id in (*FIELD_DTYPES, CUSTOM_TYPE):
            metadata_type: np.dtype[Any] = self._custom_fields[name](self.descriptors[at]["arguments"]).metadata_type
            return metadata_type
        if type_id not in FIELD_DTYPES:
            raise ValueError(
                f"the field {name!r} of {self.path} has the custom type {type_id}; pass it in custom_fields"
            )
        return FIELD_DTYPES[type_id]

    def _read_array(self, file: io.BufferedReader, dtype: np.dtype[Any], count: int, at: int) -> NDArray[Any]:
        file.seek(at)
        data = np.fromfile(file, dtype, count)
        if len(data) != count:
            raise self.damaged("it is cut short")
        return data

    def _allocation_chunks(self, file: io.BufferedReader) -> Iterator[NDArray[np.void]]:
        for at in range(self.table_start, self.bytes, CHUNK_ROWS * ALLOCATION.itemsize):
            count = min(CHUNK_ROWS, (self.bytes - at) // ALLOCATION.itemsize)
            yield self._read_array(file, ALLOCATION, count, at)

    def _sorted_allocations(self, file: io.BufferedReader) -> NDArray[np.void]:
        """The allocation table by ascending ptr, checked. FFCV writes empty extents too: each has the ptr of the next
        one, and comes before it here."""
        count = (self.bytes - self.table_start) // ALLOCATION.itemsize
        table = self._read_array(file, ALLOCATION, count, self.table_start)
        if not (table["ptr"][1:] > table["ptr"][:-1]).all():
            table = table[np.lexsort((table["size"], table["ptr"]))]
        self._check_extents(table, 0)
        return table

    @cached_property
    def sums(self) -> checksums.Checksums | None:
        """The content of PATH.crc; None when it does not exist."""
        return checksums.load(self.path, self._fileno, self.bytes, self.tables_crc)

    # ---- checking ---------------------------------------------------------------------------------------------------

    def damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.path} is damaged or was never finished: {why}; write it again")

    def checksum_error(self, what_differs: str) -> ValueError:
        crc = checksums.path_of(self.path)
        return ValueError(
            f"{self.path} is damaged: {what_differs} from the checksum in {crc.name}; write it again, or delete {crc} "
            "if the file was replaced on purpose"
        )

    def _check_extents(self, table: NDArray[np.void], end: int) -> int:
        """Checks rows by ascending ptr: every extent lies between the metadata and the table, and none begins before
        `end`, overlaps another, or is larger than a page. Returns where the last one ends."""
        if not len(table):
            return end
        ptr, size, sample = (np.ascontiguousarray(table[name]) for name in ("ptr", "size", "sample_id"))
        ends = ptr + size
        if max(ptr.max(), size.max(), ends.max()) > self.table_start:
            raise self.damaged("a sample's data would lie outside it")
        if size.max() > self.page_size:
            raise self.damaged(f"a sample's data are larger than its pages of {self.page_size} bytes")
        if ptr[0] < HEADER.itemsize + self.descriptors.nbytes + self.metadata.nbytes:
            raise self.damaged("a sample's data would lie inside its tables")
        if sample.max() >= self.n_samples:
            raise self.damaged(f"its allocation table names sample {sample.max()} of {self.n_samples}")
        if ptr[0] < end or (ends[:-1] > ptr[1:]).any():
            raise self.damaged("two samples' data overlap")
        return int(ends[-1])

    def _sizes_in_order(self, file: io.BufferedReader) -> NDArray[np.uint64] | None:
        """Bytes of each sample's image when row i of the allocation table belongs to sample i and ptr ascends; else
        None. The table is checked in chunks: it is never in memory as a whole."""
        if self.image_field is None or self.table_start + self.n_samples * ALLOCATION.itemsize != self.bytes:
            return None
        sizes = np.empty(self.n_samples, np.uint64)
        first = end = 0
        for table in self._allocation_chunks(file):
            rows = slice(first, first + len(table))
            ptr, sample = np.ascontiguousarray(table["ptr"]), table["sample_id"]
            in_order = (ptr == self.ptr[rows]).all() and (sample == np.arange(first, rows.stop, dtype=np.uint64)).all()
            if not in_order or (ptr[1:] <= ptr[:-1]).any() or ptr[0] < end:
                return None
            end = self._check_extents(table, end)
            sizes[rows] = table["size"]
            first = rows.stop
        return sizes

    def _points(self, at: int) -> bool:
        """Whether the rows of a field hold pointers."""
        is_array = self.field_types[at] in ARRAY_TYPES and self.field_names[at] not in self._custom_fields
        return is_array or self.metadata.dtype[at] in (IMAGE, EXTENT)

    def _sizes_of(self, at: int | None, table: NDArray[np.void]) -> NDArray[np.uint64]:
        """Bytes of each sample's value of a field, by the allocation table by ascending ptr, in which each value has a
        row of its own."""
        sizes = np.empty(self.n_samples, np.uint64)
        if at is None or not self.n_samples:
            return sizes
        if not len(table):
            raise self.damaged("its allocation table is empty")
        column = self.metadata[f"f{at}"]
        starts = np.ascontiguousarray(table["ptr"])
        for first in range(0, self.n_samples, CHUNK_ROWS):
            chunk = column[first : first + CHUNK_ROWS]
            ptr = chunk[{IMAGE: "data_ptr", EXTENT: "ptr"}[chunk.dtype]] if chunk.dtype.names else chunk
            found = np.searchsorted(starts, ptr, side="right") - 1  # the last: those before it are empty
            sample = np.arange(first, first + len(ptr), dtype=np.uint64)
            if chunk.dtype == EXTENT and (empty := chunk["size"] == 0).any():
                found[empty] = np.searchsorted(starts, ptr[empty]) % len(table)
                sample[empty] = table["sample_id"][found[empty]]  # empty values of several samples may have one ptr
            rows = table[found]
            if (rows["ptr"] != ptr).any() or (rows["sample_id"] != sample).any():
                name = self.field_names[at]
                raise self.damaged(f"the pointers of the field {name!r} and the allocation table disagree")
            sizes[first : first + CHUNK_ROWS] = rows["size"]
        return sizes

    def _check_field(self, at: int, table: NDArray[np.void]) -> None:
        """Checks a field that the default pipelines do not read: FFCV's decoders copy as many bytes as the allocation
        table says to where as many as the row, or the field's arguments, say have room."""
        sizes, type_id, name = self._sizes_of(at, table), self.field_types[at], self.field_names[at]
        if name in self._custom_fields:
            return
        if type_id == IMAGE_TYPE:
            self._check_images(at, sizes)
            return
        try:
            wanted = array_bytes(self.descriptors[at]["arguments"]) if type_id in ARRAY_TYPES else None
        except ValueError as error:
            raise self.damaged(f"the field {name!r}: {error}") from None
        if (sizes != (self.metadata[f"f{at}"]["size"] if wanted is None else wanted)).any():
            raise self.damaged(f"the sizes of the field {name!r} and the allocation table disagree")

    def _check_images(self, at: int, sizes: NDArray[np.uint64]) -> None:
        column = self.metadata[f"f{at}"]
        for first in range(0, self.n_samples, CHUNK_ROWS):
            chunk, size = column[first : first + CHUNK_ROWS], sizes[first : first + CHUNK_ROWS]
            mode = np.ascontiguousarray(chunk["mode"])
            pixels = np.multiply(chunk["width"], chunk["height"], dtype=np.uint64) * np.uint64(3)
            if mode.max() > RAW:
                raise self.damaged("an image is neither JPEG nor raw")
            if pixels.min() == 0 or size.min() == 0:
                raise self.damaged("an image is empty")
            if ((size != pixels) & (mode == RAW)).any():
                raise self.damaged("a raw image's length differs from its width x height x 3")

    # ---- columns ----------------------------------------------------------------------------------------------------

    @property
    def fields_text(self) -> str:
        """The fields and their types, for messages."""
        kinds = [TYPE_NAMES.get(type_id, "custom type") for type_id in self.field_types]
        return ", ".join(f"{name} ({kind})" for name, kind in zip(self.field_names, kinds, strict=True))

    @property
    def image_field(self) -> int | None:
        """Position of the image field that was given, else of the one that is called so, else of the first, or None."""
        return self._field(IMAGE_TYPE)

    @property
    def label_field(self) -> int | None:
        """Position of the integer field that holds the labels, likewise."""
        return self._field(INT_TYPE)

    def check_columns(self) -> None:
        """ValueError where several fields may hold the images, or the labels, and none was given."""
        for type_id, (what, usual) in _MEANT.items():
            if found := self._candidates(type_id):
                columns.the_one(found, usual, self.path, f"{TYPE_NAMES[type_id]} fields", f"{what}_column")

    def _check_given(self) -> None:
        for type_id, name in self._given.items():
            if name is not None and name not in self._named(type_id):
                what = _MEANT[type_id][0]
                raise ValueError(
                    f"{what}_column is {name!r}, which must be an {TYPE_NAMES[type_id]} field; {self.path} has "
                    f"{self.fields_text}"
                )

    def _named(self, type_id: int) -> list[str]:
        return [name for name, kind in zip(self.field_names, self.field_types, strict=True) if kind == type_id]

    def _candidates(self, type_id: int) -> list[str]:
        """The names of the fields that may be meant; not the ids that compact adds, if there is another."""
        given, found = self._given[type_id], self._named(type_id)
        return [given] if given else [name for name in found if name != ORIGINAL_INDEX] or found

    def _field(self, type_id: int) -> int | None:
        found = columns.winners(self._candidates(type_id), _MEANT[type_id][1])
        return self.field_names.index(found[0]) if found else None

    def _column(self, name: str) -> NDArray[Any]:
        if self.image_field is None:
            raise ValueError(f"{self.path} has no image field; its fields: {self.fields_text}")
        return np.ascontiguousarray(self.metadata[f"f{self.image_field}"][name])

    mode = cached_property(lambda self: self._column("mode"))  # (n_samples,) uint8: JPEG or RAW
    width = cached_property(lambda self: self._column("width"))  # uint16, px
    height = cached_property(lambda self: self._column("height"))
    ptr = cached_property(lambda self: self._column("data_ptr"))  # uint64, bytes from the start of the file
    size = cached_property(
        lambda self: self._column("size")
    )  # uint64, bytes; set with the tables where there are images

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        if self.label_field is None:
            raise ValueError(f"{self.path} has no integer field; its fields: {self.fields_text}")
        labels = np.ascontiguousarray(self.metadata[f"f{self.label_field}"], np.int64)
        labels.setflags(write=False)
        return labels

    @property
    def constant_size(self) -> tuple[int, int] | None:
        """(height, width) when it is the same for all images, else None."""
        if not self.n_samples:
            return None
        height, width = int(self.height[0]), int(self.width[0])
        return (height, width) if (self.height == height).all() and (self.width == width).all() else None

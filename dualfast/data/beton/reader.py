"""Reading a .beton without FFCV: tables, images, the sidecar with the class names, the fingerprint."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data import names
from dualfast.data.beton.format import JPEG, RAW
from dualfast.data.beton.tables import Tables
from dualfast.data.images import decode
from dualfast.data.inventory import Files
from dualfast.data.names import Names
from dualfast.errors import DataChanged
from dualfast.storage.files import waiting_for
from dualfast.storage.plain import read_json

FINGERPRINT_SAMPLES = 64


class Beton(Tables):
    """A .beton opened for reading: its tables in memory (see Tables), its images on disk. The file is held open as
    `fd`: when another one replaces it under its name, this object keeps reading the old one."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        custom_fields: Mapping[str, Any] | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        """custom_fields: for fields of FFCV's custom type, by name, what turns their 1,024 bytes of arguments into an
        object with the attribute metadata_type. image_column, label_column: names of an image and an integer field, for
        files with several. Raises ValueError when there is no such file or field, or the file is damaged."""
        path = Path(path)
        if not path.exists():
            raise ValueError(f"{path} does not exist; write creates it from images")
        if not path.is_file():
            what = "a folder; write makes a .beton of it" if path.is_dir() else "not a regular file"
            raise ValueError(f"{path} is {what}")
        self.fd = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self.fd)
        self._state = os.fstat(self.fd)
        with open(self.fd, "rb", closefd=False) as file:
            super().__init__(file, path, custom_fields or {}, image_column, label_column)

    def close(self) -> None:
        """Closes the file; the tables stay."""
        self._close()
        self.fd = -1  # the number may soon be another file's

    def __reduce__(self) -> Any:
        return Beton, (self.path, self._custom_fields, *self._given.values())

    def __str__(self) -> str:
        parts = [f"{self.n_samples:,} samples"]
        if self.label_field is not None and self.n_samples:
            parts.append(f"{len(np.unique(self.labels)):,} classes")
        if self.image_field is not None and self.n_samples:
            size = self.constant_size
            modes = [name for name, mode in (("JPEG", JPEG), ("raw", RAW)) if (self.mode == mode).any()]
            parts.append(f"{' and '.join(modes)} images" + (f" of {size[1]} x {size[0]} px" if size else ""))
        return f"{self.path}: {', '.join([*parts, f'{self.bytes / 1e6:,.1f} MB'])}"

    @property
    def allocations(self) -> NDArray[np.void]:
        """The allocation table by ascending ptr; read again on each access, since it is large and rarely needed."""
        with open(self.fd, "rb", closefd=False) as file:
            table = self._sorted_allocations(file)
        self.check_unchanged()
        return table

    def check_unchanged(self) -> None:
        """DataChanged when the open file was written to since: its length, or its time and tables, have changed."""
        now, before = os.fstat(self.fd), self._state
        if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
            return
        try:  # a new time alone may mean nothing
            same = Beton(f"/proc/self/fd/{self.fd}", self._custom_fields).tables_crc == self.tables_crc
        except ValueError:
            same = False
        if now.st_size != before.st_size or not same:
            raise DataChanged(f"{self.path} was changed while it was open; open it again")
        self._state = now

    @cached_property
    def sidecar(self) -> dict[str, Any]:
        """The content of PATH.json; empty when it does not exist or belongs to other data. ValueError when it is
        damaged."""
        own = Path(f"{self.path}.json")
        try:
            return self._own_sidecar(own) or self._own_sidecar(waiting_for(own))
        except ValueError as error:
            raise ValueError(f"{error}; delete it to continue without class names") from None

    def _own_sidecar(self, path: Path) -> dict[str, Any]:
        try:
            content = read_json(path)
        except FileNotFoundError:
            return {}
        if not isinstance(content, dict) or content.get("n_samples") != self.n_samples:
            return {}
        return content if content.get("fingerprint") == self.fingerprint else {}

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """From the sidecar, by label; None when it has none."""
        names = self.sidecar.get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else None

    @cached_property
    def names(self) -> Names | None:
        """The names of the samples, from PATH.names.parquet; None when it does not exist or belongs to other data."""
        return names.load(self.path, self.n_samples, self.fingerprint)

    @property
    def made_of(self) -> Files:
        """The files that it was written from; none where they are not known, or were arrays in memory."""
        return Files.none() if self.names is None else self.names.files

    def payload(self, row: int) -> bytes:
        """The stored bytes of one image. OSError or ValueError when they cannot be read."""
        if not 0 <= row < self.n_samples:
            raise ValueError(f"row is {row}; {self.path} has {self.n_samples} samples")
        data = os.pread(self.fd, int(self.size[row]), int(self.ptr[row]))
        if len(data) != self.size[row]:
            raise self.damaged(f"it ends inside sample {row}")
        return data

    def image(self, row: int) -> NDArray[np.uint8]:
        """One image, (height, width, 3) uint8 RGB. ValueError when it cannot be decoded."""
        data = self.payload(row)
        height, width = int(self.height[row]), int(self.width[row])
        if self.mode[row] == RAW:
            return np.frombuffer(data, np.uint8).reshape(height, width, 3)
        try:
            image = decode(data)
        except Exception as error:  # Pillow raises half a dozen kinds
            raise ValueError(f"sample {row} of {self.path} cannot be decoded: {error}") from error
        if image.size != (width, height):
            raise ValueError(f"sample {row} of {self.path} is {image.size} px, its row says {(width, height)}")
        return np.asarray(image)

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits over the number of samples, all labels and image sizes, and the content of up to 64 samples
        spread over the set. Equal data have equal fingerprints wherever and in pages of whatever size they are
        stored."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(np.uint64(self.n_samples).tobytes())
        digest.update(self.labels.tobytes())
        for column in (self.mode, self.width, self.height, self.size):
            digest.update(column.tobytes())
        rows = np.unique(np.linspace(0, self.n_samples - 1, min(FINGERPRINT_SAMPLES, self.n_samples)).astype(np.int64))
        for row in rows.tolist():
            digest.update(self.payload(row))
        return digest.hexdigest()


def open_beton(
    path: str | os.PathLike[str], *, image_column: str | None = None, label_column: str | None = None
) -> Beton:
    """Opens a .beton with an image and an integer field, those of these names if given, and checks its tables.
    ValueError when they are damaged or such a field is missing."""
    beton = Beton(path, None, image_column, label_column)
    if beton.image_field is None or beton.label_field is None:
        raise ValueError(
            f"{path} needs an image and an integer field; it has {beton.fields_text}; write it with FFCV's "
            "RGBImageField and IntField, or with dualfast.write"
        )
    return beton

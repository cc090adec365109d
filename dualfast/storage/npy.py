""".npy files from anybody: a header is believed only as far as the file has bytes for it, and nothing is mapped, since
another process may cut a file short at any time."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dualfast.storage.files import open_regular

READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_header(file: BinaryIO, n_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The shape, whether it is in Fortran's order, and the dtype of an .npy of n_bytes; `file` stands behind the header
    then. ValueError for what is not an .npy, for objects, and for one that has fewer bytes than it says."""
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"its format is version {version}; np.save of plain numbers writes 1.0")
    try:
        shape, fortran, dtype = READERS[version](file)
    except Exception as error:  # numpy parses it as Python, and raises what that raises
        raise ValueError(f"its header is damaged: {error}") from None
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > n_bytes - file.tell():
        raise ValueError(f"it is cut off: its header says {dtype} of shape {shape}, and it has {n_bytes:,} bytes")
    return shape, fortran, dtype


class NpyFile:
    """An open .npy, of which parts are read. Raises ValueError as read_header does, and for what is not a regular
    file; OSError as open does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.file = open_regular(path)
        try:
            self.shape, self._fortran, self.dtype = read_header(self.file, os.fstat(self.file.fileno()).st_size)
        except BaseException:
            self.file.close()
            raise
        self.offset = self.file.tell()

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, begin: int, end: int) -> NDArray[Any]:
        """The entries begin..end-1 of a 1-D array. ValueError when the file has been cut short."""
        out = np.empty(min(end, self.shape[0]) - begin, self.dtype)
        self._fill(out, self.offset + begin * self.dtype.itemsize)
        return out

    def array(self) -> NDArray[Any]:
        """The whole array."""
        flat = np.empty(math.prod(self.shape), self.dtype)
        self._fill(flat, self.offset)
        return flat.reshape(self.shape, order="F" if self._fortran else "C")

    def _fill(self, out: NDArray[Any], at: int) -> None:
        left = out.view(np.uint8).data if out.nbytes else memoryview(b"")
        while left:
            count = os.preadv(self.file.fileno(), [left], at)
            if not count:
                raise ValueError(f"{str(self.path)!r} ends at byte {at}; it was cut short while it was read")
            left, at = left[count:], at + count

    def __enter__(self) -> NpyFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def load(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array in an .npy. Raises as NpyFile does."""
    with NpyFile(path) as file:
        return file.array()

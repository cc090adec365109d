"""Many paths in little memory: a list of a million Python strings takes 110 MB, these 45."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

from dualfast.data.inventory import text_array


class PathList(Sequence[str]):
    """Paths one after the other, as the system encodes them; it only grows."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("q", [0])

    def append(self, path: str) -> None:
        self._data += os.fsencode(path)
        self._ends.append(len(self._data))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        at = range(len(self))[at]  # also of -1, and raises IndexError
        return os.fsdecode(bytes(self._data[self._ends[at] : self._ends[at + 1]]))

    def __iter__(self) -> Iterator[str]:
        begin = 0
        for end in self._ends[1:]:
            yield os.fsdecode(bytes(self._data[begin:end]))
            begin = end

    def to_arrow(self) -> Any:
        """A pyarrow array of the paths as text, of what is not UTF-8 as inventory.valid_text."""
        import pyarrow as pa

        buffers = [None, pa.py_buffer(self._ends), pa.py_buffer(bytes(self._data))]
        names = pa.Array.from_buffers(pa.large_string(), len(self), buffers)
        try:
            names.validate(full=True)
        except pa.ArrowInvalid:
            return text_array(list(self))
        return names.cast(pa.string())

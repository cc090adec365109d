"""Memory maps of files that another process may cut short."""

from __future__ import annotations

import errno
import os
import weakref
from typing import Any

import numpy as np
import torch  # noqa: F401  before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C


class GuardedMap:
    """Keeps the reads of a memory-mapped file from ending the process with SIGBUS when the file is cut short: past its
    end there are zeros then, and check() raises. mapped: (bytes,) uint8, an np.memmap; it is kept alive."""

    def __init__(self, mapped: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
        self._mapped, self._path = mapped, path
        self._number = _C.guard_map(mapped.view(np.ndarray))
        if self._number >= 0:
            weakref.finalize(self, _release, self._number, mapped)

    def check(self) -> None:
        """OSError when something was read where the file had ended."""
        if self._number >= 0 and _C.map_was_cut(self._number):
            raise OSError(errno.EIO, "was cut short while it was read; open it again", os.fspath(self._path))


def _release(number: int, mapped: Any) -> None:
    _C.release_map(number)  # while `mapped` is still there: its addresses are nobody else's yet

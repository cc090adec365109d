"""Whether a .beton will fit on the disk, before hours are spent on writing it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from dualfast.data.sources.source import Source

TOLERANCE = 0.8  # of the estimate has to fit


def check_space(path: Path, source: Source, first: int, stored: list[int]) -> None:
    """ValueError when the disk that `path` will be on has no room for the images of `source` from the row `first` on,
    as the bytes that the first of them take, `stored`, suggest: in proportion to the sizes of their files if each has
    one."""
    n = len(source)
    sizes = source.inventory.files.sizes[:n].clip(min=0) if source.one_file_each else np.ones(n, np.int64)
    known = int(sizes[first : first + len(stored)].sum())
    if not known:
        return
    needed = sum(stored) * int(sizes[first:].sum()) / known
    free = shutil.disk_usage(path.parent).free
    if TOLERANCE * needed > free:
        raise ValueError(
            f"{os.fspath(path)} needs about {size_text(needed)} for {n - first:,} images, estimated by the first "
            f"{len(stored)}, and its disk has {size_text(free)} free; free some space, shrink the images with "
            "max_size, or write to another disk"
        )


def size_text(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"

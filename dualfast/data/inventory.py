"""What a data set consists of: the files that are used, those that are not and why, and what has changed since.

A source makes its Inventory once, when it is opened. write() keeps it: the counts in PATH.json, the files in
PATH.names.parquet (see names), so that a later call can say what has changed in the data.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dualfast.storage.files import open_regular

SHOWN = 5  # names in a message
END_BYTES = 1 << 16
NOT_READ = -1
NOT_IMAGES = "not images that Pillow opens"
BESIDE_CLASSES = "beside the class folders"
SYSTEM = "left behind by an operating system or an archiver"
"""Why files are left out. Those of the system are counted and not spoken of."""


@dataclass(frozen=True)
class Files:
    """n files. names: a pyarrow array of text, relative to the folder of the data set; sizes: bytes, -1 for a file that
    is not there; times: of modification, ns; ends: CRC-32 of the last END_BYTES, where a Parquet or .zip file lists its
    contents, NOT_READ for a file that is an image; all (n,) int64."""

    names: Any
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, paths: Iterable[str | os.PathLike[str]]) -> Files:
        """The files at these paths, which are no images, by their base names."""
        return cls.of_rows((os.path.basename(path), *size_and_time(path), _end(path)) for path in paths)

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[Any]]) -> Files:
        """From rows (name, size, time), which an end may follow."""
        rows = list(rows)
        sizes, times = (np.array([row[column] for row in rows], np.int64) for column in (1, 2))
        ends = np.array([row[3] if len(row) > 3 else NOT_READ for row in rows], np.int64)
        return cls(text_array([row[0] for row in rows]), sizes, times, ends)

    @classmethod
    def of_images(cls, names: Any, sizes: NDArray[np.int64], times: NDArray[np.int64]) -> Files:
        return cls(names, sizes, times, np.full(len(sizes), NOT_READ))

    @classmethod
    def none(cls) -> Files:
        return cls.of_rows([])

    def rows(self, at: NDArray[np.int64]) -> list[tuple[str, int, int, int]]:
        """Those in the places `at`."""
        names = self.names.take(at).to_pylist()
        return list(zip(names, *(numbers[at].tolist() for numbers in (self.sizes, self.times, self.ends)), strict=True))

    def slice(self, begin: int, end: int) -> Files:
        numbers = (each[begin:end] for each in (self.sizes, self.times, self.ends))
        return Files(self.names.slice(begin, end - begin), *numbers)

    def __len__(self) -> int:
        return len(self.sizes)

    def __add__(self, other: Files) -> Files:
        import pyarrow as pa

        parts = [chunk for names in (self.names, other.names) for chunk in _chunks(names)]
        pairs = ((self.sizes, other.sizes), (self.times, other.times), (self.ends, other.ends))
        return Files(pa.chunked_array(parts, pa.string()), *map(np.concatenate, pairs))


def _chunks(names: Any) -> list[Any]:
    return list(names.chunks) if hasattr(names, "chunks") else [names]


def size_and_time(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Of a file, as in Files; (-1, 0) for one that is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _end(path: str | os.PathLike[str]) -> int:
    """Of a file, as in Files."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - END_BYTES))
            return crc32(file.read(END_BYTES))
    except (OSError, ValueError):
        return NOT_READ


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The inventory of one data set. files: those that it is read from; for a source with a file per sample these are
    the first ones, in the order of the samples. left_out: the number of files that are not used, by reason and suffix.
    without_images: the names of the class folders that hold no image, and are not classes. inner: folders in class
    folders that hold several; their images are of the class of the outer one. remarks: further sentences for the user,
    as on a column that was chosen among several."""

    files: Files = field(default_factory=Files.none)
    left_out: Mapping[str, Counter[str]] = field(default_factory=dict)
    without_images: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What a user should know of: a sentence each."""
        notes = []
        shown = {reason: counts for reason, counts in self.left_out.items() if reason != SYSTEM}
        if shown:
            notes.append(f"left out: {left_out_text(shown)}")
        if self.without_images:
            one = len(self.without_images) == 1
            count = (
                "1 class folder without an image, which is not a class"
                if one
                else (f"{len(self.without_images):,} class folders without images, which are not classes")
            )
            notes.append(f"{count}: {some(self.without_images)}")
        if self.inner:
            notes.append(f"class folders hold several folders, whose images are of the outer class: {some(self.inner)}")
        return [*notes, *self.remarks]

    def summary(self) -> dict[str, Any]:
        """As PATH.json keeps it."""
        return {
            "files": len(self.files),
            "bytes": int(self.files.sizes.sum()),
            "left_out": {reason: dict(counts) for reason, counts in self.left_out.items()},
            "without_images": list(self.without_images),
        }


def left_out_text(left_out: Mapping[str, Counter[str]]) -> str:
    """As "2 .txt, 1 .heic (not images that Pillow opens), 1 .png (beside the class folders)"."""
    return ", ".join(
        f"{', '.join(f'{count} {suffix}' for suffix, count in counts.most_common())} ({reason})"
        for reason, counts in left_out.items()
    )


def classes_text(labels: NDArray[np.int64]) -> str:
    """As "43 images in 10 classes of 4 to 7"."""
    counts = np.unique(labels, return_counts=True)[1]
    low, high = int(counts.min()), int(counts.max())
    sizes = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{len(labels):,} images in {len(counts):,} classes of {sizes}"


def changes(before: Files, now: Files) -> str | None:
    """What differs, as "2 files added (a/3.png, a/4.png), 1 changed (b/0.png)"; None where nothing does."""
    import pyarrow.compute as pc

    if len(now) == len(before) and pc.all(pc.equal(now.names, before.names)).as_py():
        place = np.arange(len(now))  # without the memory of looking them up
    else:
        place = pc.index_in(now.names, value_set=before.names).fill_null(-1).to_numpy().astype(np.int64)
    is_old = place >= 0
    old = place[is_old]
    removed = np.ones(len(before), bool)
    removed[old] = False
    differs = np.zeros(len(now), bool)
    ends = before.ends[old], now.ends[is_old]
    differs[is_old] = (before.sizes[old] != now.sizes[is_old]) | (before.times[old] != now.times[is_old])
    differs[is_old] |= (ends[0] != ends[1]) & (ends[0] != NOT_READ) & (ends[1] != NOT_READ)
    parts = (("added", now, ~is_old), ("removed", before, removed), ("changed", now, differs))
    found = [f"{mask.sum():,} {what} ({_some(files, mask)})" for what, files, mask in parts if mask.any()]
    return f"files: {', '.join(found)}" if found else None


def _some(files: Files, mask: NDArray[np.bool_]) -> str:
    at = np.flatnonzero(mask)
    shown: list[str] = files.names.take(at[:SHOWN]).to_pylist()
    return ", ".join(shown) + (f" and {len(at) - SHOWN:,} more" if len(at) > SHOWN else "")


def some(names: Sequence[str], shown: int = SHOWN) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def valid_text(name: str) -> str:
    """The name itself; what is not UTF-8 in it, as in names from an old archive, is escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def text_array(names: Sequence[str]) -> Any:
    """A pyarrow array of the names, as valid_text."""
    import pyarrow as pa

    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:
        return pa.array(map(valid_text, names), pa.string(), size=len(names))


def numbered_texts(before: str, n: int, behind: str = "") -> Any:
    """A pyarrow array (n,) of before, the number of the row, behind; as valid_text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pc.cast(pa.array(np.arange(n, dtype=np.int32)), pa.string())
    return pc.binary_join_element_wise(valid_text(before), numbers, valid_text(behind), "")

"""The images of a run as they came: in their own files where these are there and unchanged, else as stored in the
.beton."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePosixPath

from dualfast.data import sources
from dualfast.data.beton import Beton
from dualfast.data.beton.format import JPEG
from dualfast.data.sources import Where
from dualfast.data.sources.file_list import list_in
from dualfast.data.sources.paths import folder_of, split_folders, split_of


class Originals:
    """beton: the run's images. data: what they were made of, a path or several."""

    def __init__(self, beton: Beton, data: Where) -> None:
        self.beton = beton
        self._stats = None
        names = beton.names
        if names is not None and "size" in names.table.column_names:
            sizes, times = (names.table[column].to_numpy() for column in ("size", "modified"))
            self._stats = names.column, sizes, times
        self._folder = None if self._stats is None else _folder_of(data)

    def path(self, row: int) -> Path | None:
        """The file that a sample is of, absolute; None where it is no file, or the file is gone or has changed."""
        if self._stats is None or self._folder is None:
            return None
        names, sizes, times = self._stats
        name = PurePosixPath(names[row].as_py())
        if name.is_absolute() or ".." in name.parts:  # no name that write makes; the names may be somebody else's
            return None
        path = self._folder / name
        try:
            stat = path.stat()
        except (OSError, ValueError):
            return None
        return path if (stat.st_size, stat.st_mtime_ns) == (sizes[row], times[row]) else None

    def stored(self, row: int) -> tuple[bytes, str]:
        """A sample as the .beton has it, and the suffix of that: the bytes of a JPEG, or a PNG of its pixels."""
        if self.beton.mode[row] == JPEG:
            return self.beton.payload(row), ".jpg"
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(self.beton.image(row)).save(out, "PNG")
        return out.getvalue(), ".png"


def _folder_of(data: Where) -> Path | None:
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

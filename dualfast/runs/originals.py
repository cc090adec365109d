"""The images of a run as they came: in their own files where these are there and unchanged, else as stored in the
.beton."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dualfast.data import sources
from dualfast.data.beton import Beton
from dualfast.data.beton.format import JPEG
from dualfast.data.sources.file_list import list_in
from dualfast.data.sources.paths import folder_of, split_folders, split_of

ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f])")  # a byte that is not UTF-8, as inventory.valid_text writes it


class Originals:
    """beton: the run's images. data: what they were made of, the paths of it, or several such, one of which it is."""

    def __init__(self, beton: Beton, data: Sequence[tuple[str, ...]]) -> None:
        self.beton = beton
        self._stats = None
        names = beton.names
        if names is not None and "size" in names.table.column_names:
            sizes, times = (names.table[column].to_numpy() for column in ("size", "modified"))
            self._stats = names.column, sizes, times
        found = [] if self._stats is None else map(_folder_of, data)
        self._folders = [folder for folder in found if folder is not None]

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
        names = dict.fromkeys((text, ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)))
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
        return f"is not in {' or '.join(map(str, self._folders))}"

    def stored(self, row: int) -> tuple[bytes, str]:
        """A sample as the .beton has it, and the suffix of that: the bytes of a JPEG, or a PNG of its pixels."""
        if self.beton.mode[row] == JPEG:
            return self.beton.payload(row), ".jpg"
        from PIL import Image

        out = io.BytesIO()
        Image.fromarray(self.beton.image(row)).save(out, "PNG")
        return out.getvalue(), ".png"


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

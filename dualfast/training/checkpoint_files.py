"""The files of checkpoints: their format, their names, and which of them are kept.

A file is what torch.save writes, tensors and plain values only, followed by MARK and a CRC-32 of what precedes.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dualfast.comm.ranks import Ranks
from dualfast.errors import DamagedCheckpoint
from dualfast.storage.files import atomic, open_regular

FORMAT = 1
KEPT = 2
MARK = b"dualfast"
NAME = re.compile(r"(\d{10})(?:\.rank(\d+)of(\d+))?\.pt")


class CheckpointFile(NamedTuple):
    """A file of the checkpoint of `step`, written by `rank` of `size`."""

    step: int
    rank: int
    size: int
    path: Path


class CheckpointFolder:
    """The checkpoint files in one folder; every rank writes one file per checkpoint."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks

    @property
    def _suffix(self) -> str:
        return ".pt" if self.ranks.size == 1 else f".rank{self.ranks.rank}of{self.ranks.size}.pt"

    def path(self, step: int) -> Path:
        """This rank's file for the checkpoint of `step`."""
        return self.folder / f"{step:010d}{self._suffix}"

    def files(self) -> list[CheckpointFile]:
        """The files of all ranks and all numbers of ranks, latest first."""
        named = ((NAME.fullmatch(path.name), path) for path in self.folder.glob("*.pt"))
        return sorted(
            (CheckpointFile(int(m[1]), int(m[2] or 0), int(m[3] or 1), path) for m, path in named if m), reverse=True
        )

    def own(self) -> list[CheckpointFile]:
        """This rank's files, latest first."""
        return [file for file in self.files() if (file.rank, file.size) == (self.ranks.rank, self.ranks.size)]

    def prepare(self) -> None:
        """Creates the folder, and deletes what a killed process of this rank left half written."""
        self.folder.mkdir(exist_ok=True)
        for part in self.folder.glob(f".*{self._suffix}.*.part"):
            part.unlink(missing_ok=True)

    def write(self, payload: dict[str, Any], step: int) -> None:
        """Writes this rank's file for `step`, then deletes its files but the latest KEPT."""
        before = [file for file in self.own() if file.step != step]
        write(payload, self.path(step))
        for old in before[KEPT - 1 :]:
            with suppress(FileNotFoundError):
                old.path.unlink()

    def clear(self) -> None:
        """Deletes this rank's files; rank 0 also deletes those of other numbers of ranks."""
        for file in self.files():
            own = (file.rank, file.size) == (self.ranks.rank, self.ranks.size)
            if own or (self.ranks.is_rank0 and file.size != self.ranks.size):
                file.path.unlink(missing_ok=True)


def write(payload: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint file atomically, its checksum at the end."""
    with atomic(path) as part:
        torch.save(payload, part)
        with open(part, "rb+") as file:
            checksum = 0
            while piece := file.read(1 << 20):
                checksum = zlib.crc32(piece, checksum)
            file.write(MARK + checksum.to_bytes(4, "little"))


def read(path: Path) -> dict[str, Any]:
    """What write() wrote. Raises DamagedCheckpoint for an incomplete or corrupted file, ValueError for one of a newer
    version."""
    try:
        with open_regular(path) as file:
            content = memoryview(file.read())
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(getattr(error, "strerror", None) or str(error)) from error
    body, end = content[: -len(MARK) - 4], content[-len(MARK) - 4 :]
    if bytes(end[: len(MARK)]) != MARK:
        raise DamagedCheckpoint("it is cut off")
    if zlib.crc32(body) != int.from_bytes(end[len(MARK) :], "little"):
        raise DamagedCheckpoint("its checksum is wrong")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:  # torch.save compresses nothing; others can, 1000-fold
            if sum(entry.file_size for entry in archive.infolist()) > len(body):
                raise DamagedCheckpoint("its entries are larger than the file")
        payload = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    except (MemoryError, DamagedCheckpoint):
        raise
    except Exception as error:  # torch raises half a dozen kinds
        raise DamagedCheckpoint(f"it is not a checkpoint: {str(error).partition(chr(10))[0]}") from error
    if not isinstance(payload, dict) or not isinstance(payload.get("format"), int):
        raise DamagedCheckpoint("it is not a checkpoint")
    if payload["format"] > FORMAT:
        raise ValueError(
            f"{str(path)!r} has checkpoint format {payload['format']}, and this version reads up to {FORMAT}; update "
            "dualfast, or delete the file"
        )
    return payload

"""Files that are made in many steps: stopped at any moment, they go on from the last step that was done."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dualfast.storage import files


class Partial:
    """PATH.partial, the file in the making, and PATH.partial.steps, its journal: a line that says what was asked for,
    then one for every step that is done. finish() gives the file its name; before that it stays for whoever asks for
    the same again, unless no step of it was done.

    file: PATH.partial, open for reading and writing. steps: the lines of an earlier try that asked for the same. A
    file of another request is begun anew. ValueError where the folder does not exist, or while another process makes
    the same file."""

    def __init__(self, path: str | os.PathLike[str], asked: str) -> None:
        self.final = Path(path)
        self.path = Path(f"{self.final}.partial")
        self._journal_path = Path(f"{self.path}.steps")
        self._asked = asked.encode()
        self.file = self._locked()
        self._journal = open(self._journal_path, "ab+", buffering=0)  # noqa: SIM115  closed with the file
        self._journal.seek(0)
        self.steps: list[bytes]
        first, *self.steps = self._journal.read().split(b"\n")[:-1] or [b""]  # no line end: it was cut short
        if first != self._asked or not os.fstat(self.file.fileno()).st_size:
            self.steps = []
        self.steps = list(takewhile(lambda line: b"\0" not in line, self.steps))  # a machine that lost power left it so
        self.cut(len(self.steps))

    def _locked(self) -> BinaryIO:
        files.check_folder(self.final)
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise ValueError(
                    f"{self.final} is being made by another process; wait for it, or give another name"
                ) from None
            except OSError:  # a file system without locks
                return file
            with suppress(FileNotFoundError):
                if os.path.samefile(self.path, file.fileno()):
                    return file
            file.close()  # it was finished, or removed, before it was locked

    def step(self, line: str) -> None:
        """Notes that a step is done; what it wrote must have left the file's buffer."""
        self._journal.write(line.encode() + b"\n")
        self._begun = True

    def cut(self, steps: int) -> None:
        """Forgets all but the first `steps` of the earlier steps."""
        self.steps = self.steps[:steps]
        self._begun = bool(self.steps)
        head = b"\n".join([self._asked, *self.steps, b""])
        self._journal.truncate(len(head) if self.steps else 0)
        if not self.steps:
            self._journal.write(head)
            self.file.truncate(0)

    def finish(self) -> None:
        """Gives the file its name, once the disk has it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        os.replace(self.path, self.final)
        self._journal_path.unlink(missing_ok=True)
        files.sync_folder(self.final.parent)

    def __enter__(self) -> Partial:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._begun:
            self._journal_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._journal.close()
        with suppress(OSError):  # a full disk: what is in the buffer belongs to no step
            self.file.close()

"""Files written in many steps: interrupted at any moment, they resume after the last step that was completed."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dualfast.storage import files
from dualfast.storage.locks import try_lock


class Partial:
    """PATH.partial, the unfinished file, and PATH.partial.steps, its journal: the request's hash, then one line per
    completed step. finish() renames the file to PATH; until then it stays for the next call with the same request,
    unless no step was completed. A link or pipe under either name is not written to, as others can foresee these names.

    file: PATH.partial, open for reading and writing. steps: the journal lines of an earlier attempt at the same
    request; a file of another request is started over. Raises ValueError when the folder does not exist or PATH is
    one, for a link or pipe, and while another process writes the same file.
    """

    def __init__(self, path: str | os.PathLike[str], request_hash: str) -> None:
        self.final = Path(path)
        self.path = Path(f"{self.final}.partial")
        self._journal_path = Path(f"{self.path}.steps")
        self._request_hash = request_hash.encode()
        self.file = self._locked()
        try:
            self._journal = files.open_own(self._journal_path, "ab+")
        except (OSError, ValueError):
            if not os.fstat(self.file.fileno()).st_size:
                self.path.unlink()
            self.file.close()
            raise
        self._journal.seek(0)
        self.steps: list[bytes]
        first, *self.steps = self._journal.read().split(b"\n")[:-1] or [b""]  # a line without its end is incomplete
        if first != self._request_hash or not os.fstat(self.file.fileno()).st_size:
            self.steps = []
        self.steps = list(takewhile(lambda line: b"\0" not in line, self.steps))  # zeros: the machine lost power
        self.truncate_steps(len(self.steps))

    def _locked(self) -> BinaryIO:
        files.check_folder(self.final)
        while True:
            file = files.open_own(self.path, "rb+")
            if not try_lock(file.fileno()):
                file.close()
                raise ValueError(f"{self.final} is being written by another process; wait for it, or give another name")
            with suppress(FileNotFoundError):
                if os.path.samefile(self.path, file.fileno()):
                    return file
            file.close()  # another process finished or deleted it before it was locked

    def step(self, line: str) -> None:
        """Records a completed step; what it wrote must have left the file's buffer."""
        self._journal.write(line.encode() + b"\n")
        self._has_steps = True

    def truncate_steps(self, count: int) -> None:
        """Keeps only the first `count` steps of the earlier attempt."""
        self.steps = self.steps[:count]
        self._has_steps = bool(self.steps)
        head = b"\n".join([self._request_hash, *self.steps, b""])
        self._journal.truncate(len(head) if self.steps else 0)
        if not self.steps:
            self._journal.write(head)
            self.file.truncate(0)

    def finish(self) -> None:
        """Renames the file to its final name, once it is on disk."""
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
        if kind is not None and not self._has_steps:
            self._journal_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._journal.close()
        with suppress(OSError):  # a full disk: what is still buffered belongs to no completed step
            self.file.close()

"""Files of JSON lines that only grow: one record per line, durable once written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Records:
    """The records of the file at `path`, which need not exist. A last line that a crash cut off is not a record."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All complete records, oldest first."""
        if not self.path.is_file():
            return []
        lines = self.path.read_bytes().split(b"\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise ValueError(f"{str(self.path)!r} is damaged: {error}; remove the lines that are not JSON") from None

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record and waits until it is on disk; first removes a line that a crash cut off."""
        with open(self.path, "ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

"""Files of JSON lines that only grow: one record per line, durable once written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dualfast.storage.files import open_own
from dualfast.storage.plain import MAX_JSON, parse_json, read_regular


class Records:
    """The records of the file at `path`, which need not exist. A last line that a crash cut off is not a record."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def read(self) -> list[dict[str, Any]]:
        """All complete records, oldest first."""
        if not self.path.is_file():
            return []
        records = []
        for number, line in enumerate(read_regular(self.path, MAX_JSON).split(b"\n")[:-1], 1):
            record = parse_json(line, f"{str(self.path)!r} is damaged; remove line {number}, which")
            if not isinstance(record, dict):
                raise ValueError(f"{str(self.path)!r} is damaged; remove line {number}, which is not an object")
            records.append(record)
        return records

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record and waits until it is on disk; first removes a line that a crash cut off."""
        with open_own(self.path, "ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
            file.write((json.dumps(record) + "\n").encode())
            os.fsync(file.fileno())

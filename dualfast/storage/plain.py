"""Small files of plain values that may come from anybody: read whole, within limits, and nothing but values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dualfast.storage.files import open_regular

MAX_JSON = 1 << 26  # bytes
MAX_YAML = 1 << 16  # bytes; the parser takes a second for so many
MAX_DEPTH = 16  # of lists and maps in YAML


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes. ValueError for a larger one and for a pipe, socket or
    device, which is not waited for; OSError as open raises."""
    with open_regular(path) as file:
        is_too_long = os.fstat(file.fileno()).st_size > limit
        content = b"" if is_too_long else file.read()
    if is_too_long or len(content) > limit:
        raise ValueError(f"{os.fspath(path)!r} has more than {limit:,} bytes")
    return content


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file. ValueError as of read_regular, and for what is not JSON or nested too deeply."""
    try:
        content = read_regular(path, MAX_JSON)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!r} is not JSON: {error}") from None
    return parse_json(content, repr(os.fspath(path)))


def parse_json(content: bytes, what: str) -> Any:
    """The value of JSON text. ValueError, which calls it `what`, for what is not JSON or nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what} is not JSON: {error}") from None


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The value in a YAML file of scalars, lists and maps. ValueError as of read_regular, and for what is not YAML, for
    anchors, aliases and tags, and for lists and maps nested more than MAX_DEPTH deep."""
    import yaml

    text = read_regular(path, MAX_YAML)
    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):  # lazily: what stands behind a fault is not parsed
            if getattr(event, "anchor", None) is not None or getattr(event, "tag", None) is not None:
                raise ValueError("it has anchors, aliases or tags")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError("it is nested too deeply")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{str(Path(path))!r} cannot be read: {' '.join(str(error).split())}") from None

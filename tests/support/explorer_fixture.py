"""The data map of a page, read as explorer.js reads it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def header_text(page: str) -> str:
    found = re.search(r'<script type="application/json" id="explorer-header">(.*?)</script>', page, re.S)
    assert found is not None
    return found[1]


def header(page: str) -> dict[str, Any]:
    """What the page says of its map."""
    about: dict[str, Any] = json.loads(header_text(page))
    return about


def unpacked(page: str) -> dict[str, NDArray[Any]]:
    """The packed columns by name."""
    found = re.search(r'<script type="text/plain" id="explorer-data">(.*?)</script>', page, re.S)
    assert found is not None
    data, parts, at = zlib.decompress(base64.b64decode(found[1])), {}, 0
    for name, size, count in header(page)["parts"]:
        parts[name] = np.frombuffer(data, f"<u{size}", count, at)
        at += size * count
    assert at == len(data)
    return parts


def ids_of(page: str) -> NDArray[Any]:
    """The ids of the points, ascending."""
    return np.cumsum(unpacked(page)["gaps"])


def kept_at(page: str, ratio: float) -> list[int]:
    """The ids of the points that are kept at a ratio of the slider."""
    ids = ids_of(page)
    rows = unpacked(page)["kept"].reshape(len(header(page)["ratios"]), -1)
    at = [about["ratio"] for about in header(page)["ratios"]].index(ratio)
    return ids[np.unpackbits(rows[at], count=len(ids), bitorder="little").astype(bool)].tolist()


def values_of(page: str, name: str) -> NDArray[np.float64]:
    """A score of the points, NaN where there is none."""
    about = next(column for column in header(page)["columns"] if column["name"] == name)
    planes = unpacked(page)[name].reshape(-1, header(page)["points"]).astype(int)
    level = planes[0] + (256 * planes[1] if len(planes) > 1 else 0)
    values = about["low"] + (level - 1) / max(about["steps"], 1) * (about["high"] - about["low"])
    return np.where(level > 0, values, np.nan)

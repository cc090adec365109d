"""Small data sets of each kind, for tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dualfast.data import sources


def jpeg(value: int, size: tuple[int, int] = (20, 30), kind: str = "JPEG", **options: Any) -> bytes:
    """A one-colour image whose red value is `value`."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, (value, 255 - value, 90)).save(out, kind, **options)
    return out.getvalue()


def class_folders(root: Path, classes: dict[str, int]) -> Path:
    """A folder per class with so many images each."""
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.jpg").write_bytes(jpeg(40 * label + i))
    return root


def parquet_file(path: Path, columns: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def tar_file(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    """mode: "w", or "w:gz" for a compressed one."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def assert_refused(source: Any, words: str, kind: type[Exception] = ValueError) -> None:
    """open_source raises this kind of error, in one line that matches `words`."""
    with pytest.raises(kind, match=words) as caught:
        sources.open_source(source)
    assert "\n" not in str(caught.value)

"""Small data sets of each kind, for tests."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

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


def zip_file(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def idx_file(path: Path, values: NDArray[np.uint8]) -> Path:
    """MNIST's format, compressed where the path ends in .gz."""
    data = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def python_2_pickle(value: Any) -> bytes:
    """As pickle.dumps(value, 2) of Python 2 writes dictionaries, lists, texts, numbers and arrays of bytes."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: Any) -> bytes:
    if isinstance(value, dict):
        return b"}(" + b"".join(_pickled(key) + _pickled(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_pickled, value)) + b"t"
    if isinstance(value, bytes):
        return b"T" + len(value).to_bytes(4, "little") + value
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, np.ndarray):
        dtype = (
            b"cnumpy\ndtype\n" + _pickled(("u1", 0, 1)) + b"R" + _pickled((3, "|", None, None, None, -1, -1, 0)) + b"b"
        )
        state = b"(" + _pickled(1) + _pickled(value.shape) + dtype + b"\x89" + _pickled(value.tobytes()) + b"t"
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _pickled((0,)) + _pickled("b") + b"tR"
        return made + b"q\x01" + state + b"b"
    return b"N" if value is None else b"J" + int(value).to_bytes(4, "little", signed=True)

"""dualfast.storage.npy: a header is believed only as far as the file has bytes for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualfast.storage import npy


@pytest.mark.parametrize(
    "array",
    [
        np.arange(10),
        np.zeros(0, np.int64),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.array([True, False]),
        np.array(7),
        np.array(["a", "bc"]),
        np.arange(5, dtype=">f4"),
    ],
)
def test_arrays_are_those_of_numpy(array: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    read = npy.load(tmp_path / "a.npy")
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_rows_are_read_alone_and_a_file_cut_short_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(1000))
    with npy.NpyFile(tmp_path / "a.npy") as file:
        assert file.rows(990, 2000).tolist() == list(range(990, 1000))
        os.truncate(tmp_path / "a.npy", 4096)
        with pytest.raises(ValueError, match=r"a\.npy' ends at byte 4096"):
            file.rows(0, 1000)


def test_headers_are_not_believed(tmp_path: Path) -> None:
    def header(shape: tuple[int, ...], descr: str = "<i8") -> Path:
        with open(tmp_path / "a.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
            file.write(bytes(64))
        return tmp_path / "a.npy"

    assert npy.load(header((8,))).tolist() == [0] * 8
    for shape in ((9,), (2**40,), (2**31, 2**31, 2**31), (-1,)):
        with pytest.raises(ValueError):
            npy.load(header(shape))
    with pytest.raises(ValueError, match="pickled"):
        npy.load(header((1,), "|O"))
    np.savez(tmp_path / "z.npz", a=np.arange(3))
    with pytest.raises(ValueError):
        npy.load(tmp_path / "z.npz")

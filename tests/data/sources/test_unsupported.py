"""Formats that are not read are recognized, and the error says what makes a data set of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused

from dualfast.config import RunConfig
from dualfast.data import sources
from dualfast.data.sources import unsupported
from dualfast.errors import in_flags

FILES = {
    "a.mat": r"is a MATLAB file; .*np\.savez\('data\.npz'",
    "train_32x32.mat": r"an SVHN file of MATLAB; python -c .* makes svhn\.npz",
    "train_X.bin": "STL-10's binary version; in its folder, python -c ",
    "a.h5": "an HDF5 file",
    "a.npy": r"one array; np\.savez",
    "a.pkl": "a pickle, which is never loaded",
    "a.tfrecord-00000-of-00010": "a TFRecord file",
    "train-00000-of-01024": "a TFRecord file",
    "a.rar": "7z x",
    "a.tar.zst": "unzstd",
    "a.arrow": "save_to_disk",
    "a.json": r"labels\.csv",
    "data.yaml": "a description of a data set; give the folder of its images",
    "a.beton": "a .beton file already",
    "a.jpg": "one image; give the folder",
}


@pytest.mark.parametrize("name", FILES)
def test_a_format_that_is_not_read_is_recognized(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert_refused(tmp_path / name, rf"{name} is .*{FILES[name]}|{FILES[name]}")
    said = str(unsupported.hint(str(tmp_path / name)))
    assert in_flags(said, [option.name for option in fields(RunConfig)]) == said, "commands keep their arguments"
    if not name.endswith(("jpg", "beton")):
        assert_refused(tmp_path, f"holds no class folder; .*{name} is ")


def test_what_holds_the_data_is_named_before_what_describes_them(tmp_path: Path) -> None:
    """As tensorflow_datasets writes them."""
    for name in ("dataset_info.json", "cats-train.tfrecord-00000-of-00001"):
        (tmp_path / name).write_bytes(b"x")
    assert_refused(tmp_path, "holds no class folder; .*00001 is a TFRecord file")


def test_the_command_for_stl_10_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    image = np.arange(96 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(96, 96, 3)
    np.stack([image.transpose(2, 1, 0)] * 2).tofile(folder / "train_X.bin")  # planes of columns
    np.array([1, 10], np.uint8).tofile(folder / "train_y.bin")
    with pytest.raises(ValueError, match="STL-10") as caught:
        sources.open_source(folder)
    command = str(caught.value).split('python -c "')[1].split('"')[0]
    monkeypatch.chdir(folder)
    exec(command, {})
    opened = sources.open_source(f"{folder}/stl10.npz:train")
    assert opened.labels.tolist() == [0, 9]
    assert np.array_equal(next(iter(opened.items())), image)

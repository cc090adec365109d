"""Pairs of arrays and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from data_sets import assert_refused

from dualfast.data import sources


def test_arrays_and_npz(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    labels = np.array([0, 1, 0], np.int32)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    for source in ((images, labels), tmp_path / "a.npz"):
        opened = sources.open_source(source)
        assert np.stack([*opened.items()]).shape == (3, 4, 5, 1)
        assert opened.labels.tolist() == [0, 1, 0]


def test_npz_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PKno npz")
    assert_refused(tmp_path / "broken.npz", r"is not an \.npz file")
    np.savez(tmp_path / "names.npz", x=np.zeros(3), y=np.zeros(3))
    assert_refused(tmp_path / "names.npz", "it has x, y")
    np.savez(tmp_path / "pickle.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    assert_refused(tmp_path / "pickle.npz", "pickle")
    np.savez(tmp_path / "directory.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    whole = (tmp_path / "directory.npz").read_bytes()
    (tmp_path / "directory.npz").write_bytes(whole.replace(b"PK\x01\x02", b"XX\x01\x02"))
    assert_refused(tmp_path / "directory.npz", "cannot be read")


def test_arrays_that_are_refused() -> None:
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1])
    assert_refused((images, np.array([0, -1, 1])), "label -1")
    assert_refused((images.astype(float), labels), "uint8", TypeError)
    assert_refused((images[None], labels), "shape")
    assert_refused((images, labels[:2]), "3 images need")
    assert_refused((images, labels.astype(float)), "integers", TypeError)

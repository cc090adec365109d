"""dualfast.data.beton.space: a disk that is too small is noticed before hours are spent on filling it."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from data_sets import class_folders

from dualfast.data import beton, sources
from dualfast.data.beton.space import check_space

Usage = namedtuple("Usage", "total used free")


def free_bytes(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1 << 40, 0, count))


def test_a_set_that_does_not_fit_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)  # 768 bytes each
    source, path = (images, np.arange(1000) % 2), tmp_path / "a.beton"
    free_bytes(monkeypatch, 500_000)
    with pytest.raises(
        ValueError, match=r"a\.beton needs about 0\.8 MB for 1,000 images.* has 0\.5 MB free; .*max_size"
    ):
        beton.write(source, path, progress=False)
    assert list(tmp_path.iterdir()) == []
    free_bytes(monkeypatch, 700_000)  # the estimate may be a little high
    assert beton.write(source, path, progress=False).n_samples == 1000


def test_files_of_other_sizes_than_the_first_count_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 32, "b": 4})
    for file in (photos / "b").iterdir():
        file.write_bytes(file.read_bytes() + bytes(1_000_000))  # what follows the image
    free_bytes(monkeypatch, 1_000_000)
    with pytest.raises(ValueError, match="and its disk has"):
        beton.write(photos, tmp_path / "a.beton", progress=False)


def test_what_an_earlier_attempt_stored_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sources.open_source((np.zeros((96, 16, 16, 3), np.uint8), np.arange(96) % 2))
    free_bytes(monkeypatch, 40_000)
    with pytest.raises(ValueError, match="for 96 images"):
        check_space(tmp_path / "a.beton", source, 0, [768] * 32)
    check_space(tmp_path / "a.beton", source, 64, [768] * 32)

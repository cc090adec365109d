"""Data behind a URL, with fsspec's memory:// for all others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_sets import assert_refused, jpeg, zip_file

from dualfast.data import sources
from dualfast.data.sources import remote
from dualfast.errors import MissingPackage

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("PIL")


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DUALFAST_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def put(system: Any, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        system.makedirs(name.rpartition("/")[0], exist_ok=True)
        system.pipe_file(name, data)


def test_a_folder_a_pattern_and_a_file_behind_a_url(memory: Any, tmp_path: Path) -> None:
    photos = {f"/photos/{part}/{name}/1.jpg": jpeg(1) for part in ("train", "val") for name in ("cat", "dog")}
    put(memory, photos)
    train, test = sources.splits("memory://photos")
    assert sources.open_source(train).class_names == ("cat", "dog")
    assert len(sources.open_source(test)) == 2
    assert sources.open_source("memory://photos:train").names().to_pylist() == ["cat/1.jpg", "dog/1.jpg"]
    assert len(sources.open_source("memory://photos/*/*/1.jpg:val")) == 2
    zip_file(tmp_path / "a.zip", {"cat/1.jpg": jpeg(1), "dog/1.jpg": jpeg(2)})
    put(memory, {"/archives/a.zip": (tmp_path / "a.zip").read_bytes()})
    assert [*sources.open_source("memory://archives/a.zip").items()] == [jpeg(1), jpeg(2)]
    assert sources.files_of("memory://archives/a.zip").names.to_pylist() == ["a.zip"]


def test_a_copy_is_made_once_while_the_sizes_are_the_same(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, {f"/pets/{name}/1.jpg": jpeg(1) for name in ("cat", "dog")})
    got = []
    original = type(memory).get_file
    monkeypatch.setattr(type(memory), "get_file", lambda *given, **kw: got.append(given[1]) or original(*given, **kw))
    for _ in range(2):
        assert len(sources.open_source("memory://pets")) == 2
    assert len(got) == 2
    put(memory, {"/pets/dog/2.jpg": jpeg(2, (40, 40))})
    assert len(sources.open_source("memory://pets")) == 3


def test_urls_that_are_refused(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_refused("memory://nowhere", "memory://nowhere cannot be read: nothing is there")
    assert_refused("strange://x", "strange://x cannot be read: ")
    with pytest.raises(ValueError, match="leads out of it"):
        remote._inside(Path("/cache"), "../x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(MissingPackage, match="pip install s3fs"):
        sources.open_source("s3://bucket/a.zip")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingPackage, match=r"pip install 'dualfast\[hub\]'"):
        sources.open_source("memory://pets")

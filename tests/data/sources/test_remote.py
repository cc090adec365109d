"""Data behind a URL, with fsspec's memory:// for all others."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from data_sets import assert_refused, jpeg, zip_file

from dualfast.data import sources
from dualfast.data.inventory import changes
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


def test_a_copy_is_made_once_while_the_files_are_the_same(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def first_pixels(url: str) -> list[int]:
    return [sources.decode(item).getpixel((0, 0))[0] for item in sources.open_source(url).items()]


def test_a_file_of_the_same_size_and_one_that_is_gone_are_noticed(memory: Any) -> None:
    put(memory, {f"/pets/{name}/{i}.bmp": jpeg(40 * i, kind="BMP") for name in ("cat", "dog") for i in range(3)})
    before = sources.files_of("memory://pets")
    put(memory, {"/pets/cat/0.bmp": jpeg(250, kind="BMP")})
    assert first_pixels("memory://pets") == [250, 40, 80, 0, 40, 80]
    assert changes(before, sources.files_of("memory://pets")) == "files: 1 changed (cat/0.bmp)"
    memory.rm("/pets/cat/2.bmp")
    memory.rm("/pets/dog/0.bmp")
    assert first_pixels("memory://pets") == [250, 40, 40, 80]
    now = sources.files_of("memory://pets")
    assert changes(before, now) == "files: 2 removed (cat/2.bmp, dog/0.bmp), 1 changed (cat/0.bmp)"
    for name in (1, 2):
        memory.rm(f"/pets/dog/{name}.bmp")
    put(memory, {"/pets/fox/0.bmp": jpeg(1, kind="BMP")})
    source = sources.open_source("memory://pets")
    assert source.class_names == ("cat", "fox")
    assert source.inventory.without_images == ()


def test_a_copy_that_is_made_again_is_not_a_changed_file(memory: Any) -> None:
    put(memory, {f"/pets/{name}/1.jpg": jpeg(1) for name in ("cat", "dog")})
    before = sources.files_of("memory://pets")
    shutil.rmtree(remote.cache_folder())
    assert changes(before, sources.files_of("memory://pets")) is None


def test_a_copy_that_was_not_finished_is_no_sample(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, {f"/pets/{name}/{i}.jpg": jpeg(1) for name in ("cat", "dog") for i in range(2)})

    def cut(system: Any, name: str, place: str) -> None:
        Path(place).write_bytes(b"half")
        raise OSError("the connection is gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", cut)
        assert_refused("memory://pets", "memory://pets cannot be read: the connection is gone")
    assert all(item == jpeg(1) for item in sources.open_source("memory://pets").items())
    assert not list(remote.cache_folder().rglob(".part-*"))


def test_where_sizes_are_all_that_is_told_it_is_said(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put(memory, {f"/pets/{name}/1.jpg": jpeg(1) for name in ("cat", "dog")})
    monkeypatch.setattr(remote, "FACTS", ("size",))
    with pytest.warns(UserWarning, match="memory://pets tells of 2 files their size alone"):
        sources.open_source("memory://pets")


def test_messages_name_the_url_and_not_its_copy(memory: Any) -> None:
    put(memory, {"/flat/1.jpg": jpeg(1), "/files/x.bin": b"what is this"})
    put(memory, {f"/pets/{name}/1.jpg": jpeg(1) for name in ("cat", "dog")})
    assert_refused("memory://flat", r"^memory://flat holds no class folder")
    assert_refused("memory://files/x.bin", r"^memory://files/x.bin is not a data set")
    source = sources.open_source("memory://pets")
    assert (str(source), source.describe(0)) == ("memory://pets: 2 images in 2 classes of 1", "memory://pets/cat/1.jpg")
    assert sources.open_source("memory://pets/*/1.jpg").describe(1).endswith("//pets/dog/1.jpg")


def test_a_server_that_cannot_be_reached_is_not_one_without_the_file() -> None:
    pytest.importorskip("aiohttp")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}/a.zip"
    assert_refused(url, f"^{url} cannot be read: it cannot be reached: Cannot connect to host")
    handler = partial(SimpleHTTPRequestHandler, directory="/nonexistent")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zip"
        assert_refused(url, f"^{url} cannot be read: nothing is there")
        server.shutdown()


def test_a_file_behind_a_query_and_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Zenodo has it."""
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("DUALFAST_CACHE", str(tmp_path / "cache"))
    zip_file(tmp_path / "a.zip", {f"{name}/0.jpg": jpeg(at) for at, name in enumerate(("cat", "dog"))})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.zip"
        for query in ("", "?download=1"):
            source = sources.open_source(url + query)
            assert str(source) == f"{url}: 2 images in 2 classes of 1"
            assert list(source.items()) == [jpeg(0), jpeg(1)]
        server.shutdown()

"""Tar files of each form that are damaged, cut short, or put together with cat: nothing is lost without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from data_sets import jpeg, tar_file

from dualfast.data import sources

IMAGES = {f"{name}/{i}.png": jpeg(i, (5, 6), "PNG") for name in ("cat", "dog") for i in range(3)}


def in_class_folders(folder: Path) -> Path:
    return tar_file(folder / "photos.tar", IMAGES)


def as_shard(folder: Path) -> Path:
    members = {}
    for at, data in enumerate(IMAGES.values()):
        members |= {f"{at}.png": data, f"{at}.cls": str(at % 2).encode()}
    return tar_file(folder / "shard.tar", members)


def of_classes(folder: Path) -> Path:
    inner = tar_file(folder / "n01.tar", {f"n01_{at}.png": data for at, data in enumerate(IMAGES.values())})
    path = tar_file(folder / "classes.tar", {f"{name}.tar": inner.read_bytes() for name in ("n01", "n02", "n03")})
    inner.unlink()
    return path


@pytest.fixture(params=[in_class_folders, as_shard, of_classes])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = request.param(tmp_path)
    assert isinstance(path, Path)
    return path


def headers(content: bytes) -> list[int]:
    """Where the headers of the outer archive are."""
    return [m.start() - 257 for m in re.finditer(rb"ustar", content) if (m.start() - 257) % 512 == 0]


def test_a_damaged_header_is_not_the_end(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[headers(content)[-1] + 5] ^= 1
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be read as a \.?tar file: .*it is damaged at byte"):
        list(sources.open_source(archive).items())


def test_two_archives_in_one_file_are_refused(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() * 2)
    with pytest.raises(ValueError, match="something follows its end; tar --concatenate joins archives, unlike cat"):
        sources.open_source(archive)


def test_a_missing_end_is_said(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[: _end(archive)])
    with pytest.warns(UserWarning, match="has no end-of-archive mark; it may have been cut short"):
        opened = sources.open_source(archive)
    assert len(list(opened.items())) == len(opened.labels) > 0


def _end(archive: Path) -> int:
    """Where the last member ends."""
    import tarfile

    with tarfile.open(archive) as tar:
        tar.getmembers()
        return tar.offset

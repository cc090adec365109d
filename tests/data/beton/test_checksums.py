"""Checksums: tables are checked on opening, pages by verify, and what differs is named."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from dualfast import compact, verify
from dualfast.data import beton
from dualfast.data.beton import checksums
from dualfast.data.beton.format import DESCRIPTOR, HEADER
from dualfast.data.beton.verify import PageCheck
from dualfast.storage import files

N, PAGE = 5000, 1 << 21


@pytest.fixture
def made(tmp_path: Path) -> beton.Beton:
    """5,000 raw images over four pages of samples, after one of tables."""
    images = np.random.default_rng(0).integers(0, 256, (N, 20, 20, 3), dtype=np.uint8)
    beton.write((images, np.arange(N) % 7), tmp_path / "a.beton", page_size=PAGE)
    return beton.open_beton(tmp_path / "a.beton")


def flip(path: Path, at: int) -> None:
    with open(path, "rb+") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_compact_copies_no_damage(made: beton.Beton, tmp_path: Path) -> None:
    flip(made.path, int(made.ptr[2500]) + 7)
    page = int(made.ptr[2500]) // PAGE
    outside = np.flatnonzero(made.ptr // np.uint64(PAGE) != page)
    with pytest.raises(ValueError, match=f"page {page} "):
        compact(made.path, range(0, N, 2), tmp_path / "small.beton", progress=False)
    assert not (tmp_path / "small.beton").exists()
    compact(made.path, outside, tmp_path / "small.beton", progress=False)
    checksums.forget(made.path)
    compact(made.path, range(0, N, 2), tmp_path / "half.beton", progress=False)


def test_pages_are_checked_when_first_read_and_after_a_write(
    made: beton.Beton, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    of_page = checksums.of_page
    monkeypatch.setattr(checksums, "of_page", lambda *a: read.append(a[3]) or of_page(*a))
    opened = beton.open_beton(made.path)
    check = PageCheck(opened, 2)
    page_of = (made.ptr // np.uint64(PAGE)).astype(np.int64)
    on_2 = np.flatnonzero(page_of == 2)
    check(on_2[:5])
    check(on_2)
    assert read == [2]
    check(np.arange(N))
    assert sorted(read) == sorted(set(page_of.tolist()))
    flip(made.path, int(made.ptr[on_2[-1]]))
    with pytest.raises(ValueError, match="page 2 "):
        check(on_2[:1])
    checksums.forget(made.path)
    with pytest.raises(ValueError, match="pass verify=None"):
        PageCheck(beton.open_beton(made.path), 2)


def test_checksums_are_those_of_zlib(made: beton.Beton) -> None:
    data = made.path.read_bytes()
    assert made.sums is not None
    assert made.sums.pages.tolist() == [crc32(data[at : at + PAGE]) for at in range(0, len(data), PAGE)]
    rows = HEADER.itemsize + 2 * DESCRIPTOR.itemsize + made.metadata.nbytes
    assert made.sums.tables == crc32(data[:rows] + data[made.table_start :])


def test_the_page_and_its_samples_are_named(made: beton.Beton) -> None:
    row = 2500
    page = int(made.ptr[row]) // PAGE
    inside = np.flatnonzero(made.ptr // np.uint64(PAGE) == page)
    flip(made.path, int(made.ptr[row]) + 7)
    with pytest.raises(ValueError, match=rf"page {page} .*{len(inside)} samples, {inside[0]} to {inside[-1]}, differs"):
        verify(made.path, progress=False)
    flip(made.path, int(made.ptr[0]))
    with pytest.raises(ValueError, match=r"page 1 .*and 1 more pages, with"):
        verify(made.path, progress=False)
    checksums.forget(made.path)
    verify(made.path, progress=False)


def test_a_wrong_label_is_noticed_on_opening(made: beton.Beton) -> None:
    flip(made.path, HEADER.itemsize + 2 * DESCRIPTOR.itemsize + 100 * made.metadata.itemsize + 16)
    with pytest.raises(ValueError, match=r"its tables differ from the checksum in a\.beton\.crc.*or delete"):
        beton.open_beton(made.path)
    checksums.forget(made.path)
    assert (beton.open_beton(made.path).labels != made.labels).sum() == 1


def test_a_damaged_or_truncated_crc_file_is_refused(made: beton.Beton) -> None:
    crc = checksums.path_of(made.path)
    whole = crc.read_bytes()
    for at in range(len(whole)):
        flip(crc, at)
        with pytest.raises(ValueError, match=r"a\.beton"):
            beton.open_beton(made.path)
        crc.write_bytes(whole[:at])
        with pytest.raises(ValueError, match=r"a\.beton\.crc is damaged"):
            beton.open_beton(made.path)
        crc.write_bytes(whole)
    beton.open_beton(made.path)


def test_sizes_in_the_crc_file_are_bounded_by_the_file(made: beton.Beton) -> None:
    crc = checksums.path_of(made.path)
    assert made.sums is not None
    for page_size, length in ((0, made.bytes), (1, made.bytes), (PAGE, 1 << 60), (1 << 62, 1 << 62)):
        pages = np.zeros(3 if page_size else 0, np.uint32)
        checksums.save(made.path, checksums.Checksums(page_size, length, made.sums.tables, pages))
        with pytest.raises(ValueError, match=r"a\.beton"):
            beton.open_beton(made.path)
    with open(crc, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"a\.beton\.crc is damaged; .* has more than [\d,]+ bytes"):
        beton.open_beton(made.path)


def test_writing_and_compacting_replace_them(made: beton.Beton) -> None:
    compact(made.path, range(0, N, 2), made.path.with_name("half.beton"))
    compact(made.path, range(10), made.path.with_name("half.beton"))
    assert verify(made.path.with_name("half.beton"), full=True, progress=False).n_samples == 10
    beton.write((np.zeros((9, 4, 4), np.uint8), np.arange(9) % 2), made.path, rewrite=True)
    assert verify(made.path, progress=False).n_samples == 9
    assert made.image(4999).shape == (20, 20, 3)  # opened before it was replaced


def test_an_open_file_that_is_written_to_is_noticed(made: beton.Beton) -> None:
    os.utime(made.path)
    made.check_unchanged()  # the time alone means nothing
    os.truncate(made.path, made.bytes - 24)
    with pytest.raises(RuntimeError, match="changed while it was open"):
        made.check_unchanged()


def test_temporary_files_of_killed_processes_are_deleted(tmp_path: Path) -> None:
    (tmp_path / ".x.json.abcdefgh.part").write_text("left behind")
    (tmp_path / ".y.json.abcdefgh.part").write_text("another's")
    with files.atomic(tmp_path / "x.json") as one:
        files.write_text(tmp_path / "x.json", "two")
        one.write_text("one")  # still there: it is in use
    assert (tmp_path / "x.json").read_text() == "one"
    assert sorted(os.listdir(tmp_path)) == [".y.json.abcdefgh.part", "x.json"]


def test_checksums_that_wait_are_used_by_the_file_that_they_are_of(tmp_path: Path) -> None:
    """Two files with equal tables: only their pages tell whose checksums are whose."""
    path, crc = tmp_path / "a.beton", tmp_path / "a.beton.crc"
    contents = []
    for value in (0, 1):
        beton.write((np.full((9, 4, 4), value, np.uint8), np.arange(9) % 2), path, rewrite=True, progress=False)
        contents.append((path.read_bytes(), crc.read_bytes()))
    (old, old_crc), (new, new_crc) = contents
    assert old_crc != new_crc
    crc.write_bytes(old_crc)
    files.waiting_for(crc).write_bytes(new_crc)
    for content in (old, new):
        path.write_bytes(content)
        verify(path, full=True, progress=False)
    path.write_bytes(new)
    crc.unlink()
    assert beton.open_beton(path).sums is not None

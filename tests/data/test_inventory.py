"""What a data set consists of: files used and left out, and what changed since it was written."""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file, tar_file

from dualfast.data import beton, sources
from dualfast.data.inventory import Files, changes, numbered_texts

pytest.importorskip("PIL")


def notes_of(source: sources.Source, out: Path) -> list[str]:
    """What writing it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        beton.write(source, out, progress=False)
    return [str(warning.message) for warning in caught]


def test_images_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1, "b": 1})
    avif = jpeg(9, kind="AVIF") if ".avif" in sources.suffixes() else b""
    extra = {"web.jfif": jpeg(1), "noext": jpeg(2, kind="PNG"), "x.data": jpeg(3, kind="WEBP"), "w.avif": avif}
    extra |= {"p6": b"P6 2 1 255\n" + bytes(6), "y.bmp": jpeg(4, kind="BMP"), "z.TGA": jpeg(5, kind="TGA")}
    for name, data in extra.items():
        if data:
            (root / "b" / name).write_bytes(data)
    used = [name for name, data in extra.items() if data]
    (root / "b" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (root / "a" / "program.ps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    for name in ("BM of the week", "P6 is a format"):  # text that begins as an image may
        (root / "a" / name).write_text(name)
    opened = sources.open_source(root)
    assert opened.names().to_pylist() == ["a/0.jpg", *(f"b/{name}" for name in sorted(["0.jpg", *used]))]
    assert opened.inventory.notes() == [
        "left out: 2 without suffix, 1 .ps, 1 .heic (not images that Pillow opens)",
    ]
    beton.verify(beton.write(opened, tmp_path / "x.beton", progress=False).path, full=True, progress=False)


def test_what_systems_and_archivers_leave_is_skipped_and_other_empty_folders_are_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"cat": 2, "dog": 2})
    for folder in ("__MACOSX/cat", "@eaDir/cat@SYNO", "lost+found", ".ipynb_checkpoints", "cat/@eaDir"):
        (root / folder).mkdir(parents=True)
        (root / folder / "x.jpg").write_bytes(jpeg(1))
    for name in ("._0.jpg", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / "dog" / name).write_bytes(b"\0\5\x16\7")
    (root / "New folder").mkdir()
    (root / "README.md").write_text("")
    opened = sources.open_source(root)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 0, 1, 1]
    assert notes_of(opened, tmp_path / "x.beton") == [
        f"{root}: 1 class folder without an image, which is not a class: New folder"
    ]
    kept = json.loads((tmp_path / "x.beton.json").read_text())["inventory"]
    assert kept["files"] == 4
    assert kept["without_images"] == ["New folder"]
    assert sum(kept["left_out"]["left behind by an operating system or an archiver"].values()) == 9
    members = {"1.jpg": jpeg(1), "1.cls": b"0", "._1.jpg": b"\0\5", "__MACOSX/1.jpg": b"\0\5", "2.jpg": jpeg(2)}
    tar = sources.open_source(tar_file(tmp_path / "a.tar", members | {"2.cls": b"1", "2.txt": b"a cat"}))
    assert len(tar) == 2
    assert tar.inventory.notes() == ["left out: 1 .txt (neither images that Pillow opens nor labels)"]


def test_images_that_are_not_used_are_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1, "b": 1})
    (root / "stray.png").write_bytes(jpeg(1, kind="PNG"))
    (root / "a" / ".0.jpg.Xw3").write_bytes(jpeg(1))  # rsync's
    (root / "a" / ".1.jpg").write_bytes(jpeg(1))
    assert sources.open_source(root).inventory.notes() == [
        "left out: 1 .jpg (hidden), 1 .png (beside the class folders)"
    ]
    only_heic = tmp_path / "phone"
    for name in ("a", "b"):
        (only_heic / name).mkdir(parents=True)
        (only_heic / name / "1.heic").write_bytes(bytes(10))
    with pytest.raises(
        ValueError, match=r"no images in its 2 class folders; left out: 2 \.heic .*; write them as PNG or JPEG"
    ):
        sources.open_source(only_heic)


def facts(*rows: tuple[str, int, int]) -> Files:
    return Files.of_rows(rows)


def test_changes_are_named() -> None:
    before = facts(("a", 1, 1), ("b", 2, 1), ("c", 3, 1))
    assert changes(before, facts(("c", 3, 1), ("a", 1, 1), ("b", 2, 1))) is None
    assert changes(before, facts(("a", 1, 1), ("b", 2, 2), ("c", 3, 1))) == "files: 1 changed (b)"
    assert changes(before, facts(("a", 1, 1), ("d", 9, 1), ("c", 4, 1))) == (
        "files: 1 added (d), 1 removed (b), 1 changed (c)"
    )
    many = facts(*((f"{i}", 1, 1) for i in range(1200)))
    assert changes(many, facts()) == "files: 1,200 removed (0, 1, 2, 3, 4 and 1,195 more)"


def later(path: Path) -> None:
    """Changes the time of a file alone."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize("kind", ["folder", "parquet", "webdataset", "npz"])
def test_a_beton_of_other_files_is_replaced_only_on_request(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        root = class_folders(tmp_path / "set", {"a": 2, "b": 1})
        one = root / "a" / "1.jpg"
    elif kind == "parquet":
        root = one = parquet_file(tmp_path / "set.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    elif kind == "webdataset":
        members = {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"}
        root = one = tar_file(tmp_path / "set.tar", members)
    else:
        root = one = tmp_path / "set.npz"
        np.savez(one, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    out = tmp_path / "x.beton"
    beton.write(root, out, progress=False)
    assert beton.write(root, out, progress=False).already_there
    written = out.read_bytes()
    later(one)
    with pytest.raises(ValueError, match=rf"x\.beton was made of .* 1 changed \(.*{one.name}\); rewrite=True"):
        beton.write(root, out, progress=False)
    assert out.read_bytes() == written
    assert not beton.write(root, out, rewrite=True, progress=False).already_there
    moved = tmp_path / "moved"
    moved.mkdir()
    moved /= root.name
    shutil.move(root, moved)
    assert beton.write(moved, out, progress=False).already_there  # the same files elsewhere


@pytest.mark.parametrize("kind", ["parquet", "zip"])
def test_contents_that_change_within_one_size_and_time_are_noticed(kind: str, tmp_path: Path) -> None:
    root = tmp_path / f"set.{kind}"

    def make(*images: bytes) -> None:
        if kind == "parquet":
            parquet_file(root, {"image": list(images), "label": [0, 1]})
        else:
            zip_of(root, {"a/0.jpg": images[0], "b/0.jpg": images[1]})
        os.utime(root, ns=(10**18, 10**18))

    one, other = jpeg(1), bytearray(jpeg(1))
    other[-3] ^= 1
    make(jpeg(0), one)
    before, size = sources.files_of(str(root)), root.stat().st_size
    make(jpeg(0), one)
    assert changes(before, sources.files_of(str(root))) is None
    make(jpeg(0), bytes(other))
    assert root.stat().st_size == size
    assert changes(before, sources.files_of(str(root))) == f"files: 1 changed (set.{kind})"


def zip_of(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)


def test_unreadable_images_belong_to_the_files_too(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 2, "b": 2})
    (root / "a" / "0.jpg").write_bytes(b"no image")
    out = tmp_path / "x.beton"
    with pytest.warns(UserWarning, match=r"1 unreadable, left out: .*a/0\.jpg"):
        beton.write(root, out, skip_bad=True, progress=False)
    opened = beton.open_beton(out)
    assert opened.names is not None
    assert opened.names.column.to_pylist() == ["a/1.jpg", "b/0.jpg", "b/1.jpg"]
    assert changes(opened.made_of, sources.files_of(str(root))) is None
    (root / "a" / "0.jpg").write_bytes(jpeg(3))
    assert changes(opened.made_of, sources.files_of(str(root))) == "files: 1 changed (a/0.jpg)"


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1})
    folder = os.path.join(os.fsencode(root), b"caf\xe9")
    os.mkdir(folder)
    for name in (b"1.jpg", b"\xe9.jpg"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(jpeg(3))
    opened = sources.open_source(root)
    assert opened.class_names == ("a", "caf\\udce9")
    assert opened.names().to_pylist()[1:] == ["caf\\udce9/1.jpg", "caf\\udce9/\\udce9.jpg"]
    assert not [item for item in opened.items() if isinstance(item, Exception)]
    opened.describe(2).encode()


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, {"a": 1, "b": 1})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="path of the data is empty"):
        sources.open_source("")
    assert len(sources.open_source(".")) == 2


def test_no_other_file_is_overwritten(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"cat": 2, "dog": 2})
    table = parquet_file(tmp_path / "set.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    content = table.read_bytes()
    for rewrite in (False, True):
        with pytest.raises(ValueError, match=r"set\.parquet exists and cannot be read as a .* give another path"):
            beton.write(table, table, rewrite=rewrite, progress=False)
    assert table.read_bytes() == content
    damaged = tmp_path / "x.beton"
    damaged.write_bytes(b"\0" * 100)
    with pytest.raises(ValueError, match="rewrite=True replaces it, another path keeps it"):
        beton.write(root, damaged, progress=False)
    beton.write(root, damaged, rewrite=True, progress=False)
    Path(f"{damaged}.names.parquet").unlink()
    with pytest.raises(ValueError, match=r"x\.beton does not tell which files it was made of; rewrite=True"):
        beton.write(root, damaged, progress=False)
    pixels = np.zeros((2, 8, 8, 3), np.uint8), np.arange(2)
    with pytest.raises(ValueError, match=r"x\.beton does not tell"):
        beton.write(pixels, damaged, progress=False)
    again = tmp_path / "arrays.beton"
    beton.write(pixels, again, progress=False)
    assert beton.write(pixels, again, progress=False).already_there  # as a notebook does


def test_numbered_texts() -> None:
    assert numbered_texts("a[", 3, "]").to_pylist() == ["a[0]", "a[1]", "a[2]"]
    assert numbered_texts("caf\udce9:", 1).to_pylist() == ["caf\\udce9:0"]
    assert numbered_texts("a", 0).to_pylist() == []

"""Class folders in archives."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, jpeg, tar_file, zip_file

from dualfast.data import beton, sources

pytest.importorskip("PIL")

IMAGES = {"cat": [10, 20], "dog": [30]}
MEMBERS = {f"{name}/{i}.jpg": jpeg(v) for name, values in IMAGES.items() for i, v in enumerate(values)}
FORMS: dict[str, Any] = {
    ".zip": zip_file,
    ".tar": tar_file,
    ".tar.gz": lambda path, members: tar_file(path, members, "w:gz"),
    ".tgz": lambda path, members: tar_file(path, members, "w:gz"),
    ".tar.bz2": lambda path, members: tar_file(path, members, "w:bz2"),
    ".tar.xz": lambda path, members: tar_file(path, members, "w:xz"),
}


@pytest.mark.parametrize("suffix", FORMS)
@pytest.mark.parametrize("prefix", ["", "pets/", "./home/pets/"])
def test_class_folders_are_read_in_place(suffix: str, prefix: str, tmp_path: Path) -> None:
    others = {"README.md": b"", "__MACOSX/cat/._0.jpg": b"x", "stray.jpg": jpeg(1), "cat/notes.txt": b"x"}
    members = {f"{prefix}{name}": data for name, data in (MEMBERS | others).items()}
    path = FORMS[suffix](tmp_path / f"pets{suffix}", dict(reversed(members.items())))
    opened = sources.open_source(path)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [1, 0, 0]  # as they lie in the archive
    assert [*opened.items()] == [jpeg(30), jpeg(20), jpeg(10)]
    assert opened.names().to_pylist()[0] == f"pets{suffix}:{prefix}dog/0.jpg"
    assert opened.describe(0) == f"{prefix}dog/0.jpg in {path}"
    assert opened.inventory.notes() == [
        "left out: 1 .txt, 1 .md (not images that Pillow opens), 1 .jpg (beside the class folders)"
    ]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    beton.write(path, tmp_path / "x.beton", progress=False)
    assert beton.open_beton(tmp_path / "x.beton").labels.tolist() == [1, 0, 0]


@pytest.mark.parametrize("suffix", FORMS)
def test_splits_in_an_archive(suffix: str, tmp_path: Path) -> None:
    members = {f"pets/Train/{name}": data for name, data in MEMBERS.items()} | {"pets/README": b""}
    path = str(FORMS[suffix](tmp_path / f"a{suffix}", members | {"pets/Val/dog/9.jpg": jpeg(9)}))
    train, test = sources.splits(path)
    assert (train, test) == (f"{path}:train", f"{path}:val")
    assert sources.open_source(train).labels.tolist() == [0, 0, 1]
    opened = sources.open_source(test, is_test=True)
    assert opened.class_names == ("dog",)
    assert [*opened.items()] == [jpeg(9)]
    assert_refused(path, r"holds several splits \(train, val\); give one, as .*:train")
    assert_refused(f"{path}:test", "has no split 'test'; it has train, val")
    assert sources.files_of(train).sizes.tolist() == [Path(path).stat().st_size]


def test_a_tar_of_webdataset_s_form_is_none_of_class_folders(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "a.tar", {"a/1.jpg": jpeg(1), "a/1.cls": b"0", "a/2.jpg": jpeg(2), "a/2.cls": b"1"})
    assert sources.open_source(path).kind == "webdataset"


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_archives_that_are_refused(suffix: str, tmp_path: Path) -> None:
    path = FORMS[suffix](tmp_path / f"a{suffix}", {"readme.txt": b""})
    assert_refused(path, r"a\..* holds no images in class folders; left out: 1 \.txt")
    path.write_bytes(b"<html>")
    assert_refused(path, rf"cannot be read as a \{suffix} file")
    assert_refused(FORMS[suffix](tmp_path / f"one{suffix}", {"cat/1.jpg": jpeg(1)}), r"has only one class \(cat\)")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", MEMBERS)
    import zipfile

    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/0.jpg", b"")
    assert_refused(path, r"holds cat/0\.jpg twice")


def test_a_damaged_member_is_a_bad_image(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", MEMBERS)
    data = path.read_bytes()
    at = data.index(jpeg(20))
    path.write_bytes(data[: at + 30] + b"\0\0" + data[at + 32 :])
    items = [*sources.open_source(path).items()]
    assert items[0] == jpeg(10)
    assert isinstance(items[1], ValueError)
    assert "CRC" in str(items[1])
    assert np.array_equal(items[2], jpeg(30))


def test_names_with_backslashes_are_paths(tmp_path: Path) -> None:
    path = zip_file(tmp_path / "a.zip", {name.replace("/", "\\"): data for name, data in MEMBERS.items()})
    opened = sources.open_source(path)
    assert opened.class_names == ("cat", "dog")
    assert [*opened.items()] == [jpeg(10), jpeg(20), jpeg(30)]


def test_archives_without_class_folders_say_what_to_do(tmp_path: Path) -> None:
    flat = {f"{i}.jpg": jpeg(i) for i in range(3)}
    assert_refused(zip_file(tmp_path / "flat.zip", flat), r"left out: 3 \.jpg .*; unpack it, .* labels='TABLE\.csv'")
    one = {f"images/{name}": data for name, data in flat.items()} | {"train.csv": b""}
    assert_refused(zip_file(tmp_path / "one.zip", one), r"only one class \(images\); .*; unpack it, .* labels=")
    (tmp_path / "page.zip").write_bytes(b"<html>Quota exceeded</html>")
    assert_refused(tmp_path / "page.zip", r"not a zip file; it begins with b'<html>Quota exce', as a page does")


def test_what_an_archive_holds_beside_images_in_class_folders(tmp_path: Path) -> None:
    members = {f"pets/{name}/0.jpg": jpeg(at) for at, name in enumerate(["cat", "dog"])}
    members |= {"pets/fox/readme.txt": b"none yet", "pets/cat/picture": jpeg(3), "pets/cat/.old/1.jpg": jpeg(4)}
    path = tar_file(tmp_path / "pets.tar.gz", members, "w:gz")
    with tarfile.open(tmp_path / "pets.tar", "w") as tar, tarfile.open(path) as first:
        for member in first:
            tar.addfile(member, first.extractfile(member))
        for name, kind in (("pets/dog/1.jpg", tarfile.LNKTYPE), ("pets/dog/2.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "pets/dog/0.jpg"
            tar.addfile(info)
        for name in ("pets/ant", "pets/dog"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
    opened = sources.open_source(tmp_path / "pets.tar")
    assert opened.class_names == ("cat", "dog")
    notes = " ".join(opened.inventory.notes())
    for part in (
        "1 .txt (not images that Pillow opens)",
        "1 without suffix (images in archives are told by their suffix)",
        "1 .jpg (hidden)",
        "2 .jpg (links in the archive, which are followed once it is unpacked)",
        "2 class folders without images, which are not classes: ant, fox",
    ):
        assert part in notes


def test_names_that_lead_out_of_an_archive_say_so(tmp_path: Path) -> None:
    members = {f"{name}/0.jpg": jpeg(at) for at, name in enumerate(["cat", "dog", "../ant", "../bee"])}
    opened = sources.open_source(tar_file(tmp_path / "a.tar.gz", members, "w:gz"))
    assert opened.class_names == ("cat", "dog")
    assert opened.inventory.notes() == ["left out: 2 .jpg (under names that lead out of the archive)"]


def test_a_list_of_labels_in_an_archive_is_not_read(tmp_path: Path) -> None:
    """As Tiny ImageNet's."""
    members = {f"t/train/{c}/{i}.jpg": jpeg(i) for c in ("n1", "n2") for i in range(2)}
    members |= {"t/val/images/v0.jpg": jpeg(0), "t/val/val_annotations.txt": b"v0.jpg\tn1\t0\t0\t1\t1\n"}
    path = zip_file(tmp_path / "t.zip", members)
    assert len(sources.open_source(f"{path}:train")) == 4
    assert_refused(f"{path}:val", r"lists its labels in t/val/val_annotations\.txt, not read in an archive; unpack it")


def test_a_folder_of_archives_says_what_to_do(tmp_path: Path) -> None:
    for name in "ab":
        zip_file(tmp_path / f"{name}.zip", {"0.jpg": jpeg(0)})
    assert_refused(
        tmp_path, r"no class folder; of its archives \(a\.zip, b\.zip\) unpack each into a folder, or give one"
    )


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("inside", [False, True])
def test_archives_with_entries_for_folders(form: str, inside: bool, tmp_path: Path) -> None:
    """As tar and zip -r write them: the folder on top, or ".", is an entry of its own."""
    class_folders(tmp_path / "home" / "photos", {"cat": 1, "dog": 2})
    base = {} if inside else {"base_dir": "photos"}
    root = tmp_path / "home" / ("photos" if inside else "")
    opened = sources.open_source(shutil.make_archive(str(tmp_path / "a"), form, root, **base))
    assert opened.class_names == ("cat", "dog")
    assert sorted(opened.labels.tolist()) == [0, 1, 1]
    assert opened.inventory.notes() == []


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_splits_beside_another_folder_are_splits(suffix: str, tmp_path: Path) -> None:
    names = ["train/a/0.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/3.jpg", "assets/logo.jpg", "top.jpg"]
    members = {name: jpeg(at) for at, name in enumerate(names)}
    path = tmp_path / f"root{suffix}"
    zip_file(path, members) if suffix == ".zip" else tar_file(path, members, "w:gz")
    assert_refused(path, r"holds several splits \(test, train\)")
    assert sources.splits(str(path)) == (f"{path}:train", f"{path}:test")
    opened = sources.open_source(f"{path}:train")
    assert (opened.class_names, len(opened)) == (("a", "b"), 2)
    assert opened.inventory.notes() == ["left out: 2 .jpg (beside the splits)"]


def test_folders_in_class_folders_and_loose_images_are_said(tmp_path: Path) -> None:
    names = [f"{outer}/{inner}/0.jpg" for outer in ("animals", "plants") for inner in ("a", "b")]
    zip_file(tmp_path / "a.zip", {name: jpeg(0) for name in names})
    opened = sources.open_source(tmp_path / "a.zip")
    assert opened.class_names == ("animals", "plants")
    assert opened.notes()[0].startswith("class folders hold several folders, whose images are of the outer class: anim")
    zip_file(tmp_path / "b.zip", {"photos/cat/0.jpg": jpeg(0), "photos/dog/0.jpg": jpeg(1), "top.jpg": jpeg(2)})
    opened = sources.open_source(tmp_path / "b.zip")
    assert opened.class_names == ("cat", "dog")
    assert opened.notes() == ["left out: 1 .jpg (beside the class folders)"]


def test_archives_that_are_splits_are_addressed_as_folders_are(tmp_path: Path) -> None:
    for at, name in enumerate(("train.zip", "val.zip")):
        zip_file(tmp_path / name, {"a/0.jpg": jpeg(2 * at), "b/0.jpg": jpeg(2 * at + 1)})
    for name in ("train", "training"):
        assert list(sources.open_source(f"{tmp_path}:{name}").items()) == [jpeg(0), jpeg(1)]
    assert sources.files_of(f"{tmp_path}:val").names.to_pylist() == ["val.zip"]
    assert_refused(f"{tmp_path}:test", r"has no split 'test'; it has train, val")
    assert_refused(tmp_path, r"of its archives \(train, val\) give one, as .*:train")
    zip_file(tmp_path / "Train.zip", {"a/0.jpg": jpeg(0), "b/0.jpg": jpeg(1)})
    assert_refused(f"{tmp_path}:train", r"holds Train\.zip and train\.zip, which are both called train; give one")


def test_splits_in_an_archive_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    members = {f"{split}/{name}/0.jpg": jpeg(0) for split in ("train", "Train") for name in "ab"}
    assert_refused(f"{zip_file(tmp_path / 'a.zip', members)}:train", "holds Train and train, which name one split")

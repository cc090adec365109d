"""WebDataset: tar files and folders of shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from data_sets import assert_refused, jpeg, tar_file

from dualfast.config import Reading
from dualfast.data import sources

pytest.importorskip("PIL")


def test_webdataset_pairs_images_and_labels(tmp_path: Path) -> None:
    path = tar_file(
        tmp_path / "a.tar",
        {
            "d/1.cls": b"7",
            "d/1.jpg": jpeg(1),
            "d/2.png": jpeg(2, kind="PNG"),
            "d/2.json": b'{"label": 3}',
            "notes": b"x",
        },
    )
    opened = sources.open_source(path)
    assert opened.labels.tolist() == [7, 3]
    assert [*opened.items()] == [jpeg(1), jpeg(2, kind="PNG")]
    lacking = tar_file(tmp_path / "b.tar", {"1.jpg": jpeg(1)})
    with pytest.raises(ValueError, match=r"1\.jpg .* has no label"):
        sources.open_source(lacking)


def test_webdataset_with_hard_links(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "a.tar", {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"})
    for name, target in (("3.jpg", "1.jpg"), ("3.cls", "2.cls")):
        with tarfile.open(path, "a") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    opened = sources.open_source(path)
    assert opened.labels.tolist() == [0, 1, 1]
    assert [*opened.items()] == [jpeg(1), jpeg(2), jpeg(1)]
    assert opened.describe(2).startswith("3.jpg")
    with tarfile.open(path, "a") as tar:
        info.linkname = "nowhere.jpg"
        tar.addfile(info)
    with pytest.raises(ValueError, match=r"3\.cls in .* links to nowhere\.jpg"):
        sources.open_source(path)


def test_shards_of_a_folder_are_one_set(tmp_path: Path) -> None:
    tar_file(tmp_path / "1.tar", {"x.jpg": jpeg(1), "x.cls": b"dog"})
    tar_file(tmp_path / "0.tar", {"x.cls": b"cat", "x.jpg": jpeg(0), "y.jpg": jpeg(2), "y.cls": b"dog"})
    opened = sources.open_source(tmp_path)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 1, 1]
    assert [*opened.items()] == [jpeg(0), jpeg(2), jpeg(1)]
    assert opened.describe(2) == f"x.jpg in {tmp_path / '1.tar'}"


def test_tar_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"no tar" * 200)
    assert_refused(tmp_path / "broken.tar", "cannot be read as a tar file")
    two = {"1.jpg": jpeg(0), "1.seg.png": jpeg(1, kind="PNG"), "1.cls": b"0"}
    assert_refused(tar_file(tmp_path / "two.tar", two), r"1\.jpg and 1\.seg\.png in")
    huge = {"1.jpg": jpeg(0), "1.cls": b"1", "2.jpg": jpeg(0), "2.cls": b"1" + b"0" * 20}
    assert_refused(tar_file(tmp_path / "huge.tar", huge), r"2\.jpg in .* has the label 1000")
    assert_refused(tar_file(tmp_path / "none.tar", {"1.cls": b"0"}), "contains no images")
    assert_refused(tar_file(tmp_path / "npy.tar", {"1.cls": b"0", "1.npy": b""}), r"no images; left out: .*1 \.npy")
    several = {"1.jpg": jpeg(0), "1.json": b'{"label": [0, 1]}'}
    assert_refused(
        tar_file(tmp_path / "several.tar", several), r"1\.json in .*: label is \[0, 1\]; .*one class per image"
    )
    real = {"1.jpg": jpeg(0), "1.json": b'{"label": 0.5}'}
    assert_refused(tar_file(tmp_path / "real.tar", real), r"1\.json in .*: label is 0\.5; .*one class per image")


def test_labels_in_json_may_be_whole_floats_or_booleans(tmp_path: Path) -> None:
    for values, labels, names in ((("1.0", "0"), [1, 0], None), (("true", "false"), [1, 0], ("False", "True"))):
        members = {"1.jpg": jpeg(0), "2.jpg": jpeg(1)}
        members |= {f"{i}.json": b'{"label": %s}' % value.encode() for i, value in enumerate(values, 1)}
        opened = sources.open_source(tar_file(tmp_path / "a.tar", members))
        assert opened.labels.tolist() == labels
        assert opened.class_names == names


@pytest.mark.parametrize(
    ("name", "kind"), [("3.jpg", "sparse"), ("3.jpg", "cut"), ("3.cls", "sparse"), ("3.txt", "huge")]
)
def test_members_that_are_sparse_or_larger_than_the_archive(name: str, kind: str, tmp_path: Path) -> None:
    """They are refused; nothing of their size is allocated."""
    members = {f"{i}.{end}": data for i in range(3) for end, data in (("jpg", jpeg(i)), ("cls", b"%d" % (i % 2)))}
    path = tar_file(tmp_path / "a.tar", members | ({"3.cls": b"1"} if name == "3.jpg" else {}))
    whole = path.read_bytes()
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    size = {"sparse": 512, "cut": 1 << 40, "huge": (1 << 80)}[kind]
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    if kind == "sparse":
        header[156:157] = b"S"
        header[386:410] = b"%011o\0%011o\0" % (0, 512)
        header[483:495] = b"\x80" + (1 << 40).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    end = len(whole.rstrip(b"\0"))
    end += -end % 512
    path.write_bytes(whole[:end] + bytes(header) + bytes(1536))
    words = rf"{name} is stored without its zeros; write it without --sparse" if kind == "sparse" else ""
    with pytest.raises(ValueError, match=rf"a\.tar cannot be read as a tar file: .*{words}"):
        sources.open_source(path)


def labelled(end: str, *labels: bytes) -> dict[str, bytes]:
    """Images with a label each, in members of that ending."""
    return {f"{i}.{kind}": data for i, label in enumerate(labels) for kind, data in (("jpg", jpeg(i)), (end, label))}


@pytest.mark.parametrize("end", ["txt", "TXT", "cls.txt", "label.txt", "cls"])
def test_labels_may_be_texts(end: str, tmp_path: Path) -> None:
    opened = sources.open_source(tar_file(tmp_path / "a.tar", labelled(end, b"dog\n", b"cat", b"dog", b"cat")))
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [1, 0, 1, 0]
    assert opened.inventory.notes() == []


def test_texts_beside_images_in_one_folder_are_labels_and_in_several_notes(tmp_path: Path) -> None:
    one = {f"data/{name}": data for name, data in labelled("txt", b"dog", b"cat", b"dog", b"cat").items()}
    opened = sources.open_source(tar_file(tmp_path / "a.tar", one))
    assert (opened.kind, opened.class_names) == ("webdataset", ("cat", "dog"))
    several = {f"{name}/{i}.{end}": jpeg(i) for name in ("ant", "bee") for i in range(9) for end in ("jpg", "txt")}
    opened = sources.open_source(tar_file(tmp_path / "b.tar", several))
    assert (opened.kind, opened.class_names) == ("archive", ("ant", "bee"))


def test_texts_are_captions_beside_labels_and_where_all_differ(tmp_path: Path) -> None:
    texts = labelled("txt", b"a dog", b"a cat", b"the dog")
    classes = {name: data for name, data in labelled("cls", b"1", b"0", b"1").items() if name.endswith("cls")}
    opened = sources.open_source(tar_file(tmp_path / "a.tar", texts | classes))
    assert opened.labels.tolist() == [1, 0, 1]
    assert opened.inventory.notes() == ["left out: 3 .txt (neither images that Pillow opens nor labels)"]
    assert_refused(
        tar_file(tmp_path / "b.tar", texts), r"b\.tar, \.txt: 3 different texts for 3 images .* no classes; .*\.cls"
    )


@pytest.mark.parametrize(
    "record", ['{"class": %d, "url": "x"}', '{"target": "%d"}', "%d", '{"label": null, "cls": %d}']
)
def test_labels_in_json_by_other_names(record: str, tmp_path: Path) -> None:
    members = labelled("json", *((record % label).encode() for label in (1, 0, 1)))
    assert sources.open_source(tar_file(tmp_path / "a.tar", members)).labels.tolist() == [1, 0, 1]
    lacking = tar_file(tmp_path / "b.tar", labelled("json", b'{"caption": "x", "url": "y"}'))
    assert_refused(lacking, r"0\.jpg in .* has no label \(its \.json has only caption, url\); put a \.cls")


def test_members_below_a_dot(tmp_path: Path) -> None:
    """As tar writes them when it is given the folder itself."""
    members = {f"./{name}": data for name, data in labelled("cls", b"1", b"0").items()}
    assert sources.open_source(tar_file(tmp_path / "a.tar", members)).labels.tolist() == [1, 0]


def test_labels_are_never_taken_for_one_another(tmp_path: Path) -> None:
    members = {f"{i}.jpg": jpeg(i) for i in range(3)} | {f"{i}.cls": name for i, name in enumerate(LATIN)}
    assert sources.open_source(tar_file(tmp_path / "a.tar", members)).class_names == (r"caf\xe8", r"caf\xe9", "dog")
    members["2.cls"] = b"\x80\x04K\x03."  # a pickle
    with pytest.raises(ValueError, match=r"2\.cls in .* is b'.*', and no text; write the class as text"):
        sources.open_source(tar_file(tmp_path / "b.tar", members))


LATIN = (b"caf\xe9", b"caf\xe8", b"dog")


def test_what_a_shard_holds_beside_samples(tmp_path: Path) -> None:
    members = {f"{i}.{end}": data for i in range(3) for end, data in (("jpg", jpeg(i)), ("cls", b"%d" % (i % 2)))}
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in [*members.items(), ("4.cls", b"1")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo("5.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "0.jpg"
        tar.addfile(info)
    notes = sources.open_source(path).inventory.notes()
    assert "1 label without an image" in notes[0]
    assert "1 symbolic link" in notes[0]
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("0.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(ValueError, match=r"a\.tar holds 0\.jpg twice; give each sample a name of its own"):
        sources.open_source(path)


def test_labels_that_differ_within_a_sample_are_said(tmp_path: Path) -> None:
    members = labelled("json", b'{"cls": 0, "label": 1}', b'{"cls": 0, "label": 0}', b'{"label": 1}', b'{"label": 0}')
    members |= {"3.cls": b"1", "4.json": b'{"cls": 0, "label": 1}'}
    opened = sources.open_source(tar_file(tmp_path / "a.tar", members))
    assert opened.labels.tolist() == [1, 0, 1, 1]
    (said,) = opened.inventory.remarks
    assert said.startswith("2 samples have several labels, and they differ; the first of these is used: .cls, label in")


def test_one_of_several_images_of_a_sample_is_chosen(tmp_path: Path) -> None:
    members = {"0.left.jpg": jpeg(0), "0.right.jpg": jpeg(1), "0.cls": b"0"}
    members |= {"1.left.jpg": jpeg(2), "1.right.jpg": jpeg(3), "1.cls": b"1"}
    path = tar_file(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=r"two images of one sample, .* choose with image_column='right\.jpg'"):
        sources.open_source(path)
    opened = sources.open_source(path, Reading(image_column="right.jpg"))
    assert list(opened.items()) == [jpeg(1), jpeg(3)]
    assert opened.inventory.notes() == ["left out: 2 .left.jpg (images that image_column does not choose)"]
    with pytest.raises(
        ValueError, match=r"contains no images that end in image_column='top\.jpg'; left out: .* 2 \.left"
    ):
        sources.open_source(path, Reading(image_column="top.jpg"))


def test_one_of_several_labels_of_a_sample_is_chosen(tmp_path: Path) -> None:
    members = labelled("json", b'{"label": 1, "kind": "x"}', b'{"label": 0, "kind": "y"}')
    path = tar_file(tmp_path / "a.tar", members | {"0.cls": b"5", "1.cls": b"6", "0.side": b"left", "1.side": b"right"})
    chosen = {name: sources.open_source(path, Reading(label_column=name)) for name in ("cls", "label", "kind", "side")}
    assert [chosen[name].labels.tolist() for name in chosen] == [[5, 6], [1, 0], [0, 1], [0, 1]]
    assert [chosen[name].class_names for name in ("kind", "side")] == [("x", "y"), ("left", "right")]
    assert chosen["kind"].inventory.remarks == ()
    with pytest.raises(ValueError, match=r"0\.jpg .* has no label_column 'color' \(its \.json has only label, kind\)"):
        sources.open_source(path, Reading(label_column="color"))

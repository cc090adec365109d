"""What can be read, and what is refused with one line that says the way out."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualfast.data import sources

Image = pytest.importorskip("PIL.Image")


def jpeg(value: int, size: tuple[int, int] = (20, 30), kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (value, 255 - value, 90)).save(out, kind, **options)
    return out.getvalue()


def folder(root: Path, classes: dict[str, int]) -> Path:
    for label, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.jpg").write_bytes(jpeg(40 * label + i))
    return root


def parquet(path: Path, columns: dict[str, Any], metadata: dict[str, Any] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    pq.write_table(table, path, row_group_size=2)
    return path


def test_digits_have_a_fixed_stratified_split() -> None:
    train, labels = sources.digits("train")
    test, test_labels = sources.digits("test")
    assert train.shape == (1437, 8, 8, 3)
    assert test.shape == (360, 8, 8, 3)
    assert train.dtype == np.uint8
    assert train.max() == 255
    assert labels.dtype == np.int64
    share = np.bincount(test_labels) / (np.bincount(labels) + np.bincount(test_labels))
    assert np.abs(share - 360 / 1797).max() < 0.01
    both = np.concatenate([train, test]).reshape(1797, -1)
    assert len(np.unique(both, axis=0)) == 1797  # every digit once
    assert (sources.digits("train")[0] == train).all()
    with pytest.raises(ValueError, match="train"):
        sources.digits("all")


def test_folder_numbers_its_classes_by_name(tmp_path: Path) -> None:
    folder(tmp_path, {"zebra": 2, "ant": 3})
    (tmp_path / "ant" / "readme.txt").write_text("no image")
    (tmp_path / "ant" / "deep").mkdir()
    (tmp_path / "ant" / "deep" / "x.PNG").write_bytes(jpeg(1, kind="PNG"))
    opened = sources.open_source(tmp_path)
    assert opened.class_names == ("ant", "zebra")
    assert opened.labels.tolist() == [0, 0, 0, 0, 1, 1]
    items = list(opened.items())
    assert items[-1] == (tmp_path / "zebra" / "1.jpg").read_bytes()
    assert opened.describe(5).endswith("zebra/1.jpg")


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    images = [{"bytes": jpeg(v), "path": f"{v}.jpg"} for v in range(5)]
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    path = parquet(tmp_path / "a.parquet", {"id": [1, 2, 3, 4, 5], "img": images, "label": [0, 1, 1, 0, 1]}, features)
    opened = sources.open_source(path)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 1, 1, 0, 1]
    assert [*opened.items()] == [image["bytes"] for image in images]
    assert "row 3" in opened.describe(3)


def test_parquet_shards_of_a_folder_are_one_set(tmp_path: Path) -> None:
    for shard in range(2):
        parquet(tmp_path / f"train-{shard}.parquet", {"image": [jpeg(shard), jpeg(9)], "label": ["b", "a"]})
    opened = sources.open_source(tmp_path)
    assert opened.class_names == ("a", "b")
    assert opened.labels.tolist() == [1, 0, 1, 0]
    assert [*opened.items()][2] == jpeg(1)
    assert opened.describe(2) == f"row 0 of {tmp_path / 'train-1.parquet'}"
    parquet(tmp_path / "test-0.parquet", {"image": [jpeg(0)], "label": ["a"]})
    with pytest.raises(ValueError, match="several splits"):
        sources.open_source(tmp_path)


def test_parquet_follows_paths_only_inside_the_data_set(tmp_path: Path) -> None:
    inside = tmp_path / "set"
    inside.mkdir()
    (inside / "x.jpg").write_bytes(jpeg(3))
    (tmp_path / "secret.jpg").write_bytes(jpeg(4))
    rows = [{"bytes": None, "path": "x.jpg"}, {"bytes": None, "path": "../secret.jpg"}]
    opened = sources.open_source(parquet(inside / "a.parquet", {"image": rows, "label": [0, 1]}))
    items = opened.items()
    assert next(items) == jpeg(3)
    with pytest.raises(ValueError, match="outside the data set"):
        next(items)


def webdataset(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_webdataset_pairs_images_and_labels(tmp_path: Path) -> None:
    path = webdataset(
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
    lacking = webdataset(tmp_path / "b.tar", {"1.jpg": jpeg(1)})
    with pytest.raises(ValueError, match=r"1\.jpg .* has no label"):
        sources.open_source(lacking)


def test_webdataset_with_hard_links(tmp_path: Path) -> None:
    path = webdataset(tmp_path / "a.tar", {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"})
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


def test_arrays_and_npz(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    labels = np.array([0, 1, 0], np.int32)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    for source in ((images, labels), tmp_path / "a.npz"):
        opened = sources.open_source(source)
        assert np.stack([*opened.items()]).shape == (3, 4, 5, 1)
        assert opened.labels.tolist() == [0, 1, 0]


def test_decode_gives_upright_rgb() -> None:
    tall = Image.new("RGB", (4, 8))
    tall.paste((200, 0, 0), (0, 0, 4, 4))  # red above black
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    out = io.BytesIO()
    tall.save(out, "PNG", exif=exif)
    upright = np.asarray(sources.decode(out.getvalue()))
    assert upright.shape == (4, 8, 3)
    assert (upright[:, 4:, 0] == 200).all()
    assert (upright[:, :4] == 0).all()

    out = io.BytesIO()
    Image.fromarray(np.full((6, 5), 0x8040, np.uint16)).save(out, "PNG")
    assert (np.asarray(sources.decode(out.getvalue())) == 0x80).all()
    for mode in ("L", "CMYK", "P", "RGBA", "1", "LA"):
        out = io.BytesIO()
        Image.new(mode, (7, 3)).save(out, "TIFF")
        assert np.asarray(sources.decode(out.getvalue())).shape == (3, 7, 3)
    assert sources.decode(jpeg(3, (400, 200)), max_size=100).size == (100, 50)
    assert sources.decode(jpeg(3, (40, 20)), max_size=100).size == (40, 20)


@pytest.mark.parametrize("kind", ["PGM", "PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    values = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype("<u2")
    if kind == "PGM":
        data = b"P5 100 100 65535\n" + values.astype(">u2").tobytes()
    else:
        out = io.BytesIO()
        Image.fromarray(values).save(out, kind)
        data = out.getvalue()
    assert (np.asarray(sources.decode(data)) == (values >> 8)[..., None]).all()
    small = np.asarray(sources.decode(data, max_size=50)).astype(int)
    assert np.abs(small[..., 0] - (values >> 8).reshape(50, 2, 50, 2).mean((1, 3))).max() <= 2
    eight = b"P5 3 1 255\n" + bytes([0, 100, 255])
    assert np.asarray(sources.decode(eight))[0, :, 0].tolist() == [0, 100, 255]


def bad_sources(root: Path) -> dict[str, tuple[Any, type[Exception], str]]:
    """Each bad source with its error and words of the message."""
    empty = root / "empty"
    empty.mkdir()
    no_images = root / "no_images"
    (no_images / "a").mkdir(parents=True)
    splits = root / "splits"
    for name in ("train", "val"):
        (splits / name).mkdir(parents=True)
    outside = root / "outside"
    folder(outside, {"a": 1, "b": 1})
    (outside / "b" / "z.jpg").symlink_to(root / "one.jpg")
    (root / "one.jpg").write_bytes(jpeg(0))
    linked = root / "linked"
    folder(linked, {"a": 1})
    (linked / "b").symlink_to(outside / "b")
    (root / "broken.tar").write_bytes(b"no tar" * 200)
    (root / "broken.parquet").write_bytes(b"no parquet")
    (root / "broken.npz").write_bytes(b"PKno npz")
    (root / "strange.xyz").write_bytes(b"")
    np.savez(root / "names.npz", x=np.zeros(3), y=np.zeros(3))
    np.savez(root / "pickle.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    images = np.zeros((3, 4, 4), np.uint8)
    labels = np.array([0, 1, 1])
    two = {"1.jpg": jpeg(0), "1.seg.png": jpeg(1, kind="PNG"), "1.cls": b"0"}
    shards = root / "shards"
    shards.mkdir()
    for shard, labels_of in enumerate(([0, 1, 0], [1, None, 0])):
        parquet(shards / f"{shard}.parquet", {"image": [jpeg(0)] * 3, "label": labels_of})
    huge = {"1.jpg": jpeg(0), "1.cls": b"1", "2.jpg": jpeg(0), "2.cls": b"1" + b"0" * 20}
    np.savez(root / "directory.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    damaged = (root / "directory.npz").read_bytes()
    (root / "directory.npz").write_bytes(damaged.replace(b"PK\x01\x02", b"XX\x01\x02"))
    no_image = parquet(root / "no_image.parquet", {"text": ["a", "b"], "label": [0, 1]})
    no_label = parquet(root / "no_label.parquet", {"image": [jpeg(0)], "size": [1.0]})
    null_label = parquet(root / "null.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, None]})
    return {
        "missing": (root / "nowhere", ValueError, "does not exist"),
        "empty folder": (empty, ValueError, "no class folder"),
        "no images": (no_images, ValueError, "no image"),
        "splits": (splits, ValueError, "splits"),
        "link to a file": (outside, ValueError, "outside the data set"),
        "link to a folder": (linked, ValueError, "outside the data set"),
        "one class": (folder(root / "one", {"a": 3}), ValueError, "one class only"),
        "tar": (root / "broken.tar", ValueError, "no tar file"),
        "two images of a sample": (webdataset(root / "two.tar", two), ValueError, r"1\.jpg and 1\.seg\.png in"),
        "label of 21 digits": (webdataset(root / "huge.tar", huge), ValueError, r"2\.jpg in .* has the label 1000"),
        "npz directory": (root / "directory.npz", ValueError, "cannot be read"),
        "null label of a shard": (shards, ValueError, r"row 1 of .*1\.parquet has no label"),
        "parquet": (root / "broken.parquet", ValueError, "no Parquet file"),
        "npz": (root / "broken.npz", ValueError, r"no \.npz file"),
        "npz names": (root / "names.npz", ValueError, "it has x, y"),
        "npz pickle": (root / "pickle.npz", ValueError, "pickle"),
        "suffix": (root / "strange.xyz", ValueError, "no data set that can be read"),
        "no image column": (no_image, ValueError, "its columns: text, label"),
        "no label column": (no_label, ValueError, "its columns: image, size"),
        "null label": (null_label, ValueError, "row 1"),
        "negative label": ((images, np.array([0, -1, 1])), ValueError, "label -1"),
        "float images": ((images.astype(float), labels), TypeError, "uint8"),
        "image shape": ((images[None], labels), ValueError, "shape"),
        "label length": ((images, labels[:2]), ValueError, "3 images need"),
        "float labels": ((images, labels.astype(float)), TypeError, "integers"),
        "number": (3, TypeError, "int"),
    }


def test_bad_sources_get_one_line(tmp_path: Path) -> None:
    for name, (source, kind, words) in bad_sources(tmp_path).items():
        with pytest.raises(kind, match=words) as caught:
            sources.open_source(source)
        assert "\n" not in str(caught.value), name


def cifar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def cifar_record(labels: tuple[int, ...], red: int, green: int, blue: int) -> bytes:
    return bytes(labels) + bytes([red] * 1024 + [green] * 1023 + [255 - green] + [blue] * 1024)


def test_cifar_10_in_its_binary_form(tmp_path: Path) -> None:
    folder = "cifar-10-batches-bin"
    path = cifar(
        tmp_path / "cifar-10-binary.tar.gz",
        {
            f"{folder}/data_batch_2.bin": cifar_record((2,), 7, 8, 9),
            f"{folder}/data_batch_1.bin": cifar_record((0,), 1, 2, 3) + cifar_record((1,), 4, 5, 6),
            f"{folder}/test_batch.bin": cifar_record((2,), 10, 11, 12) + cifar_record((0,), 13, 14, 15),
            f"{folder}/batches.meta.txt": b"plane\ncar\nbird\n\n",
        },
    )
    assert sources.splits(str(path)) == (f"{path}:train", f"{path}:test")
    opened = sources.open_source(path)
    assert opened.labels.tolist() == [0, 1, 2]
    assert opened.class_names == ("plane", "car", "bird")
    images = np.stack([np.asarray(image) for image in opened.items()])
    assert images.shape == (3, 32, 32, 3)
    assert images[:, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert images[0, 31, 31].tolist() == [1, 253, 3]  # the last pixel of a plane is the lower right one
    tests = sources.open_source(f"{path}:test")
    assert tests.labels.tolist() == [2, 0]
    assert next(iter(tests.items()))[0, 0].tolist() == [10, 11, 12]


def test_cifar_100_counts_its_fine_labels(tmp_path: Path) -> None:
    records = {"train.bin": cifar_record((1, 2), 1, 2, 3) + cifar_record((1, 0), 4, 5, 6)}
    path = cifar(
        tmp_path / "c.tgz", records | {"test.bin": cifar_record((0, 1), 7, 8, 9) + cifar_record((1, 0), 1, 1, 1)}
    )
    assert sources.open_source(path).labels.tolist() == [2, 0]
    assert sources.open_source(f"{path}:test").labels.tolist() == [1, 0]
    assert sources.open_source(path).class_names is None


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"cifar-10-batches-py/data_batch_1": b"\x80\x02pickle"}, "pickles are never read"),
        ({"data_batch_1.bin": cifar_record((1,), 1, 2, 3)[:-1]}, "3072 bytes, which is no multiple of 3073"),
        ({"data_batch_1.bin": cifar_record((9,), 1, 2, 3), "batches.meta.txt": b"a b"}, "label 9 and names 2"),
        ({"readme.txt": b"nothing"}, "no train images"),
    ],
)
def test_a_cifar_archive_that_cannot_be_read(tmp_path: Path, members: dict[str, bytes], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sources.open_source(cifar(tmp_path / "x.tar.gz", members))


def test_a_cifar_archive_that_is_cut_off_or_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    with pytest.raises(ValueError, match="does not exist"):
        sources.open_source(path)
    rng = np.random.default_rng(0)
    cifar(path, {"data_batch_1.bin": b"".join(b"\1" + rng.bytes(3072) for _ in range(20))})
    path.write_bytes(path.read_bytes()[:30_000])
    with pytest.raises(ValueError, match=r"no \.tar\.gz that can be read"):
        sources.open_source(path)


def test_splits_find_train_and_test(tmp_path: Path) -> None:
    assert sources.splits("digits") == ("digits:train", "digits:test")
    assert sources.splits(str(tmp_path)) == (str(tmp_path), None)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert sources.splits(str(tmp_path)) == (str(tmp_path / "train"), str(tmp_path / "val"))
    assert sources.splits(str(tmp_path), "x.npz") == (str(tmp_path), "x.npz")
    assert sources.splits("digits", "digits") == ("digits:train", "digits:test")
    assert sources.splits("a.beton", "c.tar.gz") == ("a.beton", "c.tar.gz:test")
    assert sources.splits("c.tgz", "c.tgz:train") == ("c.tgz", "c.tgz:train")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train", "test"):
        (other / f"{name}.parquet").touch()
    assert sources.splits(str(other)) == (str(other / "train.parquet"), str(other / "test.parquet"))

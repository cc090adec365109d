"""Writing and reading a .beton: what is written is read back, by FFCV too; a damaged file is refused."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders

from dualfast.data import beton, sources
from dualfast.data.beton import tables
from dualfast.data.beton.encode import Encoder
from dualfast.storage import files

Image = pytest.importorskip("PIL.Image")


def photo(seed: int, width: int = 90, height: int = 70) -> Any:
    """A smooth random picture that JPEG keeps well."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Any, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes: plain, gray, CMYK, PNG, turned and small images."""
    root = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = {
        "a/plain.jpg": encoded(photo(0)),
        "a/gray.jpg": encoded(photo(1).convert("L")),
        "a/cmyk.jpg": encoded(photo(2).convert("CMYK")),
        "b/png.png": encoded(photo(3), "PNG"),
        "b/turned.jpg": encoded(photo(4), exif=exif),
        "b/small.jpg": encoded(photo(5, 32, 30)),
        "b/progressive.jpg": encoded(photo(6), progressive=True),
    }
    for name, data in contents.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def written(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> beton.Beton:
    path = tmp_path_factory.mktemp("beton") / "photos.beton"
    beton.write(photos, path)
    return beton.open_beton(path)


def test_images_labels_and_names_come_back(photos: Path, written: beton.Beton) -> None:
    files = [*sorted((photos / "a").iterdir()), *sorted((photos / "b").iterdir())]
    assert written.class_names == ("a", "b")
    assert written.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    for row, file in enumerate(files):
        original = np.asarray(sources.decode(file.read_bytes())).astype(int)
        stored = written.image(row).astype(int)
        assert stored.shape == original.shape, file
        exact = file.name in ("plain.jpg", "gray.jpg", "progressive.jpg", "small.jpg")
        assert np.abs(stored - original).max() <= (0 if exact else 40), file
        assert np.abs(stored - original).mean() <= (0 if exact else 3), file
    untouched = {row for row, file in enumerate(files) if written.payload(row) == file.read_bytes()}
    assert {files[row].name for row in untouched} == {"plain.jpg", "gray.jpg", "progressive.jpg"}
    assert written.mode.tolist() == [beton.RAW if f.name == "small.jpg" else beton.JPEG for f in files]
    assert (written.image(files.index(photos / "b" / "turned.jpg")).shape) == (90, 70, 3)


def test_the_same_source_gives_the_same_bytes(photos: Path, written: beton.Beton, tmp_path: Path) -> None:
    again = beton.write(photos, tmp_path / "again.beton", num_workers=1)
    assert (tmp_path / "again.beton").read_bytes() == written.path.read_bytes()
    assert again.fingerprint == written.fingerprint
    sidecar = json.loads((tmp_path / "again.beton.json").read_text())
    assert sidecar["fingerprint"] == again.fingerprint
    assert sidecar["class_names"] == ["a", "b"]
    os.remove(tmp_path / "again.beton.json")
    assert beton.open_beton(tmp_path / "again.beton").class_names is None
    (tmp_path / "again.beton.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"again\.beton\.json' is nested too deeply; delete it to continue without"):
        _ = beton.open_beton(tmp_path / "again.beton").class_names


def test_fingerprint_depends_on_the_data_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    labels = rng.integers(0, 3, 50)
    prints = {}
    other_labels, other_images = labels.copy(), images.copy()
    other_labels[30] = (labels[30] + 1) % 3
    other_images[49, 0, 0, 0] ^= 1
    cases: dict[str, Any] = {
        "same": (images, labels),
        "labels": (images, other_labels),
        "pixels": (other_images, labels),
        "fewer": (images[:49], labels[:49]),
    }
    for name, source in cases.items():
        prints[name] = beton.write(source, tmp_path / "x.beton", rewrite=True).fingerprint
    pages = beton.write((images, labels), tmp_path / "y.beton", page_size=1 << 22)
    assert pages.fingerprint == prints["same"]
    assert len(set(prints.values())) == 4


def test_modes_sizes_and_quality(tmp_path: Path) -> None:
    images = np.stack([np.asarray(photo(seed, 100, 80)) for seed in range(2)])
    source = (images, np.array([0, 1]))
    raw = beton.write(source, tmp_path / "raw.beton", mode="raw")
    opened = beton.open_beton(raw.path)
    assert (opened.image(1) == images[1]).all()
    small = beton.open_beton(beton.write(source, tmp_path / "small.beton", mode="raw", max_size=50).path)
    assert small.constant_size == (40, 50)
    sizes = [beton.write(source, tmp_path / f"{q}.beton", mode="jpeg", jpeg_quality=q).bytes for q in (30, 95)]
    assert sizes[0] < sizes[1]


def test_no_sample_straddles_a_page(tmp_path: Path) -> None:
    images = np.zeros((40, 300, 300, 3), np.uint8)
    images += np.arange(40, dtype=np.uint8)[:, None, None, None]
    opened = beton.open_beton(beton.write((images, np.arange(40)), tmp_path / "p.beton", mode="raw").path)
    first, last = opened.ptr // opened.page_size, (opened.ptr + opened.size - 1) // opened.page_size
    assert (first == last).all()
    assert len(np.unique(first)) == 6  # seven images of 270,000 bytes fit into 2 MiB
    assert [int(opened.image(row)[0, 0, 0]) for row in range(40)] == list(range(40))
    large = np.zeros((2, 900, 900, 3), np.uint8)
    opened = beton.open_beton(beton.write((large, np.arange(2)), tmp_path / "l.beton", mode="raw").path)
    assert opened.page_size == 1 << 22  # grown for images of 2.4 MB


def test_unreadable_images_are_named_or_left_out(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    good = encoded(photo(1))
    (root / "a" / "0.jpg").write_bytes(good)
    (root / "a" / "1.jpg").write_bytes(good[: len(good) // 2])  # truncated: the header is complete
    (root / "a" / "2.png").write_bytes(b"not an image")
    tables = good.index(b"\xff\xc4") + 5
    (root / "a" / "4.jpg").write_bytes(
        good[:tables] + b"\xff" * 16 + good[tables + 16 :]
    )  # header and end are complete
    (root / "b" / "3.jpg").write_bytes(good)
    out = tmp_path / "x.beton"
    with pytest.raises(ValueError, match=r"a/1\.jpg.*skip_bad=True leaves") as caught:
        beton.write(root, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["set"]  # nothing is left behind
    written = beton.write(root, out, skip_bad=True)
    bad = ("1.jpg", "2.png", "4.jpg")
    assert written.n_samples == 2
    assert [name.split(":")[0] for name in written.skipped] == [str(root / "a" / name) for name in bad]
    opened = beton.verify(out, full=True)
    assert opened.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "jpg"}, "mode is 'jpg'"),
        ({"jpeg_quality": 0}, "jpeg_quality is 0"),
        ({"max_size": 0}, "max_size is 0"),
        ({"page_size": 3 << 20}, "power of two"),
        ({"page_size": 1 << 29}, "from 2097152 to 268435456"),  # the gap before the images alone would take a second
    ],
)
def test_bad_arguments_are_named(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        beton.write((np.zeros((2, 4, 4), np.uint8), [0, 1]), tmp_path / "x.beton", **options)


def test_a_file_that_is_not_a_beton_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "zeros").write_bytes(bytes(5000))
    for name, words in (
        ("nowhere", "does not exist"),
        (".", "is a folder"),
        ("text", "cut short"),
        ("zeros", "version"),
    ):
        with pytest.raises(ValueError, match=words):
            beton.open_beton(tmp_path / name)


def test_an_image_larger_than_a_page_is_refused(tmp_path: Path) -> None:
    made = beton.write((np.zeros((20, 40, 40, 3), np.uint8), np.arange(20)), tmp_path / "x.beton", page_size=1 << 21)
    (tmp_path / "x.beton.crc").unlink()
    data = bytearray(made.path.read_bytes())
    data[4:8] = (4096).to_bytes(4, "little")
    made.path.write_bytes(data)
    with pytest.raises(ValueError, match="larger than its pages of 4096 bytes"):
        beton.open_beton(made.path)


def test_opening_needs_little_more_memory_than_its_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = 30_000
    beton.write((np.zeros((n, 2, 2), np.uint8), np.arange(n) % 5), tmp_path / "many.beton", progress=False)
    monkeypatch.setattr(tables, "CHUNK_ROWS", 1000)
    tracemalloc.start()
    opened = beton.open_beton(tmp_path / "many.beton")
    now, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    columns = (opened.metadata, opened.mode, opened.width, opened.height, opened.ptr, opened.size)
    assert now / n < sum(column.itemsize for column in columns) + 2
    assert highest / n < 78  # 100 MB at 1.28 million samples


@pytest.mark.parametrize(("mode", "max_size"), [("auto", None), ("raw", None), ("raw", 60), ("raw", 70)])
@pytest.mark.parametrize("shape", [(9, 7, 3), (64, 64, 1), (65, 3, 3), (65, 3, 1)])
def test_pixels_are_stored_as_pillow_gives_them(mode: Any, max_size: int | None, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    encoder = Encoder(mode, max_size, 90)
    for image in (pixels, pixels[::-1], np.asfortranarray(pixels)):
        assert encoder(image) == encoder._encode(image)


def test_an_image_that_follows_another_needs_no_seek(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeks: list[int] = []

    class Counted(io.BufferedRandom):
        def seek(self, position: int, whence: int = 0) -> int:
            seeks.append(position)
            return super().seek(position, whence)

    def counted(path: Path, mode: str) -> Any:
        file = open_own(path, mode)
        return Counted(io.FileIO(os.dup(file.fileno()), "r+")) if mode == "rb+" else file

    open_own = files.open_own
    monkeypatch.setattr(files, "open_own", counted)
    images = np.zeros((500, 60, 60, 3), np.uint8)
    made = beton.write((images, np.arange(500) % 2), tmp_path / "x.beton", progress=False)
    n_pages = -(-made.bytes // beton.open_beton(made.path).page_size)
    assert n_pages < 10
    assert len(seeks) < 2 * n_pages + 5


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # from FFCV's threads, which outlive the test
def test_unmodified_ffcv_reads_it(written: beton.Beton, tmp_path: Path) -> None:
    pytest.importorskip(
        "dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError
    )  # it imports ffcv without FFCV's extras
    from ffcv.fields.decoders import CenterCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption

    options = {"num_workers": 1, "drop_last": False, "order": OrderOption.SEQUENTIAL}
    images = np.random.default_rng(0).integers(0, 256, (300, 9, 7, 3), dtype=np.uint8)
    labels = np.arange(300) % 7
    beton.write((images, labels), tmp_path / "small.beton")
    for os_cache in (True, False):
        batches = list(Loader(str(tmp_path / "small.beton"), 300, os_cache=os_cache, **options))
        assert (batches[0][0].numpy() == images).all()
        assert (batches[0][1].numpy()[:, 0] == labels).all()
    # JPEG of every kind: the centre pixels agree with Pillow's decoder.
    decoder = CenterCropRGBImageDecoder((30, 30), ratio=1.0)
    batch, batch_labels = next(iter(Loader(str(written.path), 7, pipelines={"image": [decoder]}, **options)))
    assert batch_labels[:, 0].tolist() == written.labels.tolist()
    for row in range(7):
        image = Image.fromarray(written.image(row))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        cut = image.resize((30, 30), Image.Resampling.BOX, box=(left, top, left + side, top + side))
        assert np.abs(np.asarray(cut).astype(int) - batch[row].astype(int)).mean() < 3


def test_classes_that_lose_all_images_are_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 2, "b": 2})
    for name in ("c", "d"):
        (root / name).mkdir()
        (root / name / "0.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.warns(UserWarning, match="2 classes have no image left: c, d"):
        written = beton.write(root, tmp_path / "x.beton", skip_bad=True, progress=False)
    assert written.n_samples == 4
    assert "2 classes have no image left: c, d" in beton.open_beton(written.path).sidecar["notes"]

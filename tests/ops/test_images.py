"""Images: a crop of a JPEG has the pixels of the whole decoded image, at reduced size nearly so; a damaged file is an
error, never a crash; resizing gives the same bits for every instruction set."""

from __future__ import annotations

import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import progressive_jpeg
from numpy.typing import NDArray

from dualfast import ops, reference
from dualfast.config import MAX_JPEG_SCANS
from dualfast.data import beton
from dualfast.data.beton import checksums

Image = pytest.importorskip("PIL.Image")
needs_library = pytest.mark.skipif(not ops.JPEG_LIBRARY, reason="built without libjpeg-turbo")

AS_THEY_ARE = np.tile(np.arange(256, dtype=np.uint8), (3, 1))
FILL = np.array([7, 8, 9], np.uint8)
SAMPLING = ("4:4:4", "4:2:2", "4:2:0", "gray")
FORMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
}
Boxes = NDArray[np.int32]


def picture(height: int, width: int, noise: int = 40, detail: int = 9) -> Any:
    """Colours that change every `detail` px, with noise of so many counts."""
    rng = np.random.default_rng(height * width)
    coarse = Image.fromarray(rng.integers(0, 256, (height // detail + 2, width // detail + 2, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + rng.integers(-noise, noise + 1, smooth.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def encode(image: Any, sampling: str = "4:2:0", **options: Any) -> bytes:
    out = io.BytesIO()
    if sampling == "gray":
        image = image.convert("L")
    else:
        options["subsampling"] = sampling
    image.save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def load(
    data: bytes, image: tuple[int, int], boxes: Boxes, size: tuple[int, int], threads: int = 1
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """What load_images makes of the boxes of one JPEG, with its codes."""
    n = len(boxes)
    out = np.empty((n, *size, 3), np.uint8)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        status = ops.load_images(
            file.fileno(),
            np.zeros(n, np.uint64),
            np.full(n, len(data), np.uint64),
            np.full(n, beton.JPEG, np.uint8),
            np.full(n, image[0], np.uint16),
            np.full(n, image[1], np.uint16),
            boxes,
            out,
            AS_THEY_ARE,
            FILL,
            threads,
        )
    return status, out


def wanted(data: bytes, boxes: Boxes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The same from Pillow's decoding of the whole image."""
    out = np.empty((len(boxes), *size, 3), np.uint8)
    whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    ops.place_images([whole] * len(boxes), boxes, out, AS_THEY_ARE, FILL, 1)
    return out


def boxes_at(tops: Any, lefts: Any, height: int, width: int) -> Boxes:
    tops, lefts = np.broadcast_arrays(tops, lefts)
    boxes = np.zeros((tops.size, 5), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = tops.ravel(), lefts.ravel(), height, width
    boxes[:, 4] = np.arange(len(boxes)) % 2  # every other one mirrored
    return boxes


# ---- the right pixels -----------------------------------------------------------------------------------------------


@needs_library
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("size", [(97, 113), (64, 80), (35, 17), (90, 1), (1, 99)])
def test_any_crop_is_cut_from_the_whole_image(size: tuple[int, int], sampling: str, form: str) -> None:
    height, width = size
    data = encode(picture(height, width), sampling, **FORMS[form])
    for h, w in ((7, 9), (1, 1), (16, 16), (height, width), (height, 3), (3, width)):
        if h > height or w > width:
            continue
        tops, lefts = np.arange(height - h + 1), np.arange(width - w + 1)
        boxes = np.concatenate(
            [  # every row and every column, at each border
                boxes_at(tops, lefts[[0, len(lefts) // 2, -1], None], h, w),
                boxes_at(tops[[0, len(tops) // 2, -1], None], lefts, h, w),
            ]
        )
        status, got = load(data, size, boxes, (h, w))
        assert not status.any()
        assert (got == wanted(data, boxes, (h, w))).all(), (h, w)


@needs_library
@pytest.mark.parametrize("sampling", SAMPLING)
def test_crops_are_resized_like_decoded_ones(sampling: str) -> None:
    data = encode(picture(97, 113), sampling)
    boxes = ops.crop_boxes(
        np.arange(200),
        np.full(200, 97, np.uint16),
        np.full(200, 113, np.uint16),
        kind="resized",
        out_size=(61, 57),
        flip=True,
    )
    outside = boxes_at([-20, 70, 200], [-30, 90, -400], 60, 50)  # the last lies apart from the image
    boxes = np.concatenate([boxes, outside])
    runs = [load(data, (97, 113), boxes, (61, 57), threads) for threads in (1, 3, 8)]
    for status, got in runs:
        assert not status.any()
        assert (got == wanted(data, boxes, (61, 57))).all()
    assert (runs[0][1][-1] == FILL).all()


@needs_library
@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("side", [18, 37, 74, 149])
def test_large_crops_are_decoded_smaller(sampling: str, side: int) -> None:
    size = (301, 403)
    data = encode(picture(*size, noise=5, detail=30), sampling, progressive=side == 74)
    boxes = boxes_at([0, 1, 3], [104, 3, 0], 298, 299)
    status, got = load(data, size, boxes, (side, side))
    assert not status.any()
    exact = wanted(data, boxes, (side, side))
    difference = np.abs(got.astype(int) - exact)
    assert difference.mean() < 2  # as on photographs
    assert difference.max() < 20
    assert difference.any() == (sampling != "4:2:2" or side < 149)  # whose chroma has no pixels to spare


@needs_library
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "gray"])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_smaller_crops_are_cut_from_the_smaller_whole(shrink: int, sampling: str, form: str) -> None:
    height, width, h, w = 187, 243, 5, 7
    data = encode(picture(height, width), sampling, **FORMS[form])
    whole = Image.open(io.BytesIO(data))
    whole.draft(None, (width // shrink, height // shrink))
    pixels = np.asarray(whole.convert("RGB"))
    assert pixels.shape == (-(-height // shrink), -(-width // shrink), 3)
    tops, lefts = np.arange(height // shrink - h + 1), np.arange(width // shrink - w + 1)
    boxes = np.concatenate(
        [boxes_at(tops, lefts[[0, 3, -1], None], h, w), boxes_at(tops[[0, 3, -1], None], lefts, h, w)]
    )
    exact = np.stack([pixels[top : top + h, left : left + w] for top, left in boxes[:, :2]])
    boxes[:, :4] *= shrink
    boxes[:, 4] = 0
    status, got = load(data, (height, width), boxes, (h, w))
    assert not status.any()
    assert (got == exact).all()


@needs_library
def test_smaller_decoding_keeps_the_place() -> None:
    """A ramp's values tell where a pixel was taken from, to a fraction of one."""
    ramp = np.broadcast_to(np.arange(240)[None, :, None], (200, 240, 3)).astype(np.uint8)
    data = encode(Image.fromarray(ramp), "4:4:4")
    for side, shift in ((20, 0), (20, 5), (40, 1), (40, 3), (80, 1)):
        boxes = boxes_at(shift, shift, 160, 160)
        boxes[:, 4] = 0
        got = load(data, (200, 240), boxes, (side, side))[1][0].astype(float)
        expected = shift + (np.arange(side) + 0.5) * 160 / side - 0.5
        assert np.abs(got.mean((0, 2)) - expected)[1:-1].max() < 1


# ---- the odd and the damaged file -----------------------------------------------------------------------------------


def odd_ones() -> dict[str, bytes]:
    """Images of 30 x 40 px that libjpeg-turbo does not take to RGB, or takes with a warning."""
    image = picture(30, 40, noise=2)
    files = {}
    for name, mode, kind in (("cmyk", "CMYK", "JPEG"), ("png", "RGB", "PNG"), ("palette", "P", "PNG")):
        out = io.BytesIO()
        image.convert(mode).save(out, kind)
        files[name] = out.getvalue()
    sound = encode(image)
    scan = sound.index(b"\xff\xda") + 14
    files["junk before a marker"] = sound[:-2] + b"\x00" * 8 + sound[-2:]
    files["junk between markers"] = sound[: scan - 14] + b"\x00\x00" + sound[scan - 14 :]
    return files


@pytest.mark.parametrize("name", odd_ones())
def test_odd_files_are_left_to_pillow(name: str, tmp_path: Path) -> None:
    from dualfast.loading import loader

    odd, path = odd_ones()[name], tmp_path / "odd.beton"
    images = [np.asarray(picture(30, 40))] * 3
    beton.write((np.stack(images), np.arange(3) % 2), path, mode="jpeg", jpeg_quality=100, progress=False)
    _exchange(path, 1, odd)
    options = {"order": "sequential", "image_size": (30, 40), "dtype": torch.uint8}
    with loader.Loader(path, 3, **options) as batches:
        got = next(iter(batches))[0].permute(0, 2, 3, 1).numpy()
    assert (got[1] == np.asarray(Image.open(io.BytesIO(odd)).convert("RGB"))).all()
    assert (got[0] == beton.open_beton(path).image(0)).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"\xff\xd8\xff\xe0 and no more", "sample 1 of .* cannot be decoded"),
        (encode(picture(30, 40))[:700], "sample 1 of .* cannot be decoded: image file is truncated"),
        (encode(picture(40, 30)), r"sample 1 of .* is \(30, 40\) px, its row says \(40, 30\)"),
    ],
    ids=["no image", "cut", "another size"],
)
def test_a_bad_file_is_named(bad: bytes, words: str, tmp_path: Path) -> None:
    from dualfast.loading import loader

    path = tmp_path / "bad.beton"
    images = [np.asarray(picture(30, 40))] * 3
    beton.write((np.stack(images), np.arange(3) % 2), path, mode="jpeg", jpeg_quality=100, progress=False)
    _exchange(path, 1, bad)
    with loader.Loader(path, 3, image_size=(30, 40)) as batches, pytest.raises(ValueError, match=words):
        next(iter(batches))


def _exchange(path: Path, row: int, data: bytes) -> None:
    """Puts other data in the place of a sample's."""
    opened = beton.open_beton(path)
    table = opened.allocations.copy()
    assert len(data) <= table["size"][row]
    table["size"][row] = len(data)
    with open(path, "rb+") as file:
        file.seek(int(opened.ptr[row]))
        file.write(data)
        file.seek(opened.table_start)
        file.write(table.tobytes())
    checksums.forget(path)


FUZZ = """
import numpy as np
import test_images as t

rng = np.random.default_rng(5)
size, done, left = (45, 60), 0, 0
boxes = t.boxes_at([0, 12, 40], [0, 30, 11], 5, 16)
for sampling in t.SAMPLING:
    for form in t.FORMS.values():
        sound = np.frombuffer(t.encode(t.picture(*size), sampling, **form), np.uint8)
        right = t.load(sound.tobytes(), size, boxes, (5, 16))[1]
        for turn in range(150):
            broken = sound.copy()
            where = rng.integers(2, len(broken) if turn % 3 else 400, 1 + turn % 4)
            broken[where] ^= rng.integers(1, 256, len(where), dtype=np.uint8)
            status, _ = t.load(broken.tobytes(), size, boxes, (5, 16))
            assert np.isin(status, (0, t.ops.UNDECODED)).all()
            done, left = done + (status == 0).sum(), left + (status != 0).sum()
        for end in range(1, len(sound), 7):
            status, got = t.load(sound[:end].tobytes(), size, boxes, (5, 16))
            whole = status == 0
            assert (got[whole] == right[whole]).all(), end
            done, left = done + whole.sum(), left + (~whole).sum()
print(done, left)
"""


@needs_library
def test_damaged_files_give_an_image_or_are_left_and_never_crash() -> None:
    """Flipped bytes and files cut short, in a process of its own. What is cut and still decoded is right."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", FUZZ], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    decoded, left = map(int, done.stdout.split())
    assert decoded > 500
    assert left > 500


@needs_library
def test_limits_on_scans_pixels_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond them a JPEG is left to the caller, however cheap it would be to decode."""
    start = time.perf_counter()
    box = boxes_at([0], [0], 64, 64)
    for scans, code in ((MAX_JPEG_SCANS - 1, 0), (5000, ops.UNDECODED)):
        status, _ = load(progressive_jpeg(2048, scans), (2048, 2048), box, (64, 64))
        assert status[0] == code
    assert time.perf_counter() - start < 5
    whole = encode(picture(100, 120), "4:4:4")
    in_scans = encode(picture(100, 120), "4:4:4", progressive=True)
    limits = importlib.import_module("dualfast.ops.images")
    for limit, baseline, progressive in ((300_000, 0, 0), (60_000, 0, 4), (35_999, 4, 4)):
        monkeypatch.setattr(limits, "MAX_IMAGE_BYTES", limit)
        for data, code in ((whole, baseline), (in_scans, progressive)):
            assert load(data, (100, 120), box, (64, 64))[0][0] == code, (limit, code)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (5, 16), (17, 31), (64, 64), (90, 7), (200, 150)])
@pytest.mark.parametrize("image", [(1, 1), (3, 5), (64, 80), (200, 30), (350, 420)])
def test_resizing_against_float64(image: tuple[int, int], size: tuple[int, int]) -> None:
    """Each byte is the float64 value rounded, but where that is within float32's error of a half."""
    pixels = np.random.default_rng(0).choice([0, 1, 100, 254, 255], (*image, 3)).astype(np.uint8)
    out = np.empty((2, *size, 3), np.uint8)
    ops.place_images([pixels] * 2, boxes_at([0, 0], 0, *image), out, AS_THEY_ARE, FILL, 1)
    truth = reference.resize(pixels, size)
    assert np.abs(out[0] - truth).max() <= 0.5 + 255 * 2e-6
    assert (out[1] == out[0, :, ::-1]).all(), "mirrored"


# ---- the same bits everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (33, 49), (200, 150)])
def test_every_level_of_instructions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images: list[NDArray[np.uint8] | None] = [
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((97, 113), (64, 80), (5, 301))
    ]
    boxes = np.concatenate([boxes_at(0, 0, *image.shape[:2]) for image in images if image is not None])
    outs = []
    try:
        for level in (0, 1, 2):
            ops.set_level(level)
            outs.append(np.zeros((len(images), *size, 3), np.uint8))
            ops.place_images(images, boxes, outs[-1], AS_THEY_ARE, FILL, 1)
    finally:
        ops.set_level(2)
    assert outs[0].any()
    assert (outs[0] == outs[1]).all()
    assert (outs[0] == outs[2]).all()


# ---- without the library --------------------------------------------------------------------------------------------


def test_without_the_library_pillow_decodes_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualfast.loading import loader

    path = tmp_path / "some.beton"
    images = [np.asarray(picture(30, 40))] * 3
    beton.write((np.stack(images), np.arange(3) % 2), path, mode="jpeg", progress=False)
    options = {"order": "sequential", "image_size": (30, 40), "dtype": torch.uint8}
    with loader.Loader(path, 3, **options) as batches:
        fast = next(iter(batches))[0]
    monkeypatch.setattr(ops, "JPEG_LIBRARY", "")
    monkeypatch.setattr(ops, "load_images", lambda *arguments: np.full(len(arguments[1]), ops.UNDECODED, np.int32))
    with (
        pytest.warns(UserWarning, match="built without libjpeg-turbo"),
        loader.Loader(path, 3, **options) as batches,
    ):
        assert torch.equal(next(iter(batches))[0], fast)


def test_it_compiles_without_the_headers() -> None:
    compiler, source = shutil.which("g++"), Path(__file__).parents[2] / "csrc" / "jpeg.cpp"
    if compiler is None or not source.exists():
        pytest.skip("needs g++ and the sources")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-UDUALFAST_JPEG", str(source)]
    subprocess.run(command, check=True, timeout=120)


def test_memory_that_runs_out_on_a_helper_thread_is_a_memory_error() -> None:
    program = """
import resource
import numpy as np
from dualfast import ops
n, width = 16, 65535  # 16 rows of such a width take 26 MB per thread
out = np.zeros((n, 3, width, 3), np.uint8)
out[:] = 1
pixels = [np.zeros((4, width, 3), np.uint8)] * n
boxes = np.array([[0, 0, 4, width, 0]] * n, np.int32)
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20),) * 2)
try:
    ops.place_images(pixels, boxes, out, np.zeros((3, 256), np.uint8), np.zeros(3, np.uint8), 2)
except MemoryError:
    print("MemoryError")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "MemoryError\n"), done.stderr

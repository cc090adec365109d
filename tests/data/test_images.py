"""Decoding one image: upright RGB, whatever its mode."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import subprocess
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import jpeg
from hostile import POSTSCRIPT, progressive_jpeg
from numpy.typing import NDArray

from dualfast.config import MAX_JPEG_SCANS
from dualfast.data import images
from dualfast.data.images import (
    DARK,
    DEEP,
    FLOAT,
    FLOAT_255,
    FORMATS,
    FRAMES,
    HUGE,
    TRANSPARENT,
    decode,
    decode_with_kinds,
    open_image,
    parse_colour,
)

Image = pytest.importorskip("PIL.Image")
EpsImagePlugin = pytest.importorskip("PIL.EpsImagePlugin")


def test_decode_gives_upright_rgb() -> None:
    tall = Image.new("RGB", (4, 8))
    tall.paste((200, 0, 0), (0, 0, 4, 4))  # red above black
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    out = io.BytesIO()
    tall.save(out, "PNG", exif=exif)
    upright = np.asarray(decode(out.getvalue()))
    assert upright.shape == (4, 8, 3)
    assert (upright[:, 4:, 0] == 200).all()
    assert (upright[:, :4] == 0).all()

    out = io.BytesIO()
    Image.fromarray(np.full((6, 5), 0x8040, np.uint16)).save(out, "PNG")
    assert (np.asarray(decode(out.getvalue())) == 0x80).all()
    for mode in ("L", "CMYK", "P", "RGBA", "1", "LA"):
        out = io.BytesIO()
        Image.new(mode, (7, 3)).save(out, "TIFF")
        assert np.asarray(decode(out.getvalue())).shape == (3, 7, 3)
    assert decode(jpeg(3, (400, 200)), max_size=100).size == (100, 50)
    assert decode(jpeg(3, (40, 20)), max_size=100).size == (40, 20)


@pytest.mark.parametrize("kind", ["PGM", "PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind: str) -> None:
    values = np.linspace(0, 65535, 100 * 100).reshape(100, 100).astype("<u2")
    if kind == "PGM":
        data = b"P5 100 100 65535\n" + values.astype(">u2").tobytes()
    else:
        out = io.BytesIO()
        Image.fromarray(values).save(out, kind)
        data = out.getvalue()
    assert (np.asarray(decode(data)) == (values >> 8)[..., None]).all()
    small = np.asarray(decode(data, max_size=50)).astype(int)
    assert np.abs(small[..., 0] - (values >> 8).reshape(50, 2, 50, 2).mean((1, 3))).max() <= 2
    eight = b"P5 3 1 255\n" + bytes([0, 100, 255])
    assert np.asarray(decode(eight))[0, :, 0].tolist() == [0, 100, 255]


def test_bytes_that_are_not_an_image() -> None:
    with pytest.raises(ValueError, match="unrecognized image format"):
        decode(b"not an image")
    with pytest.raises(ValueError, match="a Git LFS pointer, not the image; git lfs pull fetches it"):
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def test_transparent_parts_show_the_background() -> None:
    rgba = Image.new("RGBA", (4, 2), (0, 0, 0, 0))  # black where nothing is seen
    rgba.paste((200, 0, 0, 255), (0, 0, 2, 2))
    palette = rgba.quantize(4)
    indexed = Image.fromarray(np.array([[1, 1, 0, 0]] * 2, np.uint8), "P")
    indexed.putpalette([1, 2, 3, 200, 0, 0])
    keyed = Image.new("RGB", (4, 2), (1, 2, 3))
    keyed.paste((200, 0, 0), (0, 0, 2, 2))
    gray = Image.new("LA", (4, 2), (0, 0))
    gray.paste((200, 255), (0, 0, 2, 2))
    for name, data, red in (
        ("rgba", encoded(rgba, "PNG"), (200, 0, 0)),
        ("webp", encoded(rgba, "WEBP", lossless=True), (200, 0, 0)),
        ("palette", encoded(palette, "PNG"), (200, 0, 0)),
        ("gif", encoded(indexed, "GIF", transparency=0), (200, 0, 0)),
        ("one colour", encoded(keyed, "PNG", transparency=(1, 2, 3)), (200, 0, 0)),
        ("gray", encoded(gray, "PNG"), (200, 200, 200)),
    ):
        for background in ((255, 255, 255), (0, 128, 255)):
            image, kinds = decode_with_kinds(data, background=background)
            pixels = np.asarray(image)
            assert pixels[0, 0].tolist() == list(red), name
            assert pixels[1, 3].tolist() == list(background), name
            assert kinds == (TRANSPARENT,), name
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    assert np.asarray(decode(encoded(half, "PNG")))[0, 0].tolist() == [204, 204, 204]
    opaque = Image.new("RGBA", (2, 2), (9, 8, 7, 255))
    assert decode_with_kinds(encoded(opaque, "PNG")).kinds == ()
    assert parse_colour("#0080ff") == (0, 128, 255)
    for bad in ("whyte", "#11223344", "rgba(1, 2, 3, 0)"):
        with pytest.raises(ValueError, match=f"background is '{re.escape(bad)}'; give the name of a colour, or"):
            parse_colour(bad)


def test_floats_are_taken_from_0_to_1_or_to_255() -> None:
    unit = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert np.asarray(decode(encoded(unit, "TIFF")))[0, :, 0].tolist() == [0, 128, 255]
    assert decode_with_kinds(encoded(unit, "TIFF")).kinds == (FLOAT,)
    full = Image.fromarray(np.array([[0, 100.4, 255]], np.float32))
    assert np.asarray(decode(encoded(full, "TIFF")))[0, :, 0].tolist() == [0, 100, 255]
    assert decode_with_kinds(encoded(full, "TIFF")).kinds == (FLOAT_255,)
    mask, black = (Image.fromarray(np.array([[0, high]], np.float32)) for high in (1, 0))
    assert decode_with_kinds(encoded(mask, "TIFF")).kinds == (FLOAT,)
    assert decode_with_kinds(encoded(black, "TIFF")).kinds == ()
    for bad in (-1, 256, np.nan):
        with pytest.raises(ValueError, match="float values"):
            decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_more_pixels_than_pillow_opens(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(np.full((200, 300, 3), (10, 200, 30), np.uint8)), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)  # it opens up to twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(
            ValueError, match=r"300 x 200 px is more than the 40,000 px that are decoded; max_size reads it"
        ):
            decode(data)
        image, kinds = decode_with_kinds(data, max_size=30)
        assert (image.size, kinds) == ((30, 20), (HUGE,))
        assert np.abs(np.asarray(image).astype(int) - (10, 200, 30)).max() <= 3
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)  # Pillow would warn
        assert decode_with_kinds(data).kinds == ()


# ---- what hostile files may do --------------------------------------------------------------------------------------


def test_no_format_runs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked for once per process
    with pytest.raises(ValueError, match="unrecognized image format"):
        decode(POSTSCRIPT)
    assert not started.exists()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        Image.open(io.BytesIO(POSTSCRIPT)).load()
    assert started.exists(), "Pillow by itself starts it"


def test_formats_are_known_by_their_content_alone() -> None:
    Image.init()
    runs_something = {"EPS", "BUFR", "GRIB", "HDF5", "WMF", "FPX", "IPTC", "MIC", "FITS"}
    assert not runs_something & set(FORMATS)
    for name in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO", "PCX", "SGI", "TGA", "QOI"):
        if name not in Image.SAVE:
            continue
        out = io.BytesIO()
        Image.new("RGB", (16, 16), (200, 0, 0)).save(out, name)
        assert open_image(out.getvalue()).format == name
        assert decode(out.getvalue()).getpixel((3, 3)) == (200, 0, 0)


def test_scans_of_a_jpeg_are_limited() -> None:
    assert decode(progressive_jpeg(16, MAX_JPEG_SCANS - 1)).size == (16, 16)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=f"it has {MAX_JPEG_SCANS + 1} scans, more than {MAX_JPEG_SCANS}"):
        decode(progressive_jpeg(4096, MAX_JPEG_SCANS))
    # Behind a marker without a length that looks as if it skipped the rest, as libjpeg's recovery does not.
    with pytest.raises(ValueError, match="5001 scans"):
        decode(progressive_jpeg(4096, 5000, between=b"\xff\x02\xff\xff"))
    assert time.perf_counter() - start < 2


def test_bytes_that_only_look_like_scans_are_not_counted() -> None:
    whole = progressive_jpeg(16, 3)
    in_a_comment = whole[:2] + b"\xff\xfe" + (2 + 500).to_bytes(2, "big") + b"\xff\xda" * 250 + whole[2:]
    for data in (in_a_comment, whole + b"\xff\xda" * 250):  # as an animation after the picture holds them
        assert decode(data).size == (16, 16)


def test_pixels_and_memory_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    assert decode(jpeg(3, (40, 25))).size == (40, 25)
    with pytest.raises(ValueError, match=r"40 x 26 px is more than the 1,000 px that are decoded; max_size reads"):
        decode(jpeg(3, (40, 26)))
    for kind in ("JPEG", "PNG"):
        data = jpeg(3, (96, 96), kind)
        if kind == "JPEG":  # decoded at a quarter of its size
            assert decode(data, max_size=8).size == (8, 8)
        else:
            with pytest.raises(ValueError, match="96 x 96 px is more than"):
                decode(data, max_size=8)
    monkeypatch.setattr(images, "MAX_PIXELS", 10**9)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 60_000)
    assert decode(jpeg(3, (100, 100), progressive=True, subsampling="4:2:0")).size == (100, 100)
    assert decode(jpeg(3, (101, 101))).size == (101, 101), "a baseline file is decoded row by row"
    with pytest.raises(ValueError, match="101 x 101 px in several scans take 61,206 bytes, more than 60,000"):
        decode(jpeg(3, (101, 101), progressive=True, subsampling="4:4:4"))


def test_pillows_own_limit_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"40 x 25 px is more than the 200 px that are decoded; max_size reads"):
        decode(jpeg(3, (40, 25), "PNG"))


def test_files_that_are_no_images_say_what_they_are() -> None:
    for data, words in ((b"", "the file is empty"), (b"<html>404</html>", r"it begins with b'<html>404</html>'")):
        with pytest.raises(ValueError, match=words):
            decode(data)


def test_images_of_16_bits_are_told_from_those_that_turn_black() -> None:
    for value, kinds in ((40_000, (DEEP,)), (4095, (DARK,)), (0, (DEEP,))):
        assert decode_with_kinds(encoded(Image.fromarray(np.full((4, 4), value, np.uint16)), "PNG")).kinds == kinds
    assert decode_with_kinds(encoded(Image.fromarray(np.full((4, 4), 200, np.uint8)), "PNG")).kinds == ()


@pytest.mark.parametrize("colours", ["RGB", "LA", "RGBA"])
@pytest.mark.parametrize("value", [40_000, 3000, 200])
def test_colours_of_16_bits_are_said_to_lose_8(colours: str, value: int) -> None:
    values = np.full((4, 4, len(colours)), value, np.uint16)
    values[..., len(colours) - 1] = value if colours == "RGB" else 0xFFFF
    image, kinds = decode_with_kinds(png_of_16_bits(colours, values))
    assert (np.asarray(image) == value >> 8).all()
    assert kinds == (DEEP if value > 4095 else DARK,)


def test_deep_ppm_and_tiff_are_said_to_lose_8_bits() -> None:
    for value, kinds in ((40_000, (DEEP,)), (3000, (DARK,))):
        values = np.full((2, 2, 3), value, np.uint16)
        assert decode_with_kinds(b"P6 2 2 65535\n" + values.astype(">u2").tobytes()).kinds == kinds
        assert decode_with_kinds(tiff_of(values, 16, 1)).kinds == kinds
    assert decode_with_kinds(b"P6 2 2 255\n" + bytes(12)).kinds == ()


def test_a_transparent_value_of_16_bits_is_transparent() -> None:
    gray = np.array([[3000, 40_000], [3001, 3000]])
    image, kinds = decode_with_kinds(png_of_16_bits("L", gray, struct.pack(">H", 3000)))
    assert np.asarray(image)[..., 0].tolist() == [[255, 156], [11, 255]]
    assert kinds == (DEEP, TRANSPARENT)
    colours = np.repeat(gray[..., None], 3, 2) + np.array([0, 256, 512])
    image, kinds = decode_with_kinds(png_of_16_bits("RGB", colours, struct.pack(">3H", *colours[0, 0])))
    assert np.asarray(image)[0].tolist() == [[255] * 3, [156, 157, 158]]
    assert kinds == (DEEP, TRANSPARENT)


@pytest.mark.parametrize(
    ("value", "bits", "sample_format", "shown"),
    [(-5, 16, 2, "-5"), (-5, 32, 2, "-5"), (70_000, 32, 2, "70,000"), (3_000_000_000, 32, 1, "3,000,000,000")],
)
def test_integers_beyond_16_bits_are_refused(value: int, bits: int, sample_format: int, shown: str) -> None:
    values = np.full((2, 2, 1), value).astype(f"{'i' if sample_format == 2 else 'u'}{bits // 8}")
    with pytest.raises(
        ValueError, match=f"its values range from {shown} to {shown}; scale them to 0..255, or to 0..65"
    ):
        decode(tiff_of(values, bits, sample_format))


@pytest.mark.parametrize(("value", "bits"), [(200, 32), (30_000, 16)])
def test_signed_integers_without_negative_values_are_read(value: int, bits: int) -> None:
    image = decode(tiff_of(np.full((2, 2, 1), value).astype(f"i{bits // 8}"), bits, 2))
    assert np.asarray(image)[0, 0, 0] == (value if bits == 32 else value >> 8)


def png_of_16_bits(colours: str, values: NDArray[Any], transparent: bytes = b"") -> bytes:
    """values: (H, W) or (H, W, channels). transparent: the content of tRNS."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    kind = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}[colours]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff_of(values: NDArray[Any], bits: int, sample_format: int) -> bytes:
    """values: (H, W, 1 or 3). sample_format: 1 for unsigned, 2 for signed integers."""
    height, width, channels = values.shape
    data, photometric = values.tobytes(), 1 if channels == 1 else 2
    tags = [(256, width), (257, height), (259, 1), (262, photometric), (277, channels), (278, height), (279, len(data))]
    after = 8 + 2 + 12 * (len(tags) + 3) + 4  # where the lists lie, then the pixels
    entries = [(tag, 4, 1, value) for tag, value in tags] + [(273, 4, 1, after + 4 * channels)]
    for at, (tag, value) in enumerate(((258, bits), (339, sample_format))):
        entries.append((tag, 3, channels, after + 2 * channels * at if channels > 1 else value))
    lists = struct.pack(f"<{2 * channels}H", *[bits] * channels, *[sample_format] * channels)
    listed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + listed + bytes(4) + lists + data


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_counts_and_is_said(kind: str) -> None:
    red, green = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 250, 0))
    several = encoded(red, kind, save_all=True, append_images=[green])
    image, kinds = decode_with_kinds(several)
    assert np.abs(np.asarray(image)[0, 0].astype(int) - [250, 0, 0]).max() < 8
    assert kinds == (FRAMES,)
    assert decode_with_kinds(encoded(red, kind)).kinds == ()


def tiff(values: np.ndarray, sample_format: int, white_is_zero: bool = False) -> bytes:
    """A TIFF of one strip, put together here: Pillow does not write these kinds."""
    height, width = values.shape
    tags = {256: width, 257: height, 258: values.itemsize * 8, 259: 1, 262: 1 - white_is_zero, 273: 0, 277: 1}
    tags |= {278: height, 279: values.nbytes, 339: sample_format}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # where the values are
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.dtype("<u2")])
def test_tiffs_whose_zero_is_white(dtype: Any) -> None:
    values = np.array([[0, 100, 255]] * 2, dtype) * (257 if np.dtype(dtype).itemsize == 2 else 1)
    for white_is_zero, expected in ((False, [0, 100, 255]), (True, [255, 155, 0])):
        image = decode(tiff(values.astype(dtype), 1, white_is_zero))
        assert np.asarray(image)[0, :, 0].tolist() == expected


def test_tiffs_of_signed_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="signed numbers of 8 bits; write them as unsigned ones"):
        decode(tiff(np.array([[-100, 0, 100]], np.int8), 2))

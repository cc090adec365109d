"""Decoding one image: upright RGB, whatever its mode."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from data_sets import jpeg
from hostile import POSTSCRIPT, progressive_jpeg

from dualfast.config import MAX_JPEG_SCANS
from dualfast.data import images
from dualfast.data.images import FORMATS, decode, open_image

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
    with pytest.raises(ValueError, match=r"1000 pixels\) exceeds limit of 200 pixels; make it smaller.*give max_size"):
        decode(jpeg(3, (40, 25), "PNG"))

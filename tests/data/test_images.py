"""Decoding one image: upright RGB, whatever its mode."""

from __future__ import annotations

import io

import numpy as np
import pytest
from data_sets import jpeg

from dualfast.data.images import decode

Image = pytest.importorskip("PIL.Image")


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

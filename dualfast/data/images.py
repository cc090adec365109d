"""Opening and decoding one image with Pillow: formats that run nothing, sizes within limits. Batches of a .beton are
decoded in C++ (loading.decode), within the same limits."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast.config import MAX_IMAGE_BYTES, MAX_JPEG_SCANS

if TYPE_CHECKING:
    from PIL import Image

Payload: TypeAlias = bytes | NDArray[np.uint8]  # an encoded image, or its pixels (H, W, 1 or 3)

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000"),
    *("ICO", "ICNS", "DIB", "DDS", "PCX", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "TGA"),
)
"""The formats that are opened, by Pillow's names; a file is recognized by its content. Left out: EPS, which Pillow
hands to Ghostscript; BUFR, GRIB, HDF5 and WMF, to code of other packages; FPX, IPTC and MIC, which hold another file;
FITS, which unpacks without limit."""

MAX_PIXELS = MAX_IMAGE_BYTES // 3
REDUCING_GAP = 3.0  # of Pillow's thumbnail: a JPEG is decoded at a fraction of its size with at least 3 x max_size


def open_image(data: bytes, *, max_size: int | None = None) -> Image.Image:
    """A Pillow image whose header is read and whose pixels are not.

    max_size: it will be scaled down to this many pixels, as decode() does. Raises ValueError for bytes that are not in
    one of FORMATS, and for an image that would take more than the limits of dualfast.config; also what Pillow raises
    for a damaged header."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = _open_jpeg(data) if data[:3] == b"\xff\xd8\xff" else Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError:  # its message is the address of the BytesIO
        raise ValueError("unrecognized image format") from None
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{str(error).partition(',')[0]}; make it smaller, or save it as JPEG and give max_size"
        ) from None
    width, height = image.size
    shrink = 1
    if max_size is not None and image.format in ("JPEG", "MPO"):
        shrink = next(n for n in (8, 4, 2, 1) if min(image.size) // int(REDUCING_GAP * max_size) >= n or n == 1)
    if -(-width // shrink) * -(-height // shrink) > MAX_PIXELS:
        way_out = "max_size reads a JPEG at a fraction of its size" if shrink == 1 else "make it smaller"
        raise ValueError(f"{width} x {height} px is more than the {MAX_PIXELS:,} px that are decoded; {way_out}")
    return image


def decode(payload: Payload, *, max_size: int | None = None) -> Image.Image:
    """An RGB Pillow image: gray, CMYK, palette and 16-bit inputs converted, EXIF orientation applied, scaled down to
    max_size (longer side, pixels) when larger. Raises as open_image does, and as Pillow for a damaged image."""
    from PIL import Image, ImageOps

    if isinstance(payload, np.ndarray):
        image: Image.Image = Image.fromarray(payload if payload.shape[-1] == 3 else np.repeat(payload, 3, axis=2))
    else:
        image = open_image(payload, max_size=max_size)
    if image.mode.startswith("I"):  # convert() would clip 16-bit values at 255
        maybe_8_bit = image.mode == "I" and image.format == "TIFF"  # 32-bit samples that may only use 8 bits
        image = ImageOps.exif_transpose(image)
        values = np.asarray(image)
        values = values if maybe_8_bit and values.max() <= 255 else values >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if max_size is not None and max(image.size) > max_size:
        image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _formats() -> list[str]:
    """FORMATS, as far as the installed Pillow has them."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def _open_jpeg(data: bytes) -> Image.Image:
    """A JPEG, with the number of its scans and the memory that collects them checked."""
    from PIL.JpegImagePlugin import jpeg_factory

    n_scans = data.count(b"\xff\xda")  # at least as many as there are, as segments may hold these bytes too
    if n_scans > MAX_JPEG_SCANS and (n_scans := _count_scans(data)) > MAX_JPEG_SCANS:
        raise ValueError(f"it has {n_scans} scans, more than {MAX_JPEG_SCANS}; save it anew")
    try:
        image: Any = jpeg_factory(io.BytesIO(data))
    except (SyntaxError, IndexError, TypeError):  # Pillow's ways to say that it is none
        raise ValueError("unrecognized image format") from None
    if n_scans > 1:
        sampling = [(h, v) for _, h, v, _ in image.layer]
        per_pixel = sum(h * v for h, v in sampling) / max(h for h, _ in sampling) / max(v for _, v in sampling)
        needed = int(2 * per_pixel * image.width * image.height)
        if needed > MAX_IMAGE_BYTES:
            raise ValueError(
                f"{image.width} x {image.height} px in several scans take {needed:,} bytes, more than "
                f"{MAX_IMAGE_BYTES:,}; save it without progressive mode, or smaller"
            )
    return image  # type: ignore[no-any-return]


_MARKER = re.compile(rb"\xff([^\x00\xff])")


def _count_scans(data: bytes) -> int:
    """The scans of a JPEG, by its markers, which libjpeg finds in the same way."""
    at, count, in_scan = 2, 0, False
    while marker := _MARKER.search(data, at):
        code, at = marker[1][0], marker.end()
        if code == 0xD9:  # the end
            break
        if 0xD0 <= code <= 0xD7 or code < 0xC0:  # has no length; a scan goes on
            if not in_scan and code != 0x01 and code < 0xC0:
                break
            continue
        count += code == 0xDA
        in_scan = code == 0xDA
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
    return count

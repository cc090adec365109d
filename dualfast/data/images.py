"""Images with Pillow: which files are images, opening one (formats that run nothing, sizes within limits) and decoding
it to RGB. Batches of a .beton are decoded in C++ (loading.decode), within the same limits."""

from __future__ import annotations

import io
import os
import re
import struct
import threading
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast.config import MAX_IMAGE_BYTES, MAX_JPEG_SCANS
from dualfast.storage.files import LFS_POINTER, open_regular

if TYPE_CHECKING:
    from PIL import Image

Payload: TypeAlias = bytes | NDArray[np.uint8]  # an encoded image, or its pixels (H, W, 1, 3 or 4)
Colour: TypeAlias = tuple[int, int, int]

FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000"),
    *("ICO", "ICNS", "DIB", "DDS", "PCX", "PSD", "QOI", "SGI", "SUN", "XBM", "XPM", "TGA"),
)
"""The formats that are opened, by Pillow's names; a file is recognized by its content. Left out: EPS, which Pillow
hands to Ghostscript; BUFR, GRIB, HDF5 and WMF, to code of other packages; FPX, IPTC and MIC, which hold another file;
FITS, which unpacks without limit. TGA is last, as it has no magic bytes."""
CERTAIN = frozenset({"JPEG", "PNG", "GIF", "WEBP", "TIFF", "JPEG2000", "AVIF", "QOI"})
"""Formats that the first bytes give away; text may begin as some of the others do."""
MAGIC_BYTES = 16

MAX_PIXELS = MAX_IMAGE_BYTES // 3
SHRUNK = 4  # times as many pixels are decoded, one image at a time, where max_size scales them down
REDUCING_GAP = 3.0  # of Pillow's thumbnail: a JPEG is decoded at a fraction of its size with at least 3 x max_size
WHITE: Colour = (255, 255, 255)

TRANSPARENT, FLOAT, FLOAT_255, HUGE = "transparent", "float", "float to 255", "huge"
DEEP, DARK, FRAMES = "16 bits", "12 bits", "frames"
"""Kinds of images that are changed in a way that a user should know of."""
DARKEST = 1 << 12  # values of 16 bits that do not reach it look black with 8
PHOTOMETRIC, SAMPLE_FORMAT, SIGNED = 262, 339, 2  # tags of a TIFF, and a value
ANIMATED = ("GIF", "TIFF", "WEBP", "PNG")  # MPO, of phones, holds copies of one image


class Decoded(NamedTuple):
    """An RGB image, and the kinds above that it is of."""

    image: Image.Image
    kinds: tuple[str, ...]


# ---- which files are images -----------------------------------------------------------------------------------------


@cache
def suffixes() -> frozenset[str]:
    """The suffixes, lower case with their dot, of the formats that are read with this Pillow."""
    from PIL import Image

    formats = _formats()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in formats)


@cache
def _formats() -> tuple[str, ...]:
    """FORMATS, as far as the installed Pillow has them."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the file is an image, by its first bytes, whatever its name. False when it cannot be read."""
    from PIL import Image

    try:
        with open_regular(path) as file:
            start = file.read(MAGIC_BYTES)
            kinds = [kind for kind in _formats() if (accept := Image.OPEN[kind][1]) and accept(start) is True]
            if not CERTAIN.isdisjoint(kinds):
                return True
            for kind in kinds:
                file.seek(0)
                Image.OPEN[kind][0](file, "")
        return bool(kinds)
    except Exception:  # a file that Pillow cannot make sense of raises many kinds
        return False


def parse_colour(text: str) -> Colour:
    """The colour of a name or of "#rrggbb". ValueError for anything else, and for one with transparency."""
    from PIL import ImageColor

    try:
        colour = ImageColor.getrgb(text)
        if len(colour) > 3:
            raise ValueError("it has transparency")
    except (ValueError, TypeError, AttributeError):  # the last two: not a text
        raise ValueError(f'background is {text!r}; give the name of a colour, or "#rrggbb"') from None
    return colour[0], colour[1], colour[2]


# ---- opening --------------------------------------------------------------------------------------------------------


def open_image(data: bytes, *, max_size: int | None = None) -> Image.Image:
    """A Pillow image whose header is read and whose pixels are not.

    max_size: it will be scaled down to this many pixels, as decode() does. Raises ValueError for bytes that are not in
    one of FORMATS, and for an image that would take more than the limits of dualfast.config; also what Pillow raises
    for a damaged header."""
    if not data:
        raise ValueError("the file is empty")
    image = _open_jpeg(data) if data[:3] == b"\xff\xd8\xff" else _open(data)
    (width, height), limit = image.size, pixel_limit()
    scale = 1.0 if max_size is None else min(1.0, max_size / max(width, height))
    too_large = f"{width} x {height} px is more than the"
    if width * height * scale**2 > limit:
        raise ValueError(f"{too_large} {limit:,} px that are decoded; max_size reads it scaled down")
    if n_decoded(image, max_size) > SHRUNK * limit:
        raise ValueError(f"{too_large} {SHRUNK * limit:,} px that are scaled down; make it smaller")
    return image


def pixel_limit() -> int:
    """The most pixels of an image: ours, or what Pillow is set to, twice MAX_IMAGE_PIXELS."""
    from PIL import Image

    return MAX_PIXELS if Image.MAX_IMAGE_PIXELS is None else min(MAX_PIXELS, 2 * Image.MAX_IMAGE_PIXELS)


def n_decoded(image: Image.Image, max_size: int | None) -> int:
    """The number of pixels that are decoded to scale the image down to max_size: of a JPEG a fraction."""
    shrink = 1
    if max_size is not None and image.format in ("JPEG", "MPO"):
        shrink = next(n for n in (8, 4, 2, 1) if min(image.size) // int(REDUCING_GAP * max_size) >= n or n == 1)
    return -(-image.width // shrink) * -(-image.height // shrink)


def _open(data: bytes) -> Image.Image:
    """As Image.open, but without its pixel limit, which warns, and is the same for images to be scaled down."""
    from PIL import Image

    for kind in _formats():
        factory, accepts = Image.OPEN[kind]
        if accepts is None or accepts(data[:MAGIC_BYTES]) is True:
            try:
                return factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # Pillow's ways to say that it is none
                continue
    if data.startswith(LFS_POINTER):
        raise ValueError("a Git LFS pointer, not the image; git lfs pull fetches it")
    raise ValueError(f"unrecognized image format; it begins with {data[:MAGIC_BYTES]!r}")


# ---- decoding -------------------------------------------------------------------------------------------------------

_one_huge_image = threading.Lock()


def decode(payload: Payload, *, max_size: int | None = None, background: Colour = WHITE) -> Image.Image:
    """An RGB Pillow image: gray, CMYK, palette and 16-bit inputs converted, floats from 0..1 to 0..255, transparent
    parts composited on `background`, EXIF orientation applied, scaled down to max_size (longer side, pixels) when
    larger. Raises as open_image does, as Pillow for a damaged image, and ValueError for float values outside 0..255."""
    return decode_with_kinds(payload, max_size=max_size, background=background).image


def decode_with_kinds(payload: Payload, *, max_size: int | None = None, background: Colour = WHITE) -> Decoded:
    """decode, and what kinds of change the image needed."""
    from PIL import Image

    if isinstance(payload, np.ndarray):
        gray = payload.shape[-1] == 1
        return _to_rgb(Image.fromarray(np.repeat(payload, 3, axis=2) if gray else payload), max_size, background)
    image = open_image(payload, max_size=max_size)
    is_huge = image.width * image.height > pixel_limit()
    with _one_huge_image if n_decoded(image, max_size) > pixel_limit() else nullcontext():
        decoded = _to_rgb(image, max_size, background)
    kinds = [HUGE] * is_huge + [FRAMES] * (image.format in ANIMATED and _has_several_frames(payload))
    return Decoded(decoded.image, (*decoded.kinds, *kinds)) if kinds else decoded


def _has_several_frames(data: bytes) -> bool:
    try:
        _open(data).seek(1)
    except Exception:  # EOFError where there is one, and what Pillow raises for a damaged second one
        return False
    return True


def _to_rgb(image: Image.Image, max_size: int | None, background: Colour) -> Decoded:
    from PIL import Image, ImageOps

    kinds: list[str] = []
    if image.mode == "L" and _tag(image, SAMPLE_FORMAT) == SIGNED:
        raise ValueError("its values are signed numbers of 8 bits; write them as unsigned ones, 0 to 255")
    if image.mode == "F":
        image = _from_floats(ImageOps.exif_transpose(image), kinds)
    elif image.mode.startswith("I"):  # convert() would clip 16-bit values at 255
        image = _from_integers(image, kinds)
    elif _is_deep(image):  # Pillow keeps the upper 8 bits
        image = _with_8_bit_key(image)
        kinds.append(DARK if max(np.ravel(image.convert("RGB").getextrema())) < DARKEST >> 8 else DEEP)
    if image.has_transparency_data:
        image = ImageOps.exif_transpose(image)
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    elif image.mode == "P":
        image = ImageOps.exif_transpose(image).convert("RGB")  # scaling would take the nearest colours
    if max_size is not None and max(image.size) > max_size:
        image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC, reducing_gap=REDUCING_GAP)
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] != 255:
        kinds.append(TRANSPARENT)
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return Decoded(image if image.mode == "RGB" else image.convert("RGB"), tuple(kinds))


def _from_floats(image: Image.Image, kinds: list[str]) -> Image.Image:
    from PIL import Image

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(f"its float values range from {low:g} to {high:g}; give them in 0..1 or 0..255")
    if high > 0:
        kinds.append(FLOAT if high <= 1 else FLOAT_255)  # both are said, as one data set should have one of them
    return Image.fromarray(np.rint(values * 255 if high <= 1 else values).astype(np.uint8))


def _from_integers(image: Image.Image, kinds: list[str]) -> Image.Image:
    """A gray image of 16 or 32 bits with 8, with its transparent value as such. ValueError for values outside of
    16 bits."""
    from PIL import Image, ImageOps

    maybe_8_bit = image.mode == "I" and image.format == "TIFF"  # 32-bit samples that may only use 8 bits
    unsigned = _stored_as(image)[0] in ("I;32N", "I;32BN")
    key = image.info.get("transparency")
    white_is_zero = _tag(image, PHOTOMETRIC) == 0
    values = np.asarray(ImageOps.exif_transpose(image))
    values = values.view(np.uint32) if unsigned else 0xFFFF - values if white_is_zero else values
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 0xFFFF:
        raise ValueError(
            f"its values range from {low:,} to {high:,}; scale them to 0..255, or to 0..65535, of which the upper 8 "
            "bits are kept"
        )
    gray = values
    if not maybe_8_bit or high > 255:
        kinds.append(DARK if 0 < high < DARKEST else DEEP)
        gray = values >> 8
    result = Image.fromarray(gray.astype(np.uint8))
    if isinstance(key, int):
        result.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return result


def _tag(image: Image.Image, number: int) -> Any:
    """The first value of a TIFF's tag; None where the image has none."""
    value = getattr(image, "tag_v2", {}).get(number)
    return next(iter(value), None) if isinstance(value, tuple) else value


def _is_deep(image: Image.Image) -> bool:
    """Whether a colour image that Pillow has not read yet has 16 bits per channel, of which it will keep 8."""
    mode, *rest = _stored_as(image)
    return ";16" in str(mode) or (image.format == "PPM" and max(rest, default=0) > 255)


def _stored_as(image: Image.Image) -> tuple[Any, ...]:
    """What Pillow calls the values in the file, as "RGB;16B", and of a PPM the largest one."""
    tiles = getattr(image, "tile", None)
    args: Any = tiles[0].args if tiles else ""
    return args if isinstance(args, tuple) and args else (args,)


def _with_8_bit_key(image: Image.Image) -> Image.Image:
    """The image, its one transparent colour cut to 8 bits as its pixels are."""
    key = image.info.get("transparency")
    if isinstance(key, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


# ---- JPEG -----------------------------------------------------------------------------------------------------------


def _open_jpeg(data: bytes) -> Image.Image:
    """A JPEG, with the number of its scans and the memory that collects them checked."""
    from PIL.JpegImagePlugin import jpeg_factory

    n_scans = data.count(b"\xff\xda")  # at least as many as there are, as segments may hold these bytes too
    if n_scans > MAX_JPEG_SCANS and (n_scans := _count_scans(data)) > MAX_JPEG_SCANS:
        raise ValueError(f"it has {n_scans} scans, more than {MAX_JPEG_SCANS}; save it again")
    try:
        image: Any = jpeg_factory(io.BytesIO(data))
    except (SyntaxError, IndexError, TypeError):
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

"""Decoding one image with Pillow. Batches of a .beton are decoded in C++ (loading.decode)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Payload: TypeAlias = bytes | NDArray[np.uint8]  # an encoded image, or its pixels (H, W, 1 or 3)


def decode(payload: Payload, *, max_size: int | None = None) -> Image.Image:
    """An RGB Pillow image: gray, CMYK, palette and 16-bit inputs converted, EXIF orientation applied, scaled down to
    max_size (longer side, pixels) when larger. Raises ValueError for bytes in no known image format, and what Pillow
    raises for a damaged image."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(payload, np.ndarray):
        image: Image.Image = Image.fromarray(payload if payload.shape[-1] == 3 else np.repeat(payload, 3, axis=2))
    else:
        try:
            image = Image.open(io.BytesIO(payload))
        except UnidentifiedImageError:  # its message is the address of the BytesIO
            raise ValueError("unrecognized image format") from None
    if image.mode.startswith("I"):  # convert() would clip 16-bit values at 255
        maybe_8_bit = image.mode == "I" and image.format == "TIFF"  # 32-bit samples that may only use 8 bits
        image = ImageOps.exif_transpose(image)
        values = np.asarray(image)
        values = values if maybe_8_bit and values.max() <= 255 else values >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if max_size is not None and max(image.size) > max_size:
        image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")

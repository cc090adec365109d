"""Reading, cropping and scaling a batch of images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # noqa: F401  before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C
from dualfast.config import MAX_IMAGE_BYTES, MAX_JPEG_SCANS

READ_STATUS = (
    "done",
    "cannot be read from the disk",
    "lies past the end of the file",
    "does not fit into memory",
)
UNDECODED = 4  # csrc/images.h numbers both
JPEG_LIBRARY: str = _C.jpeg_library  # what load_images decodes JPEGs with; "" where none was there at the build


def load_images(
    fd: int,
    ptr: NDArray[np.uint64],
    size: NDArray[np.uint64],
    mode: NDArray[np.uint8],
    height: NDArray[np.uint16],
    width: NDArray[np.uint16],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
    threads: int,
) -> NDArray[np.int32]:
    """Reads n samples (size[i] bytes at ptr[i] of the open file), crops boxes[i], rows of crop_boxes, and scales it to
    out[i] of shape (height, width, 3), with each value v of channel c replaced by table[c, v]; what lies outside the
    image becomes fill[c]. mode (n,): 0 JPEG, 1 raw; height and width (n,): of the stored images, px.

    Of a JPEG only the rows and columns of its box are decoded, at 1/2, 1/4 or 1/8 of their size where that still has
    as many pixels as the output.

    Returns (n,) codes into READ_STATUS, or UNDECODED for a JPEG to decode in another way and pass to place_images: not
    of one or three components, damaged, not of this height and width, beyond the limits of dualfast.config, or any
    without JPEG_LIBRARY. ValueError or TypeError when shapes or element sizes (1, 2 or 4 bytes) disagree."""
    limits = MAX_IMAGE_BYTES, MAX_JPEG_SCANS
    status: NDArray[np.int32] = _C.load_images(
        fd, ptr, size, mode, height, width, boxes, out, table, fill, *limits, threads
    )
    return status


def place_images(
    pixels: list[NDArray[np.uint8] | None],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
    threads: int,
) -> None:
    """load_images for decoded images, each (height, width, 3); out[i] is unchanged where pixels[i] is None."""
    _C.place_images(pixels, boxes, out, table, fill, threads)

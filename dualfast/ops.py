"""The one door to compiled code: validates, picks triton | cpp | torch, calls. The only importer of _C and kernels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import dualfast._C as _C

# ---- step -----------------------------------------------------------------------------------------------------------


# ---- select ---------------------------------------------------------------------------------------------------------


# ---- beton ----------------------------------------------------------------------------------------------------------

READ_STATUS = (
    "done",
    "cannot be read from the disk",
    "lies past the end of the file",
    "cannot be decoded",
    "no memory",
)
STORED_AS_JPEG = 5


def order_keys(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]:
    """(n,) keys whose ascending order is the shuffle of (seed, epoch). Each depends on (seed, epoch, id) alone.
    seed and epoch are taken mod 2**64 and 2**32."""
    keys: NDArray[np.uint64] = _C.order_keys(np.ascontiguousarray(ids, np.int64), seed % 2**64, epoch % 2**32)
    return keys


def crop_boxes(
    ids: NDArray[np.int64],
    heights: NDArray[np.uint16],
    widths: NDArray[np.uint16],
    *,
    kind: Literal["center", "pad", "resized"],
    out_size: tuple[int, int],
    flip: bool = False,
    fraction: float = 1.0,
    pad: float = 0.0,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    seed: int = 0,
    epoch: int = 0,
) -> NDArray[np.int32]:
    """(n, 5) rows top, left, height, width, flip in pixels of the stored images; a pure function of (seed, epoch, id)
    and the image's size.

    center: the largest box of the output's shape times `fraction`, in the middle. pad: the largest such box, shifted
    by up to `pad` output pixels each way, possibly beyond the border. resized: area `scale` and aspect `ratio`
    (log-uniform) of the image, ten tries, then the middle (Inception's crop). flip mirrors half of the samples."""
    kinds = {"center": 0, "pad": 1, "resized": 2}
    boxes: NDArray[np.int32] = _C.crop_boxes(
        ids, heights, widths, kinds[kind], flip, *out_size, fraction, pad, scale, ratio, seed % 2**64, epoch % 2**32
    )
    return boxes


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
    """Reads n samples (size[i] bytes at ptr[i] of the open file), cuts and scales boxes[i] to out[i] of shape
    (height, width, 3), and replaces each value v of channel c by table[c, v]; outside the image stands fill[c].

    Returns (n,) codes into READ_STATUS; STORED_AS_JPEG marks samples left to place_images. ValueError or TypeError when
    shapes or element sizes (1, 2 or 4 bytes) disagree."""
    status: NDArray[np.int32] = _C.load_images(fd, ptr, size, mode, height, width, boxes, out, table, fill, threads)
    return status


def place_images(
    pixels: list[NDArray[np.uint8] | None],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
    threads: int,
) -> None:
    """load_images for decoded images, each (height, width, 3); out[i] is left alone where pixels[i] is None."""
    _C.place_images(pixels, boxes, out, table, fill, threads)

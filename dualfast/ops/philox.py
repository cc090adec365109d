"""Draws that are pure functions of (seed, epoch, sample id): orders and crops."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch  # noqa: F401  before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C


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

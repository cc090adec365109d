"""Crop boxes: where each image of a batch is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch  # noqa: F401  before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C
from dualfast.arguments import checked_choice
from dualfast.config import CROP_PARAMETERS


def crop_boxes(
    ids: NDArray[np.int64],
    heights: NDArray[np.uint16],
    widths: NDArray[np.uint16],
    *,
    kind: str,
    out_size: tuple[int, int],
    flip: bool = False,
    seed: int = 0,
    epoch: int = 0,
    **parameters: Any,
) -> NDArray[np.int32]:
    """(n, 5) rows top, left, height, width, flip in pixels of the stored images: reference.crop_box of each sample, a
    pure function of (seed, epoch, id) and of the image's size. seed and epoch are taken mod 2**64 and 2**32.

    heights and widths (n,): of the stored images, px. kind, and its parameters: see config.CROP_PARAMETERS, which has
    the defaults for out_size (height, width). flip mirrors half of the samples. ValueError for an unknown kind and
    TypeError for a parameter it does not have."""
    checked_choice("kind", kind, CROP_PARAMETERS)
    values = CROP_PARAMETERS[kind](out_size)
    if unknown := parameters.keys() - values.keys():
        raise TypeError(f"{min(unknown)} is not a parameter of the crop {kind!r}; give {', '.join(values)}")
    flat: list[float] = []
    for value in (values | parameters).values():
        flat += map(float, value) if hasattr(value, "__len__") else (float(value),)
    boxes: NDArray[np.int32] = _C.crop_boxes(
        ids, heights, widths, kind, flip, *out_size, flat, seed % 2**64, epoch % 2**32
    )
    return boxes

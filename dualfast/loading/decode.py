"""Images of the default pipelines: read, cropped, mirrored and normalised in one compiled pass.

Needs neither FFCV nor just-in-time compilation. ops.JPEG_LIBRARY decodes the JPEGs, Pillow those that it cannot.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array, checked_choice, checked_int
from dualfast.config import AUGMENTS, CROP_PARAMETERS, MAX_IMAGE_SIZE, Augment, Fill
from dualfast.data import beton
from dualfast.errors import UnreadableData

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NORMALIZATIONS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    # As the code of arXiv 2502.06905 has them.
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "cifar100": ((129.3 / 255, 124.1 / 255, 112.4 / 255), (68.2 / 255, 65.4 / 255, 70.4 / 255)),
}
"""Mean and standard deviation per channel, for pixel values in 0..1."""
SMALL = 64  # px: images up to this side are used at their own size
LARGE = 224  # px: the side that other images are scaled to
MIRRORED = 16  # px: smaller images are taken for characters, which mirroring changes
TEST_CROP = 224 / 256
OUTPUT_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.int16),  # NumPy has no bfloat16, FFCV no float16: both are carried as their bits
    torch.float16: np.dtype(np.int16),
    torch.uint8: np.dtype(np.uint8),
}
DecodeFunction: TypeAlias = Callable[[NDArray[np.int64], NDArray[Any]], None]


# ---- defaults -------------------------------------------------------------------------------------------------------


def default_image_size(data: beton.Beton, *, square: bool = False) -> tuple[int, int]:
    """(height, width) of the output where none was given: the images' own where it is the same for all and at most
    SMALL, else LARGE. square: a size that is not square does not count as small, for networks that take one side."""
    return size_for(data.constant_size, square=square)


def size_for(size: tuple[int, int] | None, *, square: bool = False) -> tuple[int, int]:
    """default_image_size for images that all have this (height, width), None: several."""
    if size is None or max(size) > SMALL or (square and size[0] != size[1]):
        return LARGE, LARGE
    return size


def default_augment(image_size: int | tuple[int, int], *, characters: bool = False) -> Augment:
    """The random crop for outputs of image_size: "crop+flip" up to SMALL, else "rrc". characters: without the flip
    below MIRRORED, since a mirrored digit is another character and a mirrored photograph is the same thing."""
    side = max(height_and_width(image_size))
    if side > SMALL:
        return "rrc"
    return "crop" if characters and side < MIRRORED else "crop+flip"


def height_and_width(image_size: Any) -> tuple[int, int]:
    """(height, width) of one side or two. ValueError unless each is an integer in 1..MAX_IMAGE_SIZE."""
    size = tuple(image_size) if isinstance(image_size, Sequence | np.ndarray) else (image_size, image_size)
    try:
        height, width = (checked_int("image_size", side, 1, MAX_IMAGE_SIZE) for side in size)
    except (TypeError, ValueError):
        raise ValueError(
            f"image_size is {image_size!r:.80}; give 1 to {MAX_IMAGE_SIZE} px, or (height, width)"
        ) from None
    return height, width


# ---- decoding -------------------------------------------------------------------------------------------------------


class BatchContext(threading.local):
    """What decoding needs to know about the batch that this thread is making."""

    beton: beton.Beton
    seed: int
    epoch: int
    threads: int


batch_context = BatchContext()


class ImageDecoder:
    """Turns ids into normalised images (B, height, width, 3). Crops are a function of (seed, epoch, id).

    Arguments as for image_pipelines; raises its ValueErrors."""

    def __init__(
        self,
        image_size: int | tuple[int, int],
        augment: Augment | Literal[False] | None,
        mean: Sequence[float],
        std: Sequence[float],
        dtype: torch.dtype,
        scale: tuple[float, float],
        ratio: tuple[float, float],
        fill: Fill,
    ) -> None:
        self.size = height_and_width(image_size)
        if not isinstance(augment, str | bool | np.bool_ | None) or augment not in (False, None, *AUGMENTS):
            *names, last = (f'"{name}"' for name in AUGMENTS)
            raise ValueError(f"augment is {augment!r}; give False, {', '.join(names)} or {last}")
        checked_choice("fill", fill, get_args(Fill))
        if not isinstance(dtype, torch.dtype) or dtype not in OUTPUT_DTYPES:
            raise ValueError(f"dtype is {dtype}; give {', '.join(map(str, OUTPUT_DTYPES))}")
        for name, value, low in (("mean", mean, 0.0), ("std", std, 1e-6)):
            numbers = as_array(name, value)
            if numbers.shape != (3,) or not all(low <= float(number) <= 1 for number in numbers):
                raise ValueError(
                    f"{name} is {value!r}; give three numbers in 0..1 (divide by 255 if they are for 0..255)"
                )
        for name, bounds, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
            if np.shape(bounds) != (2,) or not 0 < bounds[0] <= bounds[1] <= most or math.isinf(bounds[1]):
                until = " <= 1" if most == 1 else ""
                raise ValueError(f"{name} is {bounds!r}; give two numbers, 0 < low <= high{until}")
        self.dtype = dtype
        self.shape, self.array_dtype = (*self.size, 3), OUTPUT_DTYPES[dtype]
        self._kind, self._flip = AUGMENTS[augment] if augment else ("center", False)
        self._parameters = CROP_PARAMETERS[self._kind](self.size)
        self._parameters |= {k: v for k, v in (("scale", scale), ("ratio", ratio)) if k in self._parameters}
        self._table, self._fill = _lookup_table(as_array("mean", mean), as_array("std", std), dtype)
        if fill == "black":
            self._fill = self._table[:, 0].copy()

    def warn_if_slow(self, modes: NDArray[np.uint8]) -> None:
        """Warns when there are JPEGs that Pillow alone can decode."""
        if not ops.JPEG_LIBRARY and (modes == beton.JPEG).any():
            warnings.warn(
                "dualfast was built without libjpeg-turbo: JPEGs are decoded whole, by Pillow, which is slow; install "
                "libjpeg-dev and reinstall dualfast",
                stacklevel=3,
            )

    def for_images(self, heights: NDArray[np.uint16], widths: NDArray[np.uint16]) -> DecodeFunction:
        """The function that decodes ids of a file into out (B, height, width, 3), given the sizes of all its images."""
        crop: dict[str, Any] = {"kind": self._kind, "out_size": self.size, "flip": self._flip, **self._parameters}
        table, fill = self._table, self._fill
        if self._kind == "center":  # images that have the output's size already are not cropped
            uncut = (heights == self.size[0]).all() and (widths == self.size[1]).all()
            crop["fraction"] = 1.0 if uncut or max(self.size) <= SMALL else TEST_CROP

        def decode(ids: NDArray[np.int64], out: NDArray[Any]) -> None:
            source, threads = batch_context.beton, batch_context.threads
            height, width = source.height[ids], source.width[ids]
            boxes = ops.crop_boxes(ids, height, width, seed=batch_context.seed, epoch=batch_context.epoch, **crop)
            places = source.ptr[ids], source.size[ids], source.mode[ids]
            status = ops.load_images(source.fd, *places, height, width, boxes, out, table, fill, threads)
            if status.any():
                _check_read(source, ids, status)
                pixels = _decode_with_pillow(source, ids, np.flatnonzero(status == ops.UNDECODED))
                ops.place_images(pixels, boxes, out, table, fill, batch_context.threads)

        return decode


class NumberDecoder:
    """Turns ids into the numbers of their field, (B, *shape): int64 or float64. shape: () or (1,)."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.shape = shape


def image_pipelines(
    image_size: int | tuple[int, int],
    *,
    augment: Augment | Literal[False] = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    fill: Fill = "mean",
) -> dict[str, list[Any]]:
    """Pipelines for the fields image and label: (B, 3, height, width) in channels_last memory, (B,) int64.

    For dualfast.Loader alone, and without FFCV as long as nothing is added to them; FFCV's operations may follow
    in either list. image_size: the output's side, or (height, width), px. augment: False (the middle of the image) or
    a random crop, as dualfast.config.AUGMENTS describes them; scale, ratio and fill are for those. Of a JPEG only what
    the crop needs is decoded, at 1/2, 1/4 or 1/8 of its size where that still has as many pixels as the output. mean
    and std: per channel, for pixel values in 0..1. dtype: float32, bfloat16, float16, or uint8 (not normalised). Raises
    ValueError for anything else."""
    return {
        "image": [ImageDecoder(image_size, augment, mean, std, dtype, scale, ratio, fill)],
        "label": [NumberDecoder()],
    }


def _check_read(source: beton.Beton, ids: NDArray[np.int64], status: NDArray[np.int32]) -> None:
    failed = (status != 0) & (status != ops.UNDECODED)
    if failed.any():
        bad = int(np.argmax(failed))
        raise UnreadableData(
            f"sample {ids[bad]} of {source.path} {ops.READ_STATUS[status[bad]]}; dualfast.verify checks the file"
        )


def _decode_with_pillow(
    source: beton.Beton, ids: NDArray[np.int64], rows: NDArray[np.intp]
) -> list[NDArray[np.uint8] | None]:
    """The pixels of ids[rows], None for the other ids. ValueError for an image that Pillow cannot decode either."""
    pixels: list[NDArray[np.uint8] | None] = [None] * len(ids)
    with ThreadPoolExecutor(batch_context.threads) as executor:
        for row, image in zip(rows.tolist(), executor.map(source.image, ids[rows].tolist()), strict=True):
            pixels[row] = image
    return pixels


def _lookup_table(mean: NDArray[Any], std: NDArray[Any], dtype: torch.dtype) -> tuple[NDArray[Any], NDArray[Any]]:
    """(3, 256) what each pixel value becomes in each channel, and (3,) what fills the outside of an image: the mean."""
    values = torch.arange(256, dtype=torch.float64).expand(3, 256)
    if dtype == torch.uint8:
        table, fill = values.to(dtype), (torch.tensor(mean, dtype=torch.float64) * 255).round().to(dtype)
    else:
        column = torch.tensor([*mean, *std], dtype=torch.float64).view(2, 3, 1)
        table, fill = ((values / 255 - column[0]) / column[1]).to(dtype), torch.zeros(3, dtype=dtype)
    bits = torch.int16 if OUTPUT_DTYPES[dtype] == np.int16 else dtype
    return np.ascontiguousarray(table.contiguous().view(bits).numpy()), fill.view(bits).numpy()

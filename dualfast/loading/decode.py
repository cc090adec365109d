"""FFCV's operations of the default pipelines: read, crop, mirror and normalise in one compiled pass of our own.

They need no just-in-time compilation. ops.JPEG_LIBRARY decodes JPEGs, Pillow those that it leaves.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast import ops
from dualfast.data import beton
from dualfast.errors import UnreadableData
from dualfast.loading.ffcv_graph import AllocationQuery, IntDecoder, SimpleRGBImageDecoder, ToTensor, ToTorchImage, View

Augment: TypeAlias = Literal["crop", "crop+flip", "rrc"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # px: images up to this side are used at their own size and cropped after padding
PADDING = 1 / 8  # of the side: 4 px at 32
TEST_CROP = 224 / 256
OUTPUT_DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.int16),  # NumPy has no bfloat16, FFCV no float16: both travel as their bits
    torch.float16: np.dtype(np.int16),
    torch.uint8: np.dtype(np.uint8),
}


class Current(threading.local):
    """What a compiled operation needs to know of the batch in the making on this thread."""

    beton: beton.Beton
    seed: int
    epoch: int
    threads: int


current = Current()


class DecodeImages(SimpleRGBImageDecoder):  # type: ignore[misc]
    """Reads, cuts, scales, mirrors and normalises images in one compiled pass: (B, height, width, 3).

    Draws follow (seed, epoch, id). Runs under dualfast.Loader only."""

    runs_uncompiled = True

    def __init__(
        self,
        size: tuple[int, int],
        augment: Augment | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        dtype: torch.dtype = torch.float32,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__()
        self.size = size
        self.dtype = dtype
        self.table, self.fill = _lookup(mean, std, dtype)
        self.crop: dict[str, Any] = {"out_size": size, "flip": augment in ("crop+flip", "rrc")}
        if augment is None:
            self.crop |= {"kind": "center"}
        elif augment == "rrc":
            self.crop |= {"kind": "resized", "scale": scale, "ratio": ratio}
        else:
            self.crop |= {"kind": "pad", "pad": max(1.0, round(PADDING * min(size)))}

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        if not ops.JPEG_LIBRARY and (self.metadata["mode"] == beton.JPEG).any():
            warnings.warn(
                "dualfast was built without libjpeg-turbo: JPEGs are decoded whole, by Pillow, which is slow; install "
                "libjpeg-dev and then dualfast again",
                stacklevel=2,
            )
        shape, dtype = (*self.size, 3), OUTPUT_DTYPES[self.dtype]
        if self.crop["kind"] == "center":  # what is already of the output's size is not cut
            own = (self.metadata["height"] == self.size[0]).all() and (self.metadata["width"] == self.size[1]).all()
            self.crop["fraction"] = 1.0 if own or max(self.size) <= SMALL else TEST_CROP
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        crop, table, fill = dict(self.crop), self.table, self.fill

        def decode(ids: NDArray[np.int64], out: NDArray[Any], metadata: Any, storage_state: Any) -> NDArray[Any]:
            table_of = current.beton
            height, width = table_of.height[ids], table_of.width[ids]
            boxes = ops.crop_boxes(ids, height, width, seed=current.seed, epoch=current.epoch, **crop)
            status = ops.load_images(
                table_of.fd,
                table_of.ptr[ids],
                table_of.size[ids],
                table_of.mode[ids],
                height,
                width,
                boxes,
                out,
                table,
                fill,
                current.threads,
            )
            if status.any():
                _finish(table_of, ids, status, boxes, out, table, fill)
            return out

        return decode


def _finish(
    source: beton.Beton,
    ids: NDArray[np.int64],
    status: NDArray[np.int32],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
) -> None:
    """Decodes with Pillow what load_images left, and raises for what nobody can read."""
    failed = (status != 0) & (status != ops.LEFT)
    if failed.any():
        bad = int(np.argmax(failed))
        raise UnreadableData(
            f"sample {ids[bad]} of {source.path} {ops.READ_STATUS[status[bad]]}; dualfast.verify checks the file"
        )
    pixels: list[NDArray[np.uint8] | None] = [None] * len(ids)
    left = np.flatnonzero(status == ops.LEFT)
    with ThreadPoolExecutor(current.threads) as pool:
        for at, image in zip(left.tolist(), pool.map(source.image, ids[left].tolist()), strict=True):
            pixels[at] = image
    ops.place_images(pixels, boxes, out, table, fill, current.threads)


class DecodeLabels(IntDecoder):  # type: ignore[misc]
    """Integers as (B,) int64, without compilation."""

    runs_uncompiled = True

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        return replace(previous_state, jit_mode=True, shape=(), dtype=self.dtype), AllocationQuery((), self.dtype)

    def generate_code(self) -> Callable[..., Any]:
        def decode(
            ids: NDArray[np.int64], out: NDArray[np.int64], metadata: Any, storage_state: Any
        ) -> NDArray[np.int64]:
            out[:] = metadata[ids]
            return out

        return decode


def _lookup(mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> tuple[NDArray[Any], NDArray[Any]]:
    """What each of 256 pixel values becomes in each channel, (3, 256), and what stands outside the image, the mean."""
    as_numpy = OUTPUT_DTYPES[dtype]
    values = torch.arange(256, dtype=torch.float64).expand(3, 256)
    if dtype == torch.uint8:
        table, fill = values.to(dtype), (torch.tensor(mean, dtype=torch.float64) * 255).round().to(dtype)
    else:
        column = torch.tensor([*mean, *std], dtype=torch.float64).view(2, 3, 1)
        table, fill = ((values / 255 - column[0]) / column[1]).to(dtype), torch.zeros(3, dtype=dtype)
    raw = torch.int16 if as_numpy == np.int16 else dtype
    return np.ascontiguousarray(table.contiguous().view(raw).numpy()), fill.view(raw).numpy()


def height_and_width(image_size: Any) -> tuple[int, int]:
    """Of one side or two, checked."""
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and 1 <= side <= 4096 for side in size):
        raise ValueError(f"image_size is {image_size!r}; give 1 to 4096 px, or (height, width)")
    return int(size[0]), int(size[1])


def image_pipelines(
    image_size: int | tuple[int, int],
    *,
    augment: Augment | Literal[False] = False,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    dtype: torch.dtype = torch.float32,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> dict[str, list[Any]]:
    """FFCV pipelines for the fields image and label: (B, 3, height, width) in channels_last memory, (B,) int64.

    image_size: the output's side, or (height, width), px. augment: False (the middle), "crop" (shifted by up to an
    eighth of the side, the outside filled with the mean), "crop+flip", or "rrc" (random area `scale` and aspect
    `ratio`, and flip). Of a JPEG only what the crop needs is decoded, at 1/2, 1/4 or 1/8 of its size where that still
    has as many pixels as the output. mean and std: of each channel, pixel values lying in 0..1. dtype: float32,
    bfloat16, float16, or uint8 (not normalised). Raises ValueError for anything else."""
    size = height_and_width(image_size)
    if augment not in (False, None, "crop", "crop+flip", "rrc"):
        raise ValueError(f'augment is {augment!r}; give False, "crop", "crop+flip" or "rrc"')
    if dtype not in OUTPUT_DTYPES:
        raise ValueError(f"dtype is {dtype}; give {', '.join(map(str, OUTPUT_DTYPES))}")
    for name, value in (("mean", mean), ("std", std)):
        low = 0.0 if name == "mean" else 1e-6
        if len(value) != 3 or not all(low <= float(v) <= 1 for v in value):
            raise ValueError(
                f"{name} is {tuple(value)}; give three numbers in 0..1 (divide by 255 if they are for 0..255)"
            )
    decoder = DecodeImages(size, augment or None, mean, std, dtype, scale, ratio)
    halves = [View(dtype)] if OUTPUT_DTYPES[dtype] == np.int16 else []
    return {"image": [decoder, ToTensor(), *halves, ToTorchImage()], "label": [DecodeLabels(), ToTensor()]}

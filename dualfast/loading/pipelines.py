"""What turns ids into the tensors of a batch: the default pipelines here, those of FFCV's operations in ffcv_graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data import beton
from dualfast.data.beton.format import FLOAT_TYPE, INT_TYPE
from dualfast.loading.decode import ImageDecoder, NumberDecoder

Ours: TypeAlias = Mapping[str, Sequence[ImageDecoder | NumberDecoder] | None]
"""The pipelines of image_pipelines, by field; None drops a field."""
Fill: TypeAlias = Callable[[NDArray[np.int64], NDArray[Any]], torch.Tensor]
"""Writes the outputs for ids (B,) into an array and returns it as a tensor."""


@dataclass(frozen=True)
class Buffer:
    """What an output needs per sample: the shape and the dtype of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Pipelines(Protocol):
    """The pipelines of a Loader. outputs: the names of the tensors of a batch. requirements: what BatchBuffers
    allocates for them."""

    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def requirements(self) -> Mapping[str, Mapping[int, Any]]: ...

    def compile(self) -> None:
        """Generates the code again, for operations that have changed."""

    def __call__(self, ids: NDArray[np.int64], buffers: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """The outputs for ids (B,), written into buffers: BatchBuffers.views."""


def without_ffcv(pipelines: Mapping[str, Any], data: beton.Beton) -> Ours | None:
    """The pipelines of all fields of a file when they are those of image_pipelines, as they came; None when FFCV has to
    run them. Numbers that are left out come as FFCV's default makes them, (B, 1)."""
    made: dict[str, Sequence[ImageDecoder | NumberDecoder] | None] = {}
    for name, kind in zip(data.field_names, data.field_types, strict=True):
        default = [NumberDecoder((1,))] if kind in (FLOAT_TYPE, INT_TYPE) else []
        pipeline = made[name] = pipelines.get(name, default)
        known = isinstance(pipeline, list | tuple) and len(pipeline) == 1
        if pipeline is not None and not (known and isinstance(pipeline[0], ImageDecoder | NumberDecoder)):
            return None
    return made if pipelines.keys() <= made.keys() else None


class DefaultPipelines:
    """The pipelines of image_pipelines, with nothing added: images and labels without FFCV.

    Raises ValueError for a decoder on a field of another type, and when every field is None."""

    def __init__(self, data: beton.Beton, pipelines: Ours) -> None:
        made = {name: _output(data, name, given[0]) for name, given in pipelines.items() if given is not None}
        if not made:
            raise ValueError("every field's pipeline is None; leave at least one")
        self.outputs = list(made)
        self.requirements = {"operation": {at: buffer for at, (buffer, _) in enumerate(made.values())}, "shared": {}}
        self._fill = [fill for _, fill in made.values()]

    def compile(self) -> None:
        """Does nothing: there is nothing to generate."""

    def __call__(self, ids: NDArray[np.int64], buffers: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        return tuple(fill(ids, buffers[f"memory_{at}"]) for at, fill in enumerate(self._fill))


def _output(data: beton.Beton, name: str, decoder: ImageDecoder | NumberDecoder) -> tuple[Buffer, Fill]:
    """The buffer of a field's output and what fills it."""
    field = data.field_names.index(name)
    if isinstance(decoder, NumberDecoder):
        if data.field_types[field] not in (FLOAT_TYPE, INT_TYPE):
            raise ValueError(f"{data.path}: the field {name} is not a number; its pipeline cannot be that of labels")
        column = data.labels if field == data.label_field else np.ascontiguousarray(data.metadata[f"f{field}"])

        def fill_numbers(ids: NDArray[np.int64], out: NDArray[Any]) -> torch.Tensor:
            out[:] = column[ids].reshape(out.shape)
            return torch.from_numpy(out)

        return Buffer(decoder.shape, column.dtype), fill_numbers
    if field != data.image_field:
        raise ValueError(f"{data.path}: the field {name} is not its first image; its pipeline cannot be that of images")
    decoder.warn_if_slow(data.mode)
    decode = decoder.for_images(data.height, data.width)

    def fill_images(ids: NDArray[np.int64], out: NDArray[Any]) -> torch.Tensor:
        decode(ids, out)
        return torch.from_numpy(out).view(decoder.dtype).permute(0, 3, 1, 2)

    return Buffer(decoder.shape, decoder.array_dtype), fill_images

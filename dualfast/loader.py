"""Batches of a .beton through FFCV's pipelines, each with the samples' ids: the drop-in for ffcv.loader.Loader.

Loader keeps FFCV's arguments, fields and operations and replaces what runs them: tables are checked on opening,
subsets change without compiling, exceptions reach the caller, and a batch stays what it was for as long as it is
kept. The default pipelines read, crop, mirror and normalise in one compiled pass and need no just-in-time
compilation.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast import beton, ops, order
from dualfast.prefetch import Prefetcher


def _import_ffcv() -> None:
    """Imports FFCV without what its import does to the process."""
    import numba
    import numba.typed

    threads, jit_threads, typed_dict = torch.get_num_threads(), numba.get_num_threads(), numba.typed.Dict
    # A two-entry table of constants is a typed Dict there, whose compilation takes five seconds of each start.
    numba.typed.Dict = dict
    try:
        import ffcv.loader  # noqa: F401
    except ImportError as error:
        raise ImportError(f"dualfast.Loader needs ffcv ({error}); pip install 'dualfast[ffcv]'") from error
    finally:
        numba.typed.Dict = typed_dict
        torch.set_num_threads(threads)
        numba.set_num_threads(jit_threads)


_import_ffcv()

from ffcv import loader as ffcv_loader  # noqa: E402
from ffcv.fields.basics import IntDecoder  # noqa: E402
from ffcv.fields.rgb_image import SimpleRGBImageDecoder  # noqa: E402
from ffcv.memory_managers import OSCacheManager  # noqa: E402
from ffcv.pipeline import Compiler, PipelineSpec  # noqa: E402
from ffcv.pipeline.allocation_query import AllocationQuery  # noqa: E402
from ffcv.pipeline.graph import DecoderNode, Graph  # noqa: E402
from ffcv.reader import Reader  # noqa: E402
from ffcv.transforms import ToTensor, ToTorchImage, View  # noqa: E402
from ffcv.types import get_handlers  # noqa: E402

Augment: TypeAlias = Literal["crop", "crop+flip", "rrc"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALL = 64  # px: images up to this side are used at their own size and cropped after padding
PADDING = 1 / 8  # of the side: 4 px at 32
TEST_CROP = 224 / 256
IGNORED_LABEL = -100
OUTPUT_DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.int16),  # NumPy has no bfloat16, FFCV no float16: both travel as their bits
    torch.float16: np.dtype(np.int16),
    torch.uint8: np.dtype(np.uint8),
}


class _Batch(threading.local):
    """What a compiled operation needs to know of the batch in the making on this thread."""

    beton: beton.Beton
    file: Any
    seed: int
    epoch: int
    threads: int


_batch = _Batch()


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
        shape, dtype = (*self.size, 3), OUTPUT_DTYPES[self.dtype]
        if self.crop["kind"] == "center":  # what is already of the output's size is not cut
            own = (self.metadata["height"] == self.size[0]).all() and (self.metadata["width"] == self.size[1]).all()
            self.crop["fraction"] = 1.0 if own or max(self.size) <= SMALL else TEST_CROP
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        crop, table, fill = dict(self.crop), self.table, self.fill

        def decode(ids: NDArray[np.int64], out: NDArray[Any], metadata: Any, storage_state: Any) -> NDArray[Any]:
            table_of = _batch.beton
            height, width = table_of.height[ids], table_of.width[ids]
            boxes = ops.crop_boxes(ids, height, width, seed=_batch.seed, epoch=_batch.epoch, **crop)
            status = ops.load_images(
                _batch.file.fileno(),
                table_of.ptr[ids],
                table_of.size[ids],
                table_of.mode[ids],
                height,
                width,
                boxes,
                out,
                table,
                fill,
                _batch.threads,
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
    """Decodes what load_images left, and raises for what it could not read."""
    failed = (status != 0) & (status != ops.STORED_AS_JPEG)
    if failed.any():
        bad = int(np.argmax(failed))
        raise RuntimeError(
            f"sample {ids[bad]} of {source.path} {ops.READ_STATUS[status[bad]]}; dualfast.verify checks the file"
        )
    pixels: list[NDArray[np.uint8] | None] = [None] * len(ids)
    left = np.flatnonzero(status == ops.STORED_AS_JPEG)
    with ThreadPoolExecutor(_batch.threads) as pool:
        for at, image in zip(left.tolist(), pool.map(source.image, ids[left].tolist()), strict=True):
            pixels[at] = image
    ops.place_images(pixels, boxes, out, table, fill, _batch.threads)


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
    `ratio`, and flip). mean and std: of each channel, pixel values lying in 0..1. dtype: float32, bfloat16, float16,
    or uint8 (not normalised). Raises ValueError for anything else."""
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and 1 <= side <= 4096 for side in size):
        raise ValueError(f"image_size is {image_size!r}; give 1 to 4096 px, or (height, width)")
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
    decoder = DecodeImages((size[0], size[1]), augment or None, mean, std, dtype, scale, ratio)
    halves = [View(dtype)] if OUTPUT_DTYPES[dtype] == np.int16 else []
    return {"image": [decoder, ToTensor(), *halves, ToTorchImage()], "label": [DecodeLabels(), ToTensor()]}


class _Graph(Graph):  # type: ignore[misc]
    """FFCV's graph, which leaves the operations that say so uncompiled."""

    def codegen_stage(self, stage: Any, s_ix: int, op_to_node: Any, code: Any, already_defined: Any) -> Any:
        function, defined = super().codegen_stage(stage, s_ix, op_to_node, code, already_defined)
        for node_id in stage:
            node = self.id_to_node[node_id]
            operation = node.decoder if isinstance(node, DecoderNode) else getattr(node, "operation", None)
            if getattr(operation, "runs_uncompiled", False):
                function.__globals__[f"code_{node_id}"] = code["operation"][node_id]
        return function, defined

    @property
    def reads_mapped(self) -> bool:
        """Whether any decoder is FFCV's own kind, compiled over a memory map."""
        decoders = [node.decoder for node in self.nodes if isinstance(node, DecoderNode)]
        return not all(getattr(decoder, "runs_uncompiled", False) for decoder in decoders)


class _Reader(Reader):  # type: ignore[misc]
    """FFCV's reader over tables that are already read and checked."""

    def __init__(self, opened: beton.Beton, custom_fields: Mapping[str, Any]) -> None:
        self._fname = str(opened.path)
        self._custom_handlers = custom_fields
        self.num_samples = opened.n_samples
        self.page_size = opened.page_size
        self.num_fields = len(opened.field_names)
        self.field_names = opened.field_names
        self.field_descriptors = opened.descriptors
        self.handlers = dict(zip(opened.field_names, get_handlers(opened.descriptors), strict=True))
        for name, row in zip(opened.field_names, opened.descriptors, strict=True):
            if name in custom_fields:
                self.handlers[name] = custom_fields[name].from_binary(row["arguments"])
        self.metadata = opened.metadata
        self.metadata_type = opened.metadata.dtype
        self.alloc_table = opened.allocations


class _Memory(OSCacheManager):  # type: ignore[misc]
    """FFCV's memory map, without its dictionary of every sample's pages."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.ptrs = np.ascontiguousarray(reader.alloc_table["ptr"])
        self.sizes = np.ascontiguousarray(reader.alloc_table["size"])

    @cached_property
    def state(self) -> tuple[NDArray[Any], ...]:
        return np.memmap(self.reader.file_name, "uint8", mode="r"), self.ptrs, self.sizes


class _Slot:
    """One batch's buffers. They are taken again only once no tensor made from them is left."""

    def __init__(self, requirements: Mapping[str, Mapping[int, Any]], batch_size: int) -> None:
        self.owned: list[NDArray[Any]] = []
        self.arguments: dict[str, Any] = {}
        for kind, prefix in (("operation", "memory"), ("shared", "shared_memory")):
            for node, query in requirements[kind].items():
                self.arguments[f"{prefix}_{node}"] = self._allocate(query, batch_size)
        self.unused = [sys.getrefcount(array) for array in self.owned]

    def _allocate(self, query: Any, batch_size: int) -> Any:
        if query is None:
            return None
        if isinstance(query, Sequence):
            return tuple(self._allocate(q, batch_size) for q in query)
        shape = (batch_size, *(int(side) for side in query.shape))
        if isinstance(query.dtype, torch.dtype):
            return torch.empty(shape, dtype=query.dtype, device=query.device)
        array = np.empty(shape, query.dtype)
        self.owned.append(array)
        return array

    @property
    def free(self) -> bool:
        return [sys.getrefcount(array) for array in self.owned] == self.unused

    def cut(self, count: int) -> dict[str, Any]:
        def cut(buffer: Any) -> Any:
            if isinstance(buffer, tuple):
                return tuple(map(cut, buffer))
            return None if buffer is None else buffer[:count]

        return {name: cut(buffer) for name, buffer in self.arguments.items()}


class _Slots:
    """The buffers of a loader: as many as there are batches alive, shared by its iterations; few are kept unused."""

    def __init__(self, requirements: Mapping[str, Mapping[int, Any]], batch_size: int, spare: int) -> None:
        self.requirements = requirements
        self.batch_size = batch_size
        self.spare = spare
        self.filled: list[_Slot] = []
        self.lock = threading.Lock()

    def take(self) -> _Slot:
        with self.lock:
            free = [slot for slot in self.filled if slot.free]
            if free:
                dropped = free[: -self.spare - 1] + free[-1:]  # the latest is the one still in the caches
                self.filled = [slot for slot in self.filled if slot not in dropped]
                return free[-1]
        return _Slot(self.requirements, self.batch_size)

    def give(self, slot: _Slot) -> None:
        with self.lock:
            self.filled.append(slot)


@dataclass(frozen=True)
class _Runner:
    """Makes batches; knows nothing of the Loader, so that an iteration never keeps one alive."""

    beton: beton.Beton
    file: Any
    code: tuple[Any, list[int]]
    slots: _Slots
    memory: _Memory | None
    threads: int
    seed: int
    label_output: int | None

    def batch(self, ids: NDArray[np.int64], epoch: int, padding: int) -> tuple[torch.Tensor, ...]:
        _batch.beton, _batch.file, _batch.seed, _batch.epoch = self.beton, self.file, self.seed, epoch
        _batch.threads = self.threads
        slot = self.slots.take()
        stages, outputs = self.code
        state = self.memory.state if self.memory is not None else None
        arguments = {
            "batch_indices": ids,
            "metadata": self.beton.metadata,
            "storage_state": state,
            **slot.cut(len(ids)),
        }
        for stage, defined in stages:
            for node, result in zip(defined, stage(**arguments), strict=True):
                arguments[f"result_{node}"] = result
        results = tuple(arguments[f"result_{node}"] for node in outputs)
        del arguments, result
        self.slots.give(slot)
        if padding and self.label_output is not None:
            results[self.label_output][-padding:] = IGNORED_LABEL
        return (*results, torch.from_numpy(ids.copy()))


@dataclass
class _Position:
    """How far the latest iteration has come."""

    epoch: int = 0
    batch: int = 0
    ended: bool = False


class Loader(ffcv_loader.Loader):  # type: ignore[misc]
    """Iterates (images, labels, index) over a .beton; index (B,) int64 holds the samples' ids, rows of the file.

    Takes the arguments of ffcv.loader.Loader with the same meaning, save that order defaults to "random", drop_last
    to False, and seed to 0. With pipelines left out, images come as (B, 3, height, width), normalised, channels_last,
    and labels as (B,) int64; image_size, augment, mean, std and dtype are image_pipelines' (image_size None: the
    images' own size where it is the same for all and at most 64 px, else 224; augment True: "crop+flip" up to 64 px,
    else "rrc"). With pipelines given, each output is what FFCV makes it.

    Every draw follows (seed, epoch, id): the same batches for any num_workers. distributed=True splits an epoch over
    the ranks of torch.distributed so that every sample comes once; where a rank would run out of batches its last
    ones are padded with one sample each, labelled -100. Batches may be kept: their memory is taken again only when
    they are gone.

    Raises ValueError or TypeError at once for arguments that cannot be, and for a damaged file; exceptions of
    operations come out of the iteration with their traceback."""

    def __init__(
        self,
        fname: str | os.PathLike[str],
        batch_size: int,
        *,
        indices: Any = None,
        num_workers: int = -1,
        os_cache: bool = True,
        order: Any = "random",
        distributed: bool = False,
        seed: int | None = 0,
        drop_last: bool = False,
        batches_ahead: int = 3,
        pipelines: Mapping[str, Any] | None = None,
        custom_fields: Mapping[str, Any] | None = None,
        recompile: bool = False,
        image_size: int | tuple[int, int] | None = None,
        augment: Augment | bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("batches_ahead", batches_ahead, 1)):
            _require_int(name, value)
            if value < least:
                raise ValueError(f"{name} is {value}; give at least {least}")
        _require_int("num_workers", num_workers)
        if seed is None:
            seed = int.from_bytes(os.urandom(4), "little")
        _require_int("seed", seed)
        self._closed = True
        self._order = _order_name(order)
        self.fname = os.fspath(fname)
        self.batch_size = int(batch_size)
        self.batches_ahead = int(batches_ahead)
        self.num_workers = int(num_workers) if num_workers >= 1 else len(os.sched_getaffinity(0))
        self.os_cache = bool(os_cache)
        self.seed = int(seed)
        self.drop_last = bool(drop_last)
        self.distributed = bool(distributed)
        self.recompile = bool(recompile)
        self._rank, self._world_size = _rank_and_world_size() if distributed else (0, 1)

        custom = dict(custom_fields or {})
        self.beton = beton.Beton(self.fname, {name: kind.from_binary for name, kind in custom.items()})
        if not self.beton.n_samples:
            raise ValueError(f"{self.fname} holds no sample")
        self._file = open(self.fname, "rb", buffering=0)  # noqa: SIM115  closed with the loader
        self.reader = _Reader(self.beton, custom)
        self.image_size: tuple[int, int] | None = None
        if pipelines is None:
            pipelines = self._default_pipelines(image_size, augment, mean, std, dtype)
        elif image_size is not None or augment or mean is not None or std is not None:
            raise ValueError(
                "image_size, augment, mean and std shape the default pipelines; leave out pipelines to use them"
            )
        self._build(pipelines)
        self._indices = _orders.as_indices(indices, self.beton.n_samples)
        self._check_batches()
        self._position = _Position()
        self._next_epoch = 0
        self._next_batch = 0
        self._open: weakref.WeakSet[Prefetcher[Any]] = weakref.WeakSet()
        self._closed = False

    def _default_pipelines(
        self,
        image_size: int | tuple[int, int] | None,
        augment: Augment | bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        dtype: torch.dtype,
    ) -> dict[str, Any]:
        source = self.beton
        if source.image_field is None or source.label_field is None:
            raise ValueError(
                f"{self.fname} has the fields {', '.join(source.field_names)}; the default pipelines need an image and "
                "an integer field; pass pipelines"
            )
        own = source.constant_size
        if image_size is None:
            image_size = own if own is not None and max(own) <= SMALL else 224
        side = image_size if isinstance(image_size, int) else max(image_size)
        if augment is True:
            augment = "crop+flip" if side <= SMALL else "rrc"
        made = image_pipelines(
            image_size, augment=augment, mean=mean or IMAGENET_MEAN, std=std or IMAGENET_STD, dtype=dtype
        )
        self.image_size = made["image"][0].size
        others: dict[str, Any] = dict.fromkeys(source.field_names)
        return others | {
            source.field_names[source.image_field]: made["image"],
            source.field_names[source.label_field]: made["label"],
        }

    def _build(self, pipelines: Mapping[str, Any]) -> None:
        """FFCV's graph of the pipelines: fields in the file's order first, then outputs made from other pipelines."""
        fields = self.beton.field_names
        specs: dict[str, Any] = {}
        for name in [*fields, *(name for name in pipelines if name not in fields)]:
            wanted = pipelines.get(name, PipelineSpec(name))
            if wanted is None:
                continue
            if isinstance(wanted, Sequence) and not isinstance(wanted, str):
                wanted = PipelineSpec(name, decoder=None, transforms=list(wanted))
            elif not isinstance(wanted, PipelineSpec):
                raise TypeError(f"the pipeline of {name!r} is {wanted!r}; give a sequence of operations, or None")
            specs[name] = wanted
        if not specs:
            raise ValueError("every field's pipeline is None; leave at least one")
        self.pipeline_specs = specs
        self.field_name_to_f_ix = {name: at for at, name in enumerate(fields)}
        memory = _Memory(self.reader)
        self.memory_manager = memory
        with _compiling(self.num_workers):
            self.graph = _Graph(specs, self.reader.handlers, self.field_name_to_f_ix, self.beton.metadata, None)
            self._memory = memory if self.graph.reads_mapped else None
            if self._memory is not None:
                self.graph.memory_read = memory.compile_reader()
            self.generate_code()
            requirements, _ = self.graph.collect_requirements()
        self._slots = _Slots(requirements, self.batch_size, self.batches_ahead)
        label = self.beton.label_field
        names = list(specs)
        self._label_output = names.index(fields[label]) if label is not None and fields[label] in names else None

    def _check_batches(self) -> None:
        if not len(self):
            raise ValueError(
                f"drop_last leaves no batch: {len(self._indices)} samples, batch_size {self.batch_size}, "
                f"{self._world_size} processes; lower batch_size or pass drop_last=False"
            )

    # ---- what is visited ---------------------------------------------------------------------------------------------

    @property
    def indices(self) -> NDArray[np.int64]:
        """The selected samples' ids, as given."""
        return self._indices

    @indices.setter
    def indices(self, indices: Any) -> None:
        self.set_indices(indices)

    @property
    def n_samples(self) -> int:
        """Samples in the file, selected or not."""
        return self.beton.n_samples

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n_samples,) labels of all samples, read-only."""
        return self.beton.labels

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Class names from the side file, or None."""
        return self.beton.class_names

    @property
    def fingerprint(self) -> str:
        """Of the data set: see beton.Beton.fingerprint."""
        return self.beton.fingerprint

    def set_indices(self, indices: Any) -> None:
        """Selects the samples of the next iterations, in any form of order.as_indices; None selects all. Nothing is
        compiled again. Raises ValueError or TypeError, leaving the selection as it was."""
        before = self._indices
        self._indices = _orders.as_indices(indices, self.beton.n_samples)
        try:
            self._check_batches()
        except ValueError:
            self._indices = before
            raise
        self._next_batch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch `epoch` (from 0) from its start; left alone, epochs count up by themselves."""
        _require_int("epoch", epoch)
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; epochs count from 0")
        self._next_epoch, self._next_batch = int(epoch), 0
        self._position = _Position(self._next_epoch)

    @property
    def next_epoch(self) -> int:
        """The epoch that the next iteration will be."""
        return self._next_epoch

    def next_traversal_order(self) -> NDArray[np.int64]:
        """The next epoch's ids in order, over all processes."""
        return _epoch_order(self._order, self._indices, self.seed, self._next_epoch)

    def __len__(self) -> int:
        """Batches an epoch, the same on every process."""
        return _orders.n_batches(len(self._indices), self.batch_size, self._world_size, self.drop_last)

    # ---- iterating ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Prefetcher[tuple[torch.Tensor, ...]]:
        if self._closed:
            raise ValueError(f"the loader of {self.fname} is closed; make a new one")
        if self.recompile:
            with _compiling(self.num_workers):
                self.generate_code()
        runner = _Runner(
            self.beton,
            self._file,
            self.code,
            self._slots,
            self._memory,
            self.num_workers,
            self.seed,
            self._label_output,
        )
        epoch, first = self._next_epoch, self._next_batch
        self._position = _Position(epoch, first)
        self._next_epoch, self._next_batch = epoch + 1, 0
        plan = _Plan(self._order, self._indices, self.batch_size, self._rank, self._world_size, self.drop_last)
        made = _Epoch(runner, plan, epoch, first, len(self), self.batches_ahead, self._position)
        self._open.add(made)
        return made

    def close(self) -> None:
        """Ends running iterations and closes the file. Batches handed out stay valid."""
        if not self._closed:
            self._closed = True
            for iteration in list(self._open):
                iteration.close()
            self._file.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- resuming ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, int]:
        """Where the latest iteration stands, counting the batches handed out. Plain integers."""
        position = self._position
        epoch, batch = (position.epoch + 1, 0) if position.ended else (position.epoch, position.batch)
        return {
            "epoch": epoch,
            "batch": batch,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": self._world_size,
            "n_selected": len(self._indices),
            "selected_crc": crc32(self._indices.tobytes()),
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next iteration continues where `state` was taken, batch for batch. ValueError when the loader differs in
        seed, batch size, number of processes or selection."""
        mine = self.state_dict()
        missing = sorted(mine.keys() - state.keys())
        if missing:
            raise ValueError(f"the loader's state lacks {', '.join(missing)}")
        for name in mine:
            if name not in ("epoch", "batch") and state[name] != mine[name]:
                raise ValueError(f"the state was saved with {name} {state[name]}; this loader has {mine[name]}")
        self._next_epoch, self._next_batch = int(state["epoch"]), int(state["batch"])
        self._position = _Position(self._next_epoch, self._next_batch)

    def filter(self, field_name: str, condition: Callable[[Any], bool]) -> Loader:
        raise NotImplementedError(
            "pass indices=np.flatnonzero(condition over loader.labels) to a new Loader, or set_indices"
        )


class _Plan:
    """The batches of one rank's epoch, worked out on the loading thread."""

    def __init__(
        self, kind: str, ids: NDArray[np.int64], batch_size: int, rank: int, world_size: int, drop_last: bool
    ) -> None:
        self.kind, self.ids, self.batch_size = kind, ids, batch_size
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last

    def share(self, seed: int, epoch: int) -> order.Share:
        ids = _epoch_order(self.kind, self.ids, seed, epoch)
        return _orders.share(ids, self.batch_size, rank=self.rank, world_size=self.world_size, drop_last=self.drop_last)


class _Epoch(Prefetcher[tuple[torch.Tensor, ...]]):
    """One iteration over a Loader."""

    def __init__(
        self, runner: _Runner, plan: _Plan, epoch: int, first: int, last: int, ahead: int, position: _Position
    ) -> None:
        share: list[order.Share] = []

        def produce(step: int) -> tuple[torch.Tensor, ...]:
            if not share:
                share.append(plan.share(runner.seed, epoch))
            ids, starts = share[0].ids, share[0].starts
            padding = int(step >= last - share[0].padding)
            return runner.batch(ids[starts[step] : starts[step + 1]], epoch, padding)

        self.position = position
        super().__init__(produce, first, last, ahead, f"dualfast-epoch-{epoch}")

    def __next__(self) -> tuple[torch.Tensor, ...]:
        try:
            result = super().__next__()
        except StopIteration:
            self.position.ended = self.step == self.last
            raise
        self.position.batch = self.step
        return result


_orders = order  # the module, in scopes where `order` is FFCV's argument


def _epoch_order(kind: str, ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    return ids if kind == "sequential" else order.random_order(ids, seed, epoch)


def _order_name(asked: Any) -> str:
    name = getattr(asked, "name", asked)  # FFCV's OrderOption, or its name
    if isinstance(name, str) and name.lower() in ("random", "sequential"):
        return name.lower()
    raise ValueError(f'order is {asked!r}; give "random", "sequential" or their OrderOption')


def _require_int(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; give an integer")


def _rank_and_world_size() -> tuple[int, int]:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("distributed=True needs torch.distributed.init_process_group to have been called")
    return dist.get_rank(), dist.get_world_size()


_compile_lock = threading.Lock()


class _compiling:
    """FFCV keeps the number of threads it compiles for in a class attribute; its own setter would change torch's
    too."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __enter__(self) -> None:
        _compile_lock.acquire()
        self.before = Compiler.num_threads
        Compiler.num_threads = self.threads

    def __exit__(self, *exception: object) -> None:
        Compiler.num_threads = self.before
        _compile_lock.release()

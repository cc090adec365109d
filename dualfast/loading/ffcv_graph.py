"""Everything that touches FFCV: its classes, imported without side effects, and ours that derive from them.

No other module of the package imports ffcv, and this one is imported only for pipelines of FFCV's operations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data import beton
from dualfast.errors import MissingPackage
from dualfast.loading.decode import ImageDecoder, NumberDecoder
from dualfast.ops import GuardedMap


def _import_ffcv() -> None:
    """Imports FFCV without what its import does to the process."""
    try:
        import numba
        import numba.typed
    except ImportError as error:
        raise _missing(error) from error
    threads, jit_threads, typed_dict = torch.get_num_threads(), numba.get_num_threads(), numba.typed.Dict
    # FFCV puts a two-entry table of constants into a typed Dict, whose compilation takes five seconds of each start.
    numba.typed.Dict = dict
    try:
        import ffcv.loader  # noqa: F401
    except ImportError as error:
        raise _missing(error) from error
    finally:
        numba.typed.Dict = typed_dict
        torch.set_num_threads(threads)
        numba.set_num_threads(jit_threads)


def _missing(error: ImportError) -> MissingPackage:
    return MissingPackage(
        f"these pipelines need ffcv ({error}); pip install 'dualfast[ffcv]', or leave out pipelines to use the default "
        "ones"
    )


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

__all__ = ["AllocationQuery", "FFCVPipelines", "as_ffcv_loader", "compile_threads"]

# ---- pipelines as FFCV runs them ------------------------------------------------------------------------------------

_compile_lock = threading.Lock()


@contextmanager
def compile_threads(threads: int) -> Iterator[None]:
    """FFCV compiles for `threads` threads inside. It keeps the number in a class attribute, whose setter would change
    torch's threads too."""
    with _compile_lock:
        before, Compiler.num_threads = Compiler.num_threads, threads
        try:
            yield
        finally:
            Compiler.num_threads = before


def _specs(pipelines: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """FFCV's specification of each output: the file's fields in their order, then outputs made from other pipelines.
    A field that pipelines leaves out gets FFCV's default, one that is None is dropped."""
    specs: dict[str, Any] = {}
    for name in [*fields, *(name for name in pipelines if name not in fields)]:
        pipeline = pipelines.get(name, PipelineSpec(name))
        if pipeline is None:
            continue
        if name not in fields and not isinstance(pipeline, PipelineSpec):
            raise ValueError(
                f"pipelines has {name!r}, and the file the fields {', '.join(fields)}; a further output is a "
                "PipelineSpec whose source is one of them"
            )
        if isinstance(pipeline, Sequence) and not isinstance(pipeline, str):
            operations = [operation for given in pipeline for operation in _operations(given)]
            pipeline = PipelineSpec(name, decoder=None, transforms=operations)
        elif not isinstance(pipeline, PipelineSpec):
            raise TypeError(f"the pipeline of {name!r} is {pipeline!r}; give a sequence of operations, or None")
        specs[name] = pipeline
    if not specs:
        raise ValueError("every field's pipeline is None; leave at least one")
    return specs


def _operations(given: Any) -> list[Any]:
    """FFCV's operations for one of a pipeline: several for a decoder of image_pipelines."""
    if isinstance(given, ImageDecoder):
        from_bits = [View(given.dtype)] if given.array_dtype == np.int16 else []
        return [DecodeImages(given), ToTensor(), *from_bits, ToTorchImage()]
    return [DecodeLabels(), ToTensor()] if isinstance(given, NumberDecoder) else [given]


class CheckedGraph(Graph):  # type: ignore[misc]
    """FFCV's graph, without compiling the operations that are compiled already."""

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
        """Whether any decoder is one of FFCV's own, which read a memory map."""
        decoders = [node.decoder for node in self.nodes if isinstance(node, DecoderNode)]
        return not all(getattr(decoder, "runs_uncompiled", False) for decoder in decoders)


class FFCVPipelines:
    """Pipelines of FFCV's operations, compiled by FFCV; see pipelines.Pipelines."""

    def __init__(
        self, opened: beton.Beton, pipelines: Mapping[str, Any], custom_fields: Mapping[str, Any], threads: int
    ) -> None:
        self.reader = CheckedReader(opened, custom_fields)
        self.memory_manager = MappedMemory(self.reader, opened.fd)
        self.specs = _specs(pipelines, opened.field_names)
        self.outputs = list(self.specs)
        self._threads = threads
        fields = {name: at for at, name in enumerate(opened.field_names)}
        with compile_threads(threads):
            self.graph = CheckedGraph(self.specs, self.reader.handlers, fields, opened.metadata, None)
            if self.graph.reads_mapped:
                self.graph.memory_read = self.memory_manager.compile_reader()
            self.requirements, _ = self.graph.collect_requirements()
        self.compile()

    def compile(self) -> None:
        """Generates the code: one function per stage with the nodes it computes, and the nodes of the outputs."""
        with compile_threads(self._threads):
            self._stages, self._output_nodes = self.graph.codegen_all(self.graph.collect_requirements()[1])

    def __call__(self, ids: NDArray[np.int64], buffers: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        arguments = {
            "batch_indices": ids,
            "metadata": self.reader.metadata,
            "storage_state": self.memory_manager.state if self.graph.reads_mapped else None,
            **buffers,
        }
        for stage, nodes in self._stages:
            for node, result in zip(nodes, stage(**arguments), strict=True):
                arguments[f"result_{node}"] = result
        if self.graph.reads_mapped:
            self.memory_manager.guard.check()
        return tuple(arguments[f"result_{node}"] for node in self._output_nodes)


class FFCVAttributes(ffcv_loader.Loader):  # type: ignore[misc]
    """What programs written for FFCV look up in its Loader."""

    reader = property(lambda self: self._pipelines.reader)
    memory_manager = property(lambda self: self._pipelines.memory_manager)
    graph = property(lambda self: self._pipelines.graph)
    pipeline_specs = property(lambda self: self._pipelines.specs)


def as_ffcv_loader(loader: type[Any]) -> type[Any]:
    """`loader` as a subclass of ffcv.loader.Loader too."""
    if issubclass(loader, ffcv_loader.Loader):
        return loader
    return type(loader.__name__, (loader, FFCVAttributes), {"__module__": loader.__module__})


# ---- the file as FFCV reads it --------------------------------------------------------------------------------------


class CheckedReader(Reader):  # type: ignore[misc]
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
        self.opened = opened


class MappedMemory(OSCacheManager):  # type: ignore[misc]
    """FFCV's memory map, without its dictionary of every sample's pages. guard: raises for a file that was cut short
    between the check before a batch and its reading."""

    def __init__(self, reader: CheckedReader, fd: int) -> None:
        self.reader = reader
        self.fd = fd

    @cached_property
    def state(self) -> tuple[NDArray[Any], ...]:
        with open(self.fd, "rb", closefd=False) as file:  # its name may lead to another file by now
            mapped = np.memmap(file, "uint8", mode="r")
        self.guard = GuardedMap(mapped, self.reader.opened.path)
        table = self.reader.opened.allocations
        if (table["ptr"][1:] == table["ptr"][:-1]).any():  # FFCV finds a sample by its address alone
            raise ValueError(
                f"{self.reader.opened.path} has an empty field where another sample begins, which FFCV's decoders "
                "cannot tell apart; leave out pipelines to use the default ones"
            )
        return mapped, np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])


# ---- the default pipelines as FFCV's operations ---------------------------------------------------------------------


class DecodeImages(SimpleRGBImageDecoder):  # type: ignore[misc]
    """ImageDecoder as FFCV's operation; runs under dualfast.Loader only."""

    runs_uncompiled = True

    def __init__(self, decoder: ImageDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def declare_state_and_memory(self, previous_state: Any) -> tuple[Any, Any]:
        self.decoder.warn_if_slow(self.metadata["mode"])
        shape, dtype = self.decoder.shape, self.decoder.array_dtype
        return replace(previous_state, jit_mode=True, shape=shape, dtype=dtype), AllocationQuery(shape, dtype)

    def generate_code(self) -> Callable[..., Any]:
        decode_into = self.decoder.for_images(self.metadata["height"], self.metadata["width"])

        def decode(ids: NDArray[np.int64], out: NDArray[Any], metadata: Any, storage_state: Any) -> NDArray[Any]:
            decode_into(ids, out)
            return out

        return decode


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

"""From ids to batches: FFCV's graph of operations, run with its exceptions raised and its memory safe to keep."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data import beton
from dualfast.loading import order, reading
from dualfast.loading.decode import current
from dualfast.loading.ffcv_graph import (
    AllocationQuery,
    Compiler,
    DecoderNode,
    Graph,
    OSCacheManager,
    Reader,
    get_handlers,
)
from dualfast.loading.prefetch import Prefetcher

IGNORED_LABEL = -100


class CheckedGraph(Graph):  # type: ignore[misc]
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
    """FFCV's memory map, without its dictionary of every sample's pages."""

    def __init__(self, reader: CheckedReader, fd: int) -> None:
        self.reader = reader
        self.fd = fd

    @cached_property
    def state(self) -> tuple[NDArray[Any], ...]:
        with open(self.fd, "rb", closefd=False) as file:  # by its name another file might be found
            mapped = np.memmap(file, "uint8", mode="r")
        table = self.reader.opened.allocations
        if (table["ptr"][1:] == table["ptr"][:-1]).any():  # FFCV looks a sample up by its place alone
            raise ValueError(
                f"{self.reader.opened.path} has an empty field where another sample begins, which FFCV's decoders "
                "cannot tell apart; leave out pipelines to use the default ones"
            )
        return mapped, np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])


class Slot:
    """One batch's buffers. They are taken again only once no tensor made from them is left; those that are tensors
    themselves, as ToDevice's are, are made anew each time, since what hangs on a tensor cannot be counted."""

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
        if isinstance(query.dtype, torch.dtype):
            return query
        array = np.empty((batch_size, *(int(side) for side in query.shape)), query.dtype)
        self.owned.append(array)
        return array

    @property
    def free(self) -> bool:
        return [sys.getrefcount(array) for array in self.owned] == self.unused

    def cut(self, count: int) -> dict[str, Any]:
        def cut(buffer: Any) -> Any:
            if isinstance(buffer, tuple):
                return tuple(map(cut, buffer))
            if isinstance(buffer, AllocationQuery):
                return torch.empty((count, *map(int, buffer.shape)), dtype=buffer.dtype, device=buffer.device)
            return None if buffer is None else buffer[:count]

        return {name: cut(buffer) for name, buffer in self.arguments.items()}


class Slots:
    """The buffers of a loader: as many as there are batches alive, shared by its iterations; few are kept unused."""

    def __init__(self, requirements: Mapping[str, Mapping[int, Any]], batch_size: int, spare: int) -> None:
        self.requirements = requirements
        self.batch_size = batch_size
        self.spare = spare
        self.filled: list[Slot] = []
        self.lock = threading.Lock()
        self.pid = os.getpid()

    def here(self) -> Slots:
        """These; after a fork new ones, since the lock may have been held by a thread that the child has not got."""
        return self if self.pid == os.getpid() else Slots(self.requirements, self.batch_size, self.spare)

    def take(self) -> Slot:
        with self.lock:
            free = [slot for slot in self.filled if slot.free]
            if free:
                dropped = free[: -self.spare - 1] + free[-1:]  # the latest is the one still in the caches
                self.filled = [slot for slot in self.filled if slot not in dropped]
                return free[-1]
        return Slot(self.requirements, self.batch_size)

    def give(self, slot: Slot) -> None:
        with self.lock:
            self.filled.append(slot)


@dataclass(frozen=True)
class Runner:
    """Makes batches; knows nothing of the Loader, so that an iteration never keeps one alive."""

    beton: beton.Beton
    code: tuple[Any, list[int]]
    slots: Slots
    memory: MappedMemory | None
    threads: int
    seed: int
    label_output: int | None

    def batch(self, ids: NDArray[np.int64], epoch: int, padding: int) -> tuple[torch.Tensor, ...]:
        current.beton, current.seed, current.epoch = self.beton, self.seed, epoch
        self.beton.check_unchanged()
        current.threads = self.threads
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
class Position:
    """How far the latest iteration has come."""

    epoch: int = 0
    batch: int = 0
    ended: bool = False
    legs: tuple[order.Leg, ...] = ()
    """What other numbers of ranks visited of the epoch before batch 0."""


@dataclass(frozen=True)
class EpochPlan:
    """The batches of one rank's epoch, worked out on the loading thread."""

    beton: beton.Beton
    kind: order.Kind
    ids: NDArray[np.int64]
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool
    keep_cached: bool
    left: NDArray[np.bool_] | None
    """Which places of the epoch's order are shared; None: all."""

    def share(self, seed: int, epoch: int) -> tuple[order.Share, reading.ReadAhead | None]:
        ids, starts = order.epoch_order(self.kind, self.ids, seed, epoch, self.beton)
        if self.left is not None:
            ids, starts = ids[self.left], np.concatenate([[0], np.cumsum(self.left)])[starts]
        mine = order.share(ids, self.batch_size, rank=self.rank, world_size=self.world_size, drop_last=self.drop_last)
        os.posix_fadvise(self.beton.fd, 0, 0, os.POSIX_FADV_RANDOM)  # what is wanted is asked for; no guesses on top
        if self.kind == "random":
            return mine, None
        windows = -(-(starts - self.rank) // self.world_size)  # in places of this rank's own ids
        windows = np.unique(np.append(np.clip(windows, 0, len(mine.ids)), len(mine.ids)))  # padding: a last one
        return mine, reading.ReadAhead(self.beton, mine.ids, windows, drop=not self.keep_cached)


class Epoch(Prefetcher[tuple[torch.Tensor, ...]]):
    """One iteration over a Loader."""

    def __init__(
        self, runner: Runner, plan: EpochPlan, epoch: int, first: int, last: int, ahead: int, position: Position
    ) -> None:
        share: list[tuple[order.Share, reading.ReadAhead | None]] = []

        def produce(step: int) -> tuple[torch.Tensor, ...]:
            if not share:
                share.append(plan.share(runner.seed, epoch))
            mine, ahead_of = share[0]
            ids, starts = mine.ids, mine.starts
            padding = int(step >= last - mine.padding)
            if ahead_of is not None:
                ahead_of.before(int(starts[step]), int(starts[step + 1]))
            made = runner.batch(ids[starts[step] : starts[step + 1]], epoch, padding)
            if ahead_of is not None and step + 1 == last:
                ahead_of.end()
            return made

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


_compile_lock = threading.Lock()


class compiling:
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

"""The memory of batches: reused once nothing refers to a batch any more, never while something does."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Requirements: TypeAlias = Mapping[str, Mapping[int, Any]]
"""What each node of FFCV's graph allocates, under "operation" and "shared": None, a query with shape and dtype, or a
tuple of them."""


class BatchBuffers:
    """The buffers of one batch. Arrays are reused once no tensor made from them is left; queries for tensors, as
    ToDevice makes them, get new memory for every batch, since references to a tensor's memory cannot be counted."""

    def __init__(self, requirements: Requirements, batch_size: int) -> None:
        self._arrays: list[NDArray[Any]] = []
        self._buffers: dict[str, Any] = {}
        for kind, prefix in (("operation", "memory"), ("shared", "shared_memory")):
            for node, query in requirements[kind].items():
                self._buffers[f"{prefix}_{node}"] = self._allocate(query, batch_size)
        self._references_when_free = self._references()

    def _allocate(self, query: Any, batch_size: int) -> Any:
        if query is None:
            return None
        if isinstance(query, Sequence):
            return tuple(self._allocate(q, batch_size) for q in query)
        if isinstance(query.dtype, torch.dtype):
            return query
        array = np.empty((batch_size, *(int(side) for side in query.shape)), query.dtype)
        self._arrays.append(array)
        return array

    def _references(self) -> list[int]:
        return [sys.getrefcount(array) for array in self._arrays]

    @property
    def free(self) -> bool:
        """Whether no tensor made from the arrays is left."""
        return self._references() == self._references_when_free

    def views(self, count: int) -> dict[str, Any]:
        """The first `count` rows of each buffer, by the name of the argument that FFCV's code takes it as."""
        return {name: _view(buffer, count) for name, buffer in self._buffers.items()}


def _view(buffer: Any, count: int) -> Any:
    if buffer is None:
        return None
    if isinstance(buffer, tuple):
        return tuple(_view(one, count) for one in buffer)
    if isinstance(buffer, np.ndarray):
        return buffer[:count]
    return torch.empty((count, *map(int, buffer.shape)), dtype=buffer.dtype, device=buffer.device)


class BufferPool:
    """A Loader's buffers, shared by its iterations: as many as batches are alive, and at most `spare` unused ones."""

    def __init__(self, requirements: Requirements, batch_size: int, spare: int) -> None:
        self._requirements = requirements
        self._batch_size = batch_size
        self._spare = spare
        self._released: list[BatchBuffers] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def after_fork(self) -> BufferPool:
        """This pool, or an empty one in a forked child: a thread that the child lacks may have held the lock."""
        return self if self._pid == os.getpid() else BufferPool(self._requirements, self._batch_size, self._spare)

    def acquire(self) -> BatchBuffers:
        """Buffers that no batch uses; new ones where there are none."""
        with self._lock:
            free = [buffers for buffers in self._released if buffers.free]
            if free:
                taken = free[: -self._spare - 1] + free[-1:]  # the latest, still in the caches; the surplus is dropped
                self._released = [buffers for buffers in self._released if buffers not in taken]
                return free[-1]
        return BatchBuffers(self._requirements, self._batch_size)

    def release(self, buffers: BatchBuffers) -> None:
        """Gives buffers back; acquire() hands them out again once the batch made from them is gone."""
        with self._lock:
            self._released.append(buffers)

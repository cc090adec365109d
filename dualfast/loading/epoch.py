"""One iteration over a Loader: the plan of a rank's epoch, and the batches made from it on the loading thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data import beton
from dualfast.loading import order
from dualfast.loading.buffers import BufferPool
from dualfast.loading.cursor import Cursor
from dualfast.loading.decode import batch_context
from dualfast.loading.prefetch import Prefetcher
from dualfast.loading.readahead import ReadAhead

IGNORED_LABEL = -100


@dataclass(frozen=True)
class EpochPlan:
    """Which ids one rank visits in an epoch, and what it reads ahead."""

    beton: beton.Beton
    kind: order.OrderKind
    ids: NDArray[np.int64]
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool
    keep_cached: bool
    unvisited: NDArray[np.bool_] | None
    """Which positions of the epoch's order are still to be visited; None: all."""

    def share(self, seed: int, epoch: int) -> tuple[order.Share, ReadAhead | None]:
        """This rank's batches, and what reads their windows ahead: None in random order, which has no windows."""
        ids, starts = order.epoch_order(self.kind, self.ids, seed, epoch, self.beton)
        if self.unvisited is not None:
            ids, starts = ids[self.unvisited], np.concatenate([[0], np.cumsum(self.unvisited)])[starts]
        share = order.share(ids, self.batch_size, rank=self.rank, world_size=self.world_size, drop_last=self.drop_last)
        os.posix_fadvise(self.beton.fd, 0, 0, os.POSIX_FADV_RANDOM)  # the windows are requested; no read-ahead on top
        if self.kind == "random":
            return share, None
        windows = -(-(starts - self.rank) // self.world_size)  # as positions in this rank's ids
        windows = np.unique(np.append(np.clip(windows, 0, len(share.ids)), len(share.ids)))  # padding: the last window
        return share, ReadAhead(self.beton, share.ids, windows, drop=not self.keep_cached)


@dataclass(frozen=True)
class BatchMaker:
    """Makes batches from ids. Holds no Loader: the loading thread must not keep one alive."""

    beton: beton.Beton
    pipelines: Callable[[NDArray[np.int64], dict[str, Any]], tuple[torch.Tensor, ...]]
    """From ids and BatchBuffers.views to one tensor per output."""
    pool: BufferPool
    threads: int
    seed: int
    label_output: int | None
    """Which output holds the labels."""
    check_pages: Callable[[NDArray[np.int64]], None] | None
    """Called before samples are read."""

    def batch(self, ids: NDArray[np.int64], epoch: int, padding: int) -> tuple[torch.Tensor, ...]:
        """The outputs of the pipelines and the ids; the last `padding` samples get IGNORED_LABEL."""
        batch_context.beton, batch_context.seed, batch_context.epoch = self.beton, self.seed, epoch
        batch_context.threads = self.threads
        self.beton.check_unchanged()
        if self.check_pages is not None:
            self.check_pages(ids)
        buffers = self.pool.acquire()
        outputs = self.pipelines(ids, buffers.views(len(ids)))
        self.pool.release(buffers)
        if padding and self.label_output is not None:
            outputs[self.label_output][-padding:] = IGNORED_LABEL
        return (*outputs, torch.from_numpy(ids.copy()))


class Epoch(Prefetcher[tuple[torch.Tensor, ...]]):
    """One iteration over a Loader, from `cursor` to before batch `last`.

    on_move(before, after) is called as the cursor moves."""

    def __init__(
        self,
        maker: BatchMaker,
        plan: EpochPlan,
        cursor: Cursor,
        last: int,
        ahead: int,
        on_move: Callable[[Cursor, Cursor], None],
    ) -> None:
        planned: list[tuple[order.Share, ReadAhead | None]] = []

        def produce(step: int) -> tuple[torch.Tensor, ...]:
            if not planned:  # on the loading thread: the caller waits for the first batch only, and gets the errors
                planned.append(plan.share(maker.seed, cursor.epoch))
            share, readahead = planned[0]
            first, end = share.starts[step : step + 2].tolist()
            if readahead is not None:
                readahead.advance_to(first, end)
            batch = maker.batch(share.ids[first:end], cursor.epoch, padding=int(step >= last - share.padding))
            if readahead is not None and step + 1 == last:
                readahead.finish()
            return batch

        self._cursor = cursor
        self._on_move = on_move
        super().__init__(produce, cursor.batch, last, ahead, f"dualfast-epoch-{cursor.epoch}")

    def __next__(self) -> tuple[torch.Tensor, ...]:
        try:
            batch = super().__next__()
        except StopIteration:
            if self.step == self.last:
                self._move(self._cursor.finish())
            raise
        self._move(self._cursor.advance())
        return batch

    def _move(self, after: Cursor) -> None:
        before, self._cursor = self._cursor, after
        self._on_move(before, after)

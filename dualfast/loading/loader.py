"""Batches of a .beton, each with its samples' ids: the drop-in for ffcv.loader.Loader.

Loader keeps FFCV's arguments, fields and operations and replaces what runs them: tables are checked on opening,
subsets change without compiling, exceptions reach the caller, and a batch keeps its contents for as long as it is
referenced. The default pipelines read, crop, mirror and normalise in one compiled pass, without just-in-time
compilation.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.arguments import as_path, checked_bool, checked_choice, checked_int
from dualfast.config import MAX_THREADS, Augment, Fill
from dualfast.data import beton
from dualfast.data.beton.verify import PageCheck, check_pages
from dualfast.data.index_list import selected_ids
from dualfast.errors import UnsupportedCall
from dualfast.loading import read_plan
from dualfast.loading.buffers import BufferPool
from dualfast.loading.cursor import Cursor
from dualfast.loading.decode import IMAGENET_MEAN, IMAGENET_STD, default_augment, default_image_size
from dualfast.loading.decode import image_pipelines as image_pipelines
from dualfast.loading.epoch import BatchMaker, Epoch, EpochPlan
from dualfast.loading.order import epoch_order, n_batches, order_kind, unvisited
from dualfast.loading.pipelines import DefaultPipelines, Pipelines, without_ffcv

OF_FFCV = {
    "reader": "its beton is the open file",
    "memory_manager": "its beton reads the file",
    "graph": "pipelines of FFCV's operations have one",
    "generate_code": "FFCV's operations are compiled when they are first used, and again with recompile=True",
}
"""Attributes of the Loader of 0.1, which was FFCV's, and what there is instead."""


class Loader:
    """Iterates (images, labels, index) over a .beton; index (B,) int64 holds the samples' ids, rows of the file.

    Takes the arguments of ffcv.loader.Loader with the same meaning, except that order defaults to "random", drop_last
    to False, and seed to 0. With pipelines left out, images come as (B, 3, height, width), normalised, channels_last,
    and labels as (B,) int64; image_size, augment, mean, std, dtype and fill go to image_pipelines (image_size None: the
    images' own size where it is the same for all and at most 64 px, else 224; augment True: "crop+flip" up to 64 px,
    else "rrc"). With pipelines of FFCV's operations, which needs dualfast[ffcv], each output is what FFCV makes it, and
    the loader is an ffcv.loader.Loader too.

    verify compares the file's pages with its checksums, which dualfast.write makes: "open" all of them here, "read" the
    pages of a batch's images when they are first read, and again after the file was written to. The tables are always
    compared. A page is read whole for it, so "read" is for sets of which most is kept, or that fit into memory.

    image_column and label_column choose among the image and integer fields of a file that has several.

    order "page_random" or PageRandom(budget_bytes) is for files larger than memory: see order.PageRandom. With
    os_cache=False, pages read in that order or in "sequential" are dropped from the page cache after their visit,
    so that the default pipelines hold no more of the file than the budget; plan() tells beforehand what an epoch reads.

    Every draw is a function of (seed, epoch, id): the same batches for any num_workers. distributed=True splits an
    epoch over the ranks of torch.distributed so that every sample comes once; a rank that would run out of batches
    gets padding batches of one sample each, labelled -100. Batches may be kept: their memory is reused only when
    nothing refers to them.

    Raises ValueError or TypeError at once for invalid arguments and for a damaged file; exceptions of operations
    come out of the iteration with their traceback."""

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
        fill: Fill = "mean",
        image_column: str | None = None,
        label_column: str | None = None,
        verify: Literal["open", "read"] | None = None,
    ) -> None:
        self._closed = True  # until the file is open
        self.batch_size = checked_int("batch_size", batch_size, 1)
        self.batches_ahead = checked_int("batches_ahead", batches_ahead, 1)
        workers = checked_int("num_workers", num_workers, -MAX_THREADS, MAX_THREADS)
        self.num_workers = workers if workers >= 1 else len(os.sched_getaffinity(0))
        self._seed = checked_int("seed", int.from_bytes(os.urandom(4), "little") if seed is None else seed)
        self._order = order_kind(order)
        self.fname = str(as_path("fname", fname))
        self.os_cache = checked_bool("os_cache", os_cache)
        self.drop_last = checked_bool("drop_last", drop_last)
        self.distributed = checked_bool("distributed", distributed)
        self.recompile = checked_bool("recompile", recompile)
        self._rank, self._world_size = _rank_and_world_size() if self.distributed else (0, 1)

        if not isinstance(custom_fields, Mapping | None):
            raise TypeError(f"custom_fields is {custom_fields!r:.80}; give a dict from names to FFCV's field classes")
        custom = dict(custom_fields or {})
        if odd := [name for name, kind in custom.items() if not hasattr(kind, "from_binary")]:
            raise TypeError(f"custom_fields[{odd[0]!r}] is {custom[odd[0]]!r:.80}; give a class of FFCV's fields")
        kinds = {name: kind.from_binary for name, kind in custom.items()}
        self.beton = beton.Beton(self.fname, kinds, image_column, label_column)
        if not self.beton.n_samples:
            raise ValueError(f"{self.fname} holds no samples; write it again from data that have some")
        self._check_pages = self._page_check(verify)
        self.image_size: tuple[int, int] | None = None
        if pipelines is None:
            pipelines = self._default_pipelines(image_size, augment, mean, std, dtype, fill)
        elif not isinstance(pipelines, Mapping):
            raise TypeError(f"pipelines is {pipelines!r}; give a dict from fields to lists of operations")
        elif image_size is not None or augment or mean is not None or std is not None or fill != "mean":
            raise ValueError(
                "image_size, augment, mean, std and fill shape the default pipelines; leave out pipelines to use them"
            )
        self._pipelines = self._prepare(pipelines, custom)
        self._pool = BufferPool(
            self._pipelines.requirements, min(self.batch_size, self.beton.n_samples), self.batches_ahead
        )
        self._indices = selected_ids(indices, self.beton)
        self._check_batches()
        self._cursor = Cursor()
        self._iterations: weakref.WeakSet[Epoch] = weakref.WeakSet()
        self._closed = False

    def _page_check(self, when: str | None) -> PageCheck | None:
        if when is not None:
            checked_choice("verify", when, ("open", "read"))
        check = None if when is None else PageCheck(self.beton, self.num_workers)
        if when == "open":
            check_pages(self.beton)
        return check if when == "read" else None

    def _default_pipelines(
        self,
        image_size: int | tuple[int, int] | None,
        augment: Augment | bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        dtype: torch.dtype,
        fill: Fill,
    ) -> dict[str, Any]:
        source = self.beton
        if source.image_field is None or source.label_field is None:
            raise ValueError(
                f"{self.fname} has the fields {source.fields_text}; the default pipelines need an image and an integer "
                "field; pass pipelines"
            )
        source.check_columns()
        size = default_image_size(source) if image_size is None else image_size
        made = image_pipelines(
            size,
            augment=default_augment(size) if augment is True else augment,
            mean=IMAGENET_MEAN if mean is None else mean,
            std=IMAGENET_STD if std is None else std,
            dtype=dtype,
            fill=fill,
        )
        self.image_size = made["image"][0].size
        others: dict[str, Any] = dict.fromkeys(source.field_names)
        return others | {
            source.field_names[source.image_field]: made["image"],
            source.field_names[source.label_field]: made["label"],
        }

    def _prepare(self, pipelines: Mapping[str, Any], custom_fields: Mapping[str, Any]) -> Pipelines:
        """The pipelines ready to run; those of FFCV's operations are compiled."""
        ours = without_ffcv(pipelines, self.beton)
        if ours is not None:
            return DefaultPipelines(self.beton, ours)
        from dualfast.loading import ffcv_graph

        made = ffcv_graph.FFCVPipelines(self.beton, pipelines, custom_fields, self.num_workers)
        self.__class__ = ffcv_graph.as_ffcv_loader(type(self))  # for programs that ask isinstance
        return made

    @property
    def _label_output(self) -> int | None:
        """Which output holds the labels."""
        field, outputs = self.beton.label_field, self._pipelines.outputs
        name = None if field is None else self.beton.field_names[field]
        return outputs.index(name) if name in outputs else None

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
        """Class names stored beside the file, or None."""
        return self.beton.class_names

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the data set, as beton.Beton.fingerprint."""
        return self.beton.fingerprint

    def set_indices(self, indices: Any) -> None:
        """Selects the samples of the next iterations, as for index_list.as_indices; None selects all. Nothing is
        recompiled; the next iteration begins its epoch at batch 0. Raises ValueError or TypeError and leaves the
        selection unchanged."""
        before = self._indices
        self._indices = selected_ids(indices, self.beton)
        try:
            self._check_batches()
        except ValueError:
            self._indices = before
            raise
        self._cursor = self._cursor.restart()  # batches of the old selection do not count in the new one

    def set_seed(self, seed: int) -> None:
        """Draws the next iterations' orders and augmentation from `seed`. The next iteration begins its epoch at
        batch 0."""
        self._seed = checked_int("seed", seed)
        self._cursor = self._cursor.restart()

    seed = property(lambda self: self._seed, set_seed, doc="Seed of orders and augmentation.")

    def set_epoch(self, epoch: int) -> None:
        """The next iteration visits epoch `epoch` (from 0) from its start; without a call, epochs count up."""
        epoch = checked_int("epoch", epoch)
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; epochs count from 0")
        self._cursor = Cursor(epoch)

    @property
    def next_epoch(self) -> int:
        """The epoch that the next iteration visits."""
        return self._cursor.next_start().epoch

    def next_traversal_order(self) -> NDArray[np.int64]:
        """The next epoch's ids in order, over all processes."""
        return epoch_order(self._order, self._indices, self.seed, self.next_epoch, self.beton)[0]

    def plan(self) -> read_plan.ReadPlan:
        """What an epoch over the selection reads in this order, before it begins; print it, or use its fields."""
        return read_plan.plan(self.beton, self._indices, self._order, self.seed)

    def __len__(self) -> int:
        """Batches per epoch, the same on every process."""
        return self._n_batches(len(self._indices))

    def _n_batches(self, n: int) -> int:
        return n_batches(n, self.batch_size, self._world_size, self.drop_last)

    def _unvisited(self) -> NDArray[np.bool_] | None:
        """Which positions of the next epoch's order earlier processes left unvisited; None: all."""
        segments = self._cursor.next_start().segments
        return unvisited(len(self._indices), segments, self.drop_last) if segments else None

    @property
    def remaining(self) -> int:
        """Batches of the next iteration: len(self), or fewer where load_state_dict() continues inside an epoch."""
        left = self._unvisited()
        return (len(self) if left is None else self._n_batches(int(left.sum()))) - self._cursor.next_start().batch

    # ---- iterating ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Epoch:
        if self._closed:
            raise ValueError(f"the loader of {self.fname} is closed; make a new one")
        if self.recompile:
            self._pipelines.compile()
        self._pool = self._pool.after_fork()
        maker = BatchMaker(
            self.beton,
            self._pipelines,
            self._pool,
            self.num_workers,
            self.seed,
            self._label_output,
            self._check_pages,
        )
        plan = EpochPlan(
            self.beton,
            self._order,
            self._indices,
            self.batch_size,
            self._rank,
            self._world_size,
            self.drop_last,
            self.os_cache,
            self._unvisited(),
        )
        last = self._cursor.next_start().batch + self.remaining
        self._cursor = self._cursor.begin()
        iteration = Epoch(maker, plan, self._cursor, last, self.batches_ahead, self._move_cursor)
        self._iterations.add(iteration)
        return iteration

    def _move_cursor(self, before: Cursor, after: Cursor) -> None:
        """Follows the latest iteration. One that a newer iteration or a setter has superseded has another `before`."""
        if self._cursor is before:
            self._cursor = after

    def close(self) -> None:
        """Ends running iterations and closes the file. Batches already handed out stay valid."""
        if not self._closed:
            self._closed = True
            for iteration in list(self._iterations):
                iteration.close()
            self.beton.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- resuming ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration is, counting the batches handed out. Plain integers, and lists of them."""
        return {
            **self._cursor.state(),
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": self._world_size,
            "n_selected": len(self._indices),
            "selected_crc": crc32(self._indices.tobytes()),
            "order_crc": crc32(repr(self._order).encode()),
            "drop_last": int(self.drop_last),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration continues where `state` was taken, batch for batch. Another number of processes, which
        may have another batch size, shares what is left of the epoch. ValueError when the loader differs in seed,
        selection, or, on as many processes, in batch size."""
        if not isinstance(state, Mapping):
            raise TypeError(f"state is a {type(state).__name__}; give what state_dict() returned")
        own = self.state_dict()
        missing = sorted(own.keys() - state.keys() - {"order_crc", "drop_last"})  # which version 0.1 did not note
        if missing:
            raise ValueError(f"the loader's state lacks {', '.join(missing)}; give what state_dict() returned")
        may_differ = set(self._cursor.state())
        if state["world_size"] != self._world_size:
            may_differ |= {"world_size", "batch_size"}
        for name in own:
            if name in state.keys() - may_differ and state[name] != own[name]:
                what = f"{name} {state[name]}; this loader has {own[name]}"
                what = "another order" if name == "order_crc" else what
                raise ValueError(f"the state was saved with {what}; give it the same")
        self._cursor = Cursor.from_state(state, self._world_size)

    def __getattr__(self, name: str) -> Any:
        if name in OF_FFCV:
            raise AttributeError(f"a Loader has no {name}, which was FFCV's; {OF_FFCV[name]}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def filter(self, field_name: str, condition: Callable[[Any], bool]) -> Loader:
        raise UnsupportedCall(
            "pass indices=np.flatnonzero(condition over loader.labels) to a new Loader, or set_indices"
        )


def _rank_and_world_size() -> tuple[int, int]:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("distributed=True needs a process group; call torch.distributed.init_process_group first")
    return dist.get_rank(), dist.get_world_size()

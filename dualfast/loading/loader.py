"""Batches of a .beton through FFCV's pipelines, each with the samples' ids: the drop-in for ffcv.loader.Loader.

Loader keeps FFCV's arguments, fields and operations and replaces what runs them: tables are checked on opening,
subsets change without compiling, exceptions reach the caller, and a batch stays what it was for as long as it is
kept. The default pipelines read, crop, mirror and normalise in one compiled pass and need no just-in-time
compilation.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.data import beton
from dualfast.data.index_list import selected_ids
from dualfast.errors import UnsupportedCall
from dualfast.loading import order, reading
from dualfast.loading.decode import IMAGENET_MEAN, IMAGENET_STD, SMALL, Augment, height_and_width, image_pipelines
from dualfast.loading.epoch import (
    CheckedGraph,
    CheckedReader,
    Epoch,
    EpochPlan,
    MappedMemory,
    Position,
    Runner,
    Slots,
    compiling,
)
from dualfast.loading.ffcv_graph import PipelineSpec, ffcv_loader
from dualfast.loading.prefetch import Prefetcher

__all__ = ["Loader", "ffcv_loader", "image_pipelines"]


class Loader(ffcv_loader.Loader):  # type: ignore[misc]
    """Iterates (images, labels, index) over a .beton; index (B,) int64 holds the samples' ids, rows of the file.

    Takes the arguments of ffcv.loader.Loader with the same meaning, save that order defaults to "random", drop_last
    to False, and seed to 0. With pipelines left out, images come as (B, 3, height, width), normalised, channels_last,
    and labels as (B,) int64; image_size, augment, mean, std and dtype are image_pipelines' (image_size None: the
    images' own size where it is the same for all and at most 64 px, else 224; augment True: "crop+flip" up to 64 px,
    else "rrc"). With pipelines given, each output is what FFCV makes it.

    order "page_random" or PageRandom(budget_bytes) is for files larger than memory: see order.PageRandom. With
    os_cache=False what it, or "sequential", has read is dropped from the kernel's cache once it is visited, so that the
    default pipelines hold no more than the budget of the file; plan() tells beforehand what an epoch reads.

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
        self._order = _order_kind(order)
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
        self.reader = CheckedReader(self.beton, custom)
        self.image_size: tuple[int, int] | None = None
        if pipelines is None:
            pipelines = self._default_pipelines(image_size, augment, mean, std, dtype)
        elif image_size is not None or augment or mean is not None or std is not None:
            raise ValueError(
                "image_size, augment, mean and std shape the default pipelines; leave out pipelines to use them"
            )
        self._build(pipelines)
        self._indices = selected_ids(indices, self.beton)
        self._check_batches()
        self._position = Position()
        self._next_epoch = 0
        self._next_batch = 0
        self._next_legs: tuple[_orders.Leg, ...] = ()
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
        if augment is True:
            augment = "crop+flip" if max(height_and_width(image_size)) <= SMALL else "rrc"
        mean = IMAGENET_MEAN if mean is None else mean
        std = IMAGENET_STD if std is None else std
        made = image_pipelines(image_size, augment=augment, mean=mean, std=std, dtype=dtype)
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
        memory = MappedMemory(self.reader, self.beton.fd)
        self.memory_manager = memory
        with compiling(self.num_workers):
            self.graph = CheckedGraph(specs, self.reader.handlers, self.field_name_to_f_ix, self.beton.metadata, None)
            self._memory = memory if self.graph.reads_mapped else None
            if self._memory is not None:
                self.graph.memory_read = memory.compile_reader()
            self.generate_code()
            requirements, _ = self.graph.collect_requirements()
        self._slots = Slots(requirements, self.batch_size, self.batches_ahead)
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
        """Selects the samples of the next iterations, as for index_list.as_indices; None selects all. Nothing is
        compiled again. Raises ValueError or TypeError, leaving the selection as it was."""
        before = self._indices
        self._indices = selected_ids(indices, self.beton)
        try:
            self._check_batches()
        except ValueError:
            self._indices = before
            raise
        self._next_batch, self._next_legs = 0, ()
        self._position = Position(self._next_epoch)  # batches of the old selection count for nothing in the new one

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is epoch `epoch` (from 0) from its start; left alone, epochs count up by themselves."""
        _require_int("epoch", epoch)
        if epoch < 0:
            raise ValueError(f"epoch is {epoch}; epochs count from 0")
        self._next_epoch, self._next_batch, self._next_legs = int(epoch), 0, ()
        self._position = Position(self._next_epoch)

    @property
    def next_epoch(self) -> int:
        """The epoch that the next iteration will be."""
        return self._next_epoch

    def next_traversal_order(self) -> NDArray[np.int64]:
        """The next epoch's ids in order, over all processes."""
        return _orders.epoch_order(self._order, self._indices, self.seed, self._next_epoch, self.beton)[0]

    def plan(self) -> reading.ReadPlan:
        """What an epoch over the selection reads in this order, before it begins; str() of it is meant to be read."""
        return reading.plan(self.beton, self._indices, self._order, self.seed)

    def __len__(self) -> int:
        """Batches an epoch, the same on every process."""
        return self._batches(len(self._indices))

    def _batches(self, n: int) -> int:
        return _orders.n_batches(n, self.batch_size, self._world_size, self.drop_last)

    def _left(self) -> NDArray[np.bool_] | None:
        """Which places of the next epoch's order are left by the ranks that began it; None: all."""
        if not self._next_legs:
            return None
        return _orders.left_over(len(self._indices), self._next_legs, self.drop_last)

    @property
    def remaining(self) -> int:
        """Batches of the next iteration: len(self), or fewer where load_state_dict() goes on inside an epoch."""
        left = self._left()
        return (len(self) if left is None else self._batches(int(left.sum()))) - self._next_batch

    # ---- iterating ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Prefetcher[tuple[torch.Tensor, ...]]:
        if self._closed:
            raise ValueError(f"the loader of {self.fname} is closed; make a new one")
        if self.recompile:
            with compiling(self.num_workers):
                self.generate_code()
        self._slots = self._slots.here()
        runner = Runner(
            self.beton,
            self.code,
            self._slots,
            self._memory,
            self.num_workers,
            self.seed,
            self._label_output,
        )
        epoch, first, left = self._next_epoch, self._next_batch, self._left()
        last = first + self.remaining
        self._position = Position(epoch, first, legs=self._next_legs)
        self._next_epoch, self._next_batch, self._next_legs = epoch + 1, 0, ()
        plan = EpochPlan(
            self.beton,
            self._order,
            self._indices,
            self.batch_size,
            self._rank,
            self._world_size,
            self.drop_last,
            self.os_cache,
            left,
        )
        made = Epoch(runner, plan, epoch, first, last, self.batches_ahead, self._position)
        self._open.add(made)
        return made

    def close(self) -> None:
        """Ends running iterations and closes the file. Batches handed out stay valid."""
        if not self._closed:
            self._closed = True
            for iteration in list(self._open):
                iteration.close()
            self.beton.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- resuming ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands, counting the batches handed out. Plain integers, and lists of them."""
        position = self._position
        epoch, batch = (position.epoch + 1, 0) if position.ended else (position.epoch, position.batch)
        return {
            "epoch": epoch,
            "batch": batch,
            "legs": [] if position.ended else [list(leg) for leg in position.legs],
            "seed": self.seed,
            "batch_size": self.batch_size,
            "world_size": self._world_size,
            "n_selected": len(self._indices),
            "selected_crc": crc32(self._indices.tobytes()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The next iteration continues where `state` was taken, batch for batch. On another number of processes, which
        may have another batch size, they share what is left of the epoch. ValueError when the loader differs in seed,
        selection, or in batch size on as many processes."""
        mine = self.state_dict()
        moved = state.get("world_size", self._world_size) != self._world_size
        free = {"epoch", "batch", "legs"} | ({"world_size", "batch_size"} if moved else set())
        missing = sorted(mine.keys() - state.keys())
        if missing:
            raise ValueError(f"the loader's state lacks {', '.join(missing)}")
        for name in mine:
            if name not in free and state[name] != mine[name]:
                raise ValueError(f"the state was saved with {name} {state[name]}; this loader has {mine[name]}")
        self._next_epoch, self._next_batch = int(state["epoch"]), int(state["batch"])
        self._next_legs = tuple((int(b), int(w), int(k)) for b, w, k in state["legs"])
        if moved and self._next_batch:
            self._next_legs += ((int(state["batch_size"]), int(state["world_size"]), self._next_batch),)
            self._next_batch = 0
        self._position = Position(self._next_epoch, self._next_batch, legs=self._next_legs)

    def filter(self, field_name: str, condition: Callable[[Any], bool]) -> Loader:
        raise UnsupportedCall(
            "pass indices=np.flatnonzero(condition over loader.labels) to a new Loader, or set_indices"
        )


_orders = order  # the module, in scopes where `order` is FFCV's argument


def _order_kind(asked: Any) -> order.Kind:
    if isinstance(asked, order.PageRandom):
        return asked
    kinds: dict[str, order.Kind] = {"random": "random", "sequential": "sequential"}
    kinds |= dict.fromkeys(("page_random", "quasi_random"), order.PageRandom())
    name = getattr(asked, "name", asked)  # FFCV's OrderOption, or its name
    if isinstance(name, str) and name.lower() in kinds:
        return kinds[name.lower()]
    raise ValueError(
        f'order is {asked!r}; give "random", "sequential", "page_random", PageRandom(budget_bytes) or an OrderOption'
    )


def _require_int(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is {value!r}; give an integer")


def _rank_and_world_size() -> tuple[int, int]:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("distributed=True needs torch.distributed.init_process_group to have been called")
    return dist.get_rank(), dist.get_world_size()

"""In which order samples are visited: pure functions of (seed, epoch), the same for any number of workers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast import ops


def as_indices(indices: Any, n_samples: int) -> NDArray[np.int64]:
    """Sample ids from any form a selection comes in: None (all), a boolean mask of n_samples, integers (array,
    tensor, range, list), or the path of an .npy holding either. The order given is kept.

    Raises TypeError for floats and other kinds, ValueError when the mask has another length, when there is more than
    one dimension, nothing is selected, an id lies outside 0..n_samples-1, or one occurs twice."""
    if indices is None:
        return np.arange(n_samples, dtype=np.int64)
    if isinstance(indices, str | os.PathLike):
        path = Path(indices)
        if not path.is_file():
            raise ValueError(f"indices is {str(path)!r}, which is no file; give the .npy that was saved")
        indices = np.load(path, allow_pickle=False)
    if isinstance(indices, range):
        array = np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    else:
        array = np.asarray(indices)
    if array.ndim != 1:
        raise ValueError(f"indices have the shape {array.shape}; they must be 1-D")
    if array.dtype == np.bool_:
        if len(array) != n_samples:
            raise ValueError(f"the boolean mask has {len(array)} entries; the data set has {n_samples} samples")
        array = np.flatnonzero(array)
    elif not len(array):
        raise ValueError("indices are empty; select at least one sample")
    elif not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"indices are {array.dtype}; give integers or a boolean mask")
    if not len(array):
        raise ValueError("the boolean mask selects nothing; select at least one sample")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_samples:
        bad = low if low < 0 else high
        at = int(np.argmax(array == bad))
        raise ValueError(f"indices[{at}] is {bad}; the data set has samples 0 to {n_samples - 1}")
    array = array.astype(np.int64)
    if not (array[1:] > array[:-1]).all():
        seen = np.zeros(n_samples, np.bool_)
        seen[array] = True
        if np.count_nonzero(seen) != len(array):
            ids, counts = np.unique(array, return_counts=True)
            twice = int(ids[np.argmax(counts > 1)])
            hint = "; a mask must be boolean" if len(array) == n_samples and high <= 1 else ""
            raise ValueError(f"indices hold sample {twice} more than once; each sample once{hint}")
    return array


def random_order(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """ids shuffled. Each id's place follows a 64-bit Philox key of (seed, epoch, id), so a subset keeps the relative
    order it has in the full shuffle; equal keys fall back on the id."""
    ids = np.sort(ids)
    return ids[np.argsort(ops.order_keys(ids, seed, epoch), kind="stable")]


@dataclass(frozen=True)
class Share:
    """What one rank visits in an epoch: batch k is ids[starts[k] : starts[k + 1]]. The last `padding` ids repeat
    samples that another rank visits, one a batch, only so that every rank takes as many steps; they are not to be
    scored."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    padding: int

    def __len__(self) -> int:
        return len(self.starts) - 1


def n_batches(n: int, batch_size: int, world_size: int, drop_last: bool) -> int:
    """Steps of every rank in an epoch over n samples."""
    a_step = batch_size * world_size
    return n // a_step if drop_last else -(-n // a_step)


def share(
    order: NDArray[np.int64], batch_size: int, *, rank: int = 0, world_size: int = 1, drop_last: bool = False
) -> Share:
    """The part of `order` that `rank` of `world_size` visits, in batches of at most batch_size.

    Over all ranks every sample comes exactly once, and every rank takes ceil(n / (batch_size * world_size)) steps, the
    tail being spread so that no batch is empty; a rank that has fewer samples than steps pads (Share.padding). With
    drop_last every batch is full and the tail of order is left out."""
    steps = n_batches(len(order), batch_size, world_size, drop_last)
    if drop_last:
        order = order[: steps * batch_size * world_size]
    mine = order[rank::world_size]
    padding = max(0, steps - len(mine))
    if padding:
        mine = np.concatenate([mine, np.resize(order, padding)])
    # As full as can be while each later batch still gets one.
    ends = np.minimum(np.arange(1, steps + 1) * batch_size, len(mine) - np.arange(steps - 1, -1, -1))
    return Share(mine, np.concatenate([[0], ends]).astype(np.int64), padding)

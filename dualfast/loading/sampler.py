"""Samplers over kept samples for any DataLoader: shuffled by (seed, epoch), shared by ranks, resumable mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from dualfast.arguments import checked_bool, checked_int
from dualfast.config import checked_seed
from dualfast.data.index_list import as_indices
from dualfast.loading.order import random_order
from dualfast.selection.select import kept_count


class PrunedSampler(Sampler[int]):
    """Visits the samples of an index list once per epoch.

    indices: integer ids (array, tensor, range, list), a boolean mask, or the path of an .npy with either. The order of
    epoch e is a pure function of (seed, e) and of the set of ids; shuffle=False visits them as given. Rank `rank` of
    `num_replicas` visits every num_replicas-th position of that order: over all ranks each sample comes exactly once,
    and the ranks' lengths differ by at most one.

    Call set_epoch(e) before each epoch. A state_dict taken inside an epoch resumes, after load_state_dict, at the very
    next sample. Raises TypeError and ValueError as as_indices does, and for a seed, epoch or rank out of range.
    """

    def __init__(
        self,
        indices: Any,
        seed: int = 0,
        epoch: int = 0,
        *,
        shuffle: bool = True,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        self.ids = as_indices(indices)
        self.seed, self.epoch = checked_seed(seed), checked_int("epoch", epoch, 0, 2**32 - 1)
        self.num_replicas = checked_int("num_replicas", num_replicas, 1, 2**31 - 1)
        self.rank = checked_int("rank", rank, 0, self.num_replicas - 1)
        self.shuffle = checked_bool("shuffle", shuffle)
        self._position = self._start = 0

    def _order(self) -> NDArray[np.int64]:
        return random_order(self.ids, self.seed, self.epoch) if self.shuffle else self.ids

    def _count(self) -> int:
        return len(self.ids)

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        return len(range(self.rank, self._count(), self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        self._position = start
        return self._visit(self._order()[self.rank :: self.num_replicas][start:])

    def _visit(self, ids: NDArray[np.int64]) -> Iterator[int]:
        # In chunks: one Python int per sample would be the largest thing in memory.
        for first in range(0, len(ids), 8192):
            for sample in ids[first : first + 8192].tolist():
                self._position += 1
                yield sample

    def set_epoch(self, epoch: int) -> None:
        """The epoch to visit next, 0 to 2**32 - 1. A restored position is kept only for the epoch it was saved in."""
        epoch = checked_int("epoch", epoch, 0, 2**32 - 1)
        if epoch != self.epoch:
            self.epoch, self._position, self._start = epoch, 0, 0

    def state_dict(self, position: int | None = None) -> dict[str, int]:
        """Plain integers: seed, epoch, ranks, number of samples and the position reached.

        position: how many samples of this rank were used, where that is fewer than were handed out, as with a
        DataLoader whose workers run ahead; None: as many as were handed out.
        """
        reached = self._position if position is None else checked_int("position", position, 0, len(self))
        return {**self._identity(), "epoch": self.epoch, "position": reached}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resumes where state_dict() was taken; ValueError when seed, ranks or the number of ids differ."""
        for name, own in self._identity().items():
            if state.get(name) != own:
                raise ValueError(f"the state has {name} {state.get(name)}, this sampler {own}; make them equal")
        self.epoch = checked_int("epoch", state["epoch"], 0, 2**32 - 1)
        self._position = self._start = checked_int("position", state["position"], 0, len(self))

    def _identity(self) -> dict[str, int]:
        count = self._count()
        return {"seed": self.seed, "rank": self.rank, "num_replicas": self.num_replicas, "n_samples": count}


class RandomSubsetSampler(PrunedSampler):
    """A new random subset every epoch: kept_count(N, prune_ratio) of the ids, uniformly without replacement, in
    random order, a pure function of (seed, epoch). Source: RS2, arXiv 2305.18424.

    indices: as for PrunedSampler, or the number of samples N. prune_ratio: the fraction left out each epoch, in
    [0, 1).
    """

    def __init__(
        self,
        indices: Any,
        prune_ratio: float,
        seed: int = 0,
        epoch: int = 0,
        *,
        rank: int = 0,
        num_replicas: int = 1,
    ) -> None:
        ids = range(int(indices)) if isinstance(indices, int | np.integer) else indices
        super().__init__(ids, seed, epoch, rank=rank, num_replicas=num_replicas)
        self._kept = kept_count(len(self.ids), prune_ratio)

    def _order(self) -> NDArray[np.int64]:
        return super()._order()[: self._kept]

    def _count(self) -> int:
        return self._kept

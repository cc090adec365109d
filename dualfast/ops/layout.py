"""The 64-byte line of a sample and the status words of a step, as every back end sees them."""

from __future__ import annotations

from typing import NamedTuple

import torch

EL2N_VISITS = 10
MAX_VISITS = 4095
MAX_SKIPPED = 63
BAD_INDEX, BAD_TARGET, DUPLICATES, NON_FINITE, PAUSED, FINISHED = STATUS = range(6)  # words of Lines.status


class Lines(NamedTuple):
    """Where a step records: lines (n_samples, words) int32, loss_sums (n_samples,) or None, status (6,) int32: four
    counters, 1 where nothing is to be recorded, and a counter of programs that is zero between launches."""

    lines: torch.Tensor
    status: torch.Tensor
    loss_sums: torch.Tensor | None
    window: int
    limit: int

    @property
    def n_samples(self) -> int:
        return len(self.lines)

"""TDDS (arXiv 2311.13613): how unevenly a sample's prediction moves from epoch to epoch, over all classes."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import log_softmax

from dualfast.ops.layout import PAUSED
from dualfast.ops.step_torch import first_rows

DECAY = 0.9  # the share of the newest window
EPSILON = 1e-8
STATE = ("previous", "changes", "average", "visits")


class Tdds:
    """The state of N samples: the previous visit's log-probabilities in float16, 2 C bytes per sample, and 4 J more.

    Torch operations on the device of the logits, without host synchronization; visits count as in the ScoreTable.
    """

    def __init__(self, n_samples: int, n_classes: int, window: int, limit: int, device: str | torch.device) -> None:
        self.window, self.limit = window, limit
        rows = n_samples + 1  # the last one absorbs what is not recorded, so that no shape depends on the values
        self.previous = torch.zeros(rows, n_classes, dtype=torch.float16, device=device)
        self.changes = torch.zeros(rows, max(window - 2, 0), device=device)
        self.average = torch.zeros(rows, device=device)
        self.visits = torch.zeros(rows, dtype=torch.int32, device=device)

    @torch.no_grad()
    def record(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        index: torch.Tensor,
        status: torch.Tensor,
        ignore_index: int,
    ) -> None:
        """Records a visit of each sample in index (B,) int64 with logits (B, C); status is the ScoreTable's."""
        if logits.ndim != 2 or logits.shape[1] != self.previous.shape[1]:
            raise ValueError(f"logits have the shape {tuple(logits.shape)}; tdds is {self.previous.shape[1]} classes")
        n_samples = len(self.visits) - 1
        inside = (index >= 0) & (index < n_samples) & (targets >= 0) & (targets < logits.shape[1])
        kept = inside & (targets != ignore_index) & (status[PAUSED] == 0)
        log_p = log_softmax(logits.detach().float(), 1)
        finite = log_p.gather(1, torch.where(inside, targets, 0)[:, None])[:, 0].isfinite()
        recorded = first_rows(index, kept) & finite
        at = torch.where(recorded, index, n_samples)
        visits = self.visits[at].to(torch.int64)
        recorded &= visits < self.limit
        at = torch.where(recorded, at, n_samples)

        p = log_p.exp()
        now = (p + EPSILON).log()
        change = (p * (now - self.previous[at].float()).abs()).sum(1)
        ring = self.changes.shape[1]
        past = self.changes[at]
        window = torch.cat([past, change[:, None]], 1)
        deviation = (window - window.mean(1, keepdim=True)).norm(dim=1)
        average = self.average[at]
        full = visits >= self.window - 1
        self.average[at] = torch.where(full, (1 - DECAY) * average + DECAY * deviation, average)
        if ring:
            slot = torch.arange(ring, device=index.device) == ((visits - 1) % ring)[:, None]
            self.changes[at] = torch.where(slot & (visits > 0)[:, None], change[:, None], past)
        self.previous[at] = now.half()
        self.visits[at] += recorded.to(torch.int32)

    def scores(self) -> torch.Tensor:
        """(N,) float64; NaN for a sample with fewer visits than the window."""
        nan = torch.full_like(self.average, torch.nan)
        return torch.where(self.visits >= self.window, self.average, nan)[:-1].double()

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {name: getattr(self, name) for name in STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in STATE:
            getattr(self, name).copy_(state[name])

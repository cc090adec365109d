"""The whole method as steps over a run directory: data, scores, selections, retrainings, report.

Each step leaves a file or a line of metrics.jsonl when it has finished and is skipped when that is there, so a run
that was stopped goes on after its last finished step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

MAY_DIFFER = ("prune_ratio", "method", "seed", "full", "num_workers", "threads")


class Progress(Protocol):
    """What a run tells as it goes."""

    def plan(self, images: int) -> None:
        """So many images are to be trained on in all; those of finished steps are not among them."""

    def step(self, what: str) -> None:
        """A step begins."""

    def images(self, count: int) -> None:
        """So many images more have been trained on."""

    def say(self, line: str) -> None:
        """Something to keep on the screen."""


@dataclass(frozen=True)
class DataSet:
    """A data set ready to train on: .beton files and what they hold."""

    train: Path
    test: Path | None
    n_samples: int
    labels: np.ndarray[Any, np.dtype[np.int64]]
    class_names: tuple[str, ...]
    image_size: int
    fingerprint: str

    @property
    def n_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Step:
    """One training of a run: what it trains on and for how many images."""

    method: str
    prune_ratio: float
    seed: int
    kept: int
    images: int

"""One training of a run: which it is, what it draws, and the numbers that follow from its seed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.config import method_options
from dualfast.selection import select
from dualfast.table import Scores


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    method: str
    prune_ratio: float
    seed: int

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {self.prune_ratio:g}"
        return f"{what}, seed {self.seed}"


def drawn(
    training: Training,
    scores: Scores | int,
    labels: np.ndarray[Any, np.dtype[np.int64]],
    c_d: Any,
    per_class: bool,
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], dict[str, Any]]:
    """The ids a training keeps, drawn afresh, and how: method and options. scores may be a plain N for random."""
    method, given = method_options(training.method)
    options: dict[str, Any] = {"method": method, **given, "seed": training.seed, "per_class": per_class}
    if method == "dual+beta":
        options.setdefault("c_d", c_d)
    return select(scores, training.prune_ratio, labels=labels if per_class else None, **options), options


def same_draw(path: Path, training: Training) -> bool:
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    method, given = method_options(training.method)
    wanted = {"method": method, "seed": training.seed, **given}
    return all(about.get(name) == value for name, value in wanted.items())


def training_of(row: dict[str, Any]) -> Training:
    return Training(row["method"], row["prune_ratio"], row["seed"])


def needs_scores(method: str) -> bool:
    return method_options(method)[0] not in ("random", "full")


def mixed_seed(seed: int, scoring: bool) -> int:
    """Scoring and retraining of one seed start from different weights and orders."""
    digest = hashlib.blake2b(f"{seed}/{'score' if scoring else 'train'}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

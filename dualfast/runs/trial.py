"""One training of a run: which it is, what it draws, and the numbers that follow from its seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.config import method_options, published
from dualfast.scoring.table import Scores
from dualfast.selection.beta import auto_c_d
from dualfast.selection.select import select

# What stands in an index list's side file beside its options.
KEEP_FACTS = {"n_samples", "kept", "removed", "fingerprint", "dualfast", "prune_ratio"}


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    method: str
    prune_ratio: float
    seed: int

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {self.prune_ratio:g}"
        return f"{what}, seed {self.seed}"


def takes_auto(training: Training, c_d: Any) -> bool:
    """Whether c_D of this training's draw is read off the scores; c_d: the run's."""
    method, given = method_options(training.method)
    return method == "dual+beta" and given.get("c_d", c_d) == "auto"


def draw_options(training: Training, c_d: Any, per_class: bool, scores: Callable[[], Any]) -> dict[str, Any]:
    """How a training's ids are drawn: arguments of select, method among them, c_D as a number. scores are asked for
    only where it is read off them."""
    method, given = method_options(training.method)
    options: dict[str, Any] = {"method": method, **given, "seed": training.seed, "per_class": per_class}
    if method == "dual+beta":
        options["c_d"] = published(options.get("c_d", c_d))
    if takes_auto(training, c_d):
        options["c_d"] = auto_c_d(scores(), training.prune_ratio)
    return options


def drawn(
    training: Training,
    scores: Scores | int,
    labels: np.ndarray[Any, np.dtype[np.int64]],
    options: dict[str, Any],
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The ids a training keeps, drawn afresh. scores may be a plain N for random."""
    return select(scores, training.prune_ratio, labels=labels if options["per_class"] else None, **options)


def same_draw(path: Path, options: dict[str, Any]) -> bool:
    """Whether the list was drawn with these options and no others."""
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return {name: value for name, value in about.items() if name not in KEEP_FACTS} == options


def training_of(row: dict[str, Any]) -> Training:
    return Training(row["method"], row["prune_ratio"], row["seed"])


def needs_scores(method: str) -> bool:
    return method_options(method)[0] not in ("random", "full")


def mixed_seed(seed: int, scoring: bool) -> int:
    """Scoring and retraining of one seed start from different weights and orders."""
    digest = hashlib.blake2b(f"{seed}/{'score' if scoring else 'train'}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

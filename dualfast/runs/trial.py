"""One training of a run: which it is, what it draws, and the numbers that follow from its seed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfast.selection.methods import uses_scores
from dualfast.selection.spec import SelectionSpec


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    method: str
    prune_ratio: float
    seed: int

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {self.prune_ratio:g}"
        return f"{what}, seed {self.seed}"

    def selection(self, c_d: Any, per_class: bool) -> SelectionSpec:
        """What it keeps. c_d: the run's, unless the method's options give one."""
        arguments = {"seed": self.seed, "c_d": c_d, "per_class": per_class}
        return SelectionSpec.parse(self.method, prune_ratio=self.prune_ratio, **arguments)


def same_draw(path: Path, spec: SelectionSpec) -> bool:
    """Whether the list was drawn as a resolved spec says."""
    return SelectionSpec.read(path)[0].sidecar() == spec.sidecar()


def training_of(row: dict[str, Any]) -> Training:
    return Training(row["method"], row["prune_ratio"], row["seed"])


def needs_scores(method: str) -> bool:
    return method != "full" and uses_scores(method)


def mixed_seed(seed: int, scoring: bool) -> int:
    """Scoring and retraining of one seed start from different weights and orders."""
    digest = hashlib.blake2b(f"{seed}/{'score' if scoring else 'train'}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""Runs to export from, without a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dualfast.data import beton, sources
from dualfast.data.index_list import save_keep
from dualfast.runs.progress import NullProgress
from dualfast.runs.rundir import RunDir
from dualfast.scoring.scores import Scores

KEPT = [0, 2, 3]


class Said(NullProgress):
    """What is said, in lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def make(folder: Path, data: Any, scored: bool = True) -> RunDir:
    """A run of `data` with scores and the lists keep-0.4.npy, of dual, and keep-0.4-random-seed0.npy."""
    data = data if isinstance(data, list) else str(data)
    run = RunDir(folder / "run", {"data": data, "out": str(folder / "run")})
    source = sources.open_source(sources.splits(data)[0])
    beton.write(source, run.train_beton, progress=False)
    train = beton.open_beton(run.train_beton)
    n = train.n_samples
    if scored:
        scores = Scores(dual=np.arange(n) / 8, mean=np.full(n, 0.5))
        about: dict[str, Any] = {"labels": train.labels, "class_names": train.class_names}
        about["names"] = None if train.names is None else train.names.column
        scores.save(run.scores_path(0), fingerprint=train.fingerprint, **about)
        run.append({"event": "scored", "seed": 0})
    how: dict[str, Any] = {"n_samples": n, "fingerprint": train.fingerprint, "prune_ratio": 0.4, "seed": 0}
    save_keep(run.keep_path(0.4, "dual", 0), np.array(KEPT), method="dual", **how)
    save_keep(run.keep_path(0.4, "random", 0, first=False), np.array([1]), method="random", **how)
    return run

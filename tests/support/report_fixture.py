"""Run directories as a run leaves them, with made-up numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dualfast.data import beton
from dualfast.runs.rundir import RunDir
from dualfast.scoring.table import Scores


def make_run(
    path: Path,
    *,
    n: int = 60,
    classes: int = 3,
    methods: tuple[str, ...] = ("dual+beta", "dual", "random"),
    ratios: tuple[float, ...] = (0.5, 0.8),
    seeds: tuple[int, ...] = (0, 1),
    full: bool = True,
    scored: bool = True,
    accuracy: dict[str, float] | None = None,
    class_names: list[str] | None = None,
    size: int = 8,
) -> RunDir:
    """A run directory with scores, results and images, without index lists."""
    asked = {"data": "digits", "out": str(path), "epochs": 4, "method": list(methods), "prune_ratio": list(ratios)}
    run_dir = RunDir(path, asked | {"seed": list(seeds), "full": full, "c_d": 4.0, "per_class": False})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    data = beton.write((images, np.arange(n) % classes), run_dir.train_beton, progress=False)
    if class_names is not None:
        side = Path(f"{run_dir.train_beton}.json")
        side.write_text(json.dumps(json.loads(side.read_text()) | {"class_names": class_names}))
    for seed in seeds:
        if scored:
            columns = {name: rng.uniform(0.01, 0.99, n) for name in ("dual", "mean", "dyn_unc", "aum", "el2n")}
            file = run_dir.scores_path(seed)
            Scores(**columns).save(file, labels=np.arange(n) % classes, fingerprint=data.fingerprint)
            run_dir.append({"event": "scored", "seed": seed, "seconds": 2.0})
        trainings = [("full", 0.0)] if full else []
        trainings += [(method, ratio) for ratio in ratios for method in methods]
        for method, ratio in trainings:
            kept = round(n * (1 - ratio))
            right = (accuracy or {}).get(method, 0.9 - 0.1 * ratio) + 0.01 * seed
            run_dir.append(
                {"event": "trained", "method": method, "prune_ratio": ratio, "seed": seed, "kept": kept, "n_samples": n}
                | {"accuracy": right, "best_accuracy": right + 0.005, "train_seconds": 10.0 * (1 - ratio)}
                | {"score_seconds": 0.0 if method in ("full", "random") else 2.0}
            )
    return run_dir

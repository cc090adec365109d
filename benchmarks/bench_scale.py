"""Every step of a run by the number of images: is each linear, and what does ImageNet's size take?

    python benchmarks/bench_scale.py [--sizes 12800 128000 1281167] [--rounds 3]

Images of 16 x 16 px in 1,000 classes, made up. Each step runs in a process of its own, which says how long it took and
the most memory that it had, Python and torch included; what the step reads is made before. A row has the median seconds
over the rounds, the fastest and the slowest, and the highest memory."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SIDE, BATCH = 1000, 16, 1024
RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)
Work = Callable[[], object]


def labels_of(n: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, CLASSES, n)


def scores_of(n: int) -> Any:
    """Scores of about the distribution that a network leaves."""
    import dualfast

    rng = np.random.default_rng(1)
    mean = rng.beta(4, 1.2, n)
    dual, aum = mean * (1 - mean) * (0.1 + rng.random(n)), 8 * (mean - 0.3) + rng.normal(0, 1, n)
    visits = np.full(n, 30)
    return dualfast.Scores(dual=dual, mean=mean, aum=aum, late_margin=aum, last_mean=mean, visits=visits)


# ---- the steps: each prepares what it reads, and returns what is timed ----------------------------------------------


def write(n: int, folder: Path) -> Work:
    import dualfast

    source = folder / "images.npz"
    if not source.exists():
        images = np.random.default_rng(2).integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
        np.savez(source, images=images, labels=labels_of(n))
        del images
    return lambda: dualfast.write(str(source), folder / "images.beton", rewrite=True, progress=False)


def open_loader(n: int, folder: Path) -> Work:
    from dualfast import Loader

    return lambda: Loader(folder / "images.beton", 256, image_size=SIDE, num_workers=2)


def epoch(n: int, folder: Path) -> Work:
    images = open_loader(n, folder)()

    def run() -> None:
        assert sum(len(index) for *_, index in images) == n  # type: ignore[attr-defined]

    return run


def record(n: int, folder: Path) -> Work:
    import torch

    from dualfast import DualLoss, ScoreTable

    criterion = DualLoss(ScoreTable(n))
    logits = torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels, ids = torch.from_numpy(labels_of(n)), torch.randperm(n)

    def run() -> None:
        for index in ids.split(BATCH):
            criterion(logits[: len(index)], labels[index], index).backward()

    return run


def save_scores(n: int, folder: Path) -> Work:
    scores, labels = scores_of(n), labels_of(n)
    names = [f"class {c}" for c in range(CLASSES)]
    return lambda: scores.save(folder / "scores.parquet", labels=labels, class_names=names)


def select(n: int, folder: Path) -> Work:
    from dualfast.selection.files import write_list
    from dualfast.selection.spec import SelectionSpec

    spec = SelectionSpec(prune_ratio=0.7, c_d="auto")
    return lambda: write_list(spec, [str(folder / "scores.parquet")], folder / "keep.npy")


def audit(n: int, folder: Path) -> Work:
    import dualfast

    scores, labels = scores_of(n), labels_of(n)
    return lambda: dualfast.audit(scores, labels)


def report(n: int, folder: Path) -> Work:
    from dualfast.config import RunConfig
    from dualfast.data.index_list import save_keep
    from dualfast.runs.reporting import write_report
    from dualfast.runs.rundir import RunDir
    from dualfast.runs.trial import Trial
    from dualfast.selection.beta import Statistics
    from dualfast.selection.select import kept_count, select_in_memory

    request = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(RunConfig(data="digits")).items()}
    run = RunDir(folder / "run", request)
    if not run.records("scored"):
        scores = scores_of(n)
        scores.save(run.path / "scores.parquet", labels=labels_of(n))
        run.append({"event": "scored", "seed": 0})
        for ratio in RATIOS:
            kept = kept_count(n, ratio)
            record = {"method": "dual+beta", "prune_ratio": ratio, "seed": 0, "kept": kept, "n_samples": n}
            times = {"accuracy": 0.9, "best_accuracy": 0.9, "score_seconds": 1.0, "train_seconds": 2.0}
            run.append({"event": "trained", **record, **times, "epochs": 1, "batch_size": 10})
            spec = Trial("dual+beta", ratio, 0).selection("auto", False).resolve(Statistics.of(scores))
            ids = select_in_memory(spec, scores)
            save_keep(run.keep_path(ratio, "dual+beta", 0), ids, n_samples=n, **spec.sidecar())
    return lambda: write_report(run, None)


STEPS: dict[str, tuple[str, Callable[[int, Path], Work]]] = {
    "write": ("`write`, from an .npz", write),
    "open": ("opening the `Loader`", open_loader),
    "epoch": ("an epoch of the `Loader`", epoch),
    "record": (f"an epoch of `DualLoss`, batches of {BATCH:,} x {CLASSES:,}", record),
    "scores": ("`scores.parquet`", save_scores),
    "select": ("`select`, from that file, c_d auto", select),
    "audit": ("`audit`", audit),
    "report": (f"`report`, {len(RATIOS)} prune ratios", report),
}
"""What each step is called in the table, in the order in which one needs another's files."""


def one(step: str, n: int, folder: Path) -> None:
    """Runs a step here and prints its seconds and the peak of this process's memory as JSON."""
    import dualfast

    dualfast.write, dualfast.Loader  # noqa: B018  # what is imported late is imported before the clock starts
    warnings.simplefilter("ignore")
    run = STEPS[step][1](n, folder)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def measure(sizes: list[int], rounds: int) -> list[dict[str, Any]]:
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for step, (what, _) in STEPS.items():
                command = [sys.executable, __file__, "--step", step, "--sizes", str(n), "--folder", folder]
                subprocess.run(command, check=True, capture_output=True)  # prepares, and warms up
                found = [
                    json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                    for _ in range(rounds)
                ]
                seconds = sorted(result["seconds"] for result in found)
                row = {"what": what, "n": n, "median_s": statistics.median(seconds), "min_s": seconds[0]}
                row |= {"max_s": seconds[-1], "peak_bytes": 1024 * max(result["peak_kb"] for result in found)}
                rows.append(row | {"rounds": rounds})
                print(f"{n:>10,} {step:8} {row['median_s']:8.3f} s {row['peak_bytes'] / 1e6:7.0f} MB", flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[12_800, 128_000, 1_281_167])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        one(given.step, given.sizes[0], Path(given.folder))
    else:
        from _harness import origin, save

        about = origin(("pyarrow", "bokeh"))
        print(save("scale", measure(given.sizes, given.rounds), about))

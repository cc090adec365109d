"""Results of grids that were never run: lines as benchmarks/accuracy/run.py writes them, with made-up values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LEADS = {"dual+beta": (1, 2, 2, 3, 3), "random": (0, 0, 0, 0, 0), "dual": (2, 1, -2, -8, -20), "ccs": (1, 1, 2, 2, 2)}
LEADS |= {"el2n": (1, 0, -10, -20, -30), "aum": (1, 0, -11, -22, -33), "dyn_unc": (2, 1, -1, -9, -18)}
LEADS |= {"dual+beta:c_d=auto": (1, 2, 3, 3, 4)}
RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)
RANDOM = (80.0, 76.0, 70.0, 64.0, 54.0)


def line(method: str, ratio: float, seed: int, accuracy: float, **other: Any) -> dict[str, Any]:
    kept = round(10_000 * (1 - ratio))
    score = 0.0 if method in ("full", "random") else 80.0
    row = {
        "data": "cifar10",
        "images": 10_000,
        "scenario": "clean",
        "model": "small",
        "score_model": "",
        "recipe": "cpu",
        "compute": "epochs",
        "options": {"tests": 3},
        "method": method,
        "as": f"{method}:score=aum_prob,mis_ratio=0.1" if method == "ccs" else method,
        "ratio": ratio,
        "seed": seed,
        "kept": kept,
        "n_samples": 10_000,
        "accuracy": accuracy / 100,
        "best_accuracy": accuracy / 100 + 0.001,
        "epochs": 30,
        "batch_size": 128,
        "score_seconds": 2 * score,
        "score_cpu_seconds": score,
        "train_seconds": 160.0 * kept / 10_000,
        "train_cpu_seconds": 80.0 * kept / 10_000,
        "score_epochs": 30,
        "altered": 0,
        "altered_kept": 0,
        "date": "2026-01-02",
        "commit": "0123456789abcdef",
        "machine": "a machine",
        "cores": 2,
    }
    return row | other


def cpu(seeds: int = 3) -> list[dict[str, Any]]:
    rows = []
    for seed in range(seeds):
        rows.append(line("full", 0.0, seed, 84.0 + 0.1 * seed))
        for at, ratio in enumerate(RATIOS):
            for method, leads in LEADS.items():
                rows.append(line(method, ratio, seed, RANDOM[at] + leads[at] + 0.3 * (seed - 1)))
    return rows


def noise() -> list[dict[str, Any]]:
    rows = []
    for scenario, altered in (("noise=0.2", 2000), ("corrupt=0.3", 3000)):
        for at, ratio in enumerate(RATIOS):
            for method, share in (("dual+beta", 0.1), ("random", altered / 10_000), ("ccs", 0.05)):
                rows.append(line(method, ratio, 0, RANDOM[at] + 10 * share, scenario=scenario, altered=altered))
                rows[-1]["altered_kept"] = round(share * rows[-1]["kept"])
    return rows


def c_d() -> list[dict[str, Any]]:
    rows = []
    for model, epochs, best in (("small", 30, 4.0), ("small", 15, 3.0), ("wide", 30, 6.0), ("wide", 15, 5.0)):
        other = {"model": model, "score_epochs": epochs, "options": {"score_epochs": epochs}}
        for seed in (0, 1):
            for at, ratio in enumerate(RATIOS[1:], 1):
                if epochs == 30:
                    rows.append(line("random", ratio, seed, RANDOM[at], **other))
                for value in (2, 3, 4, 5.5, 8, 11):
                    lead = 2 - 0.3 * abs(value - best) + 0.2 * seed + 0.2 * at
                    rows.append(line(f"dual+beta:c_d={value}", ratio, seed, RANDOM[at] + lead, **other))
                auto = line("dual+beta:c_d=auto", ratio, seed, RANDOM[at] + 1.8 + 0.2 * at, **other)
                rows.append(auto | {"c_d": best + 0.25 * seed})
    return rows


def write(folder: Path) -> Path:
    """A results folder with three grids and another benchmark's file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("cpu", cpu()), ("cpu-noise", noise()), ("c_d", c_d())):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"accuracy-{name}.jsonl").write_text(text + '{"data": "cut o')
    about = {
        "date": "2026-01-02",
        "machine": "a machine",
        "cores": 2,
        "commit": "0123456789",
        "versions": {"torch": "2"},
    }
    rows = [{"what": "dual|fast", "median_s": 0.0015, "peak_bytes": 1 << 20, "n": 50_000}]
    (folder / "2026-01-02-a-machine-2c-select.json").write_text(json.dumps({**about, "rows": rows}))
    older = {**about, "rows": [{**rows[0], "median_s": 9.0}]}
    (folder / "2026-01-01-a-machine-2c-select.json").write_text(json.dumps(older))
    return folder

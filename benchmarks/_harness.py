"""What every benchmark shares: paired rounds, peak memory, and results that say where they come from."""

from __future__ import annotations

import datetime
import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dualfast.runs.environment import git, processor, versions

RESULTS = Path(__file__).resolve().parent / "results"


def paired(
    entries: dict[str, Callable[[], Any]], repeats: int, *, before: Callable[[], Any] | None = None
) -> dict[str, dict[str, float]]:
    """Times all entries, `repeats` rounds after one to warm up, so that what else the machine does falls on all alike;
    in an order drawn anew each round, as what one leaves in the caches falls on the next. Each gets its median, fastest
    and slowest seconds, the quartiles, and the CPU seconds of its median round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in entries}
    for turn in range(repeats + 1):
        for name in np.random.default_rng(turn).permutation(list(entries)):
            run = entries[name]
            if before is not None:
                before()
            start, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:
                times[name].append((time.perf_counter() - start, time.process_time() - cpu))
    out = {}
    for name, rounds in times.items():
        rounds.sort()
        middle = rounds[len(rounds) // 2]
        wall = [seconds for seconds, _ in rounds]
        out[name] = {"median_s": float(np.median(wall)), "min_s": wall[0], "max_s": wall[-1], "cpu_s": middle[1]}
        out[name] |= {"q1_s": float(np.quantile(wall, 0.25)), "q3_s": float(np.quantile(wall, 0.75))}
    return out


def peak_memory(run: Callable[[], Any]) -> int:
    """Bytes of anonymous memory that `run` takes at its highest, beyond what there was before; looked at every
    millisecond. Pages of mapped files do not count."""

    def now() -> int:
        with open("/proc/self/status") as file:
            found = re.search(r"RssAnon:\s+(\d+) kB", file.read())
        return int(found[1]) * 1024 if found else 0

    start, highest, done = now(), 0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, now())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(highest - start, 0)


def copy_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second, read plus written, of copying on torch's threads."""
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    seconds = paired({"copy": lambda: target.copy_(source)}, 7)["copy"]["min_s"]
    return 2 * 4 * source.numel() / seconds


def origin(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Commit, machine and versions, for a file of results."""
    installed = versions(("dualfast", "numpy", "torch", *packages))
    return {
        "date": datetime.date.today().isoformat(),
        "commit": os.environ.get("DUALFAST_COMMIT") or git("rev-parse", "HEAD"),  # a copy of the tree has no git
        "changed_files": len([line for line in git("status", "--porcelain", "-uno").splitlines() if line]),
        "machine": machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": installed.pop("python"),
        "versions": installed,
    }


def machine() -> str:
    """The name of the GPU, or of the processor where there is none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def path_of(name: str, about: dict[str, Any]) -> Path:
    """results/<date>-<machine>-<name>.json"""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{about['machine']}-{about['cores']}c".lower()).strip("-")
    return RESULTS / f"{about['date']}-{slug}-{name}.json"


def save(name: str, rows: list[dict[str, Any]], about: dict[str, Any]) -> Path:
    """Writes the results to path_of them, and returns it."""
    RESULTS.mkdir(exist_ok=True)
    path = path_of(name, about)
    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return path

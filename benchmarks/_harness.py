"""Shared by all benchmarks: paired rounds, peak memory, and result files that state their origin."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent / "results"


def paired(
    entries: dict[str, Callable[[], Any]], repeats: int, *, before: Callable[[], Any] | None = None
) -> dict[str, dict[str, float]]:
    """Times all entries in each of `repeats` rounds, after one warm-up round, so that other load on the machine affects
    all alike. The order is shuffled every round, because an entry inherits the caches of the one before it. Returns for
    each entry the median, fastest and slowest seconds, the quartiles, and the CPU seconds of its median round."""
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
    """Peak anonymous memory of `run` in bytes, above the level before it, sampled every millisecond. Pages of mapped
    files do not count."""

    def now() -> int:
        with open("/proc/self/status") as file:
            match = re.search(r"RssAnon:\s+(\d+) kB", file.read())
        return int(match[1]) * 1024 if match else 0

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
    """Bytes per second, read plus written, of a copy on torch's threads."""
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    seconds = paired({"copy": lambda: target.copy_(source)}, 7)["copy"]["min_s"]
    return 2 * 4 * source.numel() / seconds


def origin(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Date, commit, machine and versions of a result."""

    def git(*arguments: str) -> str:
        try:
            command = ["git", "-C", str(RESULTS.parent), *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return "unknown"

    return {
        "date": datetime.date.today().isoformat(),
        "commit": os.environ.get("DUALFAST_COMMIT") or git("rev-parse", "HEAD"),  # a copied tree has no .git
        "changed_files": len([line for line in git("status", "--porcelain", "-uno").splitlines() if line]),
        "machine": machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("dualfast", "numpy", "torch", *packages)},
    }


def machine() -> str:
    """The name of the GPU, or of the processor where there is no GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.machine()


def path_of(name: str, about: dict[str, Any]) -> Path:
    """results/<date>-<machine>-<name>.json"""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{about['machine']}-{about['cores']}c".lower()).strip("-")
    return RESULTS / f"{about['date']}-{slug}-{name}.json"


def save(name: str, rows: list[dict[str, Any]], about: dict[str, Any]) -> Path:
    """Writes the result file and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = path_of(name, about)
    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return path

"""Selection against what people use: numpy.choice with scipy's Beta density, a numpy race, torch.multinomial, DuckDB,
Polars. `dualfast bench select --sizes 50000 1280000`; --options measures every method and option instead, and
select_page.py puts the result into docs/selection.md; --from-disk and --billion draw from files made on the fly.
Entries that take over three seconds are measured once. --onto FILE adds to a result of the same commit."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import copy_bandwidth, origin, paired, peak_memory, save

import dualfast
from dualfast.selection.beta import Beta, beta_of
from dualfast.selection.select import kept_count, select
from dualfast.selection.streaming import select_files

MULTINOMIAL_MOST = 2**24  # categories that torch.multinomial takes
CHOICE_MOST = 14_000_000
SLOW = 3.0  # seconds: an entry that takes longer is measured once
SEED = 0
CLASSES = 1000
BASE = "dual+beta"  # without options, what the others are compared with


def columns(n: int) -> tuple[np.ndarray, np.ndarray]:
    """dual and mean, float32, distributed as in a real run: most samples easy, dual highest in the middle."""
    rng = np.random.default_rng(SEED)
    mean = np.sqrt(np.sqrt(rng.random(n, np.float32)))
    return (mean * (1 - mean) * (0.1 + rng.random(n, np.float32))).astype(np.float32), mean


def numpy_choice(dual: np.ndarray, mean: np.ndarray, density: Beta, n: int) -> np.ndarray:
    from scipy import stats

    weights = stats.beta.pdf(mean.astype(np.float64), density.a, density.b) * dual
    chosen = np.random.default_rng(SEED).choice(len(dual), n, replace=False, p=weights / weights.sum())
    return np.sort(chosen)


def numpy_race(dual: np.ndarray, mean: np.ndarray, density: Beta, n: int) -> np.ndarray:
    keys = np.log(np.random.default_rng(SEED).exponential(size=len(dual)).astype(np.float32))
    with np.errstate(divide="ignore"):
        keys -= np.float32(density.a - 1) * np.log(mean) + np.float32(density.b - 1) * np.log1p(-mean) + np.log(dual)
    return np.sort(np.argpartition(keys, n - 1)[:n])


def torch_multinomial(dual: np.ndarray, mean: np.ndarray, density: Beta, n: int) -> np.ndarray:
    d, m = torch.from_numpy(dual), torch.from_numpy(mean)
    log_w = d.log() + (density.a - 1) * m.log() + (density.b - 1) * torch.log1p(-m)
    torch.manual_seed(SEED)
    return torch.multinomial((log_w - log_w.max()).exp(), n).sort().values.numpy()


def duckdb_race(dual: np.ndarray, mean: np.ndarray, density: Beta, n: int) -> np.ndarray:
    import duckdb
    import pyarrow as pa

    table = pa.table({"id": np.arange(len(dual)), "dual": dual, "mean": mean})
    with duckdb.connect(config={"threads": torch.get_num_threads()}) as database:
        database.register("scores", table)
        return database.sql(
            "SELECT id FROM (SELECT id FROM scores ORDER BY ln(-ln(1 - random())) - ln(dual) "
            f"- {density.a - 1} * ln(mean) - {density.b - 1} * ln(greatest(1 - mean, 1e-12)) LIMIT {n}) ORDER BY id"
        ).fetchnumpy()["id"]


def polars_race(dual: np.ndarray, mean: np.ndarray, density: Beta, n: int) -> np.ndarray:
    import polars as pl

    u = np.random.default_rng(SEED).random(len(dual), np.float32)
    frame = pl.LazyFrame({"dual": dual, "mean": mean, "u": u}).with_row_index("id")
    log_w = pl.col("dual").log() + (density.a - 1) * pl.col("mean").log() + (density.b - 1) * (1 - pl.col("mean")).log()
    key = (-(1 - pl.col("u")).log()).log() - log_w
    return frame.select("id", key=key).bottom_k(n, by="key").select("id").sort("id").collect()["id"].to_numpy()


RIVALS = {
    "numpy.choice + scipy": (numpy_choice, CHOICE_MOST),
    "numpy race": (numpy_race, 10**12),
    "torch.multinomial": (torch_multinomial, MULTINOMIAL_MOST),
    "DuckDB": (duckdb_race, CHOICE_MOST),
    "Polars": (polars_race, CHOICE_MOST),
}


def in_memory(n: int, ratio: float, threads: int, repeats: int, rivals: bool) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    dual, mean = columns(n)
    scores = dualfast.Scores(dual=dual, mean=mean)
    density, kept = beta_of(scores, ratio), kept_count(n, ratio)
    entries: dict[str, Callable[[], np.ndarray]] = {"dualfast": lambda: select(scores, ratio, seed=SEED)}
    for name, (rival, most) in RIVALS.items():
        if rivals and n <= most:
            entries[name] = lambda rival=rival: rival(dual, mean, density, kept)
    times: dict[str, dict[str, float]] = {}
    peaks: dict[str, int] = {}

    def once(name: str) -> None:
        drawn = entries[name]()
        times[name] = {"median_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
        assert len(drawn) == kept, name
        assert (np.diff(drawn) > 0).all(), name

    for name in entries:
        start, cpu = time.perf_counter(), time.process_time()
        peaks[name] = peak_memory(lambda name=name: once(name))
    times |= paired({name: run for name, run in entries.items() if times[name]["median_s"] < SLOW}, repeats)
    bandwidth = copy_bandwidth()
    moved = 8 * n + n / 8 + 8 * kept  # bytes: columns read, bits and ids written
    rows = []
    for name in entries:
        row: dict[str, Any] = {"n": n, "prune_ratio": ratio, "threads": threads, "what": name}
        row |= {"repeats": repeats if "min_s" in times[name] else 1, **times[name], "peak_bytes": peaks[name]}
        row["times_dualfast"] = times[name]["median_s"] / times["dualfast"]["median_s"]
        row["of_copy_bandwidth"] = moved / times[name]["median_s"] / bandwidth
        rows.append(row)
    return rows


def options_of(n: int) -> dict[str, dict[str, Any]]:
    """Every method, and every way to restrict what is drawn; labels of 1,000 classes, sets of 1% of the samples."""
    rng = np.random.default_rng(SEED)
    per_class = {"per_class": True, "labels": rng.integers(0, CLASSES, n)}
    few = np.sort(rng.choice(n, n // 100, replace=False))
    return {
        BASE: {},
        "per_class": per_class,
        "exclude 1%": {"exclude": few},
        "force 1%": {"force": few},
        "among half": {"among": rng.random(n) < 0.5},
        "skip_unscored": {"skip_unscored": True},
        "mislabel_cut 1%": {"mislabel_cut": n // 100},
        "per_class, exclude 1%": per_class | {"exclude": few},
        "c_d auto": {"c_d": "auto"},
        "random": {"method": "random"},
        "dual": {"method": "dual"},
        "dual, per_class": {"method": "dual"} | per_class,
        "ccs": {"method": "ccs"},
        "ccs, mis_ratio 0.3": {"method": "ccs", "mis_ratio": 0.3},
        "ccs, per_class": {"method": "ccs"} | per_class,
        "ccs, mis_ratio 0.3, per_class": {"method": "ccs", "mis_ratio": 0.3} | per_class,
        "stratified": {"method": "stratified"},
        "stratified, per_class": {"method": "stratified"} | per_class,
    }


def by_option(n: int, ratio: float, threads: int, repeats: int) -> list[dict[str, Any]]:
    torch.set_num_threads(threads)
    dual, mean = columns(n)
    aum = np.random.default_rng(SEED + 1).normal(size=n).astype(np.float32)
    scores = dualfast.Scores(dual=dual, mean=mean, aum=aum, aum_prob=np.tanh(aum))
    warnings.filterwarnings("ignore", "c_d auto is")
    entries = {name: partial(select, scores, ratio, seed=SEED, **given) for name, given in options_of(n).items()}
    peaks = {name: peak_memory(run) for name, run in entries.items()}
    rows = []
    for name, seconds in paired(entries, repeats).items():
        row = {"n": n, "prune_ratio": ratio, "threads": threads, "what": name, "repeats": repeats}
        rows.append(row | seconds | {"peak_bytes": peaks[name], "kept_bytes": 8 * kept_count(n, ratio)})
    for row in rows:
        row["times_plain"] = row["median_s"] / rows[0]["median_s"]
    return rows


def out_of_core(n: int, ratios: list[float], folder: Path) -> list[dict[str, Any]]:
    """Draws from columns on disk that are not in the page cache; against reading them once."""
    paths = {name: folder / f"{name}.npy" for name in ("dual", "mean")}
    for path, column in zip(paths.values(), columns(min(n, 1 << 24)), strict=True):
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": column.dtype.str, "fortran_order": False, "shape": (n,)}
            )
            for first in range(0, n, len(column)):  # the same values repeated; every id draws its own random number
                file.write(column[: n - first].data)

    def forget() -> None:
        for path in paths.values():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def read() -> None:
        buffer = bytearray(1 << 24)
        for path in paths.values():
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    out = []
    for ratio in ratios:
        draw = partial(select_files, paths, ratio, folder / "keep.npy")
        for name, run in (("reading once", read), ("dualfast", draw)):
            forget()
            start, cpu = time.perf_counter(), time.process_time()
            peak = peak_memory(run)
            seconds = {"median_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
            row = {"n": n, "prune_ratio": ratio, "threads": torch.get_num_threads(), "what": f"{name}, from disk"}
            out.append(row | {"repeats": 1, **seconds, "peak_bytes": peak})
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[50_000, 1_280_000])
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.9, 0.3])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--alone", action="store_true", help="dualfast only")
    parser.add_argument("--options", type=int, nargs="*", default=[], help="sizes at which every option is measured")
    parser.add_argument("--from-disk", type=int, nargs="*", default=[], help="sizes drawn from files, 8 bytes a sample")
    parser.add_argument("--billion", action="store_true", help="the same with 10^9: 8 GB of disk")
    parser.add_argument("--folder", type=Path, help="where those files are kept while it runs")
    parser.add_argument("--onto", type=Path, help="result file of the same commit to extend")
    asked = parser.parse_args()
    about, rows = origin(("scipy", "duckdb", "polars", "pyarrow")), []
    if asked.onto:
        before = json.loads(asked.onto.read_text(encoding="utf-8"))
        if any(before[name] != about[name] for name in ("machine", "commit", "versions")):
            raise SystemExit(f"{asked.onto} is of another machine, commit or version")
        rows = before["rows"]
    for n in asked.sizes:
        for ratio in asked.ratios:
            for threads in asked.threads:
                rows += in_memory(n, ratio, threads, asked.repeats, not asked.alone)
                show(rows, threads, n, ratio)
    if asked.sizes:
        print(save("select", rows, about))
    options: list[dict[str, Any]] = []
    for n in asked.options:
        options += by_option(n, asked.ratios[0], max(asked.threads), asked.repeats)
        show(options, max(asked.threads), n, asked.ratios[0])
    if options:
        print(save("select-options", options, about))
    torch.set_num_threads(max(asked.threads))
    files: list[dict[str, Any]] = []
    for n in asked.from_disk + [10**9] * asked.billion:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            files += out_of_core(n, asked.ratios, Path(folder))
        for ratio in asked.ratios:
            show(files, max(asked.threads), n, ratio)
    if files:
        print(save("select-files", files, about))


def show(rows: list[dict[str, Any]], threads: int, n: int, ratio: float) -> None:
    for row in rows:
        if (row["threads"], row["n"], row["prune_ratio"]) == (threads, n, ratio):
            times = row.get("times_dualfast", row.get("times_plain"))
            much = "" if times is None else f"{times:7.1f} x"
            print(
                f"{n:>13,} r={ratio} {threads} threads  {row['what']:30} {1e3 * row['median_s']:10.2f} ms"
                f"  {row['peak_bytes'] / 2**20:8.0f} MiB {much}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""This checkout against another one, such as an earlier release, in alternating rounds: whether a change is faster.

    python benchmarks/bench_commits.py ../other --images FOLDER [--only step loader] [--rounds 31]

OTHER is a checkout with its own .venv and compiled extension. Each side runs in a process of its own; a round lets one
after the other do the same work, in an order drawn anew. A row has both sides' median seconds and peak memory, and the
ratio OTHER / this one, above 1 where this checkout is faster, with its 95% interval (bootstrap over rounds). --busy
keeps every core busy meanwhile, as the workers of a loader do. FOLDER: JPEGs in class folders, for the loader."""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Work = Callable[[], object]
FORMS: dict[str, dict[str, Any]] = {
    "max side 256, JPEG": {"max_size": 256},
    "max side 256, raw": {"max_size": 256, "mode": "raw"},
    "originals": {},
}
BUSY = "import torch\ntorch.set_num_threads(1)\nx = torch.rand(512, 512)\nwhile True: x = (x @ x).clamp(0, 1)"


# ---- the work, with names that both checkouts have ------------------------------------------------------------------


def step(rows: int, classes: int) -> Work:
    import torch

    from dualfast import DualLoss, ScoreTable

    logits = torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))
    targets, index = torch.arange(rows) % classes, torch.arange(rows)
    criterion = DualLoss(ScoreTable(50_000))
    repeats = max(20, 2_000_000 // (rows * classes))

    def run() -> None:
        for _ in range(repeats):
            criterion(logits.detach().requires_grad_(), targets, index).backward()

    return run


def select(n: int, **options: Any) -> Work:
    import dualfast

    rng = np.random.default_rng(0)
    mean = np.sqrt(np.sqrt(rng.random(n, np.float32)))
    dual = (mean * (1 - mean) * (0.1 + rng.random(n, np.float32))).astype(np.float32)
    scores = dualfast.Scores(dual=dual, mean=mean)
    if options.get("method") == "ccs":
        scores = dualfast.Scores(dual=dual, mean=mean, aum=(8 * (mean - 0.3)).astype(np.float32))
        options["score"] = "aum"
    if "per_class" in options:
        options["labels"] = rng.integers(0, 1000, n)
    for name in {"exclude", "force"} & options.keys():
        options[name] = np.sort(rng.choice(n, n // 100, replace=False))
    return lambda: dualfast.select(scores, 0.7, **options)


def loader(path: str, dtype: str) -> Work:
    import torch

    from dualfast import Loader

    images = Loader(path, 64, image_size=224, augment="rrc", num_workers=2, dtype=getattr(torch, dtype))

    def run() -> None:
        for _ in images:
            pass

    return run


def write(n: int, folder: str) -> Work:
    import dualfast

    rng = np.random.default_rng(0)
    source = Path(folder, "small.npz")
    if not source.exists():
        images = rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
        np.savez(source, images=images, labels=rng.integers(0, 1000, n))
    out = Path(folder, f"{os.getpid()}.beton")

    def run() -> None:
        dualfast.write(str(source), str(out), progress=False)
        for made in Path(folder).glob(f"{out.name}*"):
            made.unlink()

    return run


def works(images: Path | None, folder: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Each row's function and its arguments."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        f"step {rows}x{classes}": ("step", {"rows": rows, "classes": classes})
        for rows, classes in ((128, 10), (1024, 10), (256, 100), (256, 1000))
    }
    options: dict[str, dict[str, Any]] = {
        "dual+beta": {},
        "c_d auto": {"c_d": "auto"},
        "per_class": {"per_class": True},
        "ccs": {"method": "ccs"},
        "stratified": {"method": "stratified"},
        "exclude 1%": {"exclude": True},
        "force 1%": {"force": True},
    }
    for n, name in ((1_280_000, "1.28M"), (14_000_000, "14M"), (100_000_000, "100M")):
        chosen = options if n < 100_000_000 else {key: options[key] for key in ("dual+beta", "per_class", "exclude 1%")}
        rows |= {f"select {name}, {what}": ("select", {"n": n} | own) for what, own in chosen.items()}
    rows["write 1.28M of 16x16"] = ("write", {"n": 1_281_167, "folder": folder})
    for what in FORMS if images is not None else ():
        for dtype in ("float32", "uint8"):
            arguments = {"path": str(Path(folder, f"{what}.beton")), "dtype": dtype}
            rows[f"loader {what}, {dtype}"] = ("loader", arguments)
    return rows


def write_once(images: Path, path: Path) -> None:
    """The file that a row of the loader reads."""
    import dualfast

    if not path.exists():
        dualfast.write(images, path, progress=False, **FORMS[path.stem])


# ---- the rounds -----------------------------------------------------------------------------------------------------


class Side:
    """A checkout's process, which does one piece of work each time it is asked."""

    def __init__(self, checkout: Path, work: str, arguments: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [checkout / ".venv/bin/python", "-W", "ignore", __file__, "--work", work, "--arguments", repr(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
        where = self._answer()
        if not Path(where).is_relative_to(checkout.resolve()):
            raise SystemExit(f"{checkout} imports dualfast from {where}")

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process {self._process.args} ended")
        return line.strip()

    def run(self) -> tuple[float, float, float]:
        """Seconds, processor seconds, and megabytes at the highest so far."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        seconds, cpu, megabytes = map(float, self._answer().split())
        return seconds, cpu, megabytes

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(work: str, arguments: dict[str, Any]) -> None:
    """The other end of Side."""
    run = globals()[work](**arguments)
    run()
    import dualfast

    print(Path(dualfast.__file__).resolve(), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        run()
        seconds, used = time.perf_counter() - start, time.process_time() - cpu
        print(seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, flush=True)


def compare(other: Path, work: str, arguments: dict[str, Any], rounds: int) -> dict[str, Any]:
    sides = [Side(other, work, arguments), Side(ROOT, work, arguments)]
    try:
        times = np.zeros((rounds, 2, 3))
        rng = np.random.default_rng(0)
        for turn in range(rounds):
            for side in rng.permutation(2):
                times[turn, side] = sides[side].run()
    finally:
        for one in sides:
            one.close()
    ratios = times[:, 0, :2] / times[:, 1, :2]
    draws = np.median(ratios[rng.integers(0, rounds, (2000, rounds)), 0], axis=1)
    theirs, ours = np.median(times[:, :, 0], axis=0)
    return {
        "rounds": rounds,
        "other_s": float(theirs),
        "this_s": float(ours),
        "ratio": float(np.median(ratios[:, 0])),
        "interval": np.quantile(draws, (0.025, 0.975)).tolist(),
        "cpu_ratio": float(np.median(ratios[:, 1])),
        "other_mb": float(times[-1, 0, 2]),
        "this_mb": float(times[-1, 1, 2]),
    }


@contextlib.contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    count = len(os.sched_getaffinity(0)) if wanted else 0
    burners = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout")
    parser.add_argument("--images", type=Path, help="a folder of class folders of JPEGs")
    parser.add_argument("--folder", type=Path, help="where files are made; a temporary folder otherwise")
    parser.add_argument("--only", nargs="+", default=[""], help="rows that begin with one of these")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--busy", action="store_true", help="keep every core busy meanwhile")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        import ast

        serve(args.work, ast.literal_eval(args.arguments))
        return
    if args.other is None:
        parser.error("the other checkout is missing")
    import json

    from _harness import origin, path_of, save

    commit = subprocess.run(["git", "-C", args.other, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    about = origin() | {"other_commit": commit.stdout.strip()}
    name = "commits-busy" if args.busy else "commits"
    found = path_of(name, about)
    rows = json.loads(found.read_text())["rows"] if found.exists() else []
    with tempfile.TemporaryDirectory() as temporary, busy_cores(args.busy):
        for what, (work, arguments) in works(args.images, str(args.folder or temporary)).items():
            if not what.startswith(tuple(args.only)):
                continue
            if work == "loader":
                write_once(args.images, Path(arguments["path"]))
            row = {"what": what} | compare(args.other, work, arguments, args.rounds)
            low, high = row["interval"]
            print(
                f"{what:34} {row['other_s'] * 1e3:10.2f} ms -> {row['this_s'] * 1e3:10.2f} ms   {row['ratio']:6.2f}x "
                f"[{low:.2f}, {high:.2f}]   {row['other_mb']:,.0f} -> {row['this_mb']:,.0f} MB",
                flush=True,
            )
            rows = [one for one in rows if one["what"] != what] + [row]
            save(name, rows, about)


if __name__ == "__main__":
    main()

"""Kills a run with SIGKILL at random moments, resumes it each time, and compares its results with an undisturbed run's.

python benchmarks/kills.py [--kills 20] [--seed 0] [--whole RUN_DIRECTORY]
Each process resumes where the previous one was killed, and is killed 0 to 0.1 s after it has written a random number of
checkpoints (one every three steps) and results. Scores, indices and metrics must be the same bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import _harness

from dualfast import Scores, cli
from dualfast.runs import commands  # noqa: F401  loaded once, before the processes are forked

RUN = ["run", "--epochs", "4", "--score-epochs", "4", "--window", "2", "--prune-ratio", "0.5", "--seed", "0"]
RUN += ["--method", "dual", "--checkpoint-every", "3steps", "--num-workers", "1", "--threads", "1"]
WRITTEN = 100  # about how many checkpoints and results a run leaves
NAMES = ("same_metrics", "same_scores", "same_indices")
SAME = ("event", "method", "prune_ratio", "seed", "kept", "epochs", "accuracy", "best_accuracy", "loss")


def results(run: Path) -> tuple[list[Any], bytes, bytes]:
    """What must be the same bit for bit: metrics, scores and indices."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = Scores.load(run / "scores.parquet")
    columns = b"".join(value.tobytes() for value in scores.columns.values())
    return [[row.get(name) for name in SAME] for row in rows], columns, (run / "keep-0.5.npy").read_bytes()


def start_process(run: Path) -> int:
    """The id of a process that starts the run, or resumes it."""
    pid = os.fork()
    if not pid:
        os._exit(cli.main([*RUN, "--out", str(run)]))
    return pid


def progress_of(run: Path) -> tuple[int, list[str]]:
    """How many results a run has written so far, and its checkpoints."""
    metrics = run / "metrics.jsonl"
    rows = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return rows, sorted(path.stem for path in run.glob("checkpoints/*.pt"))


def kill(run: Path, draw: random.Random, most: int) -> tuple[int, int] | None:
    """Lets the run write 1 to `most` files or results and kills it; returns the number of results written and the step
    of the latest checkpoint, None when the run has ended instead."""
    before, pid, changes = progress_of(run), start_process(run), draw.randint(1, most)
    while changes:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        if (now := progress_of(run)) != before:
            before, changes = now, changes - 1
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        return None
    rows, checkpoints = progress_of(run)
    return rows, int(checkpoints[-1]) if checkpoints else 0


def run_to_the_end(run: Path) -> None:
    if os.waitpid(start_process(run), 0)[1]:
        raise SystemExit(f"the run in {run} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=Path, help="the directory of an undisturbed run; nothing is saved then")
    args = parser.parse_args()
    about, draw = _harness.origin(), random.Random(args.seed)
    moments: list[tuple[int, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        whole, run = args.whole or Path(folder, "whole"), Path(folder, "run")
        if args.whole is None:
            run_to_the_end(whole)
        while len(moments) < args.kills and (moment := kill(run, draw, WRITTEN // args.kills + 1)) is not None:
            moments.append(moment)
        run_to_the_end(run)
        same = [one == two for one, two in zip(results(run), results(whole), strict=True)]
        remaining = len(list(run.glob("checkpoints/*")))
    row = {"what": "kill -9", "kills": len(moments), **dict(zip(NAMES, same, strict=True)), "left_over": remaining}
    row |= {"results_and_step": " ".join(f"{finished}:{step}" for finished, step in moments)}
    print(json.dumps(row))
    if args.whole is None:
        print(_harness.save("kills", [row], about))


if __name__ == "__main__":
    main()

"""Kills a run with SIGKILL at random moments, lets it go on each time, and compares what it leaves with a whole run's.

python benchmarks/kills.py [--kills 20] [--seed 0] [--whole RUN_DIRECTORY]
Every life starts where the last one ended and is killed 0 to 0.1 s after it has left something: a result, or a
checkpoint of which there is one every three steps. Scores, indices and metrics must be the same bit for bit.
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

from dualfast import Scores, cli, pipeline

RUN = ["run", "--epochs", "4", "--score-epochs", "4", "--window", "2", "--prune-ratio", "0.5", "--seed", "0"]
RUN += ["--method", "dual", "--checkpoint-every", "3steps", "--num-workers", "1", "--threads", "1"]
NAMES = ("metrics", "scores", "indices")
SAME = ("event", "method", "prune_ratio", "seed", "kept", "epochs", "accuracy", "best_accuracy", "loss")


def results(run: Path) -> tuple[list[Any], bytes, bytes]:
    """What must be the same bit for bit: metrics, scores and indices."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = Scores.load(run / "scores.parquet")
    columns = b"".join(value.tobytes() for value in vars(scores).values() if value is not None)
    return [[row.get(name) for name in SAME] for row in rows], columns, (run / "keep-0.5.npy").read_bytes()


def life(run: Path) -> int:
    """The id of a process that begins the run, or goes on with it."""
    pid = os.fork()
    if not pid:
        os._exit(cli.main([*RUN, "--out", str(run)]))
    return pid


def left(run: Path) -> tuple[int, list[str]]:
    """How many results a run has left so far, and its checkpoints."""
    metrics = run / "metrics.jsonl"
    rows = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return rows, sorted(path.stem for path in run.glob("checkpoints/*.pt"))


def kill(run: Path, draw: random.Random) -> dict[str, Any] | None:
    """Lets the run come some way and kills it; says where. None when it has ended instead."""
    before, pid = left(run), life(run)
    while left(run) == before:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return None
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
        return None
    rows, checkpoints = left(run)
    return {"finished": rows, "checkpoint_step": int(checkpoints[-1]) if checkpoints else 0}


def whole_life(run: Path) -> None:
    if os.waitpid(life(run), 0)[1]:
        raise SystemExit(f"the run in {run} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--whole", type=Path, help="a run that nobody disturbed; nothing is saved then")
    asked = parser.parse_args()
    pipeline.versions()  # imported once, before the processes are made
    about, draw, moments = _harness.origin(), random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as folder:
        whole, run = asked.whole or Path(folder, "whole"), Path(folder, "run")
        if asked.whole is None:
            whole_life(whole)
        while len(moments) < asked.kills and (moment := kill(run, draw)) is not None:
            moments.append(moment)
        whole_life(run)
        checkpoints = sorted(path.name for path in run.glob("checkpoints/*"))
        same = [one == two for one, two in zip(results(run), results(whole), strict=True)]
    row = {"what": "kill -9", "kills": len(moments), "identical": dict(zip(NAMES, same, strict=True))}
    print(json.dumps(row | {"left_over": checkpoints, "moments": moments}))
    if asked.whole is None:
        print(_harness.save("kills", [row | {"moments": moments}], about))


if __name__ == "__main__":
    main()

"""A command with a failure injected at each of its calls in turn: fault_points.py COMMAND [--most N] [--kinds ...]

Needs fault_shim.c, compiled, in LD_PRELOAD. Everything is imported once; each attempt is a fork of that process. After
each, another fork looks at what is there, and repeats the command without a failure. Prints a JSON object."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILES, MEMORY = 0, 1
COUNT, KILL, TEAR, ONCE, STICKY = range(5)
KINDS = {
    "kill": (FILES, KILL, 0),
    "torn write, kill": (FILES, TEAR, 0),
    "ENOSPC": (FILES, STICKY, errno.ENOSPC),
    "EIO": (FILES, ONCE, errno.EIO),
    "ENOMEM": (MEMORY, ONCE, errno.ENOMEM),
}
SECONDS = 60
REFUSED, WRONG_KIND = 2, 3


class Scenario(NamedTuple):
    """prepare() makes the inputs and what was there before; argv is the command; look() describes what is there, so
    that two states are equal when their descriptions are, and raises ValueError for what cannot be read.

    before and after: whether look() must see the old or the new state alone after a failure (a command in one step), or
    only after the command was repeated (a run of many steps)."""

    prepare: Callable[[], None]
    argv: list[str]
    look: Callable[[], Any]
    one_step: bool = True


# ---- what is there --------------------------------------------------------------------------------------------------


def beton_content(path: str) -> Any:
    """Everything that a .beton and its sidecars say, None where there is no such file."""
    from dualfast.data.beton import verify

    if not Path(path).exists():
        return None
    beton = verify(path, full=True, progress=False)
    assert beton.sums is not None, "no checksums"
    assert beton.sidecar, "no sidecar"
    assert beton.names is not None, "no names"
    rows = [beton.payload(row).hex() for row in range(beton.n_samples)]
    return [rows, beton.labels.tolist(), beton.class_names, beton.names.column.to_pylist(), beton.sidecar["source"]]


def list_content(path: str) -> Any:
    """An index list and how it was drawn, None where there is none."""
    from dualfast.data.index_list import load_keep, read_sidecar

    if not Path(path).exists():
        return None
    about = read_sidecar(path)
    assert about, "no sidecar"
    return [load_keep(path).tolist(), about]


def run_content(path: str) -> Any:
    """The results of a run directory: scores, lists, accuracies."""
    from dualfast.runs.rundir import RunDir
    from dualfast.scoring.scores import Scores

    run = RunDir(path)
    if not run.config_path.exists():
        return None
    run.config()
    scores = [Scores.load(p).dual.tolist() for p in sorted(run.path.glob("scores*.parquet"))]
    lists = {p.name: list_content(str(p)) for p in sorted(run.path.glob("keep-*.npy"))}
    records = [[r.get(k) for k in ("event", "method", "seed", "kept", "accuracy")] for r in run.records("trained")]
    made = [beton_content(str(p)) for p in (run.train_beton, run.test_beton)]
    return [made, scores, lists, records]  # the report can be written again, and run says when it was not


# ---- the commands ---------------------------------------------------------------------------------------------------


def images(seed: int, n: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 80, 80, 3), dtype=np.uint8)
    return {"images": pixels, "labels": np.arange(n) % 3}


def main(*argv: str) -> int:
    from dualfast import cli

    return cli.main(list(argv))


def _write_old() -> None:
    np.savez("old.npz", **images(0, 40))
    np.savez("new.npz", **images(1, 50))
    assert main("write", "old.npz", "out.beton") == 0


def _compact_old() -> None:
    from dualfast.data.index_list import save_keep

    np.savez("data.npz", **images(0, 60))
    assert main("write", "data.npz", "all.beton") == 0
    for name, step in (("old", 2), ("new", 3)):
        save_keep(f"{name}.npy", np.arange(0, 60, step), n_samples=60)
    assert main("compact", "all.beton", "old.npy", "out.beton") == 0


def _select_old() -> None:
    from dualfast.scoring.scores import Scores

    r = np.random.default_rng(0)
    Scores(dual=r.random(20_000).astype(np.float32), mean=r.random(20_000).astype(np.float32)).save("scores.parquet")
    assert main("select", "--scores", "scores.parquet", "--prune-ratio", "0.5", "--out", "keep.npy") == 0


def _run_old() -> None:
    np.savez("data.npz", **images(0, 60))
    np.savez("test.npz", **images(2, 30))


SHORT = ["--epochs", "2", "--score-epochs", "2", "--window", "2", "--batch-size", "32", "--threads", "1"]
SHORT += ["--num-workers", "1", "--device", "cpu"]
DATA = ["--data", "data.npz", "--test", "test.npz", "--out", "run"]

SCENARIOS = {
    "write": Scenario(_write_old, ["write", "new.npz", "out.beton", "--rewrite"], lambda: beton_content("out.beton")),
    "compact": Scenario(
        _compact_old, ["compact", "all.beton", "new.npy", "out.beton"], lambda: beton_content("out.beton")
    ),
    "select": Scenario(
        _select_old,
        ["select", "--scores", "scores.parquet", "--prune-ratio", "0.3", "--out", "keep.npy"],
        lambda: list_content("keep.npy"),
    ),
    "score": Scenario(_run_old, ["score", *DATA[:2], *DATA[4:], *SHORT], lambda: run_content("run"), one_step=False),
    "run": Scenario(
        _run_old,
        ["run", *DATA, *SHORT, "--prune-ratio", "0.5", "--method", "dual+beta", "--seed", "0"],
        lambda: run_content("run"),
        one_step=False,
    ),
}

# ---- injecting ------------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    code: int | None  # None: it did not end in time
    fired: bool
    text: str
    value: Any


def forked(work: Callable[[], Any], seconds: float = SECONDS) -> Outcome:
    """work() in a fork. Its exit code is what it returns when that is an integer, WRONG_KIND after an exception."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as returned:
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            code, value = WRONG_KIND, None
            try:
                value = work()
                code = value if isinstance(value, int) else 0
            except BaseException:
                SHIM.fault_disarm()
                traceback.print_exc()
            SHIM.fault_disarm()
            json.dump([bool(SHIM.fault_fired()), value], returned)
            returned.flush()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = waited(pid, time.monotonic() + seconds)
        returned.seek(0)
        text = returned.read()
        fired, value = json.loads(text) if text else (True, None)
        said.seek(0)
        return Outcome(code, fired, ends(said.read()), value)


def ends(text: str) -> str:
    return text if len(text) < 4000 else f"{text[:2500]} ... {text[-1500:]}"


def waited(pid: int, deadline: float) -> int | None:
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def attempt(scenario: Scenario, where: int, number: int, how: int, code: int) -> Callable[[], int]:
    def work() -> int:
        SHIM.fault_arm(where, ctypes.c_long(number), how, code)
        return main(*scenario.argv)

    return work


def counted(scenario: Scenario) -> tuple[dict[int, int], str]:
    """How many calls the command makes that may fail, and a letter for each that changes a file."""

    def work() -> Any:
        SHIM.fault_arm(FILES, ctypes.c_long(-1), COUNT, 0)
        code = main(*scenario.argv)
        SHIM.fault_disarm()
        return [code, SHIM.fault_count(FILES), SHIM.fault_count(MEMORY), SHIM.fault_calls().decode()]

    done = forked(work)
    assert (done.code, done.value[0]) == (0, 0), done
    return {FILES: done.value[1], MEMORY: done.value[2]}, done.value[3]


def points(scenario: Scenario, kind: str, counts: dict[int, int], calls: str, most: int) -> list[int]:
    """At most `most` points, spread evenly; for kills also those around every name that a file gets."""
    last = counts[KINDS[kind][0]] - 1
    chosen = set(np.linspace(0, last, min(most, last + 1)).astype(int).tolist())
    if kind == "kill" and scenario.one_step:
        chosen |= {at for rename, call in enumerate(calls) if call == "r" for at in (rename, rename + 1) if at <= last}
    return sorted(chosen)


@contextlib.contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    copy = folder.parent / "attempt"
    shutil.copytree(folder, copy)
    os.chdir(copy)
    try:
        yield copy
    finally:
        os.chdir(folder.parent)
        shutil.rmtree(copy)


def of_torch(text: str) -> bool:
    """Whether a traceback is of an error that torch raised inside the model, which has no kind that tells it apart."""
    frames = [line for line in text.splitlines() if line.lstrip().startswith("File ")]
    return bool(frames) and "/torch/" in frames[-1] and text.splitlines()[-1].startswith("RuntimeError: ")


def check(scenario: Scenario, done: Outcome, before: Any, after: Any) -> str | None:
    """What is wrong with an attempt that ended so; None: nothing."""
    if done.code is None:
        return "hang"
    if done.code not in (0, REFUSED, -signal.SIGKILL) and not (done.code == WRONG_KIND and of_torch(done.text)):
        return f"ended with {done.code}"
    state = forked(scenario.look)
    if state.code != 0 and (scenario.one_step or "Error: no " in state.text):
        return "unreadable"
    if scenario.one_step and state.value not in (before, after):
        return "mixture"
    if done.code == 0 and state.value != after:
        return f"silent: {state.text} {str(state.value)[-300:]} instead of {str(after)[-300:]}"
    again = forked(lambda: scenario.look() if main(*scenario.argv) == 0 else REFUSED)
    if again.code != 0:
        return f"cannot be repeated: {again.text[-400:]}"
    if again.value != after:
        return f"repeated, another result: {again.text[-400:]}"
    return None


def injected(name: str, most: int, kinds: list[str]) -> dict[str, Any]:
    """The results at all points of each kind, or at about `most` of them."""
    scenario = SCENARIOS[name]
    with tempfile.TemporaryDirectory() as home:
        original = Path(home) / "original"
        original.mkdir()
        os.chdir(original)
        assert (made := forked(lambda: scenario.prepare() or 0)).code == 0, made
        before = forked(scenario.look).value
        with copy_of(original):
            import_like(forked(lambda: [main(*scenario.argv), *map(str, sys.modules)]).value[1:])
        with copy_of(original):
            counts, calls = counted(scenario)
            after = forked(scenario.look)
            assert after.code == 0, after
            assert after.value is not None
        tried: Counter[str] = Counter()
        ended: Counter[str] = Counter()
        wrong = []
        for kind in kinds:
            where, how, code = KINDS[kind]
            for number in points(scenario, kind, counts, calls, most):
                with copy_of(original):
                    done = forked(attempt(scenario, where, number, how, code))
                    if not done.fired:
                        continue
                    tried[kind] += 1
                    ended[f"{kind}: {done.code}"] += 1
                    fault = check(scenario, done, before, after.value)
                if fault is not None:
                    wrong.append([kind, number, fault, done.text])
                    print(json.dumps(wrong[-1]), file=sys.stderr, flush=True)
        total = {"files": counts[FILES], "memory": counts[MEMORY]}
        return {"command": name, "points": total, "tried": tried, "ended": ended, "wrong": wrong}


def import_like(modules: list[str]) -> None:
    """Imports what a command did in its fork, so that later ones import nothing."""
    import torch

    torch.set_num_threads(1)
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


SHIM = ctypes.CDLL(None)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=SCENARIOS)
    parser.add_argument("--most", type=int, default=1 << 20, help="points of each kind")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    arguments = parser.parse_args()
    SHIM.fault_calls.restype = ctypes.c_char_p
    SHIM.fault_count.restype = ctypes.c_long
    print(json.dumps(injected(arguments.command, arguments.most, arguments.kinds)))

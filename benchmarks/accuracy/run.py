"""Runs a grid of trainings, or one, and appends a JSON line for each to results/accuracy-<grid>.jsonl.

    python benchmarks/accuracy/run.py cpu
    python benchmarks/accuracy/run.py cpu --plan
    torchrun --nproc-per-node=8 benchmarks/accuracy/run.py imagenet --data IMAGENET
    python benchmarks/accuracy/run.py point --recipe cpu --images 10000 --method dual+beta --ratio 0.9 --seed 0

The same command continues an interrupted run, from the latest checkpoint of the training that was running; SIGTERM has
one written before the process ends. Scores are gathered once for each (data, network, recipe, seed) and shared by all
methods. Everything else that is written is in runs/accuracy."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _harness import RESULTS, origin
from data import Written, prepare
from grids import GRIDS, Point, default_data

from dualfast.comm.ranks import Ranks, join
from dualfast.config import BASELINES, RECIPES, ScoreConfig
from dualfast.errors import Stopped
from dualfast.runs import commands
from dualfast.runs.rundir import RunDir
from dualfast.runs.scoring import adopt_scores
from dualfast.runs.session import RunSession, open_session
from dualfast.runs.trial import Trial, keep_list, needs_scores, run_trial
from dualfast.scoring.table import Scores
from dualfast.selection.beta import auto_c_d
from dualfast.selection.select import kept_count
from dualfast.storage.locks import try_lock
from dualfast.storage.records import Records

RETRAINING = {"epochs", "compute", "batch_rule"}  # without effect on the scores: one table serves all values
WORK = Path(__file__).resolve().parents[2] / "runs" / "accuracy"


class TimedLines:
    """Progress as lines with the time of day."""

    def plan(self, images: int) -> None:
        pass

    def step(self, what: str) -> None:
        pass

    def images(self, count: int) -> None:
        pass

    def say(self, line: str) -> None:
        print(time.strftime("%H:%M:%S"), line, flush=True)

    note = say


class Results:
    """A file of JSON lines, one per result, locked by one process at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(path, "ab")  # noqa: SIM115  locked until the process ends
        if not try_lock(self.file.fileno()):
            raise ValueError(f"{path} is being written by another run; wait for it, or end it")
        self.records = Records(path)
        self.rows = self.records.read()

    def __contains__(self, point: Point) -> bool:
        key = point.key()
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.rows)

    def append(self, row: dict[str, Any]) -> None:
        self.records.append(row)
        self.rows.append(row)


class Runner:
    """Opens the session that a point needs and keeps it open for following points that need the same one."""

    def __init__(self, work: Path, machine: dict[str, Any], ranks: Ranks) -> None:
        self.ranks = ranks
        self.work, self.machine = work, machine  # machine: fields of RunConfig that change no result: threads
        self.opened: tuple[Path, RunSession] | None = None
        self.closing = ExitStack()

    def close(self) -> None:
        self.closing.close()
        self.opened = None

    def train(self, point: Point) -> dict[str, Any]:
        """Gathers scores if needed, and trains; returns the result row, on every rank."""
        wanted = self.work, point.data, point.images, point.scenario
        self.ranks.run_on_rank0("writing the data", lambda: prepare(*wanted))
        written = prepare(*wanted)
        home = written.train.parent.relative_to(self.work / "data")
        config = point.config(point.model, **self._paths(written), **self.machine)
        how = "-".join([point.recipe, point.compute, *(f"{name}{value}" for name, value in point.options)])
        trained_by = point.model if not point.score_model else f"{point.model}-from-{point.score_model}"
        out = self.work / "runs" / home / f"{trained_by.replace(':', '_')}-{how}"
        scored = None
        if needs_scores(point.method):
            scored = self._score(point, written, home)
        if self.opened is None or self.opened[0] != out:
            self.close()
            opening = point.config(point.model, **self._paths(written), **self.machine, out=str(out))
            self.opened = out, self.closing.enter_context(open_session(opening, TimedLines(), needs_test=True))
        session = self.opened[1]
        method = point.method_for(session.n_samples)
        trial = Trial(method, point.ratio, point.seed, point.draw_seed)
        if scored is not None:
            session.ranks.run_on_rank0("taking over the scores", lambda: adopt_scores(session, *scored))
        result = run_trial(session, trial, config)
        whole = method in ("full", *BASELINES)
        kept = np.arange(session.n_samples) if whole else keep_list(session, trial, config)
        row = point.key() | {name: result[name] for name in result if name not in ("event", "method", "prune_ratio")}
        row |= {"as": method, "score_epochs": config.score_epochs, "n_classes": session.n_classes}
        row |= {"draw_seed": point.draw_seed, "device": session.device.type}
        if method.endswith("c_d=auto"):
            row["c_d"] = auto_c_d(Scores.load(session.run_dir.scores_path(point.seed)), point.ratio)
        row |= {"altered": len(written.altered), "altered_kept": int(np.isin(written.altered, kept).sum())}
        return row | {"threads": torch.get_num_threads()}  # the last digits of sums depend on it, and results on those

    def _score(self, point: Point, written: Written, home: Path) -> tuple[Path, int, dict[str, Any]]:
        """The scores of the point's seed, gathered unless they exist: their file, the seed, and their record."""
        model = point.score_model or point.model
        names = {field.name for field in fields(ScoreConfig)} - RETRAINING - {"seed", "out"}
        config = point.config(model, **self._paths(written), **self.machine)
        shared = {name: value for name, value in asdict(config).items() if name in names}
        how = "-".join([point.recipe, *(f"{name}{value}" for name, value in point.options if name in names)])
        out = self.work / "scores" / home / f"{model.replace(':', '_')}-{how}"
        records = RunDir(out).records("scored") if (out / "config.yaml").exists() else []
        if all(record["seed"] != point.seed for record in records):
            self.close()  # one set of loader threads at a time
            commands.score(ScoreConfig(**shared, out=str(out), seed=point.seed), TimedLines())
            records = RunDir(out).records("scored")
        record = next(record for record in records if record["seed"] == point.seed)
        return RunDir(out).scores_path(point.seed), point.seed, record

    def _paths(self, written: Written) -> dict[str, str]:
        return {"data": str(written.train), "test": str(written.test)}


def cost(points: list[Point], n_samples: int) -> tuple[int, int]:
    """Images trained on, and passes over the test images."""
    images = passes = 0
    scored = set()
    for point in points:
        config = point.config(point.model)
        n = point.images or n_samples
        kept = kept_count(n, point.ratio)
        images += kept * config.for_subset(point.ratio, kept, n).epochs
        passes += min(config.tests, config.epochs)
        options = tuple(option for option in point.options if option[0] not in RETRAINING)
        who = (point.scenario, point.score_model or point.model, point.recipe, options, point.seed)
        if needs_scores(point.method) and who not in scored:
            scored.add(who)
            images += n * config.score_epochs
            passes += min(config.tests, config.score_epochs)
    return images, passes


def parse_points(argv: list[str] | None) -> tuple[argparse.Namespace, list[Point]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=[*GRIDS, "point"])
    parser.add_argument("--data", default=default_data(), help="folder, Parquet, CIFAR .tar.gz (binary), digits")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--results", type=Path, help="the file of JSON lines")
    parser.add_argument("--threads", type=int, default=-1)
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), help="start no training after this many seconds"
    )
    parser.add_argument("--plan", action="store_true", help="print the expected cost and stop")
    parser.add_argument("--rate", type=float, default=3800, help="images/s for --plan")
    one = parser.add_argument_group("point")
    for name, kind in (("images", int), ("scenario", str), ("score-model", str), ("compute", str), ("method", str)):
        one.add_argument(f"--{name}", type=kind)
    one.add_argument("--recipe", choices=sorted(RECIPES), default="cpu")
    one.add_argument("--model", help="the recipe's where left out")
    one.add_argument("--ratio", type=float, default=0.0, help="the fraction REMOVED")
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipe")
    args = parser.parse_args(argv)
    if args.grid != "point":
        return args, list(GRIDS[args.grid](args.data))
    given = {name: getattr(args, name) for name in ("images", "scenario", "score_model", "compute", "method")}
    model = args.model or RECIPES[args.recipe].get("model", "small")
    point = Point(
        data=args.data,
        recipe=args.recipe,
        model=model,
        ratio=args.ratio,
        seed=args.seed,
        options=tuple(_option(text) for text in args.set),
        **{"compute": RECIPES[args.recipe].get("compute", "epochs")}
        | {k: v for k, v in given.items() if v is not None},
    )
    return args, [point]


def _option(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main(argv: list[str] | None = None) -> None:
    args, points = parse_points(argv)
    if args.plan:
        images, passes = cost(points, 1_281_167 if args.grid == "imagenet" else 50_000)
        print(f"{len(points)} trainings, {images / 1e6:.1f} million images, {passes} passes over the test images:")
        print(f"{images / args.rate:,.0f} s of training at {args.rate:,.0f} images/s")
        return
    ranks = join("cuda" if torch.cuda.is_available() else "cpu")
    with ranks.leave_group_on_exit():
        for point in points:
            point.config(point.model).check_processes(ranks.size)
        run(points, ranks, args)


def run(points: list[Point], ranks: Ranks, args: argparse.Namespace) -> None:
    """Trains the points that have no result yet. Rank 0 alone locks, reads and writes the results."""
    start, opened = time.monotonic(), ExitStack()
    say = print if ranks.is_rank0 else (lambda *words, **how: None)
    results: list[Results] = []  # one, on rank 0

    def open_results() -> None:
        results.append(Results(args.results or RESULTS / f"accuracy-{args.grid}.jsonl"))
        opened.callback(results[0].file.close)

    try:
        ranks.run_on_rank0("opening the results", open_results)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    finished = ranks.gather([any(point in own for own in results) for point in points])[0]
    left = [point for point, done in zip(points, finished, strict=True) if not done]
    say(f"{sum(finished)} of {len(points)} trainings are finished", flush=True)
    runner = Runner(args.work.resolve(), {"threads": args.threads, "num_workers": args.threads}, ranks)
    opened.callback(runner.close)
    with opened:
        try:
            for done, point in enumerate(left):
                if ranks.gather(time.monotonic() - start)[0] > args.stop_after:
                    say(f"stopped: {len(left) - done} trainings are left; the same command continues")
                    break
                row = runner.train(point)
                about = origin()
                names = ("date", "commit", "changed_files", "machine", "cores", "load_before", "python", "versions")
                for own in results:
                    own.append(row | {name: about[name] for name in names} | {"ranks": ranks.size})
        except Stopped as stopped:
            say(f"stopped {stopped}; the same command continues")


if __name__ == "__main__":
    main()

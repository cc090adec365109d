"""The whole method as steps over a run directory: data, scores, selections, retrainings, report.

Each step leaves a file or a line of metrics.jsonl when it has finished and is skipped when that is there, so a run
that was stopped goes on after its last finished step.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from dualfast import beton, models, sources
from dualfast.config import Data, Recipe, RunConfig, Scoring
from dualfast.loader import Loader
from dualfast.loss import DualLoss
from dualfast.rundir import RunDir, environment
from dualfast.selection import kept_count, load_keep, save_keep, select
from dualfast.table import Scores, ScoreTable
from dualfast.train import CrossEntropy, Fit, fit, pick_device

# What one call on a run directory may ask otherwise than the call before it.
MAY_DIFFER = ("prune_ratio", "method", "seed", "full", "num_workers", "threads", "out")
LARGE_IMAGE = 224


class Progress(Protocol):
    """What a run tells as it goes."""

    def plan(self, images: int) -> None:
        """So many images are to be trained on in all; those of finished steps are not among them."""

    def step(self, what: str) -> None:
        """A step begins."""

    def images(self, count: int) -> None:
        """So many images more have been trained on."""

    def say(self, line: str) -> None:
        """Something to keep on the screen."""


@dataclass(frozen=True)
class Training:
    """One training of a run."""

    method: str
    prune_ratio: float
    seed: int

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {self.prune_ratio:g}"
        return f"{what}, seed {self.seed}"


def run(config: RunConfig, progress: Progress) -> tuple[RunDir, list[dict[str, Any]]]:
    """Scores, selects, retrains and reports; returns the run directory and one result row a finished training.

    A row holds method, prune_ratio, seed, kept, n_samples, accuracy and best_accuracy (fractions of the test images,
    after the last epoch and the best tested one), score_seconds and train_seconds.
    """
    models.check(config.model)
    with Workshop(_open(config, MAY_DIFFER), config, progress, needs_test=True) as shop:
        wanted = []
        for seed in config.seed:
            wanted += [Training("full", 0.0, seed)] if config.full else []
            wanted += [Training(method, ratio, seed) for ratio in config.prune_ratio for method in config.method]
        finished = {_training(row) for row in shop.run_dir.records("trained")}
        todo = [training for training in wanted if training not in finished]
        unscored = {t.seed for t in todo if _needs_scores(t.method) and not shop.is_scored(t.seed)}
        progress.plan(
            sum(kept_count(shop.n_samples, t.prune_ratio) * config.epochs for t in todo)
            + len(unscored) * shop.n_samples * config.score_epochs
        )
        if not todo:
            progress.say(f"all {len(wanted)} trainings are finished in {shop.run_dir.path}; delete it to run again")
        elif len(todo) < len(wanted):
            progress.say(f"{len(wanted) - len(todo)} of {len(wanted)} trainings are finished; continuing")
        for ratio in config.prune_ratio:
            if (kept := kept_count(shop.n_samples, ratio)) < shop.n_classes:
                progress.say(f"prune ratio {ratio:g} keeps {kept} images of {shop.n_classes} classes: some get none")
        for training in todo:
            if training.seed in unscored:
                shop.score(config, training.seed)
                unscored.remove(training.seed)
            shop.retrain(training, config)
        rows = [row for row in shop.run_dir.records("trained") if _training(row) in set(wanted)]
        progress.step("writing the report")
        shop.report(rows, config)
    return shop.run_dir, rows


class Workshop:
    """The data of a run directory with one loader for training and one for testing, compiled once for all steps."""

    def __init__(self, run_dir: RunDir, config: Data | Any, progress: Progress, *, needs_test: bool) -> None:
        self.run_dir = run_dir
        self.progress = progress
        self.recipe = Recipe(**{f.name: getattr(config, f.name) for f in fields(Recipe)})
        self._data(config, needs_test)

"""One retraining of a run: the images it keeps, how it is trained, and the row that records its result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.config import RunConfig, check_ratio, method_options, published
from dualfast.data.index_list import load_keep, save_keep, side_of
from dualfast.runs.scoring import load_scores, score_times
from dualfast.runs.session import RunSession
from dualfast.scoring.table import Scores
from dualfast.selection.beta import auto_c_d
from dualfast.selection.select import kept_count, select
from dualfast.storage.files import atomic
from dualfast.training.fit import CrossEntropy, TrainResult

# What stands in an index list's side file beside its options.
KEEP_FACTS = {"n_samples", "kept", "removed", "fingerprint", "dualfast", "prune_ratio"}


@dataclass(frozen=True)
class Trial:
    """One retraining of a run: on all images ("full") or on what `method` keeps at `prune_ratio`."""

    method: str
    prune_ratio: float
    seed: int

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {self.prune_ratio:g}"
        return f"{what}, seed {self.seed}"


def trial_of(row: dict[str, Any]) -> Trial:
    """The trial that a result row records."""
    return Trial(row["method"], row["prune_ratio"], row["seed"])


def takes_auto(training: Trial, c_d: Any) -> bool:
    """Whether c_D of this training's draw is read off the scores; c_d: the run's."""
    method, given = method_options(training.method)
    return method == "dual+beta" and given.get("c_d", c_d) == "auto"


def draw_options(training: Trial, c_d: Any, per_class: bool, scores: Callable[[], Any]) -> dict[str, Any]:
    """How a training's ids are drawn: arguments of select, method among them, c_D as a number. scores are asked for
    only where it is read off them."""
    method, given = method_options(training.method)
    options: dict[str, Any] = {"method": method, **given, "seed": training.seed, "per_class": per_class}
    if method == "dual+beta":
        options["c_d"] = published(options.get("c_d", c_d))
    if takes_auto(training, c_d):
        options["c_d"] = auto_c_d(scores(), training.prune_ratio)
    return options


def drawn(
    training: Trial,
    scores: Scores | int,
    labels: np.ndarray[Any, np.dtype[np.int64]],
    options: dict[str, Any],
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The ids a training keeps, drawn afresh. scores may be a plain N for random."""
    return select(scores, training.prune_ratio, labels=labels if options["per_class"] else None, **options)


def same_draw(path: Path, options: dict[str, Any]) -> bool:
    """Whether the list was drawn with these options and no others."""
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return {name: value for name, value in about.items() if name not in KEEP_FACTS} == options


def needs_scores(method: str) -> bool:
    return method_options(method)[0] not in ("random", "full")


def run_trial(session: RunSession, trial: Trial, config: RunConfig) -> dict[str, Any]:
    """Trains on what a trial keeps, with plain cross-entropy, and records the result; returns the row."""
    ids = None if trial.method == "full" else keep_list(session, trial, config)
    recipe = session.recipe.for_subset(trial.prune_ratio, _count(session, ids), session.n_samples)
    _, result = session.fit(str(trial), trial.seed, CrossEntropy(recipe.label_smoothing), recipe, ids)
    times = {"seconds": 0.0, "cpu_seconds": 0.0}
    if needs_scores(trial.method):
        times = score_times(session, trial.seed)
    row = {
        "event": "trained",
        "method": trial.method,
        "prune_ratio": trial.prune_ratio,
        "seed": trial.seed,
        **_outcome(session, ids, result),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        **{f"score_{name}": value for name, value in times.items()},
    }
    session.record("recording the result", lambda: session.run_dir.append(row))
    session.progress.say(
        f"{trial}: kept {row['kept']} of {session.n_samples}, {result.seconds:.1f} s, "
        f"accuracy {100 * result.accuracy:.2f}%"
    )
    return row


def train_on_list(session: RunSession, keep: str | None, seed: int) -> dict[str, Any]:
    """Trains on the images of the index list `keep` (None: all), as a trial of the same list would; writes model.pt (a
    state_dict), records the result and returns its row."""
    ids = None if keep is None else load_keep(keep, n_samples=session.n_samples, fingerprint=session.train.fingerprint)
    kept = _count(session, ids)
    ratio = 0.0 if keep is None else prune_ratio_of(keep, kept, session.n_samples)
    recipe = session.recipe.for_subset(ratio, kept, session.n_samples)
    session.progress.plan(kept * recipe.epochs)
    what = f"training on {kept} of {session.n_samples} images, seed {seed}"
    model, result = session.fit(what, seed, CrossEntropy(recipe.label_smoothing), recipe, ids)
    row = {
        "event": "train",
        "method": "full" if ids is None else "given list",
        "prune_ratio": ratio,
        "seed": seed,
        **_outcome(session, ids, result),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "score_seconds": 0.0,
    }

    def write() -> None:
        with atomic(session.run_dir.model_path) as part:
            torch.save(model.state_dict(), part)
        session.run_dir.append(row)

    session.record("writing model.pt", write)
    return row


def prune_ratio_of(keep: str, kept: int, n_samples: int) -> float:
    """The prune ratio that the sidecar of an index list notes; without one, the fraction that the list leaves out.

    Raises ValueError for an empty list, and a noted ratio outside [0, 1).
    """
    if not kept:
        raise ValueError(f"{keep!r} keeps no images; give a list with at least one")
    noted = side_of(keep).get("prune_ratio")
    ratio = float(noted) if isinstance(noted, int | float) else 1 - kept / n_samples
    check_ratio(ratio)
    return ratio


def keep_list(session: RunSession, trial: Trial, config: RunConfig) -> NDArray[np.int64]:
    """The ids that a trial keeps: drawn and written once, read afterwards."""
    first = trial.method == config.method[0] and trial.seed == config.seed[0]
    path = session.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed, first)
    how = partial(draw_options, trial, config.c_d, config.per_class)
    if first and path.exists() and not same_draw(path, how(lambda: load_scores(session, trial.seed))):
        # An earlier call on this directory had another first method.
        path = session.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed, False)

    def write() -> None:
        if path.exists():
            return
        scores = load_scores(session, trial.seed) if needs_scores(trial.method) else session.n_samples
        options = how(lambda: scores)
        if takes_auto(trial, config.c_d):
            session.progress.say(f"{trial}: c_d {options['c_d']:g}, read off the scores")
        kept = drawn(trial, scores, session.train.labels, options)
        about: dict[str, Any] = {"n_samples": session.n_samples, "fingerprint": session.train.fingerprint}
        save_keep(path, kept, prune_ratio=trial.prune_ratio, **about, **options)

    session.ranks.run_on_rank0(f"drawing for {trial}", write)
    return load_keep(path, fingerprint=session.train.fingerprint)


def planned_images(session: RunSession, trial: Trial) -> int:
    """The number of images that a trial trains on, counted once per epoch."""
    kept = kept_count(session.n_samples, trial.prune_ratio)
    return kept * session.recipe.for_subset(trial.prune_ratio, kept, session.n_samples).epochs


def _count(session: RunSession, ids: NDArray[np.int64] | None) -> int:
    return session.n_samples if ids is None else len(ids)


def _outcome(session: RunSession, ids: NDArray[np.int64] | None, result: TrainResult) -> dict[str, Any]:
    """The columns that every result row has."""
    return {
        "kept": _count(session, ids),
        "n_samples": session.n_samples,
        "accuracy": result.accuracy,
        "best_accuracy": result.best_accuracy,
        "loss": result.loss,
        "train_seconds": result.seconds,
        "train_cpu_seconds": result.cpu_seconds,
        "images_per_second": result.images_per_second,
    }

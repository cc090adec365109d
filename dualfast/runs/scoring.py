"""The scores of a run: gathered by a training of their own, once per seed, and read by every trial that needs them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dualfast.config import Scoring
from dualfast.data.beton import Beton
from dualfast.runs.rundir import RunDir
from dualfast.runs.session import RunSession
from dualfast.scoring.loss import DualLoss
from dualfast.scoring.sharded import ShardedTable
from dualfast.scoring.table import Scores, ScoreTable
from dualfast.selection import sample_rows

TIMES = ("seconds", "cpu_seconds")
ABOUT_SCORES = ("epochs", "schedule_epochs", *TIMES)
"""What a record of scores says wherever they are used; run directories of early versions lack some."""


def score(session: RunSession, scoring: Scoring, seed: int) -> Path:
    """Trains for the scoring epochs with DualLoss and writes the scores; returns the path of the Parquet table."""
    planned = session.run_dir.requested()["score_schedule_epochs"] or scoring.score_epochs
    recipe = replace(session.recipe, epochs=planned)
    options: dict[str, Any] = {"window": scoring.window, "epochs": scoring.score_epochs}
    options |= {"track_loss": True, "track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
    table: ScoreTable
    if session.ranks.size > 1:
        table = ShardedTable(session.n_samples, device=str(session.device), **options)
    else:
        options["tdds"] = session.n_classes if scoring.tdds else None
        options["trajectories"] = scoring.score_module is not None
        table = ScoreTable(session.n_samples, device=str(session.device), **options)
    criterion = DualLoss(table, label_smoothing=recipe.label_smoothing)
    _, result = session.fit(f"scoring, seed {seed}", seed, criterion, recipe, stop_after=scoring.score_epochs)
    path = session.run_dir.scores_path(seed)
    scores = table.scores_on(0)
    record = {
        "event": "scored",
        "seed": seed,
        "epochs": scoring.score_epochs,
        "schedule_epochs": planned,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "accuracy": result.accuracy,
        "images_per_second": result.images_per_second,
    }

    def write() -> None:
        assert scores is not None
        _save(session, scores, path)
        session.run_dir.append(record)

    session.record("writing the scores", write)
    tested = "" if math.isnan(result.accuracy) else f", test accuracy {100 * result.accuracy:.2f}%"
    session.progress.say(
        f"scored {session.n_samples} images, seed {seed}: {result.seconds:.1f} s, "
        f"{result.images_per_second:,.0f} images/s{tested}"
    )
    return path


def adopt_scores(session: RunSession, path: Path, seed: int, record: dict[str, Any]) -> None:
    """Takes over the scores at `path`, which another run on the same data gathered and recorded as `record`. Does
    nothing when the seed is scored. Raises ValueError for scores of other data."""
    if seed not in session.run_dir.scored_seeds():
        scores = Scores.load(path, fingerprint=session.train.fingerprint)
        _save(session, scores, session.run_dir.scores_path(seed))
        known = {name: record[name] for name in ABOUT_SCORES if name in record}
        session.run_dir.append({"event": "scored", "seed": seed, "from": str(path)} | known)


def load_scores(session: RunSession, seed: int) -> Scores:
    return Scores.load(session.run_dir.scores_path(seed), fingerprint=session.train.fingerprint)


def rows_of(run_dir: RunDir, beton: Beton, seed: int | None) -> Iterator[Any]:
    """The rows of a run's samples: with the scores of this seed where there are any, else with those of the first."""
    scored = run_dir.scored_seeds()
    if not scored:
        return sample_rows.rows_of_beton(beton)
    return sample_rows.rows_of_table(run_dir.scores_path(seed if seed in scored else scored[0]))


def score_times(session: RunSession, seed: int) -> dict[str, float]:
    """The "seconds" and "cpu_seconds" that gathering a seed's scores took."""
    record = next(record for record in session.run_dir.records("scored") if record["seed"] == seed)
    return {name: record[name] for name in TIMES if name in record}


def _save(session: RunSession, scores: Scores, path: Path) -> None:
    train = session.train
    scores.save(
        path,
        labels=train.labels,
        names=None if train.names is None else train.names.column,
        class_names=train.class_names,
        fingerprint=train.fingerprint,
    )

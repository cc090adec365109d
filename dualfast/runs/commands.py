"""What the commands run, score, train and report do.

Each step leaves a file or a line of metrics.jsonl when it is complete, and is skipped when that exists: an interrupted
command continues after its last complete step, and within a training from its latest checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dualfast.config import BASELINES, Columns, RunConfig, ScoreConfig, Scoring, TrainConfig
from dualfast.data.beton import open_beton
from dualfast.data.index_list import read_list
from dualfast.errors import DualfastError
from dualfast.runs.auditing import audit_once
from dualfast.runs.progress import Progress
from dualfast.runs.reporting import write_report
from dualfast.runs.rundir import RunDir
from dualfast.runs.scoring import score as score_seed
from dualfast.runs.session import RunSession, open_session
from dualfast.runs.trial import Trial, needs_scores, planned_images, run_trial, train_on_list, trial_of
from dualfast.scoring.trajectories import import_scores, registered, try_scores
from dualfast.selection.spec import SelectionSpec
from dualfast.training import models


def run(config: RunConfig, progress: Progress) -> tuple[RunDir, list[dict[str, Any]]]:
    """Scores, selects, retrains and reports; returns the run directory and one result row per finished trial.

    A row holds method, prune_ratio, seed, kept, n_samples, accuracy and best_accuracy (fractions of the test images,
    after the last epoch and the best tested one), score_seconds and train_seconds.
    """
    models.check(config.model)
    _import_scores(config)
    _check_methods(config)
    with open_session(config, progress, needs_test=True) as session:
        trials = _trials(config)
        finished = {trial_of(row) for row in session.run_dir.records("trained")}
        todo = [trial for trial in trials if trial not in finished]
        scored = session.run_dir.scored_seeds()
        unscored = {trial.seed for trial in todo if needs_scores(trial.method) and trial.seed not in scored}
        images = sum(planned_images(session, trial, config.score_epochs) for trial in todo)
        session.progress.plan(images + len(unscored) * session.n_samples * config.score_epochs)
        if not todo:
            path = session.run_dir.path
            session.progress.say(f"all {len(trials)} trainings are finished in {path}; delete it to run again")
        elif len(todo) < len(trials):
            session.progress.say(f"{len(trials) - len(todo)} of {len(trials)} trainings are finished; continuing")
        for trial in todo:
            if trial.seed in unscored:
                score_seed(session, config, trial.seed)
                unscored.remove(trial.seed)
            run_trial(session, trial, config)
        rows = [row for row in session.run_dir.records("trained") if trial_of(row) in set(trials)]
        audit_once(session, config)
        session.ranks.run_on_rank0("writing the report", lambda: _report(session))
    return session.run_dir, rows


def score(config: ScoreConfig, progress: Progress) -> Path:
    """Gathers the scores of one seed, unless they are there, and audits the labels; returns the path of the Parquet
    table."""
    _import_scores(config)
    with open_session(config, progress, needs_test=False) as session:
        if config.seed not in session.run_dir.scored_seeds():
            session.progress.plan(session.n_samples * config.score_epochs)
            score_seed(session, config, config.seed)
        audit_once(session, config)
        return session.run_dir.scores_path(config.seed)


def train(config: TrainConfig, progress: Progress) -> tuple[RunDir, dict[str, Any]]:
    """Trains once, on all images or on an index list; returns the run directory, with model.pt, and the result row."""
    keep = None if config.keep is None else read_list(config.keep)  # before the images are written
    with open_session(config, progress, needs_test=False) as session:
        return session.run_dir, train_on_list(session, keep, config.seed)


def report(out: str | Path) -> Path:
    """Writes report.html of a run directory again, with every finished trial, from its configuration, results, scores
    and images; returns its path. Raises ValueError when `out` is not a run directory."""
    run_dir = RunDir(out)
    requested = run_dir.requested()
    data = str(requested.get("data"))
    if not data.endswith(".beton"):
        train = open_beton(run_dir.train_beton) if run_dir.train_beton.exists() else None
    else:
        data = run_dir.find(data)
        train = open_beton(data, **Columns.among(requested)) if Path(data).exists() else None
    return write_report(run_dir, train)


def _import_scores(config: Scoring) -> None:
    if config.score_module is not None:
        import_scores(config.score_module)
        try_scores(config.score_epochs)


def _check_methods(config: RunConfig) -> None:
    for method in config.method:
        if method in BASELINES:
            continue
        try:
            needed = SelectionSpec.parse(method, prune_ratio=0).configured.columns
        except ValueError as error:
            comparisons = "" if "give one of" not in str(error) else f"; for comparison also {', '.join(BASELINES)}"
            raise ValueError(f"{error}{comparisons}") from None
        if "tdds" in needed and not config.tdds:
            raise ValueError(f"method is {method!r}, whose score is gathered on demand; give --tdds too")
        if registered().keys() & needed and config.score_module is None:
            raise ValueError(f"method is {method!r}, a score of visits over time; give --score-module MODULE too")


def _trials(config: RunConfig) -> list[Trial]:
    """All trials of a configuration: seed by seed, all images first."""
    trials = []
    for seed in config.seed:
        trials += [Trial("full", 0.0, seed)] if config.full else []
        trials += [Trial(method, ratio, seed) for ratio in config.prune_ratio for method in config.method]
    return trials


def _report(session: RunSession) -> None:
    """Writes the report; without the packages it needs, says so: a run does not fail at its end for a page."""
    session.progress.step("writing the report")
    try:
        write_report(session.run_dir, session.train)
    except ModuleNotFoundError as error:
        session.progress.note(
            f"no report.html: the package {error.name!r} is not installed; pip install 'dualfast[report]', then "
            f"dualfast report {session.run_dir.path}"
        )
    except (DualfastError, ValueError, OSError) as error:
        session.progress.note(f"no report.html: {error}")

"""What of a run directory goes into its report.html."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dualfast.config import BASELINES, DEFAULT_METHOD, RunConfig, method_options
from dualfast.data.beton import Beton
from dualfast.data.classes import check_labels
from dualfast.data.index_list import load_keep, read_sidecar
from dualfast.notices import silent
from dualfast.report import page
from dualfast.report.explorer import RATIOS
from dualfast.runs.rundir import RunDir
from dualfast.runs.trial import Trial, needs_scores, trial_of
from dualfast.scoring.table import Scores
from dualfast.selection.audit import Audit, audit
from dualfast.selection.beta import Statistics
from dualfast.selection.select import select_in_memory
from dualfast.selection.spec import SelectionSpec


def write_report(run_dir: RunDir, train: Beton | None) -> Path:
    """Writes report.html and returns its path. It shows what the first method kept with the first seed, and that
    seed's scores (else those of the first scored seed)."""
    config = run_dir.config()
    rows = list({trial_of(row): row for row in run_dir.records("trained")}.values())
    trials = [trial_of(row) for row in rows]
    scored = run_dir.scored_seeds()
    first = next((trial for trial in trials if trial.method not in ("full", *BASELINES)), None)
    seed = first.seed if first is not None and first.seed in scored else scored[0] if scored else None
    fingerprint = None if train is None else train.fingerprint
    scores, labels = None, None if train is None else train.labels
    if seed is not None:
        path = run_dir.scores_path(seed)
        scores = Scores.load(path, fingerprint=fingerprint)
        labels = Scores.about(path)["labels"] if labels is None else labels
    if labels is not None:
        check_labels(labels, lambda row: f"sample {row} of {run_dir.path}")
    selections = _Selections(run_dir, scores, labels, fingerprint)
    shown: list[Trial] = []
    if first is not None and labels is not None and (scores is not None or not needs_scores(first.method)):
        shown = sorted((t for t in trials if (t.method, t.seed) == (first.method, first.seed)), key=_ratio)
    chosen = first or (None if seed is None else Trial(DEFAULT_METHOD, 0.5, seed))
    content = page.Content(
        rows=rows,
        requested=run_dir.requested(),
        environment=config.get("environment", {}),
        labels=labels,
        data=train,
        scores=scores,
        audit=None if scores is None or labels is None else _audit(scores, labels, train),
        scored_seed=seed,
        kept={trial.prune_ratio: selections.kept(trial) for trial in shown},
        kept_by="" if chosen is None else f"{chosen.method}, seed {chosen.seed}",
        redrawn=[trial.prune_ratio for trial in shown if selections.list_of(trial) is None],
        specs={} if chosen is None or chosen.seed != seed else selections.at_all_ratios(chosen, shown),
    )
    return page.write(run_dir.report_path, content)


def _audit(scores: Scores, labels: NDArray[Any], train: Beton | None) -> Audit | None:
    """What the labels' audit finds; None where the scores do not suffice, as of few epochs."""
    try:
        return audit(scores, labels, class_names=None if train is None else train.class_names)
    except ValueError:
        return None


class _Selections:
    """The selections of a run's trials, from their index lists where these are there, else drawn again."""

    def __init__(
        self, run_dir: RunDir, scores: Scores | None, labels: NDArray[Any] | None, fingerprint: str | None
    ) -> None:
        self.run_dir, self.scores, self.labels, self.fingerprint = run_dir, scores, labels, fingerprint
        self.statistics = Statistics.of(lambda: scores, labels)
        self.specs: dict[Trial, SelectionSpec] = {}
        requested = run_dir.requested()
        self.given = {name: requested.get(name, getattr(RunConfig, name)) for name in ("c_d", "per_class")}

    def list_of(self, trial: Trial) -> Path | None:
        """The index list that a trial used: the one of its own name, else keep-<ratio>.npy if its sidecar names this
        method and seed; None if neither exists."""
        own = self.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed, first=False)
        if own.exists():
            return own
        shared = self.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed)
        method, options = method_options(trial.method)
        # c_D is a number in the sidecar, however it was given.
        expected = {key: value for key, value in options.items() if not isinstance(value, str) or key != "c_d"}
        expected |= {"method": method, "seed": trial.seed}
        return shared if shared.exists() and expected.items() <= read_sidecar(shared).items() else None

    def spec(self, trial: Trial) -> SelectionSpec:
        """The resolved spec: as saved beside the list, so that c_D auto is not resolved again; else resolved once."""
        if trial not in self.specs:
            path = self.list_of(trial)
            if path is not None and read_sidecar(path):
                self.specs[trial] = SelectionSpec.read(path, trust=True)[0]  # nothing is drawn from it
            else:
                self.specs[trial] = trial.selection(**self.given).resolve(self.statistics, silent)
        return self.specs[trial]

    def kept(self, trial: Trial) -> NDArray[Any]:
        """The ids that a trial kept."""
        assert self.labels is not None
        path = self.list_of(trial)
        if path is not None:
            try:
                return load_keep(path, n_samples=len(self.labels), fingerprint=self.fingerprint)
            except ValueError as error:
                raise ValueError(f"{error}; delete {str(path)!r} and its .json, and the page draws it again") from None
        scores = self.scores if needs_scores(trial.method) else len(self.labels)
        return select_in_memory(self.spec(trial), scores, labels=self.labels)

    def at_all_ratios(self, chosen: Trial, shown: list[Trial]) -> dict[float, SelectionSpec]:
        """The resolved specs at the ratios of the data map's slider: those of the trials shown, else what `chosen`
        would select. None where that cannot be said: the score's module is not imported, the scores do not suffice."""
        try:
            specs = {trial.prune_ratio: self.spec(trial) for trial in shown}
            for ratio in set(RATIOS) - specs.keys():
                spec = replace(chosen, prune_ratio=ratio).selection(**self.given)
                specs[ratio] = spec.resolve(self.statistics, silent)
            return specs
        except ValueError:
            return {}


def _ratio(trial: Trial) -> float:
    return trial.prune_ratio

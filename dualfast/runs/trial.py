"""One retraining of a run: the images it keeps, how it is trained, and the row that records its result."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.config import BASELINES, Recipe, RunConfig, check_ratio, ratio_text
from dualfast.data.index_list import IndexList, load_keep, read_sidecar, save_keep
from dualfast.notices import silent
from dualfast.runs.scoring import load_scores, rows_of, score_times
from dualfast.runs.session import FreshSubsets, RunSession
from dualfast.scoring.scores import Scores, columns_in
from dualfast.selection import sample_rows
from dualfast.selection.beta import Statistics
from dualfast.selection.methods import uses_scores
from dualfast.selection.quotas import class_counts, without_samples
from dualfast.selection.select import kept_count, select_in_memory
from dualfast.selection.spec import SelectionSpec
from dualfast.storage.files import atomic
from dualfast.training.fit import CrossEntropy


@dataclass(frozen=True)
class Trial:
    """One retraining of a run: on all images ("full") or on what `method` keeps at `prune_ratio`.

    draw_seed: the seed that the selection is drawn with; None: `seed`. One seed draws nested random subsets at all
    ratios.
    """

    method: str
    prune_ratio: float
    seed: int
    draw_seed: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        what = "all images" if self.method == "full" else f"{self.method} at prune ratio {ratio_text(self.prune_ratio)}"
        return f"{what}, seed {self.seed}"

    def selection(self, c_d: Any, per_class: bool) -> SelectionSpec:
        """What it keeps. c_d: the run's, unless the method's options give one."""
        seed = self.seed if self.draw_seed is None else self.draw_seed
        arguments = {"seed": seed, "c_d": c_d, "per_class": per_class}
        return SelectionSpec.parse(self.method, prune_ratio=self.prune_ratio, **arguments)


def trial_of(row: dict[str, Any]) -> Trial:
    """The trial that a result row records."""
    return Trial(row["method"], row["prune_ratio"], row["seed"])


def needs_scores(method: str) -> bool:
    """Whether a method, "full" or a baseline needs the scores of a scoring pass."""
    return method not in ("full", *BASELINES) and uses_scores(method)


def run_trial(session: RunSession, trial: Trial, config: RunConfig) -> dict[str, Any]:
    """Trains on what a trial keeps, with plain cross-entropy, and records the result; returns the row."""
    ids: NDArray[np.int64] | FreshSubsets | None = None
    if trial.method == "rs2":
        ids = FreshSubsets(session.n_samples, trial.prune_ratio, trial.seed)
    elif trial.method not in ("full", "shorter"):
        ids = keep_list(session, trial, config)
        _name_lost_classes(session, str(trial), ids)
    kept = _count(session, ids)
    recipe = recipe_for(session, trial, kept, config.score_epochs)
    _, result = session.fit(str(trial), trial.seed, CrossEntropy(recipe.label_smoothing), recipe, ids)
    times = {"seconds": 0.0, "cpu_seconds": 0.0}
    if needs_scores(trial.method):
        times = score_times(session, trial.seed)
    row = {
        "event": "trained",
        "method": trial.method,
        "prune_ratio": trial.prune_ratio,
        "seed": trial.seed,
        "kept": kept,
        "n_samples": session.n_samples,
        **result.columns(),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        **{f"score_{name}": value for name, value in times.items()},
    }
    session.record("recording the result", lambda: session.run_dir.append(row))
    session.progress.say(
        f"{trial}: kept {kept} of {session.n_samples}, {result.seconds:.1f} s, accuracy {100 * result.accuracy:.2f}%"
    )
    return row


def train_on_list(session: RunSession, keep: IndexList | None, seed: int) -> dict[str, Any]:
    """Trains on the images of the index list `keep` (None: all), as a trial of the same list would; writes model.pt (a
    state_dict), records the result and returns its row."""
    if keep is not None:
        keep.check_data(session.n_samples, session.train.fingerprint)
    ids = None if keep is None else keep.ids
    kept = _count(session, ids)
    ratio = 0.0 if keep is None else _prune_ratio_of(keep, session.n_samples)
    recipe = session.recipe.for_subset(ratio, kept, session.n_samples)
    session.progress.plan(kept * recipe.epochs)
    what = f"training on {kept} of {session.n_samples} images, seed {seed}"
    _name_lost_classes(session, what, ids)
    model, result = session.fit(what, seed, CrossEntropy(recipe.label_smoothing), recipe, ids)
    row = {
        "event": "train",
        "method": "full" if ids is None else "given list",
        "prune_ratio": ratio,
        "seed": seed,
        "kept": kept,
        "n_samples": session.n_samples,
        **result.columns(),
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


def _prune_ratio_of(keep: IndexList, n_samples: int) -> float:
    """The prune ratio that the sidecar of an index list notes; without one, the fraction that the list leaves out, in
    as few decimals as describe it: 288 of 1,438 were drawn at 0.8, not at 0.7997.

    Raises ValueError for an empty list, and a noted ratio outside [0, 1)."""
    kept = len(keep.ids)
    if not kept:
        raise ValueError(f"{str(keep.path)!r} keeps no images; give a list with at least one")
    noted = keep.about.get("prune_ratio")
    if isinstance(noted, int | float):
        check_ratio(noted)
        return float(noted)
    left_out = 1 - kept / n_samples
    rounded = (round(left_out, decimals) for decimals in range(1, 17))
    return next((ratio for ratio in rounded if ratio < 1 and kept_count(n_samples, ratio) == kept), left_out)


def keep_list(session: RunSession, trial: Trial, config: RunConfig) -> NDArray[np.int64]:
    """The ids that a trial keeps: drawn and written once, read afterwards."""
    first = trial.method == config.method[0] and trial.seed == config.seed[0]
    path = session.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed, first)
    spec = _as_in_0_1(session, trial.selection(config.c_d, config.per_class))
    loaded = cache(lambda: _scores_for(session, trial, spec))  # a table is read once, and only where it is needed
    statistics = Statistics.of(loaded, session.train.labels)
    if first and path.exists():
        resolved = spec.resolve(statistics, silent)
        if not read_sidecar(path) or SelectionSpec.read(path, trust=True)[0].sidecar() != resolved.sidecar():
            # An earlier call on this directory had another first method.
            path = session.run_dir.keep_path(trial.prune_ratio, trial.method, trial.seed, False)

    def write() -> None:
        if path.exists():
            return
        scores = loaded() if needs_scores(trial.method) else session.n_samples
        resolved = spec.resolve(statistics, lambda line: session.progress.say(f"{trial}: {line}"))
        kept = select_in_memory(resolved, scores, labels=session.train.labels)
        if session.train.names is not None:
            rows = rows_of(session.run_dir, session.train, trial.seed)
            sample_rows.write_csv(rows, kept, path.with_suffix(".csv"))
        about: dict[str, Any] = {"n_samples": session.n_samples, "fingerprint": session.train.fingerprint}
        save_keep(path, kept, **about, **resolved.sidecar())

    session.ranks.run_on_rank0(f"drawing for {trial}", write)
    return load_keep(path, fingerprint=session.train.fingerprint)


def _as_in_0_1(session: RunSession, spec: SelectionSpec) -> SelectionSpec:
    """The spec as version 0.1 meant it, where the scores of any seed lack what today's have: a run directory of 0.1
    continues as it began."""
    if spec.per_class is True and not _all_have(session, ["aum_prob"]):
        spec = replace(spec, per_class="shares")
    unsaid = {name: value for name, value in spec.configured.unsaid.items() if name not in spec.options}
    if not unsaid:
        return spec
    if _all_have(session, spec.configured.columns):
        return spec
    return replace(spec, options=dict(spec.options) | unsaid)


def _scores_for(session: RunSession, trial: Trial, spec: SelectionSpec) -> Scores:
    """The scores that a trial draws by: without late_margin where those of another seed, of 0.1, lack it, so that the
    samples of all seeds are cut by one margin."""
    scores = load_scores(session, trial.seed)
    decides = spec.mislabel_cut and "late_margin" not in spec.configured.columns
    return replace(scores, late_margin=None) if decides and not _all_have(session, ["late_margin"]) else scores


def _all_have(session: RunSession, columns: Iterable[str]) -> bool:
    """Whether the scores of every seed have these columns."""
    tables = [session.run_dir.scores_path(seed) for seed in session.run_dir.scored_seeds()]
    return all(set(columns) <= columns_in(path) for path in tables if path.exists())


def recipe_for(session: RunSession, trial: Trial, kept: int, score_epochs: int) -> Recipe:
    """How a trial trains on `kept` images. "shorter" trains on all of them for as many epochs as scoring, and training
    on the subset, cost together."""
    if trial.method == "shorter":
        subset = kept_count(session.n_samples, trial.prune_ratio)
        paid = subset * session.recipe.for_subset(trial.prune_ratio, subset, session.n_samples).epochs
        return replace(session.recipe, epochs=score_epochs + max(1, round(paid / session.n_samples)))
    return session.recipe.for_subset(trial.prune_ratio, kept, session.n_samples)


def planned_images(session: RunSession, trial: Trial, score_epochs: int) -> int:
    """The number of images that a trial trains on, counted once per epoch."""
    kept = session.n_samples if trial.method == "shorter" else kept_count(session.n_samples, trial.prune_ratio)
    return kept * recipe_for(session, trial, kept, score_epochs).epochs


def _name_lost_classes(session: RunSession, what: str, ids: NDArray[np.int64] | None) -> None:
    """Says which classes `ids` keep no image of."""
    labels = session.train.labels
    if ids is not None and (
        lost := without_samples(class_counts(labels), class_counts(labels[ids]), session.train.class_names)
    ):
        session.progress.note(f"{what}: {lost}")


def _count(session: RunSession, ids: NDArray[np.int64] | FreshSubsets | None) -> int:
    return session.n_samples if ids is None else len(ids)

"""What of a run directory goes into its report.html."""

from __future__ import annotations

from pathlib import Path

from dualfast.data.beton import Beton
from dualfast.report import page
from dualfast.runs.rundir import RunDir
from dualfast.runs.trial import draw_options, drawn, needs_scores, trial_of
from dualfast.scoring.table import Scores


def write_report(run_dir: RunDir, train: Beton | None) -> Path:
    """Writes report.html and returns its path. It shows what the first method kept with the first seed, and that
    seed's scores (else those of the first scored seed)."""
    config, rows = run_dir.config(), run_dir.records("trained")
    rows = list({trial_of(row): row for row in rows}.values())
    scored = run_dir.scored_seeds()
    first = next((trial_of(row) for row in rows if row["method"] != "full"), None)
    seed = first.seed if first is not None and first.seed in scored else scored[0] if scored else None
    scores, labels = None, None if train is None else train.labels
    if seed is not None:
        path = run_dir.scores_path(seed)
        scores = Scores.load(path, fingerprint=None if train is None else train.fingerprint)
        labels = Scores.about(path)["labels"] if labels is None else labels
    kept, kept_by = {}, ""
    if first is not None and labels is not None:
        ours = [t for t in map(trial_of, rows) if (t.method, t.seed) == (first.method, first.seed)]
        ours.sort(key=lambda trial: trial.prune_ratio)
        given = scores if needs_scores(first.method) else len(labels)
        asked = config["asked"]
        if given is not None:
            how = {t: draw_options(t, asked["c_d"], asked["per_class"], lambda: given) for t in ours}
            kept = {t.prune_ratio: drawn(t, given, labels, how[t]) for t in ours}
            kept_by = f"{first.method}, seed {first.seed}"
    content = page.Content(
        rows=rows,
        asked=config["asked"],
        environment=config.get("environment", {}),
        labels=labels,
        data=train,
        scores=scores,
        scored_seed=seed,
        kept=kept,
        kept_by=kept_by,
    )
    return page.write(run_dir.report_path, content)

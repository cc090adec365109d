"""What `dualfast demo` does: a run on digits of which some labels are wrong, and what it shows, in three sentences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.config import RunConfig
from dualfast.data.sources.sklearn_digits import NOISY_NAME, WRONG, digits, wrong_labels
from dualfast.report.summary import groups, headline
from dualfast.runs import commands
from dualfast.runs.auditing import audit
from dualfast.runs.progress import Progress
from dualfast.runs.rundir import RunDir

CONFIG = RunConfig(
    data=NOISY_NAME,
    epochs=60,
    score_epochs=12,
    prune_ratio=(0.3, 0.5, 0.7, 0.9),
    method=("dual+beta", "random"),
    seed=(0, 1),
    tests=1,
)


def demo(out: str, progress: Progress) -> tuple[RunDir, list[dict[str, Any]], list[str]]:
    """Runs the demo in the run directory `out`; returns it, a result row per training, and the sentences."""
    images, labels = digits()
    progress.say(
        f"{len(images):,} handwritten digits, {WRONG:.0%} of them with a wrong label: scores them in "
        f"{CONFIG.score_epochs} epochs, selects {', '.join(f'{1 - ratio:.0%}' for ratio in CONFIG.prune_ratio)} of "
        f"them, and trains on what it selected for {CONFIG.epochs} epochs; seeds {', '.join(map(str, CONFIG.seed))}"
    )
    run_dir, rows = commands.run(replace(CONFIG, out=out), progress)
    return run_dir, rows, [_cost(rows), headline(groups(rows))[0], _found(run_dir, wrong_labels(labels)[1])]


def _cost(rows: list[dict[str, Any]]) -> str:
    """What scoring costs."""
    full = np.mean([row["train_seconds"] for row in rows if row["method"] == "full"])
    scoring = np.mean([row["score_seconds"] for row in rows if row["score_seconds"]])
    return (
        f"Scoring took {CONFIG.score_epochs} epochs, {100 * scoring / full:.0f}% of the time of one training on all "
        "images, and serves every ratio."
    )


def _found(run_dir: RunDir, wrong: NDArray[np.int64]) -> str:
    """How many of the labels that are known to be wrong the audit found."""
    audited, path = audit(run_dir.path, None)
    first = audited.ranking[: 2 * len(wrong)]
    caught = int(np.isin(wrong, first).sum())
    return f"Of the {len(wrong)} wrong labels, {caught} are among the {len(first)} that look most suspicious: {path}"

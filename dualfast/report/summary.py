"""The numbers of a run and the sentences that state them: means over seeds, paired differences, the headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualfast.config import BASELINES, ratio_text
from dualfast.selection.methods import uses_scores

COLUMNS = ("prune ratio", "kept", "method", "accuracy %", "spread", "best %", "scoring s", "training s", "seeds")
TOLERATED_LOSS = 1.0  # points of accuracy; the headline states the largest prune ratio that loses no more


@dataclass(frozen=True)
class Group:
    """The trainings of one method at one prune ratio: means over seeds; accuracies in %, times in seconds.

    spread: sample standard deviation of the accuracy over seeds, None for one seed. by_seed: accuracy of each seed.
    """

    prune_ratio: float
    method: str
    kept: int
    n_samples: int
    accuracy: float
    spread: float | None
    best: float
    score_seconds: float
    train_seconds: float
    by_seed: Mapping[int, float]

    @property
    def seconds(self) -> float:
        return self.score_seconds + self.train_seconds


def groups(rows: list[dict[str, Any]]) -> list[Group]:
    """Result rows grouped by prune ratio and method, sorted by ratio; within a ratio "full" comes first, then the
    methods in order of first appearance."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    keys = {(row["prune_ratio"], row["method"]) for row in rows}
    ordered = sorted(keys, key=lambda key: (key[0], key[1] != "full", methods.index(key[1])))
    return [_group([row for row in rows if (row["prune_ratio"], row["method"]) == key]) for key in ordered]


def _group(rows: list[dict[str, Any]]) -> Group:
    by_seed = {row["seed"]: 100 * row["accuracy"] for row in rows}
    return Group(
        prune_ratio=rows[0]["prune_ratio"],
        method=rows[0]["method"],
        kept=rows[0]["kept"],
        n_samples=rows[0]["n_samples"],
        accuracy=float(np.mean(list(by_seed.values()))),
        spread=_spread(list(by_seed.values())),
        best=100 * float(np.mean([row["best_accuracy"] for row in rows])),
        score_seconds=float(np.mean([row["score_seconds"] for row in rows])),
        train_seconds=float(np.mean([row["train_seconds"] for row in rows])),
        by_seed=by_seed,
    )


def summarise(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The results table: for each group of rows, its cells as text in the order of COLUMNS."""
    return [
        [
            ratio_text(group.prune_ratio),
            str(group.kept),
            group.method,
            f"{group.accuracy:.2f}",
            "-" if group.spread is None else f"{group.spread:.2f}",
            f"{group.best:.2f}",
            f"{group.score_seconds:.1f}",
            f"{group.train_seconds:.1f}",
            str(len(group.by_seed)),
        ]
        for group in groups(rows)
    ]


def _spread(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class Difference:
    """Accuracy of one group minus that of another, in points: the mean and the standard deviation (None for one seed)
    of the per-seed differences over the seeds they share. Without a shared seed, the difference of the means."""

    points: float
    spread: float | None

    @classmethod
    def of(cls, group: Group, baseline: Group) -> Difference:
        shared = [group.by_seed[seed] - baseline.by_seed[seed] for seed in group.by_seed if seed in baseline.by_seed]
        if not shared:
            return cls(group.accuracy - baseline.accuracy, None)
        return cls(float(np.mean(shared)), _spread(shared))

    def __str__(self) -> str:
        text = f"{abs(self.points):.1f}"
        if self.spread is not None:
            text += f" ± {self.spread:.1f}"
        return f"{'gains' if round(self.points, 1) > 0 else 'costs'} {text} points"


def headline(results: list[Group]) -> tuple[str, list[str]]:
    """The result of a run in one sentence, and the notes needed to read it correctly, one sentence each.

    The sentence is about the first method other than random, at the largest prune ratio that loses at most
    TOLERATED_LOSS points, and compares it with all images and with random selection where the run has those.
    """
    full = next((group for group in results if group.method == "full"), None)
    pruned = [group for group in results if group.method != "full"]
    if not pruned:
        if full is None:
            return "No training of this run has finished yet.", []
        return f"Trained on all {full.n_samples:,} images, the network reaches {_percent(full)} on the test images.", []
    chosen, reason = _chosen(pruned, full)
    random = next(
        (
            group
            for group in pruned
            if is_random(group.method) and group.prune_ratio == chosen.prune_ratio and group is not chosen
        ),
        None,
    )
    notes = [reason, _seeds_note(chosen)]
    if random is not None and (note := _random_note(chosen, random)):
        notes.append(note)
    notes.append(
        "Accuracy is measured after the last epoch. Times are seconds on the machine named below, without the time "
        "spent on testing; other load on that machine lengthens them."
    )
    return _sentence(chosen, full, random), notes


def is_baseline(method: str) -> bool:
    """Whether a method, not "full", uses no scores: what the others are compared with."""
    return method in BASELINES or not uses_scores(method)


def is_random(method: str) -> bool:
    """Whether a method selects, and without scores."""
    return method not in BASELINES and not uses_scores(method)


def _chosen(pruned: list[Group], full: Group | None) -> tuple[Group, str]:
    """The group that the headline is about, and why."""
    methods = list(dict.fromkeys(group.method for group in pruned))
    method = next((name for name in methods if not is_baseline(name)), methods[0])
    candidates = [group for group in pruned if group.method == method]
    best = max(candidates, key=lambda group: group.accuracy)
    if full is None:
        return best, f"This is the prune ratio at which {method} is most accurate; the run did not train on all images."
    tolerable = [g for g in candidates if round(Difference.of(g, full).points, 9) >= -TOLERATED_LOSS]
    limit = f"{TOLERATED_LOSS:g} point compared with training on all images"
    if tolerable:
        return tolerable[-1], f"This is the largest prune ratio at which {method} loses at most {limit}."
    return best, f"{method} loses more than {limit} at every prune ratio; this is the ratio with its highest accuracy."


def _sentence(chosen: Group, full: Group | None, random: Group | None) -> str:
    how = "at random" if is_baseline(chosen.method) else f"with {chosen.method}"
    share = f"{100 * chosen.kept / chosen.n_samples:.3g}%"
    sentence = f"Keeping {share} of {chosen.n_samples:,} images {how} "
    if full is None:
        sentence += f"reaches {_percent(chosen)} on the test images"
        return sentence + (f"; random selection reaches {_percent(random)}." if random is not None else ".")
    sentence += f"{Difference.of(chosen, full)} of test accuracy compared with training on all of them"
    if full.train_seconds > 0:
        sentence += f" and takes {_ratio(chosen.train_seconds, full.train_seconds)} of the training time"
        if chosen.score_seconds > 0:
            sentence += f" ({_ratio(chosen.seconds, full.train_seconds)} including scoring)"
    return sentence + (f"; random selection {Difference.of(random, full)}." if random is not None else ".")


def _seeds_note(chosen: Group) -> str:
    seeds = len(chosen.by_seed)
    if seeds == 1:
        return "Only one seed was run, so a difference cannot be told from chance."
    return f"Means over {seeds} seeds; ± is the standard deviation over seeds."


def _random_note(chosen: Group, random: Group) -> str | None:
    """A warning where the seeds do not separate the chosen method from random selection."""
    difference = Difference.of(chosen, random)
    if round(difference.points, 1) == 0:
        return f"At this prune ratio {chosen.method} and random selection are equally accurate."
    if difference.spread is not None and abs(difference.points) <= difference.spread:
        return (
            f"At this prune ratio {chosen.method} and random selection differ by {abs(difference.points):.1f} points, "
            f"within the difference's standard deviation of {difference.spread:.1f}: these seeds do not tell them "
            "apart."
        )
    return None


def _percent(group: Group) -> str:
    return f"{group.accuracy:.1f}%" + ("" if group.spread is None else f" ± {group.spread:.1f}")


def _ratio(part: float, whole: float) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 1 else "less than 1%"

"""Reads the result lines of the grids and makes Markdown tables of them."""

from __future__ import annotations

import json
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.config import method_options, published

Row = dict[str, Any]

AUTO = "dual+beta:c_d=auto"
CCS_ON_LOGITS = "ccs:score=aum"

# Test accuracy in %, read off the authors' chart to 0.1 (arXiv 2502.06905, ResNet-18, 200 epochs). None: off the chart.
PUBLISHED_RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)
PUBLISHED: dict[str, dict[str, tuple[float | None, ...]]] = {
    "CIFAR-10": {
        "dual+beta": (95.5, 95.2, 93.0, 91.4, 87.1),
        "ccs": (95.3, 95.1, 92.7, 91.3, 85.9),
        "dyn_unc": (95.5, 95.4, 91.8, 83.3, None),
        "el2n": (95.4, 95.2, 91.6, None, None),
        "random": (94.4, 93.2, 90.5, 88.3, 83.7),
    },
    "CIFAR-100": {
        "dual+beta": (77.8, 74.7, 69.2, 64.7, 54.6),
        "ccs": (77.1, 73.8, 68.6, 64.1, 54.4),
        "dyn_unc": (77.6, 74.1, 64.4, 55.0, None),
        "el2n": (77.1, 69.0, None, None, None),
        "random": (75.0, 71.6, 64.7, 59.0, 45.0),
    },
}
DATA = {
    "cifar10": "CIFAR-10 (JPEG-compressed copy)",
    "cifar-10-binary": "CIFAR-10",
    "cifar-100-binary": "CIFAR-100",
    "digits": "digits",
}
SETTING = ("data", "n_samples", "scenario", "model", "score_model", "recipe", "compute", "options")


def read(path: Path) -> list[Row]:
    """The complete lines of a results file; where a training occurs twice, its last line. The rows of ccs from when it
    covered the margin of logits are named after that."""
    latest: dict[str, Row] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        row = json.loads(line)
        if row["method"] == "ccs" and "score=" not in row["as"]:
            row["method"] = CCS_ON_LOGITS
        latest[json.dumps([row[name] for name in (*SETTING, "method", "ratio", "seed")], sort_keys=True)] = row
    return list(latest.values())


def settings(rows: Iterable[Row], *ignored: str) -> list[list[Row]]:
    """The rows grouped by all of SETTING but the `ignored` fields; the groups in order of appearance."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        key = json.dumps([row[name] for name in SETTING if name not in ignored], sort_keys=True)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def published_of(row: Row) -> str | None:
    return next((name for name in ("CIFAR-100", "CIFAR-10") if DATA.get(row["data"], "").startswith(name)), None)


@dataclass(frozen=True)
class Mean:
    """Mean and sample standard deviation over seeds; the latter is NaN for one seed."""

    value: float
    spread: float
    seeds: int

    @classmethod
    def of(cls, values: list[float]) -> Mean:
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        return cls(statistics.fmean(values), spread, len(values))

    def __str__(self) -> str:
        return f"{self.value:.1f}" if math.isnan(self.spread) else f"{self.value:.1f} ± {self.spread:.1f}"


def methods(rows: Iterable[Row]) -> list[str]:
    """In order of appearance, with methods that differ only in c_D side by side, auto last."""
    given = list(dict.fromkeys(row["method"] for row in rows))
    names = [method.partition(":")[0] for method in given]

    def place(method: str) -> tuple[int, float]:
        c_d = c_d_of_method(method)
        return names.index(method.partition(":")[0]), math.inf if c_d == "auto" else c_d or 0

    return sorted(given, key=place)


def c_d_of_method(method: str) -> Any:
    """The c_D that a method's options give, as a number or "auto"; None where they give none."""
    return published(method_options(method)[1].get("c_d"))


def ratios(rows: Iterable[Row]) -> list[float]:
    return sorted({row["ratio"] for row in rows if row["method"] != "full"})


def remarks(rows: Iterable[Row]) -> list[str]:
    """What a reader of these rows must know: which ccs they have, and whether auto was fitted to them."""
    present, out = {row["method"] for row in rows}, []
    if CCS_ON_LOGITS in present:
        out += [
            f"`{CCS_ON_LOGITS}` is CCS on the margin of logits; `ccs` takes that of probabilities, as its authors do."
        ]
    if AUTO in present and any(published_of(row) == "CIFAR-10" for row in rows):
        out += ["The rule of `c_d=auto` was fitted to test accuracies on CIFAR-10, so its figures here are in-sample."]
    return [" ".join(out), ""] if out else []


def means(rows: Iterable[Row], method: str, ratio: float, value: str = "accuracy", scale: float = 100) -> Mean | None:
    values = [scale * row[value] for row in rows if row["method"] == method and row["ratio"] == ratio]
    return Mean.of(values) if values else None


def over_seeds(rows: Iterable[Row]) -> str:
    """ "one seed", or that the figures of a group are means over so many seeds."""
    counts = Counter((row["method"], row["ratio"]) for row in rows).values()
    if max(counts) == 1:
        return "one seed"
    seeds = str(max(counts)) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return f"mean and standard deviation over {seeds} seeds"


def title(row: Row) -> str:
    """The setting of a row in words: data, scenario, network, recipe."""
    data = DATA.get(row["data"], row["data"])
    scored = f", scored with {row['score_model']}" if row["score_model"] else ""
    kind, _, rate = row["scenario"].partition("=")
    change = {"noise": "wrong labels", "corrupt": "corrupted images"}.get(kind)
    scenario = f", {100 * float(rate):g}% {change}" if change else ""
    steps = ", as many steps as training on all images" if row["compute"] == "steps" else ""
    network = f"network {row['model']}{scored}"
    return f"{data}, {row['n_samples']:,} images{scenario}, {network}, recipe {row['recipe']}{steps}"


def rerun_command(row: Row) -> str:
    """The command that repeats one training. Where the row records the number of threads, a CPU repeats the accuracy
    exactly."""
    defaults = {"data": "cifar10", "images": 0, "scenario": "clean", "score_model": ""}
    words = ["python", "benchmarks/accuracy/run.py", "point"]
    for name in ("data", "recipe", "images", "scenario", "model", "score_model", "compute", "method", "ratio", "seed"):
        if row[name] != defaults.get(name):
            words += [f"--{name.replace('_', '-')}", str(row[name])]
    options = [f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in row["options"].items()]
    threads = ["--threads", str(row["threads"])] if "threads" in row else []
    return shlex.join([*words, *threads, *(["--set", *options] if options else [])])


def one_of(group: list[Row]) -> Row:
    """The row that serves as the example of a group: the highest ratio, dual+beta where there is one."""
    return max(group, key=lambda row: (row["ratio"], row["method"] == "dual+beta", -row["seed"]))


def markdown(head: list[str], lines: Iterable[list[Any]]) -> list[str]:
    def line(cells: list[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(cells) for cells in lines), ""]


def timed(rows: Iterable[Row]) -> list[Row]:
    """The rows from the machine with the most rows, each with its `score` and `train` seconds.

    The recipe cpu counts processor seconds, which other load on the machine hardly affects; the others count wall-clock
    seconds. All methods share one scoring run per seed, so every row that needs scores gets the median over those runs.
    """
    rows = list(rows)
    machine = Counter(row["machine"] for row in rows).most_common(1)[0][0]
    unit = "cpu_seconds" if rows[0]["recipe"] == "cpu" else "seconds"
    rows = [row for row in rows if row["machine"] == machine]
    scoring_runs = {row[f"score_{unit}"] for row in rows} - {0}
    score = statistics.median(scoring_runs) if scoring_runs else 0.0
    return [row | {"score": score if row[f"score_{unit}"] else 0.0, "train": row[f"train_{unit}"]} for row in rows]


def seconds_unit(row: Row) -> str:
    return "processor seconds" if row["recipe"] == "cpu" else "seconds"


def accuracy_table(rows: list[Row]) -> list[str]:
    """Methods by ratios: accuracy after the last epoch in %, mean and standard deviation over the seeds."""
    at = ratios(rows)
    lines = [
        [method, *(means(rows, method, ratio) or "-" for ratio in at)] for method in methods(rows) if method != "full"
    ]
    return markdown(["prune ratio", *(f"{ratio:g}" for ratio in at)], lines)


def best_table(rows: list[Row]) -> list[str]:
    """The same at the best tested epoch, which is chosen on the test images."""
    at = ratios(rows)
    lines = [
        [method, *(means(rows, method, ratio, "best_accuracy") or "-" for ratio in at)]
        for method in methods(rows)
        if method != "full"
    ]
    return markdown(["prune ratio", *(f"{ratio:g}" for ratio in at)], lines)


def altered_table(rows: list[Row]) -> list[str]:
    """The share of altered images among those kept, in %; for random it is about their share in the data."""
    at = ratios(rows)
    shares = [row | {"share": row["altered_kept"] / row["kept"]} for row in rows]
    lines = [[m, *(means(shares, m, ratio, "share") or "-" for ratio in at)] for m in methods(rows) if m != "full"]
    what = "wrong labels" if rows[0]["scenario"].startswith("noise") else "corrupted images"
    return markdown([f"{what} among the images kept, %", *(f"{ratio:g}" for ratio in at)], lines)


def time_table(rows: list[Row]) -> list[str]:
    """Seconds of scoring and of training, their sum, and the sum relative to training on all images."""
    rows = timed(rows)
    full = means(rows, "full", 0.0, "train", 1)
    lines = []
    for method in ("random", "dual+beta"):
        for ratio in ratios(rows):
            train = means(rows, method, ratio, "train", 1)
            score = means(rows, method, ratio, "score", 1)
            if train and score:
                total = train.value + score.value
                relative = f"{total / full.value:.2f}" if full else "-"
                seconds = [f"{score.value:,.0f}", f"{train.value:,.0f}", f"{total:,.0f}"]
                lines.append([method, f"{ratio:g}", *seconds, relative])
    if not lines:
        return []
    head = [f"{seconds_unit(rows[0])} on {rows[0]['machine']}", "prune ratio", "scoring", "training", "total"]
    return markdown([*head, "relative to training on all images"], lines)


def section(grid: str, rows: list[Row]) -> list[str]:
    """The tables of one grid."""
    out = []
    for group in settings(rows):
        first = group[0]
        epochs = sorted({row["epochs"] for row in group if row["method"] == "full"})
        full = means(group, "full", 0.0)
        out += [f"### {title(first)}, T = {first['score_epochs']}", ""]
        about = [f"Test accuracy in % after the last epoch, {over_seeds(group)}"]
        if full:
            about += [f"training on all images ({epochs[0]} epochs): {full}"]
        commits = sorted({row["commit"][:8] for row in group})
        machines = sorted({f"{row['machine']}, {row['cores']} cores" for row in group})
        about += [*machines, f"commit {', '.join(commits)}"]
        out += ["; ".join(about) + ".", "", *accuracy_table(group), *remarks(group)]
        out += ["To repeat one of these trainings:", "", "```sh", rerun_command(one_of(group)), "```", ""]
        if first["altered"]:
            out += altered_table(group)
        if grid in ("cpu", "fast", "paper", "imagenet") and first["compute"] == "epochs":
            out += ["At the best tested epoch, which is chosen on the test images and hence optimistic:", ""]
            out += [*best_table(group), *time_table(group)]
    for name in dict.fromkeys(filter(None, map(published_of, rows))):
        if grid in ("cpu", "fast", "paper"):
            out += [f"### Published: {name}", ""]
            out += ["ResNet-18, 200 epochs, read off a chart of arXiv 2502.06905 (±0.1).", ""]
            out += published_table(name)
    return out


def published_table(name: str) -> list[str]:
    lines = [[f"{m} (published)", *("-" if v is None else v for v in PUBLISHED[name][m])] for m in PUBLISHED[name]]
    return markdown(["prune ratio", *(f"{ratio:g}" for ratio in PUBLISHED_RATIOS)], lines)


C_D_NOTES = """\
Test accuracy (%) of dual+beta for swept values of c_D and for c_d=auto; T is the number of scoring epochs. "auto -
best" compares auto with the best swept value, which as the best of several trainings is ahead partly by chance. Two
columns allow for that: "sweep at auto's c_d - best" replaces auto's own training by the sweep, interpolated at the c_D
that auto chose; "auto - best of the other seeds" compares auto, on each seed, with the value best on the other seeds.
All of these are in-sample: the rule of auto was fitted to test accuracies of such sweeps.
"""


def c_d_table(rows: list[Row]) -> list[str]:
    """auto against the best swept value for each network, T and ratio (C_D_NOTES explains the columns); then each swept
    value, and auto, summarised over all of these."""
    lines, against_others = [], []
    gaps: dict[str, list[tuple[float, float]]] = {}  # by c_D: points over the best swept value, points over random
    for group in settings(rows, "options"):
        for epochs in sorted({row["score_epochs"] for row in group}):
            for ratio in ratios(group):
                swept, auto, random, chosen = c_d_of(group, epochs, ratio)
                if not (swept and auto and random):
                    continue
                best = max(swept, key=lambda value: swept[value].value)
                interpolated = np.interp(math.log(chosen), np.log(list(swept)), [mean.value for mean in swept.values()])
                accuracies = {f"{value:g}": mean.value for value, mean in swept.items()}
                accuracies |= {"auto": auto.value, "sweep interpolated at auto's c_d": float(interpolated)}
                for name, value in accuracies.items():
                    gaps.setdefault(name, []).append((value - swept[best].value, value - random.value))
                cells = [f"{swept[best]} (c_d {best:g})", f"{auto} (c_d {chosen:g})"]
                cells += [_signed(value - swept[best].value) for value in (auto.value, interpolated)]
                other = _auto_against_others(group, epochs, ratio)
                against_others += [other] if other is not None else []
                cells += ["-" if other is None else _signed(other), _signed(auto.value - random.value)]
                lines.append([group[0]["model"], epochs, f"{ratio:g}", random, *cells])
    if not lines:
        return []
    head = ["network", "T", "prune ratio", "random", "best swept", "auto", "auto - best", "sweep at auto's c_d - best"]
    head += ["auto - best of the other seeds", "auto - random"]
    summary = _c_d_summary({name: pairs for name, pairs in gaps.items() if len(pairs) == len(lines)}, against_others)
    return [*C_D_NOTES.splitlines(), "", *markdown(head, lines), *summary, *_fewer_epochs(rows)]


def _c_d_summary(gaps: dict[str, list[tuple[float, float]]], against_others: list[float]) -> list[str]:
    """Each value of c_D over all settings. gaps: by value, (points over the best swept, points over random) each."""
    lines = [
        [
            name,
            _signed(statistics.fmean(over_best)),
            _signed(min(over_best)),
            f"{sum(lead < 0 for lead in over_random)} of {len(over_random)}",
        ]
        for name, pairs in gaps.items()
        for over_best, over_random in [tuple(zip(*pairs, strict=True))]
    ]
    if against_others:
        name = "auto, against the value best on the other seeds"
        lines.append([name, _signed(statistics.fmean(against_others)), _signed(min(against_others)), ""])
    return markdown(["c_d", "mean points relative to the best swept", "lowest", "settings below random"], lines)


def _fewer_epochs(rows: list[Row]) -> list[str]:
    """What auto loses with scores of fewer epochs, on average over the ratios that both have."""
    lines = []
    for group in settings(rows, "options"):
        *fewer, most = sorted({row["score_epochs"] for row in group})
        for epochs in fewer:
            pairs = [[c_d_of(group, e, ratio)[1] for e in (epochs, most)] for ratio in ratios(group)]
            leads = [few.value - many.value for few, many in pairs if few and many]
            if leads:
                change = f"auto changes by {_signed(statistics.fmean(leads))} points, mean over the ratios"
                lines.append(f"- {group[0]['model']}: with scores of {epochs} epochs instead of {most}, {change}.")
    return [*lines, ""] if lines else []


def _auto_against_others(rows: list[Row], epochs: int, ratio: float) -> float | None:
    """Points by which auto is ahead of the swept value that is best on the other seeds, mean over seeds."""
    leads = []
    for seed in {row["seed"] for row in rows}:
        swept, auto, *_ = c_d_of([row for row in rows if row["seed"] == seed], epochs, ratio)
        others = c_d_of([row for row in rows if row["seed"] != seed], epochs, ratio)[0]
        if not auto or not others or not set(others) <= set(swept):
            return None
        leads.append(auto.value - swept[max(others, key=lambda value: others[value].value)].value)
    return statistics.fmean(leads)


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # + 0.0: no -0.0


def c_d_of(rows: list[Row], epochs: int, ratio: float) -> tuple[dict[float, Mean], Mean | None, Mean | None, float]:
    """Accuracy by swept c_D, of auto and of random, and the mean of auto's choices. Random needs no scores, so its rows
    serve every T."""
    at_t = [row for row in rows if row["score_epochs"] == epochs]
    swept = {}
    for method in methods(at_t):
        value = c_d_of_method(method)
        if value not in (None, "auto") and (mean := means(at_t, method, ratio)):
            swept[float(value)] = mean
    chosen = means(at_t, AUTO, ratio, "c_d", 1)
    auto_c_d = chosen.value if chosen else math.nan
    return dict(sorted(swept.items())), means(at_t, AUTO, ratio), means(rows, "random", ratio), auto_c_d

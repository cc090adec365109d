"""Generates docs/results.md, its figures and the tables in README.md and docs/measured.md from benchmarks/results:
`make results`.

Uses the result files that exist; the same files give the same bytes."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from _harness import RESULTS
from readme import blocks, fill_pages
from speed import speed_tables
from tables import (
    AUTO,
    CCS_ON_LOGITS,
    PUBLISHED,
    PUBLISHED_RATIOS,
    Row,
    c_d_of,
    c_d_table,
    means,
    methods,
    over_seeds,
    published_of,
    ratios,
    read,
    seconds_unit,
    section,
    settings,
    timed,
    title,
)

DOCS = RESULTS.parent.parent / "docs"
# The main methods have colours of Okabe and Ito's palette; the others are thin grey lines with different markers.
MAIN = {
    "dual+beta": ("#0072B2", "o"),
    AUTO: ("#56B4E9", "*"),
    "random": ("#E69F00", "D"),
    "dual": ("#D55E00", "s"),
    "ccs": ("#009E73", "^"),
    CCS_ON_LOGITS: ("#009E73", "^"),
    "dyn_unc": ("#CC79A7", "v"),
}
OTHER_MARKERS = ("P", "X", "<", ">", "h", "p", "d", "8")
ACCURACY_LABEL = "test accuracy after the last epoch (%)"
INK, GRID = "#2b2c2e", "#e3e4e6"
STYLE = {
    "svg.hashsalt": "dualfast",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "errorbar.capsize": 2,
}


def look(method: str, others: list[str]) -> dict[str, Any]:
    """Matplotlib's line options for a method. others: all methods of the figure that are not in MAIN."""
    base = "dual+beta" if method.startswith("dual+beta:c_d=") and not method.endswith("auto") else method
    if base in MAIN:
        colour, marker = MAIN[base]
        style = "--" if base == "random" else "-"
        size = 9 if marker == "*" else 5
        return {"color": colour, "marker": marker, "lw": 1.8, "ms": size, "ls": style, "zorder": 3}
    marker = OTHER_MARKERS[others.index(method) % len(OTHER_MARKERS)]
    return {"color": "#8a8f98", "marker": marker, "lw": 0.8, "ms": 4, "zorder": 2}


def _others(names: list[str]) -> list[str]:
    return [method for method in names if method not in MAIN and not method.startswith("dual+beta")]


def _limits(axes: Any, rows: list[Row]) -> None:
    """Limits the y axis to accuracies near random or better; those far below it are only in the table."""
    values = [100 * row["accuracy"] for row in rows]
    base = [100 * row["accuracy"] for row in rows if row["method"] == "random"] or values
    low, high = min(base), max(values)
    floor = max(min(values), low - 0.4 * (high - low))
    axes.set_ylim(floor - 0.02 * (high - floor) - 0.2, high + 0.04 * (high - floor) + 0.2)


def accuracy(rows: list[Row]) -> Any:
    """Accuracy against prune ratio: a panel per setting, and one of the published figures."""
    groups = settings(rows)
    name = published_of(rows[0]) if any(row["scenario"] == "clean" and not row["score_model"] for row in rows) else None
    panels = len(groups) + (name is not None)
    columns = min(panels, 3)
    lines = math.ceil(panels / columns)
    figure, grid = plt.subplots(lines, columns, figsize=(5.2 * columns + 1.8, 4.4 * lines), squeeze=False)
    spots = list(grid.flat)
    for axes, group in zip(spots, groups, strict=False):
        names = methods(group)
        others = _others(names)
        for method in sorted((m for m in names if m != "full"), key=lambda m: m in MAIN):
            points = [(ratio, mean) for ratio in ratios(group) if (mean := means(group, method, ratio))]
            spread = [0 if math.isnan(mean.spread) else mean.spread for _, mean in points]
            x, y = [ratio for ratio, _ in points], [mean.value for _, mean in points]
            axes.errorbar(x, y, spread, label=method, **look(method, others))
        full = means(group, "full", 0.0)
        if full:
            axes.axhline(full.value, color="#808080", ls=":", lw=1.2, label="full (all images)")
        axes.set_title(f"{_wrapped(title(group[0]))}\n{over_seeds(group)}")
        axes.set_ylabel(ACCURACY_LABEL)
        _ratio_axis(axes, ratios(group))
        _limits(axes, group)
    if name is not None:
        axes = spots[len(groups)]
        others = _others(list(PUBLISHED[name]))
        for method, published in PUBLISHED[name].items():
            points = [(r, v) for r, v in zip(PUBLISHED_RATIOS, published, strict=True) if v is not None]
            axes.plot(*zip(*points, strict=True), label=method, **look(method, others), alpha=0.75)
        axes.set_title(
            f"PUBLISHED, not measured here: {name}, ResNet-18, 200 epochs\n(read off a chart of arXiv 2502.06905, ±0.1)"
        )
        _ratio_axis(axes, list(PUBLISHED_RATIOS))
        axes.set_facecolor("#f6f6f4")
    for axes in spots[panels:]:
        axes.set_visible(False)
    _legend(figure, spots[:panels])
    return figure


def total_time(rows: list[Row]) -> Any:
    """Accuracy against the seconds of scoring and training, where every point includes the full scoring time; for auto
    also against the seconds of each further training, which reuses the scores."""
    groups = [group for group in settings(rows) if group[0]["compute"] == "epochs" and group[0]["scenario"] == "clean"]
    if not groups:
        return None
    figure, grid = plt.subplots(1, len(groups), figsize=(7 * len(groups), 4.8), squeeze=False)
    for axes, group in zip(grid.flat, groups, strict=True):
        names = [method for method in methods(group) if method != "full"]
        group = timed(group)
        totals = [row | {"total": row["score"] + row["train"]} for row in group]
        labelled = (AUTO if AUTO in names else "dual+beta", "random")
        for method in sorted(names, key=lambda m: m in MAIN):
            at = [ratio for ratio in ratios(group) if means(group, method, ratio)]
            seconds = [means(totals, method, ratio, "total", 1).value for ratio in at]
            values = [means(group, method, ratio).value for ratio in at]
            axes.plot(seconds, values, label=method, **look(method, _others(names)))
            if method == labelled[0]:  # later trainings reuse the scores
                later = [means(group, method, ratio, "train", 1).value for ratio in at]
                style = look(method, []) | {"ls": ":", "mfc": "white"}
                axes.plot(later, values, label=f"{method}, each further training", **style)
            if method in labelled:
                for ratio, x, y in zip(at, seconds, values, strict=True):
                    place = (0, -13) if method == "random" else (-6, 5)
                    align = "center" if method == "random" else "right"
                    axes.annotate(f"{ratio:g}", (x, y), place, textcoords="offset points", ha=align, fontsize=8)
        full, seconds = means(group, "full", 0.0), means(group, "full", 0.0, "train", 1)
        if full and seconds:
            axes.plot(seconds.value, full.value, "o", ms=9, color="#808080", label="full (all images)")
            axes.axvline(seconds.value, color="#808080", lw=1, ls=":")
        axes.set_xlim(left=0)
        _limits(axes, group)
        axes.set_xlabel(f"scoring + training, {seconds_unit(group[0])} (labels: prune ratio)")
        axes.set_ylabel(ACCURACY_LABEL)
        axes.set_title(_wrapped(title(group[0]), 90))
    _legend(figure, list(grid.flat))
    return figure


def c_d_sweep(rows: list[Row]) -> Any:
    """Points over random against c_D, one line per ratio; stars mark the values that auto chose."""
    panels = []
    for group in settings(rows, "options"):
        for epochs in sorted({row["score_epochs"] for row in group}):
            sweeps = [c_d_of(group, epochs, ratio) for ratio in ratios(group)]
            if any(swept and random for swept, _, random, _ in sweeps):
                panels.append((group, epochs))
    if not panels:
        return None
    figure, grid = plt.subplots(1, len(panels), figsize=(3.7 * len(panels) + 1.2, 4.2), squeeze=False, sharey=True)
    colours = dict(zip(ratios(rows), ("#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00"), strict=False))
    for axes, (group, epochs) in zip(grid.flat, panels, strict=True):
        for ratio, colour in colours.items():
            swept, auto, random, chosen = c_d_of(group, epochs, ratio)
            if not swept or random is None:
                continue
            spread = [0 if math.isnan(mean.spread) else mean.spread for mean in swept.values()]
            lead = [mean.value - random.value for mean in swept.values()]
            axes.errorbar(
                list(swept), lead, spread, color=colour, marker="o", ms=4, lw=1.3, label=f"prune ratio {ratio:g}"
            )
            if auto:
                star = {"marker": "*", "ms": 15, "color": colour, "mec": "black", "mew": 0.8, "ls": "", "zorder": 4}
                axes.plot(chosen, auto.value - random.value, **star)
        axes.axhline(0, color=INK, lw=1)
        axes.set_xscale("log", base=2)
        ticks = (1.5, 2, 3, 4, 5.5, 8, 11)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("c_D (star: auto)")
        axes.set_title(f"{group[0]['model']}, {group[0]['n_samples']:,} images, T = {epochs}")
    grid.flat[0].set_ylabel("accuracy over random (points)")
    _legend(figure, list(grid.flat))
    return figure


def altered(rows: list[Row]) -> Any:
    """The share of altered images among those that each method keeps, against prune ratio."""
    groups = [group for group in settings(rows) if group[0]["altered"]]
    if not groups:
        return None
    figure, grid = plt.subplots(1, len(groups), figsize=(4.4 * len(groups) + 1.6, 4), squeeze=False)
    for axes, group in zip(grid.flat, groups, strict=True):
        shares = [row | {"share": row["altered_kept"] / row["kept"]} for row in group]
        names = [method for method in methods(group) if method != "full"]
        for method in names:
            at = [ratio for ratio in ratios(group) if means(shares, method, ratio, "share")]
            values = [means(shares, method, ratio, "share").value for ratio in at]
            axes.plot(at, values, label=method, **look(method, _others(names)))
        axes.axhline(
            100 * group[0]["altered"] / group[0]["n_samples"], color="#808080", ls=":", label="share among all images"
        )
        _ratio_axis(axes, ratios(group))
        axes.set_ylim(bottom=0)
        axes.set_ylabel("altered images among those kept (%)")
        axes.set_title(_wrapped(title(group[0])))
    _legend(figure, list(grid.flat))
    return figure


def _ratio_axis(axes: Any, at: list[float]) -> None:
    axes.set_xticks(at, [f"{ratio:g}" for ratio in at])
    axes.set_xlabel("prune ratio (fraction removed)")


def _wrapped(text: str, width: int = 50) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def _legend(figure: Any, spots: list[Any]) -> None:
    entries: dict[str, Any] = {}
    for axes in spots:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    main = list(MAIN)
    order = sorted(
        entries, key=lambda label: main.index(label.partition(",")[0]) if label.partition(",")[0] in MAIN else 99
    )
    figure.tight_layout()
    figure.legend([entries[label] for label in order], order, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)


SWEEPS = ("c_d", "c_d-all")
PICTURES = {"accuracy": accuracy, "total-time": total_time, "altered": altered}


def pictures(grid: str, rows: list[Row]) -> dict[str, Any]:
    """The figures of a grid by file name, without the ending."""
    draws = {grid: c_d_sweep} if grid in SWEEPS else {f"{name}-{grid}": draw for name, draw in PICTURES.items()}
    figures = {name: draw(rows) for name, draw in draws.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def write(results: Path, docs: Path, kinds: tuple[str, ...] = ("svg",)) -> Path:
    """Writes docs/results.md and its figures from the files in `results`; returns the path of the page."""
    docs.mkdir(parents=True, exist_ok=True)
    text = ["# Results", "", "Generated by `make results` from the files in `benchmarks/results/`.", ""]
    with plt.rc_context(STYLE):
        for path in sorted(results.glob("accuracy-*.jsonl")):
            grid = path.stem.removeprefix("accuracy-")
            rows = read(path)
            if not rows:
                continue
            text += [f"## Accuracy: {grid}", "", f"```sh\npython benchmarks/accuracy/run.py {grid}\n```", ""]
            if grid != "point":
                for name, figure in pictures(grid, rows).items():
                    for kind in kinds:
                        metadata = {"Date": None} if kind == "svg" else {"Software": None}
                        figure.savefig(docs / f"{name}.{kind}", bbox_inches="tight", metadata=metadata, dpi=110)
                    plt.close(figure)
                    text += [f"![{name}]({name}.svg)", ""]
            text += c_d_table(rows) if grid in SWEEPS else []
            text += section(grid, rows)
    others = speed_tables(results)
    text += ["## Speed and memory", "", *others] if others else []
    page = docs / "results.md"
    page.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--png", action="store_true", help="also save the figures as PNG")
    args = parser.parse_args()
    print(write(args.results, args.docs, ("svg", "png") if args.png else ("svg",)))
    for page in fill_pages(args.docs.parent, blocks(args.results)):
        print(page)


if __name__ == "__main__":
    main()

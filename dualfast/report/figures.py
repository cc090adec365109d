"""The figures of a run's page, drawn with Bokeh."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.config import ratio_text
from dualfast.report.summary import Group, is_random

# Okabe and Ito's palette, which is safe for colour-blind readers; random and full have fixed colours of their own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#F0E442")
RANDOM, FULL = "#E69F00", "#808080"
COMPARED = {"shorter": ("#808080", "square"), "rs2": ("#A0522D", "triangle")}  # config.BASELINES
MARKERS = ("circle", "square", "triangle", "inverted_triangle", "hex", "star")
# Colours of text and grid lines; the page replaces them with lighter ones under a dark theme.
INK, GRID = "#2b2c2e", "#e3e4e6"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
HEIGHT = 380  # px
ACCURACY_LABEL = "test accuracy after the last epoch (%)"


@dataclass(frozen=True)
class Style:
    """How a method is drawn in every figure. dash: a line style that Bokeh and CSS both know."""

    colour: str
    marker: str
    dash: str


def styles(results: list[Group]) -> dict[str, Style]:
    """A style for each method: full first, then in order of appearance."""
    by_method: dict[str, Style] = {}
    coloured = 0
    for method in sorted(dict.fromkeys(group.method for group in results), key=lambda name: name != "full"):
        if method == "full":
            by_method[method] = Style(FULL, "dash", "dashed")
        elif method in COMPARED:
            by_method[method] = Style(*COMPARED[method], "dotted")
        elif is_random(method):
            by_method[method] = Style(RANDOM, "diamond", "dotted")
        else:
            slot = coloured % len(COLOURS)
            by_method[method] = Style(COLOURS[slot], MARKERS[slot], "solid")
            coloured += 1
    return by_method


def ratio_colours(ratios: list[float]) -> dict[float, str]:
    """A colour for each prune ratio, from the middle of Viridis, so that all are visible on white and on black."""
    from bokeh.palettes import viridis

    scale = viridis(256)
    last = max(1, len(ratios) - 1)
    return {ratio: scale[50 + round(150 * i / last)] for i, ratio in enumerate(ratios)}


def library() -> str:
    """Bokeh's JavaScript."""
    from bokeh.resources import Resources

    script = "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)
    # Parts of Bokeh that this page does not use would fetch formulas, icons and maps; the page must load nothing.
    return re.sub(r"https://(?:cdn\.jsdelivr\.net|maps\.googleapis\.com)/[^\"'`\s]*", "about:blank", script)


def as_json(picture: Any) -> Any:
    """A figure as the JSON that Bokeh.embed.embed_item takes."""
    from bokeh.embed import json_item

    return json.loads(json.dumps(json_item(picture)))


def _figure(**options: Any) -> Any:
    from bokeh.plotting import figure

    picture = figure(
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        **options,
    )
    picture.toolbar.logo = None
    picture.min_border_left = picture.min_border_right = 8
    picture.grid.grid_line_color = GRID
    picture.xgrid.grid_line_color = None
    _axis(picture.axis)
    return picture


def _axis(axis: Any) -> None:
    axis.axis_line_color = GRID
    axis.major_tick_line_color = GRID
    axis.minor_tick_line_color = None
    axis.axis_label_text_color = axis.major_label_text_color = INK
    axis.axis_label_text_font = axis.major_label_text_font = FONT
    axis.axis_label_text_font_style = "normal"
    axis.axis_label_text_font_size = axis.major_label_text_font_size = "13px"


def _hover(picture: Any, renderers: list[Any], tooltips: list[tuple[str, str]], **options: Any) -> None:
    from bokeh.models import HoverTool

    # Bokeh escapes the values in a tooltip unless the field is marked {safe}.
    picture.add_tools(HoverTool(renderers=renderers, tooltips=tooltips, **options))


def _columns(results: list[Group], x: list[float]) -> dict[str, Any]:
    spread = np.array([group.spread or 0.0 for group in results])
    accuracy = np.array([group.accuracy for group in results])
    return {
        "x": np.array(x, float),
        "accuracy": accuracy,
        "low": accuracy - spread,
        "high": accuracy + spread,
        "method": [group.method for group in results],
        "ratio": [ratio_text(group.prune_ratio) for group in results],
        "kept": [f"{group.kept:,} of {group.n_samples:,}" for group in results],
        "text": [_accuracy(group) for group in results],
        "times": [f"{group.score_seconds:.1f} + {group.train_seconds:.1f} s" for group in results],
    }


def _accuracy(group: Group) -> str:
    spread = "one seed" if group.spread is None else f"± {group.spread:.2f} over {len(group.by_seed)} seeds"
    return f"{group.accuracy:.2f}%, {spread}"


RESULT_TIPS = [
    ("method", "@method"),
    ("prune ratio", "@ratio"),
    ("kept", "@kept"),
    ("accuracy", "@text"),
    ("scoring + training", "@times"),
]


def _lines(picture: Any, results: list[Group], x: dict[str, list[float]], style: Mapping[str, Style]) -> None:
    """Each method's means joined by a line, with whiskers of one standard deviation. x: of each method's groups."""
    from bokeh.models import ColumnDataSource

    points = []
    for method, positions in x.items():
        look = style[method]
        source = ColumnDataSource(_columns([group for group in results if group.method == method], positions))
        line = {"line_color": look.colour, "line_dash": look.dash, "line_width": 2}
        if method != "full":
            picture.line("x", "accuracy", source=source, **line)
        picture.segment("x", "low", "x", "high", source=source, line_color=look.colour, line_width=1.5)
        for end in ("low", "high"):
            picture.scatter("x", end, source=source, marker="dash", size=9, line_color=look.colour, line_width=1.5)
        marker = "circle" if method == "full" else look.marker
        points.append(
            picture.scatter(
                "x",
                "accuracy",
                source=source,
                marker=marker,
                size=14 if marker == "diamond" else 9,
                fill_color=look.colour,
                line_color=look.colour,
            )
        )
    _hover(picture, points, RESULT_TIPS)


def accuracy_by_ratio(results: list[Group], style: Mapping[str, Style]) -> Any:
    """Mean test accuracy against the prune ratio; training on all images is a horizontal line in a band of one standard
    deviation."""
    from bokeh.models import FixedTicker

    picture = _figure(x_axis_label="prune ratio (fraction removed)", y_axis_label=ACCURACY_LABEL)
    full = next((group for group in results if group.method == "full"), None)
    pruned = [group for group in results if group.method != "full"]
    ratios = sorted({group.prune_ratio for group in pruned})
    methods = list(dict.fromkeys(group.method for group in pruned))
    # The methods are drawn side by side at each ratio, so that no whisker hides another.
    gaps = [later - earlier for earlier, later in pairwise(ratios)] or [0.2]
    step = min(0.012 * sum(gaps), 0.6 * min(gaps) / len(methods))
    x = {
        method: [group.prune_ratio + step * (i - (len(methods) - 1) / 2) for group in pruned if group.method == method]
        for i, method in enumerate(methods)
    }
    if full is not None:
        _level(picture, full)
    _lines(picture, pruned, x, style)
    picture.xaxis.ticker = FixedTicker(ticks=ratios)
    picture.xaxis.major_label_overrides = {ratio: ratio_text(ratio) for ratio in ratios}
    picture.xaxis.major_label_policy = _no_overlap()
    margin = 0.08 * (ratios[-1] - ratios[0] or 1.0)
    picture.x_range.start, picture.x_range.end = ratios[0] - margin, ratios[-1] + margin
    _accuracy_range(picture, results)
    return picture


def _level(picture: Any, full: Group) -> None:
    from bokeh.models import BoxAnnotation, Span

    if full.spread:
        picture.add_layout(
            BoxAnnotation(
                bottom=full.accuracy - full.spread,
                top=full.accuracy + full.spread,
                fill_color=FULL,
                fill_alpha=0.2,
                line_color=None,
            )
        )
    picture.add_layout(Span(location=full.accuracy, line_color=FULL, line_dash="dashed", line_width=2))


def _no_overlap() -> Any:
    from bokeh.models import NoOverlap

    return NoOverlap(min_distance=4)


def _accuracy_range(picture: Any, results: list[Group]) -> None:
    low = min(group.accuracy - (group.spread or 0) for group in results)
    high = max(group.accuracy + (group.spread or 0) for group in results)
    margin = 0.06 * (high - low) or 1.0
    picture.y_range.start, picture.y_range.end = low - margin, high + margin


def accuracy_by_time(results: list[Group], style: Mapping[str, Style]) -> Any:
    """Mean test accuracy against the seconds of scoring and training."""
    picture = _figure(x_axis_label="scoring + training (s)", y_axis_label=ACCURACY_LABEL)
    x: dict[str, list[float]] = {}
    for group in results:
        x.setdefault(group.method, []).append(group.seconds)
    _lines(picture, results, x, style)
    picture.x_range.start = 0
    picture.x_range.end = 1.06 * max(group.seconds for group in results) or 1.0
    _accuracy_range(picture, results)
    return picture


def class_histogram(counts: Mapping[float, NDArray[np.int64]]) -> Any:
    """Histogram of the images kept per class: one outline per prune ratio."""
    picture = _figure(x_axis_label="images kept per class", y_axis_label="classes")
    top = max(int(count.max()) for count in counts.values())
    edges = np.arange(0, top + 2, max(1, -(-(top + 1) // 40))) - 0.5
    edges = np.append(edges, edges[-1] + (edges[1] - edges[0] if len(edges) > 1 else 1))
    colours = ratio_colours(list(counts))
    lines = []
    for ratio, count in counts.items():
        height, _ = np.histogram(count, bins=edges)
        x = np.repeat(edges, 2)
        y = np.concatenate([[0], np.repeat(height, 2), [0]])
        lines.append(picture.line(x, y, line_color=colours[ratio], line_width=2, name=ratio_text(ratio)))
    _hover(picture, lines, [("prune ratio", "$name"), ("images kept", "$x{0}"), ("classes", "@y{0,0}")])
    picture.y_range.start = 0
    return picture

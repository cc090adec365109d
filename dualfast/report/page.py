"""The page of a run: its results in words, a table, figures and galleries, in one HTML file that needs no network.

Needs Bokeh, Jinja2 and Pillow (pip install 'dualfast[report]'), imported when a page is written.
"""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dualfast.config import RunConfig, ScoreConfig, TrainConfig, ratio_text
from dualfast.data.inventory import some, valid_text
from dualfast.report import explorer
from dualfast.report.explorer import Explorer, deflated, explore, visible
from dualfast.report.summary import COLUMNS, Group, groups, headline, summarise
from dualfast.scoring.table import Scores
from dualfast.selection.audit import Audit
from dualfast.selection.quotas import class_counts, without_samples
from dualfast.selection.spec import SelectionSpec
from dualfast.storage.files import write_text

if TYPE_CHECKING:
    from dualfast.data.beton import Beton

GALLERY_SIZE = 24
REVIEWED = 240  # of the labels that look wrong
THUMBNAIL = 128  # px, the longer side
PIXELATED_UP_TO = 64  # px; images up to this size are enlarged without smoothing
TABLE_CLASSES = 30  # more classes than this get a histogram instead of a table


@dataclass(frozen=True, kw_only=True)
class Content:
    """Everything a page shows.

    rows: one result row per finished training. requested, environment: the two parts of config.yaml.
    labels: (N,) of the training images. data: the training images, None where they are gone.
    scores: those of seed `scored_seed`. audit: of the labels by these scores, None where that cannot be.
    kept: ids by prune ratio, selected by `kept_by`. redrawn: the prune ratios in `kept` whose index list was missing.
    specs: what `kept_by` keeps at each prune ratio of the data map's slider.
    """

    rows: list[dict[str, Any]]
    requested: Mapping[str, Any]
    environment: Mapping[str, str]
    labels: NDArray[np.int64] | None = None
    data: Beton | None = None
    scores: Scores | None = None
    audit: Audit | None = None
    scored_seed: int | None = None
    kept: Mapping[float, NDArray[np.int64]] = field(default_factory=dict)
    kept_by: str = ""
    redrawn: Sequence[float] = ()
    specs: Mapping[float, SelectionSpec] = field(default_factory=dict)

    @property
    def class_names(self) -> list[str]:
        names = self.data.class_names if self.data is not None else None
        if names is None:
            return [] if self.labels is None else [str(c) for c in range(int(self.labels.max()) + 1)]
        return list(names)


def write(path: Path, content: Content) -> Path:
    """Writes the page to `path` and returns it. ModuleNotFoundError without dualfast[report]."""
    write_text(path, valid_text(render(content)))
    return path


def render(content: Content) -> str:
    """The page as HTML text."""
    import jinja2

    from dualfast.report import figures

    results = groups(content.rows)
    style = figures.styles(results)
    names = content.class_names
    classes = _classes(content)
    sentence, notes = headline(results)
    notes += _lost_classes(content)
    suspects = _suspects(content, names)
    packed = _explorer(content)
    pictures = _pictures(content, results, style, classes)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualfast.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    # Bokeh resolves references in the order in which they were written.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("report.html").render(
        title=f"dualfast: {_names(content.requested.get('data', 'digits'))}",
        sentence=sentence,
        notes=notes,
        columns=COLUMNS,
        table=summarise(content.rows),
        method_column=COLUMNS.index("method"),
        style=style,
        ratio_colours=figures.ratio_colours(list(content.kept)),
        figures=pictures,
        bokeh=deflated(figures.library().encode()) if pictures else "",
        ink=figures.INK,
        grid=figures.GRID,
        explorer=packed,
        max_points=explorer.POINTS,
        map_seed=explorer.SEED,
        n_scored=0 if content.scores is None else len(content.scores),
        scored_seed=content.scored_seed,
        audit=content.audit,
        pairs=_pairs(content),
        suspects=suspects,
        reviewed=any(image.likely is not None for image in suspects),
        galleries=_galleries(content, names),
        no_data=content.data is None,
        classes=classes,
        class_names=names if len(names) <= TABLE_CLASSES else [],
        kept_by=content.kept_by,
        redrawn=[ratio_text(ratio) for ratio in content.redrawn],
        command=command(content.requested, content.rows),
        requested={key: _plain(value) for key, value in content.requested.items()},
        environment=content.environment,
    )


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _pictures(
    content: Content,
    results: list[Group],
    style: Mapping[str, Any],
    classes: Classes | None,
) -> dict[str, Any]:
    """The figures that the run has data for, by name, as Bokeh's JSON."""
    from dualfast.report import figures

    pictures: dict[str, Any] = {}
    names = content.class_names
    if any(group.method != "full" for group in results):
        pictures["ratio"] = figures.accuracy_by_ratio(results, style)
        pictures["time"] = figures.accuracy_by_time(results, style)
    if classes is not None and classes.counts and len(names) > TABLE_CLASSES:
        pictures["classes"] = figures.class_histogram(classes.counts)
    return {name: figures.as_json(picture) for name, picture in pictures.items()}


def _explorer(content: Content) -> Explorer | None:
    if content.scores is None:
        return None
    known = (content.labels, content.class_names, content.data, content.audit)
    return explore(content.scores, *known, content.kept, content.redrawn, content.specs)


@dataclass(frozen=True)
class Classes:
    """Images per class: (C,) counts of all images, and of those kept at each prune ratio."""

    total: NDArray[np.int64]
    counts: Mapping[float, NDArray[np.int64]]


def _classes(content: Content) -> Classes | None:
    if content.labels is None or not content.kept:
        return None
    n = max(len(content.class_names), int(content.labels.max()) + 1)
    count = {ratio: np.bincount(content.labels[ids], minlength=n) for ratio, ids in content.kept.items()}
    return Classes(np.bincount(content.labels, minlength=n), count)


def _lost_classes(content: Content) -> list[str]:
    """A sentence for each prune ratio at which classes keep no image."""
    if content.labels is None:
        return []
    total = class_counts(content.labels)
    found = {
        ratio: without_samples(total, class_counts(content.labels[ids]), content.class_names)
        for ratio, ids in content.kept.items()
    }
    return [f"At prune ratio {ratio:g}, {lost} (kept by {content.kept_by})." for ratio, lost in found.items() if lost]


# ---- galleries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thumbnail:
    """source: a data: URL, None for an image that cannot be decoded. value: the score's name and value. number: of the
    label; likely: that of the class it looks like, where it is reviewed."""

    id: int
    label: str
    value: str
    source: str | None
    pixelated: bool
    number: int
    likely: int | None = None


def _galleries(content: Content, names: list[str]) -> list[tuple[str, str, list[Thumbnail]]]:
    """(title, text, images) of each gallery: the highest and lowest dual, and the lowest aum."""
    scores, data = content.scores, content.data
    if scores is None or data is None:
        return []
    galleries = []
    for title, text, name, column, sign in (
        ("Highest DUAL", "hard, with predictions that keep changing between epochs", "dual", scores.dual, -1),
        ("Lowest DUAL", "learned early and not forgotten", "dual", scores.dual, 1),
        (
            "Lowest AUM",
            "the network prefers a class other than the label; wrong labels are often found here",
            "aum",
            scores.aum,
            1,
        ),
    ):
        if column is None or np.isnan(column).all():
            continue
        ids = np.argsort(sign * column, kind="stable")[:GALLERY_SIZE]
        ids = ids[~np.isnan(column[ids])]
        images = [_thumbnail(data, int(id_), names, f"{name} {_short(column[id_])}") for id_ in ids]
        galleries.append((title, text, images))
    return galleries


def _suspects(content: Content, names: list[str]) -> list[Thumbnail]:
    """The images whose labels are most likely wrong: many, for review, where it is known what they look like."""
    audit, data = content.audit, content.data
    if audit is None or data is None:
        return []
    if audit.likely is None:
        return [_thumbnail(data, id_, names, "") for id_ in audit.suspects[:GALLERY_SIZE].tolist()]
    images = []
    for id_ in audit.suspects[:REVIEWED].tolist():
        likely = int(audit.likely[id_])
        image = _thumbnail(data, id_, names, f"looks like {audit.class_name(likely)}")
        images.append(replace(image, likely=likely))
    return images


def _pairs(content: Content) -> list[tuple[str, str, int]]:
    """The commonest mistakes: (given class, likely class, how many)."""
    audit = content.audit
    if audit is None:
        return []
    return [(audit.class_name(given), audit.class_name(likely), count) for given, likely, count in audit.confused()]


def _short(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def _thumbnail(data: Beton, id_: int, names: list[str], value: str) -> Thumbnail:
    from PIL import Image

    label = int(data.labels[id_])
    name = names[label] if label < len(names) else str(label)
    pixelated = max(int(data.width[id_]), int(data.height[id_])) <= PIXELATED_UP_TO
    try:
        image = Image.fromarray(data.image(id_))
    except ValueError:
        return Thumbnail(id_, name, value, None, pixelated, label)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    packed = io.BytesIO()
    kind = "png" if pixelated else "jpeg"
    image.save(packed, kind, quality=85)
    source = f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Thumbnail(id_, name, value, source, pixelated, label)


# ---- the command line -----------------------------------------------------------------------------------------------


def command(requested: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """The command line that reproduces the run: every option that differs from its default, and all methods, ratios and
    seeds in `rows`."""
    name, config = _command_of(requested)
    options = dict(requested)
    pruned = [row for row in rows if row["method"] != "full"]
    if pruned:
        # config.yaml holds what the last command asked for; the run directory may have been filled by several.
        options["prune_ratio"] = sorted({row["prune_ratio"] for row in pruned})
        options["method"] = list(dict.fromkeys(row["method"] for row in pruned))
        options["seed"] = sorted({row["seed"] for row in rows})
        options["full"] = len(pruned) < len(rows)
    words = ["dualfast", name]
    for option in fields(config):
        value = options.get(option.name, option.default)
        value = tuple(value) if isinstance(value, list) else value
        if option.default is not MISSING and value == option.default:
            continue
        flag = option.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(_word, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _command_of(requested: Mapping[str, Any]) -> tuple[str, type[RunConfig | TrainConfig | ScoreConfig]]:
    """The command whose configuration `requested` is, told by the options that only it has."""
    if "method" in requested:
        return "run", RunConfig
    if "keep" in requested:
        return "train", TrainConfig
    return "score", ScoreConfig


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isclose(float(f"{value:g}"), value) else str(value)


def _names(data: str | list[str]) -> str:
    """The last part of the path of the data, or of each of several."""
    return some([Path(path).name or path for path in ([data] if isinstance(data, str) else map(str, data))], 3)

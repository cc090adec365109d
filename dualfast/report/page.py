"""The page of a run: its results in words, a table, pictures and galleries, in one HTML file that needs no network.

Needs Bokeh, Jinja2 and Pillow (pip install 'dualfast[report]'), imported when a page is written.
"""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dualfast.config import RunConfig, ScoreConfig, TrainConfig, method_options
from dualfast.scoring.table import Scores
from dualfast.storage.files import write_text

if TYPE_CHECKING:
    from dualfast.data.beton import Beton

COLUMNS = ("prune ratio", "kept", "method", "accuracy %", "spread", "best %", "scoring s", "training s", "seeds")
WITHIN = 1.0  # points: the first sentence speaks of the largest prune ratio that costs no more
GALLERY = 24
THUMBNAIL = 128  # px, the longer side
PIXELATED = 64  # px; images up to here are enlarged without smoothing
TABLE_CLASSES = 30  # more classes than this are summed up instead of listed


# ---- the numbers ----------------------------------------------------------------------------------------------------


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
    """Result rows grouped by prune ratio and method: by ratio, then full first, then methods as they first appear."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    keys = {(row["prune_ratio"], row["method"]) for row in rows}
    made = []
    for ratio, method in sorted(keys, key=lambda key: (key[0], key[1] != "full", methods.index(key[1]))):
        same = [row for row in rows if (row["prune_ratio"], row["method"]) == (ratio, method)]
        by_seed = {row["seed"]: 100 * row["accuracy"] for row in same}
        made.append(
            Group(
                ratio,
                method,
                same[0]["kept"],
                same[0]["n_samples"],
                float(np.mean(list(by_seed.values()))),
                _spread(list(by_seed.values())),
                100 * float(np.mean([row["best_accuracy"] for row in same])),
                float(np.mean([row["score_seconds"] for row in same])),
                float(np.mean([row["train_seconds"] for row in same])),
                by_seed,
            )
        )
    return made


def summarise(rows: list[dict[str, Any]]) -> list[list[str]]:
    """One line of text cells, in the order of COLUMNS, for each group of rows."""
    return [
        [
            f"{group.prune_ratio:g}",
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
    """How far `one` lies above `other`, in points: over the seeds both have, each compared with itself."""

    points: float
    spread: float | None

    @classmethod
    def of(cls, one: Group, other: Group) -> Difference:
        both = [one.by_seed[seed] - other.by_seed[seed] for seed in one.by_seed if seed in other.by_seed]
        if not both:
            return cls(one.accuracy - other.accuracy, None)
        return cls(float(np.mean(both)), _spread(both))

    def __str__(self) -> str:
        text = f"{abs(self.points):.1f}"
        if self.spread is not None:
            text += f" ± {self.spread:.1f}"
        return f"{'gains' if round(self.points, 1) > 0 else 'costs'} {text} points"


def answer(made: list[Group]) -> tuple[str, list[str]]:
    """The result in one sentence, and what has to be known to read it rightly, a sentence each."""
    full = next((group for group in made if group.method == "full"), None)
    pruned = [group for group in made if group.method != "full"]
    if not pruned:
        if full is None:
            return "No training of this run has finished yet.", []
        return f"Trained on all {full.n_samples:,} images, the network reaches {_percent(full)} on the test images.", []
    methods = list(dict.fromkeys(group.method for group in pruned))
    method = next((name for name in methods if _base(name) != "random"), methods[0])
    ours = [group for group in pruned if group.method == method]
    notes = []
    if full is not None:
        near = [group for group in ours if round(Difference.of(group, full).points, 9) >= -WITHIN]
        chosen = near[-1] if near else max(ours, key=lambda group: group.accuracy)
        notes.append(
            f"Shown is the largest prune ratio at which {method} costs at most {WITHIN:g} point against all images."
            if near
            else f"At every prune ratio {method} costs more than {WITHIN:g} point against all images; here is its best."
        )
    else:
        chosen = max(ours, key=lambda group: group.accuracy)
        notes.append(f"Shown is the prune ratio at which {method} does best; the run has no training on all images.")
    random = next(
        (g for g in pruned if _base(g.method) == "random" and g.prune_ratio == chosen.prune_ratio and g is not chosen),
        None,
    )
    how = "at random" if _base(method) == "random" else f"with {method}"
    sentence = f"Keeping {_share(chosen)} of {chosen.n_samples:,} images {how} "
    if full is not None:
        sentence += f"{Difference.of(chosen, full)} of test accuracy against all of them"
        if full.train_seconds > 0:
            sentence += f" and takes {_ratio(chosen.train_seconds, full.train_seconds)} of the training time"
            if chosen.score_seconds > 0:
                sentence += f" ({_ratio(chosen.seconds, full.train_seconds)} with the scoring counted)"
        if random is not None:
            sentence += f"; random {Difference.of(random, full)}"
    else:
        sentence += f"reaches {_percent(chosen)} on the test images"
        if random is not None:
            sentence += f"; random reaches {_percent(random)}"
    seeds = len(chosen.by_seed)
    if seeds == 1:
        notes.append("One seed only: how much of a difference is chance cannot be told.")
    else:
        notes.append(f"Means over {seeds} seeds; ± is the standard deviation over seeds.")
    if random is not None:
        apart = Difference.of(chosen, random)
        if round(apart.points, 1) == 0:
            notes.append(f"{method} and random do equally well there.")
        elif apart.spread is not None and abs(apart.points) <= apart.spread:
            notes.append(
                f"{method} and random differ by {abs(apart.points):.1f} points there, within the spread of "
                f"{apart.spread:.1f}: these seeds do not tell them apart."
            )
    notes.append(
        "Accuracy is that of the last epoch. Times are seconds on the machine named below, testing left out; other "
        "work on it stretches them."
    )
    return f"{sentence}.", notes


def _base(method: str) -> str:
    return method_options(method)[0]


def _percent(group: Group) -> str:
    return f"{group.accuracy:.1f}%" + ("" if group.spread is None else f" ± {group.spread:.1f}")


def _share(group: Group) -> str:
    return f"{100 * group.kept / group.n_samples:.3g}%"


def _ratio(part: float, whole: float) -> str:
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 1 else "less than 1%"


# ---- the page -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a page is made of. scores: of `scored_seed`; data: the training images, or None when they are gone; kept:
    ids kept by `kept_by`, by prune ratio."""

    rows: list[dict[str, Any]]
    asked: Mapping[str, Any]
    environment: Mapping[str, str]
    labels: NDArray[np.int64] | None = None
    data: Beton | None = None
    scores: Scores | None = None
    scored_seed: int | None = None
    kept: Mapping[float, NDArray[np.int64]] = field(default_factory=dict)
    kept_by: str = ""

    @property
    def class_names(self) -> list[str]:
        names = self.data.class_names if self.data is not None else None
        if names is None:
            return [] if self.labels is None else [str(c) for c in range(int(self.labels.max()) + 1)]
        return list(names)


def write(path: Path, content: Content) -> Path:
    """Writes the page to `path` and returns it. ModuleNotFoundError without dualfast[report]."""
    page = render(content)
    write_text(path, page)
    return path


def render(content: Content) -> str:
    """The page as HTML text."""
    import jinja2

    from dualfast.report import figures

    made = groups(content.rows)
    style = figures.styles(made)
    names = content.class_names
    pictures: dict[str, Any] = {}
    if any(group.method != "full" for group in made):
        pictures["ratio"] = figures.accuracy_by_ratio(made, style)
        pictures["time"] = figures.accuracy_by_time(made, style)
    betas: list[tuple[float, Any]] = []
    if content.scores is not None:
        betas = _betas(content)
        pictures["beta"] = figures.beta_curves(content.scores.mean, betas)
        if content.scores.dyn_unc is not None:
            pictures["map"] = figures.data_map(content.scores, content.labels, names)
    classes = _classes(content)
    if classes is not None and classes.counts and len(names) > TABLE_CLASSES:
        pictures["classes"] = figures.class_histogram(classes.counts)
    sentence, notes = answer(made)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dualfast.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Bokeh reads references in the order in which they were written.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("report.html").render(
        title=f"dualfast: {Path(str(content.asked.get('data', 'digits'))).name}",
        sentence=sentence,
        notes=notes,
        columns=COLUMNS,
        table=summarise(content.rows),
        method_column=COLUMNS.index("method"),
        style=style,
        ratio_colours=figures.ratio_colours([ratio for ratio, _ in betas] or list(content.kept)),
        figures={name: figures.as_json(picture) for name, picture in pictures.items()},
        bokeh=figures.library(),
        ink=figures.INK,
        grid=figures.GRID,
        map_points=figures.MAP_POINTS,
        map_seed=figures.MAP_SEED,
        n_scored=0 if content.scores is None else len(content.scores),
        scored_seed=content.scored_seed,
        betas=betas,
        galleries=_galleries(content, names),
        no_data=content.data is None,
        classes=classes,
        class_names=names if len(names) <= TABLE_CLASSES else [],
        kept_by=content.kept_by,
        command=command(content.asked, content.rows),
        asked={key: _plain(value) for key, value in content.asked.items()},
        environment=content.environment,
    )


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _betas(content: Content) -> list[tuple[float, Any]]:
    """(prune ratio, Beta) for every prune ratio of the run's first method that samples with such a density."""
    from dualfast.selection.beta import Statistics
    from dualfast.selection.methods import METHODS
    from dualfast.selection.spec import SelectionSpec

    fitting = {name for name, kind in METHODS.items() if kind.fits}
    method = next((row["method"] for row in content.rows if _base(row["method"]) in fitting), None)
    if method is None or content.scores is None:
        return []
    spec = SelectionSpec.parse(method, prune_ratio=0, c_d=content.asked.get("c_d", 4.0))
    statistics = Statistics.of(content.scores)
    ratios = sorted({row["prune_ratio"] for row in content.rows if row["method"] == method})
    return [(ratio, spec.configured.fit(statistics, ratio).density) for ratio in ratios]


@dataclass(frozen=True)
class Classes:
    """Images a class: in all, and kept at each prune ratio."""

    total: NDArray[np.int64]
    counts: Mapping[float, NDArray[np.int64]]


def _classes(content: Content) -> Classes | None:
    if content.labels is None or not content.kept:
        return None
    n = max(len(content.class_names), int(content.labels.max()) + 1)
    count = {ratio: np.bincount(content.labels[ids], minlength=n) for ratio, ids in content.kept.items()}
    return Classes(np.bincount(content.labels, minlength=n), count)


# ---- galleries ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thumbnail:
    id: int
    label: str
    value: str
    source: str | None
    pixelated: bool


def _galleries(content: Content, names: list[str]) -> list[tuple[str, str, list[Thumbnail]]]:
    """(title, text, images) each: the ends of dual, and the low end of aum."""
    scores, data = content.scores, content.data
    if scores is None or data is None:
        return []
    made = []
    for title, text, name, column, sign in (
        ("Highest DUAL", "hard, and the network wavers", "dual", scores.dual, -1),
        ("Lowest DUAL", "learnt early and for good", "dual", scores.dual, 1),
        ("Lowest AUM", "the network prefers another class; wrong labels are often among these", "aum", scores.aum, 1),
    ):
        if column is None or np.isnan(column).all():
            continue
        ids = np.argsort(sign * column, kind="stable")[:GALLERY]
        ids = ids[~np.isnan(column[ids])]
        made.append((title, text, [_thumbnail(data, int(at), names, f"{name} {_short(column[at])}") for at in ids]))
    return made


def _short(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.3g}"


def _thumbnail(data: Beton, at: int, names: list[str], value: str) -> Thumbnail:
    from PIL import Image

    label = int(data.labels[at])
    name = names[label] if label < len(names) else str(label)
    tiny = max(int(data.width[at]), int(data.height[at])) <= PIXELATED
    try:
        image = Image.fromarray(data.image(at))
    except ValueError:
        return Thumbnail(at, name, value, None, tiny)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    packed = io.BytesIO()
    kind = "png" if tiny else "jpeg"
    image.save(packed, kind, quality=85)
    source = f"data:image/{kind};base64,{base64.b64encode(packed.getvalue()).decode()}"
    return Thumbnail(at, name, value, source, tiny)


# ---- the command ----------------------------------------------------------------------------------------------------


def command(asked: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """The command line that makes the run again: what was asked for beyond the defaults, and all that is in `rows`."""
    name, config = next(
        (name, config)
        for name, config, mark in (
            ("run", RunConfig, "method"),
            ("train", TrainConfig, "keep"),
            ("score", ScoreConfig, ""),
        )
        if not mark or mark in asked
    )
    wanted = dict(asked)
    pruned = [row for row in rows if row["method"] != "full"]
    if pruned:
        # A run directory filled by several commands holds more than the last of them asked for.
        wanted["prune_ratio"] = sorted({row["prune_ratio"] for row in pruned})
        wanted["method"] = list(dict.fromkeys(row["method"] for row in pruned))
        wanted["seed"] = sorted({row["seed"] for row in rows})
        wanted["full"] = len(pruned) < len(rows)
    words = ["dualfast", name]
    for option in fields(config):
        value = wanted.get(option.name, option.default)
        value = tuple(value) if isinstance(value, list) else value
        if option.default is not MISSING and value == option.default:
            continue
        flag = option.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(_word, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isclose(float(f"{value:g}"), value) else str(value)

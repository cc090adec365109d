"""dualfast.report: one file that loads nothing, shows what the run measured, and escapes what the data brought."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("bokeh", reason="bokeh is not installed: no page can be written")
pytest.importorskip("jinja2", reason="jinja2 is not installed: no page can be written")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")

from dualfast import cli
from dualfast.data import beton
from dualfast.report import figures
from dualfast.report import page as report
from dualfast.runs import commands
from dualfast.runs.rundir import RunDir
from dualfast.scoring.table import Scores
from dualfast.selection.beta import beta_of

EVIL = "<script>alert(1)</script>"
CELL = re.compile(r"<td[^>]*>(.*?)</td>", re.S)


def make_run(
    path: Path,
    *,
    n: int = 60,
    classes: int = 3,
    methods: tuple[str, ...] = ("dual+beta", "dual", "random"),
    ratios: tuple[float, ...] = (0.5, 0.8),
    seeds: tuple[int, ...] = (0, 1),
    full: bool = True,
    scored: bool = True,
    accuracy: dict[str, float] | None = None,
    class_names: list[str] | None = None,
    size: int = 8,
) -> RunDir:
    """A run directory as a run leaves it, with made-up numbers."""
    asked = {"data": "digits", "out": str(path), "epochs": 4, "method": list(methods), "prune_ratio": list(ratios)}
    run_dir = RunDir(path, asked | {"seed": list(seeds), "full": full, "c_d": 4.0, "per_class": False})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    data = beton.write((images, np.arange(n) % classes), run_dir.train_beton, progress=False)
    if class_names is not None:
        side = Path(f"{run_dir.train_beton}.json")
        side.write_text(json.dumps(json.loads(side.read_text()) | {"class_names": class_names}))
    for seed in seeds:
        if scored:
            columns = {name: rng.uniform(0.01, 0.99, n) for name in ("dual", "mean", "dyn_unc", "aum", "el2n")}
            file = run_dir.scores_path(seed)
            Scores(**columns).save(file, labels=np.arange(n) % classes, fingerprint=data.fingerprint)
            run_dir.append({"event": "scored", "seed": seed, "seconds": 2.0})
        trainings = [("full", 0.0)] if full else []
        trainings += [(method, ratio) for ratio in ratios for method in methods]
        for method, ratio in trainings:
            kept = round(n * (1 - ratio))
            right = (accuracy or {}).get(method, 0.9 - 0.1 * ratio) + 0.01 * seed
            run_dir.append(
                {"event": "trained", "method": method, "prune_ratio": ratio, "seed": seed, "kept": kept, "n_samples": n}
                | {"accuracy": right, "best_accuracy": right + 0.005, "train_seconds": 10.0 * (1 - ratio)}
                | {"score_seconds": 0.0 if method in ("full", "random") else 2.0}
            )
    return run_dir


def page(run_dir: RunDir) -> str:
    return commands.report(run_dir.path).read_text(encoding="utf-8")


def items(text: str) -> dict[str, str]:
    """The JSON text of each figure."""
    found = re.findall(r'<script type="application/json" data-figure="(\w+)">(.*?)</script>', text, re.S)
    return dict(found)


def rows_of(text: str) -> list[list[str]]:
    body = text.split("<h2>Results</h2>")[1].split("</table>")[0].split("<tbody>")[1]
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in CELL.findall(line)]
        for line in body.split("</tr>")[:-1]
    ]


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    text = page(make_run(tmp_path / "run"))
    parser = Links()
    parser.feed(text)
    assert len(parser.found) >= 60  # the gallery
    assert all(link.startswith("data:image/png;base64,") for link in parser.found)
    assert not {"link", "iframe", "object", "base"} & set(parser.tags)
    assert not re.search(r"""(?:src|href)\s*=\s*["'`]https?://""", text)
    assert not re.search(r"@import|url\(\s*[\"']?https?:", text.split("</style>")[0])
    assert "default-src 'none'" in text
    assert len(text) < 3_000_000


def test_the_table_holds_what_summarise_says(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    expected = report.summarise(run_dir.records("trained"))
    assert rows_of(page(run_dir)) == expected
    assert [(line[0], line[2]) for line in expected] == [
        ("0", "full"),
        *(("0.5", method) for method in ("dual+beta", "dual", "random")),
        *(("0.8", method) for method in ("dual+beta", "dual", "random")),
    ]
    # Accuracies 0.85 and 0.86: mean 85.5%, sample standard deviation 0.01 / sqrt(2).
    assert expected[1] == ["0.5", "30", "dual+beta", "85.50", "0.71", "86.00", "2.0", "5.0", "2"]


def test_names_from_the_data_are_text_everywhere(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", class_names=[EVIL, "</script>&amp;", "plain"])
    config = run_dir.config()
    config["asked"] |= {"model": EVIL, "data": f"/tmp/{EVIL}"}
    run_dir.config_path.write_text(yaml.safe_dump(config))
    text = page(run_dir)
    assert EVIL not in text
    assert text.count(html.escape(EVIL)) >= 4  # gallery, class table, configuration, title
    assert "&lt;/script&gt;&amp;amp;" in text
    figure = items(text)["map"]
    assert "<" not in figure
    # Bokeh escapes a tooltip's value unless the field says {safe}; the names themselves arrive unchanged.
    assert "{safe}" not in figure
    assert EVIL in json.dumps(json.loads(figure))
    assert "@label" in figure


@pytest.mark.parametrize(
    ("change", "absent", "present"),
    [
        ({"seeds": (3,)}, [], ["One seed only", "seed 3"]),
        ({"full": False}, ["against all of them"], ["reaches", "random reaches"]),
        ({"methods": ("dual",)}, ["random", "Beta sampling"], ["with dual costs", 'id="beta"']),
        (
            {"methods": ("random",), "scored": False},
            ["Data map", "Highest DUAL", "Prediction means", "with the scoring counted"],
            ["at random costs", "Kept by random, seed 0"],
        ),
        ({"ratios": (0.5,)}, [], ['id="ratio"', "Data map"]),
        ({"ratios": (0.0, 0.5)}, [], ['id="ratio"']),
        (
            {"n": 3_000, "classes": 1_000, "size": 2},
            ['<td class="left">999</td>'],
            ["classes with none", 'id="classes"'],
        ),
    ],
)
def test_a_page_of_a_run_with_parts_missing(
    tmp_path: Path, change: dict[str, Any], absent: list[str], present: list[str]
) -> None:
    run_dir = make_run(tmp_path / "run", **change)
    text = page(run_dir)
    words = text.split("<script>")[0]
    for part in absent:
        assert part not in words.split("</style>")[1]
    for part in present:
        assert part in words
    assert rows_of(text) == report.summarise(run_dir.records("trained"))
    for name in items(text):
        assert f'id="{name}"' in words
    assert "NaN" not in words


def test_a_run_that_has_only_scores_or_nothing_yet(tmp_path: Path) -> None:
    scored = RunDir(tmp_path / "scored", {"data": "digits", "score_epochs": 12, "seed": 4, "out": "runs/digits"})
    column = np.linspace(0.1, 0.9, 12)
    Scores(dual=column, mean=column).save(scored.scores_path(4), labels=np.arange(12) % 2)
    scored.append({"event": "scored", "seed": 4, "seconds": 1.0})
    text = page(scored)
    assert "No training of this run has finished yet." in text
    assert "dualfast score --score-epochs 12 --out runs/digits --seed 4" in text
    assert set(items(text)) == {"beta"}
    assert "not beside the run any more" in text
    assert not items(page(RunDir(tmp_path / "empty", {"data": "digits"})))
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        commands.report(tmp_path)


def test_the_sentence_says_what_was_measured(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", accuracy={"full": 0.9, "dual+beta": 0.893, "dual": 0.7, "random": 0.88})
    sentence, notes = report.answer(report.groups(run_dir.records("trained")))
    assert sentence == (
        "Keeping 20% of 60 images with dual+beta costs 0.7 ± 0.0 points of test accuracy against all of them and takes "
        "20% of the training time (40% with the scoring counted); random costs 2.0 ± 0.0 points."
    )
    assert any("2 seeds" in note for note in notes)
    assert not any("apart" in note for note in notes)
    rows = run_dir.records("trained")
    for row in rows:
        # Random is better with one seed and worse with the other: the mean difference is within its spread.
        if row["method"] == "random":
            row["accuracy"] = 0.93 if row["seed"] else 0.88
        if row["method"] == "dual+beta":
            row["accuracy"] = 0.92
    sentence, notes = report.answer(report.groups(rows))
    assert "gains 1.5 ± 0.7 points" in sentence
    assert any("do not tell them apart" in note for note in notes)


def test_the_galleries_show_the_ends_of_the_scores(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    scores = Scores.load(run_dir.scores_path(0))
    text = page(run_dir)
    for title, column, sign in (("Highest DUAL", scores.dual, -1), ("Lowest DUAL", scores.dual, 1)):
        gallery = text.split(f"<h3>{title}</h3>")[1].split("</div>")[0]
        ids = [int(found) for found in re.findall(r">id (\d+)<", gallery)]
        assert ids == np.argsort(sign * column, kind="stable")[:24].tolist()
        assert gallery.count('class="pixelated"') == 24
    assert scores.aum is not None
    lowest = text.split("<h3>Lowest AUM</h3>")[1]
    assert int(re.findall(r">id (\d+)<", lowest)[0]) == int(np.argmin(scores.aum))


def test_large_images_become_thumbnails(tmp_path: Path) -> None:
    text = page(make_run(tmp_path / "run", n=30, size=200))
    assert "data:image/jpeg;base64," in text
    assert 'class="pixelated"' not in text
    assert len(text) < 4_000_000


def test_a_sample_is_drawn_of_many_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAP_POINTS", 20)
    run_dir = make_run(tmp_path / "run")
    first, second = page(run_dir), page(run_dir)
    assert "A sample of 20 of 60 images, drawn with seed 0" in first
    drawn = [re.findall(r'\["id",\s*(\{.*?\})\]', items(text)["map"]) for text in (first, second)]
    assert drawn[0] == drawn[1]
    array = json.loads(drawn[0][0])
    assert array["shape"] == [20]


def test_the_beta_curve_is_the_density() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    scores = Scores(dual=rng.uniform(0, 0.3, 100), mean=rng.uniform(0, 1, 100))
    beta = beta_of(scores, 0.7)
    x = np.linspace(0.005, 0.995, 199)
    np.testing.assert_allclose(figures._beta_density(x, beta.a, beta.b), stats.beta.pdf(x, beta.a, beta.b), rtol=1e-10)


def test_methods_look_different_and_keep_their_looks(tmp_path: Path) -> None:
    methods = ("random", "dual+beta", "dual+beta:c_d=5.5", "dual", "aum")
    style = figures.styles(report.groups(make_run(tmp_path / "run", methods=methods).records("trained")))
    assert set(style) == {"full", *methods}
    assert len({look.colour for look in style.values()}) == len(style)
    assert style["random"].colour == figures.RANDOM
    assert style["full"].dash == "dashed"


def test_the_command_asks_for_all_that_is_on_the_page(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "a run", full=False, methods=("dual", "ccs:mis_ratio=0.1"))
    line = report.command(run_dir.config()["asked"], run_dir.records("trained"))
    assert line == (
        f"dualfast run --epochs 4 --out '{tmp_path}/a run' --prune-ratio 0.5 0.8 --method dual ccs:mis_ratio=0.1 "
        "--seed 0 1 --c-d 4 --no-full"
    )


def test_without_jinja2_a_run_still_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")
    monkeypatch.chdir(tmp_path)
    short = ["--epochs", "2", "--score-epochs", "2", "--window", "2", "--prune-ratio", "0.9", "--seed", "0"]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2", None)
        assert cli.main(["run", *short, "--method", "dual+beta", "--out", "run"]) == 0
        said = capsys.readouterr().out
        assert said.count("pip install 'dualfast[report]'") == 1
        assert "report: " not in said
        assert not (tmp_path / "run" / "report.html").exists()
    assert cli.main(["report", "run"]) == 0
    assert "report: run/report.html" in capsys.readouterr().out
    text = (tmp_path / "run" / "report.html").read_text()
    run_dir = RunDir(tmp_path / "run")
    assert rows_of(text) == report.summarise(run_dir.records("trained"))
    kept = np.load(tmp_path / "run" / "keep-0.9.npy", allow_pickle=False)
    counts = np.bincount(beton.open_beton(run_dir.train_beton).labels[kept], minlength=10)
    table = text.split("<h2>Images kept of each class</h2>")[1].split("<tbody>")[1].split("</table>")[0]
    shown = [CELL.findall(line) for line in table.split("</tr>")[:-1]]
    assert [int(line[2]) for line in shown] == counts.tolist()
    # Once more from the four kinds of files alone.
    for path in (tmp_path / "run").iterdir():
        if path.name.startswith(("keep-", "test.", "report")):
            path.unlink()
    again = page(run_dir)
    assert again.split("<script")[0] == text.split("<script")[0]
    assert items(again).keys() == items(text).keys()

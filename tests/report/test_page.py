"""dualfast.report.page: one file that loads nothing, shows what the run measured and escapes text from the data."""

from __future__ import annotations

import html
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from explorer_fixture import header, header_text, unpacked
from report_fixture import make_run

pytest.importorskip("bokeh", reason="bokeh is not installed: no page can be written")
pytest.importorskip("jinja2", reason="jinja2 is not installed: no page can be written")
pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")

from dualfast import cli
from dualfast.data import beton
from dualfast.data.index_list import save_keep
from dualfast.report import explorer, figures, summary
from dualfast.report import page as report
from dualfast.runs import commands, reporting
from dualfast.runs.rundir import RunDir
from dualfast.scoring.table import Scores
from dualfast.selection import beta

EVIL = "<script>alert(1)</script>"
CELL = re.compile(r"<td[^>]*>(.*?)</td>", re.S)
NOTE = re.compile(r"The index list for prune ratio [\d., ]+ is missing; .* selected again for this page\.\n")


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
    assert not re.search(r"""(?:src|href)\s*=\s*["'`]https?://""", text + figures.library())
    assert not re.search(r"@import|url\(\s*[\"']?https?:", text.split("</style>")[0])
    assert "default-src 'none'" in text
    assert len(text) < 3_000_000


def test_the_table_holds_what_summarise_says(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    expected = summary.summarise(run_dir.records("trained"))
    assert rows_of(page(run_dir)) == expected
    assert [(line[0], line[2]) for line in expected] == [
        ("0", "full"),
        *(("0.5", method) for method in ("dual+beta", "dual", "random")),
        *(("0.8", method) for method in ("dual+beta", "dual", "random")),
    ]
    # Accuracies 0.85 and 0.86: mean 85.5%, sample standard deviation 0.01 / sqrt(2).
    assert expected[1] == ["0.5", "30", "dual+beta", "85.50", "0.71", "86.00", "2.0", "5.0", "2"]


def test_the_title_names_the_data(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run")
    for data, shown in (("a/digits/", "digits"), (["a/cats.tar", "a/dogs.tar"], "cats.tar, dogs.tar")):
        config = run_dir.config()
        config["asked"] |= {"data": data}
        run_dir.config_path.write_text(yaml.safe_dump(config))
        assert f"<title>dualfast: {shown}</title>" in page(run_dir)


def test_names_from_the_data_are_text_everywhere(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", class_names=[EVIL, "</script>&amp;", "plain"])
    config = run_dir.config()
    config["asked"] |= {"model": EVIL, "data": f"/tmp/{EVIL}"}
    run_dir.config_path.write_text(yaml.safe_dump(config))
    text = page(run_dir)
    assert EVIL not in text
    assert text.count(html.escape(EVIL)) >= 4  # gallery, class table, configuration, title
    assert "&lt;/script&gt;&amp;amp;" in text
    assert "<" not in header_text(text)
    assert header(text)["classes"] == [EVIL, "</script>&amp;", "plain"]


@pytest.mark.parametrize(
    ("change", "absent", "present"),
    [
        ({"seeds": (3,)}, [], ["Only one seed", "seed 3"]),
        ({"full": False}, ["compared with training"], ["reaches", "random selection reaches"]),
        ({"methods": ("dual",)}, ["random", "Beta sampling"], ["with dual costs", 'id="explorer"']),
        (
            {"methods": ("random",), "scored": False},
            ["Data map", "Highest DUAL", "Prediction means", "including scoring"],
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
    words = text.split("<script")[0]
    for part in absent:
        assert part not in words.split("</style>")[1]
    for part in present:
        assert part in words
    assert rows_of(text) == summary.summarise(run_dir.records("trained"))
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
    assert not items(text)
    assert [column["name"] for column in header(text)["columns"]] == ["mean", "dual"]
    assert "The training images of this run were not found" in text
    assert not items(page(RunDir(tmp_path / "empty", {"data": "digits"})))
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        commands.report(tmp_path)


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
    monkeypatch.setattr(explorer, "POINTS", 20)
    run_dir = make_run(tmp_path / "run")
    first, second = page(run_dir), page(run_dir)
    assert "a random subset of 20 of the 60 images, drawn with seed 0." in " ".join(first.split())
    ids, again = (np.cumsum(unpacked(text)["gaps"]).tolist() for text in (first, second))
    assert ids == again == sorted(set(ids))
    assert len(ids) == 20


def kept_counts(text: str) -> list[list[int]]:
    """The table of images kept per class: for each class the count of all images, then one per prune ratio."""
    body = text.split("<h2>Images kept per class</h2>")[1].split("<tbody>")[1].split("</table>")[0]
    return [[int(cell) for cell in CELL.findall(line)[1:]] for line in body.split("</tr>")[:-1]]


@pytest.mark.parametrize("shared", [True, False])
def test_the_page_shows_the_index_lists_of_the_run_and_draws_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    run_dir = make_run(tmp_path / "run", seeds=(3,))
    about: dict[str, Any] = {"method": "dual+beta", "per_class": False, "n_samples": 60}
    # Lists that no selection makes: the first ids; and one of another seed, which is not to be shown.
    for ratio, c_d in ((0.5, 2.5), (0.8, 7.0)):
        kept = np.arange(round(60 * (1 - ratio)))
        path = run_dir.keep_path(ratio, "dual+beta", 3, shared)
        save_keep(path, kept, prune_ratio=ratio, seed=3, c_d=c_d, **about)
        if not shared:
            other = run_dir.keep_path(ratio, "dual+beta", 4)
            save_keep(other, kept + 1, prune_ratio=ratio, seed=4, c_d=9.0, **about)
    monkeypatch.setattr(beta, "auto_c_d", lambda *_: pytest.fail("c_d is resolved again"))
    monkeypatch.setattr(reporting, "select_in_memory", lambda *_: pytest.fail("a selection is drawn again"))
    text = page(run_dir)
    assert kept_counts(text) == [[20, 10, 4]] * 3
    assert {about["ratio"]: about["c_d"] for about in header(text)["ratios"] if about["listed"]} == {0.5: 2.5, 0.8: 7.0}
    assert not NOTE.search(text)


def test_a_list_of_another_seed_or_method_is_not_shown(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", ratios=(0.5,))
    redrawn = page(run_dir)
    assert NOTE.search(redrawn)
    for method, seed in (("dual", 0), ("dual+beta", 1)):
        about: dict[str, Any] = {"method": method, "seed": seed, "per_class": False, "c_d": 4.0, "n_samples": 60}
        save_keep(run_dir.keep_path(0.5, method, seed), np.arange(30), prune_ratio=0.5, **about)
        assert kept_counts(page(run_dir)) == kept_counts(redrawn) != [[20, 10]] * 3


def test_a_list_of_other_data_is_refused(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", ratios=(0.5,))
    about: dict[str, Any] = {"method": "dual+beta", "seed": 0, "per_class": False, "c_d": 4.0, "n_samples": 60}
    save_keep(run_dir.keep_path(0.5, "dual+beta", 0), np.arange(30), prune_ratio=0.5, fingerprint="other", **about)
    with pytest.raises(ValueError, match="fingerprint other"):
        page(run_dir)


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
    assert rows_of(text) == summary.summarise(run_dir.records("trained"))
    kept = np.load(tmp_path / "run" / "keep-0.9.npy", allow_pickle=False)
    counts = np.bincount(beton.open_beton(run_dir.train_beton).labels[kept], minlength=10)
    table = text.split("<h2>Images kept per class</h2>")[1].split("<tbody>")[1].split("</table>")[0]
    shown = [CELL.findall(line) for line in table.split("</tr>")[:-1]]
    assert [int(line[2]) for line in shown] == counts.tolist()
    # Once more from the four kinds of files alone.
    for path in (tmp_path / "run").iterdir():
        if path.name.startswith(("keep-", "test.", "report")):
            path.unlink()
    again = page(run_dir)
    words, note = NOTE.subn("", again.split("<script")[0])
    assert note == 1
    assert words == NOTE.sub("", text.split("<script")[0]) == text.split("<script")[0]
    assert items(again).keys() == items(text).keys()


def test_names_that_are_not_utf8_do_not_cost_the_page(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", class_names=["caf\udce9", "th\udce9", "lait"])
    assert r"caf\udce9" in page(run_dir)


@pytest.mark.parametrize("likely", [True, False])
def test_labels_that_look_wrong_are_shown_with_what_they_look_like(likely: bool, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", class_names=["ant", EVIL, "cat"], seeds=(0,), scored=False)
    n, labels = 60, np.arange(60) % 3
    assert "Labels that look wrong" not in page(run_dir)
    own = np.where(np.arange(n) == 7, 0.01, 0.95)  # 7 is labelled 1
    about = {"aum_prob": own - np.where(np.arange(n) == 7, 0.98, 0.02), "top_other": (labels + 1) % 3}
    if not likely:
        del about["top_other"]
    scores = Scores(dual=own, mean=own, last_mean=own, aum=10 * (own - 0.5), visits=np.full(n, 12), **about)
    scores.save(run_dir.scores_path(0), labels=labels)
    run_dir.append({"event": "scored", "seed": 0})
    text = page(run_dir)
    part = text.split("<h2>Labels that look wrong</h2>")[1].split("<h2>Images</h2>")[0]
    assert "1 of 60 labels" in part
    assert part.count("<img ") == 1
    assert "id 7<br>" in part
    if not likely:
        assert "looks like" not in part
        return
    assert "id 7<br>looks like cat" in part
    assert [html.unescape(cell) for cell in CELL.findall(part)] == [EVIL, "cat", "1"]
    assert EVIL not in text

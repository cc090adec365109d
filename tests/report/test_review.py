"""The review of labels that look wrong, in a real browser: what its script does with keys, and the table it saves."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import make_run

pytest.importorskip("bokeh")
pytest.importorskip("jinja2")
pytest.importorskip("pyarrow")

from dualfast import Scores
from dualfast.report.page import REVIEWED
from dualfast.runs import commands
from dualfast.runs.rundir import RunDir
from dualfast.selection.audit import audit_table
from dualfast.selection.audit_exports import apply_labels

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page in")
NAMES = ["ant", 'bee, "big"', "<b>cat</b>"]
N = 120
WRONG = [7, 31, 4, 90, 12]  # labelled 1, 1, 1, 0, 0; each looks like the next class

DRIVER = """
<script>
const wait = () => new Promise((done) => setTimeout(done, 50));
const cards = [...document.querySelectorAll("#review figure")];
const shown = () => cards.filter((card) => card.checkVisibility()).map((card) => Number(card.dataset.id));
const key = (name) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
const said = () => document.getElementById("done").textContent;
async function saved() {
  let found;
  URL.createObjectURL = (blob) => { found = blob; return "#"; };
  document.getElementById("save").click();
  return found.text();
}
(async () => {
  const result = {};
  try {
    %s
  } catch (error) { result.error = String(error); }
  const out = document.createElement("pre");
  out.id = "result";
  out.textContent = JSON.stringify(result);
  document.body.append(out);
})();
</script></body>"""


def suspicious(path: Path, wrong: list[int] = WRONG) -> RunDir:
    """A scored run in which these labels look wrong, the first the most."""
    run_dir = make_run(path, n=N, class_names=NAMES, seeds=(0,), scored=False)
    labels, own, margin = np.arange(N) % 3, np.full(N, 0.95), np.full(N, 4.0)
    own[wrong], margin[wrong] = 0.01, -9 + np.arange(len(wrong)) / N
    columns: dict[str, Any] = {"late_margin": margin, "aum_prob": 2 * own - 1, "top_other": (labels + 1) % 3}
    scores = Scores(dual=own, mean=own, last_mean=own, visits=np.full(N, 12), **columns)
    names = [f"{i}.png" for i in range(N)]
    scores.save(run_dir.scores_path(0), labels=labels, names=names, class_names=NAMES)
    run_dir.append({"event": "scored", "seed": 0})
    return run_dir


def browse(run_dir: RunDir, steps: str) -> dict[str, Any]:
    """What `steps` leave in `result` on the page of a run."""
    commands.report(run_dir.path)
    page = run_dir.report_path.with_name("driven.html")
    text = run_dir.report_path.read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", DRIVER % steps), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    profile = f"--user-data-dir={run_dir.path / 'profile'}"
    assert BROWSER is not None
    done = subprocess.run([BROWSER, *options, profile, page.as_uri()], capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert "error" not in result, result
    return result


@in_a_browser
def test_decisions_by_key_are_saved_as_apply_labels_takes_them(tmp_path: Path) -> None:
    run_dir = suspicious(tmp_path / "run")
    steps = """
    result.order = cards.map((card) => Number(card.dataset.id));
    result.before = said();
    cards[0].focus();
    key("y"); key("n"); key("ArrowRight"); key("x"); key("ArrowLeft"); key("ArrowLeft"); key("x"); key("u");
    result.focused = Number(document.activeElement.dataset.id);
    cards[4].focus();
    document.getElementById("other").value = "2";
    document.getElementById("other").dispatchEvent(new Event("change"));
    result.after = said();
    result.table = await saved();
    """
    result = browse(run_dir, steps)
    assert result["order"] == WRONG
    assert (result["before"], result["after"]) == ("0 of 5 decided", "4 of 5 decided")
    assert result["focused"] == 90
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(result["table"])
    assert result["table"].splitlines() == [
        "id,label,likely,class,likely_class,decision",
        '7,1,2,"bee, ""big""",<b>cat</b>,<b>cat</b>',
        '31,1,2,"bee, ""big""",<b>cat</b>,',
        '4,1,2,"bee, ""big""",<b>cat</b>,exclude',
        '12,0,1,ant,"bee, ""big""",<b>cat</b>',
    ]
    audit_table(run_dir.scores_path(0)).save(run_dir.audit_path)
    assert apply_labels(decisions, tmp_path / "labels.csv", run_dir.audit_path) == (2, 1)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert len(lines) == N  # a header, and all but one
    assert {"7.png,<b>cat</b>", "12.png,<b>cat</b>", '31.png,"bee, ""big"""', "90.png,ant"} <= set(lines)
    assert not any(line.startswith("4.png") for line in lines)


@in_a_browser
def test_the_review_shows_a_pair_of_classes_and_a_part_of_many(tmp_path: Path) -> None:
    wrong = [i for i in range(N) if i % 3 != 2]  # 40 labelled 0, 40 labelled 1
    steps = """
    const pair = document.getElementById("pair");
    result.first = shown().length;
    document.getElementById("more").click();
    result.then = shown().length;
    result.more = document.getElementById("more").hidden;
    result.pairs = [...pair.options].map((option) => option.textContent);
    pair.selectedIndex = 2;
    pair.dispatchEvent(new Event("change"));
    result.pair = shown();
    document.querySelector("button[data-key=n]").click();
    result.decided = cards.filter((card) => "decision" in card.dataset).map((card) => Number(card.dataset.id));
    document.querySelector("button[data-key=u]").focus();
    key("ArrowLeft");
    result.chosen = Number(document.querySelector(".chosen").dataset.id);
    result.bold = document.querySelectorAll("#review b b").length;
    """
    result = browse(suspicious(tmp_path / "run", wrong), steps)
    assert (result["first"], result["then"], result["more"]) == (48, 80, True)
    pairs = ['labelled ant, looks like bee, "big" (40)', 'labelled bee, "big", looks like <b>cat</b> (40)']
    assert result["pairs"] == ["all, most suspicious first", *pairs]
    assert result["pair"] == [i for i in range(N) if i % 3 == 1]
    assert result["decided"] == [1]
    assert result["chosen"] == 1  # the arrow keys work from a button, too
    assert result["bold"] == 0


@in_a_browser
def test_decisions_are_there_when_the_page_is_opened_again(tmp_path: Path) -> None:
    run_dir = suspicious(tmp_path / "run")
    assert (
        browse(run_dir, 'cards[2].focus(); key("x"); result.said = said(); await wait();')["said"] == "1 of 5 decided"
    )
    again = browse(run_dir, "result.said = said(); result.left = cards[2].dataset.decision;")
    assert again == {"said": "1 of 5 decided", "left": "x"}


@in_a_browser
def test_names_that_turn_the_direction_of_writing_are_escaped_but_saved_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = "c\u202eta"
    monkeypatch.setitem(globals(), "NAMES", ["ant", "bee", turned])
    steps = """
    cards[0].focus(); key("y");
    const texts = document.querySelectorAll("#review option, .verdict, figcaption");
    result.words = [...texts].map((element) => element.textContent).join();
    result.table = await saved();
    """
    result = browse(suspicious(tmp_path / "run"), steps)
    assert turned not in result["words"]
    assert result["words"].count("c\\u202eta") >= 4
    assert result["table"].splitlines()[1] == f"7,1,2,bee,{turned},{turned}"


def test_the_page_holds_so_many_images_for_review(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REVIEWED == 240
    monkeypatch.setattr("dualfast.report.page.REVIEWED", 3)
    run_dir = suspicious(tmp_path / "run")
    commands.report(run_dir.path)
    text = run_dir.report_path.read_text(encoding="utf-8")
    assert text.count("data-likely=") == 3
    assert "5 of 120 labels" in text
    # Without the class it looks like there is nothing to decide by key.
    scores = Scores.load(run_dir.scores_path(0))
    plain = Scores(dual=scores.dual, mean=scores.mean, late_margin=scores.late_margin, visits=scores.visits)
    plain.save(run_dir.scores_path(0), labels=np.arange(N) % 3)
    commands.report(run_dir.path)
    text = run_dir.report_path.read_text(encoding="utf-8")
    assert "Labels that look wrong" in text
    assert "decisions.csv" not in text

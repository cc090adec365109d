"""A score of one's own from the command line: gathered, saved, selected by, and on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualfast import Scores, cli
from dualfast.scoring import trajectories

pytest.importorskip("bokeh")

SHORT = ["--epochs", "3", "--score-epochs", "3", "--window", "2", "--seed", "0", "--no-full", "--tests", "1"]
MODULE = """
import numpy as np
import dualfast

@dualfast.score("{name}", keep="low")
def last(p, margin):
    return margin[-1]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trajectories, "_REGISTERED", {})


def test_a_run_selects_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scores.py").write_text(MODULE.format(name="last_margin"))
    run = ["run", "--out", "out", "--method", "last_margin", "--prune-ratio", "0.5", "--score-module", "my_scores"]
    assert cli.main([*run, *SHORT]) == 0
    scores = Scores.load("out/scores.parquet")
    assert np.isfinite(scores.last_margin).all()
    kept = np.load("out/keep-0.5.npy")
    assert scores.last_margin[kept].max() <= np.delete(scores.last_margin, kept).min()
    select = ["select", "--scores", "out/scores.parquet", "--out", "again.npy", "--prune-ratio", "0.5"]
    assert cli.main([*select, "--method", "last_margin", "--score-module", "my_scores"]) == 0
    assert (np.load("again.npy") == kept).all()
    monkeypatch.setattr(trajectories, "_REGISTERED", {})  # a page needs no code of anybody's
    assert cli.main(["report", "out"]) == 0


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no_such", None, "does not import"),
        ("empty", "x = 1", "registers no score"),
        (".", None, "does not import"),
        ("taken", MODULE.format(name="random"), "which dualfast uses itself"),
        (
            "failing",
            MODULE.format(name="late").replace("-1]", "9]"),
            "score 'late' fails on p and margin of (3, 8): Ind",
        ),
        ("syntax", "def", "module 'syntax' does not import (SyntaxError"),
        ("zero", "x = 1 / 0", "module 'zero' does not import (ZeroDivisionError: division by zero (zero.py, line 1))"),
        ("odd", MODULE.format(name="flat").replace("[-1]", ""), "returned shape (3, 8)"),
    ],
)
def test_a_module_that_does_not_fit_is_named(
    name: str, content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / f"{name}.py").write_text(content)
    assert cli.main(["run", "--out", "out", "--score-module", name, *SHORT]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_function_that_fails_on_the_real_scores_alone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MODULE.format(name="late").replace("return", "if margin.shape[1] > 8: {}['gone']\n    return")
    (tmp_path / "real.py").write_text(text)
    assert cli.main(["score", "--out", "out", "--score-module", "real", *SHORT[:6], "--seed", "0"]) == 2
    assert "the function of score 'late' fails on p and margin of (3, 1437): KeyError: 'gone' (real.py, line 7)" in (
        capsys.readouterr().err
    )


def test_a_directory_that_was_scored_without_it_says_so_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "late_scores.py").write_text(MODULE.format(name="last_margin"))
    plain = ["run", "--out", "out", "--method", "dual", "--prune-ratio", "0.5", *SHORT]
    assert cli.main(plain) == 0
    config = (tmp_path / "out" / "config.yaml").read_text()
    lines = [line for line in config.splitlines() if "score_module" not in line]  # as version 0.1 wrote it
    (tmp_path / "out" / "config.yaml").write_text("\n".join(lines) + "\n")
    assert cli.main([*plain, "--score-module", "late_scores"]) == 2
    assert "--score-module None, and this one asks for late_scores" in capsys.readouterr().err
    assert cli.main(plain) == 0


def test_a_score_of_visits_needs_its_module(capsys: pytest.CaptureFixture[str]) -> None:
    @trajectories.score("first_p")
    def first_p(p: np.ndarray) -> np.ndarray:
        return p[0]

    assert cli.main(["run", "--out", "out", "--method", "first_p", *SHORT]) == 2
    assert "give --score-module MODULE too" in capsys.readouterr().err

"""A score of one's own from the command line: gathered, saved, selected by, and on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualfast import Scores, cli
from dualfast.scoring import trajectories

pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)
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
        ("taken", MODULE.format(name="random"), "a method of selection"),
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

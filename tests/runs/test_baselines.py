"""The trainings for comparison that select nothing: shorter and rs2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import cli
from dualfast.config import BASELINES, RunConfig
from dualfast.report.figures import COMPARED, styles
from dualfast.report.summary import groups, headline
from dualfast.runs import commands
from dualfast.runs.progress import NullProgress
from dualfast.runs.session import FreshSubsets

CONFIG = RunConfig(
    **{"epochs": 8, "score_epochs": 3, "window": 2, "threads": 1, "num_workers": 1, "tests": 1, "lr": 0.02},
    **{"prune_ratio": (0.75,), "seed": (0,), "full": False, "checkpoint_every": "1steps"},
)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class StopAfter(NullProgress):
    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def images(self, count: int) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_shorter_costs_what_scoring_and_the_subset_do(tmp_path: Path) -> None:
    config = replace(CONFIG, out=str(tmp_path / "run"), method=("random", "shorter"))
    _, rows = commands.run(config, NullProgress())
    by_method = {row["method"]: row for row in rows}
    assert by_method["random"]["epochs"] == 8
    assert by_method["shorter"]["epochs"] == 3 + 2  # 8 epochs of a quarter of the images cost 2 of all
    assert by_method["shorter"]["kept"] == 1437
    assert by_method["shorter"]["score_seconds"] == 0
    assert not list((tmp_path / "run").glob("keep-*shorter*"))
    assert not (tmp_path / "run" / "scores.parquet").exists()


def test_fresh_subsets_are_a_function_of_seed_and_epoch() -> None:
    subsets = FreshSubsets(1000, 0.9, 3)
    drawn = [subsets(epoch) for epoch in range(40)]
    assert all(len(ids) == len(subsets) == 100 for ids in drawn)
    assert (FreshSubsets(1000, 0.9, 3)(7) == drawn[7]).all()
    assert not np.array_equal(FreshSubsets(1000, 0.9, 4)(7), drawn[7])
    assert 0.97 < len(np.unique(np.concatenate(drawn))) / 1000 < 1  # 1 - 0.9^40 = 0.985


def test_rs2_resumes_with_the_subset_of_its_epoch(tmp_path: Path) -> None:
    config = replace(CONFIG, method=("rs2",))
    _, (whole,) = commands.run(replace(config, out=str(tmp_path / "whole")), NullProgress())
    stopped = replace(config, out=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        commands.run(stopped, StopAfter(3))
    _, (resumed,) = commands.run(stopped, NullProgress())
    assert (resumed["loss"], resumed["accuracy"]) == (whole["loss"], whole["accuracy"])
    _, (fixed,) = commands.run(replace(config, out=str(tmp_path / "fixed"), method=("random",)), NullProgress())
    assert fixed["loss"] != whole["loss"]


def test_the_page_is_never_about_a_baseline(tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="bokeh is not installed: no page can be written")
    config = replace(CONFIG, out=str(tmp_path / "run"), method=("shorter", "rs2", "random"))
    run_dir, rows = commands.run(config, NullProgress())
    sentence, _ = headline(groups(rows))
    assert "at random" in sentence
    looks = styles(groups(rows))
    assert len(set(looks.values())) == len(looks) == 3
    assert COMPARED.keys() == BASELINES.keys()
    assert "shorter" in run_dir.report_path.read_text(encoding="utf-8")


def test_help_names_them_and_select_refuses_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown: Any = capsys.readouterr().out
    assert all(f"{name}, " in shown for name in BASELINES)
    assert (
        cli.main(["select", "--scores", "x.parquet", "--out", "k.npy", "--prune-ratio", "0.5", "--method", "rs2"]) == 2
    )
    assert "method is 'rs2'" in capsys.readouterr().err

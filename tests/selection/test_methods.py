"""The registry: one class is a method everywhere, and nothing else knows the methods' names."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

import dualfast
from dualfast import cli, ops
from dualfast.data.index_list import load_keep
from dualfast.scoring import trajectories
from dualfast.scoring.table import Scores
from dualfast.selection import methods
from dualfast.selection.draw import smallest
from dualfast.selection.methods import METHODS, KeyedMethod, Samples, WeightedMethod
from dualfast.selection.select import select
from dualfast.selection.sharded import select as select_sharded
from dualfast.selection.streaming import select_files

N = 3000


@dataclass(frozen=True, kw_only=True)
class NearMean(KeyedMethod):
    """A method that only this test knows."""

    name = "near-mean"
    keeps = "the samples whose mean is nearest to a value"
    source = "nobody"
    columns = ("mean",)

    value: float = field(default=0.5, metadata={"doc": "the value"})

    def __post_init__(self) -> None:
        if not 0 <= self.value <= 1:
            raise ValueError(f"value is {self.value}; give a number in [0, 1]")

    def keys(self, samples: Samples) -> np.ndarray:
        return np.abs(samples.columns[0].astype(np.float64) - self.value)


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scores:
    monkeypatch.setitem(METHODS, "near-mean", NearMean)
    monkeypatch.chdir(tmp_path)
    mean = np.random.default_rng(0).random(N)
    return Scores(dual=mean * (1 - mean), mean=mean)


def test_one_class_is_a_method_in_every_engine(scores: Scores, capsys: pytest.CaptureFixture[str]) -> None:
    want = np.sort(np.argsort(np.abs(scores.mean - 0.25), kind="stable")[: N // 10])
    assert (select(scores, 0.9, method="near-mean", value=0.25) == want).all()
    scores.save("scores.parquet")
    command = ["select", "--scores", "scores.parquet", "--out"]
    assert cli.main([*command, "keep.npy", "--prune-ratio", "0.9", "--method", "near-mean:value=0.25"]) == 0
    assert cli.main([*command, "again.npy", "--like", "keep.json"]) == 0
    assert (load_keep("keep.npy") == want).all()
    assert (load_keep("again.npy") == want).all()
    assert cli.main([*command, "bad.npy", "--prune-ratio", "0.9", "--method", "near-mean:value=2"]) == 2
    assert "value is 2; give a number in [0, 1]" in capsys.readouterr().err
    select_files("scores.parquet", 0.9, "keep.npy", method="near-mean", value=0.25)
    assert (load_keep("keep.npy") == want).all()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert (select_sharded(scores, 0.9, method="near-mean", value=0.25) == want).all()
    finally:
        dist.destroy_process_group()
    assert len(select(scores, 0.9, method="near-mean", labels=np.arange(N) % 3, per_class=True)) == N // 10


@dataclass(frozen=True, kw_only=True)
class Hard(WeightedMethod):
    name = "hard"
    keeps = "a uniform draw from the samples of a mean below 0.5"
    columns = ("mean",)

    def race(self, samples: Samples) -> ops.Race:
        return replace(samples.uniform(), score=(samples.columns[0] < 0.5).astype(np.float32))


def test_a_weighted_method_refuses_scores_that_its_weights_hide(
    scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "hard", Hard)
    kept = select(scores, 0.7, method="hard", seed=4)
    assert scores.mean[kept].max() < 0.5
    np.save("mean.npy", scores.mean)
    select_files({"mean": "mean.npy"}, 0.7, "keep.npy", method="hard", seed=4)
    assert (load_keep("keep.npy") == kept).all()
    mean = scores.mean.copy()
    mean[9] = np.nan
    np.save("mean.npy", mean)
    for draw in (
        lambda: select(Scores(dual=scores.dual, mean=mean), 0.7, method="hard"),
        lambda: select_files({"mean": "mean.npy"}, 0.7, "keep.npy", method="hard"),
    ):
        with pytest.raises(ValueError, match=r"mean\[9\] is nan"):
            draw()


def test_help_and_docs_list_every_method(scores: Scores, capsys: pytest.CaptureFixture[str]) -> None:
    table = methods.markdown_table()
    assert "| `near-mean` | the samples whose mean is nearest to a value | `value`=0.5: the value | nobody |" in table
    with pytest.raises(SystemExit):
        cli.main(["select", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in (table, shown):
        assert all(name in text for name in (*METHODS, *methods.score_names()))
    assert "near-mean (value)" in shown


def test_nothing_else_tests_a_method_s_name() -> None:
    package = Path(dualfast.__file__).parent
    for file in package.rglob("*.py"):
        names = set(METHODS) - ({"random"} if file.parent.name == "loading" else set())  # an order of the loader, too
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                tested = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
                assert not tested & names, f"{file}, line {node.lineno}"


def test_a_registered_score_may_not_have_the_name_of_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "registered", lambda: {"ccs": SimpleNamespace(keep="low")})
    with pytest.raises(ValueError, match="'ccs', which is a method of selection; rename it"):
        methods.configure("ccs", {})


def test_scores_of_trajectories_are_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = {"late": SimpleNamespace(keep="low"), "early": SimpleNamespace(keep="high")}
    monkeypatch.setattr(trajectories, "registered", lambda: registered)
    column = np.random.default_rng(0).normal(size=100)  # negative values are as good as any
    scores: Any = SimpleNamespace(dual=column, late=column, early=column)
    order = np.argsort(column)
    assert (select(scores, 0.9, method="late") == np.sort(order[:10])).all()
    assert (select(scores, 0.9, method="early") == np.sort(order[-10:])).all()
    column[7] = np.nan
    with pytest.raises(ValueError, match=r"late\[7\] is nan"):
        select(scores, 0.9, method="late")
    with pytest.raises(ValueError, match=r"method is 'latest'; give one of aum, .*early, .*late, "):
        select(scores, 0.9, method="latest")


def test_valid_scores() -> None:
    column = np.array([-1.0, 0.0, 0.5, 1.0, 2.0, np.inf, -np.inf, np.nan])
    for name, valid in (("aum", 5), ("mean", 3), ("dual", 4)):
        assert (~methods.bad_scores(name, column)).sum() == valid, name
    assert [methods.kept_end(name) for name in ("dual", "aum", "mean", "loss")] == ["high", "low", "low", "high"]
    assert "visits" not in methods.score_names()


def test_which_methods_use_scores() -> None:
    assert [methods.uses_scores(text) for text in ("random", "dual+beta:c_d=4", "ccs", "aum", "from-elsewhere")] == [
        *(False, True, True, True, True)
    ]


def test_keys_that_are_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="the keys of 3 samples are NaN; a method gives each a number"):
        smallest(np.array([1.0, np.nan, np.nan, np.nan]), 3)
    assert smallest(np.array([1.0, np.nan, 0.5]), 2).tolist() == [0, 2]

"""Run directories of version 0.1 open, report, and continue.

tests/fixtures/run-0.1 is what 0.1.0 left of the command in REQUEST, without the .beton files and the page, and the
checkpoints of the same run, stopped while scoring (step 40) and while training on dual+beta's list (step 18).
"""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")

from scored_runs import Said

import dualfast
from dualfast.config import RunConfig
from dualfast.runs import commands
from dualfast.runs.progress import NullProgress
from dualfast.runs.rundir import RunDir
from dualfast.scoring.table import Scores
from dualfast.training import checkpoint_files
from dualfast.training.fit import _Trainer

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "run-0.1"
REQUEST: dict[str, Any] = {
    "model": "tiny_model:linear",
    **{"epochs": 3, "score_epochs": 3, "window": 2, "lr": 0.01, "tests": 1, "threads": 1, "num_workers": 1},
    **{"prune_ratio": (0.5,), "seed": (0,), "method": ("dual+beta", "random")},
}


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps at which trainings resume."""
    steps: list[int] = []
    resume = _Trainer.resume

    def counted(self: _Trainer, saved: Any) -> None:
        resume(self, saved)
        steps.append(self.scheduler.last_epoch)

    monkeypatch.setattr(_Trainer, "resume", counted)
    return steps


def copy_of(out: Path, *, events: int, checkpoint: str = "") -> Path:
    """The fixture, with its first `events` records only, and with a checkpoint if one is named."""
    shutil.copytree(FIXTURE, out, ignore=shutil.ignore_patterns("*.gz"))
    lines = (FIXTURE / "metrics.jsonl").read_text().splitlines(keepends=True)
    (out / "metrics.jsonl").write_text("".join(lines[:events]))
    (out / "checkpoints").mkdir()
    if checkpoint:
        content = gzip.decompress((FIXTURE / f"{checkpoint}.pt.gz").read_bytes())
        (out / "checkpoints" / f"{checkpoint.rpartition('-')[2]}.pt").write_bytes(content)
    return out


def run(out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    progress = Said()
    return commands.run(RunConfig(**REQUEST, out=str(out)), progress)[1], progress.lines


def trained_by_0_1() -> list[dict[str, Any]]:
    return RunDir(FIXTURE).records("trained")


def assert_same_results(rows: list[dict[str, Any]]) -> None:
    """Up to the last digits of another machine's sums, and of the loss, which 0.1 computed in bfloat16 where it trained
    in it."""
    expected = trained_by_0_1()
    exact = ("method", "prune_ratio", "seed", "kept", "n_samples", "epochs", "batch_size")
    assert [[row[name] for name in exact] for row in rows] == [[row[name] for name in exact] for row in expected]
    for row, before in zip(rows, expected, strict=True):
        assert row.keys() == before.keys()
        assert row["loss"] == pytest.approx(before["loss"], rel=2**-7)
        assert row["accuracy"] == pytest.approx(before["accuracy"], abs=0.02)


def test_a_finished_run_is_not_trained_again(tmp_path: Path, resumed: list[int]) -> None:
    out = copy_of(tmp_path / "run", events=4)
    scores, metrics = (out / "scores.parquet").read_bytes(), (out / "metrics.jsonl").read_bytes()
    lists = {path.name: path.read_bytes() for path in out.glob("keep-*")}
    rows, lines = run(out)
    assert rows == trained_by_0_1()
    assert any("all 3 trainings are finished" in line for line in lines)
    assert (out / "scores.parquet").read_bytes() == scores
    assert (out / "metrics.jsonl").read_bytes() == metrics
    assert {path.name: path.read_bytes() for path in out.glob("keep-*")} == lists
    assert resumed == []
    config = yaml.safe_load((out / "config.yaml").read_text())["asked"]
    before = yaml.safe_load((FIXTURE / "config.yaml").read_text())["asked"]
    assert {name: config[name] for name in before if name != "out"} == {k: v for k, v in before.items() if k != "out"}


def test_a_report_of_a_run_without_its_images(tmp_path: Path) -> None:
    pytest.importorskip("bokeh", reason="bokeh is not installed: no page can be written")
    out = copy_of(tmp_path / "run", events=4)
    text = commands.report(out).read_text(encoding="utf-8")
    assert "dual+beta" in text
    assert "79.17" in text


def test_another_configuration_is_still_refused(tmp_path: Path) -> None:
    out = copy_of(tmp_path / "run", events=4)
    with pytest.raises(ValueError, match=r"holds a run with lr=0\.01, and this one asks for 0\.02"):
        commands.run(RunConfig(**{**REQUEST, "lr": 0.02}, out=str(out)), NullProgress())


def test_the_next_trial_reads_the_scores_and_lists_that_are_there(tmp_path: Path) -> None:
    out = copy_of(tmp_path / "run", events=2)
    (out / "keep-0.5-random-seed0.npy").unlink()
    rows, lines = run(out)
    assert_same_results(rows)
    assert not any("scored" in line for line in lines)
    for name in ("keep-0.5.npy", "keep-0.5-random-seed0.npy"):
        assert (np.load(out / name) == np.load(FIXTURE / name)).all()
    sidecars = [json.loads((folder / "keep-0.5-random-seed0.json").read_text()) for folder in (out, FIXTURE)]
    assert sidecars[0].pop("dualfast")
    assert sidecars[0].pop("crc32")  # 0.1 wrote none
    assert sidecars[1].pop("dualfast") == "0.1.0"
    assert sidecars[0] == sidecars[1]


def test_ccs_of_0_1_goes_on_covering_aum(tmp_path: Path) -> None:
    """Its scores have no aum_prob, which ccs covers by default now."""
    out = copy_of(tmp_path / "run", events=2)
    config = RunConfig(**{**REQUEST, "method": ("ccs",)}, out=str(out), full=False)
    commands.run(config, NullProgress())
    kept = out / "keep-0.5-ccs-seed0.npy"
    scores = Scores.load(out / "scores.parquet")
    assert (np.load(kept) == dualfast.select(scores, 0.5, method="ccs", score="aum")).all()
    assert json.loads(kept.with_suffix(".json").read_text())["score"] == "aum"
    with pytest.raises(ValueError, match=r"aum_prob.*give score='aum'"):
        dualfast.select(scores, 0.5, method="ccs")
    commands.run(replace(config, seed=(0, 1)), NullProgress())  # a seed that is scored today, and has aum_prob
    assert json.loads((out / "keep-0.5-ccs-seed1.json").read_text())["score"] == "aum"


def test_a_training_resumes_from_its_checkpoint(tmp_path: Path, resumed: list[int]) -> None:
    out = copy_of(tmp_path / "run", events=2, checkpoint="training-0000000018")
    rows, _ = run(out)
    assert resumed == [18]
    assert_same_results(rows)
    assert not list((out / "checkpoints").iterdir())


def test_scoring_resumes_from_its_checkpoint(tmp_path: Path, resumed: list[int]) -> None:
    out = copy_of(tmp_path / "run", events=0, checkpoint="scoring-0000000040")
    (out / "scores.parquet").unlink()
    for path in out.glob("keep-*"):
        path.unlink()
    rows, _ = run(out)
    assert resumed == [40]
    assert_same_results(rows)
    scores, before = Scores.load(out / "scores.parquet"), Scores.load(FIXTURE / "scores.parquet")
    assert scores.visits is not None
    assert (scores.visits == 3).all()
    for name in ("dual", "mean", "dyn_unc", "aum", "el2n"):
        after, of_0_1 = getattr(scores, name), getattr(before, name)
        # Sums of bfloat16 products differ between processors, and three epochs carry that on: by up to 0.03 of the
        # spread from one with AVX-512 to one without.
        np.testing.assert_allclose(after, of_0_1, rtol=0, atol=0.1 * of_0_1.std())


def test_a_checkpoint_file_as_0_1_lays_it_out(tmp_path: Path) -> None:
    """The keys by which 0.1 wrote, and reads: both directions depend on them."""
    path = tmp_path / "0000000018.pt"
    path.write_bytes(gzip.decompress((FIXTURE / "training-0000000018.pt.gz").read_bytes()))
    payload = checkpoint_files.read(path)
    assert list(payload) == ["format", "what", "step", "state"]
    assert (payload["format"], payload["step"]) == (checkpoint_files.FORMAT, 18)
    assert payload["what"] == {
        "training": "dual+beta at prune ratio 0.5, seed 0",
        "data": "ae83e8a242a31f40644e16aa511ce89a",
        "window": None,
    }
    assert list(payload["state"]) == ["model", "optimizer", "schedule", "loader", "table", "rng", "course"]
    course = payload["state"]["course"]
    assert [*course] == [
        *("loss_sum", "epoch", "batches", "images", "seen", "seconds", "cpu_seconds", "loss", "accuracy", "best")
    ]


def test_all_seeds_are_cut_by_the_margin_that_0_1_kept(tmp_path: Path) -> None:
    out = copy_of(tmp_path / "run", events=4)
    more = {"seed": (0, 1), "method": (*REQUEST["method"], "dual:mislabel_cut=200")}
    commands.run(RunConfig(**REQUEST | more, out=str(out)), NullProgress())
    for seed in (0, 1):
        scores = Scores.load(RunDir(out).scores_path(seed))
        assert (scores.late_margin is None) == (seed == 0), "that of 0.1 has none"
        kept = np.load(out / f"keep-0.5-dual_mislabel_cut=200-seed{seed}.npy")
        assert (kept == dualfast.select(replace(scores, late_margin=None), 0.5, method="dual", mislabel_cut=200)).all()
    assert (kept != dualfast.select(scores, 0.5, method="dual", mislabel_cut=200)).any(), "it matters"

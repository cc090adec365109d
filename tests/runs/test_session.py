"""dualfast.runs: what one run directory keeps apart, and what runs may share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gloo import on_ranks
from scored_runs import Said

from dualfast.config import RunConfig, TrainConfig
from dualfast.data import beton
from dualfast.data.index_list import save_keep
from dualfast.loading.decode import NORMALIZATIONS
from dualfast.loading.order import share
from dualfast.runs import commands, rundir, session
from dualfast.runs.progress import NullProgress
from dualfast.runs.scoring import adopt_scores, score
from dualfast.runs.session import open_session
from dualfast.runs.trial import Trial, keep_list, run_trial
from dualfast.scoring.table import Scores
from dualfast.selection.beta import auto_c_d

SHORT: dict[str, Any] = {"epochs": 2, "score_epochs": 2, "window": 2, "threads": 1, "num_workers": 1, "tests": 1}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def asked(out: Path, **options: Any) -> RunConfig:
    return RunConfig(**{**SHORT, "prune_ratio": (0.9,), "seed": (0,), "full": False, "out": str(out), **options})


def test_a_method_asked_for_later_draws_its_own_list(tmp_path: Path) -> None:
    for method in ("dual+beta:c_d=2.1", "dual+beta", "dual+beta:c_d=imagenet", "dual", "dual:keep=low"):
        commands.run(asked(tmp_path / "run", method=(method,)), NullProgress())
    ours = sorted((tmp_path / "run").glob("keep-0.9*.json"))
    drawn = {
        (about["method"], about.get("c_d"), about.get("keep")) for about in map(json.loads, map(Path.read_text, ours))
    }
    auto = auto_c_d(Scores.load(tmp_path / "run" / "scores.parquet"), 0.9)
    assert drawn == {
        *(("dual+beta", c_d, None) for c_d in (2.1, auto, 11)),
        *(("dual", None, keep) for keep in (None, "low")),
    }
    assert len({tuple(np.load(path.with_suffix(".npy"))) for path in ours}) == 5


def test_tdds_is_gathered_on_demand(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give --tdds too"):
        commands.run(asked(tmp_path / "without", method=("tdds",)), NullProgress())
    short = {"epochs": 4, "score_epochs": 4}
    run_dir, rows = commands.run(asked(tmp_path / "with", method=("tdds", "loss"), tdds=True, **short), NullProgress())
    assert [row["kept"] for row in rows] == [144, 144]
    lists = [np.load(run_dir.path / name) for name in ("keep-0.9.npy", "keep-0.9-loss-seed0.npy")]
    assert len(np.intersect1d(*lists)) < 144


def test_the_paper_s_batch_rule_and_equal_steps(tmp_path: Path) -> None:
    config = asked(
        tmp_path / "run", batch_rule="paper", compute="steps", method=("random", "loss", "aum:mislabel_cut=100")
    )
    config = RunConfig(**{**vars(config), "prune_ratio": (0.5, 0.8, 0.9)})
    _, rows = commands.run(config, NullProgress())
    found = {(row["prune_ratio"], row["batch_size"], row["epochs"]) for row in rows}
    # 1,437 images in batches of 64 are 23 steps an epoch; 719, 287 and 144 in batches of 64, 32 and 16 are 12, 9 and 9.
    assert found == {(0.5, 64, round(46 / 12)), (0.8, 32, round(46 / 9)), (0.9, 16, round(46 / 9))}
    assert len(rows) == 9


@pytest.mark.parametrize("compute", ["epochs", "steps"])
def test_a_kept_list_is_trained_alike_by_run_and_by_train(compute: Literal["epochs", "steps"], tmp_path: Path) -> None:
    rules: dict[str, Any] = {"batch_rule": "paper", "compute": compute}
    run_dir, rows = commands.run(asked(tmp_path / "run", method=("random",), **rules), NullProgress())
    keep, scoring = run_dir.path / "keep-0.9.npy", ("score_epochs", "window")
    config = {name: value for name, value in SHORT.items() if name not in scoring} | rules

    def trained(list_path: Path, name: str) -> tuple[Any, ...]:
        out = str(tmp_path / name)
        row = commands.train(TrainConfig(**config, keep=str(list_path), out=out), NullProgress())[1]
        return tuple(row[key] for key in ("epochs", "batch_size", "kept", "prune_ratio", "accuracy", "loss"))

    same = tuple(rows[0][key] for key in ("epochs", "batch_size", "kept", "prune_ratio", "accuracy", "loss"))
    assert same[:3] == (2 if compute == "epochs" else round(46 / 9), 16, 144)
    assert trained(keep, "with-sidecar") == same
    # Without a sidecar the ratio follows from the counts: 1 - 144 / 1,437 is below 0.9, which keeps as many.
    bare = tmp_path / "bare.npy"
    bare.write_bytes(keep.read_bytes())
    assert trained(bare, "without") == same


@pytest.mark.parametrize(("noted", "said"), [(1.5, r"prune_ratio is 1\.5"), (None, "keeps no images")])
def test_a_kept_list_that_cannot_be_trained_on_is_named(noted: float | None, said: str, tmp_path: Path) -> None:
    keep = tmp_path / "keep.npy"
    if noted is None:
        np.save(keep, np.empty(0, np.int64))
    else:
        save_keep(keep, np.arange(100), n_samples=1437, prune_ratio=noted)
    config = TrainConfig(keep=str(keep), out=str(tmp_path / "run"), epochs=1, threads=1, num_workers=1)
    with pytest.raises(ValueError, match=said):
        commands.train(config, NullProgress())


def test_scores_of_another_run_are_adopted_once_and_only_for_the_same_data(tmp_path: Path) -> None:
    first = asked(tmp_path / "first")
    with open_session(first, NullProgress(), needs_test=True) as opened:
        path = score(opened, first, 0)
        ours = keep_list(opened, Trial("dual", 0.9, 0), first)
    second = asked(tmp_path / "second", model="wide")
    with open_session(second, NullProgress(), needs_test=True) as opened:
        assert opened.run_dir.scored_seeds() == []
        times = {"seconds": 12.5, "cpu_seconds": 9.5}
        adopt_scores(opened, path, 0, {"event": "scored", **times, "epochs": 30, "schedule_epochs": 200})
        (record,) = opened.run_dir.records("scored")
        assert (record["epochs"], record["schedule_epochs"]) == (30, 200)
        adopt_scores(opened, path, 0, {"seconds": 99.0})
        assert (keep_list(opened, Trial("dual", 0.9, 0), second) == ours).all()
        row = run_trial(opened, Trial("dual", 0.9, 0), second)
        assert (row["score_seconds"], row["score_cpu_seconds"]) == (12.5, 9.5)
        assert row["train_cpu_seconds"] > 0
    images = np.random.default_rng(0).integers(0, 256, (1437, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", images=images, labels=np.arange(1437) % 10)
    other = str(tmp_path / "other.npz")
    third = asked(tmp_path / "third", data=other, test=other)
    with (
        open_session(third, NullProgress(), needs_test=True) as opened,
        pytest.raises(ValueError, match="was written for the data"),
    ):
        adopt_scores(opened, path, 0, {"seconds": 1.0})


def test_scores_depend_on_their_own_schedule_and_not_on_the_retraining(tmp_path: Path) -> None:
    def scored(name: str, **options: Any) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        run_dir, _ = commands.run(asked(tmp_path / name, method=("dual",), **options), NullProgress())
        (record,) = run_dir.records("scored")
        return Scores.load(run_dir.scores_path(0)).mean, record

    mean, record = scored("alone")
    assert (record["epochs"], record["schedule_epochs"]) == (2, 2)
    longer, record = scored("longer", epochs=3, batch_rule="paper", compute="steps")
    assert (longer == mean).all()
    assert (record["epochs"], record["schedule_epochs"]) == (2, 2)
    start, record = scored("start", score_schedule_epochs=5)
    assert (start != mean).any()
    assert (record["epochs"], record["schedule_epochs"]) == (2, 5)


def test_a_draw_seed_of_its_own_changes_the_list_alone(tmp_path: Path) -> None:
    config = asked(tmp_path / "run", prune_ratio=(0.9, 0.8), method=("random",))
    with open_session(config, NullProgress(), needs_test=True) as opened:
        lists = {
            (ratio, draw): keep_list(opened, Trial("random", ratio, seed, draw), config)
            for ratio, seed, draw in ((0.9, 0, None), (0.8, 0, None), (0.9, 1, 7), (0.8, 1, 8))
        }
    assert np.isin(lists[0.9, None], lists[0.8, None]).all()  # one seed draws nested subsets
    assert np.isin(lists[0.9, 7], lists[0.8, 8]).mean() < 0.5
    about = json.loads((tmp_path / "run" / "keep-0.9-random-seed1.json").read_text())
    assert about["seed"] == 7
    assert Trial("random", 0.9, 1, 7) == Trial("random", 0.9, 1)


def write_beton(path: Path, seed: int, n: int = 64) -> str:
    images = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    beton.write((images, np.arange(n) % 2), path, rewrite=True, progress=False)
    return str(path)


def test_a_model_whose_code_has_changed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))\n"
    )
    (tmp_path / "changing_nets.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    options: dict[str, Any] = {
        "model": "changing_nets:net",
        "data": "digits",
        "out": str(tmp_path / "run"),
        "epochs": 1,
        "tests": 1,
    }
    said = [Said() for _ in range(3)]
    for at, seed in enumerate((0, 0, 1)):
        if at == 2:
            (tmp_path / "changing_nets.py").write_text(source + "# another\n")
        commands.train(TrainConfig(**options, seed=seed), said[at])
    told = [any("has changed since an earlier call" in line for line in one.lines) for one in said]
    assert told == [False, False, True]


def test_results_on_other_data_do_not_mix(tmp_path: Path) -> None:
    data, test = (write_beton(tmp_path / f"{name}.beton", seed) for seed, name in enumerate(("a", "t")))
    config = asked(tmp_path / "run", data=data, test=test, method=("random",))
    _, rows = commands.run(config, NullProgress())
    assert commands.run(config, NullProgress())[1] == rows
    config_path = tmp_path / "run" / "config.yaml"
    noted = config_path.read_text()
    for path, what in ((data, "training images of the fingerprint"), (test, "test images of the fingerprint")):
        write_beton(Path(path), 9)
        with pytest.raises(ValueError, match=rf"run' holds a run with {what} .* give another --out"):
            commands.run(config, NullProgress())
        assert config_path.read_text() == noted
        write_beton(Path(path), (data, test).index(path))
    # A run directory of a version that did not note its data goes on.
    config_path.write_text("".join(line for line in noted.splitlines(True) if "_fingerprint" not in line))
    assert commands.run(config, NullProgress())[1] == rows
    assert "data_fingerprint" in config_path.read_text()


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    data, test = (write_beton(tmp_path / f"{name}.beton", seed) for seed, name in enumerate(("a", "t")))
    config = asked(tmp_path / "run", data=data, test=test, method=("random",))

    class Twice(NullProgress):
        def plan(self, images: int) -> None:
            before = (tmp_path / "run" / "config.yaml").read_text()
            with pytest.raises(ValueError, match="in use by another run"):
                commands.run(replace(config, seed=(1,)), NullProgress())
            assert (tmp_path / "run" / "config.yaml").read_text() == before

    assert len(commands.run(config, Twice())[1]) == 1
    assert len(commands.run(replace(config, seed=(1,)), NullProgress())[1]) == 1


def test_a_ratio_that_keeps_nothing_is_refused_before_scoring(tmp_path: Path) -> None:
    data, test = (write_beton(tmp_path / f"{name}.beton", seed) for seed, name in enumerate(("a", "t")))
    for compute in ("epochs", "steps"):
        config = asked(tmp_path / compute, data=data, test=test, compute=compute)
        with pytest.raises(ValueError, match=r"prune_ratio 0\.999 keeps 0 of 64 images"):
            commands.run(replace(config, prune_ratio=(0.5, 0.999)), NullProgress())
        assert not (tmp_path / compute / "metrics.jsonl").exists()


@pytest.mark.parametrize("data", [".", "../here", ".."])
def test_a_run_is_named_after_its_data(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    want = tmp_path.name if data == ".." else "here"
    assert rundir.out_of(RunConfig(data=data)) == f"runs/{want}"
    assert rundir.out_of(RunConfig(data=".hidden")) == "runs/hidden"
    assert rundir.out_of(RunConfig(data="a/photos.tar.gz")) == "runs/photos"


def test_numpy_numbers_are_noted_as_numbers(tmp_path: Path) -> None:
    numbers = {"c_d": np.float32(5.5), "prune_ratio": (np.float64(0.5),), "seed": (np.int64(3),)}
    config = asked(tmp_path / "run", **numbers)
    noted = rundir.RunDir(rundir.out_of(config), rundir.request_of(config)).config()["asked"]
    assert (noted["c_d"], noted["prune_ratio"], noted["seed"]) == (5.5, [0.5], [3])


def test_images_are_normalised_and_filled_as_the_recipe_says(tmp_path: Path) -> None:
    pixels, shifted = {}, {}
    for normalize, fill in (("imagenet", "mean"), ("cifar10", "black")):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALIZATIONS[normalize])
        with session.open_session(
            asked(tmp_path / fill, normalize=normalize, fill=fill), NullProgress(), needs_test=True
        ) as opened:
            pixels[fill] = next(iter(opened._test_loader))[0] * std + mean
            shifted[fill] = next(iter(opened._train_loader))[0]
    assert torch.allclose(pixels["mean"], pixels["black"], atol=1e-5)
    assert (shifted["mean"] == 0).any()  # the mean, which no pixel value has
    assert not (shifted["black"] == 0).any()


def refused(out: Path) -> str:
    with pytest.raises(ValueError, match="on a single process only") as error:
        commands.run(asked(out, tdds=True, method=("tdds",)), NullProgress())
    return str(error.value)


def test_what_several_processes_cannot_score_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    said = "tdds is gathered on a single process only; leave out --tdds, or start one process"
    assert on_ranks(2, refused, tmp_path, tmp_path / "run") == [said, said]
    assert not (tmp_path / "run").exists()
    own = asked(tmp_path / "run", score_module="own")
    with pytest.raises(ValueError, match="leave out --score-module"):
        own.check_processes(2)
    own.check_processes(1)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_no_last_batch_is_one_image(ranks: int) -> None:
    for count in range(2 * ranks, 300):
        batch = session.rank_batch_size(count, 64, ranks)
        assert 64 <= batch * ranks < 2 * 64 + ranks
        shares = [share(np.arange(count), batch, rank=rank, world_size=ranks).starts for rank in range(ranks)]
        assert min(starts[-1] - starts[-2] for starts in shares) > 1, (count, batch)
    assert session.rank_batch_size(1437, 64, 1) == 64
    assert session.rank_batch_size(9, 2, 2) == 1


def test_resnet9_trains_where_one_image_would_be_left(tmp_path: Path) -> None:
    data = write_beton(tmp_path / "a.beton", 0, n=65)
    short = {name: SHORT[name] for name in ("threads", "num_workers", "epochs")}
    config = TrainConfig(data=data, out=str(tmp_path / "run"), model="resnet9", batch_size=64, **short)
    assert commands.train(config, NullProgress())[1]["loss"] < 10

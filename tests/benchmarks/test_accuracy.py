"""benchmarks/accuracy: killed grids resume, data variants count what they change, pages match the results."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import accuracy_fixture
import numpy as np
import pytest
import torch

from dualfast.training import fit as train

ROOT = Path(__file__).resolve().parents[2]
ACCURACY = ROOT / "benchmarks" / "accuracy"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/accuracy."""
    monkeypatch.syspath_prepend(str(ACCURACY))
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


def asked(tmp_path: Path, *arguments: str) -> list[str]:
    given = ["--work", str(tmp_path / "work"), "--results", str(tmp_path / "r.jsonl"), "--threads", "1"]
    return [*arguments, *given]


def test_a_killed_grid_resumes_and_loses_at_most_one_training(
    tmp_path: Path, modules: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = tmp_path / "r.jsonl", modules("run")
    with subprocess.Popen([sys.executable, str(ACCURACY / "run.py"), *asked(tmp_path, "digits")]) as killed:
        while not (path.exists() and path.read_bytes().count(b"\n")):
            assert killed.poll() is None or path.read_bytes(), "it ended without a result"
            time.sleep(0.01)
        os.kill(killed.pid, signal.SIGKILL)
    before = path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
    assert before.count(b"\n") < 3
    with path.open("ab") as file:
        file.write(b'{"method": "cut o')
    run.main(asked(tmp_path, "digits"))
    told = capsys.readouterr().out
    assert f"{before.count(bytes([10]))} of 3 trainings are finished" in told
    after = path.read_bytes()
    assert after.startswith(before)
    rows = [json.loads(line) for line in after.splitlines()]
    assert [(row["method"], row["ratio"], row["kept"]) for row in rows] == [
        ("full", 0.0, 1437),
        ("random", 0.5, 719),
        ("dual+beta", 0.5, 719),
    ]
    assert rows[2]["score_seconds"] > 0
    assert rows[1]["score_seconds"] == 0
    for row in rows:
        assert 0.3 < row["accuracy"] <= row["best_accuracy"] <= 1
        assert row["train_seconds"] > 0
        assert {"commit", "machine", "cores", "versions", "date"} <= set(row)
    run.main(asked(tmp_path, "digits"))
    assert "3 of 3 trainings are finished" in capsys.readouterr().out
    assert path.read_bytes() == after


def test_a_grid_runs_under_torchrun(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(ACCURACY / "run.py")]
    given: dict[str, Any] = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "capture_output": True, "text": True}
    single = ["point", "--data", "digits", "--recipe", "default", "--method", "tdds", "--set", "tdds=true"]
    refused = subprocess.run([*torchrun, *asked(tmp_path, *single)], **given)
    assert "tdds is gathered on a single process only" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    done = subprocess.run([*torchrun, *asked(tmp_path, "digits")], **given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 of 3 trainings are finished") == 1
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(row["method"], row["ranks"]) for row in rows] == [("full", 2), ("random", 2), ("dual+beta", 2)]
    assert rows[2]["score_seconds"] > 0


def test_a_grid_that_another_run_writes_is_refused(tmp_path: Path, modules: Any) -> None:
    run = modules("run")
    other = run.Results(tmp_path / "r.jsonl")
    with pytest.raises(SystemExit, match="is being written by another run"):
        run.main(asked(tmp_path, "digits"))
    other.file.close()


def test_a_stopped_training_resumes_inside(tmp_path: Path, modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, resumed = modules("run"), []
    resume = train._Trainer.resume
    monkeypatch.setattr(train._Trainer, "resume", lambda *given: resumed.append(resume(*given)))
    what = ["point", "--data", "digits", "--recipe", "default", "--method", "random", "--ratio", "0.5"]
    what += ["--set", "epochs=40"]
    command = [sys.executable, str(ACCURACY / "run.py"), *asked(tmp_path / "stopped", *what)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopped:
        while not list(tmp_path.glob("stopped/work/runs/*/*/*/checkpoints")):
            assert stopped.poll() is None, "it ended without a training"
            time.sleep(0.01)
        stopped.terminate()
        told, _ = stopped.communicate()
    assert stopped.returncode == 0
    assert re.search(r"stopped after step \d+ of random at prune ratio 0.5, seed 0; the same command continues", told)
    run.main(asked(tmp_path / "stopped", *what))
    run.main(asked(tmp_path / "unbroken", *what))
    assert len(resumed) == 1
    rows = [json.loads((tmp_path / name / "r.jsonl").read_text()) for name in ("stopped", "unbroken")]
    same = ("accuracy", "best_accuracy", "kept", "loss")
    assert [rows[0][name] for name in same] == [rows[1][name] for name in same]


def test_points_share_scores_across_methods_compute_modes_and_networks(tmp_path: Path, modules: Any) -> None:
    run = modules("run")
    small = ["--set", "epochs=2", "score_epochs=2", "window=2", "batch_rule=paper"]
    base = ["point", "--data", "digits", "--recipe", "default", "--ratio", "0.9"]
    for more in (
        ["--method", "loss"],
        ["--method", "aum-cut", "--scenario", "noise=0.2"],
        ["--method", "ccs", "--scenario", "noise=0.2"],
        ["--method", "dual+beta:c_d=auto", "--compute", "steps"],
        ["--method", "dual", "--model", "wide", "--score-model", "small"],
    ):
        run.main([*asked(tmp_path, *base, *more), *small])
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["kept"] for row in rows] == [144] * 5
    assert {row["batch_size"] for row in rows} == {16}
    assert rows[1]["as"] == "aum:mislabel_cut=431"  # 0.3 of 1,437: the published cut is above the rate of the noise
    assert rows[2]["as"] == "ccs:score=aum_prob,mis_ratio=0.3"
    assert rows[1]["altered"] == rows[2]["altered"] == 287
    noisy = np.load(tmp_path / "work" / "data" / "digits-all" / "noise=0.2" / "altered.npy")
    folder = next((tmp_path / "work" / "runs" / "digits-all" / "noise=0.2").iterdir())
    kept = np.load(folder / "keep-0.9-aum_mislabel_cut=431-seed0.npy")
    assert rows[1]["altered_kept"] == len(set(noisy.tolist()) & set(kept.tolist()))
    assert rows[3]["epochs"] > 2
    assert 1 <= rows[3]["c_d"] <= 11
    # Scored three times: clean by small, noisy by small; steps and another network took what was there.
    scored = sorted(path.parent.parent.name for path in (tmp_path / "work" / "scores").rglob("scores.parquet"))
    assert scored == ["clean", "noise=0.2"]
    assert rows[3]["score_seconds"] == rows[4]["score_seconds"] == rows[0]["score_seconds"] > 0


def test_label_noise_has_the_exact_count_and_is_uniform_over_the_other_classes(modules: Any) -> None:
    data = modules("data")
    labels = np.repeat(np.arange(10), 500)
    ids = data.chosen(5000, 0.3, "noise")
    assert len(np.unique(ids)) == len(ids) == 1500
    wrong = data.wrong_labels(labels, ids, 10)
    assert (np.flatnonzero(wrong != labels) == ids).all()  # each of them, and no other
    moved = np.bincount((wrong[ids] - labels[ids]) % 10, minlength=10)
    assert moved[0] == 0
    assert np.abs(moved[1:] - 1500 / 9).max() < 5 * np.sqrt(1500 / 9)
    assert (data.chosen(5000, 0.3, "noise") == ids).all()
    assert len(np.intersect1d(ids, data.chosen(5000, 0.3, "corrupt"))) < 1500


def test_a_subset_is_balanced_over_the_classes(modules: Any) -> None:
    from dualfast.data import sources

    data = modules("data")
    images, labels = sources.digits("train")
    part = data.subset(sources.open_source((images, labels)), 200)
    assert np.bincount(part.labels).tolist() == [20] * 10
    items = np.stack(list(part.items()))
    rows = [int(np.flatnonzero((images == item).all((1, 2, 3)))[0]) for item in items]
    assert rows == sorted(set(rows))
    assert (labels[rows] == part.labels).all()
    with pytest.raises(ValueError, match="multiple of the 10 classes"):
        data.subset(sources.open_source((images, labels)), 205)


def test_each_kind_of_corruption_changes_the_image_and_keeps_its_shape(modules: Any) -> None:
    data = modules("data")
    yy, xx = np.mgrid[:32, :32]
    image = np.stack([8 * xx, 8 * yy, 128 + 0 * xx], 2).astype(np.uint8)
    image[8:16, 8:16] = 255 - image[8:16, 8:16]
    for kind in data.KINDS:
        spoilt = data.corrupt(image, kind, np.random.default_rng(0))
        assert spoilt.shape == image.shape
        assert spoilt.dtype == np.uint8
        difference = np.abs(spoilt.astype(int) - image).mean()
        assert 2 < difference < 120, kind
        assert (spoilt == data.corrupt(image, kind, np.random.default_rng(0))).all()
    covered = (data.corrupt(image, "occlusion", np.random.default_rng(0)) != image).any(2).sum()
    assert 200 < covered <= 256  # a quarter
    with pytest.raises(ValueError, match="kind is 'rain'"):
        data.corrupt(image, "rain", np.random.default_rng(0))


def test_corruption_changes_only_the_chosen_images(tmp_path: Path, modules: Any) -> None:
    from dualfast.data import beton, sources

    data = modules("data")
    written = data.prepare(tmp_path, "digits", 100, "corrupt=0.4")
    clean = data.prepare(tmp_path, "digits", 100, "clean")
    assert len(written.altered) == 40
    assert len(clean.altered) == 0
    ours, theirs = beton.open_beton(written.train), beton.open_beton(clean.train)
    changed = [i for i in range(100) if (ours.image(i) != theirs.image(i)).any()]
    assert changed == written.altered.tolist()
    assert (ours.labels == theirs.labels).all()
    with pytest.raises(ValueError, match="scenario is 'rain'"):
        data.prepare(tmp_path, "digits", 100, "rain")
    images, labels = sources.digits("test")
    np.savez(tmp_path / "digits.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match="without test images"):
        data.prepare(tmp_path, str(tmp_path / "digits.npz"), 0, "clean")
    for split in ("train", "val"):
        (tmp_path / "digits" / split).mkdir(parents=True)
    with pytest.raises(ValueError, match="was written from digits, not"):
        data.prepare(tmp_path, str(tmp_path / "digits"), 100, "clean")


def test_real_images_and_archives_go_through_the_runner(tmp_path: Path, real_data: Path, modules: Any) -> None:
    """A folder of ImageNet photographs with train/ and val/, and a CIFAR archive, by the same command."""
    import tarfile

    run = modules("run")
    for split in ("train", "val"):
        for source in sorted((real_data / "imagenet-sample").iterdir())[:2]:
            (tmp_path / "photos" / split / source.name).mkdir(parents=True)
            for image in source.iterdir():
                for copy in range(6 if split == "train" else 1):
                    target = tmp_path / "photos" / split / source.name / f"{copy}{image.suffix}"
                    target.write_bytes(image.read_bytes())
    rng = np.random.default_rng(0)
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, count in (("data_batch_1.bin", 40), ("test_batch.bin", 10)):
            block = b"".join(bytes([i % 2]) + rng.bytes(3072) for i in range(count))
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(block)
            tar.addfile(info, io.BytesIO(block))
    for given, more in (
        (["--recipe", "imagenet", "--data", str(tmp_path / "photos"), "--model", "small"], ["image_size=32"]),
        (["--recipe", "paper", "--data", str(tmp_path / "cifar-10-binary.tar.gz"), "--model", "small"], []),
    ):
        options = ["--set", "epochs=2", "score_epochs=2", "window=2", "batch_size=4", *more]
        run.main([*asked(tmp_path, "point", *given, "--ratio", "0.5", "--method", "dual"), *options])
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [(row["data"], row["kept"], row["n_samples"]) for row in rows] == [
        ("photos", 6, 12),
        ("cifar-10-binary", 20, 40),
    ]


def test_the_plan_counts_what_the_grid_trains_on(modules: Any) -> None:
    run, grids = modules("run"), modules("grids")
    points = list(grids.cpu("cifar10"))
    images, _ = run.cost(points, 50_000)
    many = 3 * 10_000 * 30 * (1.8 * (len(grids.METHODS) - 1) + 0.6 + 1 + 1)
    assert images == pytest.approx(many)
    assert images / 3800 < 2 * 3600
    # 30 scorings of 50,000 images a seed, and per seed the kept fractions times 200 epochs.
    proof = 3 * (4 * 0.6 + 4 * 0.1) + 2 * (2 * (0.5 + 0.7) + 1)
    assert run.cost(list(grids.proof("cifar10")), 50_000)[0] == pytest.approx((200 * proof + 3 * 30) * 50_000)
    assert run.cost(list(grids.c_d("cifar10")), 50_000)[0] == pytest.approx(4 * (17 * 1.1 * 18 + 45) * 10_000)
    for name, grid in grids.GRIDS.items():
        made = list(grid("cifar10"))
        keys = {json.dumps(point.key(), sort_keys=True) for point in made}
        assert len(keys) == len(made), f"{name} asks for a training twice"
        for point in made:
            point.config(point.model)


def test_the_proof_grid_scores_once_a_seed_and_draws_each_ratio_anew(modules: Any) -> None:
    grids = modules("grids")
    points = list(grids.proof("elsewhere/cifar10"))
    assert {point.data for point in points} == {"elsewhere/cifar10"}
    assert [(p.ratio, p.seed, p.method) for p in points[:5]] == [
        *((0.9, 0, method) for method in ("random", "dual+beta:c_d=auto", "dual+beta", "ccs")),
        (0.9, 1, "random"),
    ]
    # The cuts that CCS's authors give for CIFAR-10.
    cuts = {p.ratio: p.method_for(50_000) for p in points if p.method == "ccs"}
    assert cuts == {ratio: f"ccs:score=aum_prob,mis_ratio={cut}" for ratio, cut in ((0.9, 0.3), (0.8, 0.1), (0.7, 0.1))}
    config = points[0].config("small")
    assert (config.epochs, config.score_epochs, config.score_schedule_epochs, config.c_d) == (200, 30, 30, 4.0)
    assert [config.batch_size_at(ratio) for ratio in (0.0, 0.7, 0.8, 0.9)] == [128, 128, 64, 32]
    draws = {(point.seed, point.ratio): point.draw_seed for point in points}
    assert len(set(draws.values())) == len(draws)


def test_an_invalid_point_is_refused_by_name(modules: Any) -> None:
    grids = modules("grids")
    for wrong, said in (
        ({"recipe": "x"}, "recipe is 'x'"),
        ({"ratio": 1.0}, "REMOVED"),
        ({"compute": "x"}, "epochs or"),
    ):
        with pytest.raises(ValueError, match=said):
            grids.Point(data="digits", **wrong)


def test_tables_and_figures_are_a_function_of_the_results(tmp_path: Path, modules: Any) -> None:
    pytest.importorskip("matplotlib")
    plot = modules("plot")
    results = accuracy_fixture.write(tmp_path / "results")
    page = plot.write(results, tmp_path / "docs")
    made = {path.name: path.read_bytes() for path in (tmp_path / "docs").iterdir()}
    assert {"accuracy-cpu.svg", "total-time-cpu.svg", "c_d.svg", "altered-cpu-noise.svg", "results.md"} <= set(made)
    text = page.read_text()
    assert "| dual+beta | 81.0 ± 0.3 | 78.0 ± 0.3 | 72.0 ± 0.3 | 67.0 ± 0.3 | 57.0 ± 0.3 |" in text
    assert "training on all images (30 epochs): 84.1 ± 0.1" in text
    assert "| dual+beta (published) | 95.5 | 95.2 | 93.0 | 91.4 | 87.1 |" in text
    assert "| dual+beta | 0.9 | 80 | 8 | 88 | 1.10 |" in text
    assert "| processor seconds on a machine |" in text
    assert (
        "| small | 30 | 0.9 | 54.0 ± 0.0 | 56.9 ± 0.1 (c_d 4) | 56.6 ± 0.0 (c_d 4.125) | -0.3 | +0.0 | -0.3 | +2.6 |"
        in text
    )
    assert "| auto | -0.2 | -0.3 | 0 of 16 |" in text
    assert "| sweep interpolated at auto's c_d | -0.1 | -0.1 | 0 of 16 |" in text
    assert "| auto, against the value best on the other seeds | -0.2 | -0.3 |  |" in text
    assert "- small: with scores of 15 epochs instead of 30, auto changes by +0.0 points, mean over the ratios." in text
    assert "| wrong labels among the images kept, % | 0.3 |" in text
    assert "| dual\\|fast | 1.5 | 1.0 | 50,000 |" in text  # the newer of the two files
    assert "JPEG-compressed" in text
    for name in made:
        if name.endswith(".svg"):
            assert f"({name})" in text
            assert b'href="http' not in made[name]
    plot.write(results, tmp_path / "docs")
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "docs").iterdir()}


def test_the_command_that_repeats_a_training_asks_for_that_training(modules: Any) -> None:
    run, grids, tables = modules("run"), modules("grids"), modules("tables")
    for name, grid in grids.GRIDS.items():
        for point in grid("cifar10" if name != "digits" else "digits"):
            script, grid_name, *words = shlex.split(tables.rerun_command(point.key()))[1:]
            (same,) = run.parse_points([grid_name, "--data", "cifar10", *words])[1]
            assert (script, same.key()) == ("benchmarks/accuracy/run.py", point.key())


def test_a_c_d_by_name_is_its_number(modules: Any) -> None:
    tables = modules("tables")
    asked = [
        "random",
        "dual+beta:c_d=auto",
        "dual+beta:c_d=8",
        "dual+beta:c_d=imagenet",
        "dual+beta:c_d=2,mislabel_cut=9",
    ]
    about = {"ratio": 0.5, "score_epochs": 30, "accuracy": 0.9, "c_d": 3.0}
    rows = [about | {"method": method} for method in asked]
    assert tables.methods(rows) == ["random", asked[4], asked[2], asked[3], asked[1]]
    assert list(tables.c_d_of(rows, 30, 0.5)[0]) == [2.0, 8.0, 11.0]


def test_speed_tables_group_rows_by_columns_and_state_units(tmp_path: Path, modules: Any) -> None:
    about = {"date": "2026-01-02", "machine": "m", "cores": 2, "commit": "0123456789", "versions": {"torch": "2"}}
    rate = {"median": 12345.6, "q1": 0.5, "q3": 20000.0, "repeats": 3}
    rows = [
        {"side": "a", "images_per_s": rate, "begin_s": 0.25, "peak_bytes": 2**20, "each": {"x": 1}},
        {"side": "b", "cold_s": 1.5, "commit": "0123456789"},
        {"side": "c", "images_per_s": rate, "begin_s": 2.0, "peak_bytes": 0, "faster_by": rate},
        {"what": "sum", "arithmetic": ["1 + 1 = 2"]},
    ]
    (tmp_path / "2026-01-02-m-2c-x.json").write_text(json.dumps(about | {"rows": rows}))
    text = "\n".join(modules("speed").speed_tables(tmp_path))
    many = "12,346 (0.5 to 20,000)"
    assert (
        f"""\
| side | images per s | begin, ms | peak, MiB | faster by |
|---|---|---|---|---|
| a | {many} | 250 | 1.0 |  |
| c | {many} | 2,000 | 0.0 | {many} |

| side | cold, ms | commit |
|---|---|---|
| b | 1,500 | 01234567 |

sum:

- 1 + 1 = 2
"""
        in text
    )


def test_the_baseline_of_end_to_end_computes_the_same_scores(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging float16 logits and scoring them afterwards, which end_to_end.py times as the baseline, is complete."""
    monkeypatch.syspath_prepend(str(ACCURACY.parent))
    end_to_end = modules("end_to_end")
    n, classes, epochs = 60, 7, 13
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, classes, (n,), generator=generator)
    made = [end_to_end.criterion_of(what, n, classes, epochs, torch.device("cpu")) for what in end_to_end.WAYS]
    for _ in range(epochs):
        logits = 2 * torch.randn(n, classes, generator=generator)
        for index in torch.randperm(n, generator=generator).split(16):
            losses = [criterion(logits[index], targets[index], index) for criterion in made]
            assert max(losses) - min(losses) < 1e-5
    fused, logged = made[1].score(), made[2].score()
    assert np.abs(fused - logged).max() < 1e-3  # half a unit of float16 at 4 is 2e-3, before the softmax
    assert np.ptp(fused) > 0.05


def test_the_readme_is_filled_between_its_marks(tmp_path: Path, modules: Any) -> None:
    readme = modules("readme")
    results = accuracy_fixture.write(tmp_path / "results")
    parts = readme.blocks(results)
    assert set(parts) == {"accuracy", "total-time"}
    empty = "# x\n<!-- made: accuracy -->\n<!-- end -->\nmiddle\n<!-- made: total-time -->\nold\n<!-- end -->\nlast\n"
    text = readme.fill(empty, parts)
    assert "| dual+beta | 81.0 ± 0.3 | 78.0 ± 0.3 | 72.0 ± 0.3 | 67.0 ± 0.3 | 57.0 ± 0.3 |" in text
    assert "| 0.9 | 1.10 | 0.10 | 58.0 ± 0.3 | +4.0 |" in text
    assert [line for line in ("middle", "old", "last") if f"\n{line}\n" in text] == ["middle", "last"]
    assert readme.fill(text, parts) == text
    with pytest.raises(ValueError, match="no place for step"):
        readme.fill(text, {"step": ["x"]})


def test_the_readme_says_what_the_results_say(modules: Any) -> None:
    root, readme = ACCURACY.parent.parent, modules("readme")
    parts = readme.blocks(root / "benchmarks" / "results")
    assert {name for names in readme.PAGES.values() for name in names} == parts.keys()
    for page, names in readme.PAGES.items():
        text = (root / page).read_text(encoding="utf-8")
        assert readme.fill(text, {name: parts[name] for name in names}) == text, f"{page}: run make results"


def test_ccs_on_logits_and_figures_in_sample_are_called_that(tmp_path: Path, modules: Any) -> None:
    readme, tables, grids = modules("readme"), modules("tables"), modules("grids")
    results = accuracy_fixture.write(tmp_path / "results")
    text = "\n".join(readme.blocks(results)["accuracy"])
    assert "margin of logits" not in text
    assert text.count("in-sample") == 1
    rows = tables.read(results / "accuracy-cpu.jsonl")
    for row in rows:
        row["as"] = "ccs:mis_ratio=0.1" if row["method"] == "ccs" else row["as"]
    more = accuracy_fixture.line("ccs", 0.9, 0, 60.0)
    lines = [json.dumps(row) + "\n" for row in (*rows, more)]
    (results / "accuracy-cpu.jsonl").write_text("".join(lines))
    text = "\n".join(readme.blocks(results)["accuracy"])
    assert "| ccs | - | - | - | - | 60.0 |" in text
    assert "| ccs:score=aum | 81.0 ± 0.3 | 77.0 ± 0.3 |" in text
    assert "`ccs:score=aum` is CCS on the margin of logits" in text
    assert tables.remarks([more | {"method": "dual+beta:c_d=auto", "data": "photos"}]) == []
    point = grids.Point(data="digits", method="ccs:score=aum", ratio=0.9)
    assert point.method_for(1000) == "ccs:score=aum,mis_ratio=0.3"


def test_no_results_still_make_a_page(tmp_path: Path, modules: Any) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "accuracy-cpu.jsonl").touch()
    assert modules("plot").write(tmp_path / "results", tmp_path / "docs").read_text().startswith("# Results")

"""dualfast.runs.datasets: a run says what its data are, and never answers from data that have changed since."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)

from data_sets import class_folders

from dualfast import cli
from dualfast.config import RunConfig
from dualfast.data import beton
from dualfast.runs import commands
from dualfast.runs.progress import NullProgress

pq = pytest.importorskip("pyarrow.parquet")

QUICK: dict[str, Any] = {
    "model": "tiny_model:linear",
    **{"epochs": 2, "score_epochs": 2, "window": 2, "threads": 1, "num_workers": 1, "tests": 1, "batch_size": 8},
    **{"prune_ratio": (0.5,), "method": ("dual",), "seed": (0,), "full": False, "image_size": 8},
}


class Lines(NullProgress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part, count in (("train", 8), ("val", 2)):
        class_folders(tmp_path / "photos" / part, {"ant": count, "bee": count})
    return tmp_path / "photos"


def run(photos: Path, **options: Any) -> list[str]:
    """What the run says."""
    said = Lines()
    config = RunConfig(**{**QUICK, "data": str(photos), "out": str(photos.parent / "run"), **options})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        commands.run(config, said)
    return said.lines + [str(warning.message) for warning in caught]


def test_a_run_says_what_its_data_are(photos: Path) -> None:
    (photos / "train" / "empty").mkdir()
    (photos / "train" / "ant" / "x.heic").write_bytes(bytes(9))
    said = run(photos)
    assert f"{photos / 'train'}: 16 images in 2 classes of 8" in said
    assert f"{photos / 'val'}: 4 images in 2 classes of 2" in said
    assert f"{photos / 'train'}: left out: 1 .heic (not images that Pillow opens)" in said
    assert f"{photos / 'train'}: 1 class folder without an image, which is no class: empty" in said
    scores = pq.read_table(photos.parent / "run" / "scores.parquet")
    assert scores.column_names[:4] == ["id", "name", "label", "class"]
    assert scores["name"].to_pylist()[7:9] == ["ant/7.jpg", "bee/0.jpg"]
    assert scores["class"].to_pylist()[7:9] == ["ant", "bee"]


def test_data_that_changed_are_refused_until_rewrite(photos: Path) -> None:
    run(photos)
    run_dir = photos.parent / "run"
    before = (run_dir / "metrics.jsonl").read_text()
    run(photos)
    run(photos, rewrite=True)  # nothing has changed
    assert (run_dir / "metrics.jsonl").read_text() == before

    shutil.copy(photos / "train" / "ant" / "0.jpg", photos / "train" / "ant" / "new.jpg")
    (photos / "val" / "bee" / "1.jpg").unlink()
    for again in ({}, {"method": ("random",)}):
        with pytest.raises(
            ValueError, match=r"1 added \(ant/new\.jpg\); .*1 removed \(bee/1\.jpg\).*--out, or --rewrite"
        ) as it:
            run(photos, **again)
    assert "its 1 finished trainings are deleted" in str(it.value)
    assert (run_dir / "metrics.jsonl").read_text() == before

    said = run(photos, rewrite=True)
    assert any("starting over" in line for line in said)
    assert beton.open_beton(run_dir / "train.beton").n_samples == 17
    assert beton.open_beton(run_dir / "test.beton").n_samples == 3
    (row,) = (json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if '"trained"' in line)
    assert row["n_samples"] == 17
    assert len(np.load(run_dir / "keep-0.5.npy")) == 9
    run(photos)


def test_data_that_are_gone_are_said_to_be(photos: Path) -> None:
    parts = {"data": str(photos / "train"), "test": str(photos / "val")}
    run(photos, **parts)
    shutil.rmtree(photos)
    said = run(photos, **parts)
    written = photos.parent / "run" / "train.beton"
    assert f"{photos / 'train'} is not there any more; using {written}, which was written from it" in said


def test_classes_that_lose_all_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, few in (("train", 1), ("val", 1)):
        class_folders(tmp_path / "photos" / part, {"many": 18, "few": few, "one": 1})
    options: dict[str, Any] = {"method": ("random",), "prune_ratio": (0.9,)}
    said = run(tmp_path / "photos", **options)
    assert "random at prune ratio 0.9, seed 0: 2 of 3 classes keep no sample: few, one" in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "At prune ratio 0.9, 2 of 3 classes keep no sample: few, one (kept by random, seed 0)." in page
    options["prune_ratio"] = (0.8,)
    said = run(tmp_path / "photos", **options, per_class=True, out=str(tmp_path / "fair"))
    assert not any("keep no sample" in line for line in said)

    run(tmp_path / "photos", method=("dual",), out=str(tmp_path / "scored"))
    scores = tmp_path / "scored" / "scores.parquet"
    arguments = ["select", "--scores", str(scores), "--prune-ratio", "0.9", "--out", str(tmp_path / "k.npy")]
    for flags in (["--method", "random"], ["--method", "random", "--where", "id >= 0"]):  # by files, and in memory
        capsys.readouterr()
        assert cli.main(arguments + flags) == 0
        assert "dualfast: note: 2 of 3 classes keep no sample: few, one" in capsys.readouterr().err


def test_the_background_belongs_to_the_run(photos: Path) -> None:
    run(photos)
    with pytest.raises(ValueError, match="background: white, and this one asks for black"):
        run(photos, background="black")

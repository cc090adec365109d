"""dualfast.runs.datasets: a run says what its data are, and never answers from data that have changed since."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)

from data_sets import class_folders, jpeg, parquet_file
from ffcv_files import ffcv_file
from scored_runs import Said

import dualfast
from dualfast import cli
from dualfast.config import RunConfig, ScoreConfig, TrainConfig
from dualfast.data import beton
from dualfast.runs import commands, session
from dualfast.runs.progress import Console, NullProgress

pq = pytest.importorskip("pyarrow.parquet")

QUICK: dict[str, Any] = {
    "model": "tiny_model:linear",
    **{"epochs": 2, "score_epochs": 2, "window": 2, "threads": 1, "num_workers": 1, "tests": 1, "batch_size": 8},
    **{"prune_ratio": (0.5,), "method": ("dual",), "seed": (0,), "full": False, "image_size": 8},
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for part, count in (("train", 8), ("val", 2)):
        class_folders(tmp_path / "photos" / part, {"ant": count, "bee": count})
    return tmp_path / "photos"


def run(photos: Path, **options: Any) -> list[str]:
    """What the run says."""
    said = Said()
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
    assert f"{photos / 'train'}: 1 class folder without an image, which is not a class: empty" in said
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


@pytest.mark.parametrize(
    ("spoil", "error", "options"),
    [
        (lambda photos: shutil.copytree(photos / "val" / "ant", photos / "val" / "fox"), "fox", {}),
        (lambda photos: (photos / "train" / "ant" / "broken.jpg").write_bytes(b"\xff\xd8 no image"), "broken.jpg", {}),
        (lambda photos: (photos / "train" / "ant" / "1.jpg").unlink(), "0.99 keeps 0", {"prune_ratio": (0.99,)}),
    ],
    ids=["a class of its own", "a broken image", "a ratio that keeps nothing"],
)
def test_what_refuses_the_changed_data_leaves_the_run_as_it_was(
    photos: Path, spoil: Callable[[Path], object], error: str, options: dict[str, Any]
) -> None:
    run(photos)
    run_dir = photos.parent / "run"

    def results() -> dict[str, bytes]:
        files = (path for path in run_dir.iterdir() if path.is_file() and path.name != "config.yaml")
        return {path.name: path.read_bytes() for path in files}

    before = results()
    spoil(photos)
    with pytest.raises(ValueError, match=error):
        run(photos, rewrite=True, **options)
    assert results() == before


def test_a_ratio_that_keeps_nothing_is_refused_before_anything_is_written(photos: Path) -> None:
    with pytest.raises(ValueError, match=r"prune_ratio 0\.99 keeps 0 of 16 images"):
        run(photos, prune_ratio=(0.99,))
    assert not (photos.parent / "run" / "train.beton").exists()


def test_data_that_are_gone_are_said_to_be(photos: Path) -> None:
    parts = {"data": str(photos / "train"), "test": str(photos / "val")}
    run(photos, **parts)
    shutil.rmtree(photos)
    said = run(photos, **parts)
    written = photos.parent / "run" / "train.beton"
    assert f"{photos / 'train'} is not there any more; using {written}, which was written from it" in said


def test_a_run_whose_data_are_gone_or_moved_goes_on(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder that holds train and val."""
    monkeypatch.chdir(photos.parent)
    run(photos, data="photos")
    for path in (str(photos), "./photos", f"{photos}/"):  # the same folder
        run(photos, data=path)
    moved = photos.rename(photos.parent / "moved")
    said = run(photos, data="photos", prune_ratio=(0.5, 0.4))
    assert any("photos is not there any more; using" in line for line in said)
    run(photos, data=str(moved))
    shutil.copytree(moved, photos.parent / "other")
    with pytest.raises(ValueError, match=r"holds a run with data=.*moved, and this one asks for .*other"):
        run(photos, data=str(photos.parent / "other"))
    (moved / "train" / "ant" / "0.jpg").unlink()
    last = moved.rename(photos.parent / "last")
    with pytest.raises(ValueError, match=r"the data have changed since .*1 removed \(ant/0\.jpg\)"):
        run(photos, data=str(last))


def test_a_refused_call_leaves_the_configuration_as_it_was(photos: Path) -> None:
    run(photos)
    config = photos.parent / "run" / "config.yaml"
    before = config.read_text()
    other = Path(shutil.copytree(photos, photos.parent / "other"))
    (other / "train" / "ant" / "0.jpg").write_bytes(jpeg(99))
    gone = photos.rename(photos.parent / "gone")
    out = {"out": str(photos.parent / "run")}
    for options in ({}, {"rewrite": True, "prune_ratio": (0.999,)}):
        with pytest.raises(ValueError, match=r"the data have changed|keeps 0 of"):
            run(other, **options, **out)
        assert config.read_text() == before
    gone.rename(photos)
    run(photos)


def test_images_that_are_the_same_byte_for_byte_keep_the_results(photos: Path) -> None:
    """Copied or touched since."""
    run(photos)
    metrics = photos.parent / "run" / "metrics.jsonl"
    before = metrics.read_text()
    for file in photos.rglob("*.jpg"):
        os.utime(file, (1, 1))
    with pytest.raises(ValueError, match=r"unless they are the same byte for byte"):
        run(photos)
    said = run(photos, rewrite=True)
    assert any("the images are the same, byte for byte: the results stay" in line for line in said)
    assert metrics.read_text() == before
    run(photos)
    (photos / "train" / "ant" / "0.jpg").write_bytes(jpeg(99))
    assert any("starting over" in line for line in run(photos, rewrite=True))


def test_a_run_by_a_column_of_a_table_goes_on(photos: Path, tmp_path: Path) -> None:
    """As HAM10000's dx."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (photos / "train").rglob("*.jpg"):
        shutil.copy(file, flat / f"{file.parent.name}{file.name}")
    rows = [f"{path.stem},lesion,{path.stem[:3]},40\n" for path in sorted(flat.iterdir())]
    (tmp_path / "meta.csv").write_text("image_id,lesion_id,dx,age\n" + "".join(rows))
    options = {"labels": str(tmp_path / "meta.csv"), "label_column": "dx", "test_fraction": 0.25}
    run(flat, **options)
    run(flat, **options)
    run(flat, **options, seed=(0, 1))
    (tmp_path / "meta.csv").write_text("image_id,lesion_id,dx,age\n" + "".join(rows[1:]))
    with pytest.raises(ValueError, match=r"the data have changed since .*1 removed \(ant0\.jpg\)"):
        run(flat, **options)
    assert any("starting over" in line for line in run(flat, **options, rewrite=True))


def test_several_beton_files_are_not_joined(photos: Path) -> None:
    run(photos)
    written = str(photos.parent / "run" / "train.beton")
    with pytest.raises(ValueError, match=r"\.beton files are not joined; give one, or what they were made of"):
        run(photos, data=(written, written), out=str(photos.parent / "two"))


def test_labels_that_begin_at_another_number_are_refused(tmp_path: Path) -> None:
    for name, first in (("train", 1), ("test", 0)):
        labels = [first + at % 3 for at in range(9)]
        parquet_file(tmp_path / f"{name}.parquet", {"image": [jpeg(at) for at in range(9)], "label": labels})
    parts = {"data": str(tmp_path / "train.parquet"), "test": str(tmp_path / "test.parquet")}
    with pytest.raises(ValueError, match=r"its labels are 0 to 2, and those of the training images 1 to 3; number the"):
        run(tmp_path / "none", **parts)


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
    with pytest.raises(ValueError, match="background=white, and this one asks for black"):
        run(photos, background="black")


def test_a_fraction_may_be_held_out_for_testing(photos: Path) -> None:
    train = str(photos / "train")
    with pytest.raises(ValueError, match=r"has no test images with classes; .* --test-fraction 0\.1"):
        run(photos, data=train)
    with pytest.raises(ValueError, match=r"test_fraction is 0\.25, and .*photos has test images: .*val; leave"):
        run(photos, test_fraction=0.25)
    said = run(photos, data=train, test_fraction=0.25)
    assert f"{train} without 0.25 of each class: 12 images in 2 classes of 6" in said
    assert f"{train}, 0.25 of each class, by seed 0: 4 images in 2 classes of 2" in said
    run_dir = photos.parent / "run"
    parts = [beton.open_beton(run_dir / f"{part}.beton").names for part in ("train", "test")]
    names = [set(part.column.to_pylist()) for part in parts if part is not None]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 16
    assert "test_fraction: 0.25" in (run_dir / "config.yaml").read_text()
    run(photos, data=train, test_fraction=0.25)
    (run_dir / "test.beton").unlink()
    run(photos, data=train, test_fraction=0.25, seed=(0, 1))  # only what is missing is written
    (photos / "train" / "ant" / "0.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 removed \(ant/0\.jpg\)"):
        run(photos, data=train, test_fraction=0.25)
    with pytest.raises(ValueError, match=r"holds a run with test_fraction=0\.25, and this one asks for 0\.5"):
        run(photos, data=train, test_fraction=0.5)
    with pytest.raises(ValueError, match=r"test_fraction is 0\.5, which is for data that are still to be written"):
        run(photos, data=str(run_dir / "train.beton"), test_fraction=0.5, out=str(photos.parent / "b"))


def test_data_without_test_images_can_be_scored(photos: Path) -> None:
    shutil.rmtree(photos / "val")
    options = {k: v for k, v in QUICK.items() if k not in ("prune_ratio", "method", "full")} | {"seed": 0}
    config = ScoreConfig(**options, data=str(photos), out=str(photos.parent / "run"))
    said = Said()
    assert commands.score(config, said).exists()
    assert any(line.startswith("scored 16 images") for line in said.lines)
    assert not any("accuracy" in line for line in said.lines)


def test_several_data_sets_with_links_and_a_table_of_the_test_labels(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    for name in ("ant", "bee"):
        (tmp_path / "more" / name).symlink_to(photos / "val" / name)
    flat = tmp_path / "flat"
    flat.mkdir()
    for at in range(2):
        shutil.copy(photos / "val" / "bee" / f"{at}.jpg", flat)
    (tmp_path / "test.csv").write_text("file,label\n0.jpg,bee\n1.jpg,ant\n")
    data = {"data": (str(photos / "train"), str(tmp_path / "more")), "test": str(flat)}
    options = data | {"test_labels": str(tmp_path / "test.csv"), "follow_links": True}
    run(photos, **options)
    written = beton.open_beton(tmp_path / "run" / "train.beton")
    assert written.n_samples == 20
    assert written.names is not None
    assert written.names.column.to_pylist()[-1] == "more/bee/1.jpg"
    assert written_test(tmp_path / "run").labels.tolist() == [1, 0]
    run(photos, **options)
    assert cli.main(["report", str(tmp_path / "run")]) == 0


def written_test(run_dir: Path) -> beton.Beton:
    return beton.open_beton(run_dir / "test.beton")


@pytest.mark.parametrize("classes", [("0", "270", "90"), ("90",)])
def test_test_classes_that_are_fewer_are_numbered_as_the_training_classes(
    classes: tuple[str, ...], tmp_path: Path
) -> None:
    parts = {"train": ("0", "180", "270", "90"), "val": classes}
    for part, names in parts.items():
        class_folders(tmp_path / "rotated" / part, dict.fromkeys(names, 3))
    lacking = sorted({"0", "180", "270", "90"} - set(classes))
    said = run(tmp_path / "rotated")
    assert f"{tmp_path / 'rotated' / 'val'}: no images of {len(lacking)} of 4 classes: {', '.join(lacking)}" in said
    test = written_test(tmp_path / "run")
    assert test.class_names == ("0", "180", "270", "90")
    assert test.labels.tolist() == [
        number for name, number in (("0", 0), ("270", 2), ("90", 3)) if name in classes for _ in range(3)
    ]
    run(tmp_path / "rotated", seed=(0, 1))  # and stay so when the run continues


def accuracy(run_dir: Path) -> float:
    (row,) = (json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines() if '"trained"' in line)
    return float(row["accuracy"])


def test_a_beton_of_fewer_classes_tests_the_same(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos" / "train", dict.fromkeys("abcd", 8))
    for name in "bd":
        shutil.copytree(tmp_path / "photos" / "train" / name, tmp_path / "photos" / "val" / name)
    options = {"epochs": 12, "lr": 0.05, "model": "small"}
    run(tmp_path / "photos", **options)
    beton.write(tmp_path / "photos" / "val", tmp_path / "own.beton", progress=False)
    own = {"data": str(tmp_path / "photos" / "train"), "test": str(tmp_path / "own.beton"), "out": str(tmp_path / "b")}
    said = run(tmp_path / "photos", **options, **own)
    assert f"{tmp_path / 'own.beton'}: no images of 2 of 4 classes: a, c" in said
    assert accuracy(tmp_path / "b") == accuracy(tmp_path / "run") > 0.5


def test_a_beton_of_one_class_is_refused(photos: Path, tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2
    written = beton.write(pixels, tmp_path / "two.beton", progress=False).path
    dualfast.compact(written, np.array([0, 2]), tmp_path / "one.beton", progress=False)
    with pytest.raises(ValueError, match=r"one\.beton has only one class \(label 0\); a classifier needs"):
        run(photos, data=str(tmp_path / "one.beton"), test=str(tmp_path / "two.beton"))


def test_what_cannot_fit_together_is_said_before_anything_is_written(photos: Path) -> None:
    class_folders(photos / "val", {"wasp": 3})
    run_dir = photos.parent / "run"

    def refused(said: str, **options: Any) -> None:
        with pytest.raises((ValueError, TypeError), match=said):
            run(photos, **options)
        assert not run_dir.exists() or list(run_dir.iterdir()) == []

    refused(r"val has 1 class that the training images lack: wasp \(3 images\); remove them")
    shutil.rmtree(photos / "val" / "wasp")
    refused("model 'os:path'", model="os:path")
    refused(r"model 'math:sqrt' cannot be built: ", model="math:sqrt")
    refused("device is 'cuda:9'", device="cuda:9")
    refused("has no test images with classes; name them with --test PATH, or", data=str(photos / "train"))
    with pytest.raises(ValueError, match=r"keep\.npy"):
        commands.train(TrainConfig(data=str(photos), out=str(run_dir), keep=str(photos / "keep.npy")), NullProgress())
    assert not (run_dir / "train.beton").exists()
    assert run(photos)  # whatever was asked before


def test_the_model_is_tried_on_images_of_the_size_it_will_see(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[int, int]] = []
    monkeypatch.setattr(
        session, "try_model", lambda recipe, n_classes, image_size: tried.append((n_classes, image_size)) or n_classes
    )
    run(photos, model="small", image_size=None)
    assert tried == [(2, 224)]  # 20 x 30 px are not square
    run(photos, model="small", image_size=16, out=str(photos.parent / "b"))
    assert tried[1:] == [(2, 16)]
    # The first eight images say 12 px, but one of the others is larger.
    for at, file in enumerate(sorted((photos / "train").rglob("*.jpg"))):
        file.write_bytes(jpeg(at, (12, 12) if at < 15 else (80, 60)))
    run(photos, model="small", image_size=None, out=str(photos.parent / "c"))
    assert tried[2:] == [(2, 12), (2, 224)]


def test_outputs_that_no_class_has_are_said(photos: Path) -> None:
    said = run(photos, model=f"{__name__}:ten_outputs")
    assert f"model {__name__}:ten_outputs has 10 outputs for 2 classes; the others are trained towards 0" in said
    with pytest.raises(ValueError, match="has 10 outputs for 2 classes; TDDS needs an output for each class"):
        run(photos, model=f"{__name__}:ten_outputs", tdds=True, out=str(photos.parent / "tdds"))


def ten_outputs(image_size: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * image_size**2, 10))


IMAGES = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), dtype=np.uint8)


def test_files_of_ffcv_run_whatever_their_fields(tmp_path: Path) -> None:
    labels, groups = np.arange(24) % 2, np.arange(24) % 3
    files = {
        "std": {"image": IMAGES, "label": labels},
        "order": {"target": labels, "weight": labels / 2, "img": IMAGES},
        "several": {"left": IMAGES, "right": IMAGES[::-1], "id": groups, "kind": labels},
    }
    paths = {name: ffcv_file(tmp_path / f"{name}.beton", fields) for name, fields in files.items()}
    rows = []
    for name, columns in (("std", {}), ("order", {}), ("several", {"image_column": "left", "label_column": "kind"})):
        data = {"data": str(paths[name]), "test": str(paths[name]), "out": str(tmp_path / name)}
        run(tmp_path / "x", **data, **columns)
        (row,) = (
            r
            for r in map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
            if r["event"] == "trained"
        )
        rows.append((row["accuracy"], row["loss"], np.load(tmp_path / name / "keep-0.5.npy").tolist()))
    assert rows[0] == rows[1] == rows[2]
    assert commands.report(tmp_path / "several").exists()
    data = {"data": str(paths["several"]), "test": str(paths["std"]), "out": str(tmp_path / "open")}
    with pytest.raises(
        ValueError, match=r"several\.beton has several image fields: left, right; choose with image_col"
    ):
        run(tmp_path / "x", **data)


def test_a_run_stopped_by_an_unreadable_image_continues_without_it(photos: Path) -> None:
    (photos / "train" / "ant" / "3.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"3\.jpg: .*; skip_bad=True leaves such images out"):
        run(photos)
    run(photos, skip_bad=True)
    assert beton.open_beton(photos.parent / "run" / "train.beton").n_samples == 15
    (photos / "val" / "ant" / "0.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"0\.jpg"):
        run(photos, out=str(photos.parent / "b"), skip_bad=False, data=str(photos / "val"), test=str(photos / "train"))


def test_test_images_that_are_the_training_images_are_said(photos: Path) -> None:
    train = str(photos / "train")
    said = run(photos, data=train, test=train)
    assert any(line.startswith("the test images are the training images") for line in said)
    assert not any("the test images are" in line for line in run(photos, out=str(photos.parent / "other")))


def test_training_images_among_the_test_images_are_counted(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the same folder, name and bytes, as val/ant/0.jpg and train/ant/0.jpg are here."""
    monkeypatch.setattr("dualfast.runs.datasets.PIECE", 3)
    shared = [line for line in run(photos) if "test images are training images" in line]
    assert shared == [
        "4 of 4 test images are training images: the accuracy is in part that of memory, not of new images"
    ]
    (photos / "val" / "ant" / "1.jpg").write_bytes((photos / "train" / "ant" / "5.jpg").read_bytes())
    assert any(line.startswith("3 of 4 test images are") for line in run(photos, out=f"{photos.parent}/two"))
    table = photos.parent / "train.csv"
    table.write_text("".join(f"ant/{k}.jpg,ant\nbee/{k}.jpg,bee\n" for k in range(3, 8)))
    same = {"data": str(photos / "train"), "labels": str(table), "test": str(photos / "train")}
    monkeypatch.setattr("dualfast.runs.datasets.COMPARED", 4)
    assert any(line.startswith("about 10 of 16 test images are") for line in run(photos, out=f"{photos}2", **same))
    (photos / "val" / "ant" / "0.jpg").rename(photos / "val" / "ant" / "zero.jpg")
    for name in ("ant/1", "bee/0", "bee/1"):
        (photos / "val" / f"{name}.jpg").write_bytes(jpeg(98))
    assert not any("test images are" in line for line in run(photos, out=f"{photos.parent}/three"))


def test_what_a_user_should_know_is_said_when_quiet(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(quiet=True)
    commands.run(RunConfig(**QUICK, data=str(photos / "train"), test=str(photos / "train"), out=f"{photos}/r"), console)
    assert capsys.readouterr().err.splitlines() == [
        "dualfast: note: the test images are the training images: the accuracy is that of memory, not of new images"
    ]


def test_a_table_may_say_which_images_are_for_testing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the folder with --labels, or given itself; exported originals are found in both."""
    (tmp_path / "images").mkdir()
    rows = ["file,label,split"]
    for i in range(12):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(jpeg(i, (8, 8)))
        rows.append(f"images/{i}.jpg,{'ab'[i % 2]},{'train' if i < 8 else 'val'}")
    table = tmp_path / "all.csv"
    table.write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    for out, options in (("by_labels", {"data": "images", "labels": "all.csv"}), ("given", {"data": "all.csv"})):
        run(tmp_path / "x", out=out, **options)
        assert len(beton.open_beton(f"{out}/train.beton").labels) == 8
        assert len(beton.open_beton(f"{out}/test.beton").labels) == 4
        assert cli.main(["export", out, "--kept", "--as", "symlinks"]) == 0
        links = [path for path in Path(out, "kept-0.5").rglob("*") if path.is_symlink()]
        assert len(links) == 4
        assert all(link.read_bytes().startswith(b"\xff\xd8") for link in links)
        assert run(tmp_path / "x", out=out, **options)  # unchanged data, taken up again
    table.write_text("\n".join(rows[:-1]))
    with pytest.raises(ValueError, match="the data have changed"):
        run(tmp_path / "x", out="given", data="all.csv")


@pytest.fixture
def columns(tmp_path: Path) -> dict[str, str]:
    """Training images in a table with two label columns, test images in one that calls its columns otherwise."""
    labels = [0, 1] * 4
    table = {"image": [jpeg(at) for at in range(8)], "color": labels, "shape": labels[::-1]}
    train = parquet_file(tmp_path / "train.parquet", table)
    test = parquet_file(tmp_path / "test.parquet", {"image": table["image"], "kind": labels})
    return {"data": str(train), "test": str(test), "label_column": "shape"}


def test_test_images_may_have_a_label_column_of_their_own(columns: dict[str, str], tmp_path: Path) -> None:
    way_out = (
        "label_column is 'shape'; .*the columns image .*, kind .*; that of the test images is given with test_label"
    )
    with pytest.raises(ValueError, match=way_out):
        run(tmp_path / "x", **columns)
    assert not (tmp_path / "run").exists()
    for _ in range(2):
        run(tmp_path / "x", **columns, test_label_column="kind")
    assert beton.open_beton(tmp_path / "run" / "train.beton").labels.tolist() == [1, 0] * 4
    assert written_test(tmp_path / "run").labels.tolist() == [0, 1] * 4


def test_test_images_in_folders_have_no_columns(columns: dict[str, str], tmp_path: Path) -> None:
    folder = str(class_folders(tmp_path / "x", {"0": 2, "1": 1}))
    run(tmp_path / "x", **columns | {"test": folder})
    assert written_test(tmp_path / "run").labels.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"label_column is 'kind', which is for .* leave label_column out"):
        run(tmp_path / "x", **columns | {"test": folder}, test_label_column="kind", out=str(tmp_path / "b"))


def test_images_that_are_given_twice_are_not_held_out(photos: Path) -> None:
    train = str(photos / "train")
    words = r"test_fraction is 0\.25, and ant/0\.jpg is there more than once, which puts it into both parts; give each"
    with pytest.raises(ValueError, match=words):
        run(photos, data=(train, train), test_fraction=0.25)


def test_a_refused_run_leaves_no_directory(photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "val")
    with pytest.raises(ValueError, match="has no test images with classes"):
        run(photos)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # but not one of the user's
    with pytest.raises(ValueError, match="has no test images with classes"):
        run(photos)
    assert list((tmp_path / "run").iterdir()) == []


def test_splits_in_the_only_folder_of_a_folder(photos: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    photos.rename(outer / "photos")
    run(outer, data=f"{outer}:train", test=f"{outer}:val")
    names = beton.open_beton(tmp_path / "run" / "train.beton").names
    assert names is not None
    assert names.column.to_pylist()[0] == "ant/0.jpg"


def test_a_flat_folder_of_test_images_needs_its_own_table(photos: Path) -> None:
    """As ImageNet's val: beside train, or given with --test."""
    for name in ("ant", "bee"):
        for file in (photos / "val" / name).iterdir():
            file.rename(photos / "val" / f"{name}{file.name}")
        (photos / "val" / name).rmdir()
    with pytest.raises(ValueError, match=r"val holds no class folder; .* with test_labels='TABLE.csv'"):
        run(photos, data=str(photos / "train"), test=str(photos / "val"))
    table = photos.parent / "val.csv"
    table.write_text("".join(f"{name}{at}.jpg,{name}\n" for name in ("ant", "bee") for at in range(2)))
    given = {"test_labels": str(table)}
    run(photos, **given, out=str(photos.parent / "one"))
    run(photos, **given, data=str(photos / "train"), test=str(photos / "val"), out=str(photos.parent / "two"))
    tests = [beton.open_beton(photos.parent / name / "test.beton") for name in ("one", "two")]
    assert [test.labels.tolist() for test in tests] == [[0, 0, 1, 1]] * 2
    with pytest.raises(ValueError, match=r"test_labels is .*, and .*train has no test images; name them with test"):
        run(photos, **given, data=str(photos / "train"), out=str(photos.parent / "three"))
    with pytest.raises(ValueError, match=r"val.csv: none of .*; a table of the test images is given with test_labels"):
        run(
            photos,
            labels=str(table),
            data=str(photos / "train"),
            test=str(photos / "val"),
            out=str(photos.parent / "four"),
        )


def test_a_label_column_is_that_of_test_labels_too(photos: Path, tmp_path: Path) -> None:
    options = {}
    for part, name in (("train", "labels"), ("val", "test_labels")):
        paths = sorted((photos / part).rglob("*.jpg"))
        rows = [f"{path.relative_to(photos / part)},{path.parent.name},7" for path in paths]
        (tmp_path / f"{part}.csv").write_text("\n".join(["file,race,age", *rows]))
        options[name] = str(tmp_path / f"{part}.csv")
    run(photos, data=str(photos / "train"), test=str(photos / "val"), label_column="race", **options)
    assert written_test(tmp_path / "run").class_names == ("ant", "bee")

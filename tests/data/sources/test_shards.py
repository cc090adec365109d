"""Shards of several splits, in the layouts of Hugging Face's repositories and cache."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from data_sets import assert_refused, class_folders, jpeg, parquet_file, tar_file

from dualfast.config import Reading
from dualfast.data import sources
from dualfast.data.sources import shards

pytest.importorskip("PIL")


def shard(path: Path, first: int = 0, n: int = 4) -> Path:
    """n images with the red values first, first + 1, ..., of the classes 0 and 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": jpeg(first + i), "path": f"{i}.jpg"} for i in range(n)]
    return parquet_file(path, {"image": images, "label": [i % 2 for i in range(n)]})


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00002-1a2b.parquet", "data/train-00001-of-00002-3c4d.parquet", "data/test-0.parquet"),
        ("default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"),
        ("Train/a.parquet", "Train/b.parquet", "Validation/a.parquet"),
        ("pets_train_0.parquet", "pets_train_1.parquet", "pets_dev.parquet"),
    ],
)
def test_splits_are_in_the_names_of_shards(names: tuple[str, ...], tmp_path: Path) -> None:
    for at, name in enumerate(names):
        shard(tmp_path / name, 10 * at)
    (tmp_path / "README.md").write_text("---\n")
    (tmp_path / ".gitattributes").touch()
    class_folders(tmp_path / "assets", {"previews": 1})
    train, test = sources.splits(str(tmp_path))
    assert train == f"{tmp_path}:train"
    assert test == str(tmp_path / names[2])
    opened = sources.open_source(train)
    assert [*opened.items()][::4] == [jpeg(0), jpeg(10)]
    assert opened.location == train
    assert next(iter(sources.open_source(test).items())) == jpeg(20)
    assert sources.files_of(train).names.to_pylist() == [os.path.basename(name) for name in names[:2]]
    assert_refused(tmp_path, r"holds several splits \(.*\); give one, as .*:")


def test_shards_of_tar_files_have_splits_too(tmp_path: Path) -> None:
    for name in ("train-000000", "train-000001", "val-000000"):
        tar_file(tmp_path / f"{name}.tar", {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"})
    train, test = sources.splits(str(tmp_path))
    assert (train, test) == (f"{tmp_path}:train", str(tmp_path / "val-000000.tar"))
    assert len(sources.open_source(train)) == 4


def test_a_name_that_only_holds_a_split_calls_none(tmp_path: Path) -> None:
    for name in ("latest", "devkit", "testament", "constrained"):
        shard(tmp_path / f"{name}.parquet")
    assert sources.splits(str(tmp_path)) == (str(tmp_path), None)
    assert len(sources.open_source(tmp_path)) == 16


def test_several_configurations_are_named(tmp_path: Path) -> None:
    for name in ("en", "fr"):
        shard(tmp_path / name / "train-0.parquet")
        shard(tmp_path / name / "train-1.parquet")
    assert_refused(tmp_path, r"holds several data sets \(en, fr\); give one of them, as .*/en$")
    assert len(sources.open_source(tmp_path / "en")) == 8


def test_the_cache_of_the_hub_needs_no_flag(tmp_path: Path) -> None:
    root = tmp_path / "datasets--me--pets"
    snapshot = root / "snapshots" / "abc"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    (root / "snapshots" / "newer").mkdir(parents=True)
    (snapshot / "data").mkdir(parents=True)
    for at, name in enumerate(("train-0.parquet", "train-1.parquet", "test-0.parquet")):
        shard(root / "blobs" / f"{at}.parquet", at).rename(root / "blobs" / str(at))
        (snapshot / "data" / name).symlink_to(f"../../../blobs/{at}")
    (root / "blobs" / "readme").touch()
    (snapshot / "README.md").symlink_to("../../blobs/readme")
    for path in (root, snapshot, snapshot / "data"):
        train, test = sources.splits(str(path))
        assert len(sources.open_source(train)) == 8, path
        assert len(sources.open_source(test)) == 4, path
    photos = root / "snapshots" / "photos"
    for name in ("cat", "dog"):
        (root / "blobs" / name).write_bytes(jpeg(1))
        (photos / name).mkdir(parents=True)
        (photos / name / "1.jpg").symlink_to(f"../../../blobs/{name}")
    assert [*sources.open_source(photos).items()] == [jpeg(1)] * 2


def test_links_out_of_a_folder_of_shards(tmp_path: Path) -> None:
    elsewhere = shard(tmp_path / "elsewhere" / "blobs" / "0.parquet")
    links = tmp_path / "links"
    links.mkdir()
    for name in ("a", "b"):
        (links / f"{name}.parquet").symlink_to(elsewhere)
    (links / "README.md").symlink_to("/etc/hostname")
    assert_refused(links, "a.parquet leads outside the data set, .*; follow_links=True follows such links")
    reading = Reading(follow_links=True)
    assert len(sources.open_source(links, reading)) == 8
    assert sources.files_of(str(links), reading).names.to_pylist() == ["a.parquet", "b.parquet"]
    assert len(sources.open_source(links / "a.parquet")) == 4, "what is named itself is no surprise"


def test_a_shard_that_is_none_is_refused(tmp_path: Path) -> None:
    shard(tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")
    assert_refused(tmp_path, r"b\.parquet is not a regular file")


def test_class_folders_with_a_shard_among_them_stay_class_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1, "b": 1, "c": 1})
    shard(root / "b" / "notes.parquet")
    shutil.copy(root / "b" / "notes.parquet", root)
    assert sources.open_source(root).kind == "folder"


def test_a_partitioned_table_says_how_it_becomes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Spark writes it; the command is run."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / f"label={name}").mkdir(parents=True)
        parquet_file(tmp_path / "pets" / f"label={name}" / "0.parquet", {"image": [jpeg(1), jpeg(2)]})
    with pytest.raises(ValueError, match=r"is partitioned \(label=cat, label=dog\)") as caught:
        sources.open_source(tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    exec(str(caught.value).split('python -c "')[1].split('" makes')[0], {})
    assert sources.open_source(tmp_path / "all.parquet").class_names == ("cat", "dog")


def test_shards_that_are_not_there_are_said(tmp_path: Path) -> None:
    for at in (0, 2):
        parquet_file(tmp_path / f"train-0000{at}-of-00003.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    source = sources.open_source(tmp_path)
    assert len(source) == 4
    assert source.notes() == ["1 of the 3 shards of train are not there; the download may be incomplete"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["000000", "000002", "000003"], "000001.tar"),
        (["a-8-of", "a-10-of", "a-11-of"], ""),  # 8 is of one digit: no number of a shard
        (["train-09", "train-11", "train-12", "val-09"], "train-10.tar"),
        (["20240101", "20240201", "20240301"], ""),  # dates
        (["0000", "0001"], ""),
    ],
)
def test_gaps_between_numbered_shards_are_said(names: list[str], missing: str, tmp_path: Path) -> None:
    said = shards.missing([tmp_path / f"{name}.tar" for name in names])
    assert said == (
        (f"shards are missing among those that are numbered: {missing}; the download may be incomplete",)
        if missing
        else ()
    )


def test_data_beside_shards_are_counted(tmp_path: Path) -> None:
    parquet_file(tmp_path / "train-0.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    for name in ("old.tar", "more.csv", "README.md", ".hidden.csv", "__MACOSX/a.csv", "extra/b.zip", "extra/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (note,) = sources.open_source(tmp_path).notes()
    assert sorted(note.removeprefix("left out: ").removesuffix(" (beside the shards)").split(", ")) == [
        *("1 .csv", "1 .jpg", "1 .tar", "1 .zip")
    ]


def test_a_pattern_does_not_join_training_and_test_images(tmp_path: Path) -> None:
    for name in ("train-0", "test-0"):
        parquet_file(tmp_path / f"{name}.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    with pytest.raises(ValueError, match=r"matches several splits \(test, train\); give the pattern of one"):
        sources.splits(str(tmp_path / "*.parquet"))

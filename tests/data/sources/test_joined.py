"""Several data sets as one: patterns and lists of paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, jpeg, parquet_file, tar_file

from dualfast.data import beton, sources
from dualfast.data.inventory import changes
from dualfast.data.sources.registry import expand

pytest.importorskip("PIL")


def test_folders_are_joined_by_the_names_of_their_classes(tmp_path: Path) -> None:
    first = class_folders(tmp_path / "one", {"ant": 1, "bee": 2})
    second = class_folders(tmp_path / "two", {"bee": 1, "cow": 1})
    (second / "fox").mkdir()
    opened = sources.open_source([first, str(second)])
    assert opened.class_names == ("ant", "bee", "cow")
    assert opened.labels.tolist() == [0, 1, 1, 1, 2]
    names = ["one/ant/0.jpg", "one/bee/0.jpg", "one/bee/1.jpg", "two/bee/0.jpg", "two/cow/0.jpg"]
    assert opened.names().to_pylist() == names
    assert [*opened.items()][3] == jpeg(0)
    assert opened.describe(4) == str(second / "cow" / "0.jpg")
    assert opened.location == f"{first}, {second}"
    assert opened.inventory.without_images == ("two/fox",)
    beton.write([first, second], tmp_path / "x.beton", progress=False)
    written = beton.open_beton(tmp_path / "x.beton")
    assert written.names.column.to_pylist() == names
    now = sources.files_of([str(first), str(second)])
    assert changes(written.made_of, now) is None
    (second / "cow" / "0.jpg").write_bytes(b"")
    assert "1 changed (two/cow/0.jpg)" in str(changes(written.made_of, sources.files_of((str(first), str(second)))))


def test_patterns_of_shards(tmp_path: Path) -> None:
    for at in range(3):
        images = [jpeg(10 * at), jpeg(10 * at + 1)]
        parquet_file(tmp_path / f"train-{at}.parquet", {"image": images, "label": ["b", "a" if at else "c"]})
    opened = sources.open_source(f"{tmp_path}/train-*.parquet")
    assert opened.class_names == ("a", "b", "c")
    assert opened.labels.tolist() == [1, 2, 1, 0, 1, 0]
    assert opened.names().to_pylist()[2] == "train-1.parquet:0"
    assert len(sources.open_source(f"{tmp_path}/train-{{0,2}}.parquet")) == 4
    assert len(sources.open_source(f"{tmp_path}/train-[01].parquet")) == 4
    assert sources.splits(f"{tmp_path}/train-?.parquet")[0][0] == str(tmp_path / "train-0.parquet")
    assert_refused(f"{tmp_path}/test-*.parquet", "nothing matches .*; check the pattern, and quote it in a shell")


def test_files_given_one_by_one(tmp_path: Path) -> None:
    """As a shell makes them of train-*.parquet, or of *.parquet."""
    train = [str(tmp_path / f"train-0000{at}-of-00002.parquet") for at in range(2)]
    test = str(tmp_path / "test-00000-of-00001.parquet")
    for path in (*train, test):
        parquet_file(Path(path), {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    assert sources.open_source(train).notes() == []
    assert sources.open_source(train[0]).notes() == ["1 of the 2 shards of train lie beside and are not read"]
    with pytest.warns(UserWarning, match=r"are files of several splits \(test, train\), which are read as one"):
        sources.open_source([test, *train])
    Path(train[1]).unlink()
    assert sources.open_source(train[0]).notes() == [
        "1 of the 2 shards of train are not there; the download may be incomplete"
    ]


def test_braces_count_as_in_a_shell(tmp_path: Path) -> None:
    assert expand("s/{008..010}-{a,b}.tar") == [f"s/{n}-{x}.tar" for n in ("008", "009", "010") for x in "ab"]
    for name in ("000", "001"):
        tar_file(tmp_path / f"{name}.tar", {"1.jpg": jpeg(1), "1.cls": b"0", "2.jpg": jpeg(2), "2.cls": b"1"})
    assert len(sources.open_source(f"{tmp_path}/{{000..001}}.tar")) == 4
    assert_refused(f"{tmp_path}/{{000..002}}.tar", r"002\.tar does not exist")
    odd = class_folders(tmp_path / "with [brackets] {a,b}*", {"a": 1, "b": 1})
    assert len(sources.open_source(odd)) == 2


def test_several_data_sets_are_divided_one_by_one(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for part in ("train", "val"):
            class_folders(tmp_path / name / part, {"a": 1, "b": 1})
    one, two = tmp_path / "one", tmp_path / "two"
    train, test = sources.splits((str(one), str(two)))
    assert (train, test) == ((f"{one}/train", f"{two}/train"), (f"{one}/val", f"{two}/val"))
    assert len(sources.open_source(test)) == 4


def test_kinds_that_do_not_fit_together(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "a", {"a": 1, "b": 1})
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    assert_refused([folder, tmp_path / "x.npz"], r"/a has class names and .*x\.npz has none")
    opened = sources.open_source([tmp_path / "x.npz", tmp_path / "x.npz"])
    assert opened.labels.tolist() == [0, 1, 0, 1]
    assert opened.class_names is None


def test_a_path_that_is_given_twice_is_said(tmp_path: Path) -> None:
    first = class_folders(tmp_path / "one", {"ant": 1, "bee": 1})
    with pytest.warns(UserWarning, match="one is given more than once, and its images are there as often"):
        opened = sources.open_source([first, tmp_path / "one" / ".." / "one"])
    assert len(opened) == 4

"""A folder of class folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, jpeg

from dualfast.config import Reading
from dualfast.data import sources

pytest.importorskip("PIL")


def test_folder_numbers_its_classes_by_name(tmp_path: Path) -> None:
    class_folders(tmp_path, {"zebra": 2, "ant": 3})
    (tmp_path / "ant" / "readme.txt").write_text("not an image")
    (tmp_path / "ant" / "deep").mkdir()
    (tmp_path / "ant" / "deep" / "x.PNG").write_bytes(jpeg(1, kind="PNG"))
    opened = sources.open_source(tmp_path)
    assert opened.class_names == ("ant", "zebra")
    assert opened.labels.tolist() == [0, 0, 0, 0, 1, 1]
    items = list(opened.items())
    assert items[-1] == (tmp_path / "zebra" / "1.jpg").read_bytes()
    assert opened.describe(5).endswith("zebra/1.jpg")


def test_folders_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_refused(tmp_path / "empty", "no class folder")
    (tmp_path / "no_images" / "a").mkdir(parents=True)
    assert_refused(tmp_path / "no_images", "no images in its 1 class folders")
    for name in ("train", "val"):
        (tmp_path / "splits" / name).mkdir(parents=True)
    assert_refused(tmp_path / "splits", "splits")
    assert_refused(class_folders(tmp_path / "one", {"a": 3}), "only one class")


def test_links_must_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(jpeg(0))
    outside = class_folders(tmp_path / "outside", {"a": 1, "b": 1})
    (outside / "b" / "z.jpg").symlink_to(tmp_path / "one.jpg")
    assert_refused(outside, "outside the data set.*; follow_links=True follows such links")
    linked = class_folders(tmp_path / "linked", {"a": 1})
    (linked / "b").symlink_to(outside / "b")
    assert_refused(linked, "outside the data set")
    inner = class_folders(tmp_path / "inner", {"a": 1, "b": 1})
    (inner / "b" / "z").symlink_to(outside / "b")
    assert_refused(inner, "outside the data set")
    cycle = class_folders(tmp_path / "cycle", {"a": 1, "b": 2})
    (cycle / "b" / "again").symlink_to(cycle)
    opened = sources.open_source(cycle)
    assert opened.labels.tolist() == [0, 1, 1, 1], "b/again/a/0.jpg, then b's own; b is not entered twice"


def test_links_that_are_followed(tmp_path: Path) -> None:
    """As people build subsets: class folders and files that are links to another disk."""
    store = class_folders(tmp_path / "disk2", {"cat": 2, "dog": 1})
    subset = tmp_path / "subset"
    (subset / "dog").mkdir(parents=True)
    (subset / "cat").symlink_to(store / "cat")
    (subset / "dog" / "x.jpg").symlink_to(store / "dog" / "0.jpg")
    (subset / "dog" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    reading = Reading(follow_links=True)
    opened = sources.open_source(subset, reading)
    assert opened.names().to_pylist() == ["cat/0.jpg", "cat/1.jpg", "dog/gone.jpg", "dog/x.jpg"]
    assert sources.files_of(str(subset), reading).sizes.tolist()[2] == -1
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    assert len(sources.open_source(tmp_path / "a.npz", reading)) == 2, "a permission that it has no use for"


def test_links_that_are_not_used_are_not_checked(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1, "b": 1})
    (tmp_path / "notes").write_bytes(jpeg(9))
    (root / "README.md").symlink_to(tmp_path / "notes")
    (root / "a" / "notes.txt").symlink_to(tmp_path / "notes")
    opened = sources.open_source(root)
    assert opened.names().to_pylist() == ["a/0.jpg", "b/0.jpg"]
    assert opened.inventory.notes() == ["left out: 1 .txt (links out of the data set)"]
    (tmp_path / "link").symlink_to(root)
    assert len(sources.open_source(tmp_path / "link")) == 2


def test_a_pipe_is_a_bad_image_and_is_not_waited_for(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 1, "b": 1})
    os.mkfifo(tmp_path / "b" / "1.jpg")
    os.mkfifo(tmp_path / "b" / "without-suffix")
    *_, item = sources.open_source(tmp_path).items()
    assert isinstance(item, ValueError)
    assert "not a regular file" in str(item)

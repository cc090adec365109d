"""A folder of class folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, jpeg, zip_file

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
    assert opened.labels.tolist() == [0, 1, 1]
    assert opened.inventory.notes() == ["left out: 1 again (links to a folder that holds them)"]


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


def test_what_may_surprise_in_class_folders_is_said(tmp_path: Path) -> None:
    numbers = class_folders(tmp_path / "numbers", {"1": 1, "2": 1, "10": 1})
    assert sources.open_source(numbers).notes() == [
        "the class names are numbers and in the order of text: label 1 is class 10"
    ]
    in_order = class_folders(tmp_path / "in_order", {"0": 1, "1": 1, "2": 1})
    assert sources.open_source(in_order).notes() == []
    alike = class_folders(tmp_path / "alike", {"Cat": 1, "cat": 1, "dog": 1})
    assert sources.open_source(alike).notes() == [
        "classes whose names differ only in case, spaces or accents: 'Cat' and 'cat'"
    ]
    nested = class_folders(tmp_path / "nested", {"animal/cat": 1, "animal/dog": 2, "car": 1})
    opened = sources.open_source(nested)
    assert opened.labels.tolist() == [0, 0, 0, 1]
    assert opened.notes() == [
        "class folders hold several folders, whose images are of the outer class: animal/cat, animal/dog"
    ]
    tiny = class_folders(tmp_path / "tiny", {"n1/images": 1, "n2/images": 1})
    assert sources.open_source(tiny).notes() == []


def test_a_single_class_folder_that_holds_the_classes(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"images/cat": 1, "images/dog": 1})
    assert_refused(
        root, r"only one class \(images\); .*; where the classes are images/cat, images/dog, give .*set/images"
    )
    assert len(sources.open_source(root / "images")) == 2


def test_class_folders_below_their_first_letters(tmp_path: Path) -> None:
    """As SUN397's."""
    folders = {"a/abbey": 1, "a/airport": 1, "b/bar": 1, "c/church/indoor": 1, "c/church/outdoor": 1}
    root = class_folders(tmp_path / "SUN", folders)
    names = ("abbey", "airport", "bar", "church/indoor", "church/outdoor")
    (root / "ClassName.txt").write_text("\n".join(f"/{folder}" for folder in folders))
    opened = sources.open_source(root)
    assert (opened.class_names, opened.labels.tolist()) == (names, [0, 1, 2, 3, 4])
    assert opened.inventory.remarks == ("the class folders are below those of their first letters",)
    (tmp_path / "Training_01.txt").write_text("/b/bar/0.jpg\n/c/church/outdoor/0.jpg\n/a/abbey/0.jpg\n")
    listed = sources.open_source(root, Reading(labels=str(tmp_path / "Training_01.txt")))
    assert listed.class_names is not None
    classes = [listed.class_names[label] for label in listed.labels]
    assert dict(zip(listed.names().to_pylist(), classes, strict=True)) == {
        "a/abbey/0.jpg": "abbey", "b/bar/0.jpg": "bar", "c/church/outdoor/0.jpg": "church/outdoor"
    }  # fmt: skip
    packed = zip_file(tmp_path / "s.zip", {f"SUN/{folder}/0.jpg": jpeg(1) for folder in folders})
    assert sources.open_source(packed).class_names == names
    letters = class_folders(tmp_path / "letters", {"a/upper": 1, "a/lower": 1, "b/upper": 1, "b/lower": 1})
    assert sources.open_source(letters).class_names == ("a", "b")


def test_versions_of_one_data_set_are_no_classes(tmp_path: Path) -> None:
    """As PlantVillage's color, grayscale and segmented."""
    folders = {f"{kind}/{name}": 1 for kind in ("color", "gray") for name in "abcdefghij"}
    root = class_folders(tmp_path / "set", folders)
    assert_refused(
        root, r"set holds color, gray, each with the same folders \(a, b, .*; give one of them, as .*set/color"
    )
    assert len(sources.open_source(root / "color")) == 10


def test_class_folders_that_hold_the_others_again(tmp_path: Path) -> None:
    """As the Malaria data set's cell_images."""
    names = ("Parasitized", "Uninfected", "cell_images/Parasitized", "cell_images/Uninfected")
    root = class_folders(tmp_path / "cells", dict.fromkeys(names, 1))
    assert_refused(root, r"cell_images the same folders again; give .*cells/cell_images, or remove it")


def test_archives_below_a_folder_are_pointed_to(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name in ("train.zip", "val.zip"):
        zip_file(tmp_path / "set" / "data" / name, {"a/0.jpg": jpeg(0), "b/0.jpg": jpeg(1)})
    assert_refused(
        tmp_path / "set",
        r"no images in its 1 class .*; of the archives in data \(train, val\) give one, as .*/data:train",
    )


def test_a_link_to_itself_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 1, "b": 1})
    (root / "a" / "loop.jpg").symlink_to("loop.jpg")
    assert [isinstance(item, Exception) for item in sources.open_source(root).items()] == [False, True, False]


@pytest.mark.parametrize(
    ("images", "boxes"), [("images/train", "labels/train"), ("JPEGImages", "Annotations"), ("train2017", "annotations")]
)
def test_data_of_detectors_are_refused(images: str, boxes: str, tmp_path: Path) -> None:
    class_folders(tmp_path, {images: 2})
    (tmp_path / boxes).mkdir(parents=True)
    (tmp_path / boxes / "0.txt").write_text("0 0.5 0.5 1 1")
    assert_refused(tmp_path, "images and the boxes in them, for a detector; this library trains one class per image")


def test_a_split_may_be_a_data_set_of_another_kind(tmp_path: Path) -> None:
    """PATH:val of a folder that only holds folders is what PATH/val is."""
    class_folders(tmp_path / "tiny" / "train", {"n1": 1, "n2": 1})
    (tmp_path / "tiny" / "val" / "images").mkdir(parents=True)
    for i in range(2):
        (tmp_path / "tiny" / "val" / "images" / f"{i}.jpg").write_bytes(jpeg(i))
    (tmp_path / "tiny" / "val" / "val_annotations.txt").write_text("0.jpg\tn2\t0\n1.jpg\tn1\t0\n")
    opened = sources.open_source(f"{tmp_path}/tiny:val")
    assert opened.labels.tolist() == [1, 0]
    assert sources.files_of(f"{tmp_path}/tiny:val").names.to_pylist() == opened.inventory.files.names.to_pylist()


def test_splits_without_class_folders_name_their_table(tmp_path: Path) -> None:
    """As Kaggle packs them."""
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "0.jpg").write_bytes(jpeg(1))
    for name in ("sample_submission", "test", "train"):
        (tmp_path / f"{name}.csv").write_text("id,label\n0,a\n")
    assert_refused(tmp_path, r"/train images without class folders; give .*/train and .* labels='.*/train\.csv'")


def test_class_folders_that_are_links(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"a": 1, "b": 1})
    (root / "c").symlink_to(tmp_path / "disk" / "c")
    assert_refused(root, r"photos/c is a link to .*disk/c, which is not there; mount it, or remove the link")
    (root / "c").unlink()
    (root / "c").symlink_to("a")
    assert_refused(root, "a and c in .* are one folder, by a link, and would be two classes of the same images")


def test_images_in_hidden_folders_are_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", {"a": 1, "b": 1})
    for place in (root / ".cache", root / "a" / ".old"):
        place.mkdir()
        (place / "x.jpg").write_bytes(jpeg(0))
    (root / "a" / ".old" / "notes.txt").write_text("")
    assert sources.open_source(root).inventory.notes() == ["left out: 2 .jpg (hidden)"]


def test_classes_two_folders_down_are_said(tmp_path: Path) -> None:
    for part in ("animals", "plants"):
        class_folders(tmp_path / "living" / part / part, {"a": 1, "b": 1})
    (note,) = sources.open_source(tmp_path / "living").inventory.notes()
    assert "class folders hold several folders, whose images are of the outer class: animals/animals/a, ani" in note


def test_folders_that_are_called_like_splits_are_no_classes(tmp_path: Path) -> None:
    for part in ("seg_train", "seg_test", "seg_pred"):
        class_folders(tmp_path / "intel" / part / part, {"sea": 1, "street": 1})
    words = (
        r"intel holds seg_train, seg_test, which are called like splits, .* give one of them, as .*intel/seg_train, "
    )
    with pytest.raises(ValueError, match=words):
        sources.open_source(tmp_path / "intel")
    assert sources.open_source(tmp_path / "intel" / "seg_train" / "seg_train").class_names == ("sea", "street")
    zip_file(
        tmp_path / "intel.zip",
        {f"{part}/{part}/{name}/0.jpg": jpeg(0) for part in ("a_train", "a_val") for name in "xy"},
    )
    with pytest.raises(
        ValueError, match=r"intel\.zip holds a_train, a_val, which are called like splits, .*; unpack it"
    ):
        sources.open_source(tmp_path / "intel.zip")
    class_folders(tmp_path / "toys", {"toy_train": 1, "crash_test": 1, "ball": 1})  # classes that hold images
    assert sources.open_source(tmp_path / "toys").class_names == ("ball", "crash_test", "toy_train")


@pytest.mark.parametrize("names", [("train_images", "test_images"), ("train2017", "val2017"), ("TrainSet", "TestSet")])
def test_flat_folders_that_are_called_like_splits_are_no_classes(names: tuple[str, str], tmp_path: Path) -> None:
    class_folders(tmp_path / "cassava", dict.fromkeys(names, 2))
    words = rf"cassava holds {names[0]}, {names[1]}, which are called like splits, not classes; give one of them, as "
    with pytest.raises(ValueError, match=words):
        sources.open_source(tmp_path / "cassava")


@pytest.mark.parametrize(
    ("names", "given", "what"),
    [
        (("images", "masks"), "one of them, as .*set/images,", "images and what is marked in them"),
        (
            ("JPEGImages", "SegmentationClass", "SegmentationObject"),
            "one of them, as .*set/JPEGImages,",
            "images and what is marked in them",
        ),
        (("HAM10000_images_part_1", "HAM10000_images_part_2"), ".*/set", "parts of one set"),
        (("images_001", "images_002"), ".*/set", "parts of one set"),
    ],
)
def test_other_folders_that_are_no_classes(names: tuple[str, ...], given: str, what: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", dict.fromkeys(names, 2))
    with pytest.raises(ValueError, match=rf"called like {what}, not classes; give {given} with labels="):
        sources.open_source(root)
    assert len(sources.open_source(class_folders(tmp_path / "b", {"mask": 1, "no mask": 1, "images": 1}))) == 3


def test_class_folders_inside_of_one_for_images_are_pointed_to(tmp_path: Path) -> None:
    class_folders(tmp_path / "dtd" / "images", {"banded": 1, "dotted": 1})
    (tmp_path / "dtd" / "labels").mkdir()
    with pytest.raises(ValueError, match=r"dtd holds images, labels; the class folders are in .*dtd/images: give that"):
        sources.open_source(tmp_path / "dtd")


def test_tables_beside_class_folders_are_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"site1": 1, "site2": 1})
    (root / "labels.csv").write_text("file;label\nsite1/0.jpg;cat\n")
    (note,) = sources.open_source(root).notes()
    assert note.startswith("the folders are the classes, and labels.csv is not read; labels='")


def test_splits_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    for name in ("train", "Train"):
        class_folders(tmp_path / name, {"a": 1, "b": 1})
    assert_refused(f"{tmp_path}:train", r"holds Train and train, which name one split; rename one")
    assert_refused(tmp_path, r"holds splits \(Train, train\), not class folders; give one of them")


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train", "test"), r"splits in its class folders \(a/test, a/train\); move them out, as train/a and test/a"),
        (
            ("images", "Masks"),
            r"masks in its class folders \(a/Masks, a/images\); move them out, as images/a and masks/a",
        ),
    ],
)
def test_folders_in_classes_that_are_no_part_of_the_class(folders: tuple[str, str], words: str, tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {f"{name}/{inner}": 1 for name in "ab" for inner in folders})
    assert_refused(root, words)
    members = {f"{name}/{inner}/0.jpg": jpeg(0) for name in "ab" for inner in folders}
    assert_refused(zip_file(tmp_path / "set.zip", members), words)
    assert len(sources.open_source(class_folders(tmp_path / "c", {"a/images": 1, "a/train": 1, "b": 1}))) == 3
    domains = {f"{domain}/{split}/{name}": 1 for domain in "ab" for split in ("train", "test") for name in "xy"}
    assert_refused(
        class_folders(tmp_path / "d", domains), r"splits in its class folders \(a/test, a/train\); give its folder a"
    )


def test_masks_beside_their_images_are_said(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", {"a": 2, "b": 1})
    (root / "a" / "0_mask.png").write_bytes(jpeg(9, kind="PNG"))
    (root / "b" / "9_mask.jpg").write_bytes(jpeg(8))  # of nothing
    assert sources.open_source(root).notes() == [
        "1 image is called the mask of others and used like them: a/0_mask.png"
    ]
    (root / "a" / "1_mask_2.png").write_bytes(jpeg(7, kind="PNG"))
    assert sources.open_source(root).notes() == [
        "2 images are called masks of others and used like them: a/0_mask.png, a/1_mask_2.png"
    ]

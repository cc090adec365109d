"""Tables of files and labels beside a folder of images."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import assert_refused, class_folders, jpeg

from dualfast.config import Reading
from dualfast.data import beton, sources
from dualfast.data.sources.listed import SEVERAL, Places
from dualfast.errors import in_flags

pytest.importorskip("PIL")


def images(folder: Path, *names: str) -> Path:
    for at, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(at))
    return folder


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """As Kaggle's dog breeds: labels.csv beside train/."""
    images(tmp_path / "dogs", "train/0a.jpg", "train/0b.jpg", "train/0c.jpg", "test/9.jpg")
    (tmp_path / "dogs" / "labels.csv").write_text("id,breed\n0c,pug\n0a,boxer\n0b,pug\n")
    (tmp_path / "dogs" / "sample_submission.csv").write_text("id,boxer,pug\n9,0.5,0.5\n")
    return tmp_path / "dogs"


def test_a_table_beside_a_folder(kaggle: Path) -> None:
    table = kaggle / "labels.csv"
    for opened, prefix in (
        (sources.open_source(table), "train/"),
        (sources.open_source(kaggle / "train", Reading(labels=str(table))), ""),
    ):
        assert opened.class_names == ("boxer", "pug")
        assert opened.labels.tolist() == [0, 1, 1]
        assert opened.names().to_pylist() == [f"{prefix}{name}.jpg" for name in ("0a", "0b", "0c")]
        assert [*opened.items()] == [jpeg(0), jpeg(1), jpeg(2)]
        assert opened.inventory.files.names.to_pylist()[3] == "labels.csv"
    assert sources.open_source(table).inventory.notes() == [
        "left out: 1 .csv (not images that Pillow opens), 1 .jpg (not in the list)"
    ]
    written = beton.write(kaggle / "train", kaggle.parent / "x.beton", labels=str(table), progress=False)
    assert beton.open_beton(written.path).class_names == ("boxer", "pug")
    assert_refused(kaggle / "train", r"holds no class folder; .* with labels='.*dogs/labels\.csv'")


@pytest.mark.parametrize(
    ("text", "labels", "names"),
    [
        ("file,label\ntrain/0a.jpg,7\ntrain/0b.jpg,0\ntrain/0c.jpg,7\n", [7, 0, 7], None),
        ("filename\tlabel\ttime\n0a.jpg\tx\t1\n0b.jpg\ty\t2\n0c.jpg\tx\t3\n", [0, 1, 0], ("x", "y")),
        ("label;image\r\nx;0a\r\ny;0b\r\nx;0c\r\n", [0, 1, 0], ("x", "y")),
        ("\ufeffImageId,PredictionString\n0a,n02 1 2 3 4\n0b,n01 0 0 1 1 n01 2\n0c,n02 \n", [1, 0, 1], ("n01", "n02")),
        ("0a.jpg 1\n0b.jpg 0\n0c.jpg 1\n", [1, 0, 1], None),
        ("/data/dogs/train/0a.jpg,x\n/data/dogs/train/0b.jpg,y\n/data/dogs/train/0c.jpg,y\n\n", [0, 1, 1], ("x", "y")),
        ('"0a.jpg","a, b"\n"0b.jpg","c"\n"0c.jpg","c"', [0, 1, 1], ("a, b", "c")),
    ],
)  # fmt: skip
def test_forms_of_a_table(text: str, labels: list[int], names: tuple[str, ...] | None, kaggle: Path) -> None:
    (kaggle / "labels.csv").write_text(text)
    opened = sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "labels.csv")))
    assert opened.labels.tolist() == labels
    assert opened.class_names == names


def test_labels_alone_are_in_the_order_of_the_images(kaggle: Path) -> None:
    (kaggle / "synsets.txt").write_text("n02\nn01\nn02\n")
    opened = sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "synsets.txt")))
    assert opened.labels.tolist() == [1, 0, 1]
    (kaggle / "synsets.txt").write_text("n02\nn01\n")
    with pytest.raises(ValueError, match=r"has 2 labels, and .* 3 images"):
        sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "synsets.txt")))
    (kaggle / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n")
    with pytest.raises(ValueError, match=r"numbers the classes as .*; give LOC_val_solution\.csv"):
        sources.open_source(kaggle / "train", Reading(labels=f"{kaggle}/ILSVRC2012_validation_ground_truth.txt"))


def test_lists_that_are_found_in_the_folder(tmp_path: Path) -> None:
    tiny = images(tmp_path / "tiny", *(f"train/{c}/images/{c}_{i}.JPEG" for c in ("n1", "n2") for i in range(2)))
    (tiny / "train" / "n1" / "n1_boxes.txt").write_text("n1_0.JPEG\t0\t0\t1\t1\n")
    images(tiny / "val", "images/val_0.JPEG", "images/val_1.JPEG")
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t1\t1\nval_1.JPEG\tn1\t0\t0\t1\t1\n")
    images(tiny / "test", "images/test_0.JPEG")
    train, test = sources.splits(str(tiny))
    assert (train, test) == (str(tiny / "train"), str(tiny / "val"))
    assert sources.open_source(train).class_names == ("n1", "n2")
    opened = sources.open_source(test)
    assert opened.labels.tolist() == [1, 0]
    assert opened.class_names == ("n1", "n2")
    assert sources.files_of(test).names.to_pylist() == ["images/val_0.JPEG", "images/val_1.JPEG", "val_annotations.txt"]

    faces = images(tmp_path / "faces", "a.png", "b.png")
    (faces / "metadata.csv").write_text("file_name,text,label\na.png,hello,1\nb.png,world,0\n")
    assert sources.open_source(faces).labels.tolist() == [1, 0]
    classes = images(tmp_path / "classes", "x/a.png", "y/b.png")
    (classes / "metadata.csv").write_text("file_name,width,height\nx/a.png,20,30\n")
    assert sources.open_source(classes).kind == "folder"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,breed\n0a,x\n0b,y\n9,x\n7,x\n", r"lists 2 files that are not in .*train: 9, 7; remove these lines"),
        ("id,breed\n0a,x\n0b,y\n0a,y\n", r"line (2|4) of .*labels\.csv lists 0a, as another line does"),
        ("id,breed\n0a,x\n0b,\n", r"line 3 of .*labels\.csv has no label"),
        ("id,breed,age\n0a,x,1\n", r"has the columns breed, age; name the labels with label_column=NAME"),
        ("id,breed\n0a,x\n0b\n", r"line 3 of .* has 1 columns; the label is in column 2"),
        ("x,y\n7,8\n", r"none of its columns names images in .*train \(its first row: 7, 8; an image: 0a\.jpg\)"),
        ("id,breed\n", "lists no files"),
        ("", "lists no files"),
        ("id,breed\n\n0a,x\n", r"has an empty line \(line 2\); remove it"),
        (
            "1 0a.jpg\n2 0b.jpg\n3 0c.jpg\n",
            r"numbers its lines \(line 1 of .*: 1, 0a\.jpg\), and lists no labels",
        ),
        (
            "0,0a.jpg\n1,0b.jpg\n2,0c.jpg\n",
            r"numbers its lines .* or, where the images lie in class folders, leave labels",
        ),
    ],
)
def test_tables_that_are_refused(text: str, words: str, kaggle: Path) -> None:
    (kaggle / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "labels.csv")))


def test_columns_and_folders_may_have_to_be_named(kaggle: Path) -> None:
    table = kaggle / "labels.csv"
    table.write_text("id,other,breed,age\n0a,0b,x,1\n0b,0a,y,2\n")
    reading = {"labels": str(table), "label_column": "breed"}
    with pytest.raises(ValueError, match=r"several columns that name images: id, other|label"):
        sources.open_source(kaggle / "train", Reading(labels=str(table)))
    opened = sources.open_source(kaggle / "train", Reading(**reading, image_column="other"))
    assert opened.labels.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"label_column is 'kind'; .* has the columns id, other, breed, age"):
        sources.open_source(kaggle / "train", Reading(labels=str(table), label_column="kind"))
    images(kaggle, "test/0a.jpg")
    table.write_text("id,breed\n0a,x\n0b,y\n")
    assert_refused(table, "line 2 of .* lists 0a, a name that several images in .* have")
    table.rename(kaggle / "train.csv")
    assert sources.open_source(kaggle / "train.csv").names().to_pylist() == ["0a.jpg", "0b.jpg"]
    for wrong, words in (("no.csv", "is not a file"), (str(kaggle / "train.csv"), "is not a folder")):
        place = kaggle / ("train" if wrong == "no.csv" else "train.csv")
        with pytest.raises(ValueError, match=words):
            sources.open_source(place, Reading(labels=wrong))


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("cat/0.png", "cat/0.png"),
        ("photos/cat/0.png", "cat/0.png"),  # from further up
        ("/kaggle/input/photos/cat/0.png", "cat/0.png"),
        ("others/cat/0.png", "cat/0.png"),  # the folder itself may be called differently
        ("CAT/0.PNG", "cat/0.png"),
        ("cat/0", "cat/0.png"),
        ("1.png", "dog/1.png"),
        ("fox/1.png", None),  # another folder's
        ("fox/0.png", None),
        ("0.png", "several"),
    ],
)
def test_the_folders_of_a_listed_path_count(listed: str, expected: str | None) -> None:
    paths = ["cat/0.png", "dog/0.png", "dog/1.png"]
    place = Places(paths, "/data/photos").of(listed)
    assert place == (SEVERAL if expected == "several" else expected and paths.index(expected))


def test_the_table_of_the_training_images_is_none_of_the_test_images(tmp_path: Path) -> None:
    images(tmp_path / "test", "0.png", "1.png")
    (tmp_path / "train.csv").write_text("file,label\ntrain/0.png,a\ntrain/1.png,b\n")
    with pytest.raises(ValueError, match=r"none of its columns names images in .*test .its first row: train/0.png, a"):
        sources.open_source(tmp_path / "test", Reading(labels=str(tmp_path / "train.csv")))


def test_labels_alone_of_numbers_without_zeros_are_refused(tmp_path: Path) -> None:
    images(tmp_path / "set", *(f"{at}.png" for at in range(1, 11)))
    (tmp_path / "l.txt").write_text("\n".join("aaaaabbbbb") + "\n")
    with pytest.raises(ValueError, match=r"labels alone, .* in which 10\.png comes before 2\.png; list the name"):
        sources.open_source(tmp_path / "set", Reading(labels=str(tmp_path / "l.txt")))


@pytest.mark.parametrize("suffix", [".png", ""])
def test_a_list_of_files_in_class_folders_is_a_split(suffix: str, tmp_path: Path) -> None:
    """As Food-101's meta/train.txt."""
    for name in "ab":
        images(tmp_path / "set" / "food" / name, "0.png", "1.png", "2.png")
    (tmp_path / "l.txt").write_text("".join(f"{name}{suffix}\n" for name in ("b/0", "b/1", "a/2", "a/1")))
    opened = sources.open_source(tmp_path / "set" / "food", Reading(labels=str(tmp_path / "l.txt")))
    assert opened.names().to_pylist() == ["a/1.png", "a/2.png", "b/0.png", "b/1.png"]
    assert (opened.labels.tolist(), opened.class_names) == ([0, 0, 1, 1], ("a", "b"))
    assert any("lists files alone; the folder of each is its class" in said for said in opened.inventory.remarks)
    above = re.escape(str(tmp_path / "set" / "food"))
    with pytest.raises(
        ValueError, match=rf"all of them are in food; give the folder that holds .*, {above}, with labels="
    ):
        sources.open_source(tmp_path / "set", Reading(labels=str(tmp_path / "l.txt")))


@pytest.mark.parametrize("column", ["class", "class_name", "Label_Name"])
def test_a_column_beside_the_numbers_names_the_classes_or_is_said(column: str, kaggle: Path) -> None:
    table = kaggle / "labels.csv"
    table.write_text(f"file,label,{column}\n0a,1,bee\n0b,0,ant\n0c,1,wasp\n")
    opened = sources.open_source(kaggle / "train", Reading(labels=str(table)))
    assert (opened.labels.tolist(), opened.class_names) == ([1, 0, 1], None)
    (said,) = opened.inventory.remarks
    assert column in said
    table.write_text(f"file,nr,{column}\n0a,1,bee\n0b,0,ant\n0c,1,bee\n")
    opened = sources.open_source(kaggle / "train", Reading(labels=str(table), label_column="nr"))
    assert (opened.labels.tolist(), opened.class_names) == ([1, 0, 1], ("ant", "bee"))


def test_labels_behind_a_url_are_to_be_downloaded(kaggle: Path) -> None:
    with pytest.raises(
        ValueError, match=r"labels is 'https://x\.org/l\.csv', which is a URL; download it, and give the"
    ):
        sources.open_source(kaggle / "train", Reading(labels="https://x.org/l.csv"))


@pytest.fixture
def unnamed_kinds(tmp_path: Path) -> Path:
    """Images without suffixes, called by numbers."""
    for k in range(6):
        (tmp_path / "J").mkdir(exist_ok=True)
        (tmp_path / "J" / f"2007_{k:06d}").write_bytes(jpeg(k))
    return tmp_path


def test_a_list_of_names_alone_is_none_of_labels(unnamed_kinds: Path) -> None:
    table = unnamed_kinds / "train.txt"
    for rows in ((5, 3, 1, 0, 2, 4), (5, 3, 1)):
        table.write_text("".join(f"2007_{k:06d}\n" for k in rows))
        with pytest.raises(
            ValueError, match=r"lists files and no labels \(line 1 of .*: 2007_000005\), .*; list the class"
        ):
            sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))
    table.write_text("a\nb\nc\nd\ne\nf\n")
    with pytest.raises(
        ValueError, match=r"6 different texts for 6 images .* are no classes; list the class of each image"
    ):
        sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))


@pytest.mark.parametrize("classes", [("cat", "dog"), ("n", "y")])  # y is what columns of labels are called, too
@pytest.mark.parametrize("end", ["csv", "txt"])
def test_a_first_file_that_is_missing_is_no_header(end: str, classes: tuple[str, str], unnamed_kinds: Path) -> None:
    table = unnamed_kinds / f"t.{end}"
    rows = [f"2007_{k:06d}{',' if end == 'csv' else ' '}{classes[k % 2]}" for k in (9, 0, 1, 2, 3, 4, 5)]
    table.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=r"lists 1 file that is not in .*: 2007_000009"):
        sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))


@pytest.mark.parametrize("before", ["#a comment, of one\n# another\n", "sep=;\n", "6\n", "6\nname;label\n"])
def test_lines_before_a_table(before: str, unnamed_kinds: Path) -> None:
    table = unnamed_kinds / "t.csv"
    mark = ";" if ";" in before else " "
    table.write_text(before + "".join(f"2007_{k:06d}{mark}{k % 2}\n" for k in range(6)))
    opened = sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))
    assert opened.labels.tolist() == [0, 1] * 3
    table.write_text(table.read_text().replace("000003", "000009"))
    with pytest.raises(ValueError, match=r"lists 1 file that is not in .*: 2007_000009"):
        sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))


def test_labels_alone_may_have_a_header(unnamed_kinds: Path) -> None:
    table = unnamed_kinds / "t.csv"
    table.write_text("label\n" + "pink\nrose\n" * 3)
    opened = sources.open_source(unnamed_kinds / "J", Reading(labels=str(table)))
    assert opened.labels.tolist() == [0, 1] * 3


def test_numbers_of_rows_are_not_taken_for_names_of_images(tmp_path: Path) -> None:
    images(tmp_path / "J", *(f"c/{k}.jpg" for k in range(6)))
    table = tmp_path / "t.csv"
    table.write_text("id,name,label\n" + "".join(f"{k},c/{5 - k},{k // 3}\n" for k in range(6)))
    opened = sources.open_source(tmp_path / "J", Reading(labels=str(table)))
    assert opened.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert opened.inventory.remarks == ("columns that name images: name is used, id not; image_column=NAME chooses",)
    table.write_text("id,img_id,label\n" + "".join(f"{k},{5 - k},{k // 3}\n" for k in range(6)))
    assert sources.open_source(tmp_path / "J", Reading(labels=str(table))).labels.tolist() == [1, 1, 1, 0, 0, 0]
    table.write_text("row,picture,label\n" + "".join(f"{k},c/{5 - k},{k // 3}\n" for k in range(6)))
    with pytest.raises(ValueError, match=r"several columns that name images: picture, row; choose with .*'picture'"):
        sources.open_source(tmp_path / "J", Reading(labels=str(table)))


@pytest.mark.parametrize(
    "header",
    [
        *("Filename,Label,ClassName", "file,target,class_name", "file,label,Label Name"),
        *("file,label,class", "file,label,class_name", "file,label,Label_Name"),
    ],
)
def test_names_of_classes_are_found_in_any_case(header: str, kaggle: Path) -> None:
    table = kaggle / "labels.csv"
    table.write_text(f"{header}\n0a,1,ant\n0b,0,bee\n0c,1,ant\n")
    opened = sources.open_source(kaggle / "train", Reading(labels=str(table)))
    assert (opened.labels.tolist(), opened.class_names) == ([1, 0, 1], ("bee", "ant"))
    assert opened.inventory.remarks == ()


def test_a_list_in_json_whose_first_line_lacks_a_label(tmp_path: Path) -> None:
    root = images(tmp_path / "g", *(f"{name}/{k}.png" for name in ("cat", "dog") for k in range(2)))
    rows = [{"file_name": f"{name}/{k}.png", "label": "xy"[k]} for name in ("cat", "dog") for k in range(2)]
    del rows[0]["label"]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"line 1 of .*metadata\.jsonl has no label"):
        sources.open_source(root)


def test_labels_alone_of_names_in_two_cases_are_refused(tmp_path: Path) -> None:
    """Programs differ in whether B comes before a."""
    root = images(tmp_path / "set", "a.png", "B.png")
    (tmp_path / "l.txt").write_text("1\n2\n")
    with pytest.raises(ValueError, match=r"labels alone, .* in which B\.png comes before a\.png; list the name"):
        sources.open_source(root, Reading(labels=str(tmp_path / "l.txt")))


def test_numbers_without_their_zeros_are_said(unnamed_kinds: Path) -> None:
    images(unnamed_kinds / "n", *(f"{k:05d}.jpg" for k in range(3)))
    (unnamed_kinds / "t.csv").write_text("file,label\n1,a\n2,b\n")
    with pytest.raises(ValueError, match=r"1 is no image in .*, and 00001\.jpg is: its numbers have lost their zeros"):
        sources.open_source(unnamed_kinds / "n", Reading(labels=str(unnamed_kinds / "t.csv")))


def test_a_compressed_table_is_told(kaggle: Path) -> None:
    (kaggle / "labels.csv").write_bytes(gzip.compress(b"id,breed\n0a,x\n"))
    with pytest.raises(ValueError, match="it is compressed; gunzip makes the text that is read"):
        sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "labels.csv")))


def test_paths_of_another_folder_are_said(tmp_path: Path) -> None:
    root = images(tmp_path / "siteA", "scan/0.png", "scan/1.png")
    (tmp_path / "b.csv").write_text("file,label\nsiteB/scan/0.png,y\nsiteB/scan/1.png,x\n")
    opened = sources.open_source(root, Reading(labels=str(tmp_path / "b.csv")))
    assert opened.inventory.remarks == (f"{tmp_path}/b.csv lists files of siteb, which {root} is taken for",)
    (tmp_path / "a.csv").write_text("file,label\ndata/siteA/scan/0.png,y\ndata/siteA/scan/1.png,x\n")
    assert sources.open_source(root, Reading(labels=str(tmp_path / "a.csv"))).inventory.remarks == ()


@pytest.mark.parametrize(
    ("text", "labels", "names"),
    [
        ("3,0a.jpg,cat\n0,0b.jpg,dog\n7,0c.jpg,cat\n", [0, 1, 0], ("cat", "dog")),  # an index first
        ("0a.jpg,34,cat\n0b.jpg,41,dog\n0c.jpg,29,cat\n", [0, 1, 0], ("cat", "dog")),
        ("0a.jpg 0 cat\n0b.jpg 1 dog\n0c.jpg 0 cat\n", [0, 1, 0], ("cat", "dog")),
        ("image id species\n0a.jpg 0 cat\n0b.jpg 1 dog\n0c.jpg 0 cat\n", None, "name the labels with label_column"),
        ("image label split\n0a.jpg hot train\n0b.jpg dog train\n0c.jpg dog train\n", [1, 0, 0], ("dog", "hot")),
        ("0a.jpg hot dog\n0b.jpg polar bear\n0c.jpg hot dog\n", [0, 1, 0], ("hot dog", "polar bear")),
        ("0a.jpg,1,34\n0b.jpg,0,41\n0c.jpg,1,29\n", None, r"has no header, and more columns than .* label_column='2'"),
        ("0a.jpg train hot dog\n0b.jpg train bear\n0c.jpg train hot dog\n", [1, 0, 1], ("bear", "hot dog")),
        ("0a.jpg hot dog train\n0b.jpg bear train\n0c.jpg bear train\n", [1, 0, 0], ("bear", "hot dog")),
        ("0a.jpg 7 hot dog\n0b.jpg 2 bear\n0c.jpg 7 hot dog\n", [1, 0, 1], ("bear", "hot dog")),
        ("image_id class_id path\n1 2 0a.jpg\n2 1 0b.jpg\n3 2 0c.jpg\n", None, "has the columns image_id, class_id"),
        ("0a.jpg,cat,lab\n0b.jpg,dog,lab\n0c.jpg,cat,field\n", None, "has no header, and more columns than file and"),
        ("file,label\n0a,1.20e+01\n0b,0.00e+00\n0c,1.000e+01\n", [12, 0, 10], None),
        ("file,label\n0a,1.25e+01\n0b,0.00e+00\n0c,1.000e+01\n", None, "has the label 1.25e.01; .*give whole numbers"),
        ("file,label\n0a,1e2\n0b,x\n0c,1e2\n", [0, 1, 0], ("1e2", "x")),
        ("file,label\n0a,10000002\n0b,10000007\n0c,10000002\n", [0, 1, 0], ("10000002", "10000007")),
        ("file,label\n0a,-1\n0b,1\n0c,1\n", [0, 1, 1], ("-1", "1")),
        (",image,a,b\n0,0a,1,0\n1,0b,0,1\n2,0c,1,0\n", [0, 1, 0], ("a", "b")),
        ("file,label_id,label_conf\n0a,0,0\n0b,1,5\n0c,1,1\n", None, "has the columns label_id, label_conf; name the"),
    ],
)  # fmt: skip
def test_more_columns(text: str, labels: list[int] | None, names: Any, kaggle: Path) -> None:
    (kaggle / "t.csv").write_text(text)
    reading = Reading(labels=str(kaggle / "t.csv"))
    if labels is None:
        with pytest.raises(ValueError, match=names):
            sources.open_source(kaggle / "train", reading)
        return
    opened = sources.open_source(kaggle / "train", reading)
    assert (opened.labels.tolist(), opened.class_names) == (labels, names)


def test_numbers_from_zero_without_their_zeros_are_said(tmp_path: Path) -> None:
    root = images(tmp_path / "n", "000.jpg", "001.jpg")
    (tmp_path / "t.csv").write_text("file,label\n0,a\n1,b\n")
    with pytest.raises(ValueError, match=r"0 is no image in .*, and 000\.jpg is: its numbers have lost their zeros"):
        sources.open_source(root, Reading(labels=str(tmp_path / "t.csv")))


def test_columns_without_a_header_are_chosen_by_their_number(unnamed_kinds: Path) -> None:
    table = unnamed_kinds / "trainval.txt"  # as Oxford's pets: class, species, breed
    table.write_text("".join(f"2007_{k:06d} {k % 3 + 1} {k % 2 + 1} 1\n" for k in range(6)))
    for column, labels in (("2", [1, 2, 3, 1, 2, 3]), ("3", [1, 2, 1, 2, 1, 2])):
        opened = sources.open_source(unnamed_kinds / "J", Reading(labels=str(table), label_column=column))
        assert opened.labels.tolist() == labels
    with pytest.raises(ValueError, match=r"label_column is '5'; .* has no header"):
        sources.open_source(unnamed_kinds / "J", Reading(labels=str(table), label_column="5"))


def test_a_header_without_a_word_for_the_files(tmp_path: Path) -> None:
    root = images(tmp_path / "celeba", "000001.jpg", "000002.jpg", "000003.jpg")
    (tmp_path / "list.txt").write_text("3\nMale Young\n000001.jpg -1  1\n000002.jpg 1 -1\n000003.jpg 1  1\n")
    opened = sources.open_source(root, Reading(labels=str(tmp_path / "list.txt"), label_column="Male"))
    assert (opened.labels.tolist(), opened.class_names) == ([0, 1, 1], ("-1", "1"))


def test_tables_of_pixels_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [[k % 2, *range(k, k + 64)] for k in range(4)]
    header = ",".join(["label", *(f"pixel{at}" for at in range(64))])
    (tmp_path / "train.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]))
    with pytest.raises(
        ValueError, match=r"train\.csv holds the pixels of images; python -c .* makes pixels\.npz"
    ) as said:
        sources.open_source("train.csv")
    code = str(said.value).partition('python -c "')[2].partition('" makes')[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    opened = sources.open_source("pixels.npz")
    assert opened.labels.tolist() == [0, 1, 0, 1]
    assert [np.asarray(image).ravel().tolist() for image in opened.items()] == [row[1:] for row in rows]


@pytest.mark.parametrize("split", [True, False])
def test_tables_with_a_column_of_pixels_are_told(split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As FER2013's."""
    monkeypatch.chdir(tmp_path)
    rows = [(k % 3, [*range(k, k + 64)], "Training" if k < 4 else "PublicTest") for k in range(6)]
    lines = [f"{label},{' '.join(map(str, pixels))}{f',{part}' * split}\n" for label, pixels, part in rows]
    (tmp_path / "fer.csv").write_text(f"emotion,pixels{',Usage' * split}\n{''.join(lines)}")
    with pytest.raises(ValueError, match=r"fer\.csv holds the pixels of images in its column") as said:
        sources.open_source("fer.csv")
    code = str(said.value).partition('python -c "')[2].partition('" makes')[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, part in (("Training", rows[:4]), ("PublicTest", rows[4:])) if split else (("pixels", rows),):
        opened = sources.open_source(f"{name}.npz")
        assert opened.labels.tolist() == [label for label, *_ in part]
        assert [np.asarray(image).ravel().tolist() for image in opened.items()] == [pixels for _, pixels, _ in part]


def test_a_table_of_pixels_without_header_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As mnist_train.csv; on the command line, and in its folder, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    lines = [",".join(map(str, [k % 2, *range(k, k + 64)])) for k in range(4)]
    (tmp_path / "set" / "mnist_train.csv").write_text("\n".join(lines))
    assert_refused("set", r"no class folder; of its tables \(mnist_train\.csv\) give the one that lists images")
    with pytest.raises(ValueError, match="holds the pixels of images") as said:
        sources.open_source("set/mnist_train.csv")
    flags = in_flags(str(said.value), ["labels", "data"])
    subprocess.run([sys.executable, "-c", flags.partition('python -c "')[2].partition('" makes')[0]], check=True)
    assert sources.open_source("pixels.npz").labels.tolist() == [0, 1, 0, 1]


def test_a_list_of_few_of_the_images_is_not_taken_unasked(tmp_path: Path) -> None:
    """As Kaggle's ImageNet has LOC_val_solution.csv in its root."""
    inner = tmp_path / "root" / "ILSVRC"
    class_folders(inner / "train", {"n01": 3, "n02": 3})
    images(inner / "val", "v1.jpg", "v2.jpg")
    table = tmp_path / "root" / "LOC_val_solution.csv"
    table.write_text("ImageId,PredictionString\nv1,n01 1 2 3 4\nv2,n02 1 2 3 4\n")
    words = rf"lists 2 of the 8 images in .*; give {inner}/val with labels='{table}' for these, and {inner}/train for"
    assert_refused(tmp_path / "root", words)
    assert len(sources.open_source(inner / "val", Reading(labels=str(table)))) == 2


def test_numbers_of_lines_behind_the_files_are_no_labels(tmp_path: Path) -> None:
    root = images(tmp_path / "val", *(f"{k:08d}.jpg" for k in range(1, 22)))
    (tmp_path / "val.txt").write_text("".join(f"{k:08d} {k}\n" for k in range(1, 22)))
    with pytest.raises(ValueError, match=r"val\.txt numbers its lines"):
        sources.open_source(root, Reading(labels=str(tmp_path / "val.txt")))


def test_a_table_of_files_and_splits_is_for_class_folders(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "d", {"cat": 3, "dog": 3})
    rows = [f"{name}/{at}.jpg,{'train' if at else 'test'}\n" for name in ("cat", "dog") for at in range(3)]
    (tmp_path / "split.csv").write_text("file,split\n" + "".join(rows))
    assert sources.splits(str(root), labels=str(tmp_path / "split.csv")) == (f"{root}:train", f"{root}:test")
    opened = sources.open_source(f"{root}:test", Reading(labels=str(tmp_path / "split.csv")))
    assert (opened.names().to_pylist(), opened.class_names) == (["cat/0.jpg", "dog/0.jpg"], ("cat", "dog"))
    folds = "".join(rows).replace("train", "1").replace("test", "0")
    (tmp_path / "fold.csv").write_text(f"file,fold\n{folds}")
    with pytest.raises(ValueError, match=r"has the columns fold; name the labels with label_column=NAME"):
        sources.open_source(root, Reading(labels=str(tmp_path / "fold.csv")))


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_before_their_label(channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HAM10000's hmnist_8_8_L.csv and hmnist_8_8_RGB.csv; images beside them change nothing."""
    monkeypatch.chdir(tmp_path)
    images(tmp_path, "0.png", "1.png", "2.png")
    rows = [[(7 * k + at) % 256 for at in range(64 * channels)] for k in range(3)]
    header = ",".join([*(f"pixel{at:04}" for at in range(64 * channels)), "label"])
    lines = [",".join(map(str, [*row, k])) for k, row in enumerate(rows)]
    (tmp_path / "h.csv").write_text("\n".join([header, *lines]))
    with pytest.raises(ValueError, match="holds the pixels of images") as said:
        sources.open_source("h.csv")
    code = str(said.value).partition('python -c "')[2].partition('" makes')[0]
    subprocess.run([sys.executable, "-c", code], check=True)
    opened = sources.open_source("pixels.npz")
    assert opened.labels.tolist() == [0, 1, 2]
    assert [np.asarray(image).ravel().tolist() for image in opened.items()] == rows


def test_a_running_number_below_a_header_is_no_class(tmp_path: Path) -> None:
    root = images(tmp_path / "set", *(f"{k}.png" for k in range(40)))
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{k}.png,{k + 1}\n" for k in range(40)))
    with pytest.raises(ValueError, match=r"l\.csv numbers its lines"):
        sources.open_source(root, Reading(labels=str(tmp_path / "l.csv")))


def test_celeba_s_parts_are_no_classes(tmp_path: Path) -> None:
    root = images(tmp_path / "img", "000001.jpg", "000002.jpg")
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 1\n")
    with pytest.raises(ValueError, match=r"tells which images are for training .*; give list_attr_celeba\.txt"):
        sources.open_source(root, Reading(labels=str(tmp_path / "list_eval_partition.txt")))


def test_a_column_that_may_be_none_of_splits_is_said(kaggle: Path) -> None:
    (kaggle / "t.csv").write_text("file,label,usage\n0a,x,casual\n0b,y,ethnic\n0c,x,casual\n")
    opened = sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "t.csv")))
    assert opened.inventory.remarks == ("the column usage holds casual, ethnic; all rows are used",)


def test_labels_of_matlab_go_into_a_table(kaggle: Path) -> None:
    (kaggle / "train" / "0a.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"train holds no class folder; put each class's .*labels='.*labels\.csv'"):
        sources.open_source(kaggle / "train")
    (kaggle / "l.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"l\.mat is a MATLAB file; .*: write the names of the files and their labels"):
        sources.open_source(kaggle / "train", Reading(labels=str(kaggle / "l.mat")))


def test_a_table_of_a_set_in_parts_is_given_with_the_folder_of_all(tmp_path: Path) -> None:
    """As of HAM10000."""
    for at in (1, 2):
        images(tmp_path / f"set_images_part_{at}", f"{at}0.png", f"{at}1.png")
    table = tmp_path / "meta.csv"
    table.write_text("id,label\n10,a\n11,b\n20,a\n21,b\n")
    with pytest.raises(
        ValueError, match=rf"parts of one set, not classes; give {tmp_path} with labels='TABLE\.csv', or"
    ):
        sources.open_source(tmp_path)
    parts = [tmp_path / f"set_images_part_{at}" for at in (1, 2)]
    for given, other in ((parts[0], 2), (parts, 2), (parts[1], 1)):
        with pytest.raises(
            ValueError, match=rf"; give {tmp_path}, which holds set_images_part_{other} too, with labels="
        ):
            sources.open_source(given, Reading(labels=str(table)))
    assert sources.open_source(tmp_path, Reading(labels=str(table))).labels.tolist() == [0, 1, 0, 1]

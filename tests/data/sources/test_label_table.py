"""Tables of files and labels, whatever file they are in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_sets import class_folders, jpeg, parquet_file

from dualfast.config import Reading
from dualfast.data import sources

pytest.importorskip("PIL")

RECORDS = [("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat"), ("3.png", "dog")]
CSV = "file,label\n" + "".join(f"{name},{label}\n" for name, label in RECORDS)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for at, (name, _) in enumerate(RECORDS):
        (tmp_path / "images" / name).write_bytes(jpeg(at, kind="PNG"))
    return tmp_path / "images"


def labels_by(table: Path, images: Path, **options: Any) -> list[str]:
    """The class, or the number, of each image by this table."""
    opened = sources.open_source(images, Reading(labels=str(table), **options))
    return [opened.class_names[label] if opened.class_names else str(label) for label in opened.labels.tolist()]


@pytest.mark.parametrize(
    "content",
    [
        CSV.encode("utf-8-sig"),
        CSV.replace("\n", "\r\n").encode(),
        CSV.encode("utf-16"),
        CSV.replace(",", "\t").encode("utf-16"),  # Excel's "Unicode text"
        CSV.replace("file,label\n", "").encode(),
        CSV.replace(".png", ".PNG").encode(),
        "".join(f"C:\\photos\\{name},{label}\n" for name, label in RECORDS).encode(),
        "".join(f"./{name} {label}\n" for name, label in RECORDS).encode(),
        b"image,cat,dog\n0,1,0\n1,0,1\n2,1,0\n3,0,1\n",
        b"image,cat,dog,bird\n0,1.0,0.0,0.0\n1,0.0,1.0,0.0\n2,1.0,0.0,0.0\n3,0.0,1.0,0.0\n",
    ],
)
def test_forms_of_one_table(content: bytes, images: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    assert labels_by(tmp_path / "labels.csv", images) == ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["0.png big cat", "1.png dog", "2.png big cat", "3.png dog"], ["big cat", "dog", "big cat", "dog"]),
        (["0.png big cat", "1.png old dog", "2.png big cat", "3.png old dog"], ["big cat", "old dog"] * 2),
        (["0.png n02 1 2 3 4", "1.png n01 0 0 1 1", "2.png n02 1 1 1 1", "3.png n01 2 2 2 2"], ["n02", "n01"] * 2),
        (["a cat.png 0", "1.png 1", "2.png 0", "3.png 1"], ["1", "0", "1", "0"]),
    ],
)
def test_lines_with_spaces_in_names(lines: list[str], expected: list[str], images: Path, tmp_path: Path) -> None:
    if lines[0].startswith("a cat"):
        (images / "0.png").rename(images / "a cat.png")
    (tmp_path / "labels.txt").write_text("\n".join(lines))
    assert labels_by(tmp_path / "labels.txt", images) == expected


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_metadata_of_hugging_face(kind: str, named: bool, images: Path, tmp_path: Path) -> None:
    """Found in the folder by its name, or given with labels=; a column beside the label is nothing."""
    table = (images if not named else tmp_path) / f"metadata.{kind}"
    rows = [{"file_name": name, "label": label, "note": None} for name, label in RECORDS]
    if kind == "csv":
        table.write_text(CSV.replace("file,", "file_name,"))
    elif kind == "jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        parquet_file(table, {name: [row[name] for row in rows] for name in ("file_name", "label", "note")})
    opened = sources.open_source(images, Reading(labels=str(table)) if named else None)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 1, 0, 1]
    assert opened.inventory.notes() == []
    assert opened.inventory.files.names.to_pylist()[4] == table.name


def test_labels_in_json_lines_are_numbers_or_names(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "labels.jsonl"

    def write(*labels: Any) -> Path:
        rows = [{"file_name": name, "label": label} for (name, _), label in zip(RECORDS, labels, strict=True)]
        table.write_text("\n".join(map(json.dumps, rows)))
        return table

    assert labels_by(write(3, 1, 3, 1), images) == ["3", "1", "3", "1"]
    assert labels_by(write(3.0, 1.0, 3.0, 1.0), images) == ["3", "1", "3", "1"]
    assert labels_by(write(True, False, True, False), images) == ["True", "False", "True", "False"]
    for labels, words in (
        ((1, None, 1, 0), "line 2 of .* has no label"),
        (([1, 2], [1], [2], [1]), r"line 1 of .* has \[1, 2\]\); this library trains one class per image"),
        ((0.5, 1, 1, 0), "one class per image|float and integer mixed"),
        (("cat", 1, "cat", 1), "integer and text mixed"),
    ):
        with pytest.raises(ValueError, match=words):
            labels_by(write(*labels), images)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.csv", "file,label\n0.png,caf\xe9\n".encode("latin-1"), r"its text is not UTF-8; save it as CSV in UTF-8"),
        ("l.xlsx", b"PK\3\4", "is a spreadsheet; save it as CSV"),
        ("l.json", b"[]", r"l\.json is JSON; .*pd\.read_json\('.*l\.json', dtype=False, convert_dates=False\)"),
        ("l.json", b' {"images": []}', r"l\.json is a JSON object; write the file and the label of each image"),
        ("l.csv", b"id_code\n0\n1\n2\n3\n", r"lists files and no labels \(line 2 of .*: 0\), and the images are in no"),
        ("list_eval_partition.txt", b"0.jpg 0\n1.jpg 1\n", "list_attr_celeba"),
        ("list_eval_partition.txt", b"9\nimage_name status\nimg/0.jpg train\n", "^(?!.*celeba)"),
        ("l.jsonl", b"[1]\n", r"line 1 is not an object, such as"),
        ("l.jsonl", b'{"file_name": "0.png", "label": 1}\n{"file', r"line 2 is not JSON"),
        ("l.parquet", b"PAR1", r"l\.parquet cannot be read as a table"),
        ("l.csv", b"file_name,text\n0.png,one\n1.png,two\n2.png,three\n3.png,four\n", r"text: 4 different texts for 4"),
        ("l.csv", b"a,cat,dog\n0,1,1\n1,1,0\n2,1,0\n3,0,1\n", "line 2 of .* has a 1 in 2 of the columns cat, dog"),
        ("l.csv", b"0.png,cat|dog\n1.png,dog\n2.png,cat\n3.png,dog\n", r"line 1 of .* 'cat\|dog', which are 2 classes"),
        ("l.csv", b"file,label\n0.png,1\n1.png,NA\n2.png,0\n3.png,1\n", r"line 3 of .* has no label"),
        ("l.csv", b"file,label\n0.png,cat\n1.png,nan\n2.png,dog\n3.png,dog\n", "line 3 of .* has no label"),
        ("l.csv", b"file,label\n0.png,0.5\n1.png,1\n2.png,1\n3.png,1\n", r"line 2 of .* has the label 0\.5; .*whole"),
        (
            "l.csv",
            b"file,label\n0.png,a\n1.png,b\n7.png,a\n8.png,b\n",
            "lists 2 files that are not in .*: 7.png, 8.png",
        ),
        ("l.csv", b"7.PNG,a\n0.png,b\n1.png,a\n", "lists 1 file that is not in .*: 7.PNG"),
        ("l.csv", b"file,label,label\n0.png,a,b\n", "two columns of the same name"),
        (
            "l.csv",
            b"cat,0.png\ndog\ncat,2.png\n",
            "line 2 of .* has 1 columns; the (file|label) is in column 2|none of its",
        ),
        (
            "l.csv",
            b"file,label\n0.png,cat\n1.png,maine, coon\n",
            "line 3 has 3 columns and the header 2; .*double quotes",
        ),
        ("l.csv", b"0.png,maine, coon\n1.png,cat\n2.png,cat\n", "line 1 has 3 columns and others 2; .* double quotes"),
        (
            "l.csv",
            b"file,label\n0.png,cat\n1.png,NaN\n",
            "line 3 of .* no label but 'NaN', .*; remove .*, or rename the",
        ),
        ("l.csv", b"file,x,y\n0.png,5,1\n1.png,6,0\n2.png,7,1\n", "has the columns x, y; name the labels with label_"),
        (
            "l.csv",
            b"file,x1,y1,x2,y2,label\n0.png,1,1,2,2,a\n0.png,3,3,4,4,b\n",
            "line [23] of .* lists 0.png, as another line does; .* of a table of boxes keep one per image",
        ),
        ("l.jsonl", b'{"file_name": "0.png"}\n', "has no column of labels; name the labels with label_column=NAME"),
    ],
)
def test_tables_that_are_refused(name: str, content: bytes, words: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        labels_by(tmp_path / name, images)
    assert "\n" not in str(caught.value)


def test_numbers_of_pandas_are_whole_numbers(images: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label\n0.png,1.0\n1.png,0.0\n2.png,1.0\n3.png,0.0\n")
    assert labels_by(tmp_path / "l.csv", images) == ["1", "0", "1", "0"]


def test_absolute_paths_name_the_folder_to_give(images: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    table = tmp_path / "elsewhere" / "train.csv"
    table.write_text("".join(f"{images / name},{label}\n" for name, label in RECORDS))
    with pytest.raises(ValueError, match=rf"give the folder of the images, {images}, with labels="):
        sources.open_source(table)
    assert labels_by(table, images) == ["cat", "dog", "cat", "dog"]


def test_names_on_a_mac_are_the_same_names(images: Path, tmp_path: Path) -> None:
    (images / "0.png").rename(images / "caf\u0065\u0301.png")  # as macOS decomposes them
    (tmp_path / "l.csv").write_text(CSV.replace("0.png", "caf\u00e9.png"), encoding="utf-8")
    assert labels_by(tmp_path / "l.csv", images) == ["dog", "cat", "dog", "cat"]


def test_the_rows_of_a_split(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    table.write_text(
        "class id,filepaths,labels,data set\n0,0.png,A,train\n1,1.png,B,train\n0,2.png,A,valid\n1,3.png,B,valid\n"
    )
    with pytest.raises(
        ValueError, match=r"all\.csv holds several splits \(train, valid\); give one, as .*images:train"
    ):
        labels_by(table, images)
    reading = Reading(labels=str(table))
    assert sources.open_source(f"{images}:train", reading).names().to_pylist() == ["0.png", "1.png"]
    opened = sources.open_source(f"{images}:valid", reading)
    assert opened.names().to_pylist() == ["2.png", "3.png"]
    assert opened.describe(0) == str(images / "2.png")
    assert opened.inventory.notes() == []  # the other images are of the other split
    (images / "stray.png").write_bytes(jpeg(9, kind="PNG"))
    assert sources.open_source(f"{images}:train", reading).inventory.notes() == ["left out: 1 .png (not in the list)"]
    assert sources.splits(str(images), labels=str(table)) == (f"{images}:train", f"{images}:valid")
    table.rename(images / "all.csv")
    given = str(images / "all.csv")
    assert sources.splits(given) == (f"{given}:train", f"{given}:valid")
    assert sources.open_source(f"{given}:train").labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="has no split 'test'; it has train, valid"):
        sources.open_source(f"{given}:test")


def test_captions_in_metadata_leave_the_class_folders(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.jpg").write_bytes(jpeg(1))
    (tmp_path / "set" / "metadata.csv").write_text("file_name,text\nant/0.jpg,an ant\nbee/0.jpg,a bee\n")
    opened = sources.open_source(tmp_path / "set")
    assert opened.class_names == ("ant", "bee")
    assert opened.notes()[0].startswith("the folders are the classes, and metadata.csv is not read")


def test_half_a_character_in_json_is_escaped(images: Path, tmp_path: Path) -> None:
    rows = [{"file_name": name, "label": "\ud800" if label == "dog" else label} for name, label in RECORDS]
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert labels_by(tmp_path / "l.jsonl", images) == ["cat", "\\ud800", "cat", "\\ud800"]


@pytest.mark.parametrize("beside", [True, False])
def test_the_folders_that_a_table_lists_are_splits(beside: bool, tmp_path: Path) -> None:
    """One metadata.csv for train/ and test/, in their folder; or a table that is given for them."""
    root = tmp_path / "set"
    rows = []
    for part, count in (("train", 4), ("test", 2)):
        (root / part).mkdir(parents=True)
        for i in range(count):
            (root / part / f"{i}.jpg").write_bytes(jpeg(i))
            rows.append(f"{part}/{i}.jpg,{'ab'[i % 2]}\n")
    table = (tmp_path if beside else root) / "metadata.csv"
    table.write_text("file_name,label\n" + "".join(rows))
    labels = str(table) if beside else None
    assert sources.splits(str(root), labels=labels) == (f"{root}:train", f"{root}:test")
    sizes = [len(sources.open_source(f"{root}:{part}", Reading(labels=labels))) for part in ("train", "test")]
    assert sizes == [4, 2]
    with pytest.raises(ValueError, match=r"holds several splits \(train, test\); give one, as .*set:train"):
        sources.open_source(root, Reading(labels=labels))


def test_an_index_is_never_taken_for_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for at in range(4):
        (folder / f"{at}.jpg").write_bytes(jpeg(at))
    table = tmp_path / "t.csv"
    for header, names in ((",filename,label", "2.png 0.png 3.png 1.png"), ("id,file,label", "2.jpg 0.jpg 3.jpg 9.jpg")):
        rows = [f"{at},{name},{'ab'[at % 2]}" for at, name in enumerate(names.split())]
        table.write_text("\n".join([header, *rows]))
        with pytest.raises(ValueError, match=r"lists .* not in"):
            labels_by(table, folder)
    table.write_text(",filename,label\n0,2.jpg,a\n1,0.jpg,b\n2,3.jpg,a\n3,1.jpg,b\n")
    assert labels_by(table, folder) == ["b", "b", "a", "a"]


@pytest.mark.parametrize(("name", "cells"), [("split", "train unlabeled test train"), ("is_valid", "yes no yes no")])
def test_a_split_that_is_not_understood_is_refused(name: str, cells: str, images: Path, tmp_path: Path) -> None:
    rows = [f"{at}.png,{'ab'[at % 2]},{cell}" for at, cell in enumerate(cells.split())]
    (tmp_path / "t.csv").write_text("\n".join([f"file,label,{name}", *rows]))
    with pytest.raises(ValueError, match=rf"the column {name} holds .*; call the parts train, val or test"):
        labels_by(tmp_path / "t.csv", images)


@pytest.mark.parametrize("cells", ["True False True False", "1 0 1 0", "1.0 0.0 1.0 0.0"])
def test_a_switch_of_a_split_is_understood_by_its_name(cells: str, images: Path, tmp_path: Path) -> None:
    for name, parts in (
        ("is_valid", ("train", "val")),
        ("Is_Test", ("train", "test")),
        ("is_train", ("test", "train")),
    ):
        rows = [f"{at}.png,{'aabb'[at]},{cell}" for at, cell in enumerate(cells.split())]
        (tmp_path / "t.csv").write_text("\n".join([f"file,label,{name}", *rows]))
        assert set(sources.table_splits(str(images), str(tmp_path / "t.csv"))) == set(parts)
        for part, files in zip(parts, ((1, 3), (0, 2)), strict=True):
            opened = sources.open_source(f"{images}:{part}", Reading(labels=str(tmp_path / "t.csv")))
            assert opened.names().to_pylist() == [f"{at}.png" for at in files]


WORDS = (
    ("image label\n0.png big cat\n1.png small cat\n2.png big dog\n3.png small dog\n", None),
    ("image class\n0.png big cat\n1.png cat\n2.png big dog\n3.png small dog\n", None),
    (
        "0.png Boeing 707\n1.png Boeing 737\n2.png Fokker 70\n3.png Fokker 100\n",
        "line 1 may name the class 'Boeing 707'",
    ),
    ("0.png Type 1\n1.png Type 2\n2.png Type 1\n3.png Type 2\n", "line 1 may name the class 'Type 1'"),
    ("0.png cat 1\n1.png dog 2\n2.png cat 1\n3.png dog 2\n", None),
    ("0 0.png dog\n1 1.png big cat\n2 2.png dog\n3 3.png big cat\n", None),
    ("0.png a x\n1.png a y\n2.png b x\n3.png b y\n", "line 1 may name the class 'a x', or have a column for each word"),
    ("0 0.png a x\n1 1.png a y\n2 2.png b x\n3 3.png b y\n", "or choose one by its number, as label_column='2'"),
    ("image label\n0.png 3 4\n1.png 3 5\n2.png 3 4\n3.png 3 5\n", "has the label '3 4', a list"),
)


@pytest.mark.parametrize(("text", "error"), WORDS)
def test_classes_of_several_words_are_never_cut(text: str, error: str | None, images: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(text)
    if error:
        with pytest.raises(ValueError, match=error):
            labels_by(tmp_path / "l.txt", images)
        return
    lines = [line.partition(".png ")[2] for line in text.splitlines() if line[0].isdecimal()]
    assert labels_by(tmp_path / "l.txt", images) == [line.removesuffix(" 1").removesuffix(" 2") for line in lines]


def test_columns_of_words_are_chosen_by_their_number(images: Path, tmp_path: Path) -> None:
    """As of COVIDx: a patient, the file, its class and where it is from."""
    table = tmp_path / "l.txt"
    table.write_text("1 0.png normal rsna\n2 1.png normal cohen\n3 2.png covid cohen\n4 3.png normal rsna\n")
    assert labels_by(table, images, label_column="3") == ["normal", "normal", "covid", "normal"]
    table.write_text("0.png,39,116,569,375,14\n1.png,36,116,868,587,3\n2.png,85,109,601,381,91\n3.png,6,1,3,38,14\n")
    with pytest.raises(ValueError, match=r"more columns than file and label .* as label_column='2'"):
        labels_by(table, images)  # as of Stanford's cars: a box, then the class
    assert labels_by(table, images, label_column="6") == ["14", "3", "91", "14"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file|label\n0.png|cat\n1.png|dog, wild\n2.png|cat\n3.png|dog, wild\n", ["cat", "dog, wild"] * 2),
        ("0.png|cat\n1.png|dog\n2.png|cat\n3.png|dog\n", ["cat", "dog"] * 2),
        ("0.png a|b\n1.png c\n2.png a|b\n3.png c\n", ["a|b", "c"] * 2),
    ],
)
def test_columns_that_a_bar_divides(text: str, expected: list[str], images: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text(text)
    assert labels_by(tmp_path / "l.txt", images) == expected


def test_label_columns_that_could_be_meant_too_are_said(images: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("file,label,target\n" + "".join(f"{at}.png,{at % 2},{at}\n" for at in range(4)))
    notes = sources.open_source(images, Reading(labels=str(tmp_path / "l.csv"))).notes()
    assert notes == ["label columns: label is used, target not; label_column=NAME chooses"]


def test_the_table_itself_is_not_counted(images: Path) -> None:
    (images / "a.csv").write_text(CSV)
    assert sources.open_source(images, Reading(labels=str(images / "a.csv"))).notes() == []
    (images / "b.txt").write_text("")
    (note,) = sources.open_source(images, Reading(labels=str(images / "a.csv"))).notes()
    assert note == "left out: 1 .txt (not images that Pillow opens)"


def test_labels_beside_an_archive_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    (tmp_path / "l.csv").write_text(CSV)
    with pytest.raises(ValueError, match=r"a\.zip is not a folder; unpack it, and give the folder"):
        sources.open_source(tmp_path / "a.zip", Reading(labels=str(tmp_path / "l.csv")))


def test_spaces_in_quotes_belong_to_names(tmp_path: Path) -> None:
    """Those of others are only layout. The list is as export writes it."""
    root = class_folders(tmp_path / "set", {" cat": 2, "cat": 2, "cat ": 2, "dog": 1})
    rows = ['"name","class"', '" cat/0.jpg"," cat"', '"cat/1.jpg","cat"', '"cat /0.jpg", "cat "', "dog/0.jpg , dog "]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(rows))
    opened = sources.open_source(root, Reading(labels=str(table)))
    assert opened.names().to_pylist() == [" cat/0.jpg", "cat/1.jpg", "cat /0.jpg", "dog/0.jpg"]
    assert opened.class_names == (" cat", "cat", "cat ", "dog")
    assert opened.labels.tolist() == [0, 1, 2, 3]
    table.write_text('0.jpg,"\ue000 a "\n1.jpg," b"\n')  # the mark itself: read as it stands
    assert labels_by(table, root / "cat") == ["\ue000 a", "b"]

"""What export takes from the source of a run, and what it says of the rest."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file, tar_file, zip_file
from scored_runs import Said, make

from dualfast.config import Reading
from dualfast.data import beton, sources
from dualfast.data.index_list import save_keep
from dualfast.data.sources import parquet as parquet_module
from dualfast.runs import export as export_module
from dualfast.runs.export import export
from dualfast.runs.rundir import RunDir

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("PIL.Image")


def exported(run: RunDir, form: str, rows: list[int]) -> tuple[Path, list[str]]:
    """Those samples, and what is said."""
    train = beton.open_beton(run.train_beton)
    list_path = run.path / f"{form}-all.npy"
    save_keep(list_path, np.array(rows), n_samples=train.n_samples, fingerprint=train.fingerprint, method="dual")
    said = Said()
    out = run.path.parent / f"all-{form}" / f"all.{form}"
    return export(str(run.path), form, said, keep=str(list_path), out=str(out))[0], said.lines


PNG = [jpeg(i, (9, 7), kind="PNG") for i in range(5)]
"""Stored as pixels: their bytes are in the source alone."""


@pytest.fixture(params=["parquet", "several", "zip", "tar", "tar.gz", "webdataset", "datasets"])
def packed(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """PNG with the labels 0, 1, 1, 0, 1, in one of the forms that hold many images."""
    labels = [0, 1, 1, 0, 1]
    if request.param == "parquet":
        return parquet_file(tmp_path / "set.parquet", {"image": PNG, "label": labels})
    if request.param == "several":
        parts = (slice(0, 2), slice(2, 5))
        return [
            str(parquet_file(tmp_path / f"{at}.parquet", {"image": PNG[part], "label": labels[part]}))
            for at, part in enumerate(parts)
        ]
    if request.param == "datasets":
        datasets = pytest.importorskip("datasets")
        data = datasets.Dataset.from_dict({"image": PNG, "label": labels})
        data.save_to_disk(tmp_path / "saved")
        return tmp_path / "saved"
    if request.param == "webdataset":
        members = {
            f"{at}.{end}": value
            for at, (png, label) in enumerate(zip(PNG, labels, strict=True))
            for end, value in (("png", png), ("cls", b"%d" % label))
        }
        return tar_file(tmp_path / "set.tar", members)
    members = {f"{'ab'[label]}/{at}.png": png for at, (png, label) in enumerate(zip(PNG, labels, strict=True))}
    if request.param == "zip":
        return zip_file(tmp_path / "set.zip", members)
    return tar_file(tmp_path / f"set.{request.param}", members, "w:gz" if request.param == "tar.gz" else "w")


def test_the_bytes_are_those_of_the_source(packed: Any, tmp_path: Path) -> None:
    run = make(tmp_path, packed)
    rows = [0, 2, 3]
    originals = [PNG[at] for at in _order(run, rows)]
    path, said = exported(run, "parquet", rows)
    assert list(sources.open_source(str(path)).items()) == originals
    assert said == []
    folder, said = exported(run, "copy", rows)
    places = [path for path in folder.rglob("*") if path.is_file()]
    assert sorted(path.read_bytes() for path in places) == sorted(originals)
    assert all(path.suffix == ".png" for path in places)
    assert said == []


def _order(run: RunDir, rows: list[int]) -> list[int]:
    """Which of PNG the samples are, by their pixels."""
    train = beton.open_beton(run.train_beton)
    pixels = [np.asarray(sources.decode(png)) for png in PNG]
    return [next(at for at, p in enumerate(pixels) if np.array_equal(p, train.image(row))) for row in rows]


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_table_that_changed_is_never_taken(change: str, tmp_path: Path) -> None:
    table = parquet_file(tmp_path / "set.parquet", {"image": PNG, "label": [0, 1, 1, 0, 1], "caption": list("abcde")})
    run = make(tmp_path, table)
    if change == "changed":
        parquet_file(table, {"image": PNG[::-1], "label": [0, 1, 1, 0, 1], "caption": list("vwxyz")})
    else:
        table.unlink()
    path, said = exported(run, "parquet", [0, 4])
    images = [np.asarray(sources.decode(data)) for data in sources.open_source(str(path)).items()]
    train = beton.open_beton(run.train_beton)
    assert np.array_equal(images[1], train.image(4))
    assert pq.read_schema(path).names == ["image", "label", "name"]
    assert said == [
        f"other columns of {table} are left out: it is not there unchanged",
        "2 of 2 images are not the bytes of the originals: these are not there unchanged; the pixels that the .beton "
        "holds are written as PNG",
    ]


def test_each_kind_of_image_that_is_no_original_is_said_once(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", {"cat": 2, "dog": 2})
    for at, name in enumerate(("cat/0", "dog/0", "dog/1")):
        (photos / f"{name}.jpg").write_bytes(jpeg(at, (90, 70)))
    run = make(tmp_path, photos)
    for file in photos.rglob("*.jpg"):
        if file.name == "0.jpg" or file.parent.name == "cat":
            os.utime(file, (1, 1))
    path, said = exported(run, "parquet", [0, 1, 2, 3])
    assert sorted(said) == [
        "1 of 4 images are not the bytes of the originals: these are not there unchanged; the pixels that the .beton "
        "holds are written as PNG",
        "2 of 4 images are not the bytes of the originals: these are not there unchanged; the JPEG that the .beton "
        "holds is written",
    ]
    assert list(sources.open_source(str(path)).items())[3] == (photos / "dog" / "1.jpg").read_bytes()


@pytest.mark.parametrize("channels", [0, 1, 4])
def test_arrays_become_png(channels: int, tmp_path: Path) -> None:
    shape = (5, 8, 8, *([channels] if channels else []))
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([0, 1, 0, 1, 1]))
    run = make(tmp_path, tmp_path / "a.npz")
    path, said = exported(run, "parquet", [1, 2])
    image = pytest.importorskip("PIL.Image")
    found = [np.asarray(image.open(io.BytesIO(data))) for data in sources.open_source(str(path)).items()]
    assert np.array_equal(found[1].reshape(shape[1:]), pixels[2])
    assert said == [
        "2 of 2 images are not the bytes of the originals: they come as pixels in arrays, and are written as PNG"
    ]


@pytest.mark.parametrize("several", [False, True])
def test_other_columns_of_a_table_are_kept(tmp_path: Path, several: bool) -> None:
    columns: dict[str, Any] = {
        **{"img": PNG, "fine_label": [0, 1, 1, 0, 1], "name": list("vwxyz")},
        **{"boxes": [[1], [], [2, 3], [4], []], "text": list("abcde")},
    }
    data: Any = parquet_file(tmp_path / "0.parquet", columns)
    if several:
        more = {name: values for name, values in columns.items() if name != "text"}
        data = [str(data), str(parquet_file(tmp_path / "1.parquet", more))]
    run = make(tmp_path, data)
    rows = [0, 2, 4, 6, 8] if several else [0, 2, 4]
    path, said = exported(run, "parquet", rows)
    table = pq.read_table(path)
    others = ["source_name", "boxes"] + ([] if several else ["text"])
    assert table.column_names == ["image", "label", "name", *others]
    for column in others:
        values = columns[column.removeprefix("source_")] * 2
        assert table[column].to_pylist() == [values[row] for row in rows]
    assert said[-1] == "the column name of the data is called source_name"
    assert several == ("columns that not all of the data have, with one type, are left out: text" in said)
    assert sources.open_source(str(path)).labels.tolist() == [(columns["fine_label"] * 2)[row] for row in rows]
    _, said = exported(run, "copy", rows)
    assert said == [f"columns that are left out: name, boxes{'' if several else ', text'}; --as parquet keeps them"]


def test_many_rows_keep_their_columns_in_small_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "ROW_GROUP_BYTES", 3 * len(PNG[0]))
    monkeypatch.setattr(parquet_module, "BATCH_ROWS", 7)
    n = 60
    columns = {"image": [PNG[i % 5] for i in range(n)], "label": [i % 2 for i in range(n)], "number": list(range(n))}
    run = make(tmp_path, parquet_file(tmp_path / "set.parquet", columns))
    rows = [*range(0, 30, 4), *range(31, 60)]
    path, _ = exported(run, "parquet", rows)
    table = pq.read_table(path)
    assert table["number"].to_pylist() == rows
    assert [cell["bytes"] for cell in table["image"].to_pylist()] == [PNG[row % 5] for row in rows]
    assert pq.ParquetFile(path).num_row_groups > 5


def test_features_of_other_columns_are_kept(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        | {"place": datasets.ClassLabel(names=["sea", "land"])}
    )
    images = [{"bytes": png, "path": None} for png in PNG]
    data = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 1, 0, 1], "place": [0, 0, 1, 1, 0]}, features)
    data.to_parquet(str(tmp_path / "set.parquet"))
    path, _ = exported(make(tmp_path, tmp_path / "set.parquet"), "parquet", [1, 2])
    found = datasets.load_dataset("parquet", data_files=str(path), cache_dir=tmp_path / "cache")["train"]
    assert found.features["place"].names == ["sea", "land"]
    assert found["place"][:] == [0, 1]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [0, 4, 5], [2, 3]])
@pytest.mark.parametrize("flat", [False, True])
def test_a_csv_is_read_back_with_the_same_classes(tmp_path: Path, rows: list[int], flat: bool) -> None:
    names = ("cat", "dog", "fox")
    photos = class_folders(tmp_path / "photos", dict.fromkeys(names, 2))
    run = make(tmp_path, photos)
    path, said = exported(run, "csv", rows)
    train = beton.open_beton(run.train_beton)
    if flat:  # folders that are not called like the classes
        for folder in photos.iterdir():
            folder.rename(photos / f"x{folder.name}")
        path.write_text(re.sub(r'^(\d+),"', r'\1,"x', path.read_text(), flags=re.M))
    source = sources.open_source(str(photos), Reading(labels=str(path)), is_test=True)
    assert not any("label columns" in note for note in source.notes())
    assert source.labels.tolist() == train.labels[rows].tolist()
    present = {names[label] for label in source.labels}
    known = names[: max(source.labels) + 1] if flat else names
    assert source.class_names == tuple(n if n in present or not flat else str(at) for at, n in enumerate(known))
    missing = [name for name in names if name not in present]
    assert bool(missing) == any(
        f"{len(missing)} of 3 classes have no sample here: {', '.join(missing)}; what" in line for line in said
    )
    path, said = exported(run, "parquet", rows)
    back = sources.open_source(str(path), is_test=True)
    assert back.class_names == names
    assert back.labels.tolist() == train.labels[rows].tolist()


@pytest.mark.parametrize(
    "rows", ["0,cat\n1,cat\n0,cat\n1,cat", "0,cat\n0,dog\n1,fox\n1,fox", "0,cat\n1,\n0,cat\n1,dog"]
)
def test_a_column_class_that_is_no_name_of_the_labels(tmp_path: Path, rows: str) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    lines = [f"{'ab'[at // 2]}/{at % 2}.jpg,{row}" for at, row in enumerate(rows.split("\n"))]
    (tmp_path / "t.csv").write_text("\n".join(["name,label,class", *lines]))
    assert sources.open_source(str(photos), Reading(labels=str(tmp_path / "t.csv"))).class_names is None


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_of_a_beton_the_originals_are_those_that_it_was_made_of(kind: str, tmp_path: Path) -> None:
    source = class_folders(tmp_path / "photos", {"a": 3, "b": 3})
    originals = {path.read_bytes() for path in source.rglob("*.jpg")}
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", source))
    made = beton.write(source, tmp_path / "x.beton", mode="raw", progress=False)
    run, said = RunDir(tmp_path / "run", {"data": str(made.path), "out": str(tmp_path / "run")}), Said()
    about: dict[str, Any] = {"n_samples": 6, "fingerprint": made.fingerprint, "prune_ratio": 0.4, "seed": 0}
    save_keep(run.keep_path(0.4, "dual", 0), np.array([0, 2, 3]), method="dual", **about)
    out, _ = export(str(run.path), "copy", said, out=str(tmp_path / "out"))
    assert {path.read_bytes() for path in out.rglob("*.jpg")} < originals
    assert not [line for line in said.lines if "originals" in line]


def test_an_export_into_the_data_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path, class_folders(tmp_path / "photos", {"a": 3, "b": 3}))
    with pytest.raises(ValueError, match=r"out is '.*photos/new', in the folder of the data, .* become a part; give"):
        export(str(run.path), "copy", Said(), out=str(tmp_path / "photos" / "new"), prune_ratio=0.4, method="dual")
    assert not (tmp_path / "photos" / "new").exists()


def test_columns_of_one_table_among_other_data_are_said(tmp_path: Path) -> None:
    table = {"image": [jpeg(0), jpeg(1)], "label": ["a", "b"], "when": [1, 2]}
    parquet_file(tmp_path / "t.parquet", table)
    data = [str(class_folders(tmp_path / "photos", {"a": 2, "b": 2})), str(tmp_path / "t.parquet")]
    run, said = make(tmp_path, data), Said()
    export(str(run.path), "parquet", said, out=str(tmp_path / "out.parquet"), prune_ratio=0.4, method="dual")
    assert any(
        line.endswith("columns that not all of the data have, with one type, are left out: when") for line in said.lines
    )


def damage(path: Path, row: int) -> None:
    opened = beton.open_beton(path)
    with path.open("r+b") as file:
        file.seek(int(opened.ptr[row]) + 40)
        file.write(b"\x55" * 30)


def test_a_damaged_sample_is_never_exported(tmp_path: Path) -> None:
    """Where the original is gone, and the .beton is the last copy."""
    data = class_folders(tmp_path / "set", {"a": 80, "b": 80})
    run = make(tmp_path / "run", str(data))
    damage(run.train_beton, 3)
    out, _ = exported(run, "copy", [2, 3, 4])
    name = "a/11.jpg"  # as text comes before a/2.jpg
    assert (out / name).read_bytes() == (data / name).read_bytes()
    (data / name).unlink()
    shutil.rmtree(out)
    with pytest.raises(ValueError, match=r"train\.beton is damaged: page 1 .* with 160 samples"):
        exported(run, "copy", [2, 3, 4])
    assert not out.exists()


def test_damage_that_makes_it_another_file_is_called_damage(tmp_path: Path) -> None:
    """The fingerprint is of the first and last samples, too."""
    run = make(tmp_path / "run", str(class_folders(tmp_path / "set", {"a": 3, "b": 2})))
    damage(run.train_beton, 0)
    assert beton.open_beton(run.train_beton).sidecar == {}
    with pytest.raises(ValueError, match=r"train\.beton is damaged: page 1 .* write it again"):
        export(str(run.path), "csv", Said())

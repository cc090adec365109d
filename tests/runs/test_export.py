"""dualfast export: what a run kept or removed, as lists, links, copies and Parquet."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders, jpeg, tar_file
from scored_runs import Said, make

from dualfast import cli
from dualfast.data import beton, sources
from dualfast.data.index_list import save_keep
from dualfast.data.names import path_of
from dualfast.runs.export import beton_of, export
from dualfast.runs.rundir import RunDir

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("PIL.Image")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return make(tmp_path, class_folders(tmp_path / "photos", {"cat": 2, "dog": 3}))


def write(run: RunDir, form: str, **options: Any) -> Path:
    return export(str(run.path), form, Said(), **options)[0]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_csv_has_names_labels_classes_and_scores(run: RunDir) -> None:
    path = write(run, "csv")
    assert path == run.path / "kept-0.4.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["cat/0.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert list(rows[1])[:4] == ["id", "name", "label", "class"]
    assert (rows[1]["id"], rows[1]["label"], rows[1]["class"], rows[1]["dual"]) == ("2", "1", "dog", "0.25")
    with write(run, "csv", removed=True).open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["cat/1.jpg", "dog/2.jpg"]


@pytest.mark.parametrize("form", ["csv", "copy", "parquet"])
def test_a_run_on_a_beton(form: str, run: RunDir, tmp_path: Path) -> None:
    data = tmp_path / "mine.beton"
    beton.write(tmp_path / "photos", data, progress=False)
    asked = run.config_path.read_text().replace(f"data: {tmp_path / 'photos'}", f"data: {data}")
    assert str(data) in asked
    run.config_path.write_text(asked)
    written = write(RunDir(run.path), form)
    if form == "csv":
        with written.open(newline="") as file:
            assert [row["name"] for row in csv.DictReader(file)] == ["cat/0.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert written.exists()


def test_without_scores_the_csv_says_the_rest(tmp_path: Path) -> None:
    run = make(tmp_path, class_folders(tmp_path / "photos", {"cat": 2, "dog": 3}), scored=False)
    assert write(run, "csv").read_text().splitlines()[:2] == ['"id","name","label","class"', '0,"cat/0.jpg",0,"cat"']


def test_links_lead_to_the_originals(run: RunDir, tmp_path: Path) -> None:
    folder = write(run, "symlinks")
    assert files(folder) == ["cat/0.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert os.readlink(folder / "dog" / "1.jpg") == str(tmp_path / "photos" / "dog" / "1.jpg")


def test_copies_are_the_originals(run: RunDir, tmp_path: Path) -> None:
    folder = write(run, "copy", removed=True, out=str(tmp_path / "removed"))
    assert files(folder) == ["cat/1.jpg", "dog/2.jpg"]
    for name in files(folder):
        assert (folder / name).read_bytes() == (tmp_path / "photos" / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_original_that_changed_is_never_taken(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "photos" / "dog" / "0.jpg").write_bytes(jpeg(1, (90, 90)))
    (tmp_path / "photos" / "cat" / "0.jpg").unlink()
    train = beton.open_beton(run.train_beton)
    save_keep(run.path / "changed.npy", np.array([2]), n_samples=5, fingerprint=train.fingerprint, method="dual")
    with pytest.raises(ValueError, match=rf"cat/0.jpg is not in {tmp_path / 'photos'}; --as copy"):
        write(run, "symlinks")
    with pytest.raises(ValueError, match=rf"dog/0.jpg has changed since the run \({tmp_path}/photos/dog/0.jpg\); --as"):
        write(run, "symlinks", keep=str(run.path / "changed.npy"))
    assert not (run.path / "kept-0.4").exists()
    said = Said()
    folder = export(str(run.path), "copy", said)[0]
    assert files(folder) == ["cat/0.jpg.png", "dog/0.jpg.png", "dog/1.jpg"]
    assert np.array_equal(np.asarray(sources.decode((folder / "dog/0.jpg.png").read_bytes())), train.image(2))
    text = "these are not there unchanged; the pixels that the .beton holds are written as PNG"
    assert said.lines == [f"2 of 3 images are not the bytes of the originals: {text}"]


@pytest.mark.parametrize("data", ["photos", ["photos", "more"]])
def test_relative_paths_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Any) -> None:
    start, elsewhere = tmp_path / "start", tmp_path / "elsewhere" / "photos"
    class_folders(start / "photos", {"cat": 2, "dog": 3})
    class_folders(start / "more", {"cat": 1, "dog": 1})
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(start)
    run = make(tmp_path, data)
    monkeypatch.chdir(elsewhere.parent)
    assert not any(os.readlink(path).startswith(str(elsewhere)) for path in write(run, "symlinks").rglob("*.jpg"))
    run.note({"score_seeds": 2})  # another call on the run directory, from here
    shutil.rmtree(start / "photos")
    class_folders(elsewhere / ".." / "x", {"cat": 1, "dog": 1})
    with pytest.raises(ValueError, match=rf"cat/0.jpg is not in {start}.* or {elsewhere.parent}"):
        write(run, "symlinks", out="links")
    config = run.config_path.read_text()
    run.config_path.write_text("".join(line for line in config.splitlines(True) if not line.startswith("folder:")))
    with pytest.raises(ValueError, match=rf"cat/0.jpg is not in {elsewhere.parent}"):
        write(run, "symlinks", out="links")


def test_a_beton_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path, class_folders(tmp_path / "photos", {"cat": 2, "dog": 3}))
    monkeypatch.chdir(tmp_path)
    for file in run.path.glob("train.beton*"):
        file.rename(tmp_path / file.name.replace("train", "all"))
    run.start_over()
    run.config_path.write_text(run.config_path.read_text().replace(str(tmp_path / "photos"), "all.beton"))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert beton_of(run).n_samples == 5


def test_names_that_are_not_utf8_are_found(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", {"cat": 2, "dog": 1})
    odd = os.fsencode(photos) + b"/x\xe9"
    os.mkdir(odd)
    with open(odd + b"/1\xff.jpg", "wb") as file:
        file.write(jpeg(7))
    (photos / r"x\udce8").mkdir()
    (photos / r"x\udce8" / "2.jpg").write_bytes(jpeg(8))
    run = make(tmp_path, photos)
    kept = run.path / "all.npy"
    fingerprint = beton.open_beton(run.train_beton).fingerprint
    save_keep(kept, np.arange(5), n_samples=5, fingerprint=fingerprint, method="dual")
    for form in ("symlinks", "copy"):
        folder = write(run, form, out=str(tmp_path / form), keep=str(kept))
        copies = os.fsencode(folder)
        assert sorted(os.listdir(copies)) == [b"cat", b"dog", rb"x\udce8", b"x\xe9"]
        assert os.listdir(copies + rb"/x\udce8") == [b"2.jpg"]
        with open(copies + b"/x\xe9/1\xff.jpg", "rb") as copy:
            assert copy.read() == jpeg(7)
    assert os.readlink(os.fsencode(tmp_path) + b"/symlinks/x\xe9/1\xff.jpg") == odd + b"/1\xff.jpg"
    os.unlink(odd + b"/1\xff.jpg")  # the class keeps its name without the original
    folder = write(run, "copy", out=str(tmp_path / "stored"), keep=str(kept))
    assert os.listdir(os.fsencode(folder) + b"/x\xe9") == [rb"1\udcff.jpg.png"]


@pytest.mark.parametrize("form", ["csv", "copy", "parquet"])
def test_the_folders_above_the_result_are_made(run: RunDir, tmp_path: Path, form: str) -> None:
    assert write(run, form, out=str(tmp_path / "subset" / "new" / "train")).exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"out is '.*file/x/y', and the folder '.*file/x' cannot be made \(Not a dir"):
        write(run, form, out=str(tmp_path / "file" / "x" / "y"))


def test_members_of_an_archive_get_files_of_their_own(tmp_path: Path) -> None:
    members = {f"set/{name}.jpg": jpeg(i, (90, 70)) for i, name in enumerate(["cat/a", "cat/b", "dog/a", "dog/b"])}
    tar_file(tmp_path / "set.tar.gz", members, "w:gz")
    run = make(tmp_path, tmp_path / "set.tar.gz")
    folder = write(run, "copy")
    assert files(folder) == ["cat/a.jpg", "dog/a.jpg", "dog/b.jpg"]
    assert (folder / "dog/b.jpg").read_bytes() == members["set/dog/b.jpg"]  # kept byte for byte in the .beton
    with pytest.raises(ValueError, match="--as copy"):
        write(run, "symlinks", removed=True)


def test_images_without_a_name_of_a_file_are_numbered(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.array([0, 1, 0, 1, 1]))
    folder = write(make(tmp_path, tmp_path / "a.npz"), "copy")
    assert files(folder) == ["0/0.png", "0/2.png", "1/3.png"]
    assert np.array_equal(np.asarray(sources.decode((folder / "1/3.png").read_bytes())), pixels[3])


def test_parquet_is_read_back_with_the_same_classes(run: RunDir, tmp_path: Path) -> None:
    path = write(run, "parquet")
    source = sources.open_source(str(path))
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 1, 1]
    assert list(source.items())[2] == (tmp_path / "photos" / "dog" / "1.jpg").read_bytes()


def test_parquet_is_a_data_set_of_hugging_face(run: RunDir, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write(run, "parquet", out=str(tmp_path / "train.parquet"))
    found = datasets.load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), cache_dir=tmp_path / "cache")
    assert found["train"].features["label"].names == ["cat", "dog"]
    assert found["train"][1]["image"].size == (20, 30)
    assert found["train"]["name"][2] == "dog/1.jpg"


@pytest.mark.parametrize("form", ["copy", "parquet", "csv"])
def test_nothing_is_overwritten(run: RunDir, tmp_path: Path, form: str) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"out is .*full.*, a folder that holds something; give another --out"):
        write(run, form, out=str(full))
    file = tmp_path / "file.csv"
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"file.csv', which exists"):
        write(run, form, out=str(file))
    assert file.read_text() == (full / "mine.txt").read_text() == "mine"


def test_what_a_killed_export_left_is_not_in_the_next(run: RunDir) -> None:
    left = run.path / ".kept-0.4.partial" / "cat"
    left.mkdir(parents=True)
    (left / "old.jpg").write_bytes(b"")
    assert files(write(run, "copy")) == ["cat/0.jpg", "dog/0.jpg", "dog/1.jpg"]
    assert not left.parent.exists()


def test_nothing_is_written_or_deleted_through_a_link(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_text("")
    (run.path / ".kept-0.4.partial").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=r"\.kept-0\.4\.partial' is a link"):
        write(run, "copy")
    assert files(tmp_path / "victim") == ["precious"]


@pytest.mark.parametrize("name", ["../../out.jpg", "cat/../../out.jpg"])
@pytest.mark.parametrize("form", ["copy", "symlinks"])
def test_a_name_that_leads_outside_is_refused(run: RunDir, tmp_path: Path, name: str, form: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "out.jpg").write_bytes(jpeg(0))
    (tmp_path.parent / "out.jpg").write_bytes(jpeg(0))
    table = pq.read_table(path_of(run.train_beton))
    names = [name, *table["name"].to_pylist()[1:]]
    stat = (tmp_path / "photos" / name).resolve().stat()
    sizes = [stat.st_size, *table["size"].to_pylist()[1:]]
    times = [stat.st_mtime_ns, *table["modified"].to_pylist()[1:]]
    columns = {"id": table["id"], "name": names, "size": sizes, "modified": times}
    made = pa.table(columns).replace_schema_metadata(table.schema.metadata)
    pq.write_table(made, path_of(run.train_beton), compression="none", use_dictionary=False)
    with pytest.raises(ValueError, match="would not be in a class folder of its own; --as csv"):
        write(run, form)
    assert not (run.path / "kept-0.4").exists()


@pytest.mark.parametrize("name", ["{outside}/cat/secret.jpg", "../outside/cat/secret.jpg"])
def test_a_file_outside_of_the_data_is_not_read(run: RunDir, tmp_path: Path, name: str) -> None:
    """Names that somebody else made up, with the size and time of a file of ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    secret = tmp_path / "outside" / "cat" / "secret.jpg"
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"secret")
    table = pq.read_table(path_of(run.train_beton))
    columns = {column: table[column].to_pylist() for column in table.column_names}
    columns["name"][0] = name.format(outside=secret.parent.parent)
    columns["size"][0], columns["modified"][0] = secret.stat().st_size, secret.stat().st_mtime_ns
    made = pa.table(columns, table.schema)
    pq.write_table(made, path_of(run.train_beton), compression="none", use_dictionary=False)
    assert b"secret" not in write(run, "parquet").read_bytes().replace(b"secret.jpg", b"")
    copies = write(run, "copy")
    assert not any(b"secret" in (copies / name).read_bytes() for name in files(copies))
    with pytest.raises(ValueError, match="is not a file of its own"):
        write(run, "symlinks", out=str(tmp_path / "links"))


@pytest.mark.parametrize("label", ["..", ".", "/", "a/b", "/tmp"])
def test_a_class_that_is_no_folder_name_is_refused(run: RunDir, label: str) -> None:
    side = Path(f"{run.train_beton}.json")
    side.write_text(side.read_text().replace('"cat"', f'"{label}"'))
    with pytest.raises(ValueError, match="would not be in a class folder of its own"):
        write(run, "copy")


def test_same_places_are_told_apart(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    run = make(tmp_path, class_folders(tmp_path / "photos", {"cat": 2, "dog": 2}))
    side = path_of(run.train_beton)
    table = pq.read_table(side)
    same = ["cat/0.jpg", "cat/1.jpg", "x/dog/0.jpg", "y/dog/0.jpg"]
    pq.write_table(table.set_column(1, "name", [same]), side, compression="none", use_dictionary=False)
    assert files(write(run, "copy")) == ["cat/0.jpg", "dog/0.jpg-3.png", "dog/0.jpg.png"]


def test_the_list_is_chosen_by_how_it_was_drawn(run: RunDir) -> None:
    assert write(run, "csv", method="random").read_text().count("\n") == 2
    for which in ({"prune_ratio": 0.4}, {"method": "dual"}, {"seed": 0, "out": str(run.path / "other.csv")}):
        path = write(run, "csv", **which)
        assert path.read_text().count("\n") == 4
        path.unlink()
    with pytest.raises(ValueError, match=r"no index list like that; it has 0.4 dual seed 0, 0.4 random seed 0$"):
        write(run, "csv", prune_ratio=0.3)
    run.keep_path(0.4, "dual", 0).rename(run.path / "keep-0.4-dual-seed0.npy")
    run.keep_path(0.4, "dual", 0).with_suffix(".json").rename(run.path / "keep-0.4-dual-seed0.json")
    with pytest.raises(ValueError, match=r"several index lists: .*; choose with --prune-ratio, --method and --seed"):
        write(run, "csv")
    with pytest.raises(ValueError, match="leave out --prune-ratio"):
        write(run, "csv", keep="keep.npy", seed=0)


def test_a_score_table_and_a_list_give_a_csv(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(run.path / "scores.parquet"), "--kept", "--as", "csv"]
    out = tmp_path / "kept.csv"
    assert cli.main([*words, "--keep", str(run.path / "keep-0.4.npy"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 3 samples kept\n"
    assert out.read_text().count("\n") == 4
    assert cli.main(words) == 2
    assert "--as csv can be made, with --keep LIST and --out FILE" in capsys.readouterr().err
    assert cli.main(["export", str(run.path), "--as", "csv"]) == 2
    assert "give --kept or --removed, one of them" in capsys.readouterr().err


def test_select_lists_names_beside_its_list(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scores", str(run.path / "scores.parquet"), "--prune-ratio", "0.6", "--method", "dual"]
    assert cli.main(["select", *words, "--out", str(tmp_path / "keep.npy")]) == 0
    assert "their names and scores: " in capsys.readouterr().out
    with (tmp_path / "keep.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["dog/1.jpg", "dog/2.jpg"]

"""dualfast.runs.parts: what a run says of data that differ from its images, or cannot be compared with them."""

from __future__ import annotations

import os
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file, tar_file
from scored_runs import Said

pytest.importorskip("pyarrow")

from dualfast import cli
from dualfast.config import ScoreConfig
from dualfast.data import beton
from dualfast.data.sources import remote
from dualfast.runs import commands, parts
from dualfast.runs.rundir import RunDir

QUICK: dict[str, Any] = {
    "model": "tiny_model:linear",
    **{"epochs": 2, "score_epochs": 2, "window": 2, "threads": 1, "num_workers": 1, "tests": 1, "batch_size": 8},
    **{"image_size": 8},
}


def score(data: Any, out: Path, **options: Any) -> list[str]:
    """What a scoring pass says."""
    said = Said()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        commands.score(ScoreConfig(**{**QUICK, "data": data, "out": str(out), **options}), said)
    return said.lines + [str(warning.message) for warning in caught]


def noted(out: Path) -> Any:
    return RunDir(out).requested().get("data_notes")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "photos", {"ant": 4, "bee": 4})


@pytest.fixture
def given(photos: Path, tmp_path: Path) -> Path:
    return beton.write(photos, tmp_path / "given.beton", progress=False).path


# ---- a .beton that is given itself ----------------------------------------------------------------------------------


def test_a_beton_whose_source_has_changed(photos: Path, given: Path, tmp_path: Path) -> None:
    assert not any("was made of" in line for line in score(str(given), tmp_path / "run"))
    assert noted(tmp_path / "run") is None
    (photos / "ant" / "new.jpg").write_bytes(jpeg(1))
    (photos / "bee" / "0.jpg").unlink()
    os.utime(photos / "bee" / "1.jpg", (1, 1))
    (said,) = [line for line in score(str(given), tmp_path / "run") if "was made of" in line]
    assert said == (
        f"{given} was made of {photos}, which has changed since: files: 1 added (ant/new.jpg), 1 removed (bee/0.jpg), "
        f"1 changed (bee/1.jpg); the run takes the images that are in {given}"
    )
    assert noted(tmp_path / "run") == [said]
    shutil.move(photos, tmp_path / "elsewhere")
    assert not any("was made of" in line for line in score(str(given), tmp_path / "run"))
    assert noted(tmp_path / "run") == []


def test_the_working_directory_of_the_writing_is_kept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{name}/{i}.jpg,{name}\n" for name in ("ant", "bee") for i in range(4)))
    beton.write("photos", "a.beton", labels="labels.csv", progress=False)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert not any("was made of" in line for line in score("../a.beton", tmp_path / "run"))
    os.utime(table, (1, 1))
    assert any("1 changed (labels.csv)" in line for line in score("../a.beton", tmp_path / "run"))
    table.unlink()
    assert not any("was made of" in line for line in score("../a.beton", tmp_path / "run"))
    table.write_text("no/such.jpg,a\n")
    assert any(f"cannot be compared with it: {table}: none" in line for line in score("../a.beton", tmp_path / "run"))


@pytest.mark.parametrize("kind", ["parquet", "tar", "pattern"])
def test_tables_and_archives_are_compared(kind: str, tmp_path: Path) -> None:
    if kind == "tar":
        members = {
            f"{name}.{end}": value for name in "abcd" for end, value in (("jpg", jpeg(1)), ("cls", name.encode()))
        }
        one = tar_file(tmp_path / "set.tar", members)
    else:
        one = parquet_file(tmp_path / "0.parquet", {"image": [jpeg(i) for i in range(4)], "label": [0, 1, 0, 1]})
    data = f"{tmp_path}/*.parquet" if kind == "pattern" else str(one)
    beton.write(data, tmp_path / "x.beton", progress=False)
    if kind == "pattern":
        (tmp_path / "x.beton.names.parquet").rename(tmp_path / "names")  # it matches the pattern
        (tmp_path / "sub").mkdir()
        for file in tmp_path.glob("x.beton*"):
            file.rename(tmp_path / "sub" / file.name)
        (tmp_path / "names").rename(tmp_path / "sub" / "x.beton.names.parquet")
        shutil.copy(one, tmp_path / "1.parquet")
        assert any("1 added (1.parquet)" in line for line in score(f"{tmp_path}/sub/x.beton", tmp_path / "run"))
        return
    assert not any("was made of" in line for line in score(str(tmp_path / "x.beton"), tmp_path / "run"))
    os.utime(one, (1, 1))
    assert any(f"1 changed ({one.name})" in line for line in score(str(tmp_path / "x.beton"), tmp_path / "run"))


def test_of_many_files_some_are_looked_at(
    photos: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "SCANNED", 7)
    monkeypatch.setattr(parts.sources, "files_of", None)  # nothing is scanned
    assert not any("was made of" in line for line in score(str(given), tmp_path / "run"))
    os.utime(photos / "bee" / "1.jpg", (1, 1))
    (photos / "bee" / "2.jpg").unlink()
    said = score(str(given), tmp_path / "run")
    assert any("of 8 files looked at, 2 are gone or have changed (bee/1.jpg, bee/2.jpg)" in line for line in said)


def test_a_held_out_part_is_compared_with_its_own_files(photos: Path, tmp_path: Path) -> None:
    score(str(photos), tmp_path / "first", test_fraction=0.25)
    part = str(tmp_path / "first" / "test.beton")
    assert not any("was made of" in line for line in score(part, tmp_path / "run"))
    for file in photos.rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert any("files: 2 changed" in line for line in score(part, tmp_path / "run"))


@pytest.mark.parametrize(
    "made_from", ['"x"', '{"paths": 3}', '{"paths": [3]}', '{"paths": []}', '{"paths": ["\\u0000"]}']
)
def test_a_damaged_origin_is_not_followed(made_from: str, given: Path, tmp_path: Path) -> None:
    side = Path(f"{given}.json")
    before = side.read_text()
    at = before.index('"made_from": ') + len('"made_from": ')
    side.write_text(before[:at] + made_from + before[before.index("}", at) + 1 :])
    assert beton.open_beton(given).class_names == ("ant", "bee")
    assert not any("was made of" in line for line in score(str(given), tmp_path / "run"))


# ---- a run directory in its own data --------------------------------------------------------------------------------


def test_a_run_directory_in_its_data_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(photos.rglob("*"))
    with pytest.raises(ValueError, match=r"out is '.*photos/run1', in the folder of the data, .*photos, of which what"):
        score(str(photos), photos / "run1")
    assert cli.main(["score", "--data", str(photos), "--out", str(photos / "ant" / "x")]) == 2
    assert f"--out is '{photos}/ant/x', in the folder of the data" in capsys.readouterr().err
    monkeypatch.chdir(photos)
    assert cli.main(["score", "--data", "."]) == 2
    assert "--out is 'runs/photos', in the folder of the data, ., of which" in (said := capsys.readouterr().err)
    assert "give another, as --out ../runs/photos" in said
    with pytest.raises(ValueError, match=r"in the folder of the data, .*photos/ant, of which"):
        score(f"{photos}/*", photos / "ant" / "x")  # of a pattern each folder
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(ValueError, match="in the folder of the data"):
        score(str(photos), tmp_path / "link" / "run")
    assert sorted(photos.rglob("*")) == before
    score(str(photos), tmp_path / "run")


def test_beside_train_and_val_a_run_directory_is_no_data(tmp_path: Path) -> None:
    for part in ("train", "val"):
        class_folders(tmp_path / "set" / part, {"ant": 4, "bee": 4})
    for _ in range(2):
        said = score(str(tmp_path / "set"), tmp_path / "set" / "run1")
    assert f"{tmp_path / 'set'}: not used: run1/" in said
    test = str(tmp_path / "set" / "val")
    with pytest.raises(ValueError, match="in the folder of the test"):
        score(str(tmp_path / "set" / "train"), tmp_path / "set" / "val" / "x", test=test)
    with pytest.raises(ValueError, match="in the folder of the data"):
        score(str(tmp_path / "set"), tmp_path / "set" / "train" / "x")
    shutil.rmtree(tmp_path / "set" / "val")  # train alone would become a class beside the run directory
    with pytest.raises(ValueError, match="in the folder of the data"):
        score(str(tmp_path / "set"), tmp_path / "set" / "run2")


def test_the_names_beside_a_beton_are_no_shard(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    parquet_file(tmp_path / "shards" / "0.parquet", {"image": [jpeg(0), jpeg(1)], "label": [0, 1]})
    for already in (False, True):
        written = beton.write(tmp_path / "shards", tmp_path / "shards" / "x.beton", progress=False)
        assert written.already_there == already
        assert written.n_samples == 2


# ---- notes, and data that cannot be reached -------------------------------------------------------------------------


def test_a_resumed_run_says_what_was_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "ant" / "x.heic").write_bytes(b"x")
    (photos / "bee" / "bad.jpg").write_bytes(b"no image")
    first = score(str(photos), tmp_path / "run", skip_bad=True)
    again = score(str(photos), tmp_path / "run", skip_bad=True)
    for said in (first, again):
        assert f"{photos}: left out: 1 .heic (not images that Pillow opens)" in said
        assert any(line.startswith(f"{photos}: 1 unreadable, left out: ") and "bad.jpg" in line for line in said)


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("DUALFAST_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for part in ("train", "val"):
        for name in ("ant", "bee"):
            for i in range(3):
                system.makedirs(f"/set/{part}/{name}", exist_ok=True)
                system.pipe_file(f"/set/{part}/{name}/{i}.jpg", jpeg(i))
    yield system
    system.rm("/", recursive=True)


def unreachable(*_: Any) -> None:
    raise OSError("the server is gone")


def test_without_a_connection_a_run_continues_with_its_beton(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    score("memory://set", out)
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(remote, "_fetch", unreachable)
    said = score("memory://set", out)
    written = f"{out / 'train.beton'}, {out / 'test.beton'}"
    note = (
        f"memory://set cannot be read: the server is gone; using {written}, written from it earlier, without comparing "
        "them"
    )
    assert note in said
    assert noted(out) == [note]
    with pytest.raises(ValueError, match="memory://set cannot be read: the server is gone"):
        score("memory://set", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (out / "test.beton").unlink()
    with pytest.raises(ValueError, match="the server is gone"):
        score("memory://set", out)


def test_what_is_here_is_compared_while_the_rest_cannot_be(
    memory: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"data": str(photos), "out": tmp_path / "run", "test": "memory://set/val"}
    score(**data)
    monkeypatch.setattr(remote, "_fetch", unreachable)
    said = score(**data)
    assert any(f"using {tmp_path / 'run' / 'test.beton'}, written from it earlier" in line for line in said)
    (photos / "ant" / "new.jpg").write_bytes(jpeg(1))
    with pytest.raises(ValueError, match=r"1 added \(ant/new\.jpg\)"):
        score(**data)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(remote, "CONTACT_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(ValueError, match=r"it cannot be reached: no answer within 1 s"):
            remote.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/set.zip")
        assert time.monotonic() - began < 20


def test_the_images_are_those_of_the_beton(photos: Path, given: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos / "ant")
    score(str(given), tmp_path / "run")
    assert np.array_equal(beton.open_beton(given).labels, np.repeat([0, 1], 4))

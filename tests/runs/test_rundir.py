"""dualfast.runs.rundir and dualfast.storage: files under their final name are complete, and two runs do not mix."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from dualfast.runs.rundir import RunDir
from dualfast.storage.files import atomic, write_text
from dualfast.storage.locks import lock_folder


def test_atomic_leaves_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder .*nowhere' does not exist"), atomic(tmp_path / "nowhere" / "x"):
        pass


def test_records_survive_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.append({"event": "trained", "seed": 0})
    with open(run_dir.metrics_path, "a") as file:
        file.write('{"event": "trained", "se')
    assert [r["seed"] for r in run_dir.records("trained")] == [0]
    run_dir.append({"event": "trained", "seed": 1})
    assert [r["seed"] for r in run_dir.records("trained")] == [0, 1]
    assert run_dir.metrics_path.read_text().count("\n") == 2


def test_another_run_is_refused_with_both_values(tmp_path: Path) -> None:
    RunDir(tmp_path / "run", {"epochs": 3, "seed": [0]})
    RunDir(tmp_path / "run", {"epochs": 3, "seed": [0, 1]}, may_differ=("seed",))
    with pytest.raises(ValueError, match="epochs: 3, and this one asks for 4"):
        RunDir(tmp_path / "run", {"epochs": 4, "seed": [0]}, may_differ=("seed",))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="neither empty nor a run directory"):
        RunDir(tmp_path, {"epochs": 3})
    with pytest.raises(ValueError, match="is a file"):
        RunDir(tmp_path / "thesis.tex", {"epochs": 3})
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        RunDir(tmp_path)


def test_config_records_what_was_asked_and_where(tmp_path: Path) -> None:
    config = RunDir(tmp_path / "run", {"epochs": 3}).config()
    assert config["asked"] == {"epochs": 3}
    assert {"python", "torch", "machine", "commit"} <= set(config["environment"])


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "runs" / "new"
    with lock_folder(out):
        RunDir(out, {"epochs": 3})
        with pytest.raises(ValueError, match=r"runs/new' is in use by another run.*--out"), lock_folder(out):
            pass
    with lock_folder(out):
        pass

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock_folder(out), lock_folder(out):
        pass


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    code = (
        "import os\nfrom dualfast.storage.locks import lock_folder\n"
        f"lock_folder({str(tmp_path)!r}).__enter__()\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with lock_folder(tmp_path):
        pass

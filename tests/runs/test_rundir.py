"""dualfast.runs.rundir: records survive a crash, and two runs do not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualfast.runs.rundir import RunDir


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

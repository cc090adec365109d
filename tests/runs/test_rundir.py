"""dualfast.runs.rundir: records survive a crash, and two runs do not mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualfast.runs.rundir import RunDir
from dualfast.runs.trial import Trial


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


def test_an_option_that_an_older_run_did_not_know_had_its_default(tmp_path: Path) -> None:
    RunDir(tmp_path / "run", {"epochs": 3})
    RunDir(tmp_path / "run", {"epochs": 3, "image_column": None})
    with pytest.raises(ValueError, match="image_column: None, and this one asks for photo"):
        RunDir(tmp_path / "run", {"epochs": 3, "image_column": "photo"})


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="neither empty nor a run directory"):
        RunDir(tmp_path, {"epochs": 3})
    with pytest.raises(ValueError, match="is a file"):
        RunDir(tmp_path / "thesis.tex", {"epochs": 3})
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        RunDir(tmp_path)


def test_ratios_that_differ_have_lists_of_their_own(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    ratios = (0.5, 0.123456, 0.1234561, 0.1234562, 0.12345620000000001)
    assert [run_dir.keep_path(ratio, "dual", 0).name for ratio in ratios[:3]] == [
        "keep-0.5.npy",
        "keep-0.123456.npy",
        "keep-0.1234561.npy",
    ]
    for first in (True, False):
        assert len({run_dir.keep_path(ratio, "dual", 0, first) for ratio in ratios}) == len(ratios)
    assert len({str(Trial("dual", ratio, 0)) for ratio in ratios}) == len(ratios)  # names checkpoints


@pytest.mark.parametrize("text", ["asked: {a: &a [1], b: *a}", "asked: " + "[" * 20000, "[1]", "asked: 3", ""])
def test_a_configuration_of_another_kind_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml' is damaged \(.*delete the run directory"):
        RunDir(tmp_path).config()


def test_config_records_what_was_asked_and_where(tmp_path: Path) -> None:
    config = RunDir(tmp_path / "run", {"epochs": 3}).config()
    assert config["asked"] == {"epochs": 3}
    assert {"python", "torch", "machine", "commit"} <= set(config["environment"])


def test_a_schedule_of_scoring_that_0_1_took_from_the_training_is_compared_as_a_number(tmp_path: Path) -> None:
    def opened(name: str, noted: dict[str, int | None], wanted: dict[str, int | None]) -> None:
        RunDir(tmp_path / name, {"seed": 0, **noted})
        RunDir(tmp_path / name, {"seed": 0, **wanted})

    scoring = {"epochs": 200, "score_epochs": 30}
    opened("same", scoring, {**scoring, "score_schedule_epochs": 200})
    opened("again", {**scoring, "score_schedule_epochs": None}, {**scoring, "score_schedule_epochs": 30})
    opened("short", {**scoring, "epochs": 30}, {**scoring, "epochs": 30, "score_schedule_epochs": None})
    with pytest.raises(ValueError, match="score_schedule_epochs: 200, and this one asks for 30"):
        opened("other", scoring, {**scoring, "score_schedule_epochs": None})
    # What 0.1 meant is kept when a command that does not score opens the directory.
    opened("train", scoring, {"epochs": 200})
    with pytest.raises(ValueError, match="score_schedule_epochs: 200, and this one asks for 30"):
        RunDir(tmp_path / "train", {**scoring, "score_schedule_epochs": None})


@pytest.mark.parametrize(
    "line", ["{}", "[1]", "{", '{"event": "scored"}', '{"event": "scored", "seed": "x"}', "[" * 99999]
)
def test_a_damaged_record_is_named(line: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.metrics_path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl' is damaged"):
        run_dir.records("scored")


def test_records_are_not_appended_through_a_link(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    (tmp_path / "victim").write_text("precious")
    run_dir.metrics_path.symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="is a link"):
        run_dir.append({"event": "scored", "seed": 0})
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_result_without_its_numbers_is_named(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.append({"event": "trained", "seed": 0, "method": "dual", "prune_ratio": 0.5})
    with pytest.raises(ValueError, match=r"metrics\.jsonl' is damaged: kept is None in"):
        run_dir.results()

"""dualfast.runs.rundir: records survive a crash, and two runs do not mix."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dualfast.config import RunConfig
from dualfast.runs.rundir import RunDir, out_of
from dualfast.runs.trial import Trial


def test_records_survive_a_line_cut_off_by_a_crash(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.append({"event": "scored", "seed": 0})
    with open(run_dir.metrics_path, "a") as file:
        file.write('{"event": "scored", "se')
    assert [r["seed"] for r in run_dir.records("scored")] == [0]
    run_dir.append({"event": "scored", "seed": 1})
    assert [r["seed"] for r in run_dir.records("scored")] == [0, 1]
    assert run_dir.metrics_path.read_text().count("\n") == 2


def test_another_run_is_refused_with_both_values(tmp_path: Path) -> None:
    RunDir(tmp_path / "run", {"epochs": 3, "seed": [0]})
    RunDir(tmp_path / "run", {"epochs": 3, "seed": [0, 1]}, may_differ=("seed",))
    with pytest.raises(ValueError, match="epochs=3, and this one asks for 4"):
        RunDir(tmp_path / "run", {"epochs": 4, "seed": [0]}, may_differ=("seed",))
    RunDir(tmp_path / "other", {"epochs": 3, "lr": 0.1})
    with pytest.raises(
        ValueError, match=r"epochs=3, and this one asks for 4; lr=0\.1, and this one asks for 0\.2; give"
    ):
        RunDir(tmp_path / "other", {"epochs": 4, "lr": 0.2})


def test_an_option_that_an_older_run_did_not_know_had_its_default(tmp_path: Path) -> None:
    noted = {"epochs": 3, "data": "digits"}
    RunDir(tmp_path / "run", noted)
    RunDir(tmp_path / "run", {**noted, "image_column": None, "momentum": 0.9, "window": 7})  # it gathered no scores
    with pytest.raises(ValueError, match="image_column=None, and this one asks for photo"):
        RunDir(tmp_path / "run", {**noted, "image_column": "photo"})
    RunDir(tmp_path / "other", noted)
    with pytest.raises(ValueError, match=r"momentum=0\.9, and this one asks for 0\.5"):
        RunDir(tmp_path / "other", {**noted, "momentum": 0.5})


def test_a_c_d_whose_name_is_gone_is_compared_as_its_number(tmp_path: Path) -> None:
    RunDir(tmp_path / "run", {"c_d": "cifar10"})
    with pytest.raises(ValueError, match=r"c_d=5\.5, and this one asks for 4"):
        RunDir(tmp_path / "run", {"c_d": 4.0})
    RunDir(tmp_path / "run", {"c_d": 5.5})


def test_a_training_of_0_1_had_the_defaults(tmp_path: Path) -> None:
    RunDir(tmp_path / "run", {"momentum": 0.9})
    RunDir(
        tmp_path / "run", {"momentum": 0.9, "nesterov": True, "min_lr": 0.0, "normalize": "imagenet", "fill": "mean"}
    )
    RunDir(tmp_path / "other", {"momentum": 0.9})
    with pytest.raises(ValueError, match="nesterov=True, and this one asks for False"):
        RunDir(tmp_path / "other", {"momentum": 0.9, "nesterov": False})


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match="neither empty nor a run directory"):
        RunDir(tmp_path, {"epochs": 3})
    with pytest.raises(ValueError, match="is a file"):
        RunDir(tmp_path / "thesis.tex", {"epochs": 3})
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        RunDir(tmp_path)


def test_a_call_that_was_killed_while_it_wrote_its_configuration_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.x1y2z3_4.part").write_text("asked:")  # as storage.files.atomic leaves it
    RunDir(tmp_path, {"epochs": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


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


def test_the_schedule_of_scoring_is_the_directory_s_unless_the_call_names_another(tmp_path: Path) -> None:
    def opened(name: str, noted: dict[str, int | None], wanted: dict[str, int | None]) -> int:
        RunDir(tmp_path / name, {"seed": 0, **noted})
        asked = RunDir(tmp_path / name, {"seed": 0, **wanted}).requested()
        planned: int = asked["score_schedule_epochs"] or asked["score_epochs"]
        return planned

    scoring = {"epochs": 200, "score_epochs": 30}
    unset = {**scoring, "score_schedule_epochs": None}
    # 0.1 did not note it, and took the scores from the beginning of the training of 200 epochs.
    assert opened("same", scoring, {**scoring, "score_schedule_epochs": 200}) == 200
    assert opened("as-before", scoring, unset) == 200
    assert opened("as-before", unset, unset) == 200  # and once more
    assert opened("again", unset, {**scoring, "score_schedule_epochs": 30}) == 30
    assert opened("short", {**scoring, "epochs": 30}, {**unset, "epochs": 30}) == 30
    with pytest.raises(ValueError, match="score_schedule_epochs=200, and this one asks for 30"):
        opened("other", scoring, {**scoring, "score_schedule_epochs": 30})
    # What 0.1 meant is kept when a command that does not score opens the directory.
    RunDir(tmp_path / "train", {"seed": 0, **scoring})
    RunDir(tmp_path / "train", {"epochs": 200})
    assert RunDir(tmp_path / "train").requested()["score_schedule_epochs"] == 200


def test_a_run_that_made_nothing_may_be_asked_differently(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    (run_dir.path / "train.beton.partial").write_bytes(b"x")
    (run_dir.path / "train.beton.partial.steps").write_bytes(b"x")
    run_dir.withdraw()
    again = RunDir(tmp_path / "run", {"epochs": 4})
    assert again.config()["asked"] == {"epochs": 4}
    again.append({"event": "scored", "seed": 0})
    again.withdraw()
    with pytest.raises(ValueError, match="epochs=4, and this one asks for 5"):
        RunDir(tmp_path / "run", {"epochs": 5})


def test_a_configuration_with_epochs_that_are_none_is_named(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.config_path.write_text("asked: {score_epochs: x, epochs: 2026-01-01}\n")
    with pytest.raises(ValueError, match=r"config\.yaml' is damaged: its epochs are not whole numbers"):
        run_dir.requested()


def test_a_name_that_is_not_utf8_gives_the_run_a_name_that_is() -> None:
    assert out_of(RunConfig(data="photos/caf\udce9.zip")) == r"runs/caf\udce9"


FULL = '"method": "full", "prune_ratio": 0, "seed": 0, "kept": 5, "n_samples": 5, "accuracy": 0.5'


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("{}", "event"),
        ('{"event": "trained"}', "method"),
        ('{"event": ["scored"], "seed": 0}', "event"),
        ('{"event": "scored", "seed": "/../../elsewhere"}', "seed"),
        ('{"event": "trained", "method": ["full"]}', "method"),
        (f'{{"event": "trained", {FULL}}}', "best_accuracy"),
    ],
)
def test_a_record_that_lacks_something_is_named(tmp_path: Path, line: str, lacks: str) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.append({"event": "scored", "seed": 0})
    with run_dir.metrics_path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"metrics\.jsonl' is damaged: the record .* lacks {lacks}"):
        run_dir.scored_seeds()


@pytest.mark.parametrize("line", ["[1]", "{", "[" * 99999])
def test_a_line_that_is_no_record_is_named(line: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.metrics_path.write_text(line + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl' is damaged; remove line 1, which"):
        run_dir.records("scored")


def test_records_that_are_larger_than_any_run_s_are_not_read(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    run_dir.metrics_path.touch()
    os.truncate(run_dir.metrics_path, 1 << 42)  # takes no room on the disk
    with pytest.raises(ValueError, match=r"metrics\.jsonl' has more than .* bytes"):
        run_dir.records("scored")


def test_records_are_not_appended_through_a_link(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "run", {"epochs": 3})
    (tmp_path / "victim").write_text("precious")
    run_dir.metrics_path.symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match="is a link"):
        run_dir.append({"event": "scored", "seed": 0})
    assert (tmp_path / "victim").read_text() == "precious"


def test_images_are_taken_over_behind_their_sidecars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a kill leaves no .beton beside the checksums of another."""
    run = RunDir(tmp_path / "run", {"epochs": 3})
    (run.path / "train.beton.crc").write_text("old")
    run.rewritten.mkdir()
    names = ["test.beton", "test.beton.crc", "train.beton", "train.beton.crc", "train.beton.json"]
    for name in names:
        (run.rewritten / name).write_text("new")
    moved: list[str] = []
    rename = Path.rename

    def noted(path: Path, target: Path) -> Path:
        moved.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    run.start_over()
    assert sorted(moved) == names
    assert all(name.endswith(".beton") for name in moved[-2:])
    assert (run.path / "train.beton.crc").read_text() == "new"
    assert not run.rewritten.exists()

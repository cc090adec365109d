"""The command line: one line for an error, a run that does it all, and a run that goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_fixture import make_run

from dualfast import Scores, cli, cli_parse
from dualfast.data import beton

pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")

SHORT = ["--epochs", "4", "--score-epochs", "4", "--window", "2", "--prune-ratio", "0.5", "--seed", "0"]


def dualfast(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dualfast", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def images(n: int, classes: int = 2) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), np.arange(n) % classes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--prune-ratio", "1.0"], "--prune-ratio is 1.0"),
        (["run", "--score-epochs", "5"], "--score-epochs is 5 and --window is 10"),
        (["run", "--model", "resnet19"], "model 'resnet19' is unknown"),
        (["run", "--method", "magic"], "magic"),
        (["run", "--data", "nowhere"], "nowhere does not exist"),
        (["run", "--data", ""], "data is an empty path"),
        (["write", "", "x.beton"], "path of the data is empty"),
        (["run", "--recipe", "magic"], "recipe is 'magic'"),
        (["run", "--device", "cuda:7"], "--device is 'cuda:7'"),
        (["run", "--label-column", "y"], "--label-column is 'y'"),
        (["verify", "nowhere.beton"], "nowhere.beton does not exist"),
        (["report", "nowhere"], "is not a run directory"),
        (["bench", "magic"], "bench name is 'magic'"),
        (["select", "--scores", "no.parquet", "--prune-ratio", "0.5", "--out", "keep.npy"], "no.parquet"),
    ],
)
def test_an_error_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("dualfast: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("what", ["empty folder", "no label column", "unreadable image", "one class"])
def test_data_that_cannot_be_used_is_named(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    if what == "empty folder":
        data.mkdir()
        said = "no class folder"
    elif what == "no label column":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow as pa

        data = tmp_path / "data.parquet"
        parquet.write_table(pa.table({"image": [b"x"], "price": [1.5]}), data)
        said = "no label column"
    else:
        from PIL import Image

        for name in ("a", "b")[: 1 if what == "one class" else 2]:
            (data / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(data / name / "1.png")
        said = "only one class"
        if what == "unreadable image":
            (data / "b" / "2.png").write_bytes(b"no image at all")
            said = "2.png"
    assert cli.main(["run", "--data", str(data), "--test", str(data), *SHORT]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    if what == "unreadable image":
        assert "; --skip-bad leaves" in error


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        cli.main(["verify", "nowhere.beton", "--debug"])


def test_data_changed_while_read_is_one_line_and_a_failed_computation_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dualfast.runs import commands

    made = beton.open_beton(beton.write(images(8), tmp_path / "a.beton", progress=False).path)
    with open(made.path, "ab") as file:
        file.write(b"more")
    arguments = ["train", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(commands, "train", lambda *_: made.check_unchanged())
    assert cli.main(arguments) == 2
    assert "a.beton was changed while it was open; open it again\n" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="changed while"):
        cli.main([*arguments, "--debug"])
    monkeypatch.setattr(commands, "train", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        cli.main(arguments)


def test_run_leaves_every_file_of_a_run_directory(tmp_path: Path) -> None:
    done = dualfast("run", *SHORT, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    names = {"config.yaml", "train.beton", "test.beton", "scores.parquet", "metrics.jsonl", "report.html"}
    names |= {"keep-0.5.npy", "keep-0.5.json"}
    assert names <= {path.name for path in run.iterdir()}
    kept = np.load(run / "keep-0.5.npy", allow_pickle=False)
    assert kept.dtype == np.int64
    assert len(kept) == 719  # half of 1,437, half up
    assert (np.diff(kept) > 0).all()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["event"] == "trained"]
    assert sorted(row["method"] for row in trained) == ["dual", "dual+beta", "full", "random"]
    assert "dual+beta" in done.stdout
    again = dualfast("run", *SHORT, "--out", "run", cwd=tmp_path)
    assert "all 4 trainings are finished" in again.stdout
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(rows)
    other = dualfast("run", *SHORT, "--batch-size", "128", "--out", "run", cwd=tmp_path)
    assert other.returncode == 2
    assert "--batch-size 64, and this one asks for 128" in other.stderr


def test_an_interrupted_run_continues_to_the_same_results(tmp_path: Path) -> None:
    arguments = ["run", *SHORT, "--epochs", "12"]
    whole = dualfast(*arguments, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "dualfast", *arguments, "--out", "stopped"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "the same command continues" in error
    assert "Traceback" not in error
    finished = metrics.read_text()
    assert finished.count("\n") < 5
    resumed = dualfast(*arguments, "--out", "stopped", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert metrics.read_text().startswith(finished)

    def results(run: str) -> list[tuple[Any, ...]]:
        rows = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        return [(r["method"], r["seed"], r["kept"], r["accuracy"], r["loss"]) for r in rows if r["event"] == "trained"]

    assert results("stopped") == results("whole")
    for name in ("keep-0.5.npy", "keep-0.5-random-seed0.npy"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_score_select_compact_train_are_the_parts_of_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=(arrays := images(64))[0], labels=arrays[1])
    short = ["--epochs", "3", "--score-epochs", "3", "--window", "2", "--batch-size", "16"]
    steps = [
        ["score", "--data", "data.npz", "--out", "run", *short],
        ["select", "--scores", "run/scores.parquet", "--prune-ratio", "0.75", "--out", "keep.npy"],
        ["write", "data.npz", "data.beton"],
        ["verify", "data.beton", "--full"],
        ["compact", "data.beton", "keep.npy", "small.beton"],
        [
            "train",
            "--data",
            "data.npz",
            "--test",
            "data.npz",
            "--keep",
            "keep.npy",
            "--out",
            "trained",
            "--epochs",
            "2",
        ],
    ]
    for arguments in steps:
        done = dualfast(*arguments, cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)
    assert len(np.load(tmp_path / "keep.npy", allow_pickle=False)) == 16
    import torch

    state = torch.load(tmp_path / "trained" / "model.pt", weights_only=True)
    assert state["head.weight"].shape == (2, 128)


def test_audit_lists_the_labels_of_a_run_directory_or_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 64)
    pixels = rng.integers(0, 80, (64, 8, 8, 3)) + 160 * labels[:, None, None, None]
    np.savez(tmp_path / "data.npz", images=pixels.astype(np.uint8), labels=labels ^ (np.arange(64) < 5))
    flags = ["--data", "data.npz", "--epochs", "10", "--score-epochs", "10", "--batch-size", "16", "--augment", "none"]
    assert cli.main(["score", *flags, "--out", "run"]) == 0
    assert re.search(r"\n\d+ of 64 labels look wrong: run/audit.csv\n", capsys.readouterr().out)
    (tmp_path / "run" / "audit.csv").unlink()
    assert cli.main(["audit", "run"]) == 0
    said = capsys.readouterr().out
    assert " of 64 labels look wrong (" in said
    assert "all labels, most suspicious first: run/audit.csv" in said
    assert cli.main(["audit", "run", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["n_samples"], facts["audit"]) == (64, "run/audit.csv")
    assert f"{facts['n_wrong']} of 64 labels look wrong (" in said
    first, *rows = (tmp_path / "run" / "audit.csv").read_text().splitlines()
    assert first == '"id","name","label","quality","suspect","likely"'
    assert {int(row.split(",")[0]) for row in rows[:5]} == set(range(5))
    assert cli.main(["audit", "run/scores.parquet", "--out", "list.parquet"]) == 0
    assert (tmp_path / "list.parquet").is_file()
    assert cli.main(["audit", "run/scores.parquet"]) == 0
    assert "first:" not in capsys.readouterr().out.splitlines()[-1]
    for arguments, words in (
        (["audit", "nowhere"], "nowhere"),
        (["audit", "."], "not a run directory"),
        (["audit", "run", "--out", "a.txt"], "ends in .csv or .parquet"),
    ):
        assert cli.main(arguments) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "run" / "metrics.jsonl").unlink()
    assert cli.main(["audit", "run"]) == 2
    assert "'run' has no scores; dualfast score --out run gathers them" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--sizes", "50000", "--alone"], ["--", "--sizes", "50000", "--alone"], ["--help"]])
def test_a_benchmark_gets_the_flags_behind_its_name(flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr("runpy.run_path", lambda path, run_name: ran.append([Path(path).name, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", ["dualfast"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert cli.main(["bench", "select", *flags]) == 0
    assert ran == [["bench_select.py", *(flag for flag in flags if flag != "--")]]


def test_cifar_parquet_through_the_same_command(real_data: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name, count in (("train", 400), ("test", 100)):
        table = parquet.read_table(next((real_data / "cifar10").glob(f"*{name}*.parquet")))
        parquet.write_table(table.slice(0, count), tmp_path / f"{name}.parquet")
    done = dualfast(
        "run", "--data", "train.parquet", "--test", "test.parquet", *SHORT, "--method", "dual+beta", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(np.load(tmp_path / "runs" / "train" / "keep-0.5.npy", allow_pickle=False)) == 200


def test_a_folder_of_photographs_through_the_same_command(real_data: Path, tmp_path: Path) -> None:
    short = ["--epochs", "2", "--score-epochs", "2", "--window", "2", "--prune-ratio", "0.5", "--seed", "0"]
    folder = str(real_data / "imagenet-sample")
    size = ["--max-size", "96", "--image-size", "64", "--batch-size", "32", "--method", "dual+beta"]
    done = dualfast("run", "--data", folder, "--test", folder, *short, *size, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fewer" in done.stdout + done.stderr or "some get none" in done.stdout


def test_help_comes_in_groups_the_important_flags_on_top(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    shown = capsys.readouterr().out
    wanted = [
        "data options",
        "--data ",
        "--labels ",
        "pruning options",
        "--prune-ratio",
        "scoring options",
        "training options",
    ]
    wanted += ["--recipe {default,", "--model ", "machine options", "--device", "output options"]
    places = [shown.index(text) for text in wanted]
    assert places == sorted(places)
    with pytest.raises(SystemExit):
        cli.main(["run", "--recipe", "imagenet", "--help"])
    assert "(default: resnet34)" in capsys.readouterr().out


@pytest.mark.parametrize("command", cli._COMMANDS, ids=cli_parse._name_of)
def test_every_flag_has_its_help_and_is_parsed_as_help_shows_it(
    command: type, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main([cli_parse._name_of(command), "--help"])
    shown = capsys.readouterr().out
    for option in fields(command):
        flag = {"form": "as"}.get(option.name, option.name).replace("_", "-")
        assert re.search(rf"^\W*(--(no-)?{flag}|{option.name.upper()})\s", shown, re.M), option.name


def test_without_arguments_it_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  dualfast ")]
    assert len(lines) == 3


def test_results_as_json_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", images=images(64)[0], labels=images(64)[1])
    done = dualfast("write", "a.npz", "a.beton", "--json", cwd=tmp_path)
    written = json.loads(done.stdout)
    assert (written["path"], written["n_samples"]) == ("a.beton", 64)
    done = dualfast("run", "--data", "a.npz", "--test", "a.npz", "--out", "out", "--json", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["report"]).exists()
    assert {row["method"] for row in found["trainings"]} == {"full", "dual+beta", "dual", "random"}
    assert not {"json", "quiet", "recipe"} & set((tmp_path / "out" / "config.yaml").read_text().split(":"))
    done = dualfast("verify", "a.beton", "--quiet", cwd=tmp_path)
    assert done.stdout.startswith("a.beton: 64 samples")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""
    done = dualfast("compact", "a.beton", "out/keep-0.5.npy", "b.beton", "--json", cwd=tmp_path)
    assert json.loads(done.stdout or "{}").get("n_samples") == 32, done.stderr


def test_names_of_files_do_not_reach_the_terminal_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a/\x1b[2J\x1b[32mall images written.jpg", "b/1.jpg"):
        (tmp_path / "d" / name).parent.mkdir(parents=True)
        (tmp_path / "d" / name).write_bytes(b"x")
    assert cli.main(["write", "d", "x.beton"]) == 2
    error = capsys.readouterr().err
    assert "\x1b" not in error
    assert r"a/\x1b[2J\x1b[32mall images" in error


def test_a_terminal_that_cannot_show_a_name_gets_it_escaped(tmp_path: Path) -> None:
    run_dir = tmp_path / "caf\u00e9"
    make_run(run_dir)
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "dualfast", "report", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"caf\xe9/report.html" in done.stdout


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["run", "--skip-bad=True"], "skip_bad", True),
        (["run", "--skip_bad=true"], "skip_bad", True),
        (["run", "--skip-bad=False"], "skip_bad", False),
        (["run", "--full=False"], "full", False),
        (["run", "--full=true"], "full", True),
        (["run", "--recipe=imagenet", "--nesterov=True"], "nesterov", True),
        (["run", "--recipe", "imagenet", "--nesterov=False"], "nesterov", False),
        (["select", "--scores", "a", "--out", "b", "--skip-bad=True"], "skip_unscored", True),
    ],
)
def test_switches_may_have_a_value(words: list[str], option: str, value: bool) -> None:
    assert getattr(cli_parse.parse(words, cli._COMMANDS), option) is value


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["run", "--nesterov"], "nesterov", True),
        (["run", "--recipe", "imagenet", "--no-nesterov"], "nesterov", False),
        (["run", "--full"], "full", True),
        (["run", "--no-full"], "full", False),
        (["run", "--no-per-class"], "per_class", False),
    ],
)
def test_switches_may_say_what_holds_anyway(words: list[str], option: str, value: bool) -> None:
    assert getattr(cli_parse.parse(words, cli._COMMANDS), option) is value


def test_switches_with_other_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--skip-bad=yes please"]) == 2
    assert "--skip-bad is 'yes please'; give --skip-bad alone, --skip-bad=true" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["run", "--epochs=True"])


@pytest.mark.parametrize("given", [["--c-d", "cifar10"], ["--c-d=cifar10"]])
def test_a_value_of_0_1_says_what_it_stood_for(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--data", "digits", *given]) == 2
    assert "--c-d is 'cifar10', which stood for a value published nowhere; give --c-d 5.5" in capsys.readouterr().err


def test_another_table_beside_a_list_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    half = np.linspace(0.1, 0.9, 20)
    Scores(dual=half, mean=half).save("s.parquet", names=[f"{at}.png" for at in range(20)])
    select = ["select", "--scores", "s.parquet", "--prune-ratio", "0.5", "--out", "my.npy"]
    Path("my.csv").write_text("precious")
    assert cli.main(select) == 2
    assert "'my.csv' is there, where the names of my.npy would go; rename one" in capsys.readouterr().err
    assert (Path("my.csv").read_text(), Path("my.npy").exists()) == ("precious", False)
    Path("my.csv").unlink()
    assert cli.main(select) == cli.main(select) == 0


def test_like_takes_no_flags_beside(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["select", "--scores", "s.parquet", "--out", "k.npy", "--like", "a.json"]
    for flags, words in (
        (["--seed", "8"], "--seed is 8, and like 'a.json' says"),
        (["--per-class"], "--per-class is"),
    ):
        assert cli.main([*given, *flags]) == 2
        assert words in capsys.readouterr().err


def test_scores_without_their_flag_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["select", "scores.parquet", "--prune-ratio", "0.5"]) == 2
    assert "dualfast select --scores scores.parquet --prune-ratio ..." in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"dualfast {version('dualfast')}\n"

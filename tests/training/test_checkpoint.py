"""Interrupted trainings: killed, asked to stop, out of space, with damaged files; the results are those of a whole
run."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from dualfast import Scores
from dualfast.comm.ranks import Ranks
from dualfast.config import Recipe, Safety
from dualfast.errors import DamagedCheckpoint, Stopped
from dualfast.training import checkpoint_files
from dualfast.training.checkpoint import Checkpoints
from dualfast.training.checkpoint_resume import Saved, find_latest
from dualfast.training.fit import CrossEntropy, _Trainer, fit

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")

sys.path.insert(0, str(BENCHMARKS))
kills = importlib.import_module("kills")
RUN, results = kills.RUN, kills.results


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dualfast", *arguments]


def finish(arguments: list[str], cwd: Path) -> str:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(command(*RUN, "--out", "run"), folder)
    assert not list((folder / "run" / "checkpoints").iterdir())
    return folder / "run"


def start(arguments: list[str], cwd: Path, prefix: list[str] | None = None) -> subprocess.Popen[str]:
    line = command(*arguments) if prefix is None else [*prefix, "-m", "dualfast", *arguments]
    return subprocess.Popen(line, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def worker(torchrun: int, rank: int) -> int:
    """The process that torchrun started as this rank."""
    for task in Path(f"/proc/{torchrun}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return int(pid)
    raise AssertionError("no such rank")


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_kill_9_at_any_moment_loses_nothing(whole: Path, tmp_path: Path) -> None:
    said = finish([sys.executable, str(BENCHMARKS / "kills.py"), "--kills", "8", "--whole", str(whole)], tmp_path)
    row = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    assert row["kills"] == 8
    assert all(row[name] for name in kills.NAMES), row
    assert row["left_over"] == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_stops_after_the_step_and_the_command_it_prints_goes_on(
    number: signal.Signals, whole: Path, tmp_path: Path
) -> None:
    process = start([*RUN, "--out", "run"], tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob("*.pt"))) >= 2, process)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "Traceback" not in error
    left = sorted(checkpoints.iterdir())
    assert len(left) == 2  # the latest two, and nothing half written
    assert f"stopped after step {int(left[-1].stem)} of" in error
    if number == signal.SIGUSR1:  # damage on top of it
        content = bytearray(left[-1].read_bytes())
        content[len(content) // 2] ^= 1
        left[-1].write_bytes(content)
    words = shlex.split(error.partition("to resume: ")[2])
    assert words[0] == "dualfast"
    said = finish(command(*words[1:]), tmp_path)
    if number == signal.SIGUSR1:
        assert f"{left[-1].name} is damaged (its checksum is wrong); the one before" in said
    assert results(tmp_path / "run") == results(whole)


def test_two_processes_stop_and_go_on_and_score_every_image(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    finish([*torchrun, "-m", "dualfast", *RUN, "--out", "whole"], tmp_path)
    scores = Scores.load(tmp_path / "whole" / "scores.parquet")
    assert scores.visits is not None
    assert len(scores) == 1437
    assert (scores.visits == 4).all()
    process = start([*RUN, "--out", "run"], tmp_path, torchrun)
    checkpoints = tmp_path / "run" / "checkpoints"
    wait_for(lambda: len(list(checkpoints.glob("*rank0of2.pt"))) >= 2, process)
    latest = max(checkpoints.glob("*rank0of2.pt"))
    os.kill(worker(process.pid, rank=1), signal.SIGKILL)  # the others end, and torchrun starts all again
    wait_for(lambda: max(checkpoints.glob("*rank0of2.pt"), default=latest) > latest, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert "to resume: torchrun --nproc-per-node=2 -m dualfast run" in error
    names = sorted(path.name for path in checkpoints.iterdir())
    assert len(names) == 4
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    newest = checkpoints / names[-1]  # rank 1's: rank 0 must go back with it
    newest.write_bytes(newest.read_bytes()[:-100])
    said = finish([*torchrun, "-m", "dualfast", *RUN, "--out", "run"], tmp_path)
    assert f"{names[-1]} is damaged (it is cut off); the one before" in said
    assert results(tmp_path / "run") == results(tmp_path / "whole")
    # One process goes on where two stopped: other sums of the gradient, the same visits.
    said = finish(command(*RUN, "--out", "alone"), tmp_path)
    assert "starts over" not in said
    scores = Scores.load(tmp_path / "alone" / "scores.parquet")
    assert scores.visits is not None
    assert (scores.visits == 4).all()
    assert [row[:5] for row in results(tmp_path / "alone")[0]] == [row[:5] for row in results(tmp_path / "whole")[0]]
    assert not list((tmp_path / "alone" / "checkpoints").iterdir())


def test_no_space_for_a_checkpoint_is_said_and_training_goes_on(whole: Path, tmp_path: Path) -> None:
    arguments = ["score", "--data", str(whole / "train.beton"), "--test", str(whole / "test.beton"), *RUN[1:7]]
    arguments += ["--checkpoint-every", "30steps", "--num-workers", "1", "--threads", "1", "--out", "run"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # the scores fit, a checkpoint does not

    done = subprocess.run(
        command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=300, preexec_fn=limit
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING: checkpoint 0000000030.pt could not be written" in done.stdout
    assert "there is none before it" in done.stdout
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    theirs, ours = Scores.load(whole / "scores.parquet"), Scores.load(tmp_path / "run" / "scores.parquet")
    assert ours.dual.tobytes() == theirs.dual.tobytes()


# ---- the files on their own -----------------------------------------------------------------------------------------


def kept(folder: Path, said: list[str], what: dict[str, Any]) -> tuple[Checkpoints, Saved | None]:
    checkpoints = Checkpoints(folder, (0.0, 1), Ranks(), said.append)
    return checkpoints, checkpoints.begin(what)


def test_checkpoints_of_something_else_are_told_apart(tmp_path: Path) -> None:
    said: list[str] = []
    what = {"training": "scoring, seed 0", "data": "abc"}
    checkpoints, state = kept(tmp_path, said, what)
    assert state is None
    for value in range(5):
        checkpoints.step(lambda value=value: {"value": torch.tensor(value)})  # type: ignore[misc]
    checkpoints.finish()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0000000004.pt", "0000000005.pt"]
    _, state = kept(tmp_path, said, what)
    assert state is not None
    assert int(state.state["value"]) == 4
    assert not state.world_size_changed
    with pytest.raises(ValueError, match=r"step 5 .* has data abc, this training xyz; give another --out"):
        kept(tmp_path, said, {"training": "scoring, seed 0", "data": "xyz"})
    payload = checkpoint_files.read(tmp_path / "0000000005.pt")
    checkpoint_files.write(payload | {"format": checkpoint_files.FORMAT + 1}, tmp_path / "0000000006.pt")
    with pytest.raises(ValueError, match="update dualfast"):
        kept(tmp_path, said, what)
    (tmp_path / "0000000006.pt").unlink()
    _, state = kept(tmp_path, said, {"training": "another", "data": "abc"})
    assert state is None
    assert not list(tmp_path.iterdir())  # of a training that was finished
    assert said == []


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    what = {"training": "scoring, seed 0", "data": "abc", "window": 10}
    checkpoints, _ = kept(tmp_path, said, what)
    checkpoints.step(lambda: {"value": torch.tensor(1)})
    checkpoints.finish()

    def full(payload: dict[str, Any], path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint_files, "write", full)
    checkpoints.step(lambda: {"value": torch.tensor(2)})
    checkpoints.finish()
    assert len(said) == 1
    for word in ("WARNING", "0000000002.pt", "No space left", "training continues, the one of step 1 is kept"):
        assert word in said[0]
    _, saved = kept(tmp_path, said, what)
    assert saved is not None
    assert int(saved.state["value"]) == 1
    with pytest.raises(ValueError, match="has window 10, this training 9; give another --out"):
        kept(tmp_path, said, what | {"window": 9})


def test_another_number_of_ranks_shares_the_parts_in_order(tmp_path: Path) -> None:
    """Four ranks saved, and two resume: each takes over two neighbours. With a file missing there is no checkpoint."""
    said: list[str] = []
    for rank in range(4):
        payload = {"format": 1, "what": {"training": "x"}, "step": 7, "state": {"rank": rank}}
        checkpoint_files.write(payload, tmp_path / f"0000000007.rank{rank}of4.pt")
    for rank in range(2):
        ranks = EqualRank(rank, 2)
        found = find_latest(checkpoint_files.CheckpointFolder(tmp_path, ranks), ranks, said.append)
        assert found is not None
        saved = found.saved_for(ranks)
        assert saved.world_size_changed
        assert saved.state == {"rank": 0}
        assert [part["rank"] for part in saved.parts] == [2 * rank, 2 * rank + 1]
    assert said == []
    (tmp_path / "0000000007.rank3of4.pt").unlink()
    ranks = EqualRank(0, 2)
    assert find_latest(checkpoint_files.CheckpointFolder(tmp_path, ranks), ranks, said.append) is None
    assert "the 3 checkpoint files" in said[0]
    assert "not a complete set for 2 processes" in said[0]


class EqualRank(Ranks):
    """A rank whose peers find what it finds."""

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.size


def test_a_signal_waits_for_the_step_of_a_training(tmp_path: Path) -> None:
    said: list[str] = []
    with Checkpoints(tmp_path, (3600.0, 0), Ranks(), said.append) as checkpoints:
        checkpoints.begin({"training": "x"})
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped, match="after step 1 of x"):
            checkpoints.step(lambda: {"value": torch.tensor(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["0000000001.pt"]

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(10)

    with (
        Checkpoints(tmp_path, (3600.0, 0), Ranks(), said.append),
        pytest.raises(Stopped, match="between two trainings"),
    ):
        stop()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


class Some:
    """A loader of so many batches an epoch, and so many left of the one that goes on."""

    def __init__(self, batches: int, remaining: int) -> None:
        self.batches, self.remaining = batches, remaining

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        draw = torch.Generator().manual_seed(0)
        for _ in range(self.remaining):
            yield torch.randn(2, 3, 4, 4, generator=draw), torch.tensor([0, 1]), torch.tensor([0, 1])
        self.remaining = self.batches

    def set_epoch(self, epoch: int) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_schedule_ends_with_the_training_whatever_the_number_of_ranks(schedule: Any, tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, lr=0.1, schedule=schedule)

    def trainer(loader: Some) -> _Trainer:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        return _Trainer(model, loader, CrossEntropy(), recipe, Ranks())

    # Two ranks took 10 batches an epoch and come to the fourth of the second; three take 8, of which 6 are left.
    before = trainer(Some(10, 10))
    before.state.start_epoch(0)
    for batch in before.loader:  # type: ignore[attr-defined]
        before.step(*batch)
    before.state.start_epoch(1)
    for _, batch in zip(range(3), before.loader, strict=False):  # type: ignore[call-overload]
        before.step(*batch)
    state = before.state_dict()
    state["course"] = vars(before.state) | {"loss_sum": before.state.loss_sum.clone()}
    after = trainer(Some(8, 6))
    after.resume(Saved(state, [state, state], world_size_changed=True))
    assert (after.state.batches, after.state.images) == (6, 12)
    torch.testing.assert_close(after.state.loss_sum, 2 * before.state.loss_sum)
    rates = [after.optimizer.param_groups[0]["lr"]]
    for left in (6, 8):
        for _, batch in zip(range(left), after.loader, strict=False):  # type: ignore[call-overload]
            after.step(*batch)
            rates.append(after.optimizer.param_groups[0]["lr"])
    assert all(one > two for one, two in pairwise(rates))
    assert rates[-1] < 0.003 < rates[0]
    # A rank to which no part fell adds nothing to the epoch.
    spare = trainer(Some(8, 6))
    spare.resume(Saved(state, [], world_size_changed=True))
    assert (spare.state.batches, spare.state.images, float(spare.state.loss_sum)) == (0, 0, 0.0)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_one_cycle_of_few_steps(steps: int) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    done = fit(model, Some(steps, steps), CrossEntropy(), Recipe(epochs=1, lr=0.1))
    assert 0 < done.loss < 10


def test_a_batch_of_padding_alone_does_not_count() -> None:
    class Padded(Some):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
            for images, labels, index in super().__iter__():
                yield images, labels, index
                yield images, torch.full_like(labels, -100), index

    def trained(loader: Some) -> float:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        return fit(model, loader, CrossEntropy(), Recipe(epochs=1, lr=1e-9, momentum=0, weight_decay=0)).loss

    assert trained(Padded(8, 4)) == pytest.approx(trained(Some(4, 4)), rel=1e-5)


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "0000000001.pt"
    checkpoint_files.write({"format": 1, "what": {}, "step": 1, "state": {"x": torch.arange(10)}}, path)
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(DamagedCheckpoint):
            checkpoint_files.read(path)
    for end in (0, 5, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(DamagedCheckpoint):
            checkpoint_files.read(path)


@pytest.mark.parametrize(
    ("text", "interval"),
    [("30s", (30.0, 0)), ("10m", (600.0, 0)), ("1.5h", (5400.0, 0)), ("500steps", (0.0, 500)), ("1 step", (0.0, 1))],
)
def test_intervals(text: str, interval: tuple[float, int]) -> None:
    assert Safety(checkpoint_every=text).checkpoint_interval == interval


@pytest.mark.parametrize("text", ["", "10", "0s", "-1s", "1.5steps", "ten minutes"])
def test_intervals_that_cannot_be_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="checkpoint_every is"):
        Safety(checkpoint_every=text)


@pytest.mark.parametrize("content", [None, [1], {"format": "x"}, {}])
def test_a_right_checksum_is_not_enough(content: Any, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    if content is not None:
        torch.save(content, buffer)
    body = buffer.getvalue()
    path = tmp_path / "0000000001.pt"
    path.write_bytes(body + checkpoint_files.MARK + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(DamagedCheckpoint, match="not a checkpoint"):
        checkpoint_files.read(path)


def test_a_checkpoint_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    whole, packed, path = io.BytesIO(), io.BytesIO(), tmp_path / "0000000001.pt"
    torch.save({"format": checkpoint_files.FORMAT, "state": torch.zeros(1 << 20)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    body = packed.getvalue()
    path.write_bytes(body + checkpoint_files.MARK + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(DamagedCheckpoint, match="larger than the file"):
        checkpoint_files.read(path)

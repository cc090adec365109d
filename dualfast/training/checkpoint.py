"""Checkpoints of a training: saved every so often while it runs, resumed from bit for bit after an interruption.

Every rank writes its own file, in the background; checkpoint_files has the format, checkpoint_resume the choice of the
checkpoint to resume from, stop_signal what SIGTERM does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from dualfast.comm.ranks import Ranks
from dualfast.errors import Stopped
from dualfast.training.checkpoint_files import FORMAT, CheckpointFolder
from dualfast.training.checkpoint_resume import Saved, find_latest
from dualfast.training.stop_signal import StopSignal

AGREE_EVERY = 8  # steps between two exchanges about whether any rank has to save or stop


class Checkpoints:
    """The checkpoints of a run directory, for one training after another.

    A context manager: inside it SIGTERM and SIGUSR1 end a training after its current step, with a checkpoint, by
    raising Stopped; outside a training they raise it at once.

    every: (seconds, 0) or (0, optimizer steps). say(line) is called with what the user should know.
    """

    def __init__(self, folder: Path, every: tuple[float, int], ranks: Ranks, say: Callable[[str], None]) -> None:
        self.folder, self.ranks, self.say = CheckpointFolder(folder, ranks), ranks, say
        self.seconds, self.steps = every
        self.pause = 0.0
        """Seconds that training stood still for the latest checkpoint."""
        self._signal = StopSignal()
        self._writer = BackgroundWriter()
        self._what: dict[str, Any] = {}
        self._step = 0
        self._saved_at = time.monotonic()

    def __enter__(self) -> Checkpoints:
        self._signal.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.wait()
        self._signal.__exit__(kind, error, at)

    def begin(self, what: dict[str, Any]) -> Saved | None:
        """Starts a training; returns what to resume from, None to start from scratch.

        what: "training" names it; its other values must equal those of the checkpoint. Raises ValueError when a
        checkpoint of this training differs in one of them, or is of a newer version.
        """
        self._what, self._step, self._saved_at = what, 0, time.monotonic()
        self._signal.in_training = True
        self.folder.prepare()
        found = find_latest(self.folder, self.ranks, self.say)
        if found is None:
            return None
        if found.what["training"] != what["training"]:  # left behind by a training that finished
            self.clear()
            return None
        for name, value in what.items():
            if (saved := found.what.get(name)) != value:
                raise ValueError(
                    f"the checkpoint of step {found.step} in {str(self.folder.folder)!r} has {name} {saved}, this "
                    f"training {value}; give another --out, or delete that folder"
                )
        self._step = found.step
        return found.saved_for(self.ranks)

    def step(self, state: Callable[[], dict[str, Any]]) -> None:
        """Call after each optimizer step; saves state() when a checkpoint is due. Raises Stopped."""
        self._step += 1
        due, stop = self._due_and_stop()
        if due or stop:
            self.save(state)
        if stop:
            self._writer.wait()
            raise Stopped(f"after step {self._step} of {self._what['training']}")

    def _due_and_stop(self) -> tuple[bool, bool]:
        """Whether a checkpoint is due after this step and whether to stop: the same on all ranks."""
        stop = self._signal.received
        if self.steps:
            due = self._step % self.steps == 0
        else:
            due = time.monotonic() - self._saved_at >= self.seconds
        if self.ranks.size == 1:
            return due, stop
        if self._step % AGREE_EVERY:
            return due and bool(self.steps), False
        any_stop, any_due = self.ranks.largest([int(stop), 0 if self.steps else int(due)])
        return due if self.steps else bool(any_due), bool(any_stop)

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Copies state() and writes the copy in the background."""
        start = time.monotonic()
        self._writer.wait()
        step = self._step
        payload = {"format": FORMAT, "what": self._what, "step": step, "state": _copied(state())}
        self._writer.start(lambda: self._write(payload, step))
        self._saved_at = time.monotonic()
        self.pause = self._saved_at - start

    def _write(self, payload: dict[str, Any], step: int) -> None:
        try:
            self.folder.write(payload, step)
        except (OSError, RuntimeError) as error:  # torch.save turns some OSErrors into RuntimeErrors
            own = self.folder.own()
            kept = f"the one of step {own[0].step} is kept" if own else "there is none before it"
            reason = str(error).splitlines()[0]
            self.say(
                f"WARNING: checkpoint {self.folder.path(step).name} could not be written ({reason}); training "
                f"continues, {kept}; free some space in {self.folder.folder}"
            )

    def finish(self) -> None:
        """Ends a training; its checkpoints stay until clear(), once its results are recorded. Raises Stopped."""
        self._writer.wait()
        self._signal.leave_training()

    def clear(self) -> None:
        """Deletes the checkpoints of a training whose results are recorded."""
        self._writer.wait()
        self.folder.clear()


class BackgroundWriter:
    """Runs one write at a time on a thread of its own."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, write: Callable[[], None]) -> None:
        self.wait()
        self._thread = threading.Thread(target=write)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the latest write has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None


def _copied(value: Any) -> Any:
    """`value` with all tensors copied to the CPU, so that training may continue."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value

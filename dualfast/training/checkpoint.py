"""Checkpoints of a training: written beside it, the latest two kept, and read again bit for bit.

A file holds tensors and plain values, as torch.save writes them, and a checksum behind. Every rank writes its own;
what counts on loading is the latest step of which every file can be read: each rank's its own or, saved by another
number of ranks, all of them by the new ones together, which takes a folder that all see.
"""

from __future__ import annotations

import io
import re
import signal
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from dualfast.comm.ranks import Ranks
from dualfast.config import checkpoint_interval
from dualfast.errors import Stopped
from dualfast.storage.files import atomic

FORMAT = 1
KEPT = 2
MARK = b"dualfast"
AGREE_EVERY = 8  # steps between two looks at what the other ranks want
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


NAME = re.compile(r"(\d{10})(?:\.rank(\d+)of(\d+))?\.pt")


class Damaged(Exception):
    """A checkpoint that cannot be read."""


@dataclass(frozen=True)
class Saved:
    """What a training goes on from. state: this rank's, or, where another number of ranks saved it (moved), the first
    rank's; parts: the states that fell to this rank, in order of rank, each to one."""

    state: dict[str, Any]
    parts: list[dict[str, Any]]
    moved: bool


class Checkpoints:
    """The checkpoints of a run directory, for one training after the other; a context manager, in which SIGTERM and
    SIGUSR1 end a training after its step with a checkpoint, and anything else at once, by raising Stopped.

    every: "10m", "30s" (s, m, h) or "500steps". say(line) is called for what should be known.
    """

    def __init__(self, folder: Path, every: str, ranks: Ranks, say: Callable[[str], None]) -> None:
        self.folder, self.ranks, self.say = folder, ranks, say
        self.seconds, self.steps = checkpoint_interval(every)
        self.pause = 0.0
        """Seconds that training stood still for the latest checkpoint."""
        self._stop = self._training = False
        self._what: dict[str, Any] = {}
        self._step = 0
        self._saved_at = time.monotonic()
        self._writer: threading.Thread | None = None
        self._before: dict[int, Any] = {}

    # ---- signals ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Checkpoints:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._asked) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._join()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._stop = True
        if not self._training:
            raise Stopped("between two trainings")

    # ---- one training -----------------------------------------------------------------------------------------------

    def begin(self, what: dict[str, Any]) -> Saved | None:
        """Names the training that is about to begin; returns what to go on from, None to start afresh.

        what: "training" says which, the rest what must be equal. ValueError when a checkpoint of this training
        differs in the rest, or is of a newer version.
        """
        self._what, self._step, self._saved_at = what, 0, time.monotonic()
        self._training = True
        self.folder.mkdir(exist_ok=True)
        for stale in self.folder.glob(f".*{self._suffix()}.*.part"):  # what a killed process was writing
            stale.unlink(missing_ok=True)
        payloads: dict[int, dict[str, Any]] = {}
        size, damaged = self.ranks.size, []
        for step, size in self._candidates():
            payloads, whys = self._read(step, size)
            if not whys:
                self._step = step
                break
            damaged += whys
        else:
            payloads = {}
        self._tell(damaged, bool(payloads))
        if not payloads:
            return None
        loaded = next(iter(payloads.values()))
        if loaded["what"]["training"] != what["training"]:  # left behind by a training that is finished
            self._step = 0
            self.clear()
            return None
        for name, mine in what.items():
            if (theirs := loaded["what"].get(name)) != mine:
                raise ValueError(
                    f"the checkpoint of step {self._step} in {str(self.folder)!r} has {name} {theirs}, this training "
                    f"{mine}; give another --out, or delete that folder"
                )
        parts = [payload["state"] for rank, payload in payloads.items() if self._reader(rank, size) == self.ranks.rank]
        return Saved(loaded["state"], parts, size != self.ranks.size)

    def _candidates(self) -> list[tuple[int, int]]:
        """(step, number of ranks) of the checkpoints whose files are all there, the latest first."""
        here: dict[tuple[int, int], set[int]] = {}
        for step, rank, size, _ in self._files():
            here.setdefault((step, size), set()).add(rank)
        mine, own = self.ranks.rank, self.ranks.size
        whole = {
            (s, size) for (s, size), there in here.items() if (mine in there if size == own else len(there) == size)
        }
        common = set.intersection(*self.ranks.gather(whole))
        return sorted(common, key=lambda candidate: (candidate[0], candidate[1] == own), reverse=True)

    def _reader(self, rank: int, size: int) -> int:
        """Which of these ranks takes over from `rank` of `size`: neighbours stay together, in order."""
        return rank * self.ranks.size // size

    def _read(self, step: int, size: int) -> tuple[dict[int, dict[str, Any]], list[str]]:
        """What this rank needs of a checkpoint, by the rank that saved it, the one with the model first; and which
        files are damaged, on any rank."""
        payloads: dict[int, dict[str, Any]] = {}
        why = None
        for at, rank, of, path in sorted(self._files(), key=lambda file: file[1]):
            needed = self._reader(rank, size) == self.ranks.rank or (rank == 0 and size != self.ranks.size)
            if (at, of) == (step, size) and needed and why is None:
                try:
                    payloads[rank] = read(path)
                except Damaged as error:
                    why = f"checkpoint {path.name} is damaged ({error})"
        return payloads, sorted({w for w in self.ranks.gather(why) if w is not None})

    def _tell(self, damaged: list[str], found: bool) -> None:
        if not self.ranks.first:
            return
        for why in damaged:
            self.say(f"{why}; {f'the one before, of step {self._step}, is used' if found else 'training starts over'}")
        files = len(self._files())
        if files and not found and not damaged:
            self.say(
                f"{files} checkpoint files in {self.folder} are no whole set for {self.ranks.size} processes (those of "
                "another number must all lie in one folder that all see); this training starts over"
            )

    def step(self, state: Callable[[], dict[str, Any]]) -> None:
        """To be called after each step of the optimiser; saves state() when it is time. Raises Stopped."""
        self._step += 1
        stop = self._stop
        if self.steps:
            due = self._step % self.steps == 0
        else:
            due = time.monotonic() - self._saved_at >= self.seconds
        if self.ranks.size > 1:
            if self._step % AGREE_EVERY:
                stop, due = False, due and bool(self.steps)
            else:
                by_time = 0 if self.steps else int(due)
                agreed = self.ranks.largest([int(stop), by_time])
                stop, due = bool(agreed[0]), due if self.steps else bool(agreed[1])
        if due or stop:
            self.save(state)
        if stop:
            self._join()
            raise Stopped(f"after step {self._step} of {self._what['training']}")

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Copies state() and writes the copy on a thread of its own."""
        start = time.monotonic()
        self._join()
        payload = {"format": FORMAT, "what": self._what, "step": self._step, "state": _copied(state())}
        self._writer = threading.Thread(target=self._write, args=(payload, self._path(self._step)))
        self._writer.start()
        self._saved_at = time.monotonic()
        self.pause = self._saved_at - start

    def rest(self) -> None:
        """The training is over; its checkpoints stay until its results are recorded."""
        self._join()
        self._training = False
        if self._stop:
            raise Stopped("between two trainings")

    def clear(self) -> None:
        """Deletes this rank's checkpoints, the first rank also those of other numbers of ranks: the training is
        finished and its results are recorded."""
        self._join()
        for _, rank, size, path in self._files():
            if (rank, size) == (self.ranks.rank, self.ranks.size) or (self.ranks.first and size != self.ranks.size):
                path.unlink(missing_ok=True)

    # ---- files ------------------------------------------------------------------------------------------------------

    def _suffix(self) -> str:
        return ".pt" if self.ranks.size == 1 else f".rank{self.ranks.rank}of{self.ranks.size}.pt"

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:010d}{self._suffix()}"

    def _files(self) -> list[tuple[int, int, int, Path]]:
        """(step, rank, number of ranks, path) of the checkpoints, the latest first."""
        named = ((NAME.fullmatch(path.name), path) for path in self.folder.glob("*.pt"))
        found = [(int(m[1]), int(m[2] or 0), int(m[3] or 1), path) for m, path in named if m]
        return sorted(found, reverse=True)

    def _own(self) -> list[tuple[int, Path]]:
        mine = (self.ranks.rank, self.ranks.size)
        return [(step, path) for step, rank, size, path in self._files() if (rank, size) == mine]

    def _join(self) -> None:
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _write(self, payload: dict[str, Any], path: Path) -> None:
        try:
            write(payload, path)
            for _, old in self._own()[KEPT:]:
                with suppress(FileNotFoundError):
                    old.unlink()
        except (OSError, RuntimeError) as error:  # torch.save turns some of the first into the second
            left = self._own()
            what = f"the one of step {left[0][0]} is kept" if left else "there is none before it"
            reason = str(error).splitlines()[0]
            self.say(
                f"WARNING: checkpoint {path.name} could not be written ({reason}); training goes on, {what}; make "
                f"room in {self.folder}"
            )


def write(payload: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint under its final name when it is whole, its checksum behind it."""
    with atomic(path) as part:
        torch.save(payload, part)
        with open(part, "rb+") as file:
            checksum = 0
            while piece := file.read(1 << 20):
                checksum = zlib.crc32(piece, checksum)
            file.write(MARK + checksum.to_bytes(4, "little"))


def read(path: Path) -> dict[str, Any]:
    """What write() wrote. Damaged for a file that is not whole; ValueError for one of a newer version."""
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise Damaged(error.strerror) from error
    body, end = content[: -len(MARK) - 4], content[-len(MARK) - 4 :]
    if bytes(end[: len(MARK)]) != MARK:
        raise Damaged("it is cut off")
    if zlib.crc32(body) != int.from_bytes(end[len(MARK) :], "little"):
        raise Damaged("its checksum is wrong")
    payload: dict[str, Any] = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
    if payload["format"] > FORMAT:
        raise ValueError(
            f"{str(path)!r} is of checkpoint format {payload['format']}, this version reads {FORMAT}; "
            "update dualfast, or delete it"
        )
    return payload


def _copied(value: Any) -> Any:
    """The same with all tensors copied to memory, so that training may go on."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)

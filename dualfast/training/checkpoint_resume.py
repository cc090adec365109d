"""Which checkpoint a training resumes from: the latest of which all ranks can read what they need.

On as many ranks as saved it, each reads its own file. On another number, neighbouring parts go to the same new rank, in
order, and all ranks take the model from rank 0's file; that needs one folder that all of them see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dualfast.comm.ranks import Ranks
from dualfast.errors import DamagedCheckpoint
from dualfast.training.checkpoint_files import CheckpointFolder, read


@dataclass(frozen=True)
class FoundCheckpoint:
    """The checkpoint of `step`, saved by `size` ranks: what this rank needs of it.

    payloads: file contents by the rank that saved them, the one with the model first.
    """

    step: int
    size: int
    payloads: dict[int, dict[str, Any]]

    @property
    def what(self) -> dict[str, Any]:
        """The description of the training that saved it."""
        what: dict[str, Any] = next(iter(self.payloads.values()))["what"]
        return what

    def saved_for(self, ranks: Ranks) -> Saved:
        """What this one of `ranks` resumes from."""
        parts = [p["state"] for rank, p in self.payloads.items() if _heir(rank, self.size, ranks) == ranks.rank]
        return Saved(next(iter(self.payloads.values()))["state"], parts, self.size != ranks.size)


@dataclass(frozen=True)
class Saved:
    """What a training resumes from.

    state: this rank's, or rank 0's where another number of ranks saved it (world_size_changed). parts: the states that
    this rank takes over, in rank order; each goes to exactly one rank.
    """

    state: dict[str, Any]
    parts: list[dict[str, Any]]
    world_size_changed: bool


def find_latest(folder: CheckpointFolder, ranks: Ranks, say: Callable[[str], None]) -> FoundCheckpoint | None:
    """The latest complete and undamaged checkpoint, the same on all ranks; None without one. Tells `say` about
    damaged and incomplete ones. All ranks must call it."""
    found, damaged = None, []
    for step, size in _complete(folder, ranks):
        payloads, errors = _read(folder, ranks, step, size)
        if not errors:
            found = FoundCheckpoint(step, size, payloads)
            break
        damaged += errors
    if ranks.is_rank0:
        _report(folder, ranks, damaged, found, say)
    return found


def _complete(folder: CheckpointFolder, ranks: Ranks) -> list[tuple[int, int]]:
    """(step, number of ranks) of the checkpoints whose files are all present, latest first."""
    present: dict[tuple[int, int], set[int]] = {}
    for file in folder.files():
        present.setdefault((file.step, file.size), set()).add(file.rank)
    complete = {
        (step, size)
        for (step, size), there in present.items()
        if (ranks.rank in there if size == ranks.size else len(there) == size)
    }
    common = set.intersection(*ranks.gather(complete))
    return sorted(common, key=lambda checkpoint: (checkpoint[0], checkpoint[1] == ranks.size), reverse=True)


def _heir(rank: int, size: int, ranks: Ranks) -> int:
    """Which of `ranks` takes over from `rank` of `size`."""
    return rank * ranks.size // size


def _read(folder: CheckpointFolder, ranks: Ranks, step: int, size: int) -> tuple[dict[int, dict[str, Any]], list[str]]:
    """What this rank needs of a checkpoint, by the rank that saved it, in rank order; and messages about the files
    that are damaged, on any rank."""
    payloads: dict[int, dict[str, Any]] = {}
    error = None
    for file in sorted(folder.files(), key=lambda file: file.rank):
        needed = _heir(file.rank, size, ranks) == ranks.rank or (file.rank == 0 and size != ranks.size)
        if (file.step, file.size) == (step, size) and needed and error is None:
            try:
                payloads[file.rank] = read(file.path)
            except DamagedCheckpoint as damage:
                error = f"checkpoint {file.path.name} is damaged ({damage})"
    return payloads, sorted({message for message in ranks.gather(error) if message is not None})


def _report(
    folder: CheckpointFolder,
    ranks: Ranks,
    damaged: list[str],
    found: FoundCheckpoint | None,
    say: Callable[[str], None],
) -> None:
    used = "training starts over" if found is None else f"the one before, of step {found.step}, is used"
    for message in damaged:
        say(f"{message}; {used}")
    files = len(folder.files())
    if files and found is None and not damaged:
        say(
            f"the {files} checkpoint files in {folder.folder} are not a complete set for {ranks.size} processes (files "
            "saved by another number must all be in one folder that all processes see); this training starts over"
        )

"""Where a Loader is in its epochs: one immutable value, replaced as batches are handed out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dualfast.arguments import checked_int
from dualfast.loading.order import EpochSegment


@dataclass(frozen=True)
class Cursor:
    """`batch` batches of epoch `epoch` have been handed out.

    segments: what other numbers of processes visited of this epoch before its batch 0. running: an iteration has begun
    here, so that the next one begins the next epoch."""

    epoch: int = 0
    batch: int = 0
    segments: tuple[EpochSegment, ...] = ()
    running: bool = False

    def next_start(self) -> Cursor:
        """Where the next iteration begins."""
        return Cursor(self.epoch + 1) if self.running else self

    def begin(self) -> Cursor:
        """The next iteration has begun."""
        return replace(self.next_start(), running=True)

    def advance(self) -> Cursor:
        """One more batch has been handed out."""
        return Cursor(self.epoch, self.batch + 1, self.segments, self.running)  # every batch: cheaper than replace()

    def finish(self) -> Cursor:
        """The running iteration has handed out its last batch."""
        return self.next_start()

    def restart(self) -> Cursor:
        """The start of the epoch that the next iteration visits, as another selection or seed needs it."""
        return Cursor(self.next_start().epoch)

    def state(self) -> dict[str, Any]:
        """Plain integers and lists of them, for a checkpoint."""
        return {"epoch": self.epoch, "batch": self.batch, "legs": [list(segment) for segment in self.segments]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], world_size: int) -> Cursor:
        """The cursor of a Loader's state_dict on `world_size` processes. Where the state was saved on another number
        of them, the batches they took become a segment, and what is left of the epoch is shared out again. TypeError or
        ValueError for a value that state() does not make."""
        epoch, batch, saved_on, batch_size = (
            checked_int(f"the state's {name}", state[name], low)
            for name, low in (("epoch", 0), ("batch", 0), ("world_size", 1), ("batch_size", 1))
        )
        segments = _segments(state["legs"])
        if saved_on == world_size or not batch:
            return cls(epoch, batch, segments)
        return cls(epoch, 0, (*segments, EpochSegment(batch_size, saved_on, batch)))


def _segments(legs: Any) -> tuple[EpochSegment, ...]:
    """The segments that lists of three integers are. TypeError or ValueError for anything else."""
    lists = (list, tuple)
    if not isinstance(legs, lists) or not all(isinstance(leg, lists) and len(leg) == 3 for leg in legs):
        raise ValueError(f"the state's legs are {legs!r:.80}; give what state_dict() returned")
    return tuple(EpochSegment(*(checked_int("a number of the state's legs", n, 1) for n in leg)) for leg in legs)

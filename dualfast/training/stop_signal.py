"""Stopping a run by SIGTERM or SIGUSR1, as job schedulers send them, without losing work."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from dualfast.errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopSignal:
    """Handles SIGTERM and SIGUSR1 while its block runs, on the main thread.

    While `in_training` is set, a signal only sets `received`, and the training stops after its step; otherwise it
    raises Stopped at once.
    """

    def __init__(self) -> None:
        self.received = self.in_training = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def leave_training(self) -> None:
        """From here on a signal raises Stopped at once; so does one that the training did not act on."""
        self.in_training = False
        if self.received:
            raise Stopped("between two trainings")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self.in_training:
            raise Stopped("between two trainings")

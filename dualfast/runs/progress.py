"""What a run reports while it works, and how a terminal shows it."""

from __future__ import annotations

import signal
import threading
from typing import Protocol

from dualfast.errors import printable


class Progress(Protocol):
    """What a run reports while it works."""

    def plan(self, images: int) -> None:
        """The number of images this call will process, counted once per epoch, without finished steps."""

    def step(self, what: str) -> None:
        """A step begins."""

    def images(self, count: int) -> None:
        """`count` more images have been processed."""

    def say(self, line: str) -> None:
        """A line to keep on the screen."""


class NullProgress:
    """Reports nothing: the progress of every rank but rank 0."""

    def plan(self, images: int) -> None: ...

    def step(self, what: str) -> None: ...

    def images(self, count: int) -> None: ...

    def say(self, line: str) -> None: ...


class Console:
    """Progress on a terminal: a bar and lines; without a terminal, lines only; nothing if quiet. Handles Ctrl-C while
    its block runs."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = RichConsole(highlight=False, quiet=quiet)
        self.bar = Bar(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, visible=False)
        self.interrupted = False

    def __enter__(self) -> Console:
        self.bar.start()
        # A shell starts background jobs with Ctrl-C ignored; that stays so.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        self.handles_interrupt = not ignored and threading.current_thread() is threading.main_thread()
        if self.handles_interrupt:
            self.previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.handles_interrupt:
            signal.signal(signal.SIGINT, self.previous)
        self.bar.stop()

    def _interrupt(self, *_: object) -> None:
        """Ctrl-C. Also remembered, since an exception raised inside a finalizer is lost."""
        self.interrupted = True
        raise KeyboardInterrupt

    def plan(self, images: int) -> None:
        self.bar.update(self.task, total=images, visible=images > 0)

    def step(self, what: str) -> None:
        self.bar.update(self.task, description=printable(what))

    def images(self, count: int) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.bar.advance(self.task, count)

    def say(self, line: str) -> None:
        self.console.print(printable(line), markup=False, soft_wrap=True)

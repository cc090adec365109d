"""What a run reports while it works, and how a terminal shows it."""

from __future__ import annotations

import sys
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

    def note(self, line: str) -> None:
        """The same, of what a user should know of and may not expect."""


class NullProgress:
    """Reports nothing: the progress of every rank but rank 0."""

    def plan(self, images: int) -> None: ...

    def step(self, what: str) -> None: ...

    def images(self, count: int) -> None: ...

    def say(self, line: str) -> None: ...

    def note(self, line: str) -> None:
        self.say(line)


class Console:
    """Progress on a terminal: a bar and lines; without a terminal, lines only; if quiet notes alone, on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.quiet = quiet
        self.console = RichConsole(highlight=False, emoji=False, quiet=quiet)
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

    def __enter__(self) -> Console:
        self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.stop()

    def plan(self, images: int) -> None:
        self.bar.update(self.task, total=images, visible=images > 0)

    def step(self, what: str) -> None:
        self.bar.update(self.task, description=printable(what))

    def images(self, count: int) -> None:
        self.bar.advance(self.task, count)

    def say(self, line: str) -> None:
        self.console.print(printable(line), markup=False, soft_wrap=True)

    def note(self, line: str) -> None:
        if self.quiet:
            print(f"dualfast: note: {printable(line)}", file=sys.stderr)
        else:
            self.say(line)

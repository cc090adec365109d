"""What a run reports while it works, and how a terminal shows it."""

from __future__ import annotations

import sys
from typing import Protocol

from tqdm import tqdm

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
        self.quiet = quiet
        self.bar = tqdm(disable=True)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exc: object) -> None:
        self.bar.close()

    def plan(self, images: int) -> None:
        self.bar.close()
        self.bar = tqdm(
            total=images,
            bar_format="{bar:24} {percentage:3.0f}%  {remaining} left  {desc}",
            smoothing=0.05,  # batches and tests differ in speed
            file=sys.stdout,
            dynamic_ncols=True,
            leave=False,
            disable=self.quiet or images == 0 or not sys.stdout.isatty(),
        )

    def step(self, what: str) -> None:
        self.bar.set_description_str(printable(what))

    def images(self, count: int) -> None:
        self.bar.update(count)

    def say(self, line: str) -> None:
        if not self.quiet:
            with tqdm.external_write_mode():
                print(printable(line), flush=True)

    def note(self, line: str) -> None:
        if self.quiet:
            print(f"dualfast: note: {printable(line)}", file=sys.stderr)
        else:
            self.say(line)

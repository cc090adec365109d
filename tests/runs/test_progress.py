"""What a terminal shows of a run: a bar and lines; a file, lines alone."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from pathlib import Path

import pytest

from dualfast.runs.progress import Console

LINES = ("scored 100 images", "kept 30 of 100")


def show(console: Console, images: int) -> None:
    with console:
        console.plan(images)
        console.step("scoring, seed 0\x1b[31m")
        console.images(images // 2)
        console.say(LINES[0])
        console.images(images - images // 2)
        console.step("retraining, seed 0")
        console.say(LINES[1])


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, images: int, *, quiet: bool = False) -> str:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        show(Console(quiet=quiet), images)
        terminal.write("end")
        terminal.flush()
        text = b""
        while not text.endswith(b"end"):
            text += os.read(ours, 1 << 16)
    os.close(ours)
    return text.decode().removesuffix("end")


def drawn(text: str) -> list[str]:
    """What the terminal holds in the end: a carriage return goes back to where a line begins."""
    rows = []
    for line in text.split("\n"):
        row = ""
        for piece in line.split("\r"):
            row = piece + row[len(piece) :]
        rows.append(row.rstrip())
    return rows


def test_a_terminal_has_a_bar_that_goes_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    text = on_a_terminal(monkeypatch, 100)
    assert "50%" in text
    assert "left  scoring, seed 0\\x1b[31m" in text
    assert "100%" in text
    assert "left  retraining, seed 0" in text
    assert drawn(text) == [*LINES, ""]


def test_nothing_to_do_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(on_a_terminal(monkeypatch, 0)) == [*LINES, ""]
    assert "%" not in on_a_terminal(monkeypatch, 0)


def test_quiet_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_a_terminal(monkeypatch, 100, quiet=True) == ""


def test_a_file_has_lines_alone_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as file, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        show(Console(), 100)
        assert path.read_text().splitlines() == list(LINES)  # before the file is closed

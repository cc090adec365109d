"""The errors of this package that are neither ValueError nor TypeError (bad input) nor OSError (the system's).

All derive from DualfastError, and each from the built-in class that it refines, so that either catches it. The command
line prints them as one line, without a traceback, and with its flags in place of Python's arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class DualfastError(Exception):
    """Base class of the errors below."""


class DataChanged(DualfastError, RuntimeError):
    """A data file was written to while it was open."""


class UnreadableData(DualfastError, RuntimeError):
    """A sample of a data file cannot be read or decoded."""


class IterationLost(DualfastError, RuntimeError):
    """An iteration of a loader cannot continue: the process was forked, or its loading thread has ended."""


class UnsupportedBackward(DualfastError, RuntimeError):
    """A backward pass that DualLoss does not compute: a second one, or a second derivative."""


class UnsupportedCall(DualfastError, NotImplementedError):
    """A method of FFCV's that dualfast does not offer; the message names the replacement."""


class MissingPackage(DualfastError, ImportError):
    """An optional package is not installed; the message names it."""


class DamagedCheckpoint(DualfastError, ValueError):
    """A checkpoint file that is incomplete or corrupted."""


class Stopped(BaseException):
    """SIGTERM or SIGUSR1 stopped the command, and everything is saved; the text says where it stopped. No Exception,
    so that no handler of errors takes it for one."""


@contextmanager
def full_memory(doing: str) -> Iterator[None]:
    """torch says in several ways that memory is full, on a CPU by a RuntimeError; inside, all are a MemoryError."""
    try:
        yield
    except RuntimeError as error:
        line = str(error).strip().partition("\n")[0]
        known = ("not enough memory", "can't allocate memory", "out of memory")
        if not any(text in line for text in known):
            raise
        raise MemoryError(f"{doing}: {line}; lower batch_size or image_size") from error


def printable(text: object) -> str:
    """The text in one line without control characters: names of files may hold escape sequences that a terminal obeys,
    or characters that reverse what is read. They are shown as Python writes them, such as \\x1b."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


COMMAND = re.compile(r"(python -c \"[^\"]*\")")


def in_flags(message: str, options: list[str]) -> str:
    """A message for Python as the command line says it: skip_bad=True is --skip-bad, seed=3 is --seed 3, "seed is 3" is
    "--seed is 3", and batch_size anywhere --batch-size; a program in it stays as it is. options: the names that are
    flags."""
    names = "|".join(sorted(map(re.escape, options), key=len, reverse=True))
    if not names:
        return message
    return "".join(part if COMMAND.match(part) else _in_flags(part, names) for part in COMMAND.split(message))


def _in_flags(message: str, names: str) -> str:
    name = rf"(?<![\w./'\":,=-])({names})"
    message = re.sub(rf"{name}=True\b", lambda m: _flag(m[1]), message)
    message = re.sub(rf"{name}=False\b", lambda m: _flag("no_" + m[1]), message)
    message = re.sub(rf"{name}=(?=\S)", lambda m: _flag(m[1]) + " ", message)
    message = re.sub(rf"(?<!the )(?<!a ){name}(?= is )", lambda m: _flag(m[1]), message)
    message = re.sub(rf"(?<=\braise |\blower ){name}\b", lambda m: _flag(m[1]), message)
    return re.sub(rf"{name}(?![\w./'\"=-])", lambda m: _flag(m[1]) if "_" in m[1] else m[1], message)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

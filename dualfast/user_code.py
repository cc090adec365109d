"""Code that users bring, models and scores: imported by name, and its errors in a line."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import ModuleType

import torch

_NOT_THE_USERS = tuple(Path(file).resolve().parent for file in (torch.__file__, __file__, importlib.__file__))
"""Where code lies that is not a user's."""


def import_named(name: str) -> ModuleType:
    """The module of this name. ValueError, whatever its code raises: the end of a sentence, as "module 'x' does not
    import (SyntaxError: ...)"."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ModuleNotFoundError) else described(error)
        raise ValueError(f"module {name!r} does not import ({reason})") from error


def described(error: BaseException) -> str:
    """An error of a user's code in a line: its type, the first line of its text, and where in that code it is."""
    text = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file.name, line) for file, line in frames if _is_the_users(file)]
    return f"{text} ({own[-1][0]}, line {own[-1][1]})" if own else text


def _is_the_users(file: Path) -> bool:
    return file.is_absolute() and not any(file.is_relative_to(folder) for folder in _NOT_THE_USERS)

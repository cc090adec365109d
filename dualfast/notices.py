"""Warnings of the selection, shown at the line outside the package that led to them."""

from __future__ import annotations

import sys
import warnings


def warn(message: str) -> None:
    """A UserWarning at the caller of the public function, however deep in the package it arises."""
    frame, level = sys._getframe(1), 2
    while frame.f_globals.get("__name__", "").startswith("dualfast.") and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def silent(message: str) -> None:
    """In place of warn, where nothing is to be said."""

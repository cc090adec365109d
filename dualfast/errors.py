"""How a command ends that a signal stopped. Apart, so that the command line need not load torch for it."""

from __future__ import annotations

import os
import shlex


class Stopped(BaseException):
    """A signal asked to stop, and everything is saved; the text says where."""


def resume_command(arguments: list[str]) -> str:
    """The command that goes on with a stopped one."""
    size = os.environ.get("WORLD_SIZE", "1")
    words = ["dualfast"] if size == "1" else ["torchrun", f"--nproc-per-node={size}", "-m", "dualfast"]
    return shlex.join([*words, *arguments])

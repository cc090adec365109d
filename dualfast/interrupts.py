"""Ctrl-C ends a command within GRACE seconds, wherever it is and whatever it waits for."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

GRACE = 1.5  # seconds in which the command may end by itself
EXIT_CODE = 130  # what a shell reports of a command that Ctrl-C ended
MESSAGE = "\ndualfast: stopped; the same command continues after the last finished step\n"
SHOW_CURSOR = b"\x1b[?25h"  # which a progress bar hides

_watched: Watch | None = None


class Watch:
    """Turns Ctrl-C into KeyboardInterrupt until close(), and ends the process when that does not: Python loses an
    exception that is raised in a finalizer, and raises none while the main thread is in compiled code. As every file is
    safe against a kill, this loses no more than the exception does."""

    def __init__(self) -> None:
        self._closed, self._interrupted = threading.Event(), False
        self._pid = os.getpid()
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        # Not a Thread, whose start() waits for ever for one that has no memory to begin.
        _thread.start_new_thread(self._end_after_interrupt, (reader,))
        self._previous_fd = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def close(self) -> None:
        self._closed.set()
        signal.signal(signal.SIGINT, self._previous)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._writer)

    def after_fork(self) -> None:
        """In a forked child, whose signals are not the command's."""
        signal.set_wakeup_fd(self._previous_fd)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if (self._interrupted or _importing(frame)) and os.getpid() == self._pid:
            _end()  # a second Ctrl-C, or an exception that would pass through C++ code, which aborts
        self._interrupted = True
        raise KeyboardInterrupt

    def _end_after_interrupt(self, reader: int) -> None:
        with open(reader, "rb", buffering=0) as signals:
            while (number := signals.read(1)) != bytes([signal.SIGINT]):  # the interpreter writes all that it handles
                if not number:
                    return  # closed
        if not self._closed.wait(GRACE):
            _end()


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _end() -> None:
    if os.isatty(1):
        os.write(1, SHOW_CURSOR)
    os.write(2, MESSAGE.encode())
    os._exit(EXIT_CODE)


def interruptible(run: Callable[[], int]) -> int:
    """run(), or EXIT_CODE after Ctrl-C. Where that is ignored, as in a shell's background jobs, it stays so."""
    global _watched
    if _watched is not None or not _on_main_thread() or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return run()
    _watched = Watch()
    try:
        return run()
    except KeyboardInterrupt:
        sys.stderr.write(MESSAGE)
        return EXIT_CODE
    finally:
        _watched.close()
        _watched = None


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _forked() -> None:
    if _watched is not None:
        _watched.after_fork()


os.register_at_fork(after_in_child=_forked)

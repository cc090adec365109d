"""Ctrl-C ends the command within two seconds: at any moment, when the exception is lost, and inside compiled code."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dualfast import interrupts

SECONDS = 2.0
BUSY = 2.0  # more for a machine that does other work

PREAMBLE = """
import ctypes, os, signal, sys, threading, time
from dualfast.interrupts import interruptible
"""
LOST = """
class Finalizer:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # to this thread: it is handled before __del__ ends
        for _ in range(1000): pass
def run():
    Finalizer()
    print("ready", flush=True)
    time.sleep(60)
    return 0
sys.exit(interruptible(run))
"""
COMPILED = """
def run():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    print("ready", flush=True)
    while True: ctypes.CDLL(None).sleep(60)
sys.exit(interruptible(run))
"""
SWALLOWED = """
def run():
    print("ready", flush=True)
    for turn in range(100):
        try:
            if turn == 0: os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.6)
        except KeyboardInterrupt: pass
    return 0
sys.exit(interruptible(run))
"""


@pytest.mark.parametrize("program", [LOST, COMPILED, SWALLOWED], ids=["lost", "compiled", "swallowed"])
def test_an_interrupt_that_does_not_arrive_ends_the_process(program: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    start = time.monotonic()
    _, error = process.communicate(timeout=30)
    assert time.monotonic() - start < SECONDS + BUSY
    assert process.returncode == 130
    assert error.decode().endswith(interrupts.MESSAGE)


def test_an_interrupt_during_an_import_ends_the_process_at_once(tmp_path: Path) -> None:
    """The exception might pass through the C++ code of an extension module, which aborts."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    program = """
import sys
from dualfast import interrupts

def run():
    try:
        import slow
    except BaseException:
        pass
    return 0

sys.exit(interrupts.interruptible(run))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, interrupts.MESSAGE)


def _interrupted_after(folder: Path, seconds: float) -> tuple[float, int, str]:
    """How long a run lives on after Ctrl-C so many seconds from its start, its exit code, and what it says."""
    command = [sys.executable, "-m", "dualfast", "run", "--epochs", "3000", "--threads", "1", "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    try:
        error = process.communicate(timeout=20)[1].decode()
    except subprocess.TimeoutExpired:
        process.kill()
        error = process.communicate()[1].decode()
    return time.monotonic() - start, process.returncode, error


def test_a_run_ends_at_whatever_moment(tmp_path: Path) -> None:
    moments = [random.SystemRandom().uniform(0.0, 6.0) for _ in range(12)]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(_interrupted_after, [tmp_path / str(at) for at in moments], moments))
    for moment, (seconds, code, error) in zip(moments, ends, strict=True):
        assert seconds < SECONDS + BUSY, (moment, seconds, code, error)
        # Before the package is imported it is the interpreter that ends, in its own ways.
        assert code in (130, -signal.SIGINT, 1), (moment, code, error)
        assert moment < 4.5 or code == 130, (moment, code, error)
        assert code != 130 or error.endswith(interrupts.MESSAGE)


def test_an_ignored_interrupt_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert interrupts.interruptible(lambda: int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)) == 1
    finally:
        signal.signal(signal.SIGINT, previous)


def test_an_interrupt_is_the_exit_code_and_the_handler_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)

    def run() -> int:
        signal.raise_signal(signal.SIGINT)
        return 0

    assert interrupts.interruptible(lambda: interrupts.interruptible(run)) == 130
    assert capsys.readouterr().err == interrupts.MESSAGE
    assert signal.getsignal(signal.SIGINT) is before
    time.sleep(interrupts.GRACE + 0.2)  # this process lives on


def test_the_interrupt_of_a_forked_child_is_its_own() -> None:
    def run() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                os._exit(3)
            os._exit(4)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(interrupts.GRACE + 0.2)
        return code

    assert interrupts.interruptible(run) == 3

"""The fuzzer of readers notices a crash, an exception of a wrong kind, a reader that never ends, and one that asks for
too much memory; and its targets read their own seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parent / "fuzz"
READERS = {
    "os.kill(os.getpid(), 11)": "a crash: -11",
    "{}['missing']": "KeyError",
    "[0 for _ in iter(int, 1)]": "no end after",
    "bytearray(1 << 31)": "asked for more than",
}
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import readers

def read(folder):
    if (folder / "file").read_bytes() != b"seed":
        {reader}

readers.SECONDS = 0.5
readers.TARGETS = {{"one": readers.Target(lambda folder: (folder / "file").write_bytes(b"seed"), ("file",), read)}}
sys.argv = ["readers.py", "--seconds", "2"]
sys.exit(readers.main())
"""


@pytest.mark.parametrize("reader", READERS)
def test_a_wrong_outcome_is_noticed(reader: str) -> None:
    done = _run(["-c", PROGRAM.format(reader=reader), str(FUZZ)])
    assert done.returncode == 1, done.stderr
    assert READERS[reader] in done.stdout


def test_every_target_reads_its_seeds_and_some_inputs() -> None:
    done = _run([str(FUZZ / "readers.py"), "--seconds", "8"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" inputs, 0 wrong") == 12


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("PIL")
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=240)

"""Commands that fail, or are killed, at each call that changes a file or asks for memory: the old state or the new one,
an error or success, and the next call completes it. A few points of each kind; `make faults` tries them all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent / "support"
MOST = {"write": 4, "compact": 3, "select": 3, "score": 2, "run": 2}
"""Points of each of the five kinds, and those around every rename; a run takes seconds."""


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("injecting failures needs a C compiler, on Linux")
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    source = SUPPORT / "fault_shim.c"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@pytest.mark.parametrize("command", MOST)
def test_a_failure_anywhere_leaves_the_old_state_or_the_new_one(command: str, shim: Path) -> None:
    environment = os.environ | {
        "LD_PRELOAD": str(shim),
        "OMP_NUM_THREADS": "1",
        # Allocations as the C library makes them: what the interpreter and Arrow keep for themselves never fails alone.
        "PYTHONMALLOC": "malloc",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
    if os.access("/dev/shm", os.W_OK):
        environment["TMPDIR"] = "/dev/shm"  # where fsync is free
    points = [] if os.environ.get("DUALFAST_ALL_FAULT_POINTS") else ["--most", str(MOST[command])]
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "fault_points.py"), command, *points],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    print(f"{command}: {result['points']} points; tried {result['tried']}; ended {result['ended']}")
    assert not result["wrong"]
    assert set(result["tried"]) == {"kill", "torn write, kill", "ENOSPC", "EIO", "ENOMEM"}

"""Every fault listed in faults.py and faults_files.py, in processes with a time limit.

python tests/test_faults.py --table writes docs/faults.md; with a group's name it runs that group here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "support"))  # as a script, too
import faults
import faults_files  # noqa: F401  adds its cases

PAGE = Path(__file__).resolve().parent.parent / "docs" / "faults.md"
HEAD = """# What happens when something goes wrong

Made by `python tests/test_faults.py --table`; every line is a test, run in a process of its own with a time limit. The
middle column is what FFCV 1.0.2 makes of the same fault, where it was tried.

| fault | FFCV 1.0.2 | dualfast |
|---|---|---|
"""


@cache
def outcomes(group: str) -> dict[int, str | None]:
    """By number of the case: what came of it, None for one that began and did not end. Then how the process ended."""
    command = [sys.executable, "-X", "faulthandler", __file__, group]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=faults.SECONDS[group])
            out, how = done.stdout, f"the process ended with {done.returncode}\n{done.stderr[-3000:]}"
        except subprocess.TimeoutExpired as error:
            out, how = (
                (error.stdout or b"").decode(),
                f"no end after {error.timeout} s\n{(error.stderr or b'').decode()}",
            )
    return dict(json.loads(line) for line in out.splitlines() if line.startswith("[")) | {-1: how}


@pytest.fixture(autouse=True)
def _needs_ffcv() -> None:
    pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)


@pytest.mark.parametrize("number", range(len(faults.CASES)), ids=[case.fault for case in faults.CASES])
def test_fault(number: int) -> None:
    found = outcomes(faults.CASES[number].group)
    assert found.get(number), found[-1]


def table() -> str:
    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    lines = []
    for number, case in enumerate(faults.CASES):
        found = outcomes(case.group)
        lines.append(f"| {case.fault} | {cell(case.ffcv)} | {cell(found.get(number) or found[-1])} |\n")
    return HEAD + "".join(lines)


def test_the_page_is_what_the_tests_find() -> None:
    assert PAGE.read_text(encoding="utf-8") == table(), "python tests/test_faults.py --table writes it anew"


if __name__ == "__main__":
    if sys.argv[1] == "--table":
        PAGE.write_text(table(), encoding="utf-8")
    else:
        faults.main(sys.argv[1])

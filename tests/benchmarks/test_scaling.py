"""docs/scaling.md states the committed measurements."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_page_is_that_of_the_newest_result() -> None:
    scaling = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"))
    assert scaling["PAGE"].read_text(encoding="utf-8") == scaling["page"](scaling["newest"]())

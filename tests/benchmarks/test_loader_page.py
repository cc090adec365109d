"""docs/loader.md says what the committed measurements come to."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_page_is_that_of_the_newest_result() -> None:
    made = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "loader_page.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](made["newest"]())

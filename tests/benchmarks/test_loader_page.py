"""docs/loader.md states the committed measurements."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_page_is_that_of_the_newest_result() -> None:
    loader_page = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "loader_page.py"))
    assert loader_page["PAGE"].read_text(encoding="utf-8") == loader_page["page"](loader_page["newest"]())

"""The table in docs/selection.md states the committed measurements."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_table_is_that_of_the_newest_result() -> None:
    made = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "select_page.py"))
    text = made["PAGE"].read_text(encoding="utf-8")
    assert made["page"](text, made["newest"]()) == text

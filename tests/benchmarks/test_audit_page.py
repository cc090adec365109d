"""The table in docs/audit.md states the committed measurements."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_table_is_that_of_the_results() -> None:
    made = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "audit" / "page.py"))
    text = made["PAGE"].read_text(encoding="utf-8")
    assert made["page"](text, made["rows"]()) == text

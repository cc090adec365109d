"""The deliberate bugs of tests/mutations.py quote lines that are there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def test_each_mutation_quotes_the_code() -> None:
    spec = importlib.util.spec_from_file_location("mutations", TESTS / "mutations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lines = [(one.file, one.old) for one in module.MUTATIONS]
    assert not [(file, old) for file, old in lines if old not in (TESTS.parent / file).read_text(encoding="utf-8")]

"""Fixtures that several test files share."""

from __future__ import annotations

import ast
import functools
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

# Small tensors: one thread is as fast, and a busy machine does not stall it. Tests of threads ask for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in the background a shell's child ignores Ctrl-C, and so would every process that the tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

if sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2):
    # A finalizer that fails inside ast.parse, as numba's may, fails that too (CPython gh-106905). pytest parses to show
    # a failure, and help is made by parsing.
    _parse = ast.parse

    @functools.wraps(_parse)
    def _parse_without_finalizers(*arguments: Any, **options: Any) -> Any:
        enabled = gc.isenabled()
        gc.disable()
        try:
            return _parse(*arguments, **options)
        finally:
            if enabled:
                gc.enable()

    ast.parse = _parse_without_finalizers  # type: ignore[assignment]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """shared/data beside the checkout, with cifar10/*.parquet and imagenet-sample/; the test is skipped without it."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data").is_dir():
            return parent / "shared" / "data"
    pytest.skip("no shared/data folder beside this checkout: real images are not tested")

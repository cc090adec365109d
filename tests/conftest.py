"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# Small tensors: one thread is as fast, and a busy machine does not stall it. Tests of threads ask for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Started in the background a shell's child ignores Ctrl-C, and so would every process that the tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """shared/data beside the checkout, with cifar10/*.parquet and imagenet-sample/; the test is skipped without it."""
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data").is_dir():
            return parent / "shared" / "data"
    pytest.skip("no shared/data folder beside this checkout: real images are not tested")

"""What all tests of runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """A run sets torch's threads; the next test has those from before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)

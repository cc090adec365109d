"""Fixtures that the loader's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from batches import SIDE, N

from dualfast.data import beton


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def small(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loader") / "small.beton"
    beton.write((images, np.arange(N) % 10), path)
    return path

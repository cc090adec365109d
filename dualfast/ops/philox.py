"""The shuffle: a pure function of (seed, epoch, sample id)."""

from __future__ import annotations

import numpy as np
import torch  # noqa: F401  before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C


def order_keys(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]:
    """(n,) keys whose ascending order is the shuffle of (seed, epoch). Each depends on (seed, epoch, id) alone.
    seed and epoch are taken mod 2**64 and 2**32."""
    keys: NDArray[np.uint64] = _C.order_keys(np.ascontiguousarray(ids, np.int64), seed % 2**64, epoch % 2**32)
    return keys

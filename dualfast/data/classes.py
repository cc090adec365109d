"""Class numbers: how far apart they may be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FREE = 1 << 16
SPARSEST = 4


def check_labels(labels: NDArray[np.int64], describe: Callable[[int], str]) -> None:
    """ValueError for a negative label, and for one so large that most of the classes 0 to the largest have no sample: a
    network has an output, and a report a row, for every one of them.

    Labels below 65,536 are free; above, at least every fourth number must occur. describe(row) names a sample.
    """
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        where = describe(int(labels.argmin()))
        raise ValueError(f"{where} has the label {low}; labels start at 0 (unlabelled data cannot be used)")
    if high >= FREE and high >= SPARSEST * (distinct := len(np.unique(labels))):
        raise ValueError(
            f"{describe(int(labels.argmax()))} has the label {high}; labels number the classes from 0, and only "
            f"{distinct:,} occur; give other ids as text"
        )

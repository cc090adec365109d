"""The handwritten digits that come with scikit-learn, by the name "digits" (or "digits:train", "digits:test")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualfast.data.sources.arrays import from_arrays
from dualfast.data.sources.source import Kind, Source

NAME = "digits"


def digits(split: str = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1,797 handwritten digits: images (n, 8, 8, 3) uint8 scaled from 0..16 to 0..255, labels (n,)
    int64. The split is stratified and fixed: 1,437 for "train", 360 for "test". ValueError for any other split."""
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}; the digits have "train" and "test"')
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    ids = np.sort(train if split == "train" else test)
    gray = np.rint(bunch.images[ids] * (255 / 16)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3), labels[ids]


def _open(path: str) -> Source:
    split = path.partition(":")[2] or "train"
    images, labels = digits(split)
    location = f"digits ({split})"
    return from_arrays(images, labels, kind="digits", location=location, class_names="0123456789", name=split)


KIND = Kind(
    accepts=f'"{NAME}"',
    recognizes=lambda path: path == NAME or path.startswith(f"{NAME}:"),
    open=_open,
    splits=lambda path: (f"{NAME}:train", f"{NAME}:test") if path == NAME else None,
)

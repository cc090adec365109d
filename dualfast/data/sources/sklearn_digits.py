"""1,797 handwritten digits by the name "digits" (or "digits:train", "digits:test"); and "noisy-digits", whose training
labels are wrong for 3%, to see that they are found.

digits.npz holds the test images of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (UCI Machine
Learning Repository, 1998, CC BY 4.0), as scikit-learn's load_digits gives them: images (1797, 8, 8) uint8, 0 to 16,
labels (1797,), and is_test (1797,), a fixed stratified split.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import Files
from dualfast.data.sources.arrays import from_arrays
from dualfast.data.sources.source import Kind, Source

NAME, NOISY_NAME = "digits", "noisy-digits"
WRONG = 0.03
"""The fraction of the training labels that are wrong in noisy-digits."""


def digits(split: str = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 8, 8, 3) uint8, scaled from 0..16 to 0..255, and labels (n,) int64: 1,437 for "train", 360 for "test".
    ValueError for any other split."""
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}; the digits have "train" and "test"')
    images, labels, is_test = _stored()
    own = is_test == (split == "test")
    gray = np.rint(images[own] * (255 / 16)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3), labels[own].astype(np.int64)


@lru_cache(maxsize=1)
def _stored() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """images, labels and is_test, as the file holds them."""
    with files(__package__).joinpath("digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return arrays["images"], arrays["labels"], arrays["is_test"]


def wrong_labels(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """labels (n,), of which round(WRONG n) have become another digit, and the rows (k,) of these, ascending: the same
    ones at every call."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(labels), round(WRONG * len(labels)), replace=False))
    noisy = labels.copy()
    noisy[rows] = (noisy[rows] + rng.integers(1, 10, len(rows))) % 10
    return noisy, rows


def _open(path: str) -> Source:
    name, _, part = path.partition(":")
    split = part or "train"
    images, labels = digits(split)
    if name == NOISY_NAME:
        labels, _ = wrong_labels(labels)
    location = f"{name} ({split})"
    return from_arrays(images, labels, kind="digits", location=location, class_names="0123456789", name=split)


def _recognizes(path: str) -> bool:
    return path in (NAME, NOISY_NAME) or path.startswith((f"{NAME}:", f"{NOISY_NAME}:"))


def _splits(path: str) -> dict[str, str]:
    return {"train": f"{path}:train", "test": f"{NAME}:test"} if path in (NAME, NOISY_NAME) else {}


KIND = Kind(
    accepts=f'"{NAME}", "{NOISY_NAME}"',
    recognizes=_recognizes,
    open=_open,
    files=lambda path: Files.none(),
    splits=_splits,
)

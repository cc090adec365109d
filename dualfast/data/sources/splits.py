"""Where the training and the test images of a data set are."""

from __future__ import annotations

from collections.abc import Sequence

from dualfast.data.sources import folder
from dualfast.data.sources.registry import KINDS
from dualfast.data.sources.source import Kind


def splits(data: str, test: str | None = None) -> tuple[str, str | None]:
    """The training images that `data` names and the test images that `test` names, as paths for open_source.

    Without `test`, the two parts of `data`: of the digits, of a CIFAR archive, or of a folder that holds train and val
    (or test), folders or Parquet files; no test images where it does not hold both. A `test` that is the digits or an
    archive means its test part."""
    parts = _parts(data, KINDS)
    if test is None:
        return parts or (data, None)
    test_parts = _parts(test, [kind for kind in KINDS if kind is not folder.KIND])  # a folder is taken as it is
    return "digits:train" if data == "digits" else data, test_parts[1] if test_parts else test


def _parts(path: str, kinds: Sequence[Kind]) -> tuple[str, str] | None:
    return next((parts for kind in kinds if (parts := kind.splits(path)) is not None), None)

"""Class numbers, and how far apart they may be; class names, and what may surprise in them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

FREE = 1 << 16
SPARSEST = 4
NONE = frozenset({"na", "n/a", "null", "none", "?", "-"})
MISSING = NONE | {"unlabeled", "unlabelled"}
"""Names, in lower case, that may say that an image has no label."""


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
    if not is_dense(labels):
        raise ValueError(
            f"{describe(int(labels.argmax()))} has the label {high}; labels number the classes from 0, and only "
            f"{len(np.unique(labels)):,} occur; give other ids as text"
        )


def is_dense(labels: NDArray[np.int64]) -> bool:
    """Whether labels are so close together that they may number classes, as check_labels wants them."""
    high = int(labels.max(initial=0))
    return high < FREE or high < SPARSEST * len(np.unique(labels))


def folded(name: str) -> str:
    """The name, whatever the case of its letters, the form of its accents and the spaces around it."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def composed(name: str) -> str:
    """The name with every accent in its letter's own character, as macOS does not write it."""
    return unicodedata.normalize("NFC", name)


def different(names: Sequence[str]) -> str:
    """Names that are nearly equal, for a message, in which they must not look the same."""
    look_alike = len(set(map(composed, names))) < len(names)
    return " and ".join(map(ascii if look_alike else repr, names))


def notes_on(names: Sequence[str]) -> list[str]:
    """What a user should know of class names, which are numbered in this order: that numbers are in the order of text
    (10 before 2), and that some are nearly equal."""
    notes = []
    if all(name.isdecimal() for name in names):
        other = next((i for i, name in enumerate(sorted(names, key=int)) if name != names[i]), None)
        if other is not None:
            notes.append(f"the class names are numbers and in the order of text: label {other} is class {names[other]}")
    numbers = [name for name in names if name.lstrip("-").isdecimal()]
    if numbers and len(numbers) < len(names):
        word = next(name for name in names if name not in numbers)
        notes.append(f"some class names are numbers ({', '.join(numbers[:3])}), and others are not ({word})")
    if doubtful := [name for name in names if name.lower() in MISSING]:
        notes.append(f"a class is called {', '.join(doubtful)}, which may stand for a label that is missing")
    alike = defaultdict(list)
    for name in names:
        alike[folded(name)].append(name)
    pairs = [different(same) for same in alike.values() if len(same) > 1]
    if pairs:
        notes.append(f"classes whose names differ only in case, spaces or accents: {', '.join(pairs[:5])}")
    return notes

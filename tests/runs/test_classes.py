"""dualfast.runs.classes: test images belong to the training classes of the same name, in whatever order and number."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualfast.runs.classes import match


def data(labels: list[int], names: str | None = None) -> Any:
    return SimpleNamespace(
        labels=np.array(labels, np.int64), class_names=None if names is None else tuple(names.split())
    )


@pytest.mark.parametrize(
    ("train", "test", "renumbered", "noted"),
    [
        (data([0, 1, 2], "a b c"), data([2, 1, 0], "a b c"), [2, 1, 0], ""),
        (data([0, 1, 2], "a b c"), data([1, 0], "a c"), [2, 0], "no images of 1 of 3 classes: b"),
        (data([0, 1, 2], "a b c"), data([0, 1, 2], "c a b"), [2, 0, 1], ""),
        (data([0, 1, 2], "a b c"), data([2, 2], "x y b z"), [1, 1], "no images of 2 of 3 classes: a, c"),
        # Numbers are the names of data without any.
        (data([0, 1, 2]), data([0, 2]), [0, 2], "no images of 1 of 3 classes: 1"),
        (data([0, 1, 2], "1 10 2"), data([1, 2, 10]), [0, 2, 1], "classes are matched by name, and numbers are taken"),
        (data([*range(11)]), data([0, 1, 2, 3], "0 1 10 2"), [0, 1, 10, 2], "no images of 7 of 11 classes: 3, 4, 5"),
        (
            data([0, 1, 2], "00000 00001 00002"),
            data([2, 0]),
            [2, 0],
            "classes are matched by name, and numbers are taken",
        ),
        (data([0, 1, 2]), data([0, 1], "002 001"), [2, 1], "no images of 1 of 3 classes: 0"),
        # Where only one of them has names, these are all that is known.
        (data([0, 1, 2], "a b c"), data([2, 0]), [2, 0], "only one of training and test images has class names"),
        (data([0, 1, 2]), data([1, 0], "a b"), [1, 0], "classes are matched by number"),
        # é as one character, and as macOS writes it, in two.
        (data([0, 1], "caf\u00e9 the"), data([1, 0], "cafe\u0301 the"), [1, 0], ""),
        # A test class without training images.
        (data([0, 2, 2]), data([0, 1, 2]), [0, 1, 2], "of 1 of its classes the training images hold none: 1"),
        # A name that comes twice stays where it is.
        (data([0, 1, 2], "crane b crane"), data([0, 1, 2], "crane b crane"), [0, 1, 2], ""),
    ],
)
def test_classes_are_matched_by_name(train: Any, test: Any, renumbered: list[int], noted: str) -> None:
    numbers, notes = match(train, test, "test.beton")
    assert (test.labels if numbers is None else numbers[test.labels]).tolist() == renumbered
    assert noted in "; ".join(notes)
    assert bool(noted) == bool(notes)
    assert all(note.startswith("test.beton: ") for note in notes)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (data([0, 1], "a b"), data([0, 1, 2, 2], "a b x"), r"has 1 class that the .* lack: x \(2 images\); remove"),
        (data([0, 1], "a b"), data([0, 1, 2], "x y b"), r"has 2 classes that the .* lack: x, y \(2 images\)"),
        (data([0, 1], "a b"), data([0, 1], "A b"), r"equal in every letter: 'A' and 'a'\)"),
        (data([0, 1, 2], "10 2 9"), data([0, 1, 2]), r"has 2 classes that the training images lack: 0, 1"),
        (data([0, 1]), data([0, 2]), r"has 1 class that the training images lack: 2"),
        (data([0, 1], "a b"), data([0, 2]), r"has 2 classes that the training images lack: 0, 2"),
        (data([0, 1], "a b"), data([0, 2], "a b"), "has the label 2 and names 2 classes"),
        (data([0, 1]), data([0, -1]), "has the label -1; labels start at 0"),
    ],
)
def test_a_class_that_the_training_images_lack_is_named(train: Any, test: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^test\.beton {said}|^test\.beton .*{said}"):
        match(train, test, "test.beton")

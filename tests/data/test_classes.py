"""Labels that would make a network of billions of outputs are refused, wherever they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_sets import assert_refused

from dualfast.data import beton, sources
from dualfast.data.classes import FREE, check_labels, notes_on
from dualfast.runs.commands import score
from dualfast.runs.progress import NullProgress


def test_labels_may_have_gaps_but_not_be_sparse() -> None:
    for labels in ([0, 3], [0, FREE - 1], np.arange(0, 4 * FREE, 4), np.arange(10 * FREE), []):
        check_labels(np.asarray(labels, np.int64), str)
    for bad in ([0, FREE], [0, 2**31 - 1], [0, 2**62], np.arange(0, 5 * FREE, 5)):
        labels = np.asarray(bad, np.int64)
        high, distinct = int(labels.max()), len(labels)
        words = f"{int(labels.argmax())} has the label {high}; labels number .* only {distinct:,} occur"
        with pytest.raises(ValueError, match=words):
            check_labels(labels, str)
    with pytest.raises(ValueError, match="1 has the label -1"):
        check_labels(np.array([0, -1]), str)


@pytest.mark.parametrize("label", [2**31, -1])
def test_of_a_source_and_of_a_beton(tmp_path: Path, label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)
    from dualfast.config import ScoreConfig

    images, labels = np.zeros((6, 8, 8), np.uint8), np.array([0, 1] * 3)
    assert_refused((images, np.where(labels, label, 0)), f"label {label}")
    made = beton.write((images, labels), tmp_path / "x.beton", progress=False)
    data = bytearray(made.path.read_bytes())
    at = data.index(np.int64(1).tobytes(), 2106 + 24)  # the label of sample 1, in its row
    data[at : at + 8] = np.int64(label).tobytes()
    made.path.write_bytes(data)
    (tmp_path / "x.beton.crc").unlink()
    monkeypatch.chdir(tmp_path)
    config = ScoreConfig(data="x.beton", test="x.beton", out="run", score_epochs=2, window=2, epochs=2)
    with pytest.raises(ValueError, match=rf"sample 1 of x.beton has the label {label}"):
        score(config, NullProgress())


def test_classes_without_images_are_named() -> None:
    source = sources.open_source((np.zeros((4, 4, 4), np.uint8), [1, 2, 1, 2]))
    assert source.notes() == ["1 of 3 classes have no image: 0"]
    assert replace(source, class_names=("a", "b", "c")).notes() == ["1 of 3 classes have no image: a"]
    assert replace(source, is_test=True).notes() == []


def test_names_that_look_alike_or_may_say_that_a_label_is_missing() -> None:
    assert notes_on(["NA", "cat", "none"]) == [
        "a class is called NA, none, which may stand for a label that is missing"
    ]
    (alike,) = notes_on(["e\u0301", "\xe9", "Cat", "cat "])
    assert alike.endswith(r"accents: 'e\u0301' and '\xe9', 'Cat' and 'cat '")


def test_numbers_among_names_are_said() -> None:
    assert notes_on(["3", "911", "cayenne"]) == ["some class names are numbers (3, 911), and others are not (cayenne)"]
    assert notes_on(["a", "b"]) == []

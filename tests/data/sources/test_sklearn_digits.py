"""The digits: a fixed split."""

from __future__ import annotations

import numpy as np
import pytest

from dualfast.data import sources


def test_the_digits_are_those_of_scikit_learn() -> None:
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    split = pytest.importorskip("sklearn.model_selection").train_test_split
    parts = split(np.arange(1797), test_size=360, stratify=theirs.target, random_state=0)
    for part, ids in zip(("train", "test"), map(np.sort, parts), strict=True):
        images, labels = sources.digits(part)
        assert (labels == theirs.target[ids]).all()
        assert (images == np.rint(theirs.images[ids] * (255 / 16))[..., None]).all()


def test_digits_have_a_fixed_stratified_split() -> None:
    train, labels = sources.digits("train")
    test, test_labels = sources.digits("test")
    assert train.shape == (1437, 8, 8, 3)
    assert test.shape == (360, 8, 8, 3)
    assert train.dtype == np.uint8
    assert train.max() == 255
    assert labels.dtype == np.int64
    share = np.bincount(test_labels) / (np.bincount(labels) + np.bincount(test_labels))
    assert np.abs(share - 360 / 1797).max() < 0.01
    both = np.concatenate([train, test]).reshape(1797, -1)
    assert len(np.unique(both, axis=0)) == 1797  # every digit once
    assert (sources.digits("train")[0] == train).all()
    with pytest.raises(ValueError, match="train"):
        sources.digits("all")


def test_noisy_digits_have_wrong_training_labels_and_right_test_labels() -> None:
    train, test = sources.splits("noisy-digits")
    assert (train, test) == ("noisy-digits:train", "digits:test")
    noisy = sources.open_source(train)
    assert (noisy.labels != sources.digits("train")[1]).sum() == 43
    assert len(noisy) == 1437

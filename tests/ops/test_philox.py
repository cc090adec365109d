"""Philox4x32-10 against its published vectors, the reference and the compiled forms against each other."""

from __future__ import annotations

import numpy as np
import pytest

from dualfast import ops, reference

# From kat_vectors of the authors' Random123 distribution: counter, key, result.
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_reference_gives_the_published_words(counter: str, key: str, words: str) -> None:
    def numbers(text: str) -> np.ndarray:
        return np.array([int(word, 16) for word in text.split()], np.uint32)

    assert (reference.philox4x32(numbers(counter)[None], numbers(key))[0] == numbers(words)).all()


def test_order_keys_are_the_philox_words() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**62, 1000)
    seed, epoch = 0xA4093822299F31D0, 0x13198A2E
    counter = np.zeros((1000, 4), np.uint32)
    counter[:, 0], counter[:, 1], counter[:, 2], counter[:, 3] = ids & 0xFFFFFFFF, ids >> 32, epoch, 0x6F726472
    words = reference.philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)).astype(np.uint64)
    assert (ops.order_keys(ids, seed, epoch) == (words[:, 1] << np.uint64(32) | words[:, 0])).all()


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("count", [1, 3, 8, 13, 1024, 1027, 30_001])
def test_uniforms_of_the_race_at_every_code_level(level: int, count: int) -> None:
    ids = np.random.default_rng(count).integers(0, 2**62, count)
    ids[0] = 2**63 - 1
    ops.set_level(level)
    try:
        keys = ops.race_keys(ops.Race(count, 2**64 - 5, ids=ids))
    finally:
        ops.set_level(2)
    # A wrong word would move the key by far more than an error of the logarithm.
    np.testing.assert_allclose(keys, np.log(-np.log(reference.uniforms(2**64 - 5, ids))), rtol=0, atol=2e-14)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_neighbours_that_share_a_block_have_words_of_their_own(level: int) -> None:
    """Samples in a row take the four words of a Philox block in turn, wherever the row begins and ends."""
    ops.set_level(level)
    try:
        for first in (0, 1, 2, 3, 2**34 - 2, 2**62 + 1):
            for count in (1, 2, 5, 255, 257, 1030):
                ids = np.arange(first, first + count)
                keys = ops.race_keys(ops.Race(count, 7, first=first))
                assert (keys == ops.race_keys(ops.Race(count, 7, ids=ids))).all()
                assert (keys[::3] == ops.race_keys(ops.Race(count, 7, first=first), np.arange(0, count, 3))).all()
                np.testing.assert_allclose(keys, np.log(-np.log(reference.uniforms(7, ids))), rtol=0, atol=2e-14)
    finally:
        ops.set_level(2)


def test_uniforms_are_uniform() -> None:
    u = reference.uniforms(3, np.arange(100_000))
    counts = np.histogram(u, 100, (0, 1))[0]
    # Chi-square with 99 degrees of freedom exceeds 148 with probability 0.001.
    assert ((counts - 1000) ** 2 / 1000).sum() < 148
    assert u.min() > 0
    assert u.max() < 1

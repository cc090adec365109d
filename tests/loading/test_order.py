"""Orders are pure functions; every sample comes once over all ranks; a selection is checked before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualfast.data.index_list import as_indices
from dualfast.loading import order


def philox4x32(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python integers, after Salmon et al., SC 2011."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def test_shuffle_follows_philox_keys() -> None:
    assert philox4x32([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # known answer
    seed, epoch = 2**40 + 7, 3
    ids = np.array([5, 2**33 + 1, 0, 77, 2**62, 12], np.int64)
    keys = {}
    for i in ids.tolist():
        words = philox4x32([i & 0xFFFFFFFF, i >> 32, epoch, 0x6F726472], [seed & 0xFFFFFFFF, seed >> 32])
        keys[i] = words[1] << 32 | words[0]
    assert order.random_order(ids, seed, epoch).tolist() == sorted(keys, key=keys.__getitem__)


def test_shuffle_is_uniform_and_reproducible() -> None:
    ids = np.arange(10_000)
    one = order.random_order(ids, 1, 0)
    assert (order.random_order(ids[::-1].copy(), 1, 0) == one).all()
    assert sorted(one) == list(range(10_000))
    for other in (order.random_order(ids, 1, 1), order.random_order(ids, 2, 0)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    # The mean displacement of a uniform shuffle is n/3; its standard error here is about 24.
    assert abs(np.abs(one - ids).mean() - 10_000 / 3) < 120
    kept = ids[::3]
    assert (order.random_order(kept, 1, 0) == one[one % 3 == 0]).all()  # a subset keeps its relative order


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_every_sample_comes_once_over_all_ranks(n: int, batch: int, world: int, drop_last: bool) -> None:
    ids = order.random_order(np.arange(n), 0, 0)
    shares = [order.share(ids, batch, rank=r, world_size=world, drop_last=drop_last) for r in range(world)]
    steps = order.n_batches(n, batch, world, drop_last)
    real = []
    for share in shares:
        assert len(share) == steps
        sizes = np.diff(share.starts)
        assert (sizes >= 1).all()
        assert (sizes <= batch).all()
        assert share.starts[-1] == len(share.ids)
        if share.padding:
            assert (sizes[-share.padding :] == 1).all()  # padding stands alone in its batch
        real += share.ids[: len(share.ids) - share.padding].tolist()
    if drop_last:
        assert len(real) == len(set(real)) == n // (batch * world) * batch * world
        assert all((np.diff(s.starts) == batch).all() and not s.padding for s in shares)
    else:
        assert sorted(real) == list(range(n))
    if world == 1:
        assert shares[0].ids.tolist() == ids[: len(shares[0].ids)].tolist()


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=4),
)
def test_an_epoch_that_other_ranks_continue_visits_every_sample_once(
    n: int, stretches: list[tuple[int, int, float]]
) -> None:
    ids, segments, real = order.random_order(np.arange(n), 0, 0), [], []
    for at, (batch, world, fraction) in enumerate(stretches):
        left = ids[order.unvisited(n, segments, False)]
        steps = order.n_batches(len(left), batch, world, False)
        batches = steps if at + 1 == len(stretches) else int(fraction * steps)
        for rank in range(world):
            share = order.share(left, batch, rank=rank, world_size=world)
            assert len(share) == steps
            real += share.ids[: min(share.starts[batches], len(share.ids) - share.padding)].tolist()
        segments.append(order.EpochSegment(batch, world, batches))
    assert sorted(real) == list(range(n))
    assert not order.unvisited(n, segments, False).any()


@pytest.mark.parametrize(
    "given_indices",
    [
        [4, 1, 7],
        (4, 1, 7),
        np.array([4, 1, 7], np.uint8),
        np.array([4, 1, 7], np.uint64),
        torch.tensor([4, 1, 7]),
    ],
)
def test_selection_keeps_the_order_given(given_indices: Any) -> None:
    chosen = as_indices(given_indices, 8)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == [4, 1, 7]


def test_selection_of_all_masks_ranges_and_files(tmp_path: Path) -> None:
    mask = np.array([0, 1, 0, 1], bool)
    assert as_indices(None, 3).tolist() == [0, 1, 2]
    assert as_indices(range(5, 0, -2), 8).tolist() == [5, 3, 1]
    for form in (mask, mask.tolist(), torch.from_numpy(mask)):
        assert as_indices(form, 4).tolist() == [1, 3]
    np.save(tmp_path / "keep.npy", np.array([2, 0]))
    assert as_indices(tmp_path / "keep.npy", 4).tolist() == [2, 0]
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        as_indices(tmp_path / "objects.npy", 4)


@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        ([], ValueError, "empty"),
        (np.array([], np.int64), ValueError, "empty"),
        (range(0), ValueError, "empty"),
        (np.zeros(8, bool), ValueError, "selects nothing"),
        (np.ones(7, bool), ValueError, "7 entries"),
        ([1.0, 2.0], TypeError, "float64"),
        (np.array(["1"]), TypeError, "boolean mask"),
        ([[1, 2]], ValueError, "1-D"),
        (np.ones((8, 1), bool), ValueError, "1-D"),
        (3, ValueError, "1-D"),
        ([1, 8], ValueError, r"indices\[1\] is 8; the data set has samples 0 to 7"),
        ([0, 10**7], ValueError, "10000000"),
        ([2**64 - 1], ValueError, "18446744073709551615"),
        ([3, -1], ValueError, r"indices\[1\] is -1"),
        ([3, 1, 3], ValueError, "sample 3 more than once"),
        (np.array([0, 1, 1, 0, 1, 0, 0, 0], np.uint8), ValueError, "a mask must be boolean"),
        ("nowhere.npy", ValueError, "not a file"),
    ],
)
def test_bad_selections_are_named(bad: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        as_indices(bad, 8)

"""PrunedSampler and RandomSubsetSampler: every sample once, orders of (seed, epoch), resuming, ranks."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import dualfast
from dualfast.loading.order import random_order
from dualfast.selection.select import kept_count

IDS = np.sort(np.random.default_rng(0).choice(1000, 211, replace=False))


def test_every_sample_once_in_the_order_of_seed_and_epoch() -> None:
    sampler = dualfast.PrunedSampler(IDS, seed=3, epoch=2)
    first = list(sampler)
    assert first == random_order(IDS, 3, 2).tolist()
    assert first == list(sampler)  # another pass, the same epoch
    assert all(type(i) is int for i in first)
    assert len(sampler) == 211
    sampler.set_epoch(3)
    assert sorted(sampler) == IDS.tolist()
    assert list(sampler) != first
    assert list(dualfast.PrunedSampler(IDS, seed=4, epoch=2)) != first
    assert list(dualfast.PrunedSampler(IDS[::-1].copy(), shuffle=False)) == IDS[::-1].tolist()


def test_indices_of_every_kind(tmp_path: Path) -> None:
    mask = np.isin(np.arange(1000), IDS)
    np.save(tmp_path / "keep.npy", IDS)
    want = list(dualfast.PrunedSampler(IDS))
    for given in (mask, torch.from_numpy(IDS), IDS.tolist(), IDS.astype(np.uint16), tmp_path / "keep.npy"):
        assert list(dualfast.PrunedSampler(given)) == want
    assert sorted(dualfast.PrunedSampler(range(4, 8))) == [4, 5, 6, 7]


@pytest.mark.parametrize("world", [1, 2, 3, 8, 300])
def test_ranks_share_without_repeats_or_gaps(world: int) -> None:
    parts = [dualfast.PrunedSampler(IDS, 5, 1, rank=r, num_replicas=world) for r in range(world)]
    visited = [list(part) for part in parts]
    assert sorted(chain(*visited)) == IDS.tolist()
    assert [len(part) for part in parts] == [len(v) for v in visited]
    assert max(map(len, visited)) - min(map(len, visited)) <= 1


@pytest.mark.parametrize("used", [0, 1, 57, 211])
def test_resumes_in_the_middle_of_an_epoch(used: int) -> None:
    sampler = dualfast.PrunedSampler(IDS, seed=3)
    sampler.set_epoch(4)
    whole, running = list(sampler), iter(sampler)
    assert [next(running) for _ in range(used)] == whole[:used]
    state = sampler.state_dict()
    other = dualfast.PrunedSampler(IDS, seed=3)
    other.load_state_dict(state)
    assert other.state_dict() == state
    other.set_epoch(4)  # as a training loop does before the epoch it continues
    assert list(other) == whole[used:]
    assert list(other) == whole  # the pass after that is whole
    other.load_state_dict(state)
    other.set_epoch(5)
    assert sorted(other) == IDS.tolist()


def test_resumes_where_a_loader_with_workers_stopped_using() -> None:
    data = TensorDataset(torch.arange(1000))
    sampler = dualfast.PrunedSampler(IDS, seed=1)
    loader = DataLoader(data, batch_size=10, sampler=sampler, num_workers=1, prefetch_factor=4)
    seen: list[int] = []
    for (batch,) in loader:
        seen += batch.tolist()
        if len(seen) == 50:
            break
    assert sampler.state_dict()["position"] > 50  # the worker runs ahead
    state = sampler.state_dict(position=len(seen))
    other = dualfast.PrunedSampler(IDS, seed=1)
    other.load_state_dict(state)
    rest = [i for (batch,) in DataLoader(data, batch_size=10, sampler=other) for i in batch.tolist()]
    assert seen + rest == random_order(IDS, 1, 0).tolist()


def test_random_subsets_are_fresh_exact_and_uniform() -> None:
    sampler = dualfast.RandomSubsetSampler(50, 0.7, seed=2)
    counts = np.zeros(50)
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(set(drawn)) == len(drawn) == len(sampler) == kept_count(50, 0.7)
        counts[drawn] += 1
    # Each count is binomial(2000, 0.3): five standard deviations are 102; for 50 of them that fails once in 35,000.
    assert np.abs(counts - 600).max() < 102
    parts = [list(dualfast.RandomSubsetSampler(IDS, 0.9, 1, 7, rank=r, num_replicas=3)) for r in range(3)]
    whole = list(dualfast.RandomSubsetSampler(IDS, 0.9, 1, 7))
    assert sorted(chain(*parts)) == sorted(whole)
    assert set(whole) <= set(IDS.tolist())


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: dualfast.PrunedSampler([1, 2, 1]), ValueError, "1 more than once"),
        (lambda: dualfast.PrunedSampler([]), ValueError, "empty"),
        (lambda: dualfast.PrunedSampler([0.5, 1.0]), TypeError, "float64"),
        (lambda: dualfast.PrunedSampler([-1, 2]), ValueError, "-1"),
        (lambda: dualfast.PrunedSampler(None), TypeError, "None"),
        (lambda: dualfast.PrunedSampler("no.npy"), ValueError, "no.npy"),
        (lambda: dualfast.PrunedSampler(np.zeros(5, bool)), ValueError, "selects nothing"),
        (lambda: dualfast.PrunedSampler(np.zeros((5, 1), int)), ValueError, "1-D"),
        (lambda: dualfast.PrunedSampler(3), ValueError, "1-D"),
        (lambda: dualfast.PrunedSampler([1], seed=-1), ValueError, "seed is -1"),
        (lambda: dualfast.PrunedSampler([1], seed=2**64), ValueError, "seed"),
        (lambda: dualfast.PrunedSampler([1], seed=True), TypeError, "seed is True"),
        (lambda: dualfast.PrunedSampler([1], epoch=1.5), TypeError, "epoch is 1.5"),
        (lambda: dualfast.PrunedSampler([1], rank=2, num_replicas=2), ValueError, "rank is 2"),
        (lambda: dualfast.PrunedSampler([1], num_replicas=0), ValueError, "num_replicas is 0"),
        (lambda: dualfast.PrunedSampler([1]).set_epoch(-1), ValueError, "epoch is -1"),
        (lambda: dualfast.PrunedSampler([1]).state_dict(2), ValueError, "position is 2"),
        (lambda: dualfast.RandomSubsetSampler(10, 1.0), ValueError, "prune_ratio is 1.0"),
        (lambda: _load({"seed": 1}), ValueError, "seed 1, this sampler 0"),
        (lambda: _load({"num_replicas": 2}), ValueError, "num_replicas"),
        (lambda: _load({"n_samples": 9}), ValueError, "n_samples 9"),
        (lambda: _load({"position": 99}), ValueError, "position is 99"),
    ],
)
def test_bad_input(make: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()


def _load(change: dict[str, int]) -> None:
    sampler = dualfast.PrunedSampler([1, 2, 3])
    sampler.load_state_dict({**sampler.state_dict(), **change})

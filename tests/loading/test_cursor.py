"""Epochs count up and resume: batch for batch, on other numbers of ranks, after another selection or seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from batches import N, collect

from dualfast.loading import order
from dualfast.loading.cursor import Cursor
from dualfast.loading.loader import Loader


def test_a_cursor_is_replaced_and_never_changed() -> None:
    start = Cursor(3, 5, (order.EpochSegment(4, 2, 7),))
    assert start.next_start() is start
    running = start.begin().advance()
    assert (running.epoch, running.batch, running.segments) == (3, 6, start.segments)
    assert running.next_start() == running.finish() == running.restart() == Cursor(4)
    assert start.restart() == Cursor(3)
    assert start == Cursor(3, 5, (order.EpochSegment(4, 2, 7),))


def test_states_of_version_0_1_are_read(small: Path) -> None:
    with Loader(small, 30, seed=2) as loader:
        selection = {name: loader.state_dict()[name] for name in ("n_selected", "selected_crc")}
        state = {"epoch": 4, "batch": 3, "legs": [[15, 2, 1]], "seed": 2, "batch_size": 30, "world_size": 1}
        loader.load_state_dict(state | selection)
        assert (loader.next_epoch, loader.remaining) == (4, -(-(N - 30) // 30) - 3)
        assert (state | selection).items() <= loader.state_dict().items()
    assert selection == {"n_selected": 203, "selected_crc": 3974160363}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", "1"), ("epoch", -1), ("epoch", 1.5), ("batch", None), ("batch", 10**400), ("world_size", 0)),
        *(
            ("legs", "a"),
            ("legs", None),
            ("legs", [1]),
            ("legs", [[1, 2]]),
            ("legs", [[1, 2, 0]]),
            ("legs", [[1, 2, "3"]]),
        ),
    ],
)
def test_damaged_states_are_refused(name: str, value: Any, small: Path) -> None:
    with Loader(small, 30) as loader:
        before = loader.state_dict()
        with pytest.raises((TypeError, ValueError), match=f"the state's {name}"):
            loader.load_state_dict(before | {name: value})
        assert loader.state_dict() == before


def test_epochs_count_up_and_can_be_set(small: Path) -> None:
    with Loader(small, 100) as loader:
        first, second = collect(loader)[2], collect(loader)[2]
        assert loader.next_epoch == 2
        loader.set_epoch(0)
        assert torch.equal(collect(loader)[2], first)
        assert torch.equal(collect(loader)[2], second)
        assert sorted(first.tolist()) == list(range(N))


def test_resuming_continues_batch_for_batch(small: Path) -> None:
    def make(seed: int = 2) -> Any:
        return Loader(small, 30, augment="crop+flip", seed=seed)

    with make() as loader:
        whole = [list(loader) for _ in range(3)]
    with make() as loader:
        list(loader)
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        state = loader.state_dict()
    assert all(type(value) is int for name, value in state.items() if name != "legs")
    assert (state["epoch"], state["batch"]) == (1, 3)
    with make() as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        rest = [list(loader), list(loader)]
        assert loader.state_dict()["epoch"] == 3
        assert loader.state_dict()["batch"] == 0
    for got, wanted in zip(rest, (whole[1][3:], whole[2]), strict=True):
        assert len(got) == len(wanted)
        for one, two in zip(got, wanted, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    with make(seed=5) as loader, pytest.raises(ValueError, match="seed 2; this loader has 5"):
        loader.load_state_dict(state)
    with make() as loader:
        loader.set_indices(range(30))
        with pytest.raises(ValueError, match="n_selected 203"):
            loader.load_state_dict(state)


def test_another_selection_begins_its_own_epoch(small: Path) -> None:
    with Loader(small, 10) as loader, Loader(small, 10, indices=range(20)) as other:
        iterator = iter(loader)
        for _ in range(8):
            next(iterator)
        loader.set_indices(range(20))
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == (1, 0)
        other.load_state_dict(state)
        assert torch.equal(collect(other)[2], collect(loader)[2])


def test_another_seed_begins_its_own_epoch(small: Path) -> None:
    with Loader(small, 10) as loader, Loader(small, 10, seed=5) as other:
        iterator = iter(loader)
        next(iterator)
        loader.set_seed(5)
        next(iterator)  # of the old seed: moves nothing
        state = loader.state_dict()
        assert (state["epoch"], state["batch"], state["seed"], loader.seed) == (1, 0, 5, 5)
        other.set_epoch(1)
        assert torch.equal(collect(loader)[2], collect(other)[2])
        loader.seed = 0
        assert loader.seed == 0
        with pytest.raises(TypeError, match=r"seed is 1\.5"):
            loader.set_seed(1.5)


def test_an_abandoned_iteration_leaves_its_position(small: Path) -> None:
    with Loader(small, 10) as loader:
        older = iter(loader)
        next(older)
        for at, _ in enumerate(loader):
            if at == 2:
                break
        next(older)
        state = loader.state_dict()
        assert (state["epoch"], state["batch"], loader.next_epoch) == (1, 3, 2)


def test_other_ranks_continue_inside_an_epoch(small: Path) -> None:
    def make(rank: int, size: int, kind: Any) -> Any:
        loader = Loader(small, -(-30 // size), order=kind, seed=2)
        loader._rank, loader._world_size = rank, size  # as torch.distributed would say
        return loader

    for kind in ("random", order.PageRandom(1 << 23)):
        seen: list[int] = []
        state: dict[str, Any] | None = None
        for size, steps in ((2, 3), (3, 2), (1, 100)):
            for rank in range(size):
                with make(rank, size, kind) as loader:
                    if state is not None:
                        loader.load_state_dict(state)
                    expected = loader.remaining
                    iterator = iter(loader)
                    batches = [batch for _, batch in zip(range(steps), iterator, strict=False)]
                    seen += [int(i) for _, labels, ids in batches for i in ids[labels != -100]]
                    after = loader.state_dict()
            assert len(batches) == min(steps, expected)
            state = after
        assert sorted(seen) == list(range(203))
        assert state is not None
        assert (state["epoch"], state["batch"], state["legs"]) == (1, 0, [])


def test_a_state_of_another_order_is_refused(small: Path) -> None:
    with Loader(small, 30, order="random") as loader:
        state = loader.state_dict()
    for options, words in (({"order": "sequential"}, "another order"), ({"drop_last": True}, "drop_last 0")):
        with Loader(small, 30, **options) as other, pytest.raises(ValueError, match=f"was saved with {words}"):
            other.load_state_dict(state)

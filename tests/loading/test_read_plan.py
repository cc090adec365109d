"""Page-local order: every sample once, whole pages in windows within a budget; what is read is what the plan says."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import PageRandom
from dualfast.data import beton
from dualfast.loading import order, read_plan
from dualfast.loading.loader import Loader

N, SIDE, PAGE = 1500, 100, 1 << 21  # 30,000 bytes each, 69 a page


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 MB of raw images on 22 pages, each image filled with its id."""
    path = tmp_path_factory.mktemp("read_plan") / "large.beton"
    values = np.arange(N, dtype=np.uint16)
    images = np.empty((N, SIDE, SIDE, 3), np.uint8)
    images[..., 0], images[..., 1:] = (values >> 8)[:, None, None], (values & 255)[:, None, None, None]
    beton.write((images, np.arange(N) % 3), path, mode="raw", page_size=PAGE)
    return path


def forget(path: Path) -> None:
    """Drops the file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cached(path: Path) -> int:
    """Bytes of the file in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as view:
        blocks = (ctypes.c_ubyte * -(-len(view) // 4096))()
        address = ctypes.c_void_p(np.frombuffer(view, np.uint8).ctypes.data)
        if ctypes.CDLL(None, use_errno=True).mincore(address, ctypes.c_size_t(len(view)), blocks):
            raise OSError(ctypes.get_errno(), "mincore")
        return int((np.frombuffer(blocks, np.uint8) & 1).sum()) * 4096


def bytes_read() -> int:
    return int(re.findall(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[0])


def can_be_cold(path: Path) -> bool:
    forget(path)
    before = bytes_read()
    path.read_bytes()
    return bytes_read() - before >= 0.95 * 512 * path.stat().st_blocks  # the hole before the first page is not read


# ---- the order ------------------------------------------------------------------------------------------------------


def windows(ids: np.ndarray, budget: int, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.full(len(ids), 100, np.int64)
    return order.page_random_order(ids, (ids // 10).astype(np.uint64), sizes, budget, 7, epoch)


def test_pages_come_in_windows_and_each_once() -> None:
    ids = np.flatnonzero(np.random.default_rng(0).random(1000) < 0.4)
    visited, starts = windows(ids, 10_000)
    assert sorted(visited.tolist()) == ids.tolist()
    assert starts[0] == 0
    assert starts[-1] == len(ids)
    inside = [set((visited[a:b] // 10).tolist()) for a, b in pairwise(starts)]
    assert sum(map(len, inside)) == len(set().union(*inside)) == len(np.unique(ids // 10))
    assert (np.diff(starts) * 100 <= 5000).all()
    assert (np.diff(starts)[:-1] * 100 > 5000 - 1000).all()  # as full as whole pages allow
    assert (windows(ids, 10_000)[0] == visited).all()
    assert (windows(ids, 10_000, epoch=1)[0] != visited).any()
    pages = [list(dict.fromkeys((windows(ids, 2000, epoch=e)[0] // 10).tolist())) for e in range(20)]
    assert len({tuple(p) for p in pages}) == 20  # pages are shuffled, too


def test_spread_is_that_of_the_windows() -> None:
    ids = np.arange(20_000)
    assert abs(order.spread(order.random_order(ids, 0, 0)) - 1) < 0.02
    assert order.spread(ids) == pytest.approx(3 / len(ids))
    for share in (2, 10, 50):  # windows of n / share samples
        visited, starts = windows(ids, 2 * 100 * len(ids) // share)
        assert len(starts) - 1 == share
        # Neighbours on one page stay in one window, w/3 places apart; one in ten pairs lies on two pages, n/3 apart.
        assert order.spread(visited) == pytest.approx(0.9 / share + 0.1, rel=0.06)


def test_a_budget_that_holds_no_two_pages_is_refused(large: Path) -> None:
    with pytest.raises(ValueError, match=r"budget_bytes is 1999; .* give at least 2000"):
        windows(np.arange(100), 1999)
    for bad, kind in ((0, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="budget_bytes is"):
            PageRandom(bad)  # type: ignore[arg-type]
    with Loader(large, 8, order=PageRandom(PAGE)) as loader, pytest.raises(ValueError, match="two must fit"):
        next(iter(loader))


def test_blocks_are_counted_once() -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(1, 9000, 500)
    ptr = 777 + np.cumsum(size + rng.integers(0, 5000, 500)) - size
    at = rng.permutation(500)
    blocks = {b for p, s in zip(ptr, size, strict=True) for b in range(p // 4096, (p + s - 1) // 4096 + 1)}
    added = order.block_bytes(ptr[at].astype(np.uint64), size[at].astype(np.uint64))
    assert added.sum() == len(blocks) * 4096
    assert (added >= 0).all()


# ---- the loader -----------------------------------------------------------------------------------------------------


def visit(loader: Any) -> list[int]:
    ids = []
    for images, _, index in loader:
        assert (images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0]).tolist() == index.tolist()
        ids += index.tolist()
    return ids


def open_loader(path: Path, budget: int, **options: Any) -> Any:
    kind = PageRandom(budget)
    return Loader(path, 32, order=kind, image_size=SIDE, dtype=torch.uint8, mean=(0, 0, 0), **options)


@pytest.mark.parametrize("kind", ["random", "sequential", PageRandom()])
def test_a_rank_that_has_padding_alone(large: Path, kind: order.OrderKind) -> None:
    with Loader(large, 2, order=kind, indices=[7, 8, 900], image_size=SIDE) as loader:
        seen = []
        for rank in range(4):
            loader._rank, loader._world_size = rank, 4  # as torch.distributed would say
            loader.set_epoch(0)
            [(_, labels, index)] = loader
            seen += index[labels != -100].tolist()
    assert sorted(seen) == [7, 8, 900]


@pytest.mark.parametrize("os_cache", [True, False])
def test_every_sample_once_the_same_for_any_worker(large: Path, os_cache: bool) -> None:
    kept = np.flatnonzero(np.random.default_rng(1).random(N) < 0.5)
    runs = []
    for workers in (1, 3):
        with open_loader(large, 5 * PAGE, indices=kept, num_workers=workers, os_cache=os_cache, seed=3) as loader:
            runs.append([visit(loader), visit(loader)])
            assert loader.plan().n_selected == len(kept)
    assert runs[0] == runs[1]
    assert all(sorted(epoch) == kept.tolist() for epoch in runs[0])
    with open_loader(large, 5 * PAGE, indices=kept, seed=3) as loader:
        whole = list(loader)
        loader.load_state_dict(loader.state_dict() | {"epoch": 0, "batch": 10})
        assert visit(loader) == torch.cat([index for _, _, index in whole[10:]]).tolist()


def test_ranks_share_an_epoch(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualfast.loading import loader as module

    seen = []
    for rank in range(3):
        monkeypatch.setattr(module, "_rank_and_world_size", lambda rank=rank: (rank, 3))
        with open_loader(large, 5 * PAGE, distributed=True, indices=range(0, N, 2)) as loader:
            for _, labels, index in loader:
                seen += index[labels >= 0].tolist()
    assert sorted(seen) == list(range(0, N, 2))


@pytest.mark.parametrize("clustered", [True, False])
@pytest.mark.parametrize("kind", ["random", "sequential", "page_random"])
def test_the_plan_is_what_the_disk_gives_within_the_budget(large: Path, kind: str, clustered: bool) -> None:
    if not can_be_cold(large):
        pytest.skip("this file system's reads are not counted")
    kept = np.arange(N) % 500 < 150 if clustered else np.random.default_rng(2).random(N) < 0.1
    budget = {"random": 1 << 40, "sequential": 2 * order.WINDOW, "page_random": 10_000_000 if clustered else 5_000_000}
    asked = PageRandom(budget[kind]) if kind == "page_random" else kind
    options = {"image_size": SIDE, "os_cache": False, "batches_ahead": 1}
    with Loader(large, 32, order=asked, indices=kept, **options) as loader:
        plan = loader.plan()
        assert plan.memory <= budget[kind]
        forget(large)
        before, highest = bytes_read(), 0
        for _ in loader:
            highest = max(highest, cached(large))
        read = bytes_read() - before
    assert plan.needed == 30_000 * kept.sum()
    assert read == pytest.approx(plan.read, rel=0.05)
    assert plan.read <= (1.05 if clustered else 1.3) * plan.needed
    assert 0 < highest <= 1.1 * plan.memory
    if kind != "random":
        assert cached(large) <= PAGE  # the tables, which opening reads


def test_sequential_order_is_read_ahead_in_windows(large: Path) -> None:
    opened = beton.open_beton(large)
    visited, starts = order.epoch_order("sequential", np.arange(N), 0, 0, opened)
    assert (visited == np.arange(N)).all()
    sizes = np.add.reduceat(opened.size, starts[:-1])
    assert (sizes[:-1] > order.WINDOW - 2 * 30_000).all()
    assert (sizes <= order.WINDOW + 2 * 30_000).all()


def test_the_plan_says_when_a_copy_pays(large: Path) -> None:
    with open_loader(large, 5 * PAGE, indices=range(0, N, 10)) as loader:
        plan = loader.plan()
    assert plan.pages == plan.n_pages == 22
    assert plan.compacting_pays_after == (plan.read + plan.compacted) / (plan.read - plan.compacted)
    text = str(plan)
    assert "150 of 1,500, on 22 of 22 pages" in text
    assert f"{plan.needed / 1e6:,.1f} MB" in text
    with Loader(large, 32, image_size=SIDE) as loader:
        assert "would save next to nothing" in str(loader.plan())
        assert loader.plan().spread == pytest.approx(1, abs=0.06)
        assert isinstance(loader.plan(), read_plan.ReadPlan)

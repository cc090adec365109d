"""What the processes of a training find out about each other."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import on_ranks

from dualfast.comm.collectives import exchange, gather_rows
from dualfast.comm.ranks import Ranks, join


def agree_and_disagree() -> None:
    ranks = join("cpu", 60)
    assert (ranks.rank, ranks.size) == (dist.get_rank(), 3)
    ranks.check_same({"seed": 1, "data": "abc"})
    with pytest.raises(ValueError, match=r"^data differs between the ranks: rank 0 has abc, rank 2 has xyz; start all"):
        ranks.check_same({"seed": 1, "data": "xyz" if ranks.rank == 2 else "abc"})

    done: list[int] = []
    ranks.run_on_rank0("a file", lambda: done.append(ranks.rank))
    assert done == ([0] if ranks.is_rank0 else [])

    def fail() -> None:
        raise ValueError("no such file")

    # However long the first rank works, nobody gives up on it.
    hasty = replace(ranks, timeout_s=0.5, control=dist.new_group(backend="gloo", timeout=timedelta(seconds=0.5)))
    hasty.run_on_rank0("a long file", lambda: time.sleep(2.5))

    with pytest.raises(ValueError if ranks.is_rank0 else SystemExit, match="no such file" if ranks.is_rank0 else "2"):
        ranks.run_on_rank0("a file", fail)

    assert ranks.sums([0.5, ranks.rank]) == [1.5, 3.0]
    assert ranks.largest([ranks.rank, -ranks.rank]) == [2, 0]

    model = torch.nn.BatchNorm1d(2)
    model.running_mean.fill_(ranks.rank + 1.0)  # type: ignore[union-attr]
    ranks.share_buffers(model)
    assert model.running_mean.tolist() == [1.0, 1.0]  # type: ignore[union-attr]

    # Rows go where they should, in the order they had; nobody need have any.
    rows = torch.arange(ranks.rank * 2).view(-1, 1) + 10 * ranks.rank
    came = exchange(rows, torch.arange(len(rows)) % 2)
    assert came.flatten().tolist() == [[10, 20, 22], [11, 21, 23], []][ranks.rank]
    parts = gather_rows(came, to=1)
    if ranks.rank == 1:
        assert parts is not None
        assert [part.flatten().tolist() for part in parts] == [[10, 20, 22], [11, 21, 23], []]
    else:
        assert parts is None

    # A network that stalls in the middle of anything: which rank noticed, and after how long.
    if ranks.rank == 2:
        time.sleep(2)
    else:
        lost = rf"rank {ranks.rank} lost the connection to another: .*; the timeout is 0\.5 s \(--rank-timeout\)"
        with pytest.raises(TimeoutError, match=lost), hasty.leave_group_on_exit():
            hasty.sums([1.0])

    # Who does not come is named. Last, since the group is of no use afterwards.
    if ranks.rank == 2:
        time.sleep(3)
        return
    start = time.monotonic()
    said = (
        r"rank 0 waited for the others at 'lunch': .*2.*--rank-timeout" if ranks.is_rank0 else r"waited for the others"
    )
    with pytest.raises(TimeoutError, match=said):
        replace(ranks, timeout_s=1.0).barrier("lunch")
    assert time.monotonic() - start < 30


def test_three_processes_agree_and_disagree(tmp_path: Path) -> None:
    on_ranks(3, agree_and_disagree, tmp_path)


def score_three_images(folder: Path) -> None:
    from dualfast.config import ScoreConfig
    from dualfast.runs import commands
    from dualfast.runs.progress import NullProgress

    arguments = {"score_epochs": 2, "window": 2, "out": str(folder / "run"), "threads": 1}
    with pytest.raises(ValueError, match="3 images for 4 processes"):
        commands.score(ScoreConfig(data=str(folder / "data.npz"), **arguments), NullProgress())  # type: ignore[arg-type]


def test_more_processes_than_images_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(3) % 2)
    on_ranks(4, score_three_images, tmp_path, tmp_path)


def start_differently(folder: Path) -> None:
    """Each case has one thing else on the last of three ranks, which every rank names."""
    from dualfast.config import RunConfig
    from dualfast.runs import commands, originals, session
    from dualfast.runs.progress import NullProgress

    odd = dist.get_rank() == 2
    plain: dict[str, Any] = {"score_epochs": 2, "window": 2, "epochs": 2, "prune_ratio": (0.5,), "threads": 1}
    plain |= {"data": str(folder / "data.beton"), "test": str(folder / "data.beton")}

    def refused(message: str, number: int, **other: Any) -> None:
        config = RunConfig(**plain | {"out": str(folder / f"run-{number}")} | (other if odd else {}))
        with pytest.raises(ValueError, match=f"^{message}; start all with the same command on the same data"):
            commands.run(config, NullProgress())

    refused(r"seed differs between the ranks: rank 0 has \[0, 1, 2\], rank 2 has \[3\]", 0, seed=(3,))
    refused(r"prune_ratio differs between the ranks: rank 0 has \[0.5\], rank 2 has \[0.9\]", 1, prune_ratio=(0.9,))
    other = str(folder / "other.beton")
    refused("data differs between the ranks: rank 0 has .*data.beton, rank 2 has .*other.beton", 2, data=other)
    versions = session.versions
    if odd:
        session.versions = lambda: versions() | {"torch": "1.0"}  # type: ignore[attr-defined]
    refused("torch differs between the ranks: rank 0 has .*, rank 2 has 1.0", 3)
    session.versions = versions  # type: ignore[attr-defined]
    # The same name, other content, as on machines that share no folder.
    open_beton = originals.open_beton  # type: ignore[attr-defined]
    if odd:
        originals.open_beton = lambda path, **columns: open_beton(other)  # type: ignore[attr-defined]
    refused("the training data differs between the ranks: rank 0 has [0-9a-f]+, rank 2 has [0-9a-f]+", 4)


def test_what_differs_between_the_ranks_is_named_at_the_start(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")
    from dualfast import write

    images = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    write((images, np.arange(9) % 2), tmp_path / "data.beton", progress=False)
    write((images[::-1].copy(), np.arange(9) % 2), tmp_path / "other.beton", progress=False)
    on_ranks(3, start_differently, tmp_path, tmp_path)


def test_one_process_needs_nobody() -> None:
    ranks = join("cpu")
    assert ranks == Ranks()
    ranks.barrier("nothing")
    ranks.check_same({"seed": 1})
    assert ranks.gather("x") == ["x"]
    assert ranks.sums([1.0]) == [1.0]
    with pytest.raises(RuntimeError, match="timed out"), ranks.leave_group_on_exit():
        raise RuntimeError("something else timed out")


def test_a_timeout_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="rank_timeout is 0"):
        join("cpu", 0)


LEAVING = """
import ctypes, torch.distributed
from dualfast.comm import ranks
torch.distributed.destroy_process_group = lambda: ctypes.PyDLL(None).usleep(60_000_000)  # keeps the GIL
ranks.LEAVE_S = 0.5
with ranks.Ranks(joined=True).leave_group_on_exit():
    print("saved", flush=True)
"""


def test_a_group_that_does_not_end_ends_the_process() -> None:
    start = time.monotonic()
    made = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=120)
    assert made.stdout == "saved\n"
    assert made.returncode == 1
    assert "Timeout" in made.stderr
    assert "leave_group_on_exit" in made.stderr
    assert time.monotonic() - start < 55

"""What the processes of a training find out about each other."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gloo import on_ranks

from dualfast.ranks import Ranks, exchange, gather_rows, join


def agree_and_disagree() -> None:
    ranks = join("cpu", 60)
    assert (ranks.rank, ranks.size) == (dist.get_rank(), 3)
    ranks.check_same({"seed": 1, "data": "abc"})
    with pytest.raises(ValueError, match=r"^data differs between the ranks: rank 0 has abc, rank 2 has xyz; start all"):
        ranks.check_same({"seed": 1, "data": "xyz" if ranks.rank == 2 else "abc"})

    done: list[int] = []
    ranks.first_does("a file", lambda: done.append(ranks.rank))
    assert done == ([0] if ranks.first else [])

    def fail() -> None:
        raise ValueError("no such file")

    with pytest.raises(ValueError if ranks.first else SystemExit, match="no such file" if ranks.first else "2"):
        ranks.first_does("a file", fail)

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

    # Who does not come is named. Last, since the group is of no use afterwards.
    if ranks.rank == 2:
        time.sleep(3)
        return
    start = time.monotonic()
    said = r"rank 0 waited for the others at 'lunch': .*2.*--rank-timeout" if ranks.first else r"waited for the others"
    with pytest.raises(RuntimeError, match=said):
        replace(ranks, timeout_s=1.0).barrier("lunch")
    assert time.monotonic() - start < 30


def test_three_processes_agree_and_disagree(tmp_path: Path) -> None:
    on_ranks(3, agree_and_disagree, tmp_path)


def score_three_images(folder: Path) -> None:
    from dualfast import pipeline
    from dualfast.config import ScoreConfig

    arguments = {"score_epochs": 2, "window": 2, "out": str(folder / "run"), "threads": 1}
    with pytest.raises(ValueError, match="3 images for 4 processes"):
        pipeline.score_only(ScoreConfig(data=str(folder / "data.npz"), **arguments), pipeline.Silent())  # type: ignore[arg-type]


def test_more_processes_than_images_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="ffcv is not installed: the command line trains through it")
    images = np.zeros((3, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(3) % 2)
    on_ranks(4, score_three_images, tmp_path, tmp_path)


def test_one_process_needs_nobody() -> None:
    ranks = join("cpu")
    assert ranks == Ranks()
    ranks.barrier("nothing")
    ranks.check_same({"seed": 1})
    assert ranks.gather("x") == ["x"]
    assert ranks.sums([1.0]) == [1.0]
    ranks.end()


def test_a_timeout_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="rank_timeout is 0"):
        join("cpu", 0)

"""Runs a function on several processes joined by gloo."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def on_ranks(size: int, function: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What function(*arguments) returns on each of `size` ranks. It stands in a module, and raises what it finds."""
    mp.spawn(_rank, (size, function, folder, arguments), nprocs=size)
    return [torch.load(folder / f"result-{rank}", weights_only=False) for rank in range(size)]


def _rank(rank: int, size: int, function: Callable[..., Any], folder: Path, arguments: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    meet = f"file://{folder / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    try:
        torch.save(function(*arguments), folder / f"result-{rank}")
    finally:
        dist.destroy_process_group()

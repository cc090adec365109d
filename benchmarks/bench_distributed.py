"""The cost of scoring on several processes: bytes and seconds of an exchange, and the pause of a checkpoint.

python benchmarks/bench_distributed.py [--samples 1281167 10000000 100000000] [--ranks 1 2 4 8] [--repeats 5]
Every rank observes its share of synthetic visits; then all exchange. The ranks share the cores of this machine and
communicate through gloo on it, so the seconds are those of its cores, not of a network. Rows that today's result file
already has are not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import _harness
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dualfast import Scores, ScoreTable, ShardedTable, select
from dualfast.comm.ranks import Ranks
from dualfast.selection.sharded import select as select_sharded
from dualfast.training.checkpoint import Checkpoints

WINDOW = 10
BATCH = 256
CLASSES = 10
IMAGENET = 1_281_167
MAX_GATHERED = 10_000_000  # most samples whose scores are gathered on one rank: 28 bytes each, 72 as float64


def on_rank(rank: int, size: int, folder: str, samples: int, repeats: int) -> None:
    torch.set_num_threads(1)
    wait = timedelta(seconds=600)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size, timeout=wait)
    table = ShardedTable(samples, window=WINDOW)
    sent = 0
    all_to_all = dist.all_to_all_single

    def counting(taken: torch.Tensor, given: torch.Tensor, *splits: Any, **options: Any) -> Any:
        nonlocal sent
        row = given.nbytes // len(given) if len(given) else 0
        sent += given.nbytes - row * (splits[1][rank] if splits else 1)  # the part for the rank itself is not sent
        return all_to_all(taken, given, *splits, **options)

    dist.all_to_all_single = counting
    seconds, bytes_sent = [], []
    for turn in range(repeats + 1):
        table._seen = [visits(samples, rank, size, turn)]  # what the steps of an epoch leave, without a model
        sent = 0
        dist.barrier()
        start = time.perf_counter()
        table.exchange()
        dist.barrier()
        if turn:
            seconds.append(time.perf_counter() - start)
            bytes_sent.append(sent)
    row = {"seconds": seconds, "bytes": bytes_sent, "lines": table.lines.nbytes, "peak": peak_bytes()}
    if samples <= MAX_GATHERED:
        row |= gathering(table, rank)
    torch.save(row, f"{folder}/{rank}")
    dist.destroy_process_group()


def visits(samples: int, rank: int, size: int, turn: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, values) of one visit to each sample of this rank's share, in an order that defeats the caches."""
    step = int(samples * 0.6180339887) | 1
    while math.gcd(step, samples) > 1:
        step += 2
    ids = torch.arange(samples * rank // size, samples * (rank + 1) // size)
    ids.add_(turn).mul_(step).remainder_(samples)
    values = torch.rand(len(ids), 3, generator=torch.Generator().manual_seed(turn * size + rank))
    return ids, values.view(torch.int32)


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def gathering(table: ShardedTable, rank: int) -> dict[str, float]:
    """Seconds of gathering all scores on rank 0, and of selecting without gathering."""
    dist.barrier()
    start = time.perf_counter()
    scores = table.scores_on(0)
    gather = time.perf_counter() - start
    mean = table.local_scores().mean
    local = Scores(dual=mean * (1 - mean), mean=mean)  # too few visits for the windows of dual
    dist.barrier()
    start = time.perf_counter()
    kept = select_sharded(local, 0.7)
    drawing = time.perf_counter() - start
    if scores is not None:
        whole = Scores(dual=scores.mean * (1 - scores.mean), mean=scores.mean)
        assert np.array_equal(kept, select(whole, 0.7))
    return {"gather_s": gather, "select_s": drawing}


def exchange(samples: int, size: int, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(on_rank, (size, folder, samples, repeats), nprocs=size)
        ranks = [torch.load(f"{folder}/{rank}", weights_only=True) for rank in range(size)]
    seconds = [max(turn) for turn in zip(*(rank["seconds"] for rank in ranks), strict=True)]  # the slowest rank's
    return {
        "what": "exchange",
        "samples": samples,
        "ranks": size,
        "repeats": repeats,
        "median_s": float(np.median(seconds)),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "wire_bytes_per_sample": sum(rank["bytes"][0] for rank in ranks) / samples,
        "table_bytes_per_rank": max(rank["lines"] for rank in ranks),
        "peak_bytes_per_rank": max(rank["peak"] for rank in ranks),
    } | {name: max(rank[name] for rank in ranks) for name in ("gather_s", "select_s") if name in ranks[0]}


def recording(repeats: int) -> dict[str, Any]:
    """A step of the loss into a ShardedTable against one into a ScoreTable, one process, 256 rows of 10 classes."""
    from dualfast import DualLoss

    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        n = 100 * BATCH
        tables = {"ScoreTable": ScoreTable(n, window=WINDOW), "ShardedTable": ShardedTable(n, window=WINDOW)}
        logits = torch.randn(BATCH, CLASSES, requires_grad=True)
        targets = torch.arange(BATCH) % CLASSES
        batches = torch.randperm(n).split(BATCH)

        def epoch(table: ScoreTable) -> None:
            criterion = DualLoss(table)
            for index in batches:
                criterion(logits, targets, index).backward()
            table.exchange()

        timed = _harness.paired({name: lambda t=table: epoch(t) for name, table in tables.items()}, repeats)  # type: ignore[misc]
        dist.destroy_process_group()
    step = {f"{name}_step_us": timed[name]["median_s"] / len(batches) * 1e6 for name in tables}
    return {"what": "recording", "rows": BATCH, "classes": CLASSES, "repeats": repeats, **step}


def checkpoint(samples: int, repeats: int) -> dict[str, Any]:
    """How long a checkpoint of a table of `samples` samples pauses training, and how long it takes to write."""
    table = ScoreTable(samples, window=WINDOW)
    pauses, writing = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), (0.0, 1), Ranks(), print)
        checkpoints.begin({"training": "bench"})
        for turn in range(repeats + 1):
            start = time.perf_counter()
            checkpoints.step(lambda: {"table": table.state_dict()})
            checkpoints.finish()
            if turn:
                pauses.append(checkpoints.pause)
                writing.append(time.perf_counter() - start)
    what = {"what": "checkpoint", "samples": samples, "repeats": repeats, "write_s": float(np.median(writing))}
    return what | {"median_s": float(np.median(pauses)), "min_s": min(pauses), "max_s": max(pauses)}


def epoch(repeats: int) -> dict[str, Any]:
    """Images per second of the network `small` at 32 px on one core, excluding loading."""
    from dualfast.config import Recipe
    from dualfast.training import models
    from dualfast.training.fit import CrossEntropy, TrainResult, fit

    class Images:
        """40 batches of 128 images that are already in memory."""

        remaining = 40
        batch = (torch.randn(128, 3, 32, 32), torch.arange(128) % CLASSES, torch.arange(128))

        def __len__(self) -> int:
            return self.remaining

        def __iter__(self) -> Any:
            return iter([self.batch] * self.remaining)

        def set_epoch(self, epoch: int) -> None: ...

    rates = []
    for _ in range(repeats):
        model = models.build("small", num_classes=CLASSES, image_size=32)
        made: TrainResult = fit(model, Images(), CrossEntropy(), Recipe(epochs=1, lr=0.01))  # type: ignore[arg-type]
        rates.append(made.images_per_second)
    what = {"what": "epoch", "model": "small", "image_size": 32, "repeats": repeats}
    return what | {"images_per_s": float(np.median(rates)), "fastest_images_per_s": max(rates)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[IMAGENET, 10_000_000, 100_000_000])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    about = _harness.origin()
    wanted: list[tuple[dict[str, Any], Callable[[], dict[str, Any]]]] = [
        ({"what": "checkpoint"}, lambda: checkpoint(IMAGENET, args.repeats)),
        ({"what": "recording"}, lambda: recording(args.repeats)),
        ({"what": "epoch"}, lambda: epoch(args.repeats)),
    ]
    for samples in args.samples:
        for size in args.ranks:
            row = {"what": "exchange", "samples": samples, "ranks": size}
            wanted.append((row, lambda row=row: exchange(row["samples"], row["ranks"], args.repeats)))  # type: ignore[misc]
    path = _harness.path_of("distributed", about)
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for key, measure in wanted:
        if not any(key.items() <= row.items() for row in rows):
            rows.append(measure())
            print(rows[-1], flush=True)
            _harness.save("distributed", rows, about)


if __name__ == "__main__":
    main()

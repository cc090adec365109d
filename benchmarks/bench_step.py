"""The fused step against the usual alternatives: loss, gradient and scores of one batch, `dualfast bench step`.

Every side gets the same logits and computes their gradient. bfloat16 logits go to torch's loss in float32, as under
autocast. Times are per step; on a GPU many steps are queued before one wait.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from _harness import origin, paired, save
from torch.nn.functional import cross_entropy

from dualfast import DualLoss, ScoreTable, ops

SIZES = ("256x10", "1024x10", "256x100", "256x1000", "1024x1000", "4096x1000", "128x21841")
GPU_SIZES = (*SIZES, "8192x32000")
COMPILED = ("1024x10", "256x1000", "4096x1000")
QUICK = ("1024x10", "256x1000")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
N_SAMPLES = 200_000
WINDOW = 10
ROUND_S = {"cpu": 0.004, "cuda": 0.02}  # about how long a round of one side lasts

Step = Callable[[], Any]


class Eager:
    """Every score of a ScoreTable in torch operations, as one would write it into a training loop."""

    def __init__(self, device: str) -> None:
        self.ring = torch.zeros(N_SAMPLES, WINDOW, device=device)
        names = ("dual", "dyn_unc", "mean", "aum", "el2n", "entropy")
        self.sums = {name: torch.zeros(N_SAMPLES, device=device) for name in names}
        self.visits, self.forgotten = (torch.zeros(N_SAMPLES, dtype=torch.int64, device=device) for _ in range(2))
        self.last, self.ever = (torch.zeros(N_SAMPLES, dtype=torch.bool, device=device) for _ in range(2))

    @torch.no_grad()
    def record(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> None:
        z, column = logits.detach().float(), targets[:, None]
        log_p = torch.log_softmax(z, 1)
        p = log_p.exp()
        p_true = p.gather(1, column)[:, 0]
        visits = self.visits[index]
        self.ring[index, visits % WINDOW] = p_true
        window = self.ring[index]
        std = window.std(1)
        full = visits >= WINDOW - 1
        self.sums["dual"][index] += torch.where(full, std * (1 - window.mean(1)), 0.0)
        self.sums["dyn_unc"][index] += torch.where(full, std, 0.0)
        self.sums["mean"][index] += p_true
        margin = z.gather(1, column)[:, 0] - z.scatter(1, column, -torch.inf).amax(1)
        self.sums["aum"][index] += margin
        el2n = (p - torch.nn.functional.one_hot(targets, z.shape[1])).norm(dim=1)
        self.sums["el2n"][index] += torch.where(visits < ops.EL2N_VISITS, el2n, 0.0)
        self.sums["entropy"][index] = -(p * log_p).sum(1)
        correct = margin > 0
        self.forgotten[index] += self.last[index] & ~correct
        self.last[index] = correct
        self.ever[index] |= correct
        self.visits[index] = visits + 1


class Batches:
    """One batch of logits; its sample ids change from step to step, so that their lines do not stay in the cache."""

    def __init__(self, rows: int, classes: int, dtype: torch.dtype, device: str) -> None:
        torch.manual_seed(0)
        self.logits = (3 * torch.randn(rows, classes, device=device)).to(dtype).requires_grad_()
        self.targets = torch.randint(0, classes, (rows,), device=device)
        order = torch.randperm(N_SAMPLES, device=device)
        self.indices = order[: N_SAMPLES // rows * rows].split(rows)
        self.turn = 0

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.turn += 1
        self.logits.grad = None
        return self.logits, self.targets, self.indices[self.turn % len(self.indices)]


def torchs_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.float(), targets)


def sides(rows: int, classes: int, dtype: torch.dtype, device: str, compiles: bool) -> dict[str, Step]:
    """The sides of the comparison by name; each call is one step."""
    batch = Batches(rows, classes, dtype, device)
    backend = {"cpu": "cpp", "cuda": "triton"}[device]
    ours, lean = (DualLoss(ScoreTable(N_SAMPLES, device=device), backend=backend, by_products=b) for b in (True, False))
    tracking = ScoreTable(N_SAMPLES, track_loss=True, track_aum_prob=True, device=device)
    every = DualLoss(tracking, backend=backend)
    voting = DualLoss(ScoreTable(N_SAMPLES, track_top_other=True, device=device), backend=backend)
    assert ops.runs_on(batch.logits) == backend

    def plain() -> None:
        logits, targets, _ = batch()
        torchs_loss(logits, targets).backward()

    def eager_step(logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor, scores: Eager) -> torch.Tensor:
        scores.record(logits, targets, index)
        return torchs_loss(logits, targets)

    host = torch.empty(rows, classes, dtype=dtype)

    def to_host() -> None:
        logits, targets, _ = batch()
        torchs_loss(logits, targets).backward()
        host.copy_(logits.detach())

    eager_scores = Eager(device)
    entries: dict[str, Step] = {
        "cross_entropy": plain,
        "cross_entropy + eager scores": lambda: eager_step(*batch(), eager_scores).backward(),
        "cross_entropy + logits to the host": to_host,
    }
    if compiles:
        torch.compiler.reset()
        run, compiled_scores = torch.compile(eager_step, fullgraph=True), Eager(device)
        entries["the eager scores, torch.compile"] = lambda: run(*batch(), compiled_scores).backward()
    entries["dualfast, DUAL only"] = lambda: lean(*batch()).backward()
    entries["dualfast, with loss and aum_prob"] = lambda: every(*batch()).backward()
    entries["dualfast, with top_other"] = lambda: voting(*batch()).backward()
    entries["dualfast"] = lambda: ours(*batch()).backward()
    if device == "cuda":
        entries |= on_gpu(batch, plain, entries["dualfast"])
    return entries


def on_gpu(batch: Batches, plain: Step, ours: Step) -> dict[str, Step]:
    room = torch.empty_like(batch.logits)
    one = torch.zeros(1, device="cuda")

    def copy() -> None:
        room.copy_(batch.logits.detach())

    entries: dict[str, Step] = {"device copy of the same bytes": copy}
    if importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerCrossEntropyLoss

        liger = LigerCrossEntropyLoss()

        def ligers() -> None:
            logits, targets, _ = batch()
            # It writes the gradient over the logits, which must not be a leaf; the step after this one reads them so.
            liger(logits.view_as(logits), targets).backward()

        entries["Liger"] = ligers
    for name, run in (
        ("cross_entropy, graph replay", plain),
        ("dualfast, graph replay", ours),
        ("device copy, graph replay", copy),
        ("one empty launch, graph replay", lambda: one.fill_(0)),
    ):
        try:
            entries[name] = replay(run)
        except RuntimeError as error:  # the other sides still count
            print(f"{name} could not be captured: {error}")
    return entries


def replay(run: Step) -> Step:
    """`run` captured as a CUDA graph. The samples of the capture come back at each replay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def measure(entries: dict[str, Step], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds per step of each side; the sides take turns."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    rounds, counts = {}, {}
    for name, run in entries.items():
        for _ in range(3):
            run()
        wait()
        once = paired({name: lambda run=run: (run(), wait())}, 3)[name]["min_s"]
        counts[name] = max(1, round(ROUND_S[device] / once))

        def many(run: Step = run, count: int = counts[name]) -> None:
            for _ in range(count):
                run()
            wait()

        rounds[name] = many
    times = paired(rounds, repeats)
    return {name: {key: value / counts[name] for key, value in took.items()} for name, took in times.items()}


def check(rows: int, classes: int, dtype: torch.dtype, device: str) -> None:
    """The loss and the gradient that are about to be timed are torch's."""
    logits, targets, index = Batches(rows, classes, dtype, device)()
    loss = DualLoss(ScoreTable(N_SAMPLES, device=device))(logits, targets, index)
    (ours,) = torch.autograd.grad(loss, logits)
    exact = torchs_loss(logits, targets)
    (expected,) = torch.autograd.grad(exact, logits)
    torch.testing.assert_close(loss, exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours, expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-3, atol=1e-7)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: microseconds, quartiles, and how many times faster dualfast is."""
    lines = ["| size | dtype | side | us | quartiles | dualfast is |", "|---|---|---|---|---|---|"]
    for row in rows:
        us = [f"{row[key] * 1e6:.4g}" for key in ("median_s", "q1_s", "q3_s")]
        times = f"{row['times_dualfast']:.2f} x" if row["what"] != "dualfast" else ""
        lines.append(f"| {row['size']} | {row['dtype']} | {row['what']} | {us[0]} | {us[1]}-{us[2]} | {times} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="*", help="ROWSxCLASSES; all of them without it")
    parser.add_argument("--dtype", nargs="*", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} and few rounds; nothing is saved")
    parser.add_argument(
        "--compile", nargs="*", default=COMPILED, help="sizes with torch.compile, 15 s each; may be none"
    )
    arguments = parser.parse_args()
    sizes = arguments.size or (QUICK if arguments.quick else GPU_SIZES if arguments.device == "cuda" else SIZES)
    repeats = arguments.repeats or (7 if arguments.quick else 31)
    about = origin(("triton",) if arguments.device == "cuda" else ()) | {"torch_threads": torch.get_num_threads()}
    rows: list[dict[str, Any]] = []
    for size in sizes:
        n_rows, n_classes = (int(part) for part in size.split("x"))
        for dtype in arguments.dtype:
            setting = (n_rows, n_classes, DTYPES[dtype], arguments.device)
            check(*setting)
            times = measure(sides(*setting, compiles=size in arguments.compile), repeats, arguments.device)
            ours = times["dualfast"]["median_s"]
            graph = times.get("dualfast, graph replay", {}).get("median_s", ours)
            for name, took in times.items():
                row: dict[str, Any] = {"size": size, "dtype": dtype, "what": name, "repeats": repeats, **took}
                row["times_dualfast"] = took["median_s"] / (graph if name.endswith("replay") else ours)
                if arguments.device == "cuda":
                    moved = 2 * n_rows * n_classes * DTYPES[dtype].itemsize
                    row["bytes_per_s"] = moved / took["median_s"]
                rows.append(row)
            print(table(rows[-len(times) :]), flush=True)
            if not arguments.quick:
                path = save("step", rows, about)
    if not arguments.quick:
        print(table(rows), f"\nwritten to {path}", sep="\n")


if __name__ == "__main__":
    main()

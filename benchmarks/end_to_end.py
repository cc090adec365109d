"""What scores cost in a whole training: T epochs with DualLoss, T plain ones, and T that log every logit to the host
and score afterwards, as published code does, fed by the same loader and, as in that code, by torch's DataLoader.

The four take turns, one epoch each, in an order drawn anew every round. The ratio to plain is computed per round: of
seconds, and on a CPU of processor seconds, which other work on the machine affects less (except where DataLoader's
worker processes do part of the work).

    python benchmarks/end_to_end.py --images 10000
    python benchmarks/end_to_end.py --recipe fast --images 0      # on a GPU"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent / "accuracy"))

from _harness import origin, peak_memory, save
from data import prepare
from grids import default_data
from run import WORK

import dualfast
from dualfast.config import RECIPES, Recipe
from dualfast.data.beton import Beton
from dualfast.loading.decode import IMAGENET_MEAN, IMAGENET_STD
from dualfast.loading.loader import Loader
from dualfast.training import models
from dualfast.training.device import pick_device
from dualfast.training.fit import CrossEntropy, fit

WINDOW = 10
MEMORY_RUNS = 3  # measurements of peak memory, each in its own process; the smallest is what the work needs
IMAGENET = {"n": 1_281_167, "classes": 1000, "epochs": 60, "batch": 256}


class Logged(nn.Module):
    """Cross-entropy that logs every logit of every epoch on the host in float16, to score them afterwards."""

    def __init__(self, n_samples: int, n_classes: int, epochs: int) -> None:
        super().__init__()
        self.logits = np.zeros((epochs, n_samples, n_classes), np.float16)
        self.targets = np.zeros(n_samples, np.int64)
        self.seen = 0

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        rows, epoch = index.cpu().numpy(), self.seen // self.logits.shape[1]
        self.logits[epoch % len(self.logits), rows] = logits.detach().to("cpu", torch.float16).numpy()
        self.targets[rows] = targets.cpu().numpy()
        self.seen += len(rows)
        return nn.functional.cross_entropy(logits, targets)

    def score(self) -> np.ndarray:
        """DUAL from the logs: softmax of each epoch's logits, then the windows."""
        rows = np.arange(len(self.targets))
        probs = np.empty(self.logits.shape[:2], np.float32)
        for epoch, logits in enumerate(self.logits):
            z = logits.astype(np.float32)
            e = np.exp(z - z.max(1, keepdims=True))
            probs[epoch] = e[rows, self.targets] / e.sum(1)
        windows = [probs[k : k + WINDOW] for k in range(len(probs) - WINDOW + 1)]
        return np.mean([w.std(0, ddof=1) * (1 - w.mean(0)) for w in windows], 0)


class Dual(nn.Module):
    """DualLoss and its table."""

    def __init__(self, n_samples: int, device: torch.device) -> None:
        super().__init__()
        self.table = dualfast.ScoreTable(n_samples, window=WINDOW, device=device)
        self.loss = dualfast.DualLoss(self.table)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, targets, index)

    def score(self) -> np.ndarray:
        return self.table.scores().dual


class Images(Dataset[tuple[torch.Tensor, int, int]]):
    """A .beton's images, decoded in memory; each is padded, cropped, mirrored and normalised by itself, as published
    code does with torchvision."""

    def __init__(self, beton: Beton) -> None:
        self.images = [beton.image(row) for row in range(beton.n_samples)]
        self.labels: list[int] = beton.labels.tolist()
        self.mean, self.std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int, int]:
        pixels, pad = self.images[i], 4
        top, left, mirrored = (int(torch.randint(high, ())) for high in (2 * pad + 1, 2 * pad + 1, 2))
        height, width = pixels.shape[:2]
        pixels = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width]
        image = torch.from_numpy(np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)).permute(2, 0, 1)
        return (image.float() / 255 - self.mean) / self.std, self.labels[i], i


class TorchLoader:
    """torch's DataLoader over Images, with the interface of the training loop; its workers live for all epochs."""

    def __init__(self, images: Images, batch_size: int, workers: int) -> None:
        self.batches = DataLoader(images, batch_size, shuffle=True, num_workers=workers, persistent_workers=True)
        self.remaining = len(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)

    def set_epoch(self, epoch: int) -> None: ...


def criterion_of(what: str, n: int, classes: int, epochs: int, device: torch.device) -> nn.Module:
    if what == "plain":
        return CrossEntropy()
    return Dual(n, device) if what == "dualfast" else Logged(n, classes, epochs)


WAYS = ("plain", "dualfast", "log and score after", "log and score after, DataLoader")


class Rig:
    """What all ways share: the recipe, the loader and fresh networks."""

    def __init__(self, args: argparse.Namespace) -> None:
        preset = {name: value for name, value in RECIPES[args.recipe].items() if name in Recipe.__dataclass_fields__}
        self.recipe = Recipe(**{**preset, "epochs": 1, "threads": args.threads, "lr": 0.01})
        self.device = pick_device(self.recipe)
        if args.threads > 0:
            torch.set_num_threads(args.threads)
        written = prepare(args.work.resolve(), args.data, args.images, "clean")
        size = self.recipe.image_size
        self.loader = Loader(
            written.train, self.recipe.batch_size, augment=True, image_size=size, num_workers=args.threads
        )
        self.n = self.loader.n_samples
        self.classes = int(self.loader.labels.max()) + 1
        self.side = self.loader.image_size[0]
        self.torch_loader: TorchLoader | None = None

    def network(self) -> nn.Module:
        torch.manual_seed(0)
        return models.build(self.recipe.model, num_classes=self.classes, image_size=self.side)

    def epoch(self, what: str, network: nn.Module, criterion: nn.Module) -> tuple[float, float]:
        """Seconds of one epoch, and processor seconds of all threads of this process."""
        loader: Any = self.loader
        if what == WAYS[3]:
            if self.torch_loader is None:
                self.torch_loader = TorchLoader(Images(loader.beton), loader.batch_size, loader.num_workers)
            loader = self.torch_loader
        self.synchronize()
        start, used = time.perf_counter(), time.process_time()
        fit(network, loader, criterion, self.recipe)
        self.synchronize()
        return time.perf_counter() - start, time.process_time() - used

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def times(rig: Rig, epochs: int) -> list[dict[str, Any]]:
    """Seconds of T epochs and of the scoring after them; the ratio to plain, paired by round."""
    networks = {what: rig.network() for what in WAYS}
    criteria = {what: criterion_of(what, rig.n, rig.classes, epochs, rig.device) for what in WAYS}
    for what in WAYS:  # compiles and warms up; Logged and Dual see one epoch more than they keep
        rig.epoch(what, networks[what], criteria[what])
    taken: dict[str, list[tuple[float, float]]] = {what: [] for what in WAYS}
    order = random.Random(0)
    for _ in range(epochs):
        for what in order.sample(WAYS, len(WAYS)):
            taken[what].append(rig.epoch(what, networks[what], criteria[what]))
    rows = []
    for what in WAYS:
        after = timed(criteria[what].score) if what != "plain" else 0.0
        seconds = [epoch[0] for epoch in taken[what]]
        row = {"what": what, "n": rig.n, "classes": rig.classes, "epochs": epochs, "model": rig.recipe.model}
        row |= {"batch": rig.recipe.batch_size, "device": rig.device.type, "threads": torch.get_num_threads()}
        row |= {"median_epoch_s": statistics.median(seconds), "min_epoch_s": min(seconds)}
        row |= {"score_after_s": after, "total_s": sum(seconds) + after}
        for clock, name in enumerate(("times_plain", "processor_times_plain")):
            if clock == 1 and (what == WAYS[3] or rig.device.type == "cuda"):
                continue
            ratios = [ours[clock] / plain[clock] for ours, plain in zip(taken[what], taken["plain"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4)
            row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    ours = rows[1]["total_s"]
    return [row | {"total_times_dualfast": row["total_s"] / ours} for row in rows]


def memory(rig: Rig, what: str, epochs: int) -> dict[str, int]:
    """Peak bytes of an epoch and its scoring beyond what plain epochs left behind, and bytes of the score state."""
    network = rig.network()
    for _ in range(2):
        rig.epoch("plain", network, CrossEntropy())
    state = 0

    def run() -> None:
        nonlocal state
        criterion = criterion_of(what, rig.n, rig.classes, epochs, rig.device)
        if isinstance(criterion, Logged):
            criterion.logits.fill(1)  # as full as after T epochs
            state = criterion.logits.nbytes + criterion.targets.nbytes
        elif isinstance(criterion, Dual):
            state = criterion.table.lines.nbytes + criterion.table.status.nbytes
        rig.epoch(what, network, criterion)
        if what != "plain":
            criterion.score()

    if rig.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    out = {"host_peak_bytes": peak_memory(run), "score_state_bytes": state}
    if rig.device.type == "cuda":
        out["gpu_peak_bytes"] = torch.cuda.max_memory_allocated()
    return out


def imagenet(device: torch.device) -> dict[str, Any]:
    """ImageNet-1k by arithmetic: the cost per sample at its batch size and classes, times samples and epochs."""
    n, classes, epochs, batch = (IMAGENET[name] for name in ("n", "classes", "epochs", "batch"))
    measured = 20 * batch
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, generator=generator).to(device).requires_grad_()
    targets = torch.randint(0, classes, (batch,), generator=generator).to(device)
    pieces = torch.randperm(measured, generator=generator).to(device).split(batch)
    ways = WAYS[:3]  # nothing is loaded here
    criteria = {what: criterion_of(what, measured, classes, WINDOW, device) for what in ways}

    def steps(criterion: nn.Module) -> None:
        for index in pieces:
            logits.grad = None
            criterion(logits, targets, index).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    taken: dict[str, list[float]] = {what: [] for what in ways}
    for turn in range(12):
        for what in ways:
            seconds = timed(lambda what=what: steps(criteria[what]))
            if turn > 1:
                taken[what].append(seconds)
    per_sample = {what: statistics.median(taken[what]) / measured for what in ways}
    after = timed(criteria[WAYS[2]].score) / measured / WINDOW
    dual_after = timed(criteria["dualfast"].score) / measured
    visits = n * epochs
    ours = visits * per_sample["dualfast"] + n * dual_after
    logged = visits * (per_sample[WAYS[2]] + after)
    plain = visits * per_sample["plain"]
    lines, logs = 64 * n, 2 * n * epochs * classes
    micro = {what: 1e6 * seconds for what, seconds in per_sample.items()}
    log = f"{micro[WAYS[2]]:.2f} us + {1e6 * after:.2f} us scored after"
    kept = f"{logs / 1e9:,.1f} GB, {logs / lines:,.0f} times as much"
    return {
        "what": "ImageNet-1k, by arithmetic",
        "arithmetic": [
            f"visits: {n:,} samples x {epochs} epochs = {visits:,}",
            f"plain loss: {visits:,} x {micro['plain']:.2f} us = {plain:,.0f} s",
            f"DualLoss: {visits:,} x {micro['dualfast']:.2f} us + {n:,} x {1e6 * dual_after:.3f} us = {ours:,.0f} s",
            f"loss and log: {visits:,} x ({log}) = {logged:,.0f} s",
            f"score table: {n:,} x 64 B = {lines / 1e6:,.0f} MB",
            f"logits kept: {epochs} x {n:,} x {classes} x 2 B = {kept}",
        ],
        "n": n,
        "classes": classes,
        "epochs": epochs,
        "batch": batch,
        "device": device.type,
        "loss_plain_s": plain,
        "loss_dualfast_s": ours,
        "loss_log_and_score_s": logged,
        "score_state_bytes": lines,
        "logits_kept_bytes": logs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=default_data())
    parser.add_argument("--images", type=int, default=10_000, help="0: all")
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="cpu")
    parser.add_argument("--epochs", type=int, default=30, help="T")
    parser.add_argument("--threads", type=int, default=-1)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    if args.epochs < WINDOW:
        parser.error(f"--epochs is {args.epochs}; DUAL needs at least its window of {WINDOW}")
    rig = Rig(args)
    if args.memory_of:
        print(json.dumps(memory(rig, args.memory_of, args.epochs)))
        return
    about = origin()
    rows = times(rig, args.epochs)
    for row in rows:  # one process each: the next would reuse what one freed
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", row["what"]]
        outputs = [
            subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(MEMORY_RUNS)
        ]
        row |= min((json.loads(text.splitlines()[-1]) for text in outputs), key=lambda peak: peak["host_peak_bytes"])
        print(row, flush=True)
    rows.append(imagenet(rig.device))
    print("\n".join(rows[-1]["arithmetic"]))
    if not args.no_save:
        print(save("end-to-end", rows, about))


if __name__ == "__main__":
    main()

"""The training loop that scoring and retraining share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from dualfast.comm.ranks import Ranks
from dualfast.config import Recipe
from dualfast.scoring.sharded import load_parts
from dualfast.scoring.table import ScoreTable
from dualfast.training.checkpoint import Checkpoints, Saved, rng_state, set_rng_state

IGNORED_LABEL = -100


class Batches(Protocol):
    """What the loop needs of a loader: dualfast.Loader has it."""

    def __iter__(self) -> object: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    @property
    def remaining(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class CrossEntropy(nn.Module):
    """Plain cross-entropy with DualLoss's signature, for the passes that score nothing."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Fit:
    """What a training came to. Accuracies are fractions of the test images; seconds leave testing out.

    cpu_seconds: what this process's threads used of the processors, whatever else ran on them.
    """

    accuracy: float
    best_accuracy: float
    loss: float
    seconds: float
    cpu_seconds: float
    images_per_second: float


def pick_device(recipe: Recipe) -> torch.device:
    """recipe.device with "auto" resolved; ValueError when it asks for a device that is not there."""
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(recipe.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {recipe.device!r}, which is not there ({error}); use auto or cpu") from error
    return device


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The autocast context of the forward pass; on CPUs without bf16 instructions bf16 is 10 to 40 times slower."""
    if recipe.amp == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and _cpu_has_bf16())
    else:
        fast = recipe.amp == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class _Clock:
    """Seconds, and processor seconds of this process, from one lap to the next."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> tuple[float, float]:
        wall, cpu = self.wall, self.cpu
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self.wall - wall, self.cpu - cpu


@dataclass
class _Course:
    """How far a training has come: what a checkpoint holds of it in numbers. loss_sum (1,) float32 is of the epoch's
    batches so far; a batch of padding alone is none."""

    loss_sum: torch.Tensor
    epoch: int = 0
    batches: int = 0
    images: int = 0
    seen: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loss: float = math.nan
    accuracy: float = math.nan
    best: float = math.nan

    def new_epoch(self, epoch: int) -> None:
        self.epoch, self.batches, self.images = epoch, 0, 0
        self.loss_sum.zero_()

    def close_epoch(self, ranks: Ranks) -> None:
        """Adds up the epoch over the ranks."""
        loss, batches, images = ranks.sums([float(self.loss_sum), self.batches, self.images])
        if not batches:
            raise ValueError("the loader gave no batches; it needs at least one sample (and drop_last=False)")
        self.loss = loss / batches
        self.seen += int(images)

    def spent(self, seconds: float, cpu_seconds: float) -> None:
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds

    def tested(self, accuracy: float) -> None:
        self.accuracy = accuracy
        self.best = accuracy if math.isnan(self.best) else max(self.best, accuracy)


class _Trainer:
    """What a training consists of, to be saved and restored together."""

    def __init__(self, model: nn.Module, loader: Batches, criterion: nn.Module, recipe: Recipe, ranks: Ranks) -> None:
        self.device = pick_device(recipe)
        self.recipe, self.loader, self.criterion, self.model = recipe, loader, criterion, model
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        criterion.to(self.device)
        self.network = nn.parallel.DistributedDataParallel(model) if ranks.size > 1 else model
        self.table: ScoreTable | None = getattr(criterion, "table", None)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        steps = len(loader) * recipe.epochs
        self.scheduler: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "onecycle":
            rise = 0.25 if steps != 3 else 0.3  # of 4 a quarter is one, and OneCycleLR divides by one less
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, max_lr=recipe.lr, total_steps=steps + 1, pct_start=rise, cycle_momentum=False
            )
        else:
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=steps)
        self.course = _Course(torch.zeros(1, device=self.device))

    def step(self, images: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> None:
        real = bool((labels != IGNORED_LABEL).any())  # asked where the loader left them: nothing waits for a device
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        index = index.to(self.device, non_blocking=True)
        with autocast(self.recipe, self.device):
            logits = self.network(images)
        loss = self.criterion(logits, labels, index)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        if real:
            self.course.loss_sum += loss.detach()
            self.course.batches += 1
        self.course.images += len(labels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "loader": self.loader.state_dict(),
            "table": None if self.table is None else self.table.state_dict(),
            "rng": rng_state(self.device),
            "course": vars(self.course),
        }

    def resume(self, saved: Saved) -> None:
        state = saved.state
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        set_rng_state(state["rng"], self.device)
        self.course = course = _Course(**state["course"])
        if saved.moved:
            # Batches that do not split evenly are other batches, and an epoch is another number of them.
            self.scheduler.last_epoch = len(self.loader) * (course.epoch + 1) - self.loader.remaining
            for name in ("loss_sum", "batches", "images"):
                setattr(course, name, sum((part["course"][name] for part in saved.parts), 0 * getattr(course, name)))
            if self.table is not None:
                load_parts(self.table, [part["table"] for part in saved.parts])
        else:
            self.scheduler.load_state_dict(state["schedule"])
            if self.table is not None:
                self.table.load_state_dict(state["table"])
        course.loss_sum = course.loss_sum.to(self.device)


def fit(
    model: nn.Module,
    loader: Batches,
    criterion: nn.Module,
    recipe: Recipe,
    *,
    stop_after: int | None = None,
    test_loader: Batches | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
    ranks: Ranks | None = None,
    checkpoints: Checkpoints | None = None,
    what: dict[str, Any] | None = None,
) -> Fit:
    """Trains `model` in place with SGD (Nesterov) on `loader`, whose batches are (images, labels, index).

    The learning rate follows recipe.schedule over recipe.epochs; stop_after = T ends after T of them, as a scoring
    pass does. With a test_loader the model is tested recipe.tests times, at the end too. on_epoch(epoch, mean training
    loss, test accuracy or None) runs after each epoch. On several ranks every one calls it with a loader of its share,
    and gradients are averaged. With checkpoints, `what` names the training, and one that was interrupted goes on.
    Raises ValueError when the loss is no longer finite.
    """
    ranks = ranks or Ranks()
    trainer = _Trainer(model, loader, criterion, recipe, ranks)
    epochs = recipe.epochs if stop_after is None else min(stop_after, recipe.epochs)
    saved = None if checkpoints is None else checkpoints.begin(what or {"training": "a training"})
    if saved is not None:
        trainer.resume(saved)
    course = trainer.course
    test_every = math.ceil(epochs / recipe.tests)
    for epoch in range(course.epoch, epochs):
        if saved is None:
            course.new_epoch(epoch)
            loader.set_epoch(epoch)
        saved = None
        model.train()
        clock = _Clock()
        for images, labels, index in loader:  # type: ignore[attr-defined]
            trainer.step(images, labels, index)
            course.spent(*clock.lap())
            if checkpoints is not None:
                checkpoints.step(trainer.state_dict)
        if trainer.table is not None:
            trainer.table.exchange()
        course.close_epoch(ranks)
        course.spent(*clock.lap())
        if not math.isfinite(course.loss):
            end = f"after epoch {epoch + 1}"
            raise ValueError(f"the training loss is {course.loss} {end}; lower lr (it is {recipe.lr})")
        tested = None
        if test_loader is not None and ((epoch + 1) % test_every == 0 or epoch + 1 == epochs):
            tested = evaluate(model, test_loader, recipe, ranks)
            course.tested(tested)
        if on_epoch is not None:
            on_epoch(epoch, course.loss, tested)
    if checkpoints is not None:
        checkpoints.rest()
    return Fit(
        course.accuracy, course.best, course.loss, course.seconds, course.cpu_seconds, course.seen / course.seconds
    )


@torch.no_grad()
def evaluate(model: nn.Module, loader: Batches, recipe: Recipe, ranks: Ranks | None = None) -> float:
    """The fraction of the loader's images whose largest logit is their label's; of all ranks' loaders together. A
    label of -100, with which a loader pads, is no image."""
    ranks = ranks or Ranks()
    device = pick_device(recipe)
    model.eval()
    ranks.share_buffers(model)
    right = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for images, labels, _ in loader:  # type: ignore[attr-defined]
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(recipe, device):
            logits = model(images)
        right += (logits.argmax(1) == labels.to(device, non_blocking=True)).sum()
        count += int((labels != IGNORED_LABEL).sum())
    all_right, all_count = ranks.sums([int(right), count])
    return all_right / all_count

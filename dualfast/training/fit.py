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
from dualfast.errors import full_memory
from dualfast.scoring.sharded import load_parts
from dualfast.scoring.table import ScoreTable
from dualfast.training.checkpoint import Checkpoints
from dualfast.training.checkpoint_resume import Saved
from dualfast.training.device import autocast, pick_device
from dualfast.training.models import logits_of

IGNORED_LABEL = -100


class Batches(Protocol):
    """What the loop needs from a loader; dualfast.Loader provides it."""

    def __iter__(self) -> object: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...
    @property
    def remaining(self) -> int: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class CrossEntropy(nn.Module):
    """Plain cross-entropy with DualLoss's signature, for trainings that record no scores; in float32, as there."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        # The softmax of bf16 logits rounds small gradients to zero.
        return nn.functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class TrainResult:
    """The result of a training. Accuracies are fractions of the test images, after the last epoch and the best; loss is
    the last epoch's mean training loss.

    seconds, cpu_seconds and images_per_second leave testing out; cpu_seconds is the processor time of this process's
    threads, which other work on the machine affects less.
    """

    accuracy: float
    best_accuracy: float
    loss: float
    seconds: float
    cpu_seconds: float
    images_per_second: float

    def columns(self) -> dict[str, float]:
        """What a result row says of the training."""
        return {
            "accuracy": self.accuracy,
            "best_accuracy": self.best_accuracy,
            "loss": self.loss,
            "train_seconds": self.seconds,
            "train_cpu_seconds": self.cpu_seconds,
            "images_per_second": self.images_per_second,
        }


class _Clock:
    """Wall seconds, and processor seconds of this process, since the previous lap."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def lap(self) -> tuple[float, float]:
        wall, cpu = self.wall, self.cpu
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self.wall - wall, self.cpu - cpu


@dataclass
class TrainState:
    """The counters of a training, as a checkpoint saves them.

    loss_sum (1,) float32 and batches count the current epoch so far, without batches that are all padding; images
    counts its rows.
    """

    loss_sum: torch.Tensor
    epoch: int = 0
    batches: int = 0
    images: int = 0
    seen: int = 0
    """Images of the finished epochs, over all ranks."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    loss: float = math.nan
    """Mean training loss of the last finished epoch."""
    accuracy: float = math.nan
    best: float = math.nan

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.batches, self.images = epoch, 0, 0
        self.loss_sum.zero_()

    def finish_epoch(self, ranks: Ranks) -> None:
        """Sums up the epoch over all ranks."""
        loss, batches, images = ranks.sums([float(self.loss_sum), self.batches, self.images])
        if not batches:
            raise ValueError("the loader yielded no batches; it needs at least one sample (and drop_last=False)")
        self.loss = loss / batches
        self.seen += int(images)

    def add_time(self, seconds: float, cpu_seconds: float) -> None:
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds

    def add_test(self, accuracy: float) -> None:
        self.accuracy = accuracy
        self.best = accuracy if math.isnan(self.best) else max(self.best, accuracy)


class _Trainer:
    """Everything that one training changes, saved and restored together."""

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
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
        steps = len(loader) * recipe.epochs
        self.scheduler: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "onecycle":
            rise = 0.25 if steps != 3 else 0.3  # 0.25 of 4 is 1, and OneCycleLR divides by that minus 1
            self.scheduler = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, max_lr=recipe.lr, total_steps=steps + 1, pct_start=rise, cycle_momentum=False
            )
        else:
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
                self.optimizer, T_max=steps, eta_min=recipe.min_lr
            )
        self.state = TrainState(torch.zeros(1, device=self.device))

    def step(self, images: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> None:
        real = bool((labels != IGNORED_LABEL).any())  # before labels move: nothing waits for the device
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        labels = labels.to(self.device, non_blocking=True)
        index = index.to(self.device, non_blocking=True)
        with autocast(self.recipe, self.device):
            logits = logits_of(self.network(images))
        loss = self.criterion(logits, labels, index)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        if real:
            self.state.loss_sum += loss.detach()
            self.state.batches += 1
        self.state.images += len(labels)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.scheduler.state_dict(),
            "loader": self.loader.state_dict(),
            "table": None if self.table is None else self.table.state_dict(),
            "rng": rng_state(self.device),
            "course": vars(self.state),
        }

    def resume(self, saved: Saved) -> None:
        """Restores what state_dict() saved."""
        own = saved.state
        self.model.load_state_dict(own["model"])
        self.optimizer.load_state_dict(own["optimizer"])
        self.loader.load_state_dict(own["loader"])
        set_rng_state(own["rng"], self.device)
        self.state = TrainState(**own["course"])
        if saved.world_size_changed:
            self._take_over(saved.parts)
        else:
            self.scheduler.load_state_dict(own["schedule"])
            if self.table is not None:
                self.table.load_state_dict(own["table"])
        self.state.loss_sum = self.state.loss_sum.to(self.device)

    def _take_over(self, parts: list[dict[str, Any]]) -> None:
        """Restores what depends on the number of ranks from the parts that fell to this one."""
        # An epoch may have another number of batches now; the schedule goes by what is left of it.
        self.scheduler.last_epoch = len(self.loader) * (self.state.epoch + 1) - self.loader.remaining
        for name in ("loss_sum", "batches", "images"):
            zero = 0 * getattr(self.state, name)
            setattr(self.state, name, sum((part["course"][name] for part in parts), zero))
        if self.table is not None:
            load_parts(self.table, [part["table"] for part in parts])


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """The state of torch's generators."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_rng_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@full_memory("training")
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
    before_epoch: Callable[[int], None] | None = None,
) -> TrainResult:
    """Trains `model` in place with SGD (Nesterov) on `loader`, whose batches are (images, labels, index).

    The learning rate follows recipe.schedule over recipe.epochs; stop_after = T ends after T of them, as a scoring
    pass does. With a test_loader the model is tested recipe.tests times, the last time at the end. on_epoch(epoch, mean
    training loss, test accuracy or None) runs after each epoch. On several ranks, each calls this with a loader of its
    share, and gradients are averaged. before_epoch(epoch) runs before each, resumed ones too, and may select other
    samples, as many. With checkpoints, `what` names the training, and an interrupted one resumes. Raises ValueError
    when the loss is no longer finite, Stopped when a signal asks to stop.
    """
    ranks = ranks or Ranks()
    trainer = _Trainer(model, loader, criterion, recipe, ranks)
    epochs = recipe.epochs if stop_after is None else min(stop_after, recipe.epochs)
    saved = None if checkpoints is None else checkpoints.begin(what or {"training": "a training"})
    if saved is not None:
        if before_epoch is not None:
            before_epoch(saved.state["course"]["epoch"])
        trainer.resume(saved)
    state = trainer.state
    test_every = math.ceil(epochs / recipe.tests)
    for epoch in range(state.epoch, epochs):
        if saved is None:
            state.start_epoch(epoch)
            if before_epoch is not None:
                before_epoch(epoch)
            loader.set_epoch(epoch)
        saved = None
        model.train()
        clock = _Clock()
        for images, labels, index in loader:  # type: ignore[attr-defined]
            trainer.step(images, labels, index)
            state.add_time(*clock.lap())
            if checkpoints is not None:
                checkpoints.step(trainer.state_dict)
        if trainer.table is not None:
            trainer.table.exchange()
        state.finish_epoch(ranks)
        state.add_time(*clock.lap())
        if not math.isfinite(state.loss):
            after = f"after epoch {epoch + 1}"
            raise ValueError(f"the training loss is {state.loss} {after}; lower lr (it is {recipe.lr})")
        accuracy = None
        if test_loader is not None and ((epoch + 1) % test_every == 0 or epoch + 1 == epochs):
            accuracy = evaluate(model, test_loader, recipe, ranks)
            state.add_test(accuracy)
        if on_epoch is not None:
            on_epoch(epoch, state.loss, accuracy)
    if checkpoints is not None:
        checkpoints.finish()
    rate = state.seen / state.seconds
    return TrainResult(state.accuracy, state.best, state.loss, state.seconds, state.cpu_seconds, rate)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Batches, recipe: Recipe, ranks: Ranks | None = None) -> float:
    """The fraction of the loader's images whose largest logit is their label's, over all ranks' loaders together.
    Labels of -100, with which a loader pads, do not count."""
    ranks = ranks or Ranks()
    device = pick_device(recipe)
    model.eval()
    ranks.share_buffers(model)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for images, labels, _ in loader:  # type: ignore[attr-defined]
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(recipe, device):
            logits = logits_of(model(images))
        correct += (logits.argmax(1) == labels.to(device, non_blocking=True)).sum()
        count += int((labels != IGNORED_LABEL).sum())
    all_correct, all_count = ranks.sums([int(correct), count])
    return all_correct / all_count

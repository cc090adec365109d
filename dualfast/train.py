"""The training loop that scoring and retraining share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from dualfast.config import Recipe


class Batches(Protocol):
    """What the loop needs of a loader: dualfast.Loader has it."""

    def __iter__(self) -> object: ...
    def __len__(self) -> int: ...
    def set_epoch(self, epoch: int) -> None: ...


class CrossEntropy(nn.Module):
    """Plain cross-entropy with DualLoss's signature, for the passes that score nothing."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class Fit:
    """What a training came to. Accuracies are fractions of the test images; seconds leave testing out."""

    accuracy: float
    best_accuracy: float
    loss: float
    seconds: float
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


def fit(
    model: nn.Module,
    loader: Batches,
    criterion: nn.Module,
    recipe: Recipe,
    *,
    stop_after: int | None = None,
    test_loader: Batches | None = None,
    on_epoch: Callable[[int, float, float | None], None] | None = None,
) -> Fit:
    """Trains `model` in place with SGD (Nesterov) on `loader`, whose batches are (images, labels, index).

    The learning rate follows recipe.schedule over recipe.epochs; stop_after = T ends after T of them, as a scoring
    pass does. With a test_loader the model is tested recipe.tests times, at the end too. on_epoch(epoch, mean training
    loss, test accuracy or None) runs after each epoch. Raises ValueError when the loss is no longer finite.
    """
    device = pick_device(recipe)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion.to(device)
    epochs = recipe.epochs if stop_after is None else min(stop_after, recipe.epochs)
    steps = len(loader) * recipe.epochs
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.momentum > 0,
        weight_decay=recipe.weight_decay,
    )
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "onecycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.lr, total_steps=steps + 1, pct_start=0.25, cycle_momentum=False
        )
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    test_every = math.ceil(epochs / recipe.tests)
    best, accuracy, loss_mean, seen, seconds = math.nan, math.nan, math.nan, 0, 0.0
    for epoch in range(epochs):
        start = time.perf_counter()
        model.train()
        loader.set_epoch(epoch)
        total = torch.zeros((), device=device)
        batches = images_seen = 0
        for images, labels, index in loader:  # type: ignore[attr-defined]
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            labels = labels.to(device, non_blocking=True)
            index = index.to(device, non_blocking=True)
            with autocast(recipe, device):
                logits = model(images)
            loss = criterion(logits, labels, index)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach()
            batches += 1
            images_seen += len(labels)
        if not batches:
            raise ValueError("the loader gave no batches; it needs at least one sample (and drop_last=False)")
        loss_mean = float(total) / batches
        seconds += time.perf_counter() - start
        seen += images_seen
        if not math.isfinite(loss_mean):
            raise ValueError(f"the training loss is {loss_mean} after epoch {epoch + 1}; lower lr (it is {recipe.lr})")
        tested = None
        if test_loader is not None and ((epoch + 1) % test_every == 0 or epoch + 1 == epochs):
            tested = accuracy = evaluate(model, test_loader, recipe)
            best = accuracy if math.isnan(best) else max(best, accuracy)
        if on_epoch is not None:
            on_epoch(epoch, loss_mean, tested)
    return Fit(accuracy, best, loss_mean, seconds, seen / seconds)


@torch.no_grad()
def evaluate(model: nn.Module, loader: Batches, recipe: Recipe) -> float:
    """The fraction of the loader's images whose largest logit is their label's."""
    device = pick_device(recipe)
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    count = 0
    for images, labels, _ in loader:  # type: ignore[attr-defined]
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(recipe, device):
            logits = model(images)
        right += (logits.argmax(1) == labels.to(device, non_blocking=True)).sum()
        count += len(labels)
    return int(right) / count

"""A batch of noise through the model before any work: what would fail after an hour fails at once."""

from __future__ import annotations

import torch

from dualfast.config import Recipe
from dualfast.errors import full_memory
from dualfast.notices import warn
from dualfast.training import models
from dualfast.training.device import autocast, pick_device
from dualfast.training.fit import CrossEntropy
from dualfast.user_code import described

BATCH, OTHER_BATCH = 2, 3  # images; batch normalisation needs two


def try_model(recipe: Recipe, *, n_classes: int, image_size: int) -> int:
    """Builds recipe.model, trains it and tests it on a batch of noise, discards it, and returns its number of outputs.

    Raises ValueError or TypeError, naming the model, when it cannot be built, fails on images of image_size px, has
    nothing to train, or gives anything but finite logits (B, C) with C >= n_classes. Warns of probabilities.
    """
    name, device = recipe.model, pick_device(recipe)
    model = models.build(name, num_classes=n_classes, image_size=image_size)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"model {name!r} has nothing to train: none of its parameters requires a gradient; leave some unfrozen"
        )
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with full_memory("a batch of noise"):
        count = BATCH if n_classes != BATCH else OTHER_BATCH  # so that (C, B) is not taken for (B, C)
        images = torch.randn(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(device, memory_format=torch.channels_last)
    labels = torch.arange(count, device=device) % n_classes
    outputs = 0
    for training in (True, False):
        model.train(training)
        try:
            with torch.set_grad_enabled(training), autocast(recipe, device):
                output = model(images)
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise _fails(name, images, error) from error
        logits = _checked_logits(name, output, count, n_classes)
        outputs = logits.shape[1]
        if not training and _are_probabilities(logits):
            warn(f"model {name!r} gives probabilities, as of a softmax at its end; logits are expected, without it")
        if training:
            try:
                CrossEntropy()(logits, labels, labels).backward()
            except Exception as error:
                raise _fails(name, images, error) from error
    return outputs


def _fails(name: str, images: torch.Tensor, error: BaseException) -> ValueError:
    return ValueError(f"model {name!r} fails on images {tuple(images.shape)} float32: {described(error)}")


def _are_probabilities(logits: torch.Tensor) -> bool:
    """Whether each row is one of positive numbers whose sum is 1, as logits of noise are by no chance."""
    values = logits.float()
    return bool((values >= 0).all()) and torch.allclose(values.sum(1), torch.ones(len(values)).to(values), atol=1e-2)


def _checked_logits(name: str, output: object, count: int, n_classes: int) -> torch.Tensor:
    try:
        logits = models.logits_of(output)
    except TypeError as error:
        raise TypeError(f"model {name!r}: {error}") from None
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < n_classes or not logits.is_floating_point():
        shape = ", ".join("B" if at == 0 and size == count else str(size) for at, size in enumerate(logits.shape))
        kind = "" if logits.is_floating_point() else f" {logits.dtype}"
        raise ValueError(
            f"model {name!r} gives ({shape}){kind}; the data have {n_classes} classes: it must give logits (B, "
            f"{n_classes}); a factory takes the number of classes as num_classes"
        )
    if not logits.isfinite().all():
        raise ValueError(f"model {name!r} gives values that are not finite on a first batch of noise; see its weights")
    return logits

"""dualfast.training.trial_batch: a model that cannot be trained on the data is named before any work."""

from __future__ import annotations

import sys
from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from dualfast.config import Recipe
from dualfast.training.trial_batch import try_model

Pair = namedtuple("Pair", "logits aux")


@dataclass
class Output:
    logits: torch.Tensor
    loss: None = None


class Net(nn.Module):
    """A linear layer whose output `wrap` returns in another form."""

    def __init__(self, outputs: int, wrap: object = None) -> None:
        super().__init__()
        self.head, self.wrap = nn.Linear(3 * 8 * 8, outputs), wrap

    def forward(self, images: torch.Tensor) -> object:
        logits = self.head(images.flatten(1))
        return self.wrap(logits) if callable(self.wrap) else logits


def plain(num_classes: int) -> nn.Module:
    return Net(num_classes)


def dataclass_output(num_classes: int) -> nn.Module:
    return Net(num_classes, Output)


def aux_in_training(num_classes: int) -> nn.Module:
    net = Net(num_classes)
    net.wrap = lambda logits: Pair(logits, logits) if net.training else logits
    return net


def more() -> nn.Module:
    return Net(10)


def fewer() -> nn.Module:
    return Net(2)


def maps(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits[:, :, None])


def joined(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits.reshape(1, -1))


def numbers(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits.argmax(1, keepdim=True).expand(-1, 3))


def dictionary(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: {"out": logits, "aux": logits})


def a_pair(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: (logits, logits))


def large_images_only(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 11), nn.Flatten(), nn.LazyLinear(num_classes))


def frozen(num_classes: int) -> nn.Module:
    return Net(num_classes).requires_grad_(False)


def detached(num_classes: int) -> nn.Module:
    return Net(num_classes, torch.Tensor.detach)


def broken_in_testing(num_classes: int) -> nn.Module:
    net = Net(num_classes)

    def wrap(logits: torch.Tensor) -> torch.Tensor:
        if not net.training:
            raise KeyError("eval")
        return logits

    net.wrap = wrap
    return net


def softmax(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits.softmax(1))


def not_finite(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits / 0)


def turned(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: logits.T)


def leaving(num_classes: int) -> nn.Module:
    return Net(num_classes, lambda logits: sys.exit(3))


def outputs_of(model: str, **options: object) -> int:
    recipe = Recipe(model=f"{__name__}:{model}", device="cpu", **options)  # type: ignore[arg-type]
    return try_model(recipe, n_classes=3, image_size=8)


@pytest.mark.parametrize(
    ("model", "count"), [("plain", 3), ("dataclass_output", 3), ("aux_in_training", 3), ("more", 10)]
)
def test_a_model_that_can_be_trained_has_so_many_outputs(model: str, count: int) -> None:
    assert outputs_of(model) == count
    assert outputs_of(model, amp="bf16") == count


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("fewer", r"gives \(B, 2\); the data have 3 classes.*num_classes"),
        ("maps", r"gives \(B, 3, 1\); the data have 3 classes"),
        ("joined", r"gives \(1, 6\); the data"),
        ("numbers", r"gives \(B, 3\) torch\.int64; the data"),
        ("dictionary", "the model returns a dict with the keys out, aux; return the logits"),
        ("a_pair", "the model returns a tuple of 2; return the logits"),
        ("large_images_only", r"fails on images of 8 px: RuntimeError: "),
        ("not_finite", "gives values that are not finite on a first batch of noise"),
        ("frozen", "has nothing to train: none of its parameters requires a gradient"),
        ("detached", r"fails on images \(2, 3, 8, 8\) float32: RuntimeError: .*does not require grad"),
        ("leaving", r"fails on images .*: SystemExit: 3 \(test_trial_batch\.py, line \d+\)"),
        ("broken_in_testing", r"fails on images .*: KeyError: 'eval' \(test_trial_batch\.py, line \d+\)"),
    ],
)
def test_a_model_that_cannot_is_named_with_the_reason(model: str, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=rf"^model '{__name__}:{model}'.*{said}") as caught:
        outputs_of(model)
    assert "\n" not in str(caught.value)


def test_logits_of_two_classes_that_lie_the_wrong_way_round() -> None:
    recipe = Recipe(model=f"{__name__}:turned", device="cpu")
    with pytest.raises(ValueError, match=r"gives \(2, 3\); the data have 2 classes: it must give logits \(B, 2\)"):
        try_model(recipe, n_classes=2, image_size=8)


@pytest.mark.parametrize("device", ["meta", "cuda:99", "abacus"])
def test_a_device_that_cannot_compute_is_named(device: str) -> None:
    with pytest.raises(ValueError, match=f"device is '{device}', which is not available .*; use auto or cpu") as caught:
        try_model(Recipe(device=device), n_classes=3, image_size=8)
    assert len(str(caught.value)) < 300


def test_probabilities_are_said() -> None:
    with pytest.warns(UserWarning, match=rf"model '{__name__}:softmax' gives probabilities, .*; logits are expected"):
        assert outputs_of("softmax") == 3

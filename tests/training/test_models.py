"""dualfast.training.models: shapes at every size, and models by import path."""

from __future__ import annotations

import itertools
import re
from collections import namedtuple
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dualfast.training import models


@pytest.mark.parametrize("name", ["small", "wide"])
@pytest.mark.parametrize("size", [8, 12, 28, 32, 64, 97, 224])
def test_small_takes_any_size_and_a_batch_of_one(name: str, size: int) -> None:
    model = models.build(name, num_classes=7, image_size=size)
    assert model(torch.randn(1, 3, size, size)).shape == (1, 7)  # training mode: batch norm must see more than 1x1


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("resnet18", 224, 11_689_512), ("resnet34", 224, 21_797_672), ("resnet50", 224, 25_557_032)],
)
def test_resnets_have_the_published_number_of_parameters(name: str, size: int, parameters: int) -> None:
    model = models.build(name, num_classes=1000, image_size=size)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_a_resnet_for_small_images_keeps_their_resolution() -> None:
    model = models.build("resnet18", num_classes=10, image_size=32)
    assert isinstance(model, models.ResNet)
    assert model.features(torch.randn(1, 3, 32, 32)).shape == (1, 512, 4, 4)
    large = models.build("resnet18", num_classes=10, image_size=224)
    assert isinstance(large, models.ResNet)
    assert large.features(torch.randn(1, 3, 224, 224)).shape == (1, 512, 7, 7)


def test_resnet9_starts_with_small_logits_and_learns() -> None:
    torch.manual_seed(0)
    model = models.build("resnet9", num_classes=10, image_size=32)
    # Eight 3x3 convolutions, two weights a channel of their normalisations, and the head.
    widths = [3, 64, 128, 128, 128, 256, 512, 512, 512]
    convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == convolutions + 2 * sum(widths[1:]) + 10 * 512
    images, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 10
    assert model(images).abs().max() < 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(4):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def linear(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


def not_a_model(**_: int) -> int:
    return 3


def test_any_factory_is_called_with_the_arguments_it_names() -> None:
    model = models.build(f"{__name__}:linear", num_classes=5, image_size=8)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def normalised(n_classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(n_classes))


def test_lazy_layers_get_their_sizes_and_nothing_else() -> None:
    model = models.build(f"{__name__}:normalised", num_classes=5, image_size=8)
    assert not any(map(nn.parameter.is_lazy, model.parameters()))
    assert model.training
    assert model[-1].weight.shape == (5, 4 * 6 * 6)
    assert not model[1].running_mean.any()
    assert int(model[1].num_batches_tracked) == 0


class Library(nn.Module):
    """As torchvision's and timm's models: what a factory passes on is checked here."""

    def __init__(self, num_classes: int = 1000, width: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(width, num_classes)


def pretrained(weights: None = None, **options: int) -> nn.Module:
    return Library(**options)


def misspelt(**options: int) -> nn.Module:
    return Library(klasses=3, **options)  # type: ignore[call-arg]


def leaving(num_classes: int) -> nn.Module:
    raise SystemExit(3)


def test_a_factory_that_exits_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"cannot be built: SystemExit: 3 \(test_models\.py, line \d+\)"):
        models.build(f"{__name__}:leaving", num_classes=5, image_size=8)


def test_a_factory_that_passes_on_what_it_gets_gets_no_image_size_unless_it_takes_it() -> None:
    assert models.build(f"{__name__}:pretrained", num_classes=5, image_size=8).head.weight.shape == (5, 4)
    with pytest.raises(ValueError, match=r"cannot be built: TypeError: .*klasses' \(test_models\.py, line \d+\)"):
        models.build(f"{__name__}:misspelt", num_classes=5, image_size=8)


@pytest.mark.parametrize("name", ["resnet19", "no_such_module:net", f"{__name__}:nothing"])
def test_a_name_that_leads_nowhere(name: str) -> None:
    with pytest.raises(ValueError, match=r"use one of small, wide"):
        models.check(name)


@pytest.mark.parametrize("name", ["os:path", ".x:f", ":f", "math:pi"])
def test_what_is_no_factory_is_named(name: str) -> None:
    for asked in (models.check, partial(models.build, num_classes=2, image_size=8)):
        with pytest.raises(ValueError, match=rf"model '{re.escape(name)}'.* module:factory"):
            asked(name)


def test_a_module_that_fails_and_a_file_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_net.py").write_text("import torch\n\nwidth = dpeth\n")
    (tmp_path / "half_net.py").write_text("def net(:\n")
    with pytest.raises(ValueError, match=r"does not import \(NameError: .* \(broken_net\.py, line 3\)\)"):
        models.check("broken_net:net")
    with pytest.raises(ValueError, match=r"does not import \(SyntaxError: .* \(half_net\.py, line 1\)\)"):
        models.check("half_net:net")
    with pytest.raises(ValueError, match=r"give a module, as nets\.mine:net, in the current folder"):
        models.check("nets/mine.py:net")


def test_logits_are_the_output_or_its_attribute() -> None:
    logits = torch.zeros(2, 3)
    for output in (logits, SimpleNamespace(logits=logits), namedtuple("Out", "logits aux")(logits, None)):
        assert models.logits_of(output) is logits
    for output, what in (
        ({"logits": logits}, "a dict with the keys logits"),
        ((logits, None), "a tuple of 2"),
        (SimpleNamespace(logits=None), "a SimpleNamespace"),
        (None, "a NoneType"),
    ):
        with pytest.raises(TypeError, match=f"^the model returns {what}; return the logits"):
            models.logits_of(output)


def test_resnet9_says_how_large_its_images_must_be() -> None:
    with pytest.raises(ValueError, match=r"image_size is 7; model 'resnet9' .* 8 px"):
        models.build("resnet9", num_classes=2, image_size=7)
    assert models.build("resnet9", num_classes=2, image_size=8)(torch.zeros(2, 3, 8, 8)).shape == (2, 2)


ONE = torch.nn.Linear(2, 2)


def the_same_network(num_classes: int) -> torch.nn.Module:
    return ONE


def test_a_factory_that_returns_the_same_network_again() -> None:
    models.build(f"{__name__}:the_same_network", num_classes=5, image_size=8)
    with pytest.raises(ValueError, match=r"returned the network that it had returned before, .* must make a new one"):
        models.build(f"{__name__}:the_same_network", num_classes=5, image_size=8)


def test_a_factory_that_builds_no_model() -> None:
    with pytest.raises(TypeError, match="returned a int"):
        models.build(f"{__name__}:not_a_model", num_classes=5, image_size=8)

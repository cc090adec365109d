"""A small model zoo, and any other model by import path: build("small" | "resnet18" | ... | "module:factory")."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from weakref import WeakSet

import torch
from torch import nn

from dualfast.user_code import described, import_named

SMALL_IMAGE = 64  # px: up to this side a ResNet has a 3x3 stem and no max-pool, as in the CIFAR recipes


class Small(nn.Module):
    """Four 3x3 convolutions for CPUs, of `width` to 8 * `width` channels: 0.1 M parameters at width 16.

    Pooling precedes normalisation, which then handles a quarter of the elements. Images of 32 px and more reach the
    second convolution at 16 to 31 px, so the cost hardly grows with their size.
    """

    def __init__(self, num_classes: int, image_size: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = 3, image_size
        for times, pool in zip((1, 2, 4, 8), (max(2, image_size // 16), 2, 2, 1), strict=True):
            layers.append(nn.Conv2d(channels, times * width, 3, padding=1, bias=False))
            if 1 < pool <= side // 2:
                layers.append(nn.MaxPool2d(pool))
                side //= pool
            layers += [nn.BatchNorm2d(times * width), nn.ReLU(inplace=True)]
            channels = times * width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return out


class ResNet9(nn.Module):
    """Eight 3x3 convolutions, two pairs of them residual, for 32 px and few epochs: 6.6 M parameters.

    The architecture of the short CIFAR-10 trainings of DAWNBench: wide early layers, max-pooling, small initial logits.
    """

    LOGIT_SCALE = 0.125
    SMALLEST = 8  # px: it pools three times

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(_conv(3, 64), _conv(64, 128), nn.MaxPool2d(2))
        self.first = nn.Sequential(_conv(128, 128), _conv(128, 128))
        self.middle = nn.Sequential(_conv(128, 256), nn.MaxPool2d(2), _conv(256, 512), nn.MaxPool2d(2))
        self.last = nn.Sequential(_conv(512, 512), _conv(512, 512))
        self.head = nn.Linear(512, num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.entry(images)
        x = self.middle(x + self.first(x))
        x = x + self.last(x)
        out: torch.Tensor = self.head(x.amax(dim=(2, 3))) * self.LOGIT_SCALE
        return out


def _conv(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 if `bottleneck`."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        if bottleneck:
            convolutions = [(channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1)]
        else:
            convolutions = [(channels, width, 3, stride), (width, out, 3, 1)]
        layers: list[nn.Module] = []
        for in_channels, out_channels, kernel, step in convolutions:
            layers.append(nn.Conv2d(in_channels, out_channels, kernel, step, kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet (arXiv 1512.03385), for images of up to 64 px with the CIFAR stem (3x3, stride 1, no max-pool)."""

    def __init__(self, depths: tuple[int, ...], bottleneck: bool, num_classes: int, image_size: int) -> None:
        super().__init__()
        stem: list[nn.Module]
        if image_size <= SMALL_IMAGE:
            stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        else:
            stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
            stem.append(nn.MaxPool2d(3, 2, 1))
        layers = stem
        channels = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for block in range(depth):
                layers.append(Block(channels, width, 2 if stage and block == 0 else 1, bottleneck))
                channels = width * 4 if bottleneck else width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return out


_RESNETS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
}
_SMALL = {"small": 16, "wide": 32}
_BUILT: WeakSet[nn.Module] = WeakSet()  # by factories
MODELS = (*_SMALL, "resnet9", *_RESNETS)


def build(name: str, *, num_classes: int, image_size: int) -> nn.Module:
    """A freshly initialised model: images (B, 3, image_size, image_size) float -> logits (B, num_classes).

    name: one of MODELS, or "module:factory", called as factory(num_classes=..., image_size=...) with those of the two
    arguments that it accepts (n_classes stands for num_classes too). Lazy layers get their sizes. Draws from torch's
    global generator. Raises ValueError for an unknown name, images too small for the model, or a factory that raises,
    and TypeError for one that does not return an nn.Module.
    """
    if name in _SMALL:
        return Small(num_classes, image_size, _SMALL[name])
    if name == "resnet9":
        if image_size < ResNet9.SMALLEST:
            raise ValueError(
                f"image_size is {image_size}; model 'resnet9' halves its images three times and needs at least "
                f"{ResNet9.SMALLEST} px; give larger images, or model small"
            )
        return ResNet9(num_classes)
    if name in _RESNETS:
        depths, bottleneck = _RESNETS[name]
        return ResNet(depths, bottleneck, num_classes, image_size)
    factory = _factory(name)
    try:
        model = factory(num_classes, image_size)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise ValueError(f"model {name!r} cannot be built: {described(error)}") from error
    if not isinstance(model, nn.Module):
        raise TypeError(f"model {name!r} returned a {type(model).__name__}; a factory must return a torch.nn.Module")
    if model in _BUILT:
        raise ValueError(
            f"model {name!r} returned the network that it had returned before, which may be trained already; a factory "
            "must make a new one each time"
        )
    _BUILT.add(model)
    _materialise(name, model, image_size)
    return model


def check(name: str) -> None:
    """Raises ValueError unless build(name) can find its factory."""
    if name not in MODELS:
        _factory(name)


def logits_of(output: object) -> torch.Tensor:
    """The logits (B, C) in what a model returns: the tensor itself, or the attribute `logits`, which the outputs of
    Hugging Face's models, dataclasses and named tuples have. TypeError for anything else."""
    if isinstance(output, torch.Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor):
        return logits
    what = f"a {type(output).__name__}"
    if isinstance(output, Mapping):
        what += f" with the keys {', '.join(map(str, output))}"
    elif isinstance(output, tuple | list):
        what += f" of {len(output)}"
    raise TypeError(f"the model returns {what}; return the logits (B, C), or an object with the attribute logits")


def _materialise(name: str, model: nn.Module, image_size: int) -> None:
    """Gives lazy layers their sizes, by a batch of images in evaluation mode, which changes no running statistics."""
    if not any(map(nn.parameter.is_lazy, itertools.chain(model.parameters(), model.buffers()))):
        return
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, image_size, image_size))
    except Exception as error:
        raise ValueError(f"model {name!r} fails on images of {image_size} px: {described(error)}") from error
    model.train(was_training)


def source_of(name: str) -> Path | None:
    """The file of the module in module:factory; None for a model of ours, and where there is none."""
    module = sys.modules.get(name.partition(":")[0]) if ":" in name else None
    file = getattr(module, "__file__", None)
    return Path(file) if file is not None and Path(file).is_file() else None


def _factory(name: str) -> Callable[[int, int], object]:
    known = f"use one of {', '.join(MODELS)} or module:factory"
    module_name, colon, factory_name = name.partition(":")
    if not colon:
        raise ValueError(f"model {name!r} is unknown; {known}")
    try:
        module = import_named(module_name)
    except ValueError as error:
        if module_name.endswith(".py"):
            stem = module_name.removesuffix(".py").replace("/", ".")
            known = f"give a module, as {stem}:{factory_name}, in the current folder or on PYTHONPATH"
        raise ValueError(f"model {name!r}: {error}; {known}") from error
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise ValueError(f"model {name!r}: module {module_name!r} has no {factory_name!r}; {known}")
    if not callable(factory):
        raise ValueError(f"model {name!r}: {factory_name!r} is a {type(factory).__name__}, not a factory; {known}")
    parameters = inspect.signature(factory).parameters
    accepts_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    classes = "n_classes" if "n_classes" in parameters and "num_classes" not in parameters else "num_classes"

    def call(num_classes: int, image_size: int) -> object:
        given = {classes: num_classes, "image_size": image_size}
        arguments = {name: value for name, value in given.items() if accepts_all or name in parameters}
        try:
            return factory(**arguments)
        except TypeError as error:  # one with **kwargs may hand them to a class that takes no image size
            if "image_size" in parameters or "unexpected keyword argument 'image_size'" not in str(error):
                raise
        return factory(**{classes: num_classes})

    return call

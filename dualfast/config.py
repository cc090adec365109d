"""What can be asked for: frozen dataclasses, checked when they are made. The command line is generated from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal

MAX_VISITS = 4095  # a line's visit counter has 12 bits


# Random crops of the default pipelines. A new one is declared here, computed in csrc/crops.cpp, and specified in plain
# float64 in reference.py.
Augment = Literal["crop", "crop+flip", "rrc"]
AUGMENTS: dict[str, tuple[str, bool]] = {"crop": ("pad", False), "crop+flip": ("pad", True), "rrc": ("resized", True)}
"""The kind of crop, and whether half of the images are mirrored."""
CropParameters = dict[str, float | tuple[float, float]]
CROP_PARAMETERS: dict[str, Callable[[tuple[int, int]], CropParameters]] = {
    "center": lambda size: {"fraction": 1.0},
    "pad": lambda size: {"pad": max(1.0, round(min(size) / 8))},  # 4 px at 32
    "resized": lambda size: {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
}
"""The parameters of a kind, in the order that csrc/crops.cpp takes them, with their defaults for an output of
(height, width)."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") else value


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Calls check() when it is made, of numpy's numbers as Python's: they go into YAML and JSON."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        self.check()

    def check(self) -> None:
        """Raises ValueError naming the first value that cannot be."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """How one network is trained; scoring and retraining share it."""

    model: str = "small"
    """small, wide, resnet9, resnet18, resnet34, resnet50, or module:factory."""
    epochs: int = 30
    """Passes over the training images (or the kept ones)."""
    batch_size: int = 64
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: float = 5e-4
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    compute: Literal["epochs", "steps"] = "epochs"
    """What retraining on a subset keeps equal to training on all images: epochs (cheaper) or optimiser steps."""
    batch_rule: Literal["same", "paper"] = "same"
    """paper: retrain with a half of batch_size from prune ratio 0.8 and a quarter from 0.9 (128, 64, 32)."""
    tests: int = 10
    """How often the test images are tried during a training, the last time at its end."""
    label_smoothing: float = 0.0
    augment: Literal["auto", "none", Augment] = "auto"
    """auto: crop for digits; crop and flip up to 64 px; random resized crop and flip above."""
    image_size: int | None = None
    """Side in pixels; None: the images' own where it is the same for all and at most 64, else 224."""
    amp: Literal["auto", "bf16", "off"] = "auto"
    """auto: bf16 autocast on a GPU, and on a CPU with AVX512_BF16 or AMX (elsewhere it is slower)."""
    device: str = "auto"
    """auto: cuda when there is one, else cpu."""
    num_workers: int = -1
    """Loader threads; -1: as many as this process may use."""
    threads: int = -1
    """Torch's threads on a CPU; -1: as many as this process may use, or one where a batch has under 16,384 pixels."""

    def check(self) -> None:
        _require(self.epochs >= 1, f"epochs is {self.epochs}; give at least 1")
        _require(self.tests >= 1, f"tests is {self.tests}; give at least 1")
        _require(self.batch_size >= 2, f"batch_size is {self.batch_size}; batch normalisation needs at least 2")
        _require(math.isfinite(self.lr) and self.lr > 0, f"lr is {self.lr}; give a positive number")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; give a number in [0, 1)")
        _require(self.weight_decay >= 0, f"weight_decay is {self.weight_decay}; give 0 or more")
        _require(
            0 <= self.label_smoothing < 1,
            f"label_smoothing is {self.label_smoothing}; give a number in [0, 1)",
        )
        _require(
            self.image_size is None or self.image_size >= 4,
            f"image_size is {self.image_size}; give at least 4 px",
        )
        _require(
            self.num_workers == -1 or self.num_workers >= 1,
            f"num_workers is {self.num_workers}; give -1 or 1 and up",
        )
        _require(self.threads == -1 or self.threads >= 1, f"threads is {self.threads}; give -1 or 1 and up")

    def batch_size_at(self, prune_ratio: float) -> int:
        """The batch size of a retraining, by batch_rule."""
        part = 1 if self.batch_rule == "same" or prune_ratio < 0.8 else 2 if prune_ratio < 0.9 else 4
        return max(2, self.batch_size // part)


@dataclass(frozen=True, kw_only=True)
class Scoring(Checked):
    """How the scores are gathered."""

    score_epochs: int = 30
    """T: epochs of training that are scored (30 for CIFAR, 60 for ImageNet in the paper)."""
    window: int = 10
    """J: visits in the sliding window of DUAL."""
    tdds: bool = False
    """Gather TDDS too, at 2 bytes a class and 4 J bytes a sample; the method tdds needs it."""

    def check(self) -> None:
        _require(self.window >= 2, f"window is {self.window}; a standard deviation needs at least 2 visits")
        _require(
            self.window <= self.score_epochs <= MAX_VISITS,
            f"score_epochs is {self.score_epochs} and window is {self.window}: DUAL needs at least as many epochs as "
            f"its window, and at most {MAX_VISITS}; raise score_epochs or lower window",
        )


GivenCD = float | Literal["auto", "cifar10", "cifar100", "imagenet"]
PUBLISHED_C_D = {"cifar10": 5.5, "cifar100": 4.0, "imagenet": 11.0}  # arXiv 2502.06905


def _is_number(value: Any) -> bool:
    """Whether it is an integer or a float, Python's or numpy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def published(c_d: Any) -> Any:
    """The c_D published for the data set of that name; any other value is returned unchanged."""
    return PUBLISHED_C_D.get(c_d, c_d) if isinstance(c_d, str) else c_d


def check_c_d(c_d: Any) -> None:
    """Raises ValueError unless c_d is a positive number, "auto" or the name of a data set with a published value."""
    number = published(c_d)
    *names, last = "auto", *PUBLISHED_C_D
    _require(
        number == "auto" or (_is_number(number) and 0 < number < math.inf),
        f"c_d is {c_d!r}; give a positive number, {', '.join(names)} or {last}",
    )


def method_options(method: str) -> tuple[str, dict[str, int | float | str]]:
    """The name and the options in the text of a method: "dual+beta:c_d=5.5" gives ("dual+beta", {"c_d": 5.5}); several
    options are separated by commas. ValueError for text of another form."""
    name, _, text = method.partition(":")
    options: dict[str, int | float | str] = {}
    for option in filter(None, text.split(",")):
        key, equals, value = option.partition("=")
        _require(bool(key and equals and value), f"method is {method!r}; options are written name:key=value,key=value")
        try:
            options[key] = int(value) if value.isdecimal() else float(value)
        except ValueError:
            options[key] = value
    return name, options


def check_ratio(prune_ratio: Any) -> None:
    """Raises TypeError unless prune_ratio, the fraction REMOVED, is a number, ValueError unless it lies in [0, 1)."""
    if not _is_number(prune_ratio):
        raise TypeError(f"prune_ratio is {prune_ratio!r}; give a number in [0, 1), the fraction REMOVED")
    _require(0 <= prune_ratio < 1, f"prune_ratio is {prune_ratio}; it is the fraction REMOVED and lies in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class Data(Checked):
    """What is read, and where results go."""

    data: str = "digits"
    """digits, a folder of class folders, a .parquet, .npz, WebDataset .tar, CIFAR .tar.gz (binary) or .beton."""
    test: str | None = None
    """Test images in any of the same forms; a folder with train and val (or test) and a CIFAR archive need none."""
    out: str | None = None
    """Run directory; None: runs/<name of the data>."""
    max_size: int | None = None
    """Shrink images whose longer side exceeds this many pixels when they are written."""
    skip_bad: bool = False
    """Leave out images that cannot be read instead of stopping."""

    def check(self) -> None:
        _require(self.max_size is None or self.max_size >= 8, f"max_size is {self.max_size}; give at least 8 px")


def checkpoint_interval(text: str) -> tuple[float, int]:
    """(seconds, 0) of "30s", "10m" or "2h", or (0, steps) of "500steps". ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|h|steps?)", text.strip())
    number = float(match[1]) if match else 0.0
    _require(
        match is not None and number > 0 and ("step" not in match[2] or number.is_integer()),
        f"checkpoint_every is {text!r}; give a time as 30s, 10m or 2h, or a number of steps as 500steps",
    )
    assert match is not None
    if match[2].startswith("step"):
        return 0.0, int(number)
    return number * {"s": 1, "m": 60, "h": 3600}[match[2]], 0


@dataclass(frozen=True, kw_only=True)
class Safety(Checked):
    """What happens when a training is interrupted, or one of its processes is not heard of."""

    checkpoint_every: str = "10m"
    """Time (30s, 10m, 2h) or steps (500steps) from one checkpoint to the next."""
    rank_timeout: float = 600.0
    """Seconds that a process of torchrun waits for another before it gives up."""

    def check(self) -> None:
        checkpoint_interval(self.checkpoint_every)
        _require(
            math.isfinite(self.rank_timeout) and self.rank_timeout > 0,
            f"rank_timeout is {self.rank_timeout}; give a positive number of seconds",
        )


def check_seed(seed: int) -> None:
    """Raises ValueError unless seed fits in 63 bits."""
    _require(0 <= seed < 2**63, f"seed is {seed}; give an integer in [0, 2**63)")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Data, Recipe, Scoring, Safety):
    """Train for the scoring epochs and write the score table into the run directory."""

    seed: int = 0

    def check(self) -> None:
        for part in (Data, Recipe, Scoring, Safety):
            part.check(self)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Data, Recipe, Safety):
    """Train once, on all images or on the ones an index list keeps, and write model.pt into the run directory."""

    keep: str | None = None
    """A keep-*.npy index list; None: all images."""
    seed: int = 0

    def check(self) -> None:
        for part in (Data, Recipe, Safety):
            part.check(self)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Data, Recipe, Scoring, Safety):
    """Score, select, retrain, report: the whole method in one run directory, continued where it stopped."""

    prune_ratio: tuple[float, ...] = (0.3, 0.5, 0.7, 0.8, 0.9)
    """Fractions REMOVED."""
    method: tuple[str, ...] = ("dual+beta", "dual", "random")
    """Selection methods; options follow a colon, as in dual+beta:c_d=5.5."""
    seed: tuple[int, ...] = (0, 1, 2)
    c_d: GivenCD = "auto"
    """c_D of Beta sampling: a number, a data set's published value by name, or auto, computed from the scores."""
    per_class: bool = False
    """Keep the same fraction of every class."""
    full: bool = True
    """Also train on all images, for comparison."""

    def check(self) -> None:
        for part in (Data, Recipe, Scoring, Safety):
            part.check(self)
        _require(len(self.prune_ratio) > 0, "prune_ratio is empty; give at least one fraction in [0, 1)")
        for ratio in self.prune_ratio:
            check_ratio(ratio)
        _require(len(self.method) > 0, "method is empty; give at least one, for example dual+beta")
        for method in self.method:
            method_options(method)
        _require(len(self.seed) > 0, "seed is empty; give at least one integer")
        for name, values in (("prune_ratio", self.prune_ratio), ("method", self.method), ("seed", self.seed)):
            _require(len(set(values)) == len(values), f"{name} is {values}; each value once")
        for seed in self.seed:
            check_seed(seed)
        check_c_d(self.c_d)


RECIPES: dict[str, dict[str, Any]] = {
    # Small images on a laptop: the defaults.
    "default": {},
    # CIFAR on a CPU: the small network, one-cycle, 30 scored epochs.
    "cpu": {"model": "small", "epochs": 30, "batch_size": 128, "lr": 0.2, "score_epochs": 30},
    # CIFAR on a modern GPU, past 94% in about a minute: meant so, not measured yet. The network, batch and peak rate
    # of the DAWNBench entries, with the scores from 30 epochs of the same one-cycle schedule.
    "fast": {
        "model": "resnet9",
        "epochs": 30,
        "batch_size": 512,
        "lr": 0.4,
        "label_smoothing": 0.1,
        "score_epochs": 30,
        "tests": 3,
    },
    # CIFAR as arXiv 2502.06905 trains it: scores from the first 30 of 200 epochs, retraining in batches of 128, of 64
    # at prune ratio 0.8 and of 32 at 0.9.
    "paper": {
        "model": "resnet18",
        "epochs": 200,
        "batch_size": 128,
        "batch_rule": "paper",
        "schedule": "cosine",
        "score_epochs": 30,
        "c_d": "cifar10",
    },
    # ImageNet-1k as arXiv 2502.06905 trains it: ResNet-34, 300,000 steps at every prune ratio, which are 60 epochs of
    # all images, all of them scored.
    "imagenet": {
        "model": "resnet34",
        "epochs": 60,
        "batch_size": 256,
        "compute": "steps",
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "score_epochs": 60,
        "image_size": 224,
        "c_d": "imagenet",
    },
}
"""What --recipe presets; any flag given beside it wins."""

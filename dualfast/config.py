"""The configuration of each command: frozen dataclasses, checked on construction. The command line is generated from
them: field names are the flags, and the text below a field is its --help."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from numbers import Real
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from dualfast._moved import former_names
from dualfast.arguments import as_array, checked_bool, checked_int

MAX_VISITS = 4095  # a line's visit counter has 12 bits
DEFAULT_WINDOW = 10  # J, of score tables and of the command line
DEFAULT_JPEG_QUALITY = 90  # of images that are encoded when a data set is written


# Random crops of the default pipelines. A new one is declared here, computed in csrc/crops.cpp, and specified in plain
# float64 in reference.py.
Augment = Literal["crop", "crop+flip", "rrc"]
AUGMENTS: dict[str, tuple[str, bool]] = {"crop": ("pad", False), "crop+flip": ("pad", True), "rrc": ("resized", True)}
"""The kind of crop, and whether half of the images are mirrored. "crop": shifted by up to an eighth of the side, the
outside filled with the mean, or black where `fill` says so; "crop+flip": that, and mirrored; "rrc": a random part of
the image of area `scale` and aspect `ratio`, resized, and mirrored."""
Fill = Literal["mean", "black"]
CropParameters = dict[str, float | tuple[float, float]]
CROP_PARAMETERS: dict[str, Callable[[tuple[int, int]], CropParameters]] = {
    "center": lambda size: {"fraction": 1.0},
    "pad": lambda size: {"pad": max(1.0, round(min(size) / 8))},  # 4 px at 32
    "resized": lambda size: {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3)},
}
"""The parameters of a kind, in the order that csrc/crops.cpp takes them, with their defaults for an output of
(height, width)."""


MAX_LR = 1e6
MIN_SIZE = 4  # px a side, of stored images and of a network's input
MAX_THREADS = 4096
MAX_IMAGE_SIZE = 4096  # px a side of a network's input
MAX_IMAGE_BYTES = 1 << 29
"""The memory of one image while it is decoded: its pixels as RGB (178,956,970 of them, where Pillow refuses too), or,
for a JPEG in several scans, the coefficients that they are collected in."""
MAX_JPEG_SCANS = 100
"""A progressive JPEG usually has 10. Each takes as long as a pass over the image, however few bytes it has."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def checked_seed(seed: Any) -> int:
    """The seed of a draw, an order or a training: 64 bits, which is what Philox and torch's generators take."""
    return checked_int("seed", seed, 0, 2**64 - 1)


MAY_CHANGE = {"may_change": True}
"""Metadata of an option that may change from one call to the next on a run directory."""
GROUPS = {
    "data": "What is read, and where the results go.",
    "pruning": "How much is removed, and by which methods.",
    "scoring": "How scores are gathered.",
    "training": "How networks are trained; scoring and retraining share it.",
    "image": "How images are read and stored.",
    "machine": "Where networks are trained, and how a training survives an interruption.",
    "output": "What is printed.",
}
"""The groups of flags in --help and their descriptions, top to bottom. A class below says which one its fields belong
to; a command's own flags are a group of their own."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Checks types on construction, and then runs check(). NumPy's and torch's numbers become Python's, which YAML and
    JSON can store."""

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():  # type: ignore[arg-type]  # a class is hashable
            object.__setattr__(self, name, _plain(name, getattr(self, name), kind))
        self.check()

    def check(self) -> None:
        """Raises ValueError naming the first invalid value."""


@cache
def _kinds(owner: type[Checked]) -> dict[str, Any]:
    """The types of a class's fields by name."""
    hints = get_type_hints(owner)
    return {option.name: hints[option.name] for option in fields(owner)}


def _plain(name: str, value: Any, kind: Any) -> Any:
    """The value as Python's own; TypeError unless it is of this kind."""
    if kind is bool:
        return checked_bool(name, value)
    if hasattr(value, "tolist"):  # NumPy's or torch's
        array = as_array(name, value)
        value = array.item() if array.size == 1 else array.tolist()
    if isinstance(value, list | tuple):
        value = tuple(_plain(name, one, Any) for one in value)
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not _is_kind(value, kind):
        raise TypeError(f"{name} is {value!r:.80}; give {_in_words(kind)}")
    if isinstance(value, int) and abs(value) >= 2**64:
        raise ValueError(f"{name} is {value!r:.80}; give a number below 2**64")
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} is {value!r:.80}; give {_in_words(kind)}")
    return value


def _is_kind(value: Any, kind: Any) -> bool:
    choices = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        of_words = any(get_origin(one) is Literal for one in choices)  # check() says what else it may be
        return of_words or any(_is_kind(value, one) for one in choices)
    if get_origin(kind) is Literal:
        return isinstance(value, str)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_kind(one, choices[0]) for one in value)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return kind is Any or isinstance(value, kind)


_WORDS = {int: "an integer", float: "a number", str: "text", type(None): "None"}


def _in_words(kind: Any) -> str:
    """A kind of value, for messages."""
    if get_origin(kind) is Literal:
        return ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"a tuple, each entry {_in_words(get_args(kind)[0])}"
    return _WORDS.get(kind) or ", or ".join(map(_in_words, get_args(kind)))


@dataclass(frozen=True, kw_only=True)
class Machine(Checked):
    """What a network is trained on."""

    group: ClassVar = "machine"
    device: str = "auto"
    """A torch device; auto: cuda if available, else cpu."""
    amp: Literal["auto", "bf16", "off"] = "auto"
    """Mixed precision. auto: bf16 on a GPU and on a CPU with AVX512_BF16 or AMX; it is slower on other CPUs."""
    num_workers: int = field(default=-1, metadata=MAY_CHANGE)
    """Loader threads; -1: one per core available to this process."""
    threads: int = field(default=-1, metadata=MAY_CHANGE)
    """torch.set_num_threads on a CPU; -1: torch's default, or one if a batch has fewer than 16,384 pixels."""

    def check(self) -> None:
        for name, value in (("num_workers", self.num_workers), ("threads", self.threads)):
            _require(value == -1 or 1 <= value <= MAX_THREADS, f"{name} is {value}; give -1, or 1 to {MAX_THREADS}")


@dataclass(frozen=True, kw_only=True)
class Recipe(Machine):
    """How a network is trained; scoring and retraining share it."""

    group: ClassVar = "training"
    model: str = "small"
    """small, wide, resnet9, resnet18, resnet34, resnet50, or module:factory."""
    epochs: int = 30
    """Passes over the training images, or over those that are kept."""
    batch_size: int = 64
    """Images per optimizer step, over all processes."""
    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's form of the momentum."""
    weight_decay: float = 5e-4
    """Weight decay of SGD."""
    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """Learning-rate schedule."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine schedule."""
    compute: Literal["epochs", "steps"] = "epochs"
    """What stays equal when retraining on a subset: epochs (cheaper), or optimizer steps."""
    batch_rule: Literal["same", "paper"] = "same"
    """Batch size of retraining. same: batch_size; paper: half of it from prune ratio 0.8, a quarter from 0.9."""
    tests: int = 10
    """Evaluations on the test images per training, the last at its end."""
    label_smoothing: float = 0.0
    """Label smoothing of the cross-entropy, in [0, 1]."""
    augment: Literal["auto", "none", Augment] = "auto"
    """auto: crop below 16 px, crop+flip up to 64 px, rrc (random resized crop and flip) above."""
    normalize: Literal["imagenet", "cifar10", "cifar100"] = "imagenet"
    """Data set whose mean and standard deviation normalise the pixels."""
    fill: Fill = "mean"
    """What fills the outside of a shifted crop: the mean of normalize, or black."""
    image_size: int | None = None
    """Side of the network's input, px; None: the images' own if square, equal and at most 64 px, else 224."""

    def check(self) -> None:
        Machine.check(self)
        _require(self.epochs >= 1, f"epochs is {self.epochs}; give at least 1")
        _require(self.tests >= 1, f"tests is {self.tests}; give at least 1")
        _require(self.batch_size >= 2, f"batch_size is {self.batch_size}; batch normalisation needs at least 2")
        _require(self.batch_size < 2**31, f"batch_size is {self.batch_size}; give less than 2**31")
        _require(0 < self.lr <= MAX_LR, f"lr is {self.lr}; give a positive number, at most {MAX_LR:g}")
        _require(0 <= self.momentum < 1, f"momentum is {self.momentum}; give a number in [0, 1)")
        _require(
            0 <= self.weight_decay < math.inf, f"weight_decay is {self.weight_decay}; give a finite number from 0 up"
        )
        _require(
            self.min_lr == 0 or (self.schedule == "cosine" and 0 < self.min_lr < self.lr),
            f"min_lr is {self.min_lr}; give 0, or with --schedule cosine a number below lr, {self.lr}",
        )
        _require(
            0 <= self.label_smoothing <= 1,
            f"label_smoothing is {self.label_smoothing}; give a number in [0, 1]",
        )
        _require(
            self.image_size is None or MIN_SIZE <= self.image_size <= MAX_IMAGE_SIZE,
            f"image_size is {self.image_size}; give {MIN_SIZE} to {MAX_IMAGE_SIZE} px",
        )

    def batch_size_at(self, prune_ratio: float) -> int:
        """The batch size of retraining at a prune ratio, by batch_rule."""
        divisor = 1 if self.batch_rule == "same" or prune_ratio < 0.8 else 2 if prune_ratio < 0.9 else 4
        return max(2, self.batch_size // divisor)

    def for_subset(self, prune_ratio: float, kept: int, n_samples: int) -> Self:
        """This recipe for retraining on `kept` of `n_samples` images: batch_size by batch_rule, epochs by compute."""
        epochs, batch_size = self.epochs, self.batch_size_at(prune_ratio)
        if self.compute == "steps":
            steps = self.epochs * math.ceil(n_samples / self.batch_size)
            epochs = round(steps / math.ceil(kept / batch_size))
        return replace(self, epochs=epochs, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True)
class Scoring(Checked):
    """How scores are gathered."""

    group: ClassVar = "scoring"
    score_epochs: int = 30
    """T: epochs of the scoring pass (the paper: 30 on CIFAR, 60 on ImageNet)."""
    score_schedule_epochs: int | None = None
    """Epochs that the learning rate of the scoring pass is planned for, of which the first T are run (the paper: 200 on
    CIFAR); None: T, a schedule that ends with the pass."""
    window: int = DEFAULT_WINDOW
    """J: epochs in DUAL's sliding window."""
    score_module: str | None = None
    """Python module that registers scores of your own with @dualfast.score; keeps 8 bytes per visit and sample."""
    tdds: bool = False
    """Also gather TDDS scores, which --method tdds needs: per sample, 2 bytes per class and 4 per window epoch."""

    def check_processes(self, n: int) -> None:
        """Raises ValueError for scores that n processes cannot gather together."""
        single = "gathered on a single process only"
        _require(n == 1 or not self.tdds, f"tdds is {single}; leave out --tdds, or start one process")
        _require(n == 1 or self.score_module is None, f"scores of your own are {single}; leave out --score-module")

    def check(self) -> None:
        _require(self.window >= 2, f"window is {self.window}; a standard deviation needs at least 2 visits")
        _require(
            self.window <= self.score_epochs <= MAX_VISITS,
            f"score_epochs is {self.score_epochs} and window is {self.window}: DUAL needs at least as many epochs as "
            f"its window, and at most {MAX_VISITS}; raise score_epochs or lower window",
        )
        _require(
            self.score_schedule_epochs is None or self.score_schedule_epochs >= self.score_epochs,
            f"score_schedule_epochs is {self.score_schedule_epochs} and score_epochs is {self.score_epochs}: the "
            "schedule of the scoring pass cannot end before it; raise score_schedule_epochs, or leave it out",
        )


GivenCD = float | Literal["auto", "cifar100", "imagenet"]
GivenCut = int | Literal["auto"]
DEFAULT_METHOD, DEFAULT_C_D = "dual+beta", 4.0
"""The defaults of select and its relatives; the command line's c_d is "auto"."""
PUBLISHED_C_D = {"cifar100": 4.0, "imagenet": 11.0}
"""From the code of arXiv 2502.06905 (behaapyy/dual-pruning): the default of its command line, which its CIFAR commands
use, and the value of its ImageNet commands. It has none for CIFAR-10 apart from that default."""
CIFAR10_C_D = 5.5  # what c_d="cifar10" stood for; published nowhere


def _is_number(value: Any) -> bool:
    """Whether it is an integer or a float, Python's or numpy's."""
    return isinstance(value, float) or (isinstance(value, Real) and not isinstance(value, bool))


def published(c_d: Any) -> Any:
    """The c_D published for the data set of that name; any other value is returned unchanged."""
    return PUBLISHED_C_D.get(c_d, c_d) if isinstance(c_d, str) else c_d


def _is_positive(number: Any) -> bool:
    try:
        return 0 < float(number) < math.inf
    except OverflowError:  # an integer with hundreds of digits
        return False


def check_c_d(c_d: Any) -> None:
    """Raises ValueError unless c_d is a positive number, "auto" or the name of a data set with a published value."""
    if isinstance(c_d, str) and c_d == "cifar10":
        raise ValueError(f"c_d is 'cifar10', which stood for a value published nowhere; give c_d={CIFAR10_C_D} for it")
    number: Any = published(c_d) if isinstance(c_d, str) or _is_number(c_d) else None
    if number != "auto" and not (_is_number(number) and _is_positive(number)):
        *names, last = "auto", *PUBLISHED_C_D
        raise ValueError(f"c_d is {c_d!r:.80}; give a positive number, {', '.join(names)} or {last}")


BASELINES = {
    "shorter": "all images, for as many epochs fewer as make it cost what scoring and training on the subset do",
    "rs2": "a fresh random subset in every epoch (arXiv 2305.18424)",
}
"""Trainings for comparison that select nothing, by the name that run's --method takes."""


def method_options(method: str) -> tuple[str, dict[str, int | float | str]]:
    """The name and the options in the text of a method: "dual+beta:c_d=5.5" gives ("dual+beta", {"c_d": 5.5}); several
    options are separated by commas. ValueError for text of another form."""
    if not isinstance(method, str):
        raise TypeError(f"method is {method!r}; give a name, such as 'dual+beta'")
    name, _, text = method.partition(":")
    options: dict[str, int | float | str] = {}
    for option in filter(None, text.split(",")):
        key, equals, value = option.partition("=")
        _require(bool(key and equals and value), f"method is {method!r}; options are written name:key=value,key=value")
        _require(key not in options, f"method is {method!r}, which gives {key!r} twice; give it once")
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


def ratio_text(prune_ratio: float) -> str:
    """A prune ratio as names and messages show it: in six digits, or in as many as tell it from all others."""
    short = f"{prune_ratio:g}"
    return short if float(short) == prune_ratio else repr(float(prune_ratio))


DATA_HELP: dict[str, Any] = {"help": ""}
METHOD_HELP, RUN_METHOD_HELP, SOURCE_HELP = DATA_HELP.copy(), DATA_HELP | MAY_CHANGE, DATA_HELP.copy()
"""Filled in by the command line, from the registries of data sources and methods, when help is asked for."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What select takes beside the scores, the ratio and the method, on the command line as in Python."""

    seed: int = 0
    """Seed of the draw."""
    c_d: GivenCD = "auto"
    """c_D of Beta sampling: a number, cifar100 (4) or imagenet (11), or auto, computed from the scores."""
    per_class: bool = False
    """Keep the same fraction of every class."""
    where: str | None = None
    """Keep only samples that meet a condition on the table's columns, such as 'aum > 0 and label <> 3'."""
    exclude: str | None = None
    """.npy of ids, or of a mask, never to keep."""
    force: str | None = None
    """.npy of ids, or of a mask, to keep in any case."""
    mislabel_cut: GivenCut = 0
    """Number of samples that look mislabelled (by late_margin, else aum) to leave out, or auto: as many as dualfast
    audit estimates."""
    skip_unscored: bool = False
    """Leave out samples without a score."""


@dataclass(frozen=True, kw_only=True)
class Columns(Checked):
    """Which columns of a data set are read."""

    group: ClassVar = "image"
    image_column: str | None = None
    """Parquet column, .npz array, .beton field, or ending of the names in a tar file, that holds the images, where its
    name or type does not tell."""
    label_column: str | None = None
    """Parquet column, .npz array or .beton field that holds the labels, likewise."""

    @property
    def columns(self) -> dict[str, Any]:
        """These fields by name, as arguments of open_beton."""
        return Columns.among(vars(self))

    @staticmethod
    def among(options: Mapping[str, Any]) -> dict[str, Any]:
        """These fields among the options of a command."""
        return {option.name: options.get(option.name) for option in fields(Columns)}


@dataclass(frozen=True, kw_only=True)
class Reading(Columns):
    """How a data set is read."""

    group: ClassVar = "data"
    labels: str | None = None
    """A table of the files in the folder of images and their labels: .csv, .tsv, .txt, .jsonl or .parquet."""
    follow_links: bool = False
    """Follow links that lead out of the folder of the data."""

    @property
    def reading(self) -> Reading:
        """These fields alone."""
        return Reading(**{option.name: getattr(self, option.name) for option in fields(Reading)})


@dataclass(frozen=True, kw_only=True)
class Storing(Reading):
    """How its images are stored in a .beton: the options of write, and of every command with data."""

    group: ClassVar = "image"
    max_size: int | None = None
    """Shrink images whose longer side exceeds this many pixels."""
    background: str = "white"
    """Colour behind the transparent parts of images: a name, or "#rrggbb"."""
    skip_bad: bool = field(default=False, metadata=MAY_CHANGE)
    """Leave out images that cannot be read, instead of stopping."""

    @property
    def storing(self) -> dict[str, Any]:
        """The fields that Storing adds to Reading by name, as arguments of write."""
        mine = {option.name for option in fields(Storing)} - {option.name for option in fields(Reading)}
        return {name: getattr(self, name) for name in mine}


@dataclass(frozen=True, kw_only=True)
class Data(Storing):
    """What is read, and where the results go."""

    group: ClassVar = "data"
    data: str | tuple[str, ...] = field(default="digits", metadata=DATA_HELP)
    test: str | tuple[str, ...] | None = None
    """Test images, in any of these forms; data that hold train and val, or test, need none."""
    test_fraction: float | None = None
    """Hold out this fraction of each class for testing, where the data have no test images."""
    test_labels: str | None = None
    """The same as --labels, of the test images."""
    test_image_column: str | None = None
    """The same as --image-column, of test images that have another one."""
    test_label_column: str | None = None
    """The same as --label-column, of test images that have another one."""
    out: str | None = field(default=None, metadata=MAY_CHANGE)
    """Run directory; None: runs/<name of the data>."""
    rewrite: bool = False
    """Where the data have changed since they were written: write them again and start the run over."""

    @property
    def test_reading(self) -> Reading:
        """How the test images are read, where they are named apart from the others."""
        image, label = self.test_image_column or self.image_column, self.test_label_column or self.label_column
        return replace(self.reading, labels=self.test_labels, image_column=image, label_column=label)

    def check(self) -> None:
        for name, value in (("data", self.data), ("test", self.test), ("out", self.out)):
            empty = value == "" or (isinstance(value, tuple) and (not value or "" in value))
            _require(not empty, f'{name} is an empty path (""); was a shell variable unset?')
        fraction = self.test_fraction
        _require(fraction is None or 0 < fraction < 1, f"test_fraction is {fraction}; give a fraction in (0, 1)")
        _require(
            fraction is None or self.test is None,
            f"test_fraction is {fraction}, and test {self.test!r} names the test images; leave one out",
        )
        if self.max_size is not None:
            checked_int("max_size", self.max_size, MIN_SIZE)


def checkpoint_interval(text: str) -> tuple[float, int]:
    """(seconds, 0) of "30s", "10m" or "2h", or (0, steps) of "500steps". ValueError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|h|steps?)", text.strip())
    number = float(match[1]) if match else 0.0
    if match is None or number <= 0 or ("step" in match[2] and not number.is_integer()):
        raise ValueError(
            f"checkpoint_every is {text!r}; give a time, such as 30s, 10m or 2h, or a number of steps, such as 500steps"
        )
    if match[2].startswith("step"):
        return 0.0, int(number)
    return number * {"s": 1, "m": 60, "h": 3600}[match[2]], 0


@dataclass(frozen=True, kw_only=True)
class Safety(Checked):
    """How a training survives an interruption, and a process that stops responding."""

    group: ClassVar = "machine"
    checkpoint_every: str = field(default="10m", metadata=MAY_CHANGE)
    """Interval between checkpoints: a time (30s, 10m, 2h) or a number of optimizer steps (500steps)."""
    rank_timeout: float = field(default=600.0, metadata=MAY_CHANGE)
    """Seconds that a process started by torchrun waits for the others before it stops with an error."""

    @property
    def checkpoint_interval(self) -> tuple[float, int]:
        return checkpoint_interval(self.checkpoint_every)

    def check(self) -> None:
        _ = self.checkpoint_interval  # raises
        _require(
            math.isfinite(self.rank_timeout) and self.rank_timeout > 0,
            f"rank_timeout is {self.rank_timeout}; give a positive number of seconds",
        )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(Data, Safety, Recipe, Scoring):
    """Train for the scoring epochs and write the score table into the run directory."""

    seed: int = field(default=0, metadata=MAY_CHANGE)
    """Seed of the network, the order of the images and their augmentation."""

    def check(self) -> None:
        for part in (Data, Recipe, Scoring, Safety):
            part.check(self)
        checked_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Data, Safety, Recipe):
    """Train once, on all images or on those that an index list keeps, and write model.pt into the run directory."""

    keep: str | None = None
    """The index list to train on, a keep-*.npy, as run trains on it; None: all images."""
    seed: int = field(default=0, metadata=MAY_CHANGE)
    """Seed of the network, the order of the images and their augmentation."""

    def check(self) -> None:
        for part in (Data, Recipe, Safety):
            part.check(self)
        checked_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Data, Safety, Recipe, Scoring):
    """Score, select, retrain and report in one run directory; the same command continues an interrupted run."""

    group: ClassVar = "pruning"
    prune_ratio: tuple[float, ...] = field(default=(0.3, 0.5, 0.7, 0.8, 0.9), metadata=MAY_CHANGE)
    """Fractions REMOVED."""
    method: tuple[str, ...] = field(default=("dual+beta", "dual", "random"), metadata=RUN_METHOD_HELP)
    seed: tuple[int, ...] = field(default=(0, 1, 2), metadata=MAY_CHANGE)
    """A scoring and a training at each ratio and method per seed."""
    c_d: GivenCD = "auto"
    """c_D of Beta sampling: a number, cifar100 (4) or imagenet (11), or auto, computed from the scores."""
    per_class: bool = False
    """Keep the same fraction of every class."""
    full: bool = field(default=True, metadata=MAY_CHANGE)
    """A training on all images, for comparison."""

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
            checked_seed(seed)
        check_c_d(self.c_d)


RecipeName = Literal["default", "cpu", "fast", "paper", "imagenet"]
RECIPES: dict[RecipeName, dict[str, Any]] = {
    # The defaults, meant for small images on a laptop.
    "default": {},
    # CIFAR on a CPU: the small network, one-cycle, scores from all of 30 epochs.
    "cpu": {"model": "small", "epochs": 30, "batch_size": 128, "lr": 0.2, "score_epochs": 30},
    # CIFAR on a GPU: network, batch size and peak rate of the DAWNBench entries, scores from all of 30 epochs. Meant to
    # exceed 94% in about a minute; not measured yet.
    "fast": {
        "model": "resnet9",
        "epochs": 30,
        "batch_size": 512,
        "lr": 0.4,
        "label_smoothing": 0.1,
        "score_epochs": 30,
        "tests": 3,
    },
    # CIFAR-10 as in arXiv 2502.06905: scores from the first 30 of 200 epochs; retraining in batches of 128, of 64 from
    # prune ratio 0.8 and of 32 from 0.9. For CIFAR-100 with --normalize cifar100.
    "paper": {
        "model": "resnet18",
        "epochs": 200,
        "batch_size": 128,
        "batch_rule": "paper",
        "schedule": "cosine",
        "score_epochs": 30,
        "score_schedule_epochs": 200,
        "normalize": "cifar10",
        "fill": "black",
        "c_d": 4.0,
    },
    # ImageNet-1k as in arXiv 2502.06905: ResNet-34, scores from all of 60 epochs, and as many steps at every
    # prune ratio as 60 epochs of all images (about 300,000).
    "imagenet": {
        "model": "resnet34",
        "epochs": 60,
        "batch_size": 256,
        "compute": "steps",
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "nesterov": False,
        "min_lr": 1e-4,
        "score_epochs": 60,
        "image_size": 224,
        "c_d": "imagenet",
    },
}
"""The presets of --recipe; a flag given beside it takes precedence."""

if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("config")

"""The grids of trainings by name, one Point per training. `run.py GRID --plan` counts and times them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dualfast.config import RECIPES, RunConfig, check_ratio, method_options
from dualfast.selection.select import kept_count

RATIOS = (0.9, 0.8, 0.7, 0.5, 0.3)  # the ratios at which methods differ most come first
METHODS = (
    "dual+beta",
    "random",
    "dual",
    "ccs",
    "dual+beta:c_d=auto",
    "dyn_unc",
    "el2n",
    "aum",
    "aum-cut",
    "forgetting",
    "entropy",
    "loss",
    "tdds",
)
C_DS = ("1.5", "2", "3", "4", "5.5", "auto", "8", "11")  # the two least informative values last
# Fraction of lowest AUM that ccs and aum-cut leave out, by prune ratio: those of CCS's authors for CIFAR-10 (arXiv
# 2210.15809, appendix B; 0.9 is in their README too), who cut nothing at 0.5 and 0.3. ImageNet: 0.2 at 0.8, 0.3 at 0.9.
CUT = {0.7: 0.1, 0.8: 0.1, 0.9: 0.3}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One training and the scores it needs."""

    data: str
    """A data set as dualfast.data.sources.splits takes it."""
    images: int = 0
    """Number of training images, the same for each class; 0: all."""
    scenario: str = "clean"
    """clean, noise=RATE (wrong labels) or corrupt=RATE (corrupted images)."""
    model: str = "small"
    score_model: str = ""
    """The network whose scores are used; empty: `model` itself."""
    recipe: str = "cpu"
    """A name of dualfast.config.RECIPES."""
    compute: str = "epochs"
    """What a subset gets as much of as training on all images does: epochs or steps."""
    options: tuple[tuple[str, Any], ...] = ()
    """Fields of RunConfig that differ from the recipe's."""
    method: str = "dual+beta"
    """full, aum-cut, or what `dualfast run --method` takes."""
    ratio: float = 0.0
    """The fraction REMOVED."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe is {self.recipe!r}; give one of {', '.join(RECIPES)}")
        if self.compute not in ("epochs", "steps"):
            raise ValueError(f"compute is {self.compute!r}; give epochs or steps")

    @property
    def data_name(self) -> str:
        return Path(self.data).name.partition(".")[0]

    def key(self) -> dict[str, Any]:
        """The fields of a result line that identify its training."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"data": self.data_name, "options": dict(self.options)}

    @property
    def draw_seed(self) -> int:
        """The seed that the subset is drawn with: another one for each ratio, so that subsets are not nested, and the
        same for all methods."""
        digest = hashlib.blake2b(f"{self.seed}/{self.ratio:g}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def config(self, model: str, **paths: Any) -> RunConfig:
        """The configuration of this point's run; points that differ only in method, ratio or seed share one run."""
        preset = {"c_d": 4.0, **RECIPES[self.recipe], **dict(self.options), **paths}
        preset |= {"model": model, "compute": self.compute}
        return RunConfig(**preset, method=("random",), prune_ratio=(0.5,), seed=(0,), full=False)

    def method_for(self, n_samples: int) -> str:
        """The method as `dualfast run --method` takes it, with the cuts of ccs and aum-cut as numbers."""
        cut = max(
            CUT.get(self.ratio, 0.0), float(self.scenario.partition("=")[2] or 0) if "noise" in self.scenario else 0
        )
        name, options = method_options(self.method)
        if name == "ccs":
            return f"ccs:score={options.get('score', 'aum_prob')},mis_ratio={cut}"
        if self.method == "aum-cut":
            most = n_samples - kept_count(n_samples, self.ratio)
            return f"aum:mislabel_cut={min(round(cut * n_samples), most)}" if cut else "aum"
        return self.method


def default_data() -> str:
    """The path in DUALFAST_CIFAR10, else shared/data/cifar10 in a folder above, else cifar-10-binary.tar.gz."""
    if given := os.environ.get("DUALFAST_CIFAR10"):
        return given
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "data" / "cifar10").is_dir():
            return str(parent / "shared" / "data" / "cifar10")
    return "cifar-10-binary.tar.gz"


def _all(
    data: str, methods: Iterable[str], ratios: Iterable[float], seeds: Iterable[int], **common: Any
) -> Iterator[Point]:
    """Points seed by seed: training on all images first, then each ratio with every method."""
    methods, ratios = list(methods), list(ratios)
    for seed in seeds:
        default = RECIPES[common["recipe"]].get("compute", "epochs")
        if common.get("compute", "epochs") == default and not common.get("score_model"):
            yield Point(data=data, method="full", seed=seed, **common)
        for ratio in ratios:
            for method in methods:
                if method != "aum-cut" or ratio in CUT or common.get("scenario", "clean") != "clean":
                    yield Point(data=data, method=method, ratio=ratio, seed=seed, **common)


CPU = {"images": 10_000, "recipe": "cpu", "options": (("batch_rule", "paper"), ("tdds", True), ("tests", 3))}


def cpu(data: str) -> Iterator[Point]:
    """Every method, five ratios, three seeds: within two hours on two cores.

    10,000 images (1,000 per class), 30 epochs, all of them scored; batch size 128, 64 at ratio 0.8 and 32 at 0.9.
    The five ratios together keep 0.7 + 0.5 + 0.3 + 0.2 + 0.1 = 1.8 data sets. 12 methods at five ratios, and aum-cut at
    the three ratios where it cuts (0.6 data sets), make 22.2; with training on all images and scoring, 24.2 data sets x
    30 epochs x 3 seeds x 10,000 = 21.8 million images: 5,732 s at 3,800 images/s. 585 passes over the 10,000 test
    images take another 490 s at 12,000 images/s: 1 h 45 min in total.
    """
    return _all(data, METHODS, RATIOS, (0, 1, 2), **CPU)


PROOF = {
    "recipe": "paper",
    "options": (("c_d", 4.0), ("score_schedule_epochs", 30), ("tests", 4)),
}


def proof(data: str) -> Iterator[Point]:
    """The published proportions on two cores: 50,000 images, 200 epochs, and scores from a schedule of 30 epochs.

    Batch size 128, 64 at ratio 0.8 and 32 at 0.9. The most informative trainings come first. A training at 0.9 takes
    1 million images and a scoring 1.5 million; the whole grid takes 156.5 million, 11.4 hours at 3,800 images/s.
    """
    auto = "dual+beta:c_d=auto"
    rows = [("random", auto, "dual+beta", "ccs")] * 3 + [("random", auto)] * 2
    wanted = [
        (ratio, methods, range(3 if len(methods) > 2 else 2)) for ratio, methods in zip(RATIOS, rows, strict=True)
    ]
    wanted += [(0.0, ("full",), range(2)), (0.9, ("dual", "dyn_unc", "el2n", "forgetting"), range(3))]
    for ratio, methods, seeds in wanted:
        for seed in seeds:
            yield from (Point(data=data, method=method, ratio=ratio, seed=seed, **PROOF) for method in methods)


def budget(data: str) -> Iterator[Point]:
    """What else the time could buy: a shorter training on all images, a fresh random subset in every epoch (RS2).

    10,000 images, scores from a schedule of 30 epochs, 100 epochs of training. One seed trains 7.7 million images.
    """
    options = (("epochs", 100), ("batch_rule", "paper"), ("tests", 4))
    methods = ("dual+beta:c_d=auto", "random", "shorter", "rs2")
    return _all(data, methods, (0.9, 0.8, 0.7, 0.5), (0, 1, 2), **CPU | {"options": options})


def cpu_steps(data: str) -> Iterator[Point]:
    """Subsets trained for as many steps as all images, at the two highest ratios."""
    methods = ("dual+beta", "random", "dual", "ccs")
    return _all(data, methods, (0.9, 0.8), (0, 1, 2), compute="steps", **CPU)


def cpu_noise(data: str) -> Iterator[Point]:
    """20% wrong labels. ccs and aum-cut are given the rate, dual+beta is not."""
    return _all(data, ("dual+beta", "random", "ccs", "aum-cut"), RATIOS, (0, 1), scenario="noise=0.2", **CPU)


def scenarios(data: str) -> Iterator[Point]:
    """30% and 40% wrong labels (cpu_noise has 20%), 20% corrupted images, and scores from another network."""
    methods = ("dual+beta", "random", "dual", "ccs", "aum-cut")
    for scenario in ("noise=0.3", "corrupt=0.2", "noise=0.4"):
        yield from _all(data, methods, (0.9, 0.8, 0.5), (0,), scenario=scenario, **CPU)
    for model, score_model in (("wide", "small"), ("small", "wide")):
        yield from _all(data, methods[:4], (0.9, 0.8, 0.5), (0,), model=model, score_model=score_model, **CPU)


def c_d(data: str) -> Iterator[Point]:
    """A sweep of c_D against auto: two networks, scores of 30 and of 15 epochs, two seeds, 18 epochs of training.

    The ratios together keep 1.1 data sets. For each network and seed, 8 values at two T, random and the scoring make
    17 x 1.1 x 18 + 30 + 15 = 382 passes over 10,000 images; 15.3 million images in total. Each network trains on 7.6
    million: 2,000 s for `small` at 3,800 images/s, 4,900 s for `wide` at 1,550. 280 passes over the 10,000 test images
    take another 450 s.
    """
    methods = ["random", *(f"dual+beta:c_d={value}" for value in C_DS)]
    points = []
    for seed in (0, 1):
        for model in ("small", "wide"):
            for epochs in (30, 15):
                options = (("batch_rule", "paper"), ("epochs", 18), ("score_epochs", epochs), ("tests", 1))
                wanted = methods if epochs == 30 else methods[1:]
                common = {**CPU, "model": model, "options": options}
                points += _all(data, wanted, (0.9, 0.8, 0.7, 0.5), (seed,), **common)
    # Value by value, so that an unfinished grid already compares all settings.
    return iter(sorted((p for p in points if p.method != "full"), key=lambda p: (p.seed, methods.index(p.method))))


def c_d_all(data: str) -> Iterator[Point]:
    """A sweep of c_D against auto on all 50,000 images: `small`, 30 scoring epochs, 18 training epochs, one seed."""
    options = (("batch_rule", "paper"), ("epochs", 18), ("score_epochs", 30), ("tests", 1))
    methods = ("dual+beta:c_d=auto", "random", *(f"dual+beta:c_d={value}" for value in ("3", "4", "5.5", "2", "8")))
    points = _all(data, methods, (0.9, 0.7, 0.5), (0,), **{**CPU, "images": 0, "options": options})
    return (point for point in points if point.method != "full")


def fast(data: str) -> Iterator[Point]:
    """On a GPU: every method, five ratios, three seeds; the four main methods also with as many steps as all images."""
    common = {"recipe": "fast", "model": "resnet9", "options": (("tdds", True),)}
    yield from _all(data, METHODS, RATIOS, (0, 1, 2), **common)
    yield from _all(data, METHODS[:4], RATIOS, (0, 1, 2), compute="steps", **common)


def paper(data: str) -> Iterator[Point]:
    """On a GPU: the published recipe, one seed, most informative trainings first, all images last."""
    methods = ("dual+beta", "random", "dual", "dual+beta:c_d=auto")
    points = _all(data, methods, (0.9, 0.8, 0.5, 0.7, 0.3), (0,), recipe="paper", model="resnet18")
    return iter(sorted(points, key=lambda point: point.method == "full"))


def imagenet(data: str) -> Iterator[Point]:
    """On GPUs: ImageNet-1k as a folder with train/ and val/; ResNet-34, T = 60, c_D = 11."""
    methods = ("dual+beta:c_d=11", "random")
    return _all(data, methods, (0.9, 0.8, 0.5, 0.7, 0.3), (0,), recipe="imagenet", model="resnet34", compute="steps")


def digits(data: str) -> Iterator[Point]:
    """A smoke test of a few seconds."""
    options = (("epochs", 2), ("score_epochs", 2), ("window", 2))
    return _all("digits", ("random", "dual+beta"), (0.5,), (0,), recipe="default", options=options)


GRIDS: dict[str, Callable[[str], Iterator[Point]]] = {
    "proof": proof,
    "cpu": cpu,
    "budget": budget,
    "cpu-steps": cpu_steps,
    "cpu-noise": cpu_noise,
    "scenarios": scenarios,
    "c_d": c_d,
    "c_d-all": c_d_all,
    "fast": fast,
    "paper": paper,
    "imagenet": imagenet,
    "digits": digits,
}

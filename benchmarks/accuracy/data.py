"""The data sets of the grids: class-balanced subsets, symmetric label noise and corrupted images, written once.

Which samples a variant alters depends on its name alone; their ids are in altered.npy beside it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dualfast.data import beton, sources
from dualfast.storage.files import atomic, write_text

SEED = 2502_06905  # of the data, apart from the seeds of the runs
KINDS = ("gaussian", "blur", "jpeg", "fog", "occlusion")


@dataclass(frozen=True)
class Written:
    """A data set on disk. altered: sorted ids of the mislabelled or corrupted training samples."""

    train: Path
    test: Path
    altered: NDArray[np.int64]


def prepare(work: Path, data: str, images: int, scenario: str) -> Written:
    """The data set as .beton files below `work`, written unless they exist.

    data: what dualfast.data.sources.splits takes. images: the number of training images, the same for each class; 0:
    all. scenario: "clean", "noise=0.2" (a fifth of the labels wrong) or "corrupt=0.2" (a fifth of the images
    corrupted).
    """
    kind, _, rate = scenario.partition("=")
    if kind not in ("clean", "noise", "corrupt") or bool(rate) == (kind == "clean"):
        raise ValueError(f"scenario is {scenario!r}; give clean, noise=RATE or corrupt=RATE")
    train, test = sources.splits(data)
    if test is None:
        raise ValueError(f"data {data!r} comes without test images; give a folder with train and val (or test)")
    base = work / "data" / f"{Path(data).name.partition('.')[0]}-{images or 'all'}"
    folder = base / scenario
    folder.mkdir(parents=True, exist_ok=True)
    noted, source_path = base / "from.txt", data if data == "digits" else str(Path(data).resolve())
    if noted.exists() and noted.read_text(encoding="utf-8") != source_path:
        raise ValueError(
            f"{base} was written from {noted.read_text(encoding='utf-8')}, not {source_path}; move it away"
        )
    if not noted.exists():
        write_text(noted, source_path)
    made = Written(folder / "train.beton", base / "test.beton", np.empty(0, np.int64))
    if not made.test.exists():
        beton.write(test, made.test, progress=False)
    altered = folder / "altered.npy"
    if not made.train.exists() or not altered.exists():
        source = subset(sources.open_source(train), images)
        n_classes = int(source.labels.max()) + 1
        ids = np.empty(0, np.int64)
        if kind != "clean":
            ids = chosen(len(source), float(rate), kind)
        if kind == "noise":
            source = replace(source, labels=wrong_labels(source.labels, ids, n_classes))
        elif kind == "corrupt":
            source = corrupted(source, ids)
        with atomic(altered) as part, part.open("wb") as file:
            np.save(file, ids)
        beton.write(source, made.train, progress=False)
    return replace(made, altered=np.load(altered, allow_pickle=False))


def _generator(*what: int | str) -> np.random.Generator:
    words = [int.from_bytes(str(word).encode(), "little") for word in what]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED, *words])))


def subset(source: sources.Source, images: int) -> sources.Source:
    """`images` samples of the source, the same number of each class, in their order; 0: the source itself."""
    if not images:
        return source
    classes, counts = np.unique(source.labels, return_counts=True)
    each, rest = divmod(images, len(classes))
    if rest or each > counts.min():
        raise ValueError(
            f"images is {images}; give a multiple of the {len(classes)} classes, up to {counts.min() * len(classes)}"
        )
    rng = _generator("subset")
    ids = np.sort(np.concatenate([rng.permutation(np.flatnonzero(source.labels == c))[:each] for c in classes]))
    taken = set(ids.tolist())

    def items() -> Iterator[Any]:
        return (item for row, item in enumerate(source.items()) if row in taken)

    return replace(source, labels=source.labels[ids], items=items, describe=lambda row: source.describe(int(ids[row])))


def chosen(n_samples: int, rate: float, kind: str) -> NDArray[np.int64]:
    """round(rate * n_samples) ids, drawn uniformly, sorted."""
    if not 0 < rate < 1:
        raise ValueError(f"the rate of {kind} is {rate}; give a fraction in (0, 1)")
    return np.sort(_generator(kind, str(rate)).permutation(n_samples)[: round(rate * n_samples)])


def wrong_labels(labels: NDArray[np.int64], ids: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """The labels, with each one at `ids` replaced by a uniformly drawn other class."""
    out = labels.copy()
    out[ids] = (labels[ids] + _generator("labels").integers(1, n_classes, len(ids))) % n_classes
    return out


def corrupted(source: sources.Source, ids: NDArray[np.int64]) -> sources.Source:
    """The source with the images at `ids` corrupted, the kinds taking turns."""
    turn = {row: at for at, row in enumerate(ids.tolist())}

    def items() -> Iterator[Any]:
        for row, item in enumerate(source.items()):
            if row in turn:
                if isinstance(item, Exception):
                    raise item
                image = np.asarray(sources.decode(item).convert("RGB"))
                item = corrupt(image, KINDS[turn[row] % len(KINDS)], _generator("pixels", row))
            yield item

    return replace(source, items=items)


def corrupt(image: NDArray[np.uint8], kind: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """An (H, W, 3) uint8 image corrupted by one of KINDS, at a strength at which people mostly still recognize it."""
    height, width = image.shape[:2]
    side = min(height, width)
    values = image.astype(np.float64)
    if kind == "gaussian":
        values += rng.normal(0, 40, values.shape)
    elif kind == "blur":
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(side / 20))
        values = np.asarray(blurred, np.float64)
    elif kind == "jpeg":
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=7)
        values = np.asarray(Image.open(file).convert("RGB"), np.float64)
    elif kind == "fog":
        depth = rng.uniform(0.55, 0.75) + 0.1 * np.linspace(-1, 1, height)[:, None, None]
        values = (1 - depth) * values + depth * 235
    elif kind == "occlusion":
        hole = side // 2
        top, left = int(rng.integers(0, height - hole + 1)), int(rng.integers(0, width - hole + 1))
        values[top : top + hole, left : left + hole] = rng.integers(0, 256, 3)
    else:
        raise ValueError(f"kind is {kind!r}; give one of {', '.join(KINDS)}")
    return np.rint(values).clip(0, 255).astype(np.uint8)

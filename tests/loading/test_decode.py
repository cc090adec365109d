"""Pixels: right values, crops and sizes in every dtype; what is chosen where nothing was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import MEAN, SIDE, STD, N, collect, normalised

from dualfast import ops
from dualfast.data import beton
from dualfast.loading.decode import default_augment, default_image_size
from dualfast.loading.loader import Loader


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smooth pictures of different sizes, JPEG and raw."""
    from PIL import Image

    root = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(1)
    for label in "ab":
        (root / label).mkdir()
        for i in range(6):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            size = (int(rng.integers(70, 200)), int(rng.integers(70, 200)))
            coarse.resize(size, Image.Resampling.BICUBIC).save(root / label / f"{i}.jpg", quality=95)
    beton.write(root, root / "large.beton")
    return root / "large.beton"


def cut(image: np.ndarray, box: np.ndarray, fill: float) -> np.ndarray:
    """The reference crop, pixel by pixel."""
    top, left, height, width, flip = box.tolist()
    out = np.full((height, width, 3), fill)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < image.shape[0] and 0 <= left + x < image.shape[1]:
                out[y, x] = image[top + y, left + x]
    return out[:, ::-1] if flip else out


def test_images_are_normalised_channels_last(small: Path, images: np.ndarray) -> None:
    with Loader(small, 64, order="sequential", mean=MEAN, std=STD) as loader:
        assert len(loader) == 4
        batches = list(loader)
        assert loader.image_size == (SIDE, SIDE)
    assert [len(b[0]) for b in batches] == [64, 64, 64, 11]
    pictures, labels, index = batches[0]
    assert pictures.dtype == torch.float32
    assert pictures.shape == (64, 3, SIDE, SIDE)
    assert pictures.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == index.dtype == torch.int64
    assert labels.tolist() == [i % 10 for i in range(64)]
    assert index.tolist() == list(range(64))
    assert torch.equal(torch.cat([b[0] for b in batches]), normalised(images))


def test_numpy_numbers_are_numbers(small: Path) -> None:
    wanted = {"image_size": 8, "mean": MEAN, "std": STD}
    arrays = {"image_size": np.int64(8), "mean": np.array(MEAN), "std": torch.tensor(STD, dtype=torch.float64)}
    batches = []
    for options in (wanted, arrays, wanted | {"image_size": np.array([8, 8])}):
        with Loader(small, N, augment=True, **options) as loader:
            batches.append(collect(loader)[0])
            assert loader.image_size == (8, 8)
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])
def test_other_dtypes_are_rounded_once(small: Path, images: np.ndarray, dtype: torch.dtype) -> None:
    with Loader(small, 64, order="sequential", mean=MEAN, std=STD, dtype=dtype) as loader:
        got = collect(loader)[0]
    assert got.dtype == dtype
    if dtype == torch.uint8:
        assert (got.permute(0, 2, 3, 1).numpy() == images).all()
    else:
        wanted = torch.from_numpy((images / 255 - np.array(MEAN)) / np.array(STD)).to(dtype).permute(0, 3, 1, 2)
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("augment", ["crop", "crop+flip"])
def test_crops_match_the_reference(small: Path, images: np.ndarray, augment: Any) -> None:
    with Loader(small, 64, augment=augment, seed=3, dtype=torch.uint8, mean=MEAN, std=STD) as loader:
        loader.set_epoch(5)
        got, labels, index = collect(loader)
    ids = index.numpy()
    sides = np.full(N, SIDE, np.uint16)
    boxes = ops.crop_boxes(
        ids, sides, sides, kind="pad", pad=2, out_size=(SIDE, SIDE), flip=augment == "crop+flip", seed=3, epoch=5
    )
    fill = np.round(np.array(MEAN) * 255)
    wanted = np.stack([cut(images[i], box, fill) for i, box in zip(ids, boxes, strict=True)])
    assert (got.permute(0, 2, 3, 1).numpy() == wanted).all()
    assert (labels.numpy() == ids % 10).all()
    for column in (0, 1):
        shifts, counts = np.unique(boxes[:, column], return_counts=True)
        assert shifts.tolist() == [-2, -1, 0, 1, 2]
        assert counts.min() > N / 5 / 2
    assert 0.35 < boxes[:, 4].mean() < 0.65 if augment == "crop+flip" else not boxes[:, 4].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_the_outside_may_be_black(small: Path, dtype: torch.dtype) -> None:
    given: dict[str, Any] = {"augment": "crop", "dtype": dtype, "mean": MEAN, "std": STD}
    outside = {}
    for fill in ("mean", "black"):
        with Loader(small, N, order="sequential", fill=fill, **given) as loader:
            outside[fill] = collect(loader)[0]
    differ = outside["mean"] != outside["black"]
    assert differ.any()
    black = torch.zeros(3) if dtype == torch.uint8 else -torch.tensor(MEAN) / torch.tensor(STD)
    pixels = outside["black"].permute(0, 2, 3, 1)[differ.permute(0, 2, 3, 1).any(dim=-1)]
    assert torch.allclose(pixels.float(), black.expand(len(pixels), 3), rtol=0.01)
    with pytest.raises(ValueError, match="fill is 0; give mean or black"):
        Loader(small, 4, fill=0, **given)  # type: ignore[arg-type]


def test_resizing_agrees_with_pillow(large: Path) -> None:
    from PIL import Image

    source = beton.open_beton(large)
    # Above half of any crop, so that JPEGs are decoded at full size.
    with Loader(large, 5, order="sequential", image_size=101, augment="rrc", dtype=torch.uint8, seed=4) as loader:
        got, _, index = collect(loader)
    boxes = ops.crop_boxes(
        index.numpy(), source.height, source.width, kind="resized", out_size=(101, 101), flip=True, seed=4
    )
    for row, (top, left, height, width, flip) in enumerate(boxes.tolist()):
        image = Image.fromarray(source.image(row)).crop((left, top, left + width, top + height))
        wanted = np.asarray(image.resize((101, 101), Image.Resampling.BILINEAR)).astype(int)
        wanted = wanted[:, ::-1] if flip else wanted
        difference = np.abs(got[row].permute(1, 2, 0).numpy().astype(int) - wanted)
        assert difference.max() <= 1, row
    with Loader(large, 12, order="sequential", image_size=(40, 56)) as loader:
        assert next(iter(loader))[0].shape == (12, 3, 40, 56)


@pytest.mark.parametrize(
    ("size", "loader", "square"),
    [
        ((16, 16), (16, 16), (16, 16)),
        ((64, 64), (64, 64), (64, 64)),
        ((65, 65), (224, 224), (224, 224)),
        ((20, 30), (20, 30), (224, 224)),
        (None, (224, 224), (224, 224)),
    ],
)
def test_default_sizes(size: Any, loader: tuple[int, int], square: tuple[int, int]) -> None:
    class Data:
        constant_size = size

    assert default_image_size(Data()) == loader  # type: ignore[arg-type]
    assert default_image_size(Data(), square=True) == square  # type: ignore[arg-type]


def test_default_augments() -> None:
    assert [default_augment(side) for side in (8, 16, 64, 65)] == ["crop+flip", "crop+flip", "crop+flip", "rrc"]
    assert [default_augment(side, characters=True) for side in (8, 15, 16, 64, 65)] == [
        *("crop", "crop"),
        *("crop+flip", "crop+flip", "rrc"),
    ]
    assert default_augment((8, 65)) == "rrc"

"""Crop boxes: those of the float64 reference, for every kind; random ones within their ranges."""

from __future__ import annotations

import numpy as np
import pytest

from dualfast import ops, reference
from dualfast.config import AUGMENTS, CROP_PARAMETERS


def test_every_declared_kind_has_a_reference() -> None:
    assert reference.CROPS.keys() == CROP_PARAMETERS.keys()
    assert {kind for kind, _ in AUGMENTS.values()} <= CROP_PARAMETERS.keys()


@pytest.mark.parametrize("out_size", [(224, 224), (40, 57), (32, 32)])
@pytest.mark.parametrize("kind", CROP_PARAMETERS)
def test_boxes_are_those_of_the_reference(kind: str, out_size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    n, seed, epoch = 200, 2**63 + 5, 2**32 - 2
    ids = np.concatenate([np.arange(n // 2), rng.integers(0, 2**62, n // 2)])
    heights, widths = (rng.integers(1, 700, n).astype(np.uint16) for _ in range(2))
    heights[:50], widths[:50] = out_size
    for flip in (False, True):
        boxes = ops.crop_boxes(ids, heights, widths, kind=kind, out_size=out_size, flip=flip, seed=seed, epoch=epoch)
        for i, box in enumerate(boxes.tolist()):
            image = int(heights[i]), int(widths[i])
            options = CROP_PARAMETERS[kind](out_size)
            wanted = reference.crop_box(
                kind, int(ids[i]), image, out_size, flip=flip, seed=seed, epoch=epoch, **options
            )
            assert tuple(box) == wanted, i


def test_parameters_are_passed_on() -> None:
    ids, sides = np.arange(300), np.full(300, 100, np.uint16)
    for kind, changed in (("center", {"fraction": 0.5}), ("pad", {"pad": 20.0}), ("resized", {"ratio": (2.0, 3.0)})):
        boxes = ops.crop_boxes(ids, sides, sides, kind=kind, out_size=(64, 64), seed=1, epoch=2, **changed)
        options = CROP_PARAMETERS[kind]((64, 64)) | changed
        for i, box in enumerate(boxes.tolist()):
            wanted = reference.crop_box(kind, i, (100, 100), (64, 64), flip=False, seed=1, epoch=2, **options)
            assert tuple(box) == wanted


def test_resized_crops_stay_inside_and_follow_scale_and_ratio() -> None:
    n = 20_000
    ids = np.arange(n)
    heights, widths = np.full(n, 300, np.uint16), np.full(n, 400, np.uint16)
    boxes = ops.crop_boxes(ids, heights, widths, kind="resized", out_size=(224, 224), flip=True, seed=1)
    top, left, height, width, flip = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 300).all()
    assert (left + width <= 400).all()
    area, aspect = height * width / 120_000, width / height
    assert 0.075 < area.min() < 0.09
    assert 0.95 < area.max() <= 1
    assert 0.7 < aspect.min() < 0.8
    assert 1.28 < aspect.max() < 1.36
    assert abs(flip.mean() - 0.5) < 0.02
    assert abs(np.median(np.log(aspect[area < 0.3]))) < 0.02  # these fit whatever their aspect
    narrow = ops.crop_boxes(
        ids[:9], np.full(9, 1000, np.uint16), np.full(9, 3, np.uint16), kind="resized", out_size=(8, 8)
    )
    assert (narrow[:, 3] == 3).all()  # no try fits: the middle, as wide as the image


def test_bad_kinds_and_parameters_are_named() -> None:
    ids, sides = np.arange(3), np.full(3, 20, np.uint16)
    with pytest.raises(ValueError, match="kind is 'mixup'; give center, pad or resized"):
        ops.crop_boxes(ids, sides, sides, kind="mixup", out_size=(8, 8))
    with pytest.raises(TypeError, match="fraction is not a parameter of the crop 'pad'; give pad"):
        ops.crop_boxes(ids, sides, sides, kind="pad", out_size=(8, 8), fraction=1.0)
    with pytest.raises(ValueError, match="at least 1 x 1"):
        ops.crop_boxes(ids, sides, sides, kind="pad", out_size=(0, 8))
    with pytest.raises(ValueError, match="parameters"):
        ops.crop_boxes(ids, sides, sides, kind="resized", out_size=(8, 8), ratio=(1.0,))

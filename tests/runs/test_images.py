"""dualfast.runs.images: (images, labels, index) whatever the order of a file's fields, labels renumbered if asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ffcv_files import ffcv_file

pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)

from dualfast.data import beton
from dualfast.loading.loader import Loader
from dualfast.runs.images import ImageLoader

N = 10
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(N) % 3


@pytest.mark.parametrize("order", [("image", "label"), ("target", "img"), ("weight", "y", "img")])
def test_the_order_of_the_fields_does_not_matter(order: tuple[str, ...], tmp_path: Path) -> None:
    values = {"image": IMAGES, "img": IMAGES, "weight": LABELS / 2}
    path = ffcv_file(tmp_path / "a.beton", {name: values.get(name, LABELS) for name in order})
    options = {"order": "sequential", "num_workers": 1, "dtype": torch.uint8, "image_size": 8}
    with ImageLoader(beton.open_beton(path), 4, **options) as loader:
        assert len(loader) == 3
        (images, labels, index), second, third = loader
        assert images.shape == (4, 3, 8, 8)
        assert np.array_equal(images.permute(0, 2, 3, 1).numpy(), IMAGES[:4])
        assert labels.tolist() == LABELS[:4].tolist()
        assert index.tolist() == [0, 1, 2, 3]
        assert [len(batch[2]) for batch in (second, third)] == [4, 2]
        loader.numbers = np.array([7, 5, 6])
        assert [batch[1].tolist() for batch in loader] == [[7, 5, 6, 7], [5, 6, 7, 5], [6, 7]]
    with Loader(path, 4, **options) as plain:  # FFCV's order, as for any pipelines
        first = next(iter(plain))[0]
        assert (first.ndim == 4) == (order[0] == "image")


def test_padding_keeps_its_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ffcv_file(tmp_path / "a.beton", {"label": LABELS, "image": IMAGES})
    with ImageLoader(beton.open_beton(path), 4, order="sequential", num_workers=1) as loader:
        loader.numbers = np.array([7, 5, 6])
        padded = [(torch.tensor([0, -100, 2]), torch.zeros(3, 3, 8, 8), torch.arange(3))]
        monkeypatch.setattr(Loader, "__iter__", lambda self: iter(padded))
        assert [labels.tolist() for _, labels, _ in loader] == [[7, -100, 6]]

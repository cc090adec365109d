"""The memory of batches: never changed while a batch is referenced, reused afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from batches import MEAN, STD, normalised

from dualfast.loading.loader import Loader


def test_kept_batches_never_change_and_memory_is_reused(small: Path, images: np.ndarray) -> None:
    with Loader(small, 20, order="sequential", batches_ahead=2, mean=MEAN, std=STD) as loader:
        kept = list(loader)
        assert torch.equal(torch.cat([b[0] for b in kept]), normalised(images))
        copies = [b[0].clone() for b in kept]
        views = [b[0][0, 0, :2] for b in loader][::3]  # a view alone keeps its batch
        copied = [v.clone() for v in views]
        for _ in range(3):
            addresses = {images.data_ptr() for images, _, _ in loader}
        assert len(addresses) <= 5
        assert all(torch.equal(b[0], c) for b, c in zip(kept, copies, strict=True))
        assert all(torch.equal(v, c) for v, c in zip(views, copied, strict=True))
    assert all(torch.equal(b[0], c) for b, c in zip(kept, copies, strict=True))  # closed, and still there


def test_tensors_that_operations_ask_for_are_new_in_each_batch() -> None:
    from dualfast.loading.buffers import BatchBuffers

    ffcv_graph = pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    asked = ffcv_graph.AllocationQuery((3, 2), torch.float16, torch.device("cpu"))  # as ToDevice does
    buffers = BatchBuffers({"operation": {0: asked, 1: (None, asked)}, "shared": {}}, 8)
    first, second = buffers.views(8), buffers.views(5)
    assert first["memory_0"].shape == (8, 3, 2)
    assert second["memory_1"][1].dtype == torch.float16
    places = [made["memory_0"].data_ptr() for made in (first, second)]
    places += [made["memory_1"][1].data_ptr() for made in (first, second)]
    assert len(set(places)) == 4

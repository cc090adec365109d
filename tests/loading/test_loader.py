"""Which samples come, in which order; subsets without compiling; threads that end; arguments that are checked."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import N, collect

from dualfast.data.index_list import as_indices, save_keep
from dualfast.loading import order
from dualfast.loading.loader import Loader, image_pipelines


def test_the_same_batches_for_any_number_of_workers(small: Path) -> None:
    runs = []
    for workers in (1, 2, 5):  # more than there are cores, too
        with Loader(small, 50, augment="crop+flip", seed=9, num_workers=workers) as loader:
            runs.append([collect(loader) for _ in range(2)])
    for other in runs[1:]:
        for epoch in range(2):
            for one, two in zip(runs[0][epoch], other[epoch], strict=True):
                assert torch.equal(one, two)
    assert not torch.equal(runs[0][0][2], runs[0][1][2])  # epochs differ
    assert runs[0][0][2].tolist() == order.random_order(np.arange(N), 9, 0).tolist()


def test_subsets_change_without_compiling(small: Path, images: np.ndarray) -> None:
    with Loader(small, 32, order="sequential", dtype=torch.uint8) as loader:
        for kept in ([5, 3, 8], range(0, N, 2), np.arange(N) % 7 == 0, None, torch.tensor([202])):
            loader.set_indices(kept)
            ids = as_indices(kept, N)
            assert len(loader) == -(-len(ids) // 32)
            got, labels, index = collect(loader)
            assert index.tolist() == ids.tolist()
            assert (got.permute(0, 2, 3, 1).numpy() == images[ids]).all()
            assert labels.tolist() == (ids % 10).tolist()
        before = loader.indices.tolist()
        for bad in ([N], np.zeros(N, bool), [1.5], [1, 1]):
            with pytest.raises((ValueError, TypeError)):
                loader.set_indices(bad)
        assert loader.indices.tolist() == before
        loader.indices = [1, 2]  # FFCV ignores this in silence
        assert collect(loader)[2].tolist() == [1, 2]


def test_lists_drawn_from_other_data_are_refused(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    with Loader(small, 32) as loader:
        save_keep(path, np.arange(20), n_samples=N, fingerprint=loader.fingerprint)
        loader.set_indices(path)
        assert len(loader.indices) == 20
        save_keep(path, np.arange(30), n_samples=N, fingerprint="other")
        with pytest.raises(ValueError, match="fingerprint other; these have"):
            loader.set_indices(path)
        with pytest.raises(ValueError, match="fingerprint other; these have"):
            Loader(small, 32, indices=str(path))
        assert len(loader.indices) == 20
        (tmp_path / "keep.json").unlink()
        loader.set_indices(path)
        assert len(loader.indices) == 30
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=r"keep\.npy', which cannot be read"):
            loader.set_indices(path)


def test_drop_last(small: Path) -> None:
    with Loader(small, 50, drop_last=True) as loader:
        assert [len(b[0]) for b in loader] == [50] * 4
        with pytest.raises(ValueError, match="drop_last leaves no batch"):
            loader.set_indices(range(49))
        assert len(loader) == 4
    with pytest.raises(ValueError, match="drop_last leaves no batch"):
        Loader(small, 300, drop_last=True)
    with Loader(small, 300) as loader:
        assert [len(b[0]) for b in loader] == [N]


def loading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("dualfast")]


def test_breaking_off_leaves_no_thread(small: Path) -> None:
    loader = Loader(small, 2, batches_ahead=1)
    for _ in range(5):
        for _ in loader:
            break
    iterator = iter(loader)
    next(iterator)
    assert loading_threads()
    del iterator
    gc.collect()
    deadline = time.monotonic() + 2
    while loading_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not loading_threads()
    iterator = iter(loader)
    next(iterator)
    loader.close()
    assert not loading_threads()
    with pytest.raises(StopIteration):
        next(iterator)
    with pytest.raises(ValueError, match="closed"):
        iter(loader)
    loader.close()  # once more does nothing


def test_two_iterations_at_once(small: Path) -> None:
    with Loader(small, 20) as one, Loader(small, 20, order="sequential") as two:
        pairs = list(zip(one, one, two, strict=True))
        assert sorted(torch.cat([p[0][2] for p in pairs]).tolist()) == list(range(N))
        assert sorted(torch.cat([p[1][2] for p in pairs]).tolist()) == list(range(N))
        assert torch.cat([p[2][2] for p in pairs]).tolist() == list(range(N))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"batch_size": 2**31}, ValueError, "batch_size is 2147483648"),
        ({"batch_size": 2.5}, TypeError, "batch_size is 2.5"),
        ({"batches_ahead": 0}, ValueError, "batches_ahead is 0"),
        ({"num_workers": "2"}, TypeError, "num_workers"),
        ({"order": "sorted"}, ValueError, "order is 'sorted'"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"image_size": 0}, ValueError, "image_size is 0"),
        ({"augment": "mixup"}, ValueError, "augment is 'mixup'"),
        ({"mean": (120, 110, 100)}, ValueError, "divide by 255"),
        ({"std": (0, 0, 0)}, ValueError, "std is"),
        ({"dtype": torch.int32}, ValueError, "dtype is torch.int32"),
        ({"indices": [N]}, ValueError, rf"indices\[0\] is {N}"),
        ({"distributed": True}, ValueError, "init_process_group"),
        ({"verify": "always"}, ValueError, "verify is 'always'"),
        ({"pipelines": {}, "augment": True}, ValueError, "leave out pipelines"),
        ({"pipelines": {"image": None, "label": None}}, ValueError, "at least one"),
        ({"pipelines": {"image": 3}}, TypeError, "pipeline of 'image'"),
    ],
)
def test_bad_arguments_are_named(small: Path, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Loader(small, **{"batch_size": 32, **options})


def test_pages_are_compared_with_their_checksums_when_asked(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.beton"
    path.write_bytes(small.read_bytes())
    Path(f"{path}.crc").write_bytes(Path(f"{small}.crc").read_bytes())
    for when in ("open", "read"):
        with Loader(path, 32, verify=when) as loader:
            assert sum(len(index) for _, _, index in loader) == N
    with Loader(path, 32, verify="read") as loader:
        list(loader)
        data = bytearray(path.read_bytes())
        data[int(loader.beton.ptr[7])] ^= 1
        path.write_bytes(data)  # the same file, overwritten while it is open
        with pytest.raises(ValueError, match="differs from the checksum"):
            list(loader)
    with pytest.raises(ValueError, match="differs from the checksum"):
        Loader(path, 32, verify="open")
    with Loader(path, 32) as loader:
        assert sum(len(index) for _, _, index in loader) == N
    Path(f"{path}.crc").unlink()
    with pytest.raises(ValueError, match="has no checksums"):
        Loader(path, 32, verify="read")


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        *[("scale", bounds) for bounds in ((0, 1), (0.5, 0.1), (0.1, 1.1), (0.1, float("nan")), (0.1,), (-1, 1))],
        *[("ratio", bounds) for bounds in ((0, 1), (2, 1), (float("nan"), 1), (1, float("inf")), (1, 1, 1))],
    ],
)
def test_bounds_of_random_crops_are_checked(name: str, bounds: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*; give two numbers, 0 < low <= high"):
        image_pipelines(8, augment="rrc", **{name: bounds})
    assert image_pipelines(8, augment="rrc", scale=(0.2, 0.2), ratio=(0.1, 30))


def test_attributes_that_were_those_of_ffcv_say_what_there_is(small: Path) -> None:
    with Loader(small, 10) as loader:
        for name in ("reader", "generate_code", "memory_manager"):
            with pytest.raises(AttributeError, match=f"a Loader has no {name}, which was FFCV's; "):
                getattr(loader, name)
        assert not hasattr(loader, "other")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"custom_fields": 5}, TypeError, "custom_fields is 5; give a dict"),
        ({"custom_fields": torch.zeros(3)}, TypeError, "custom_fields is tensor"),
        ({"dtype": []}, ValueError, r"dtype is \[\]; give torch.float32"),
    ],
)
def test_arguments_of_another_kind_are_named(
    options: dict[str, Any], error: type[Exception], words: str, small: Path
) -> None:
    with pytest.raises(error, match=words):
        Loader(small, 10, **options)
    with pytest.raises(ValueError, match=r"scale is 0\.08; give two numbers"):
        image_pipelines(224, augment="rrc", scale=0.08)  # type: ignore[arg-type]

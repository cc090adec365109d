"""Batches: right pixels, ids and order; reproducible; safe to keep; subsets without compiling; FFCV's own pipelines."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import ops
from dualfast.data import beton
from dualfast.data.index_list import as_indices, save_keep
from dualfast.loading import order

dualfast_loader = pytest.importorskip("dualfast.loading.loader", reason="needs ffcv", exc_type=ImportError)
Loader = dualfast_loader.Loader

N, SIDE = 203, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def small(images: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("loader") / "small.beton"
    beton.write((images, np.arange(N) % 10), path)
    return path


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


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to what the loader gives, in float64 until the last step."""
    values = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values).to(torch.float32).permute(0, 3, 1, 2)


def cut(image: np.ndarray, box: np.ndarray, fill: float) -> np.ndarray:
    """The reference crop, pixel by pixel."""
    top, left, height, width, flip = box.tolist()
    out = np.full((height, width, 3), fill)
    for y in range(height):
        for x in range(width):
            if 0 <= top + y < image.shape[0] and 0 <= left + x < image.shape[1]:
                out[y, x] = image[top + y, left + x]
    return out[:, ::-1] if flip else out


def collect(loader: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(part) for part in zip(*loader, strict=True))


# ---- what a batch holds ---------------------------------------------------------------------------------------------


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


# ---- which samples, in which order ----------------------------------------------------------------------------------


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


def test_epochs_count_up_and_can_be_set(small: Path) -> None:
    with Loader(small, 100) as loader:
        first, second = collect(loader)[2], collect(loader)[2]
        assert loader.next_epoch == 2
        loader.set_epoch(0)
        assert torch.equal(collect(loader)[2], first)
        assert torch.equal(collect(loader)[2], second)
        assert sorted(first.tolist()) == list(range(N))


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


def test_resuming_continues_batch_for_batch(small: Path) -> None:
    def make(seed: int = 2) -> Any:
        return Loader(small, 30, augment="crop+flip", seed=seed)

    with make() as loader:
        whole = [list(loader) for _ in range(3)]
    with make() as loader:
        list(loader)
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        state = loader.state_dict()
    assert all(type(value) is int for name, value in state.items() if name != "legs")
    assert (state["epoch"], state["batch"]) == (1, 3)
    with make() as loader:
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        rest = [list(loader), list(loader)]
        assert loader.state_dict()["epoch"] == 3
        assert loader.state_dict()["batch"] == 0
    for got, wanted in zip(rest, (whole[1][3:], whole[2]), strict=True):
        assert len(got) == len(wanted)
        for one, two in zip(got, wanted, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    with make(seed=5) as loader, pytest.raises(ValueError, match="seed 2; this loader has 5"):
        loader.load_state_dict(state)
    with make() as loader:
        loader.set_indices(range(30))
        with pytest.raises(ValueError, match="n_selected 203"):
            loader.load_state_dict(state)


def test_another_selection_begins_its_own_epoch(small: Path) -> None:
    with Loader(small, 10) as loader, Loader(small, 10, indices=range(20)) as other:
        iterator = iter(loader)
        for _ in range(8):
            next(iterator)
        loader.set_indices(range(20))
        state = loader.state_dict()
        assert (state["epoch"], state["batch"]) == (1, 0)
        other.load_state_dict(state)
        assert torch.equal(collect(other)[2], collect(loader)[2])


def test_other_ranks_go_on_inside_an_epoch(small: Path) -> None:
    def make(rank: int, size: int, kind: Any) -> Any:
        loader = Loader(small, -(-30 // size), order=kind, seed=2)
        loader._rank, loader._world_size = rank, size  # as torch.distributed would say
        return loader

    for kind in ("random", order.PageRandom(1 << 23)):
        seen: list[int] = []
        state: dict[str, Any] | None = None
        for size, steps in ((2, 3), (3, 2), (1, 100)):
            for rank in range(size):
                with make(rank, size, kind) as loader:
                    if state is not None:
                        loader.load_state_dict(state)
                    expected = loader.remaining
                    iterator = iter(loader)
                    batches = [batch for _, batch in zip(range(steps), iterator, strict=False)]
                    seen += [int(i) for _, labels, ids in batches for i in ids[labels != -100]]
                    after = loader.state_dict()
            assert len(batches) == min(steps, expected)
            state = after
        assert sorted(seen) == list(range(203))
        assert state is not None
        assert (state["epoch"], state["batch"], state["legs"]) == (1, 0, [])


# ---- memory and threads ---------------------------------------------------------------------------------------------


def test_kept_batches_never_change_and_memory_is_reused(small: Path) -> None:
    with Loader(small, 20, order="sequential", batches_ahead=2) as loader:
        kept = list(loader)
        copies = [b[0].clone() for b in kept]
        views = [b[0][0, 0, :2] for b in loader][::3]  # a view alone keeps its batch
        copied = [v.clone() for v in views]
        for _ in range(3):
            addresses = {images.data_ptr() for images, _, _ in loader}
        assert len(addresses) <= 5
        assert all(torch.equal(b[0], c) for b, c in zip(kept, copies, strict=True))
        assert all(torch.equal(v, c) for v, c in zip(views, copied, strict=True))
    assert all(torch.equal(b[0], c) for b, c in zip(kept, copies, strict=True))  # closed, and still there


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


def test_importing_leaves_thread_counts_alone() -> None:
    code = (
        "import torch, numba; torch.set_num_threads(3); n = numba.get_num_threads()\n"
        "import dualfast.loading.loader, numba.typed\n"
        "assert torch.get_num_threads() == 3 and numba.get_num_threads() == n\n"
        "assert numba.typed.Dict.__module__ == 'numba.typed.typeddict'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# ---- FFCV's own pipelines -------------------------------------------------------------------------------------------


def test_a_program_written_for_ffcv_runs(small: Path, images: np.ndarray) -> None:
    """FFCV's operations, compiled; one fixture of work, since each new FFCV pipeline costs seconds."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import OrderOption
    from ffcv.transforms import NormalizeImage, Squeeze, ToTensor, ToTorchImage

    mean, std = np.array(MEAN) * 255, np.array(STD) * 255
    pipelines = {
        "image": [SimpleRGBImageDecoder(), NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor(), Squeeze()],
    }
    loader = Loader(
        str(small),
        batch_size=32,
        num_workers=2,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines=pipelines,
        seed=1,
    )
    assert isinstance(loader, dualfast_loader.ffcv_loader.Loader)
    assert len(loader) == 6
    kept = list(loader)
    for pictures, labels, index in kept:
        torch.testing.assert_close(pictures, normalised(images[index.numpy()]), rtol=1e-5, atol=1e-5)
        assert (labels == index % 10).all()
    start = time.monotonic()
    loader.set_indices(range(64))
    got = collect(loader)
    assert time.monotonic() - start < 1  # nothing was compiled again
    assert sorted(got[2].tolist()) == list(range(64))
    torch.testing.assert_close(got[0], normalised(images[got[2].numpy()]), rtol=1e-5, atol=1e-5)
    loader.close()


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
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
        ({"pipelines": {}, "augment": True}, ValueError, "leave out pipelines"),
        ({"pipelines": {"image": None, "label": None}}, ValueError, "at least one"),
        ({"pipelines": {"image": 3}}, TypeError, "pipeline of 'image'"),
    ],
)
def test_bad_arguments_are_named(small: Path, options: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        Loader(small, **{"batch_size": 32, **options})


def test_tensors_that_operations_ask_for_are_new_in_each_batch() -> None:
    from dualfast.loading.epoch import Slot
    from dualfast.loading.ffcv_graph import AllocationQuery

    asked = AllocationQuery((3, 2), torch.float16, torch.device("cpu"))  # as ToDevice does
    slot = Slot({"operation": {0: asked, 1: (None, asked)}, "shared": {}}, 8)
    first, second = slot.cut(8), slot.cut(5)
    assert first["memory_0"].shape == (8, 3, 2)
    assert second["memory_1"][1].dtype == torch.float16
    places = [made["memory_0"].data_ptr() for made in (first, second)]
    places += [made["memory_1"][1].data_ptr() for made in (first, second)]
    assert len(set(places)) == 4

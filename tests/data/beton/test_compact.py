"""compact: the kept samples byte for byte in a smaller file; it resumes, and FFCV reads the result."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import cli, compact, verify
from dualfast.data import beton
from dualfast.data.beton import compact as compacting
from dualfast.data.index_list import save_keep

N = 3000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> beton.Beton:
    """3,000 raw images over three pages."""
    path = tmp_path_factory.mktemp("source") / "source.beton"
    images = np.random.default_rng(0).integers(0, 256, (N, 24, 24, 3), dtype=np.uint8)
    beton.write((images, np.arange(N) % 7), path, page_size=1 << 21)
    return beton.open_beton(path)


def original_index(opened: beton.Beton) -> Any:
    return opened.metadata[f"f{opened.field_names.index('original_index')}"]


@pytest.mark.parametrize("kept", [range(N), range(0, N, 10), [N - 1], np.random.default_rng(1).permutation(N)[:900]])
def test_kept_samples_are_the_same_bytes(source: beton.Beton, tmp_path: Path, kept: Any) -> None:
    compact(source.path, kept, tmp_path / "small.beton")
    ids = np.sort(np.asarray(kept))
    small = verify(tmp_path / "small.beton", full=True, progress=False)
    assert original_index(small).tolist() == ids.tolist()
    assert small.labels.tolist() == source.labels[ids].tolist()
    for row in range(0, len(ids), 37):
        assert small.payload(row) == source.payload(int(ids[row]))
    page = np.uint64(small.page_size)
    starts, ends = small.allocations["ptr"], small.allocations["ptr"] + small.allocations["size"] - np.uint64(1)
    assert (starts // page == ends // page).all()
    needed = int(source.size[ids].sum())
    assert small.bytes - needed < 2 * small.page_size + 1200 * 3 + 100 * len(ids) + needed // 100
    assert sorted(os.listdir(tmp_path)) == [f"small.beton{end}" for end in ("", ".crc", ".json", ".names.parquet")]


def test_compacting_twice_keeps_the_first_ids(source: beton.Beton, tmp_path: Path) -> None:
    compact(source.path, range(0, N, 2), tmp_path / "half.beton")
    compact(tmp_path / "half.beton", range(0, N // 2, 3), tmp_path / "sixth.beton")
    small = beton.open_beton(tmp_path / "sixth.beton")
    assert small.field_names.count("original_index") == 1
    assert original_index(small).tolist() == list(range(0, N, 6))


def test_a_stopped_copy_resumes(source: beton.Beton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, real, calls = range(0, N, 3), os.copy_file_range, 0

    def stops_after_500(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 500:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(compacting, "SAVE_EVERY", 100_000)
    monkeypatch.setattr(os, "copy_file_range", stops_after_500)
    with pytest.raises(OSError, match="No space left"):
        compact(source.path, kept, tmp_path / "small.beton")
    assert not (tmp_path / "small.beton").exists()
    compact(source.path, kept, tmp_path / "small.beton")
    assert 500 < calls < 1000 + 100, "most of the first 500 extents were not copied again"
    monkeypatch.undo()
    compact(source.path, kept, tmp_path / "at_once.beton")
    assert (tmp_path / "small.beton").read_bytes() == (tmp_path / "at_once.beton").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


def test_copying_to_another_file_system(source: beton.Beton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any) -> int:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    compact(source.path, range(100, 900), tmp_path / "here.beton")
    monkeypatch.setattr(os, "copy_file_range", refuses)
    compact(source.path, range(100, 900), tmp_path / "there.beton")
    assert (tmp_path / "here.beton").read_bytes() == (tmp_path / "there.beton").read_bytes()


def test_a_partial_copy_of_other_samples_is_not_used(
    source: beton.Beton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "copy_file_range", stops)
    with pytest.raises(KeyboardInterrupt):
        compact(source.path, range(100), tmp_path / "small.beton")
    monkeypatch.undo()
    compact(source.path, range(200, 260), tmp_path / "small.beton")
    assert original_index(beton.open_beton(tmp_path / "small.beton")).tolist() == list(range(200, 260))


@pytest.mark.parametrize(
    ("indices", "words"),
    [([0, N], f"indices\\[1\\] is {N}"), ([], "empty"), ([1, 1], "more than once"), (np.zeros(N, bool), "nothing")],
)
def test_bad_indices_are_named(source: beton.Beton, tmp_path: Path, indices: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compact(source.path, indices, tmp_path / "small.beton")


def test_lists_drawn_from_other_data_are_refused(source: beton.Beton, tmp_path: Path) -> None:
    path, ids = tmp_path / "keep.npy", np.arange(0, N, 100)
    for drawn_from in ({"n_samples": N, "fingerprint": "other"}, {"n_samples": 99 * N}):
        save_keep(path, ids, **drawn_from)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"keep\.npy' was drawn from data with"):
            compact(source.path, path, tmp_path / "small.beton")
        assert cli.main(["compact", str(source.path), str(path), str(tmp_path / "small.beton")]) == 2
    assert not (tmp_path / "small.beton").exists()
    save_keep(path, ids, n_samples=N, fingerprint=source.fingerprint)
    assert compact(source.path, path, tmp_path / "small.beton").n_samples == len(ids)
    assert cli.main(["compact", str(source.path), str(path), str(tmp_path / "small.beton")]) == 0


def test_the_source_is_never_overwritten(source: beton.Beton) -> None:
    before = source.path.read_bytes()
    with pytest.raises(ValueError, match="dst is src"):
        compact(source.path, [1, 2], source.path)
    assert source.path.read_bytes() == before


def test_only_what_compact_made_is_replaced(source: beton.Beton, tmp_path: Path) -> None:
    compact(source.path, [1, 2], tmp_path / "small.beton")
    assert compact(source.path, [1, 2, 3], tmp_path / "small.beton").n_samples == 3
    shutil.copy(source.path, tmp_path / "whole.beton")
    (tmp_path / "notes.txt").write_text("mine")
    for name in ("whole.beton", "notes.txt"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(ValueError, match=rf"dst is '.*{name}', which exists and was not made by compact"):
            compact(source.path, [1, 2], tmp_path / name)
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # from FFCV's threads, which outlive the test
def test_unmodified_ffcv_reads_every_field(tmp_path: Path) -> None:
    pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    from ffcv.fields import FloatField, IntField, NDArrayField, RGBImageField
    from ffcv.loader import Loader, OrderOption
    from ffcv.writer import DatasetWriter

    class Rows:
        def __len__(self) -> int:
            return 50

        def __getitem__(self, i: int) -> tuple[Any, ...]:
            return np.full((8, 8, 3), i, np.uint8), i, i / 2, np.full(3, i, np.float32)

    array = NDArrayField(np.dtype(np.float32), (3,))
    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField(), "half": FloatField(), "array": array}
    DatasetWriter(str(tmp_path / "all.beton"), fields, num_workers=1).from_indexed_dataset(Rows())
    kept = [3, 4, 17, 49]
    compact(tmp_path / "all.beton", kept, tmp_path / "small.beton")
    loader = Loader(str(tmp_path / "small.beton"), 4, num_workers=1, order=OrderOption.SEQUENTIAL, drop_last=False)
    image, label, half, array, index = next(iter(loader))
    assert index[:, 0].tolist() == label[:, 0].tolist() == kept
    assert image[:, 0, 0, 0].tolist() == array[:, 2].tolist() == kept
    assert (half[:, 0] * 2).tolist() == kept


def test_empty_fields_that_ffcv_wrote(tmp_path: Path) -> None:
    """FFCV gives an empty field the place at which the next image begins."""
    pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    from ffcv.fields import BytesField, IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.writer import DatasetWriter

    from dualfast.loading.loader import Loader

    class Rows:
        def __len__(self) -> int:
            return 30

        def __getitem__(self, i: int) -> tuple[Any, ...]:
            text = b"" if i % 3 else b"caption"
            return np.full((240, 240, 3), i, np.uint8), i % 2, np.frombuffer(text, np.uint8)

    fields = {"image": RGBImageField(write_mode="raw"), "label": IntField(), "text": BytesField()}
    DatasetWriter(str(tmp_path / "all.beton"), fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(Rows())
    compact(tmp_path / "all.beton", range(5, 30), tmp_path / "small.beton")  # its pages begin at other images
    for name, ids in (("all", range(30)), ("small", range(5, 30))):
        opened = verify(tmp_path / f"{name}.beton", full=True, progress=False)
        assert [int(opened.image(row)[-1, -1, 0]) for row in range(len(ids))] == list(ids)
        text = opened.metadata[f"f{opened.field_names.index('text')}"]
        table = opened.allocations
        for row, i in enumerate(ids):
            ptr, size = (int(text[row][part]) for part in ("ptr", "size"))
            assert os.pread(opened.fd, size, ptr) == (b"" if i % 3 else b"caption")
            assert ((table["ptr"] == ptr) & (table["size"] == size) & (table["sample_id"] == row)).any()
        with Loader(opened.path, 30, order="sequential", dtype=torch.uint8) as loader:
            assert next(iter(loader))[0][:, 0, 100, 100].tolist() == list(ids)
    pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()], "text": None}
    with pytest.raises(ValueError, match="empty field"):
        next(iter(Loader(opened.path, 30, pipelines=pipelines)))

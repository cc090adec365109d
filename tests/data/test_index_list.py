"""Index lists: what is written is read back, and what does not belong is refused."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from dualfast.data.index_list import as_indices, load_keep, read_sidecar, save_keep, write_keep
from dualfast.selection.spec import SelectionSpec

IDS = np.array([1, 5, 7, 90], np.int64)


def test_round_trip_with_its_side_file(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    save_keep(path, IDS, n_samples=100, fingerprint="f", method="dual", seed=2**63)
    about = json.loads((tmp_path / "keep.json").read_text())
    assert about | {"dualfast": ""} == {
        "n_samples": 100,
        "kept": 4,
        "removed": 96,
        "crc32": crc32(IDS),
        "method": "dual",
        "seed": 2**63,
        "fingerprint": "f",
        "dualfast": "",
    }
    for given in ({}, {"n_samples": 100}, {"n_samples": 100, "fingerprint": "f"}):
        loaded = load_keep(path, **given)
        assert loaded.dtype == np.int64
        assert (loaded == IDS).all()
    assert sorted(os.listdir(tmp_path)) == ["keep.json", "keep.npy"]
    os.unlink(tmp_path / "keep.json")  # a bare list is one too
    assert (load_keep(path, n_samples=91, fingerprint="other") == IDS).all()


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (IDS.astype(np.int32), "int32"),
        (np.ones(100, bool), r"bool .*np\.flatnonzero\(mask\)"),
        (IDS.astype(np.float64), "float64"),
        (IDS[None], "shape"),
        (np.array([5, 1], np.int64), "not sorted"),
        (np.array([1, 1], np.int64), "not sorted"),
        (np.array([-1, 1], np.int64), "negative"),
        (np.array([1, 200], np.int64), "holds the id 200; the data have 100 samples"),
    ],
)
def test_refuses_other_arrays(tmp_path: Path, array: np.ndarray, says: str) -> None:
    np.save(tmp_path / "keep.npy", array)
    with pytest.raises(ValueError, match=says):
        load_keep(tmp_path / "keep.npy", n_samples=100)


def test_refuses_other_data_and_damage(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    save_keep(path, IDS, n_samples=100, fingerprint="f")
    with pytest.raises(ValueError, match="n_samples 100; these have 101"):
        load_keep(path, n_samples=101)
    with pytest.raises(ValueError, match="fingerprint f; these have g"):
        load_keep(path, fingerprint="g")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(ValueError, match="not an index list"):
        load_keep(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not an index list"):
        load_keep(path)
    with pytest.raises(ValueError, match="not an index list"):
        load_keep(tmp_path / "missing.npy")
    np.save(path, IDS[:3])
    with pytest.raises(ValueError, match=r"holds 3 ids and keep.json says 4"):
        load_keep(path)
    with pytest.raises(ValueError, match=r"end it in .npy"):
        save_keep(tmp_path / "keep.txt", IDS, n_samples=100)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keep.txt"
    path.write_text("1\n5\n")
    with pytest.raises(ValueError, match=r"keep\.txt' is not an index list: it is text; np\.save\('keep\.npy', ids\)"):
        load_keep(path)
    with pytest.raises(ValueError, match=r"force is .*it is text"):
        as_indices(path, 5, name="force")


@pytest.mark.parametrize("text", ["[]", "3", "{"])
def test_a_side_file_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    save_keep(tmp_path / "keep.npy", IDS, n_samples=100)
    (tmp_path / "keep.json").write_text(text)
    with pytest.raises(ValueError, match=r"keep\.json' does not describe an index list"):
        load_keep(tmp_path / "keep.npy")


def test_nothing_appears_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    save_keep(path, IDS, n_samples=100)

    def pieces() -> Iterator[np.ndarray]:
        yield IDS[:2]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_keep(path, pieces(), 3, n_samples=100)
    assert (load_keep(path, n_samples=100) == IDS).all()  # the side file too is the old one
    assert sorted(os.listdir(tmp_path)) == ["keep.json", "keep.npy"]


def test_pieces_are_one_list(tmp_path: Path) -> None:
    write_keep(tmp_path / "keep.npy", (IDS[i : i + 1] for i in range(4)), 4, n_samples=100)
    assert (load_keep(tmp_path / "keep.npy", n_samples=100) == IDS).all()
    write_keep(tmp_path / "none.npy", [], 0, n_samples=100)
    assert load_keep(tmp_path / "none.npy").shape == (0,)


# ---- ids, masks, paths ----------------------------------------------------------------------------------------------


def test_messages_name_the_argument() -> None:
    for given, kind, says in (
        ([[1]], ValueError, r"force has the shape \(1, 1\); ids and masks are 1-D"),
        ([0.5], TypeError, "force is float64"),
        (np.ones(3, bool), ValueError, "force is a mask of 3 entries; the data set has 5 samples"),
        ([1, 5], ValueError, r"force\[1\] is 5; the data set has samples 0 to 4"),
        ("none.npy", ValueError, "force is 'none.npy', which is not a file"),
        ([1, 0, 0, 1, 0], ValueError, "force holds 5 zeros and ones, as a mask does; a mask must be boolean"),
        ({1, 3}, TypeError, r"force is a set; give a list or an array of ids, as sorted\(force\)"),
    ):
        with pytest.raises(kind, match=says):
            as_indices(given, 5, name="force", as_set=True)


def test_a_set_is_sorted_and_may_be_empty_or_repeat() -> None:
    for given, ids in (([3, 1, 3], [1, 3]), ([], []), (np.zeros(5, bool), []), (np.eye(5, dtype=bool)[2], [2])):
        found = as_indices(given, 5, as_set=True)
        assert found.dtype == np.int64
        assert found.tolist() == ids


def test_ids_of_a_data_set_of_unknown_size() -> None:
    """Memory goes with the number of ids, not with their size."""
    huge = np.array([2**62, 5, 2**40])
    tracemalloc.start()
    assert as_indices(huge).tolist() == huge.tolist()
    with pytest.raises(ValueError, match=f"hold sample {2**62} more than once"):
        as_indices([2**62, 3, 2**62])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match=rf"indices\[0\] is {2**63}; an id is 0 to"):
        as_indices(np.array([2**63], np.uint64))
    with pytest.raises(ValueError, match="a mask must be boolean"):
        as_indices([0, 1, 1])
    with pytest.raises(ValueError, match=r"hold sample 4 more than once; each sample once$"):
        as_indices([9, 4, 4, 2])
    with pytest.raises(TypeError, match="indices is None"):
        as_indices(None)


def test_no_flipped_bit_loads_other_ids(tmp_path: Path) -> None:
    path = tmp_path / "keep.npy"
    save_keep(path, ids := np.arange(0, 64, 2), n_samples=64)
    whole = path.read_bytes()
    for at in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        with suppress(ValueError):
            assert (load_keep(path) == ids).all()
    path.write_bytes(whole[:-8] + np.int64(63).tobytes())
    with pytest.raises(ValueError, match=r"damaged, or keep\.json is that of another list"):
        load_keep(path)


@pytest.mark.parametrize("stop", ["the list", "its sidecar"])
def test_a_list_and_its_sidecar_are_replaced_together(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the list has its name, the old pair is there; killed after it, the new one."""
    path = tmp_path / "keep.npy"
    save_keep(path, IDS, n_samples=100, prune_ratio=0.5, seed=0)
    save_keep(tmp_path / "new.npy", IDS + 1, n_samples=100, prune_ratio=0.5, seed=1)
    (tmp_path / "new.json").rename(tmp_path / "keep.json.next")
    if stop == "its sidecar":
        (tmp_path / "new.npy").rename(path)
    new = stop == "its sidecar"
    assert (load_keep(path) == IDS + new).all()
    assert read_sidecar(path)["seed"] == SelectionSpec.read(path)[0].seed == new
    save_keep(path, IDS + 2, n_samples=100, prune_ratio=0.5, seed=2)
    assert (read_sidecar(path)["seed"], (tmp_path / "keep.json.next").exists()) == (2, False)


def test_a_list_that_is_not_written_leaves_the_old_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keep.npy"
    save_keep(path, IDS, n_samples=100, prune_ratio=0.5, seed=0)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_keep(path, IDS + 1, n_samples=100, prune_ratio=0.5, seed=1)
    assert read_sidecar(path)["seed"] == 0
    assert sorted(os.listdir(tmp_path)) == ["keep.json", "keep.npy"]

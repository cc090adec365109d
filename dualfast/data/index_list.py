"""Index lists: keep-*.npy (sorted int64 ids) with a JSON side file that says how they came about."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.storage.files import atomic, write_text


def save_keep(
    path: str | os.PathLike[str], ids: NDArray[np.int64], *, n_samples: int, fingerprint: str | None = None, **how: Any
) -> None:
    """Writes ids to `path` (.npy) and n_samples, counts, the data's fingerprint, the version and `how` to the .json
    beside it.

    The list appears last: where it is, its side file is too.
    """
    write_keep(path, [ids], len(ids), n_samples=n_samples, fingerprint=fingerprint, **how)


def write_keep(
    path: str | os.PathLike[str],
    pieces: Iterable[NDArray[np.int64]],
    count: int,
    *,
    n_samples: int,
    fingerprint: str | None = None,
    **how: Any,
) -> None:
    """save_keep for ids that come in pieces, `count` in all: only one piece is in memory."""
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"{str(path)!r} is no name for an index list; end it in .npy")
    about = {
        "n_samples": n_samples,
        "kept": count,
        "removed": n_samples - count,
        **how,
        "fingerprint": fingerprint,
        "dualfast": importlib.metadata.version("dualfast"),
    }
    with atomic(path) as part:
        with open(part, "wb") as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)
            for ids in pieces:
                file.write(np.ascontiguousarray(ids, "<i8").data)
                count -= len(ids)
        assert count == 0, "the pieces hold another number of ids"
        write_text(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")


def load_keep(
    path: str | os.PathLike[str], *, n_samples: int | None = None, fingerprint: str | None = None
) -> NDArray[np.int64]:
    """The ids that save_keep wrote.

    Raises ValueError for a missing or damaged file, ids that are not sorted int64, and when the side file names other
    data or another number of samples than asked for.
    """
    path = Path(path)
    try:
        ids: NDArray[np.int64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{str(path)!r} is no index list: {error}") from None
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise ValueError(f"{str(path)!r} holds {ids.dtype} of shape {ids.shape}; an index list is 1-D int64")
    if len(ids) and (ids[0] < 0 or not (np.diff(ids) > 0).all()):
        raise ValueError(f"{str(path)!r} is not sorted, or holds repeats or negative ids")
    about = side_of(path)
    if about and about.get("kept") != len(ids):
        side = path.with_suffix(".json").name
        raise ValueError(f"{str(path)!r} holds {len(ids)} ids and {side} says {about.get('kept')}")
    check_data(path, about, n_samples=n_samples, fingerprint=fingerprint)
    if n_samples is not None and len(ids) and ids[-1] >= n_samples:
        raise ValueError(f"{str(path)!r} holds the id {ids[-1]}; the data have {n_samples} samples")
    return ids


def side_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the side file says of the index list at `path`; empty where there is none. ValueError when it is damaged."""
    side = Path(path).with_suffix(".json")
    try:
        about = json.loads(side.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        about = None
    if not isinstance(about, dict):
        raise ValueError(f"{str(side)!r} says nothing about an index list; delete it to use the list without it")
    return about


def check_data(
    path: str | os.PathLike[str], about: dict[str, Any], *, n_samples: int | None, fingerprint: str | None
) -> None:
    """ValueError when the list at `path` was, as its side file has it, drawn from other data."""
    for name, mine in (("n_samples", n_samples), ("fingerprint", fingerprint)):
        theirs = about.get(name)
        if mine is not None and theirs is not None and theirs != mine:
            raise ValueError(f"{os.fspath(path)!r} was drawn from data with {name} {theirs}; these have {mine}")


def as_indices(indices: Any, n_samples: int) -> NDArray[np.int64]:
    """Sample ids from any form a selection comes in: None (all), a boolean mask of n_samples, integers (array,
    tensor, range, list), or the path of an .npy holding either. The order given is kept.

    Raises TypeError for floats and other kinds, ValueError when the mask has another length, when there is more than
    one dimension, nothing is selected, an id lies outside 0..n_samples-1, or one occurs twice."""
    if indices is None:
        return np.arange(n_samples, dtype=np.int64)
    if isinstance(indices, str | os.PathLike):
        path = Path(indices)
        if not path.is_file():
            raise ValueError(f"indices is {str(path)!r}, which is no file; give the .npy that was saved")
        try:
            indices = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"indices is {str(path)!r}, which cannot be read: {error}") from None
    if isinstance(indices, range):
        array = np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    else:
        array = np.asarray(indices)
    if array.ndim != 1:
        raise ValueError(f"indices have the shape {array.shape}; they must be 1-D")
    if array.dtype == np.bool_:
        if len(array) != n_samples:
            raise ValueError(f"the boolean mask has {len(array)} entries; the data set has {n_samples} samples")
        array = np.flatnonzero(array)
    elif not len(array):
        raise ValueError("indices are empty; select at least one sample")
    elif not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"indices are {array.dtype}; give integers or a boolean mask")
    if not len(array):
        raise ValueError("the boolean mask selects nothing; select at least one sample")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n_samples:
        bad = low if low < 0 else high
        at = int(np.argmax(array == bad))
        raise ValueError(f"indices[{at}] is {bad}; the data set has samples 0 to {n_samples - 1}")
    array = array.astype(np.int64)
    if not (array[1:] > array[:-1]).all():
        seen = np.zeros(n_samples, np.bool_)
        seen[array] = True
        if np.count_nonzero(seen) != len(array):
            ids, counts = np.unique(array, return_counts=True)
            twice = int(ids[np.argmax(counts > 1)])
            hint = "; a mask must be boolean" if len(array) == n_samples and high <= 1 else ""
            raise ValueError(f"indices hold sample {twice} more than once; each sample once{hint}")
    return array


def selected_ids(indices: Any, beton: Beton) -> NDArray[np.int64]:
    """as_indices for the samples of a .beton. ValueError, too, for a file whose side file names other data."""
    if isinstance(indices, str | os.PathLike) and (about := side_of(indices)):
        check_data(indices, about, n_samples=beton.n_samples, fingerprint=beton.fingerprint)
    return as_indices(indices, beton.n_samples)

"""Sets of sample ids: the one parser of the forms they come in, and index lists, keep-*.npy (sorted int64 ids) with a
JSON sidecar that says how they were drawn."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array, as_path
from dualfast.data.beton import Beton
from dualfast.storage import npy
from dualfast.storage.files import check_folder, named_file, waiting_for, what_is, with_sidecars, write_text
from dualfast.storage.plain import read_json

RESULT_KEYS = ("n_samples", "kept", "removed", "crc32", "fingerprint", "dualfast")
"""What a sidecar says about the result; all else in it says how the list was drawn."""

# ---- index lists ----------------------------------------------------------------------------------------------------


def save_keep(
    path: str | os.PathLike[str], ids: NDArray[np.int64], *, n_samples: int, fingerprint: str | None = None, **how: Any
) -> None:
    """Writes ids to `path` (.npy) and n_samples, counts, the ids' CRC-32, the data's fingerprint, the version and `how`
    to the .json beside it.

    Stopped at any moment, the old list is there with its sidecar, or the new one with its own: the new sidecar waits as
    .json.next until the list has its name, and is found there by its CRC-32.
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
    path = check_name(path)
    about = {
        "n_samples": n_samples,
        "kept": count,
        "removed": n_samples - count,
        "crc32": 0,
        **how,
        "fingerprint": fingerprint,
        "dualfast": importlib.metadata.version("dualfast"),
    }
    with with_sidecars(path, [path.with_suffix(".json")]) as (part, sidecar):
        with open(part, "wb") as file:
            header = {"descr": "<i8", "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)
            for ids in pieces:
                data = np.ascontiguousarray(ids, "<i8").data
                file.write(data)
                about["crc32"] = crc32(data, about["crc32"])
                count -= len(ids)
        assert count == 0, "the pieces hold another number of ids"
        write_text(sidecar, json.dumps(about, indent=1) + "\n")


def check_name(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """The path of an index list to write; ValueError unless it ends in .npy, in a folder that exists."""
    path = as_path(argument, path)
    if path.suffix != ".npy":
        raise ValueError(f"{str(path)!r} is not a name for an index list; end it in .npy")
    check_folder(path)
    return path


class IndexList(NamedTuple):
    """An index list: the sorted ids (M,) int64, and what its sidecar says of them, empty without one."""

    path: Path
    ids: NDArray[np.int64]
    about: dict[str, Any]

    def check_data(self, n_samples: int | None, fingerprint: str | None) -> None:
        """ValueError when it was drawn from other data than of these."""
        check_data(self.path, self.about, n_samples=n_samples, fingerprint=fingerprint)
        if n_samples is not None and len(self.ids) and self.ids[-1] >= n_samples:
            raise ValueError(f"{str(self.path)!r} holds the id {self.ids[-1]}; the data have {n_samples} samples")


def load_keep(
    path: str | os.PathLike[str], *, n_samples: int | None = None, fingerprint: str | None = None
) -> NDArray[np.int64]:
    """The ids that save_keep wrote.

    Raises ValueError for a missing or damaged file, ids that are not sorted int64, and when the sidecar names other
    data or another number of samples than given here.
    """
    listed = read_list(path)
    listed.check_data(n_samples, fingerprint)
    return listed.ids


def read_list(path: str | os.PathLike[str]) -> IndexList:
    """The list at `path`, with its sidecar; ValueError as load_keep."""
    path = named_file(path, "keep", "an index list, keep-*.npy")
    try:
        ids: NDArray[np.int64] = npy.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is not an index list: {_unreadable(path, error)}") from None
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise ValueError(
            f"{str(path)!r} holds {ids.dtype} of shape {ids.shape}; an index list is 1-D int64, as "
            "np.unique(ids).astype(np.int64), or np.flatnonzero(mask)"
        )
    if len(ids) and (ids[0] < 0 or not (np.diff(ids) > 0).all()):
        raise ValueError(f"{str(path)!r} is not sorted, or holds repeats or negative ids; np.unique(ids) sorts them")
    about = read_sidecar(path)
    if about and about.get("kept") != len(ids):
        sidecar = path.with_suffix(".json").name
        raise ValueError(f"{str(path)!r} holds {len(ids)} ids and {sidecar} says {about.get('kept')}")
    if about.get("crc32", crc32(ids.data)) != crc32(ids.data):
        sidecar = path.with_suffix(".json").name
        raise ValueError(f"{str(path)!r} is damaged, or {sidecar} is that of another list: their checksums differ")
    return IndexList(path, ids, about)


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the sidecar says of the index list at `path`; empty where there is none. ValueError when it is damaged."""
    sidecar = Path(path).with_suffix(".json")
    waiting = waiting_for(sidecar)
    if waiting.exists():
        about = _read_json(waiting)
        if isinstance(about, dict) and about.get("crc32") == _crc_of(path):
            return about
    about = _read_json(sidecar)
    if about is None:
        return {}
    if not isinstance(about, dict):
        raise ValueError(f"{str(sidecar)!r} does not describe an index list; delete it to use the list without it")
    return about


def _read_json(path: Path) -> Any:
    """The value in a sidecar; None when it does not exist, False when it is damaged."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        return False


def _crc_of(path: str | os.PathLike[str]) -> int | None:
    try:
        return crc32(np.ascontiguousarray(npy.load(path)).data)
    except (OSError, ValueError):
        return None


def check_data(
    path: str | os.PathLike[str], about: dict[str, Any], *, n_samples: int | None, fingerprint: str | None
) -> None:
    """ValueError when the list at `path` was drawn, by its sidecar `about`, from other data."""
    for name, ours in (("n_samples", n_samples), ("fingerprint", fingerprint)):
        noted = about.get(name)
        if ours is not None and noted is not None and noted != ours:
            raise ValueError(f"{os.fspath(path)!r} was drawn from data with {name} {noted}; these have {ours}")


# ---- ids, masks, paths ----------------------------------------------------------------------------------------------


def as_indices(
    given: Any, n_samples: int | None = None, *, name: str = "indices", as_set: bool = False
) -> NDArray[np.int64]:
    """Sample ids (M,) from any form they come in: a boolean mask of n_samples, integers (array, tensor, range, list),
    or the path of an .npy holding either; None for all samples.

    n_samples: of the data set; None where it is not known: any id that fits in an int64 is allowed then, and None is
    not. The order given is kept; with as_set the ids are sorted, and may be none or repeat. name: of the argument, for
    messages. Memory is bounded by the number of ids, whatever their size.

    Raises TypeError for floats and other kinds, ValueError when the mask has another length, when there is more than
    one dimension, an id lies outside 0..n_samples-1, and, without as_set, when nothing is selected or an id occurs
    twice.
    """
    if given is None:
        if n_samples is None:
            raise TypeError(f"{name} is None; give the ids to visit, such as select() returns")
        return np.arange(n_samples, dtype=np.int64)
    array = _array(given, name)
    has, is_, holds = ("have", "are", "hold") if name.endswith("s") else ("has", "is", "holds")
    if array.ndim != 1:
        raise ValueError(f"{name} {has} the shape {array.shape}; ids and masks are 1-D")
    if array.dtype == np.bool_:
        if n_samples is not None and len(array) != n_samples:
            raise ValueError(f"{name} {is_} a mask of {len(array)} entries; the data set has {n_samples} samples")
        array = np.flatnonzero(array)
        if not len(array) and not as_set:
            raise ValueError(f"{name} {is_} a mask that selects nothing; select at least one sample")
    elif not len(array):
        if not as_set:
            raise ValueError(f"{name} {is_} empty; select at least one sample")
    elif not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} {is_} {array.dtype}; give integers or a boolean mask")
    if not len(array):
        return np.empty(0, np.int64)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= (2**63 if n_samples is None else n_samples):
        bad = low if low < 0 else high
        allowed = "an id is 0 to 2**63 - 1" if n_samples is None else f"the data set has samples 0 to {n_samples - 1}"
        raise ValueError(f"{name}[{int(np.argmax(array == bad))}] is {bad}; {allowed}")
    array = array.astype(np.int64)
    if (array[1:] > array[:-1]).all():
        return array
    if len(array) == n_samples and high <= 1 < n_samples - 1:
        raise ValueError(f"{name} {holds} {n_samples} zeros and ones, as a mask does; a mask must be boolean")
    if as_set:
        return np.unique(array)
    twice = _repeated(array, high)
    if twice is not None:
        hint = "; a mask must be boolean" if n_samples is None and high <= 1 else ""
        raise ValueError(f"{name} {holds} sample {twice} more than once; each sample once{hint}")
    return array


def as_bits(given: Any, n_samples: int, *, name: str = "indices") -> NDArray[np.uint8]:
    """The set of ids that as_indices reads, as a bit per sample: ceil(n_samples / 8) bytes, the lowest of a byte first.
    Raises as as_indices does."""
    array = _array(given, name)
    if array.dtype == np.bool_ and array.shape == (n_samples,):
        return np.packbits(array, bitorder="little")
    bits = np.zeros(-(-n_samples // 8), np.uint8)
    ops.set_bits(bits, as_indices(array, n_samples, name=name, as_set=True))
    return bits


def _array(given: Any, name: str) -> NDArray[Any]:
    """What is given as an array, whatever it holds; a path is read."""
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        if not path.is_file():
            raise ValueError(f"{name} is {os.fspath(given)!r}, which is not a file; give the .npy that was saved")
        try:
            loaded = npy.load(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name} is {str(path)!r}, which cannot be read: {_unreadable(path, error)}") from None
        return loaded
    if isinstance(given, range):
        return np.arange(given.start, given.stop, given.step, dtype=np.int64)
    if isinstance(given, Set | Mapping):
        raise TypeError(f"{name} is a {type(given).__name__}; give a list or an array of ids, as sorted({name})")
    return as_array(name, given)


def _unreadable(path: Path, error: Exception) -> str:
    """Why a file is not an .npy, for messages."""
    kind = what_is(path)
    if kind in (None, "an .npy file"):
        return str(error)
    return f"it is {kind}; np.save({path.stem + '.npy'!r}, ids) writes one"


def _repeated(ids: NDArray[np.int64], high: int) -> int | None:
    """The smallest id that occurs more than once among non-negative ids up to `high`."""
    if high < 8 * len(ids):  # a table of a byte per id is no larger than the ids, and faster than sorting
        seen = np.zeros(high + 1, np.bool_)
        seen[ids] = True
        if np.count_nonzero(seen) == len(ids):
            return None
    ordered = np.sort(ids)
    repeats = ordered[1:][ordered[1:] == ordered[:-1]]
    return int(repeats[0]) if len(repeats) else None


def selected_ids(indices: Any, beton: Beton) -> NDArray[np.int64]:
    """as_indices for the samples of a .beton. ValueError, too, for a file whose sidecar names other data."""
    if isinstance(indices, str | os.PathLike) and os.path.isfile(indices) and (about := read_sidecar(indices)):
        check_data(indices, about, n_samples=beton.n_samples, fingerprint=beton.fingerprint)
    return as_indices(indices, beton.n_samples)

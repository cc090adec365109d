"""The kinds of data sets, and opening one."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from typing import Any

from dualfast.config import Reading
from dualfast.data.inventory import Files
from dualfast.data.sources import (
    archive,
    arrays,
    cifar,
    class_tars,
    file_list,
    folder,
    hugging_face,
    idx,
    parquet,
    remote,
    shards,
    sklearn_digits,
    unsupported,
    webdataset,
)
from dualfast.data.sources.joined import join, joined_files
from dualfast.data.sources.paths import folder_of, hub_snapshot, pick, split_of
from dualfast.data.sources.source import Kind, Source, check

# The first that recognizes a path opens it, so the more particular ones come first.
KINDS: tuple[Kind, ...] = (
    sklearn_digits.KIND,
    cifar.KIND,
    arrays.KIND,
    idx.KIND,
    hugging_face.KIND,
    file_list.KIND,
    parquet.KIND,
    archive.KIND,
    class_tars.KIND,
    webdataset.KIND,
    folder.KIND,
)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}/]*,[^{}/]*)\}")
PERMISSIONS = ("follow_links",)
"""Options that a kind which has no use for them may be given all the same."""
OF_FILES = ("labels", "follow_links")
OF_TABLES = ("image_column", "label_column")
"""Options that say which files are read, and those of a table of files."""


def open_source(source: Any, reading: Reading | None = None, *, is_test: bool = False) -> Source:
    """Opens `source`: a path, URL or name that one of KINDS recognizes, a glob pattern or a sequence of these, joined,
    a pair (images, labels) of arrays, as from_arrays takes them, a datasets.Dataset, or a Source.

    reading: how to read it. is_test: all samples of the path may be of one class. Raises ValueError (one line, with the
    way out) when the path does not exist or no kind recognizes it, when there is nothing to read, when the image or
    label column is missing or ambiguous, when all labels are equal, or one is negative or beyond the class names, when
    a link or path leads outside the data set, or when the kind does not take an option of `reading`; MissingPackage, an
    ImportError, for a package that the data need; TypeError for anything else than the above."""
    given = {
        name: value for name, value in asdict(reading or Reading()).items() if value is not None and value is not False
    }
    if isinstance(source, str | os.PathLike) or _are_paths(source):
        paths = expand(source)
        parts = [_open_path(path, given) for path in paths]
        opened = parts[0] if len(parts) == 1 else join(paths, parts)
        given_paths = map(os.fspath, [source] if isinstance(source, str | os.PathLike) else source)
        absolute = tuple(path if remote.is_url(path) else os.path.abspath(path) for path in given_paths)
        return check(replace(opened, is_test=is_test, paths=absolute, reading=reading or Reading()))
    if hugging_face.is_dataset(source):
        columns = {name: given.pop(name) for name in ("image_column", "label_column") if name in given}
        source = hugging_face.from_dataset(source, "the Dataset", **columns)
    for name in given:
        raise _unused(name, given[name], "the source")
    if isinstance(source, Source):
        return check(source)
    if isinstance(source, tuple | list) and len(source) == 2 and not _is_file_and_label(source[0]):
        return check(arrays.from_arrays(*source))
    raise TypeError(
        f'source is a {type(source).__name__}; give a path, "digits", or a pair (images, labels) of arrays'
        f"{_of_object(source)}"
    )


def _is_file_and_label(value: Any) -> bool:
    """Whether it is a (path, label), of which a list may have two."""
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str | os.PathLike)


def _of_object(source: Any) -> str:
    """How what is in an object of another library is given; nothing where that is unknown."""
    root = getattr(source, "root", None)
    if isinstance(root, str | os.PathLike) and os.path.isdir(root):
        return f"; of this one its folder, {os.fspath(root)!r}"
    library = type(source).__module__.partition(".")[0]
    if library == "datasets":
        return "; of datasets.DatasetDict one of its splits, of an IterableDataset Dataset.from_list(list(source))"
    if library == "pandas":
        return "; a DataFrame of files and labels as source.to_csv('labels.csv', index=False) writes it, with labels="
    if isinstance(source, dict):
        return "; of a dict the arrays in it"
    if isinstance(source, list | tuple):
        return "; files and labels are read from a .csv with the columns file and label"
    if hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, bytes):
        return "; of a Dataset of RGB images of one size np.stack([np.asarray(x) for x, _ in source]) and the labels"
    return ""


def find_kind(path: str) -> Kind | None:
    """The kind that opens `path`, or None, as for a pipe, socket or device, which would be waited for."""
    path = split_of(path)[0]
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        return None
    return next((kind for kind in KINDS if kind.recognizes(path)), None)


def options_of(source: str | Sequence[str], *, has_labels: bool) -> frozenset[str]:
    """The fields of Reading that one of the kinds takes that `source` is of; all for what no kind recognizes.
    has_labels: a table of labels is given with it."""
    kinds = [_resolved(local(path), has_labels)[1] for path in expand(source)]
    return frozenset(option for kind in kinds for option in (vars(Reading()) if kind is None else kind.options))


def files_of(source: str | Sequence[str], reading: Reading | None = None) -> Files:
    """The files that open_source would read the data set from, by name, size and time; nothing is decoded. None for
    what does not lie in files, and a size of -1 for one that is not there."""
    paths = expand(source)
    parts = []
    for path in map(local, paths):
        with remote.named_by_url():
            path, kind = _resolved(path, bool(reading and reading.labels))
            names = OF_FILES + (OF_TABLES if kind is file_list.KIND else ())
            given = {
                name: value
                for name in names
                if kind and name in kind.options and (value := getattr(reading, name, None))
            }
            parts.append(Files.of([path]) if kind is None else kind.files(path, **given))
    return parts[0] if len(parts) == 1 else joined_files(paths, parts)


# ---- paths ----------------------------------------------------------------------------------------------------------


def expand(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """The paths that a path, a pattern (data/train-*.parquet, shard-{000..127}.tar) or several of these stand for.
    ValueError for an empty path and for a pattern that nothing matches."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not path:
            raise ValueError('the path of the data is empty (""); was a shell variable unset?')
        if os.path.exists(path) or not (_BRACES.search(path) if remote.is_url(path) else _is_pattern(path)):
            return [path]
        found = [name for pattern in _braces(path) for name in _matches(pattern)]
        if not found:
            raise ValueError(f"nothing matches {path}; check the pattern, and quote it in a shell")
        if len(splits := shards.splits_in(found)) > 1:
            raise ValueError(f"{path} matches several splits ({', '.join(splits)}); give the pattern of one")
        return found
    return [path for one in source for path in expand(one)]


def _is_pattern(path: str) -> bool:
    return glob.has_magic(path) or _BRACES.search(path) is not None


def _matches(pattern: str) -> list[str]:
    is_glob = glob.has_magic(pattern) and not remote.is_url(pattern)  # those in URLs fetch looks up
    return sorted(glob.glob(pattern, recursive=True)) if is_glob else [pattern]


def _braces(path: str) -> list[str]:
    """The paths that {000..127} and {a,b} in a path stand for, as in a shell."""
    choices: list[list[str]] = []
    end = 0
    for found in _BRACES.finditer(path):
        choices.append([path[end : found.start()]])
        first, last, words = found.groups()
        choices.append(words.split(",") if words else [f"{n:0{len(first)}}" for n in range(int(first), int(last) + 1)])
        end = found.end()
    return ["".join(parts) for parts in product(*choices, [path[end:]])]


def local(path: str) -> str:
    """Where the files of a path are: of a URL its local copy, of a folder of Hugging Face's cache the snapshot."""
    bare, split = split_of(path)
    if remote.is_url(bare) and not hugging_face.KIND.recognizes(bare):
        bare = remote.fetch(bare)
    bare = hub_snapshot(bare)
    return bare if split is None else f"{bare}:{split}"


def _are_paths(source: Any) -> bool:
    return (
        isinstance(source, tuple | list) and bool(source) and all(isinstance(one, str | os.PathLike) for one in source)
    )


# ---- opening --------------------------------------------------------------------------------------------------------


def _open_path(path: str, given: dict[str, Any]) -> Source:
    with remote.named_by_url():
        path, kind = _resolved(local(path), "labels" in given)
        if kind is None:
            raise ValueError(_refusal(path))
        for name in given.keys() - set(kind.options) - set(PERMISSIONS):
            raise _unused(name, given[name], path)
        source = kind.open(path, **{name: value for name, value in given.items() if name in kind.options})
    location = remote.with_urls(source.location)
    if location == source.location:
        return source
    return replace(source, location=location, describe=lambda row: remote.with_urls(source.describe(row)))


def _resolved(path: str, has_labels: bool) -> tuple[str, Kind | None]:
    """The path and its kind; of a part of a folder that only holds folders, PATH:train, the folder PATH/train, of one
    that holds archives PATH/train.zip."""
    kind = file_list.KIND if has_labels else find_kind(path)
    bare, split = split_of(path)
    if kind is folder.KIND and split is not None:
        archives = archive.KIND.splits(bare)
        path = pick(bare, split, archives) if archives else folder_of(path)
        kind = find_kind(path)
    return path, kind


def _refusal(path: str) -> str:
    """Why a path is not read, and what to do."""
    exists = os.path.exists(path)
    if exists and (hint := unsupported.hint(path)) is not None:
        return f"{path} is {hint}"
    problem = "is not a data set that can be read" if exists else f"does not exist{_instead(path)}"
    hub = f"; hf://{path} is the data set of that name on the Hugging Face hub" if _may_be_on_the_hub(path) else ""
    return f"{path} {problem}; give {', '.join(kind.accepts for kind in KINDS)}{'' if exists else hub}"


def _may_be_on_the_hub(path: str) -> bool:
    is_file = os.path.splitext(path)[1].lower() in (".tar", ".zip", ".parquet", ".npz", ".csv", ".txt", ".beton", ".gz")
    return re.fullmatch(r"[\w.-]+/[\w.-]+", path) is not None and not is_file


def _instead(path: str) -> str:
    """What may have been meant by a path that does not exist."""
    if path.startswith("pipe:"):
        return "; commands are never run: give the files themselves"
    if "::" in path:
        return "; several paths are given one after the other, without ::"
    if os.path.islink(path):
        return f"; it is a link to {os.readlink(path)}, which is not there"
    if path.startswith("~"):
        return f"; ~ means a folder without quotes only: give {os.path.expanduser(path)}"
    folder_path, name = os.path.split(path.rstrip("/"))
    names = os.listdir(folder_path or ".") if os.path.isdir(folder_path or ".") else []
    close = difflib.get_close_matches(name, names, 1, 0.75)
    return f"; did you mean {os.path.join(folder_path, close[0])}?" if close else ""


def _unused(name: str, value: object, what: str) -> ValueError:
    users = ", ".join(kind.accepts for kind in KINDS if name in kind.options)
    return ValueError(f"{name} is {value!r}, which is for {users}; {what} is none of these; leave {name} out")

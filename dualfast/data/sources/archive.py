"""Class folders in a .zip or a tar file, compressed or not, read in place; nothing is extracted.

The path of a member is CLASS/..., behind folders that all share; where the classes are called train and val, each is a
data set of its own: PATH:train, PATH:val.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dualfast.data.images import Payload, suffixes
from dualfast.data.inventory import BESIDE_CLASSES, NOT_IMAGES, Files, Inventory, left_out_text, text_array
from dualfast.data.sources.paths import (
    BELOW_LETTERS,
    LISTS,
    SPLIT_NAMES,
    addresses,
    are_below_letters,
    are_splits,
    by_split,
    inner_folders,
    is_hidden,
    is_junk,
    no_classes,
    pick,
    shared_levels,
    split_folders,
    split_of,
)
from dualfast.data.sources.scan import HIDDEN, NO_SUFFIX, suffix_of
from dualfast.data.sources.source import Kind, Source, number_classes
from dualfast.data.sources.tar_files import members_of
from dualfast.storage.files import open_regular

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SUFFIXES = (".zip", *COMPRESSED)
MAX_BYTES = 1 << 30  # of one image
UNPACK = "; unpack it, and give the folder with a table of files and labels, labels='TABLE.csv'"
UNNAMED = "images in archives are told by their suffix"
BESIDE_SPLITS = "beside the splits"
OUTSIDE = "under names that lead out of the archive"
FILE, FOLDER, LINK = "file", "folder", "links in the archive, which are followed once it is unpacked"
LOOKED_AT = 16  # members of a .tar that tell class folders from WebDataset's form
try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it
    LZMAError = zlib.error  # type: ignore[misc, assignment]

DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, OSError, EOFError),
    *(ValueError, OverflowError, NotImplementedError, RuntimeError),
)
"""What tarfile and zipfile raise for what they cannot read; RuntimeError: encrypted."""


class _Member(NamedTuple):
    name: str
    size: int
    parts: tuple[str, ...]
    kind: str


def _open(path: str) -> Source:
    path, split = split_of(path)
    whole = _members(path)
    splits = _splits(path, whole)
    prefix = pick(path, split, splits) if splits or split else ()
    there = _below(whole, prefix)
    members = _below(there, _common(there))
    images = [member for member in members if len(member.parts) > 1 and _is_image(member)]
    folders = {m.parts[0] for m in members if len(m.parts) > 1 or (m.parts and m.kind == FOLDER)}
    location = path if split is None else f"{path}:{split}"
    left_out = _left_out(there, images) | _beside(whole, list(splits.values()))
    if not images:
        others = f"; left out: {left_out_text(left_out)}" if left_out else ""
        has_labels = any(member.name.endswith((".cls", ".json")) for member in members)
        hint = "; WebDataset's form is read from .tar files that are not compressed: gunzip it" if has_labels else ""
        hint = hint or (UNPACK if any(map(_is_image, members)) else "")
        raise ValueError(f"{location} holds no images in class folders{others}{hint}")
    twice = next((name for name, count in Counter(m.name for m in images).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{path} holds {twice} twice; write the archive again")
    inner = inner_folders({"/".join(image.parts[:-1]) for image in images})
    if told := no_classes(location, {image.parts[0] for image in images}, inner, packed=True):
        raise ValueError(told)
    lists = [m.name for m in there if m.parts[-1:] and m.parts[-1] in LISTS]
    if lists and len({image.parts[0] for image in images}) == 1:
        raise ValueError(
            f"{location} lists its labels in {lists[0]}, not read in an archive; unpack it, and give the folder"
        )
    below_letters = are_below_letters({"/".join(image.parts[:-1]) for image in images})
    classes = ["/".join(image.parts[1:-1]) if below_letters else image.parts[0] for image in images]
    labels, class_names = number_classes(classes)
    return Source(
        kind="archive",
        location=location,
        labels=labels,
        class_names=class_names,
        items=lambda: _read(path, images),
        names=lambda: text_array([f"{os.path.basename(path)}:{image.name}" for image in images]),
        describe=lambda row: f"{images[row].name} in {path}",
        inventory=Inventory(
            files=Files.of([path]),
            left_out=left_out,
            without_images=tuple(sorted(folders - {"..", *(image.parts[0] for image in images)})),
            inner=() if below_letters else tuple(inner),
            remarks=(BELOW_LETTERS,) if below_letters else (),
        ),
        if_one_class=UNPACK,
    )


def _members(path: str) -> list[_Member]:
    """What the archive holds but for junk, in its order. ValueError when it cannot be read."""
    status = os.stat(path)
    return list(_listed(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=2)  # a compressed tar file is unpacked to list it
def _listed(path: str, size: int, time: int) -> tuple[_Member, ...]:
    try:
        if path.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                infos = [info for info in archive.infolist() if info.filename]
                found = [(info.filename, info.file_size, FOLDER if info.is_dir() else FILE) for info in infos]
        else:
            with tarfile.open(path, "r:*") as tar:
                found = [(member.name, member.size, _kind_of(member)) for member in members_of(tar, path)]
    except DAMAGED as error:
        raise _damaged(path, error) from None
    members = [_Member(name, size, _parts_of(name), kind) for name, size, kind in found]
    return tuple(member for member in members if not any(map(is_junk, member.parts)))


def _kind_of(member: tarfile.TarInfo) -> str:
    return FILE if member.isfile() else FOLDER if member.isdir() else LINK


def _damaged(path: str, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(":")
    with open_regular(path) as file:
        reason += f"; it begins with {start!r}, as a page does" if b"<" in (start := file.read(16)) else ""
    return ValueError(f"{path} cannot be read as a {_suffix(path) or '.tar'} file: {reason}")


def _parts_of(name: str) -> tuple[str, ...]:
    """The folders and the name of a member; some programs on Windows write them with backslashes."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in (".", ""))


def _suffix(path: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), None)


def _is_image(member: _Member) -> bool:
    return member.kind == FILE and suffix_of(member.name) in suffixes() and not _is_hidden(member)


def _is_hidden(member: _Member) -> bool:
    return any(map(is_hidden, member.parts))


def _leads_out(member: _Member) -> bool:
    return ".." in member.parts


def _common(members: Sequence[_Member]) -> tuple[str, ...]:
    """The folders that all images in folders share, as far as folders remain in them, the classes."""
    folders = [member.parts[:-1] for member in members if _is_image(member) and len(member.parts) > 1]
    return shared_levels(folders)[: max(map(len, folders), default=1) - 1]


def _splits(path: str, members: Sequence[_Member]) -> dict[str, tuple[str, ...]]:
    """The path of each split, by its name in lower case; empty where the folders in the archive are not splits."""
    common = _common(members)
    below = [m.parts[len(common) :] for m in members if _is_image(m)]
    names = {parts[0] for parts in below if len(parts) > 1}
    if not are_splits(names, {parts[0] for parts in below if len(parts) > 2}):
        return {}
    named = by_split(path, [name for name in names if name.lower() in SPLIT_NAMES])
    return {split: (*common, name) for split, name in named.items()}


def _beside(members: Sequence[_Member], splits: Sequence[tuple[str, ...]]) -> dict[str, Counter[str]]:
    """The images in none of the splits, where there are any, by suffix."""
    outside = [m for m in members if _is_image(m) and not any(m.parts[: len(split)] == split for split in splits)]
    counts = Counter(suffix_of(member.name) for member in outside) if splits else Counter()
    return {BESIDE_SPLITS: counts} if counts else {}


def _below(members: Sequence[_Member], prefix: tuple[str, ...]) -> list[_Member]:
    n = len(prefix)
    return [m._replace(parts=m.parts[n:]) for m in members if m.parts[:n] == prefix]


def _left_out(members: Sequence[_Member], images: Sequence[_Member]) -> dict[str, Counter[str]]:
    used = {image.name for image in images}
    left_out: dict[str, Counter[str]] = {}
    for member in members:
        if member.name not in used and member.kind != FOLDER:
            suffix = suffix_of(member.name)
            if suffix in suffixes() or not _is_hidden(member) or _leads_out(member):
                left_out.setdefault(_why(member, suffix), Counter())[suffix or NO_SUFFIX] += 1
    return left_out


def _why(member: _Member, suffix: str) -> str:
    """Why a member is left out."""
    if member.kind == LINK:
        return LINK
    if _leads_out(member):
        return OUTSIDE
    if suffix in suffixes():
        return HIDDEN if _is_hidden(member) else BESIDE_CLASSES
    return NOT_IMAGES if suffix else UNNAMED


def _read(path: str, images: Sequence[_Member]) -> Iterator[Payload | Exception]:
    if not path.lower().endswith(".zip"):
        yield from _read_tar(path, images)
        return
    with zipfile.ZipFile(path) as archive:
        for image in images:
            try:
                with archive.open(image.name) as file:  # archive.read asks for as many bytes as the archive claims
                    yield _too_large(image.size) or file.read(image.size)
            except DAMAGED as error:
                yield ValueError(str(error))


def _read_tar(path: str, images: Sequence[_Member]) -> Iterator[Payload | Exception]:
    """The images, in one pass."""
    wanted = {image.name for image in images}
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted:
                    file = tar.extractfile(member)
                    assert file is not None
                    yield _too_large(member.size) or file.read()
    except DAMAGED as error:
        raise _damaged(path, error) from None


def _too_large(size: int) -> ValueError | None:
    return ValueError(f"it has {size:,} bytes, more than {MAX_BYTES:,}") if size > MAX_BYTES else None


def _recognizes(path: str) -> bool:
    """A .zip or a compressed tar file; a .tar whose first members are images in folders, and no labels."""
    if not os.path.isfile(path):
        return False
    if path.lower().endswith(SUFFIXES):
        return True
    if not path.lower().endswith(".tar"):
        return False
    try:
        with tarfile.open(path, "r:*") as tar:
            names = [member.name for member in islice(tar, LOOKED_AT) if member.isfile()]
    except DAMAGED:
        return False
    ends, stems = {suffix_of(name) for name in names}, {os.path.splitext(name)[0] for name in names}
    if ".txt" in ends and len(stems) < len(names):  # labels of WebDataset, or notes beside images in class folders
        return len({member.parts[:-1] for member in _members(path) if _is_image(member)}) > 1
    return ends.isdisjoint({".cls", ".json"}) and any(
        suffix_of(name) in suffixes() and len(Path(name).parts) > 1 for name in names
    )


def _parts(path: str) -> dict[str, str]:
    """Those in the archive, or the archives train.zip and val.zip in a folder."""
    if os.path.isdir(path) and not split_folders(path):
        stems = {name: name[: -len(suffix)].lower() for name in sorted(os.listdir(path)) if (suffix := _suffix(name))}
        found: dict[str, str] = {}
        for name, stem in stems.items():
            if stem in SPLIT_NAMES and found.setdefault(stem, name) != name:
                raise ValueError(f"{path} holds {found[stem]} and {name}, which are both called {stem}; give one")
        return {stem: os.path.join(path, name) for stem, name in found.items()}
    return addresses(path, _splits(path, _members(path))) if _recognizes(path) else {}


KIND = Kind(
    accepts="a .zip or .tar.gz of class folders",
    recognizes=_recognizes,
    open=_open,
    files=lambda path: Files.of([split_of(path)[0]]),
    splits=_parts,
)

"""A tar file that holds a tar file per class, as ImageNet's ILSVRC2012_img_train.tar, or the folder of these: read in
place. The class is the name of the inner file."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dualfast.data.images import suffixes
from dualfast.data.inventory import NOT_IMAGES, Files, Inventory, left_out_text
from dualfast.data.sources import shards
from dualfast.data.sources.archive import DAMAGED, LOOKED_AT
from dualfast.data.sources.paths import is_hidden
from dualfast.data.sources.scan import NO_SUFFIX, suffix_of
from dualfast.data.sources.source import Kind, Source, number_classes
from dualfast.data.sources.tar_files import members_of
from dualfast.data.sources.webdataset import SUFFIX, Member, source_of_members


def _open(path: str, *, follow_links: bool = False) -> Source:
    images: list[Member] = []
    classes: list[str] = []
    left_out: Counter[str] = Counter()
    without_images = []
    for name, members in _classes(path, follow_links):
        found = [member for member in members if suffix_of(member.name) in suffixes()]
        left_out.update(suffix_of(member.name) or NO_SUFFIX for member in members if member not in found)
        images += found
        classes += [name] * len(found)
        without_images += [] if found else [name]
    reasons = {NOT_IMAGES: left_out} if left_out else {}
    if not images:
        raise ValueError(f"{path} holds no images{f'; left out: {left_out_text(reasons)}' if reasons else ''}")
    labels, class_names = number_classes(classes)
    return source_of_members(
        images,
        kind="class_tars",
        location=str(Path(path)),
        labels=labels,
        class_names=class_names,
        inventory=Inventory(
            files=_files(path, follow_links=follow_links), left_out=reasons, without_images=tuple(without_images)
        ),
    )


def _classes(path: str, follow_links: bool) -> Iterator[tuple[str, list[Member]]]:
    """Each class with the files of its tar, in the order that these have on the disk."""
    if os.path.isdir(path):
        for file in shards.chosen(path, SUFFIX, follow_links):
            with _opened(str(file)) as tar:
                yield file.name[: -len(SUFFIX)], _members(tar, file, "", 0)
        return
    with _opened(path) as outer:
        for member in _all(outer, path):
            name = os.path.basename(member.name)
            if member.isfile() and name.lower().endswith(SUFFIX) and not is_hidden(name):
                try:
                    with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                        found = _members(inner, Path(path), f"{name}/", member.offset_data)
                except DAMAGED as error:
                    raise ValueError(f"{member.name} in {path} cannot be read as a tar file: {error}") from None
                yield name[: -len(SUFFIX)], found


def _opened(path: str) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:")
    except DAMAGED as error:
        raise ValueError(f"{path} cannot be read as a tar file: {error}") from None


def _members(tar: tarfile.TarFile, file: Path, prefix: str, start: int) -> list[Member]:
    """The files in a tar that begins at the byte `start` of `file`."""
    return [
        Member(file, prefix + member.name, start + member.offset_data, member.size)
        for member in _all(tar, prefix or str(file))
        if member.isfile() and not is_hidden(os.path.basename(member.name))
    ]


def _all(tar: tarfile.TarFile, what: str) -> list[tarfile.TarInfo]:
    try:
        return members_of(tar, what)
    except DAMAGED as error:
        raise ValueError(f"{what} cannot be read as a tar file: {error}") from None


def _recognizes(path: str) -> bool:
    """A .tar whose first file is a .tar; a folder of .tar files whose images are named after their file
    (n01440764_1.JPEG in n01440764.tar), as shards of samples are not."""
    if os.path.isfile(path):
        names = _first_names(path) if path.lower().endswith(SUFFIX) else []
        return bool(names) and names[0].lower().endswith(SUFFIX)
    if not os.path.isdir(path) or len(files := shards.find(path, SUFFIX).get(shards.UNNAMED, [])) < 2:
        return False
    return all(
        (names := _first_names(str(file)))
        and all(name.startswith(file.name[: -len(SUFFIX)] + "_") and suffix_of(name) in suffixes() for name in names)
        for file in files[:2]
    )


def _first_names(path: str) -> list[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            return [os.path.basename(member.name) for member in islice(tar, LOOKED_AT) if member.isfile()]
    except DAMAGED:
        return []


def _files(path: str, *, follow_links: bool = False) -> Files:
    return Files.of(shards.chosen(path, SUFFIX, follow_links) if os.path.isdir(path) else [path])


KIND = Kind(
    accepts="a .tar of .tar files, one per class",
    recognizes=_recognizes,
    open=_open,
    options=("follow_links",),
    files=_files,
)

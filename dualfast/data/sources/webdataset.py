"""WebDataset: one .tar file, or a folder of shards, read in place; nothing is extracted.

Members that share the name before the first dot form a sample: an image and .cls (an integer or a class name), .json
(with the key label, or another of JSON_KEYS) or .txt. Where a sample has several of them, image_column names the
ending of the image (left.jpg) and label_column that of the label, or its key in .json. Only files and hard links to
them count.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dualfast.data.images import Payload, suffixes
from dualfast.data.inventory import Files, Inventory, left_out_text, some, text_array
from dualfast.data.sources import paths, shards
from dualfast.data.sources.labels import ONE_CLASS, check_no_captions, number_texts
from dualfast.data.sources.source import Kind, Source
from dualfast.data.sources.tar_files import members_of

SUFFIX = ".tar"
GZIP = b"\x1f\x8b"
MAX_LABEL_BYTES = 1 << 20
NOT_USED = "neither images that Pillow opens nor labels"
NOT_CHOSEN = "images that image_column does not choose"
JSON_KEYS = ("label", "cls", "class", "target", "class_id")
CONTROL = re.compile(r"[\0-\10\16-\37]")  # of binary data, such as a pickle
LINK = "symbolic link"
TEXTS = ("txt", "cls.txt", "label.txt")
WAY_OUT = (
    "put a .cls, .txt or .json member of the same name beside it, choose another member or key of .json with "
    "label_column=NAME, or unpack the archive and give the folder with a table of files and labels, labels='TABLE.csv'"
)


class Member(NamedTuple):
    """Where the bytes of an image are."""

    tar: Path
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.tar}"


def _open(
    path: str, *, image_column: str | None = None, label_column: str | None = None, follow_links: bool = False
) -> Source:
    files = shards.chosen(path, SUFFIX, follow_links)
    wanted = _Wanted.of(image_column, label_column)
    opened = [_Shard(file, wanted) for file in files]
    samples = [sample for shard in opened for sample in shard.samples()]
    left_out = sum((shard.left_out for shard in opened), Counter())
    others = sum((shard.other_images for shard in opened), Counter())
    reasons = {reason: counts for reason, counts in ((NOT_USED, left_out), (NOT_CHOSEN, others)) if counts}
    if not samples:
        what = "no images" if image_column is None else f"no images that end in image_column={image_column!r}"
        raise ValueError(f"{files[0]} contains {what}{f'; left out: {left_out_text(reasons)}' if reasons else ''}")
    images = [image for image, _ in samples]
    if any(shard.texts for shard in opened):
        texts, where = [label for _, label in samples], shards.location(path, files)
        check_no_captions(texts, f"{where}, .txt", lambda row: str(images[row]), "put the class into a .cls member")
    labels, class_names = number_texts([label for _, label in samples], lambda row: str(images[row]))
    return source_of_members(
        images,
        kind="webdataset",
        location=shards.location(path, files),
        labels=labels,
        class_names=class_names,
        inventory=Inventory(
            files=Files.of(files),
            left_out=reasons | shards.left_out(path, SUFFIX),
            remarks=(*_remarks(opened), *shards.missing(files)),
        ),
    )


def _remarks(shards: list[_Shard]) -> tuple[str, ...]:
    """A sentence on the samples that have other labels, too."""
    if not (count := sum(shard.n_several for shard in shards)):
        return ()
    order = ", ".join((".cls", *(f"{key} in .json" for key in JSON_KEYS)))
    return (
        f"{count:,} samples have several labels, and they differ; the first of these is used: {order}; "
        "label_column=NAME chooses",
    )


class _Wanted(NamedTuple):
    """image: the ending of the images, where a sample has several; label: the ending of the labels (cls, txt), or their
    key in .json; None for the usual ones. label_endings: what the names of the members end in that hold the labels."""

    image: str | None
    label: str | None
    label_endings: tuple[str, ...]

    @classmethod
    def of(cls, image_column: str | None, label_column: str | None) -> _Wanted:
        label = label_column and label_column.lstrip(".")
        endings: tuple[str, ...] = ("cls", "json", *TEXTS)
        if label is not None:
            endings = (label,) if label in ("cls", *TEXTS) else ("json", label)
        return cls(image_column and image_column.lower().lstrip("."), label, endings)


class _Shard:
    """One tar file: its images and labels by sample key, in the order of the file; texts: the labels that .txt members
    give, where no others do; left_out: its other files, by extension, and other_images: those of an ending that is not
    wanted; n_several: the samples whose labels differ."""

    def __init__(self, path: Path, wanted: _Wanted) -> None:
        self.path, self._wanted = path, wanted
        self.images: dict[str, Member] = {}
        self.labels: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self._keys_of_json: dict[str, str] = {}
        self._others: list[tuple[str, str]] = []  # labels in .json members, by key
        self.left_out: Counter[str] = Counter()
        self.other_images: Counter[str] = Counter()
        files: dict[str, tarfile.TarInfo] = {}  # what a hard link may refer to
        try:
            with tarfile.open(path, "r:") as tar:
                members = members_of(tar, str(path))
        except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:  # not TarError: of a huge size
            with path.open("rb") as file:
                zipped = "; it is compressed, and gunzip makes the .tar that is read" if file.read(2) == GZIP else ""
            raise ValueError(f"{path} cannot be read as a tar file: {error}{zipped}") from None
        with path.open("rb") as file:
            for member in members:
                if member.islnk() and member.linkname not in files:
                    raise ValueError(
                        f"{member.name} in {path} links to {member.linkname}, which does not come before it"
                    )
                if member.issym():
                    self.left_out[LINK] += 1
                if member.isfile() or member.islnk():
                    files[member.name] = files[member.linkname] if member.islnk() else member
                    self._add(member.name, files[member.name], file)
        several = {key for key, label in self._others if self.labels.get(key) != label}
        self.n_several = len(several & self.images.keys())
        labelled = self.labels.keys() | (self.texts.keys() - self.images.keys())
        for key in self.texts.keys() & labelled:
            del self.texts[key]
            self.left_out[".txt"] += 1
        if alone := len(self.labels.keys() - self.images.keys()):
            self.left_out["label without an image"] += alone

    def _add(self, name: str, data: tarfile.TarInfo, file: BinaryIO) -> None:
        folder, _, base = name.rpartition("/")
        if any(paths.is_hidden(part) for part in name.split("/") if part not in ("", ".")):
            return
        stem, _, extension = base.partition(".")
        key, extension = f"{folder}/{stem}", extension.lower()
        is_image = "." + extension.rpartition(".")[2] in suffixes()
        if is_image and self._wanted.image in (None, extension):
            if key in self.images and self.images[key].name == name:
                raise ValueError(f"{self.path} holds {name} twice; give each sample a name of its own")
            if key in self.images:
                raise ValueError(
                    f"{self.images[key].name} and {name} in {self.path} are two images of one sample, as the name "
                    f"of a sample ends at its first dot ({stem}); choose with image_column={extension!r}, keep one, or "
                    "rename them without other dots"
                )
            self.images[key] = Member(self.path, name, data.offset_data, data.size)
        elif not is_image and extension in self._wanted.label_endings:
            where = f"{name} in {self.path}"
            file.seek(data.offset_data)
            content = file.read(min(data.size, MAX_LABEL_BYTES))
            if extension != "json":
                text = content.decode("utf-8-sig", "backslashreplace").strip()
                if CONTROL.search(text):
                    raise ValueError(f"{where} is {content[:12]!r}, and no text; write the class as text")
                (self.texts if extension in TEXTS else self.labels)[key] = text
            elif (label := self._label_in_json(content, key, where)) is not None:
                self.labels.setdefault(key, label)
        else:
            counts = self.other_images if is_image else self.left_out
            counts[f".{extension}" if extension else "without extension"] += 1

    def samples(self) -> Iterator[tuple[Member, str]]:
        """Each image with its label. ValueError for an image without one."""
        for key, image in self.images.items():
            label = self.labels.get(key) or self.texts.get(key)
            if not label:
                keys = self._keys_of_json.get(key)
                what = "no label" if self._wanted.label is None else f"no label_column {self._wanted.label!r}"
                raise ValueError(f"{image} has {what}{f' (its .json has only {keys})' if keys else ''}; {WAY_OUT}")
            yield image, label

    def _label_in_json(self, content: bytes, key: str, where: str) -> str | None:
        """The text of a label; None where there is none. ValueError, naming `where`, for one that is not a class."""
        try:
            value = json.loads(content.decode("utf-8-sig", "replace"))
        except (ValueError, RecursionError):
            return None
        if isinstance(value, dict):
            self._keys_of_json[key] = some([str(name) for name in value])
            keys = JSON_KEYS if self._wanted.label is None else (self._wanted.label,)
            found = [value[name] for name in keys if value.get(name) is not None]
            self._others += [(key, str(other)) for other in found if isinstance(other, int | str)]
            value = next(iter(found), None)
        if value is None or isinstance(value, int | str):
            return None if value is None else str(value)
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        raise ValueError(f"{where}: label is {json.dumps(value)[:40]}; {ONE_CLASS}; give a class number or name")


def source_of_members(images: list[Member], **fields: Any) -> Source:
    """The source whose samples are these members; fields: the others of Source."""
    return Source(
        items=lambda: _read(images),
        names=lambda: text_array([f"{image.tar.name}:{image.name}" for image in images]),
        describe=lambda row: str(images[row]),
        **fields,
    )


def _read(images: list[Member]) -> Iterator[Payload | Exception]:
    for tar, members in groupby(images, key=lambda image: image.tar):
        with tar.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            for member in members:
                if member.offset + member.size > length:
                    yield ValueError("the tar file ends inside it")
                else:
                    file.seek(member.offset)
                    yield file.read(member.size)


KIND = Kind(
    accepts="a .tar file in WebDataset's form or a folder of them",
    recognizes=lambda path: bool(shards.find(path, SUFFIX)),
    open=_open,
    options=("image_column", "label_column", "follow_links"),
    files=lambda path, *, follow_links=False: Files.of(shards.chosen(path, SUFFIX, follow_links)),
    splits=lambda path: shards.splits(path, SUFFIX),
)

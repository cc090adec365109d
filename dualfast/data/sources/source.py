"""What every data set looks like once it is opened (Source), and what a module of this package declares (Kind)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dualfast.config import Reading
from dualfast.data.classes import check_labels, notes_on
from dualfast.data.images import Payload
from dualfast.data.inventory import Files, Inventory, classes_text, some, valid_text


class OtherColumns(NamedTuple):
    """schema: pyarrow's, with the metadata of the table. tables() yields them as pyarrow tables of this schema, in the
    order of the samples. differ: the names of those that are not the same in all shards, and left out."""

    schema: Any
    tables: Callable[[], Iterator[Any]]
    differ: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """One opened data set of n samples: everything but the images is known up front, the images are read lazily.

    kind: as PATH.json records it. location: the path, for messages. labels: (n,) int64, never negative. class_names: by
    label, or None. items() yields the n images in the order of labels, each as encoded bytes, as an (H, W, 1, 3 or 4)
    uint8 array, or as the exception that reading it raised. names(), a pyarrow array of n texts, gives each sample a
    name of its own, that does not change when the data set is moved; describe(row) tells where a sample is: its file,
    archive member or table row. left_out: the samples that the data set lists and items() does not yield, each as
    "name: reason". inventory: the files of the data set; one_file_each: each sample is a file, and has its place in
    inventory.files. is_test: its samples may all be of one class; if_one_class: what to do where they are, for the
    message. paths: what open_source was given, files and folders as absolute paths; None for objects; is_part:
    it has some of the samples there. other_columns(): the columns that a table has beside image and label, where the
    data set is one."""

    kind: str
    location: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    items: Callable[[], Iterator[Payload | Exception]]
    names: Callable[[], Any]
    describe: Callable[[int], str]
    left_out: tuple[str, ...] = ()
    inventory: Inventory = field(default_factory=Inventory)
    one_file_each: bool = False
    is_test: bool = False
    if_one_class: str = ""
    paths: tuple[str, ...] | None = None
    reading: Reading = field(default_factory=Reading)
    is_part: bool = False
    other_columns: Callable[[], OtherColumns] | None = None

    def notes(self) -> list[str]:
        """What a user should know of: a sentence each."""
        return (
            self.inventory.notes() + notes_on(self.class_names or ()) + ([] if self.is_test else self._empty_classes())
        )

    def _empty_classes(self) -> list[str]:
        """A note on the numbers and names of classes that no image has, as of labels from 1 up."""
        names = self.class_names or tuple(map(str, range(int(self.labels.max()) + 1)))
        has_images = np.zeros(len(names), bool)
        has_images[self.labels] = True
        empty = [names[number] for number in np.flatnonzero(~has_images)]
        if not empty:
            return []
        count = len(names) - np.count_nonzero(has_images)
        return [f"{count:,} of {len(names):,} classes have no image: {some(empty)}"]

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, mask: NDArray[np.bool_], *, with_other_files: bool) -> Source:
        """The samples where the mask (n,) is True, of this data set. with_other_files: the files that are no sample
        belong to it."""
        import pyarrow as pa

        rows = np.flatnonzero(mask)
        names = lambda: self.names().slice(0, len(self)).filter(pa.array(mask))  # noqa: E731
        files = self.inventory.files
        others = np.arange(len(self) if self.one_file_each else 0, len(files))
        at = np.concatenate([rows if self.one_file_each else rows[:0], others if with_other_files else others[:0]])
        return replace(
            self,
            labels=self.labels[mask],
            items=lambda: compress(self.items(), mask.tolist()),
            names=names,
            describe=lambda row: self.describe(int(rows[row])),
            is_part=True,
            other_columns=None,
            inventory=replace(self.inventory, files=Files.of_rows(files.rows(at))),
        )

    def __str__(self) -> str:
        return f"{self.location}: {classes_text(self.labels)}"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of data set that a path or name can stand for.

    accepts: what to give, for error messages, as "a .parquet file". recognizes(path): whether the path is of this kind;
    it reads no more than names and first bytes, and is not asked about the split in PATH:SPLIT. open(path, **options):
    raises ValueError when the data set cannot be read. options: the fields of config.Reading that it takes.
    files(path, **options): the files that open would read, without reading them, with those options that say which
    files these are. splits(path): what to give for each of its parts, by the part's name in lower case; empty where the
    path is not divided."""

    accepts: str
    recognizes: Callable[[str], bool]
    open: Callable[..., Source]
    files: Callable[..., Files]
    splits: Callable[[str], dict[str, str]] = lambda path: {}
    options: tuple[str, ...] = ()


def check(source: Source) -> Source:
    """The source itself. ValueError when it is empty, has labels that check_labels refuses, a label beyond the class
    names, or only one class."""
    if len(source) == 0:
        raise ValueError(f"{source.location} contains no images")
    check_labels(source.labels, source.describe)
    low, high, names = int(source.labels.min()), int(source.labels.max()), source.class_names
    if names is not None and high >= len(names):
        raise ValueError(
            f"{source.describe(int(source.labels.argmax()))} has the label {high}, and {len(names)} classes have names "
            f"({names[0]} to {names[-1]}); labels are their numbers, from 0"
        )
    if low == high and not source.is_test:
        name = names[low] if names else str(low)
        raise ValueError(
            f"{source.location} has only one class ({name}); a classifier needs at least two{source.if_one_class}"
        )
    return source


def number_classes(names: Sequence[str]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels (n,) int64 for n class names, numbered in sorted order, and the sorted names, as
    inventory.valid_text: JSON may hold halves of characters."""
    ordered = sorted(set(names))
    numbers = {name: number for number, name in enumerate(ordered)}
    return np.fromiter((numbers[name] for name in names), np.int64, len(names)), tuple(map(valid_text, ordered))


def common_columns(parts: Sequence[OtherColumns]) -> OtherColumns:
    """Those that all parts have with the same type, of all parts one after the other."""
    import pyarrow as pa

    first, schemas = parts[0].schema, [part.schema for part in parts]
    fields = [f for f in first if all(f.name in own.names and own.field(f.name).type == f.type for own in schemas)]
    names = [field.name for field in fields]
    every = dict.fromkeys(name for part in parts for name in (*part.schema.names, *part.differ))
    return OtherColumns(
        pa.schema(fields, first.metadata),
        lambda: (table.select(names) for part in parts for table in part.tables()),
        tuple(name for name in every if name not in names),
    )

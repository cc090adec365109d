"""The classes of a run are those of its training images; test images are matched to them by name."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dualfast.data.classes import composed, different, folded
from dualfast.data.inventory import some

ONE_HAS_NAMES = "only one of training and test images has class names"


class Labelled(Protocol):
    """A Source or a Beton."""

    @property
    def labels(self) -> NDArray[np.int64]: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...


class Matched(NamedTuple):
    """numbers: by label of the test images, the class's number among the training classes; None where none differs.
    notes: what a user should know."""

    numbers: NDArray[np.int64] | None
    notes: list[str]


def class_names_of(data: Labelled) -> tuple[str, ...]:
    """The names of the classes; their numbers where the data have no names."""
    return data.class_names or tuple(map(str, range(int(data.labels.max()) + 1)))


def match(train: Labelled, test: Labelled, where: str) -> Matched:
    """Matches the classes of the test images, which lie `where`, to those of the training images: by name, in whatever
    form its accents are, numbers serving as names of data without any; by number where only one of them has names.

    ValueError for test classes that the training images lack."""
    if int(test.labels.min()) < 0:
        raise ValueError(f"{where} has the label {int(test.labels.min())}; labels start at 0")
    names, own = class_names_of(train), class_names_of(test)
    present, counts = np.unique(test.labels, return_counts=True)
    if int(present[-1]) >= len(own):
        raise ValueError(f"{where} has the label {present[-1]} and names {len(own)} classes; write it again")
    known = {name: number for number, name in enumerate(names)}
    in_other_forms = {composed(name): number for name, number in known.items()}
    if len(in_other_forms) == len(known):
        known = known | {name: in_other_forms[composed(name)] for name in own if composed(name) in in_other_forms}
    one_has_names = (train.class_names is None) != (test.class_names is None)
    if one_has_names and all(map(str.isdecimal, (*names, *own))):  # folders 00000, 00001 beside the labels 0, 1
        known |= {str(int(name)): number for name, number in known.items()}
        own = tuple(name if name in known else str(int(name)) for name in own)
    extra = np.array([own[label] not in known for label in present])
    numbers, notes = np.arange(len(own), dtype=np.int64), []
    if not extra.any():
        for label in present.tolist():
            if names[label : label + 1] != own[label : label + 1]:
                numbers[label] = known[own[label]]
        if one_has_names:
            notes.append(f"{where}: {ONE_HAS_NAMES}; classes are matched by name, and numbers are taken for names")
    elif one_has_names and int(present[-1]) < len(names) and not any(map(str.isdecimal, train.class_names or own)):
        notes.append(f"{where}: {ONE_HAS_NAMES}; classes are matched by number")
    else:
        raise ValueError(_extra_text(where, [own[label] for label in present[extra]], int(counts[extra].sum()), names))
    missing = sorted(set(range(len(names))) - set(numbers[present].tolist()))
    if missing:
        lacking = some([names[number] for number in missing])
        notes.append(f"{where}: no images of {len(missing):,} of {len(names):,} classes: {lacking}")
    unknown = sorted(set(numbers[present].tolist()) - set(np.unique(train.labels).tolist()))
    if unknown == [0] and missing == [len(names) - 1] and train.class_names is None:
        raise ValueError(
            f"{where}: its labels are 0 to {len(names) - 2}, and those of the training images 1 to {len(names) - 1}; "
            "number the classes alike"
        )
    if unknown:
        lacking = some([names[number] for number in unknown])
        notes.append(f"{where}: of {len(unknown):,} of its classes the training images hold none: {lacking}")
    return Matched(None if (numbers[present] == present).all() else numbers, notes)


def _extra_text(where: str, extra: list[str], images: int, names: tuple[str, ...]) -> str:
    known = {folded(name): name for name in names}
    alike = [different([name, known[folded(name)]]) for name in extra if folded(name) in known]
    hint = f" (names must be equal in every letter: {some(alike)})" if alike else ""
    count = "1 class" if len(extra) == 1 else f"{len(extra):,} classes"
    return (
        f"{where} has {count} that the training images lack: {some(extra)} ({images:,} images){hint}; remove them from "
        "the test images, or add them to the training images"
    )

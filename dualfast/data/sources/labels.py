"""Labels of every type that means one class per image: numbers, names, booleans; and the word for all others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.classes import NONE, is_dense
from dualfast.data.sources.source import number_classes

ONE_CLASS = "this library trains one class per image"
MISSING = frozenset({"nan", "<na>"})
"""What pandas writes, in lower case, for a text that is missing,"""
MISSING_NUMBER = MISSING | NONE
"""and what is written for a number."""
JOINED = "|,;/+& "
"""Between the classes of an image that has several."""
FEW_TEXTS = 10
WORDS_OF_A_CAPTION = 5
MANY_COUNTS = 3  # of words in a label
BOOLEAN_NAMES = ("False", "True")


@dataclass(frozen=True, kw_only=True)
class LabelWords:
    """What messages about labels say. what: the labels and their type, as "labels are float64". describe(row): names a
    sample. way_out: what to give instead."""

    what: str
    describe: Callable[[int], str]
    way_out: str

    def refusal(self, seen: str = "") -> str:
        """The message for labels that are not one class per image; seen: where that shows."""
        return f"{self.what}{f' ({seen})' if seen else ''}; {ONE_CLASS}; {self.way_out}"

    def missing(self, row: int, text: str = "") -> ValueError:
        """The error for a label that is missing, or that is a text which says so."""
        if not text.strip():
            return ValueError(f"{self.describe(row)} has no label; remove unlabelled rows")
        return ValueError(
            f"{self.describe(row)} has no label but {text!r}, as tables say for what is missing; remove unlabelled "
            "rows, or rename the class if it is called so"
        )


@dataclass(frozen=True)
class Labels:
    """The labels of n images. kind: bool, integer, float, decimal or text. values: (n,) int64, or for text the n class
    names."""

    kind: str
    values: NDArray[np.int64] | list[str]

    def numbered(self) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
        """Labels (n,) int64 and the class names by label, None where the labels are numbers."""
        if isinstance(self.values, list):
            return number_classes(self.values)
        return self.values, BOOLEAN_NAMES if self.kind == "bool" else None


def labels_of(values: Any, words: LabelWords) -> Labels:
    """The labels in an array (n,): booleans, integers, whole floats, text, or objects of one of these kinds.

    Raises ValueError for a label that is missing (None, NaN, empty text) or is not one class (0.5, a list), TypeError
    for an array of another kind."""
    array = np.asarray(values)
    if array.dtype.kind == "O":
        return _labels_of_objects(array, words)
    if array.dtype.kind in "US":
        return _text(array.tolist(), words)
    if array.dtype.kind == "b":
        return Labels("bool", array.astype(np.int64))
    if array.dtype.kind in "iu":
        return Labels("integer", _as_int64(array, words))
    if array.dtype.kind == "f":
        return Labels("float", _whole(array, words))
    raise TypeError(words.refusal())


def number_texts(
    texts: Sequence[str], describe: Callable[[int], str]
) -> tuple[NDArray[np.int64], tuple[str, ...] | None]:
    """Labels (n,) int64 of n texts, and the class names: the numbers themselves where all texts are whole numbers (7,
    007, 7.0) that number classes, else, as of ids (10000002) and of -1 beside 1, as number_classes. ValueError, naming
    the sample, for a number that does not fit or is not whole, for one that is missing among numbers, and for several
    classes in one text (cat|dog)."""
    others = {text for text in set(texts) if not _NUMBER.fullmatch(text)}
    if others and (len(others) < len(set(texts)) and {text.lower() for text in others} <= MISSING_NUMBER):
        row = next(row for row, text in enumerate(texts) if text in others)
        raise ValueError(f"{describe(row)} has no label ({texts[row]}); remove unlabelled rows")
    if others:
        _check_single(texts, describe)
        return number_classes(texts)
    texts = [_plain(text) for text in texts]
    if set(texts) == {"-1", "1"}:
        return number_classes(texts)
    fraction = next((row for row, text in enumerate(texts) if not _WHOLE.fullmatch(text)), None)
    if fraction is not None:
        raise ValueError(
            f"{describe(fraction)} has the label {texts[fraction]}; {ONE_CLASS}; give whole numbers, or the names of "
            "the classes"
        )
    try:
        numbers = np.asarray([int(text.partition(".")[0]) for text in texts], np.int64)
        return (numbers, None) if is_dense(numbers) else number_classes(texts)
    except OverflowError:
        row = max(range(len(texts)), key=lambda row: abs(int(texts[row].partition(".")[0])))
        raise ValueError(f"{describe(row)} has the label {texts[row]}; give the class's number") from None


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LIST = re.compile(r"\[\s*(['\"\d-].*)?\]|\{.*:.*\}|\d+( \d+)+", re.S)
_WHOLE = re.compile(r"-?\d+(\.0*)?")
_POWER = re.compile(r"[+-]?\d(\.\d*)?[eE]\+?\d{1,2}")  # 1.200e+01, as np.savetxt writes 12


def _plain(text: str) -> str:
    """A whole number in scientific notation as its digits; any other text as it is."""
    number = Decimal(text) if _POWER.fullmatch(text) else None
    return text if number is None or number % 1 else str(int(number))


def _check_single(texts: Sequence[str], describe: Callable[[int], str]) -> None:
    """ValueError for a text that is a list, or joins other texts, as cat|dog beside cat."""
    known = dict.fromkeys(texts)
    if (tags := _of_tags(known)) is not None:
        raise ValueError(
            f"{describe(list(texts).index(tags))} has the label {tags!r}, and others its words in other combinations: "
            f"they are several classes; {ONE_CLASS}; remove such rows, or join the words of a class by _"
        )
    of_bars = Counter(part.strip() for text in known for part in set(text.split("|")))
    for text in known:
        if _LIST.fullmatch(text):
            raise ValueError(
                f"{describe(list(texts).index(text))} has the label {text[:40]!r}, a list; {ONE_CLASS}; write the "
                "class alone"
            )
        for mark in JOINED:
            parts = [part.strip() for part in text.split(None if mark == " " else mark)]
            is_joined = known.keys() >= set(parts) or (mark == "|" and any(of_bars[part] > 1 for part in parts))
            if len(parts) > 1 and is_joined:
                own = "join the words of a class by _" if mark == " " else f"write a class of its own without {mark!r}"
                raise ValueError(
                    f"{describe(list(texts).index(text))} has the label {text!r}, which are {len(parts)} classes; "
                    f"{ONE_CLASS}; remove such rows, or {own}"
                )


def _of_tags(known: Collection[str]) -> str | None:
    """The first of texts that combine a few words in varying numbers, as tags of an image do; None of others."""
    words = Counter(word for text in known for word in set(text.split()))
    several = [text for text in known if len(text.split()) > 1]
    counts = {len(text.split()) for text in known}
    combined = len(counts) >= MANY_COUNTS and 2 * len(words) < len(known)
    return several[0] if combined and all(words[word] > 1 for text in several for word in text.split()) else None


def check_no_captions(
    values: Sequence[Any], what: str, describe: Callable[[int], str], way_out: str, least: int = 3
) -> None:
    """ValueError for texts that differ from image to image, from `least` images on: they are captions, not classes.
    what: where they are from."""
    n, distinct = len(values), len(set(map(str, values)))
    if n >= least and (distinct == n or distinct > max(FEW_TEXTS, n / 2)):
        raise ValueError(
            f"{what}: {distinct:,} different texts for {n:,} images ({describe(0)}: {_shown(values[0])}) are no "
            f"classes; {way_out}"
        )


def _labels_of_objects(array: NDArray[Any], words: LabelWords) -> Labels:
    values = array.tolist()
    kinds = {type(value): _kind_of(value) for value in values}
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and value != value):
            raise words.missing(row)
        if kinds[type(value)] is None:
            raise ValueError(words.refusal(f"{words.describe(row)} has {_shown(value)}"))
    found = sorted({kind for kind in kinds.values() if kind is not None})
    if len(found) > 1:
        raise ValueError(f"{words.what}, {' and '.join(found)} mixed; give labels of one kind")
    if found == ["text"]:
        return _text(values, words)
    if found == ["bool"]:
        return Labels("bool", np.array(values, np.int64))
    if found == ["integer"]:
        return Labels("integer", _as_int64(values, words))
    return Labels("".join(found), _whole(array, words))


def _kind_of(value: object) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, Integral):
        return "integer"
    if isinstance(value, float | np.floating):
        return "float"
    if isinstance(value, Decimal):
        return "decimal"
    return "text" if isinstance(value, str | bytes) else None


def _text(values: list[Any], words: LabelWords) -> Labels:
    for row, value in enumerate(values):
        if not value.strip() or (isinstance(value, str) and value.strip().lower() in MISSING):
            raise words.missing(row, value if isinstance(value, str) else "")
        if isinstance(value, bytes):
            try:
                values[row] = value.decode("utf-8")
            except UnicodeDecodeError:
                seen = f"{words.describe(row)} has bytes that are not UTF-8 text"
                raise ValueError(words.refusal(seen)) from None
    if 2 * sum(len(value.split()) >= WORDS_OF_A_CAPTION for value in values) > len(values):
        check_no_captions(values, words.what, words.describe, words.way_out, least=FEW_TEXTS)
    _check_single(values, words.describe)
    return Labels("text", values)


def _whole(array: NDArray[Any], words: LabelWords) -> NDArray[np.int64]:
    """Floats or decimals (n,) that are whole numbers, as int64."""
    missing = array != array
    if missing.any():
        raise words.missing(int(np.argmax(missing)))
    fractions = array % 1 != 0 if array.dtype.kind == "O" else (np.floor(array) != array) | np.isinf(array)
    if fractions.any():
        row = int(np.argmax(fractions))
        raise ValueError(words.refusal(f"{words.describe(row)} has {array[row]}"))
    return _as_int64([int(value) for value in array] if array.dtype.kind == "O" else array, words)


def _as_int64(values: Any, words: LabelWords) -> NDArray[np.int64]:
    """Whole numbers (n,) as int64. ValueError for one that does not fit."""
    array = np.asarray(values)
    if len(array) and array.dtype != np.int64:
        largest = int(np.argmax(np.abs(array) if array.dtype.kind != "u" else array))
        if not -(2**63) <= int(array[largest]) < 2**63:
            raise ValueError(f"{words.describe(largest)} has the label {array[largest]}; number the classes from 0")
    return array.astype(np.int64)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."

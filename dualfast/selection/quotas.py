"""How many samples are kept: in all, of each class, and of each group that shares a number."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array, checked_int
from dualfast.config import check_ratio
from dualfast.notices import warn

EXACT = Context(prec=400)  # digits: a float in (0, 1) has at most 341, a count 19

Bits: TypeAlias = ops.Bits
Ints: TypeAlias = NDArray[np.int64]
SHOWN = 5  # names of classes in a message
PerClass: TypeAlias = bool | Literal["equal", "shares"] | Mapping[Any, int]
"""True: each class's share of the samples, and at least one; "shares": the share alone, as version 0.1 kept it."""


def kept_count(n_samples: int, prune_ratio: float) -> int:
    """round((1 - prune_ratio) * n_samples), half up, exact in decimal: 0.9 of 50,000 keeps 5,000.

    prune_ratio is the fraction REMOVED, in [0, 1). TypeError for anything but a number, ValueError outside the range.
    """
    check_ratio(prune_ratio)
    removed = EXACT.create_decimal(repr(float(prune_ratio)))
    return math.floor(EXACT.fma(EXACT.subtract(1, removed), n_samples, EXACT.create_decimal("0.5")))


@dataclass(frozen=True)
class Classes:
    """The classes of N samples: numbers (N,) is the class of each, sizes (G,) how many each number has; of the numbers
    that occur, rows (C,), the names (C,), ascending."""

    numbers: ops.Numbers
    sizes: Ints
    rows: Ints
    names: list[Any]

    @classmethod
    def of(cls, labels: Any, n_samples: int) -> Classes:
        """labels (n_samples,): integers or names; ValueError for others."""
        if labels is None:
            raise ValueError(
                "per_class needs the samples' labels; give labels, one per sample, or a score table with a column label"
            )
        labels = checked_labels(labels, n_samples)
        if labels.dtype.kind in "iub" and (numbered := ops.number_labels(labels)) is not None:
            rows = np.flatnonzero(numbered[1])
            return cls(*numbered, rows, rows.tolist())
        names, inverse = np.unique(labels, return_inverse=True)
        numbers: ops.Numbers = inverse.astype(np.uint16) if len(names) < 2**16 else inverse.astype(np.int32)
        return cls(numbers, np.bincount(inverse), np.arange(len(names)), names.tolist())


def checked_per_class(per_class: Any) -> PerClass:
    """per_class in Python's own types; TypeError and ValueError for what it cannot be."""
    if isinstance(per_class, Mapping):
        counts: dict[Any, Any] = {
            name if isinstance(name, str) else checked_int("a class of per_class", name): count
            for name, count in per_class.items()
        }
        return {name: checked_int(f"per_class[{name!r}]", count, 0, 2**63 - 1) for name, count in counts.items()}
    if isinstance(per_class, bool | np.bool_):
        return bool(per_class)
    if isinstance(per_class, str) and per_class in ("equal", "shares"):
        return per_class  # type: ignore[return-value]
    raise ValueError(
        f"per_class is {per_class!r:.80}; give True, False, equal, shares or a mapping from class to number"
    )


def class_quotas(classes: Classes, per_class: PerClass, n: int, forced: Ints, available: Ints) -> Ints:
    """How many to draw of each class, by number (G,), so that with the forced ids n are kept.

    available (G,): how many may be drawn. A class with too few samples gives the rest to the others, with a warning.
    ValueError for quotas that do not fit.
    """
    rows, names = classes.rows, classes.names
    sizes: list[int] = classes.sizes[rows].tolist()
    if per_class is True or (isinstance(per_class, str) and per_class == "shares"):
        quotas = shares(sizes, n)
    elif per_class == "equal":
        quotas = shares([1] * len(names), n)
    else:
        assert isinstance(per_class, Mapping), "checked_per_class comes first"
        unknown = set(per_class) - set(names)
        if unknown:
            raise ValueError(
                f"per_class names the class {min(unknown, key=str)}, which no sample has; the labels are {names[0]} "
                f"to {names[-1]}"
            )
        quotas = [per_class.get(c, 0) for c in names]
        if sum(quotas) != n:
            raise ValueError(f"the quotas of per_class add up to {sum(quotas)}; prune_ratio keeps {n}")
    already: list[int] = np.bincount(classes.numbers[forced], minlength=len(classes.sizes))[rows].tolist()
    wanted = [max(quota - kept, 0) for quota, kept in zip(quotas, already, strict=True)]
    final = fitted(wanted, available[rows].tolist(), n - len(forced))
    short = {c: w - f for c, w, f in zip(names, wanted, final, strict=True) if f < w}
    if short:
        named = ", ".join(f"{c} ({missing})" for c, missing in list(short.items())[:5])
        fall = "1 class falls" if len(short) == 1 else f"{len(short)} classes fall"
        warn(f"{fall} short of the quota: {named}; other classes make up the number")
    if per_class is True:
        final = one_of_each(final, [a if not k else 0 for a, k in zip(available[rows].tolist(), already, strict=True)])
    by_number = np.zeros(len(classes.sizes), np.int64)
    by_number[rows] = final
    return by_number


def one_of_each(counts: list[int], available: list[int]) -> list[int]:
    """counts, changed so that each class with samples available has at least one, as long as another has two: it comes
    from the class with most, ties to the earlier."""
    counts = list(counts)
    largest = [(-count, c) for c, count in enumerate(counts)]
    heapq.heapify(largest)
    for c in [c for c, count in enumerate(counts) if not count and available[c]]:
        count, donor = largest[0]
        if count > -2:
            break
        heapq.heapreplace(largest, (count + 1, donor))
        counts[donor], counts[c] = counts[donor] - 1, 1
    return counts


def class_counts(labels: Any, among: Bits | None = None) -> Counter[Any]:
    """The number of samples of each class, a number or a name; among: a bit for each sample that counts."""
    labels = as_array("labels", labels)
    if labels.dtype.kind in "iub" and (numbered := ops.number_labels(labels)) is not None:
        numbers, counts = numbered
        if among is not None:
            counts = ops.Groups(len(counts), numbers, among).sizes(len(labels))
        classes = np.flatnonzero(counts)
        counts = counts[classes]
    else:
        if among is not None:
            labels = labels[np.unpackbits(among, count=len(labels), bitorder="little").view(np.bool_)]
        if labels.dtype.kind == "f":  # a column of a score table, read as floats, NaN where it has no label
            labels = labels[np.isfinite(labels)].astype(np.int64)
        classes, counts = np.unique(labels, return_counts=True)
    return Counter(dict(zip(classes.tolist(), counts.tolist(), strict=True)))


def without_samples(
    total: Mapping[Any, int], kept: Mapping[Any, int], class_names: Sequence[str] | None = None
) -> str | None:
    """The classes of which no sample is kept, as "2 of 4 classes keep no sample: few, one"; None without any. total and
    kept: numbers of samples by class."""
    lost = [c for c in total if not kept.get(c)]
    if not lost:
        return None
    names = dict(enumerate(class_names or ()))
    known = [str(names.get(c, c)) for c in lost[:SHOWN]]
    more = f" and {len(lost) - SHOWN:,} more" if len(lost) > SHOWN else ""
    keep = "keeps" if len(lost) == 1 else "keep"
    return f"{len(lost):,} of {len(total):,} classes {keep} no sample: {', '.join(known)}{more}"


def checked_labels(labels: Any, n_samples: int) -> NDArray[Any]:
    """labels as an array; ValueError unless it holds n_samples class numbers or class names."""
    array = as_array("labels", labels)
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.ravel()):
        array = array.astype(str)
    if array.shape != (n_samples,) or array.dtype.kind not in "iubU":
        raise ValueError(
            f"labels have shape {array.shape} and dtype {array.dtype}; give ({n_samples},) integers or names"
        )
    return array


def fitted(wanted: list[int], available: list[int], n: int) -> list[int]:
    """wanted, changed so that it adds up to n within 0..available: what a group lacks goes to the others in proportion
    to what they have left; a surplus is taken off in proportion to the quotas."""
    out = [min(w, a) for w, a in zip(wanted, available, strict=True)]
    missing = n - sum(out)
    if missing > 0:
        more = shares([a - o for o, a in zip(out, available, strict=True)], missing)
        out = [o + m for o, m in zip(out, more, strict=True)]
    elif missing < 0:
        less = shares(out, -missing)
        out = [o - x for o, x in zip(out, less, strict=True)]
    return out


def shares(sizes: list[int], n: int) -> list[int]:
    """n split in proportion to sizes, exact in total: largest remainder, ties to the earlier."""
    total = sum(sizes)
    quotas, remainders = zip(*(divmod(size * n, total) for size in sizes), strict=True)
    order = sorted(range(len(sizes)), key=lambda i: (-remainders[i], i))
    more = set(order[: n - sum(quotas)])
    return [quota + (i in more) for i, quota in enumerate(quotas)]

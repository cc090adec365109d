"""How many samples are kept: in all, of each class, and of each group that shares a number."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Context
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast.config import check_ratio
from dualfast.notices import warn

EXACT = Context(prec=400)  # digits: a float in (0, 1) has at most 341, a count 19

Ints: TypeAlias = NDArray[np.int64]
SHOWN = 5  # names of classes in a message
PerClass: TypeAlias = bool | Literal["equal"] | Mapping[int, int]


def kept_count(n_samples: int, prune_ratio: float) -> int:
    """round((1 - prune_ratio) * n_samples), half up, exact in decimal: 0.9 of 50,000 keeps 5,000.

    prune_ratio is the fraction REMOVED, in [0, 1). TypeError for anything but a number, ValueError outside the range.
    """
    check_ratio(prune_ratio)
    removed = EXACT.create_decimal(repr(float(prune_ratio)))
    return math.floor(EXACT.fma(EXACT.subtract(1, removed), n_samples, EXACT.create_decimal("0.5")))


def class_quotas(
    labels: Any, per_class: PerClass, n_samples: int, n: int, forced: Ints, allowed: NDArray[np.bool_] | None
) -> list[tuple[Ints, int]]:
    """For each class the ids that may be drawn and how many of them, so that with the forced ids n are kept.

    labels (n_samples,) int; allowed: a mask (n_samples,), None for all. A class with too few samples gives the rest to
    the others, with a warning. ValueError for labels or quotas that do not fit.
    """
    if labels is None:
        raise ValueError("per_class needs labels, one int per sample")
    labels = checked_labels(labels, n_samples)
    classes, inverse = np.unique(labels, return_inverse=True)
    sizes: list[int] = np.bincount(inverse, minlength=len(classes)).tolist()
    if per_class is True:
        quotas = shares(sizes, n)
    elif per_class == "equal":
        quotas = shares([1] * len(classes), n)
    elif isinstance(per_class, Mapping):
        unknown = set(per_class) - set(classes.tolist())
        if unknown:
            raise ValueError(f"per_class names the class {min(unknown)}, which no sample has")
        quotas = [int(per_class.get(c, 0)) for c in classes.tolist()]
        if min(quotas) < 0 or sum(quotas) != n:
            raise ValueError(f"the quotas of per_class add up to {sum(quotas)}; prune_ratio keeps {n}")
    else:
        raise ValueError(f"per_class is {per_class!r}; give True, False, equal or a mapping from class to number")
    already: list[int] = np.bincount(inverse[forced], minlength=len(classes)).tolist()
    drawable = np.arange(n_samples) if allowed is None else np.flatnonzero(allowed)
    by_class = drawable[np.argsort(inverse[drawable], kind="stable")]
    available: list[int] = np.bincount(inverse[drawable], minlength=len(classes)).tolist()
    wanted = [max(quota - kept, 0) for quota, kept in zip(quotas, already, strict=True)]
    final = fitted(wanted, available, n - len(forced))
    short = {c: w - f for c, w, f in zip(classes.tolist(), wanted, final, strict=True) if f < w}
    if short:
        named = ", ".join(f"{c} ({missing})" for c, missing in list(short.items())[:5])
        warn(f"{len(short)} classes fall short of their quota: {named}; other classes make up the number")
    if per_class is True:
        final = one_of_each(final, [a if not k else 0 for a, k in zip(available, already, strict=True)])
    return list(zip(np.split(by_class, np.cumsum(available)[:-1]), final, strict=True))


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


def class_counts(labels: Any) -> Counter[Any]:
    """The number of samples of each class, a number or a name."""
    labels = np.asarray(labels)
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
    array: NDArray[Any] = np.asarray(labels)
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
    exact = [Fraction(size * n, total) for size in sizes]
    quotas = [math.floor(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda i: (quotas[i] - exact[i], i))
    for i in order[: n - sum(quotas)]:
        quotas[i] += 1
    return quotas

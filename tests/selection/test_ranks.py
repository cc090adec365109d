"""Cuts at ranks: those of a stable sort, whatever the values, the groups, the threads and the code level."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualfast
from dualfast import ops, reference
from dualfast.ops import Groups
from dualfast.selection import ranks
from dualfast.selection.quotas import shares
from dualfast.selection.ranks import cuts_at, ranking_of
from dualfast.selection.select import select

VALUES = {
    "normal": lambda rng, n: rng.normal(size=n),
    "ties": lambda rng, n: rng.integers(-3, 4, n) / 7,
    "one value": lambda rng, n: np.full(n, -0.25),
    "zeros": lambda rng, n: rng.choice([0.0, -0.0, 1e-310, -1e-310, 5e-324], n),
    "wide": lambda rng, n: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-30, 30, n),
    "close": lambda rng, n: 1 + rng.integers(0, 50, n) * 2.0**-52,
    "infinite": lambda rng, n: rng.choice([-np.inf, -1.0, 2.0, np.inf], n),
}


def by_sorting(column: np.ndarray, numbers: np.ndarray, at: np.ndarray, descending: bool) -> np.ndarray:
    """group * (K + 1) + the number of cuts that each sample is not below; -1 for samples in no group (-1)."""
    out = np.full(len(column), -1)
    for group, cuts in enumerate(at):
        where = np.flatnonzero(numbers == group)
        order = where[np.argsort(-column[where] if descending else column[where], kind="stable")]
        out[order] = group * (len(cuts) + 1) + np.searchsorted(cuts, np.arange(len(order)), side="right")
    return out


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("slots", "few"), [(1 << 20, 1 / 8), (64, 0.0), (64, 1.0)])  # counters, and what is taken out
def test_cuts_are_those_of_a_stable_sort(
    values: str, dtype: Any, slots: int, few: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "SLOTS", slots)
    monkeypatch.setattr(ranks, "FEW", few)
    n, rng = 6000, np.random.default_rng(0)
    column = VALUES[values](rng, n).astype(dtype)
    for n_groups in (1, 5):
        for allowed in (np.ones(n, np.bool_), rng.random(n) < 0.4):
            numbers = rng.integers(0, n_groups, n)
            own = np.where(allowed, numbers, -1)
            sizes = np.bincount(numbers[allowed], minlength=n_groups)
            bits = None if allowed.all() else np.packbits(allowed, bitorder="little")
            groups = Groups(n_groups, None if n_groups == 1 else numbers.astype(np.uint16), bits)
            inside = np.sort(rng.integers(0, sizes[:, None] + 1, (n_groups, 9)))
            for descending in (False, True):
                ranking = ranking_of(column, groups, descending)
                for at in (
                    inside[:, :1],
                    np.concatenate([0 * inside[:, :1], inside, inside[:, -1:], sizes[:, None]], 1),
                ):
                    want = by_sorting(column, own, at, descending)
                    strata = ops.stratify(ranking, cuts_at(ranking, at))
                    assert strata.count == n_groups * (at.shape[1] + 1)
                    assert strata.numbers is not None
                    assert (np.where(want < 0, 65535, want) == strata.numbers).all()
                below = ops.mark_below(ranking, cuts_at(ranking, inside[:, :1]))
                kept = np.unpackbits(below, count=n, bitorder="little").view(np.bool_)
                assert (kept == (by_sorting(column, own, inside[:, :1], descending) % 2 == 0) & (own >= 0)).all()


def test_the_same_for_threads_and_levels() -> None:
    n, rng = 300_000, np.random.default_rng(0)  # enough for several parts
    numbers = rng.integers(0, 200, n)
    groups = Groups(200, numbers.astype(np.int32))
    at = np.bincount(numbers)[:, None] * np.arange(1, 50) // 50
    for column in (rng.normal(size=n).astype(np.float32), rng.integers(0, 5, n).astype(np.float64)):
        want = by_sorting(column, numbers, at, False)
        try:
            for level in (0, 1, 2):
                ops.set_level(level)
                for threads in (1, 2, 5):
                    ranking = ranking_of(column, groups)
                    strata = ops.stratify(ranking, cuts_at(ranking, at, threads), threads=threads)
                    assert (strata.numbers == want).all()
        finally:
            ops.set_level(2)


def test_many_strata_are_numbered_in_32_bits() -> None:
    column = np.random.default_rng(0).permutation(100_000).astype(np.float64)
    ranking = ranking_of(column)
    strata = ops.stratify(ranking, cuts_at(ranking, np.arange(1, 100_000)[None]))
    assert strata.numbers is not None
    assert strata.numbers.dtype == np.int32
    assert (strata.numbers == column).all()


def test_extents_leave_out_what_is_below() -> None:
    for dtype in (np.float32, np.float64):
        column = np.array([-3, -1.5, -0.0, 2, 7, 5, 4, 9], dtype)
        ranking = ranking_of(column, Groups(3, np.array([0, 0, 0, 0, 1, 1, 1, 9], np.uint16)))
        low, high = (ops.values_of(ranking, keys) for keys in ops.extents(ranking))
        assert (low[:2].tolist(), high[:2].tolist()) == ([-3, 4], [2, 7])
        cuts = cuts_at(ranking, np.array([[1], [2], [0]]))
        low, high = (ops.values_of(ranking, keys) for keys in ops.extents(ranking, cuts.keys[:, 0]))
        assert (low[:2].tolist(), high[:2].tolist()) == ([-1.5, 7], [2, 7])


# ---- the methods ----------------------------------------------------------------------------------------------------


def scores_of(n: int, dtype: Any = np.float64) -> dualfast.Scores:
    rng = np.random.default_rng(n)
    mean = rng.beta(4, 2, n)
    columns = {"dual": mean * (1 - mean) * rng.random(n), "mean": mean, "aum": rng.normal(0, 3, n)}
    few = {"forgetting": rng.integers(0, 9, n).astype(dtype)}  # many equal values
    return dualfast.Scores(**{name: column.astype(dtype) for name, column in columns.items()}, **few)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("method", "options", "column"),
    [
        ("dual", {}, "dual"),
        ("dual", {"keep": "low"}, "dual"),
        ("aum", {}, "aum"),
        ("forgetting", {}, "forgetting"),
        ("ccs", {"score": "aum"}, "aum"),
        ("ccs", {"score": "aum", "mis_ratio": 0.3, "strata": 7}, "aum"),
        ("ccs", {"mis_ratio": 0.9, "score": "forgetting"}, "forgetting"),
        ("stratified", {}, "dual"),
        ("stratified", {"score": "forgetting", "strata": 11}, "forgetting"),
        ("stratified", {"strata": 1}, "dual"),
    ],
)
def test_each_class_is_drawn_as_the_reference_draws_it(
    method: str, options: dict[str, Any], column: str, dtype: Any
) -> None:
    n, rng = 20_000, np.random.default_rng(3)
    scores, labels = scores_of(n, dtype), rng.integers(0, 4, n) ** 2
    allowed = rng.random(n) < 0.8
    forced = np.flatnonzero(~allowed)[:50]
    kept = select(
        scores, 0.7, method=method, seed=5, labels=labels, per_class=True, among=allowed, force=forced, **options
    )
    quotas = shares(np.bincount(labels)[[0, 1, 4, 9]].tolist(), 6000)
    want = [forced]
    for label, quota in zip([0, 1, 4, 9], quotas, strict=True):
        ids = np.flatnonzero((labels == label) & allowed)
        own, count = np.asarray(getattr(scores, column))[ids], quota - int((labels[forced] == label).sum())
        if method in ("ccs", "stratified"):
            given = {name: value for name, value in options.items() if name != "score"}
            want.append(getattr(reference, method)(own, ids, count, seed=5, **given))
        else:
            ends = own if options.get("keep") == "low" or method == "aum" else -own
            want.append(ids[reference.smallest(ends, count)])
    assert (kept == np.sort(np.concatenate(want))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [700, 100_000])
def test_strata_of_all_samples_equal_the_reference(n: int, dtype: Any) -> None:
    scores = scores_of(n, dtype)
    for ratio in (0.0, 0.31, 0.9, 0.999):
        count = reference.kept_count(n, ratio)
        for mis_ratio in (0.0, 0.25):
            want = reference.ccs(np.asarray(scores.aum), np.arange(n), count, seed=1, mis_ratio=mis_ratio)
            assert (select(scores, ratio, method="ccs", score="aum", seed=1, mis_ratio=mis_ratio) == want).all()
        want = reference.stratified(np.asarray(scores.dual), np.arange(n), count, seed=1)
        assert (select(scores, ratio, method="stratified", seed=1) == want).all()


def test_more_strata_than_samples_are_as_good_as_one_each() -> None:
    n = 3000
    scores = scores_of(n)
    one_each = select(scores, 0.9, method="stratified", strata=n)
    assert (select(scores, 0.9, method="stratified", strata=2**31 - 1) == one_each).all()
    with pytest.raises(ValueError, match="strata is 2147483647, of each of 1 classes; give at most 16777216"):
        select(scores, 0.9, method="ccs", score="aum", strata=2**31 - 1)


def test_the_hardest_are_cut_first() -> None:
    n = 20_000
    scores = scores_of(n)
    hardest = np.argsort(scores.aum, kind="stable")[:3000]
    rest = np.setdiff1d(np.arange(n), hardest)
    for method in ("dual", "random"):
        want = select(scores, 0.9, method=method, among=rest, seed=2)
        assert (select(scores, 0.9, method=method, mislabel_cut=3000, seed=2) == want).all()

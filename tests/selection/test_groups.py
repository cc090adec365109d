"""Draws within groups: those of exact keys, whatever the groups, the restrictions, the threads and the code level."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import dualfast
from dualfast import ops, reference
from dualfast.selection import beta, draw
from dualfast.selection.draw import Pool
from dualfast.selection.quotas import Classes, shares
from dualfast.selection.select import select


def race_of(n: int, seed: int = 0, dtype: Any = np.float32) -> ops.Race:
    rng = np.random.default_rng(n + seed)
    mean = rng.beta(4, 2, n).astype(dtype)
    return ops.Race(n, seed, (mean * (1 - mean) * rng.random(n)).astype(dtype), mean, 12.0, 4.0)


def bits_of(mask: np.ndarray) -> np.ndarray:
    return np.packbits(mask, bitorder="little")


def smallest_of_each(keys: np.ndarray, numbers: np.ndarray, quotas: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """By sorting: the quotas[g] smallest keys of each group g among the allowed samples, ties to the lower position."""
    order = np.lexsort((np.arange(len(keys)), keys, numbers))
    order = order[allowed[order]]
    of_order = numbers[order].astype(np.int64)
    rank = np.arange(len(order)) - np.searchsorted(of_order, of_order)
    kept = (of_order < len(quotas)) & (rank < quotas[np.minimum(of_order, len(quotas) - 1)])
    return np.sort(order[kept])


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
@pytest.mark.parametrize(
    ("n", "n_groups"), [(60, 7), (8192, 3), (8193, 3), (120_000, 1), (120_000, 40), (90_000, 20_000)]
)
def test_each_group_keeps_its_smallest_keys(n: int, n_groups: int, dtype: Any) -> None:
    race, rng = race_of(n), np.random.default_rng(n)
    keys = ops.race_keys(race)
    numbers = (rng.random(n) ** 2 * n_groups).astype(dtype)  # of unequal sizes
    for allowed in (np.ones(n, np.bool_), rng.random(n) < 0.3):
        sizes = np.bincount(numbers[allowed], minlength=n_groups)
        groups = ops.Groups(n_groups, numbers, None if allowed.all() else bits_of(allowed))
        assert (groups.sizes(n) == sizes).all()
        for quotas in (sizes // 10, sizes // 2, sizes, 0 * sizes, rng.integers(0, sizes + 1)):
            kept, last = draw.draw(race, Pool(quotas, groups))
            assert (kept == smallest_of_each(keys, numbers, quotas, allowed)).all()
            assert not np.isnan(last).any()


def test_the_same_for_threads_and_levels() -> None:
    n = 300_000  # enough for several parts
    race, numbers = race_of(n, dtype=np.float64), (np.arange(n) % 50).astype(np.uint16)
    pool = Pool(np.full(50, 700), ops.Groups(50, numbers))
    want = smallest_of_each(ops.race_keys(race), numbers, pool.quotas, np.ones(n, np.bool_))
    try:
        for level in (0, 1, 2):
            ops.set_level(level)
            for threads in (1, 2, 5):
                assert (draw.draw(race, pool, threads)[0] == want).all()
    finally:
        ops.set_level(2)


def test_a_number_out_of_range_is_in_no_group() -> None:
    n, none = 50_000, 65535
    race, numbers = race_of(n), (np.arange(n) % 5).astype(np.uint16)
    numbers[numbers == 4] = none
    for wide in (numbers, np.where(numbers == none, -1, numbers).astype(np.int32)):
        groups = ops.Groups(3, wide)  # 3 is out of range, too
        assert groups.sizes(n).tolist() == [10_000] * 3
        kept, _ = draw.draw(race, Pool(groups.sizes(n), groups))
        assert (kept == np.flatnonzero(numbers < 3)).all()


def test_forced_samples_are_kept_beyond_the_quotas() -> None:
    n, forced = 20_000, np.array([0, 9, 19_999])
    race = race_of(n)
    allowed = np.ones(n, np.bool_)
    allowed[forced] = False
    for groups in (ops.Groups(allowed=bits_of(allowed)), ops.Groups(1, np.zeros(n, np.uint16), bits_of(allowed))):
        kept, _ = draw.draw(race, Pool(np.array([1000]), groups, forced))
        drawn = smallest_of_each(ops.race_keys(race), np.zeros(n, int), np.array([1000]), allowed)
        assert (kept == np.union1d(drawn, forced)).all()


def test_ties_go_to_the_lower_position() -> None:
    n = 30_000
    race = ops.Race(n, 0, ids=np.zeros(n, np.int64))  # every key equal
    numbers = (np.arange(n) % 3).astype(np.uint16)
    kept, _ = draw.draw(race, Pool(np.array([5, 0, 7]), ops.Groups(3, numbers)))
    assert kept.tolist() == sorted([*range(0, 15, 3), *range(2, 23, 3)])


def test_brackets_hold_the_thresholds_and_little_else() -> None:
    n, n_groups = 390_000, 300
    for seed in range(4):
        race, numbers = race_of(n, seed), (np.arange(n) * 7919 % n_groups).astype(np.uint16)
        keys = ops.race_keys(race).reshape(-1, n_groups)[:, np.argsort(numbers[:n_groups])]
        groups = ops.Groups(n_groups, numbers)
        for share in (0.01, 0.1, 0.5, 0.99):
            pool = Pool(np.full(n_groups, int(share * len(keys))), groups)
            low, high, origin = draw.brackets(race, pool)
            threshold = np.sort(keys, axis=0)[pool.quotas[0] - 1]
            assert ((low <= threshold) & (threshold <= high)).all()
            _, _, undecided = ops.classify_groups(race, groups, low, high, origin)
            assert len(undecided) < 0.02 * n


@pytest.mark.parametrize("wrong", [(-30.0, -20.0), (20.0, 30.0), (math.inf, math.inf), (-math.inf, -math.inf)])
def test_wrong_brackets_are_widened(wrong: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    n = 30_000
    race, numbers = race_of(n), (np.arange(n) % 4).astype(np.uint16)
    pool = Pool(np.array([10, 3000, 0, 7500]), ops.Groups(4, numbers))
    want, _ = draw.draw(race, pool)
    low, high, origin = draw.brackets(race, pool)
    low[:2], high[:2] = wrong
    monkeypatch.setattr(draw, "brackets", lambda *_: (low, high, origin))
    assert (draw.draw(race, pool)[0] == want).all()


def test_a_group_is_settled_only_within_its_bracket() -> None:
    undecided, keys = np.array([0, 1]), np.array([-2.0, 5.0])
    for missing, low, high, settled in (
        (0, -3.0, 6.0, True),
        (0, -1.0, 6.0, False),  # what is certainly below fills the quota, but sample 0 may have a smaller key
        (1, -3.0, 6.0, True),
        (1, -1.0, 6.0, False),
        (2, -3.0, 6.0, True),
        (2, -3.0, 4.0, False),  # between the high end and 5 there may be samples that are not among the undecided
        (3, -3.0, 6.0, False),
        (-1, -3.0, 6.0, False),
    ):
        kept = np.array([0b100], np.uint8)  # sample 2 is below
        bounds = np.array([low]), np.array([high])
        last = ops.settle_groups(kept, ops.ALL, 3, undecided, keys, np.array([missing]), *bounds)
        assert last.tolist() == (
            [-math.inf, -2.0, 5.0][missing : missing + 1] if settled else pytest.approx([math.nan], nan_ok=True)
        )
        assert kept.tolist() == [0b100 + ((1 << missing) - 1 if settled else 0)]


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (15.9, 0.1), (12.0, 4.0), (1e-6, 16 - 1e-6), (300.0, 200.0)])
def test_float32_decides_only_what_is_certain(level: int, dtype: Any, a: float, b: float) -> None:
    """Far from the origin, too, and for scores and means at the edges of their types."""
    rng = np.random.default_rng(int(a * 10))
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = np.array([0, tiny, 1e-38, 1e-12, 1e-7, 0.5, 1 - 2**-24, 1, 3, 1e12, huge], dtype)
    score = np.concatenate([rng.random(60_000).astype(dtype) ** 8, rng.choice(edges, 8000)])
    mean = np.concatenate([rng.random(60_000).astype(dtype), rng.choice(edges[edges <= 1], 8000)])
    race = ops.Race(len(score), 5, score, mean, a, b)
    keys = ops.race_keys(race)
    numbers = rng.integers(0, 30, len(keys)).astype(np.uint16)
    origin = float(np.median(keys))
    low = np.sort(np.concatenate([origin + np.linspace(-50, 50, 24), [-math.inf, -1e3, 1e3, 1990, 2010, math.inf]]))
    ops.set_level(level)
    try:
        for width in (0.0, 0.01, math.inf):
            high = np.full(30, math.inf) if width == math.inf else low + width
            bits, n_kept, unsure = ops.classify_groups(race, ops.Groups(30, numbers), low, high, origin)
            kept = np.unpackbits(bits, count=len(keys), bitorder="little").view(np.bool_)
            assert (n_kept == np.bincount(numbers[kept], minlength=30)).all()
            assert not kept[unsure].any()
            assert (keys[kept] < low[numbers[kept]]).all()
            out = ~kept
            out[unsure] = False
            assert (keys[out] > high[numbers[out]]).all()
            reach = 0.01 + 1e-3 * (a + b)
            own = low[numbers]
            near = ((keys > own - reach) & (keys < high[numbers] + reach)) | (score < 1.2e-38)
            far = np.abs(own - origin) > ops.REACH  # decides little
            assert (~near & ~far)[unsure].sum() < 10
    finally:
        ops.set_level(2)


@pytest.mark.parametrize(("log_weight", "log_score"), [(39, -147), (95, -147), (-130, 90), (130, -90), (0, 0)])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_weights_out_of_the_range_of_float32(log_weight: int, log_score: int, level: int) -> None:
    """Scores whose digits float32 loses, and powers of the mean that it cannot hold: in units of log2, from the origin.
    The sample at each threshold has its own group, and all others are compared with it, too."""
    n = 4000
    score = 2.0**log_score * (1 + np.arange(n) % 7 / 3)
    race, origin = ops.Race(n, 1, score), log_weight * math.log(2) + math.log(math.log(2))
    keys, numbers = ops.race_keys(race), np.zeros(n, np.uint16)
    ops.set_level(level)
    try:
        for key in np.quantile(keys, np.linspace(0, 1, 40), method="nearest"):
            bits, _, unsure = ops.classify_groups(race, ops.Groups(1, numbers), *[np.array([key])] * 2, origin)
            kept = np.unpackbits(bits, count=n, bitorder="little").view(np.bool_)
            assert (keys[kept] < key).all()
            kept[unsure] = True
            assert (keys[~kept] > key).all()
    finally:
        ops.set_level(2)


def test_weights_of_every_size() -> None:
    n = 60_000
    weights = np.full(n, 1e-300)
    weights[::3], weights[1::3] = 1e200, 0.0
    race, numbers = ops.Race(n, 3, weights), (np.arange(n) % 2).astype(np.uint16)
    keys = ops.race_keys(race)
    for n_kept in (1, 9_999, 10_000, 10_001, 20_000, 20_001, 30_000):
        pool = Pool(np.array([n_kept, n_kept // 2]), ops.Groups(2, numbers))
        kept, last = draw.draw(race, pool)
        assert (kept == smallest_of_each(keys, numbers, pool.quotas, np.ones(n, np.bool_))).all()
        assert (last[0] > ops.ZERO_WEIGHT_KEY / 2) == (n_kept > 20_000)


# ---- select ---------------------------------------------------------------------------------------------------------


def scores_of(n: int) -> dualfast.Scores:
    race = race_of(n, dtype=np.float64)
    return dualfast.Scores(dual=race.score, mean=race.mean, aum=np.random.default_rng(n).normal(size=n))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.uint64, str])
def test_classes_and_sets_together(kind: Any) -> None:
    """dual+beta of each class, what is excluded and forced taken into account, as the reference draws it."""
    n, rng = 60_000, np.random.default_rng(1)
    scores, labels = scores_of(n), rng.integers(0, 9, n) * 3
    shuffled = rng.permutation(n)
    exclude, force, among = shuffled[:5000], shuffled[5000:5100], np.isin(np.arange(n), shuffled[:100], invert=True)
    given = {"exclude": exclude, "force": force, "among": among, "labels": labels.astype(kind), "per_class": True}
    kept = select(scores, 0.8, seed=2, **given)
    allowed = among.copy()
    allowed[exclude] = allowed[force] = False
    law = beta.beta_of(scores, 0.8)
    keys = reference.race_keys(2, np.arange(n), reference.log_weights(scores.dual, scores.mean, law.a, law.b))
    quotas = np.zeros(27, int)
    quotas[::3] = shares(np.bincount(labels)[::3].tolist(), n // 5)
    quotas -= np.bincount(labels[force], minlength=27)
    assert (kept == np.union1d(smallest_of_each(keys, labels, quotas, allowed), force)).all()


def test_labels_of_every_kind_are_numbered() -> None:
    n = 1000
    for labels in (
        np.arange(n) % 7,
        np.arange(n) % 7 * 10_000,
        np.arange(n) % 7 - 3,
        np.arange(n) % 7 + 65_530,
        np.arange(n) % 7 + 2**40,
        np.arange(n).astype(np.uint32) % 7 + 2**31,
        np.arange(n) % 2 == 0,
        np.array(list("abcdefg"))[np.arange(n) % 7],
        np.repeat(np.arange(n) % 7, 2)[::2],
    ):
        classes = Classes.of(labels, n)
        names, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        assert classes.names == names.tolist()
        assert (classes.sizes[classes.rows] == sizes).all()
        assert (classes.numbers == classes.rows[inverse]).all()
    many = Classes.of(np.arange(70_000) - 5, 70_000)
    assert many.numbers.dtype == np.int32
    assert (many.numbers == np.arange(70_000)).all()


def test_filling_up_is_said_once_for_all_classes() -> None:
    n = 12_000
    scores = scores_of(n)
    dual, labels = np.array(scores.dual), np.arange(n) % 3
    dual[labels == 0] = 0
    dual[(labels == 1) & (np.arange(n) > 2999)] = 0
    with pytest.warns(UserWarning, match="only 1000 of 8000 samples have a positive weight; 3000 more") as caught:
        select(dualfast.Scores(dual=dual, mean=scores.mean), 0.5, labels=labels, per_class=True)
    assert len(caught) == 1


def test_scores_outside_their_range_are_counted_and_found() -> None:
    n = 200_000
    for dtype in (np.float32, np.float64):
        column = np.random.default_rng(0).random(n).astype(dtype)
        assert ops.outside(column, 0.0, math.inf) == (0, -1)
        where = [3, 77_777, 150_000, n - 1]
        column[where] = [np.nan, -0.5, np.inf, -np.inf]
        bits = np.full(n // 8, 255, np.uint8)
        for threads in (1, 3):
            assert ops.outside(column, 0.0, math.inf, threads=threads) == (4, 3)
            assert ops.outside(column, -math.inf, math.inf, bits, threads) == (3, 3)
        assert np.flatnonzero(~np.unpackbits(bits, bitorder="little").view(np.bool_)).tolist() == [3, 150_000, n - 1]
        assert ops.outside(column, -0.5, 0.25)[0] == 3 + int((column > 0.25).sum() - 1)

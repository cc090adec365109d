"""Selection: exact in count, equal to the reference, right in law, the same for any threads and code level."""

from __future__ import annotations

import dataclasses
import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import dualfast
from dualfast import ops, reference
from dualfast.selection import beta
from dualfast.selection.draw import Pool, bracket, draw, probe, ratio_limits, smallest, within
from dualfast.selection.quotas import fitted, one_of_each, shares
from dualfast.selection.select import explain, kept_count, select


def scores_of(n: int, seed: int = 0, dtype: Any = np.float64) -> dualfast.Scores:
    rng = np.random.default_rng(seed)
    mean = rng.beta(4, 2, n)
    dual = mean * (1 - mean) * rng.random(n)
    aum = rng.normal(0, 3, n).astype(dtype)
    return dualfast.Scores(dual=dual.astype(dtype), mean=mean.astype(dtype), aum=aum, aum_prob=np.tanh(aum))


def mask_of(bits: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(bits, count=n, bitorder="little").view(np.bool_)


def reference_select(scores: dualfast.Scores, ratio: float, c_d: float, seed: int) -> np.ndarray:
    dual, mean = np.asarray(scores.dual, np.float64), np.asarray(scores.mean, np.float64)
    a, b = reference.beta_parameters(dual, mean, ratio, c_d)
    keys = reference.race_keys(seed, np.arange(len(dual)), reference.log_weights(dual, mean, a, b))
    return reference.smallest(keys, reference.kept_count(len(dual), ratio))


# ---- counts ---------------------------------------------------------------------------------------------------------


def test_counts_are_exact() -> None:
    assert kept_count(50_000, 0.9) == 5000
    assert kept_count(5, 0.5) == 3  # half up
    for n in (1, 2, 3, 10, 999, 50_000, 1_281_167, 10**12 + 1):
        for hundredths in range(100):
            ratio = hundredths / 100
            assert kept_count(n, ratio) == reference.kept_count(n, ratio) == (n * (100 - hundredths) + 50) // 100
    scores = scores_of(1000)
    for method in ("dual+beta", "dual", "random", "ccs", "stratified", "aum"):
        for ratio in (0, 0.001, 0.3, 0.5, 0.9, 0.999, 0.9999):
            kept = select(scores, ratio, method=method)
            assert len(kept) == kept_count(1000, ratio)
            assert kept.dtype == np.int64
            assert (np.diff(kept) > 0).all()


def test_a_share_of_every_class_leaves_none_empty() -> None:
    labels = np.repeat(np.arange(4), (200, 20, 2, 1))
    scores = scores_of(223)
    for method in ("dual+beta", "random"):
        kept = select(scores, 0.9, method=method, labels=labels, per_class=True)
        assert np.bincount(labels[kept], minlength=4).tolist() == [18, 2, 1, 1]
    with pytest.warns(UserWarning, match="2 of 4 classes keep no sample: 2, 3"):
        kept = select(scores, 0.99, labels=labels, per_class=True)  # two in all
    assert len(kept) == 2
    excluded = select(scores, 0.9, labels=labels, per_class=True, exclude=[222])
    assert np.bincount(labels[excluded], minlength=4).tolist()[2:] == [1, 0]


def test_one_of_each() -> None:
    assert one_of_each([5, 3, 0, 0], [9, 9, 1, 0]) == [4, 3, 1, 0]
    assert one_of_each([2, 2, 0, 0, 0], [9] * 5) == [1, 1, 1, 1, 0]
    assert one_of_each([1, 0], [1, 1]) == [1, 0]
    sizes = np.random.default_rng(0).integers(1, 1000, 500).tolist()
    for n in (499, 500, 501, 5000):
        counts = one_of_each(shares(sizes, n), sizes)
        assert sum(counts) == n
        assert min(counts) == (1 if n >= 500 else 0)
        assert all(
            abs(c - s * n / sum(sizes)) < 2 or s * n / sum(sizes) > 1 for c, s in zip(counts, sizes, strict=True)
        )


def test_shares_add_up() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(0, 50, rng.integers(1, 12)).tolist()
        if not sum(sizes):
            continue
        n = int(rng.integers(0, sum(sizes) + 1))
        quotas = shares(sizes, n)
        assert quotas == reference.shares(sizes, n)
        assert sum(quotas) == n
        assert all(abs(q - s * n / sum(sizes)) < 1 for q, s in zip(quotas, sizes, strict=True))
        wanted = rng.integers(0, 50, len(sizes)).tolist()
        out = fitted(wanted, sizes, n)
        assert sum(out) == n
        assert all(0 <= o <= s for o, s in zip(out, sizes, strict=True))


# ---- equal to the reference, whatever computes it -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [17, 8192, 8193, 120_000])
def test_equals_the_reference(n: int, ratio: float, dtype: Any) -> None:
    scores = scores_of(n, seed=n, dtype=dtype)
    assert (select(scores, ratio, c_d=5.5, seed=2**63 + n) == reference_select(scores, ratio, 5.5, 2**63 + n)).all()


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_keys_are_those_of_the_reference(seed: int) -> None:
    """To the rounding of two logarithms, so that the lower word of u counts as the upper one does."""
    n, rng = 100_000, np.random.default_rng(seed)
    keys = reference.race_keys(seed, np.arange(n), np.zeros(n))
    np.testing.assert_allclose(ops.race_keys(ops.Race(n, seed)), keys, rtol=4e-16, atol=4e-15)
    dual, mean = rng.random(n), rng.random(n)
    dual[::3] = 0
    keys = reference.race_keys(seed, np.arange(n), reference.log_weights(dual, mean, 9.0, 7.0))
    np.testing.assert_allclose(ops.race_keys(ops.Race(n, seed, dual, mean, 9.0, 7.0)), keys, rtol=4e-16, atol=1e-13)


def test_same_for_threads_levels_and_runs() -> None:
    scores = scores_of(200_000)  # enough for several parts
    race = ops.Race(200_000, 11, scores.dual, scores.mean, 12.3, 3.7)
    want = ops.race_keys(race)
    kept = smallest(want, 20_000)
    selected = reference_select(scores, 0.9, 4.0, 1).tobytes()
    before = torch.get_num_threads()
    try:
        for level in (0, 1, 2, 2):
            ops.set_level(level)
            for threads in (1, 2, 5):
                assert ops.race_keys(race, threads=threads).tobytes() == want.tobytes()
                assert ops.race_keys(race, kept, threads).tobytes() == want[kept].tobytes()
                where, last = draw(race, Pool.of(20_000), threads)
                assert where.tobytes() == kept.tobytes()
                assert last == want[kept].max()
                torch.set_num_threads(threads)
                assert select(scores, 0.9, seed=1).tobytes() == selected
    finally:
        ops.set_level(2)
        torch.set_num_threads(before)


def test_memory_maps_tensors_and_masks(tmp_path: Any) -> None:
    scores = scores_of(20_000, dtype=np.float32)
    want = select(scores, 0.8)
    for name in ("dual", "mean"):
        np.save(tmp_path / f"{name}.npy", getattr(scores, name))
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("dual", "mean")]
    assert (select(dualfast.Scores(dual=mapped[0], mean=mapped[1]), 0.8) == want).all()
    tensors = dualfast.Scores(dual=torch.from_numpy(scores.dual), mean=torch.from_numpy(scores.mean))  # type: ignore[arg-type]
    assert (select(tensors, 0.8) == want).all()
    every_other = np.repeat(scores.mean, 2)[::2]  # not contiguous: copied, and the same
    assert (select(dualfast.Scores(dual=scores.dual, mean=every_other), 0.8) == want).all()
    mask = select(scores, 0.8, as_mask=True)
    assert mask.dtype == np.bool_
    assert (np.flatnonzero(mask) == want).all()


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("a", "b"), [(1.0, 1.0), (15.9, 0.1), (0.1, 15.9), (12.0, 4.0), (1e-6, 16 - 1e-6), (300.0, 200.0)]
)
def test_sifting_decides_only_what_is_certain(level: int, dtype: Any, a: float, b: float) -> None:
    rng = np.random.default_rng(int(a * 10))
    tiny, huge = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = np.array([0, tiny, 1e-38, 1e-12, 1e-7, 0.5, 1 - 2**-24, 1, 3, huge], dtype)
    score = np.concatenate([rng.random(60_000).astype(dtype) ** 8, rng.choice(edges, 4000)])
    mean = np.concatenate([rng.random(60_000).astype(dtype), rng.choice(edges[edges <= 1], 4000)])
    race = ops.Race(len(score), 5, score, mean, a, b, first=2**40)
    keys = ops.race_keys(race)
    assert np.isfinite(keys).all()
    ops.set_level(level)
    try:
        for low, high in [*zip(*[np.quantile(keys, np.linspace(0.01, 0.99, 25))] * 2, strict=True), (-3.0, 4.0)]:
            classified = ops.classify(race, low, high)
            bits, n_kept, unsure = classified.kept, classified.n_kept, classified.undecided
            kept = mask_of(bits, len(keys))
            assert n_kept == kept.sum()
            assert not kept[unsure].any()
            assert (keys[kept] < low).all()
            out = ~kept
            out[unsure] = False
            assert (keys[out] > high).all()
            # Subnormal scores and what lies close by is left open; that is little, and the bound on it is tight.
            reach = 0.01 + 1e-3 * (a + b)
            near = ((keys > low - reach) & (keys < high + reach)) | (score < 1.2e-38)
            assert (~near[unsure]).sum() < 10
    finally:
        ops.set_level(2)


def test_sifting_is_certain_for_the_rarest_numbers() -> None:
    """Of 40 million numbers those nearest to 0 and 1, where float32 sees least; each in turn is the threshold."""
    found = []
    for first in range(0, 40_000_000, 4_000_000):
        keys = ops.race_keys(ops.Race(4_000_000, 1, first=first))
        far = (keys < math.log(2**-17)) | (keys > math.log(-math.log(2**-19)))
        found.append(np.flatnonzero(far) + first)
    race = ops.Race(sum(map(len, found)), 1, ids=np.concatenate(found))
    keys = ops.race_keys(race)
    assert keys.min() < math.log(2**-24)
    assert (keys < -10).sum() > 200
    for key in keys:
        classified = ops.classify(race, key, key)
        kept = mask_of(classified.kept, len(keys))
        assert (keys[kept] < key).all()
        kept[classified.undecided] = True
        assert (keys[~kept] > key).all()


def test_a_wrong_bracket_is_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(50_000)
    race = ops.Race(50_000, 1, scores.dual, scores.mean, 12.0, 4.0)
    want = smallest(ops.race_keys(race), 5000)
    for wrong in ((-1e3, -9e2), (9e2, 1e3), (math.inf, math.inf), (-math.inf, -math.inf)):
        monkeypatch.setattr("dualfast.selection.draw.bracket", lambda *_, wrong=wrong: wrong)
        assert (draw(race, Pool.of(5000))[0] == want).all()


def test_probe_and_bracket() -> None:
    for total in (8193, 100_000, 3_000_000):
        whole = probe(0, total, total)
        assert abs(len(whole) - total ** (2 / 3)) < 2
        assert (np.diff(whole) > 0).all()
        cuts = np.linspace(0, total, 8).astype(int)
        parts = [probe(f, t, total) for f, t in pairwise(cuts)]
        assert (np.concatenate(parts) == whole).all()
    keys = np.random.default_rng(0).normal(size=1_000_000)
    ordered = np.sort(keys)
    for n in (1, 100, 10_000, 500_000, 990_000, 1_000_000):
        low, high = bracket(keys[probe(0, 1_000_000, 1_000_000)], n, 1_000_000)
        assert low <= ordered[n - 1] <= high
    assert not within(np.empty(0), 1, -1, 1)
    assert not within(np.array([0.0]), 0, -1, 1)


def test_narrowing_leaves_what_is_in_doubt() -> None:
    rng = np.random.default_rng(0)
    error = 1.02
    for unknown in (0, 3, 300):
        exact = np.exp(rng.normal(size=1000))
        ratios = (exact * rng.uniform(1 / error, error, 1000)).astype(np.float32)
        ratios[rng.permutation(1000)[:unknown]] = np.nan
        for n in (0, 1, 2, 250, 500, 999, 1000):
            bits = np.zeros(2 * 1000 // 8, np.uint8)
            found = ops.Classified(bits, 0, np.arange(1000) * 2, ratios, error)
            sure, doubtful = ops.settle_by_ratio(found, *ratio_limits(ratios, error, n))
            assert sure == mask_of(bits, 2000).sum()
            ops.set_bits(bits, doubtful[smallest(exact[doubtful // 2], n - sure)])
            assert (ops.positions(bits, n) == 2 * smallest(exact, n)).all()
            assert len(doubtful) < 100 + 3 * unknown
            assert n == 0 or 2 * np.argsort(exact)[n - 1] in doubtful


@pytest.mark.parametrize(("kept", "others"), [(7, 3), (3, 7)])
def test_narrowing_stands_the_worst_errors(kept: int, others: int) -> None:
    """What is kept seems as far as it may, what is not as near: both ends of what is in doubt must hold."""
    error = 1.02
    exact = np.array([1.0] * kept + [1.001] * others)
    ratios = (exact * np.where(exact == 1, error, 1 / error)).astype(np.float32)
    found = ops.Classified(np.zeros(2, np.uint8), 0, np.arange(kept + others), ratios, error * 1.0001)
    sure, doubtful = ops.settle_by_ratio(found, *ratio_limits(ratios, found.error, kept))
    ops.set_bits(found.kept, doubtful[smallest(exact[doubtful], kept - sure)])
    assert ops.positions(found.kept, kept).tolist() == list(range(kept))


def test_smallest_and_largest_break_ties_by_position() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 5, 1000, 40_000):
        column = rng.integers(0, 20, n) / 7.0
        for dtype in (np.float32, np.float64):
            top = ops.largest(column.astype(dtype), 10, 2)
            assert (top == np.argsort(-column, kind="stable")[:10]).all()
        for k in (0, 1, n // 3, n):
            assert (smallest(column - 1, k) == reference.smallest(column - 1, k)).all()
    nothing = np.full(5000, np.nan)
    nothing[4000] = 1
    assert ops.largest(nothing, 10).tolist() == [4000]
    signed = np.array([0.0, -0.0, np.inf, -np.inf, -0.0])
    assert smallest(signed, 3).tolist() == [0, 1, 3]


@pytest.mark.parametrize("method", ["ccs", "stratified"])
def test_strata_equal_the_reference(method: str) -> None:
    scores = scores_of(3000)
    for ratio, options in ((0.5, {}), (0.9, {"strata": 7}), (0.9, {"strata": 5000}), (0.0, {})):
        column = np.asarray(scores.aum_prob if method == "ccs" else scores.dual)
        want = getattr(reference, method)(column, np.arange(3000), kept_count(3000, ratio), seed=3, **options)
        assert (select(scores, ratio, method=method, seed=3, **options) == want).all()
    if method == "ccs":
        want = reference.ccs(np.asarray(scores.aum_prob), np.arange(3000), 300, seed=0, mis_ratio=0.3)
        kept = select(scores, 0.9, method="ccs", mis_ratio=0.3)
        assert (kept == want).all()
        assert not np.isin(kept, np.argsort(scores.aum_prob)[:900]).any()
        want = reference.ccs(np.asarray(scores.aum), np.arange(3000), 300, seed=0)
        assert (select(scores, 0.9, method="ccs", score="aum") == want).all()
    constant = dualfast.Scores(dual=np.ones(100), mean=np.ones(100), aum_prob=np.ones(100))
    assert len(select(constant, 0.7, method=method)) == 30


# ---- right in law ---------------------------------------------------------------------------------------------------


def test_log_weights_are_the_beta_density() -> None:
    mean = np.concatenate([[1e-9, 1 - 1e-9], np.linspace(0.001, 0.999, 400)])
    for a, b in [(0.2, 15.8), (15.8, 0.2), (1, 15), (15, 1), (7.5, 8.5), (12.1, 3.9), (0.5, 0.5)]:
        ours = reference.log_weights(np.ones(len(mean)), mean, a, b)
        scipy = stats.beta.logpdf(mean, a, b)
        constant = stats.beta.logpdf(0.5, a, b) - reference.log_weights(np.ones(1), np.full(1, 0.5), a, b)[0]
        np.testing.assert_allclose(ours + constant, scipy, rtol=1e-9, atol=1e-7)
        keys = ops.race_keys(ops.Race(len(mean), 1, np.ones(len(mean)), mean, a, b))
        plain = ops.race_keys(ops.Race(len(mean), 1))
        np.testing.assert_allclose(plain - keys, ours, rtol=1e-13, atol=1e-13)
        # At 0 and 1 the density would be 0 or infinite; there the weight is that of 1e-12 away.
        ends = ops.race_keys(ops.Race(2, 1, np.ones(2), np.array([0.0, 1.0]), a, b))
        inside = reference.log_weights(np.ones(2), np.array([1e-12, 1.0 - 1e-12]), a, b)
        np.testing.assert_allclose(ops.race_keys(ops.Race(2, 1)) - ends, inside, atol=2e-3)


@pytest.mark.parametrize("weights", [[1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [1e-300, 1, 1, 5, 1e-3], [1e6, 1, 1, 1e-6, 1]])
@pytest.mark.parametrize("n", [1, 2, 4])
def test_inclusion_probabilities_of_tiny_sets(weights: list[float], n: int) -> None:
    w = np.array(weights, np.float64)
    runs = 40_000
    # One race of runs x 5 keys: row k is the race of its own five ids.
    keys = ops.race_keys(ops.Race(runs * 5, 17, np.tile(w, runs))).reshape(runs, 5)
    kept = np.argsort(keys, axis=1)[:, :n]
    counts = np.bincount(kept.ravel(), minlength=5)
    p = reference.inclusion(w, n)
    # 5 standard deviations and one: 60 comparisons fail together once in 29,000; a bias of 0.013 is seen.
    assert (np.abs(counts - runs * p) <= 5 * np.sqrt(runs * p * (1 - p)) + 1).all()


def test_law_of_fifty_against_sequential_draws() -> None:
    rng = np.random.default_rng(1)
    w = rng.random(50) ** 3 + 1e-3
    runs, n = 20_000, 15
    keys = ops.race_keys(ops.Race(runs * 50, 23, np.tile(w, runs))).reshape(runs, 50)
    ours = np.bincount(np.argsort(keys, axis=1)[:, :n].ravel(), minlength=50)
    left = np.tile(w, (runs, 1))
    theirs = np.zeros(50)
    for _ in range(n):  # plainly: one after another, in proportion to what is left
        u = rng.random(runs) * left.sum(1)
        at = np.minimum((left.cumsum(1) < u[:, None]).sum(1), 49)
        theirs += np.bincount(at, minlength=50)
        left[np.arange(runs), at] = 0
    p = (ours + theirs) / (2 * runs)
    z = (ours - theirs) / np.sqrt(2 * runs * p * (1 - p))
    # Bonferroni over 50 at 0.001; a difference of 2% in an inclusion probability near 1/3 is seen with power 0.5.
    assert np.abs(z).max() < stats.norm.isf(0.001 / 100)
    assert (z**2).sum() < stats.chi2.isf(0.001, 50)


def test_law_of_the_whole_path() -> None:
    """Over seeds, select includes each of 40 samples as often as the reference's weights say."""
    scores = scores_of(40, seed=4)
    runs = 4000
    counts = np.zeros(40)
    for seed in range(runs):
        counts[select(scores, 0.75, seed=seed)] += 1
    a, b = reference.beta_parameters(scores.dual, scores.mean, 0.75, 4.0)
    w = np.exp(reference.log_weights(scores.dual, scores.mean, a, b))
    rng = np.random.default_rng(0)
    keys = rng.exponential(size=(100_000, 40)) / w
    p = np.bincount(np.argpartition(keys, 9, axis=1)[:, :10].ravel(), minlength=40) / 100_000
    sd = np.sqrt(p * (1 - p) * (1 / runs + 1 / 100_000))
    assert (np.abs(counts / runs - p) <= 4.5 * sd + 2 / runs).all()


def test_extreme_weights_ties_and_ends() -> None:
    weights = np.full(9000, 1e-300)
    weights[::3] = 1.0
    weights[1::3] = 0.0
    race = ops.Race(9000, 3, weights)
    keys = ops.race_keys(race)
    for n in (0, 1, 2999, 3000, 3001, 6000, 6001, 8999, 9000):
        drawn, _ = draw(race, Pool.of(n))
        assert (drawn == reference.smallest(keys, n)).all()
        assert weights[drawn].sum() == pytest.approx(min(n, 3000))
        assert (weights[drawn] > 0).sum() == min(n, 6000)
    # What has no weight is filled in uniformly: of 3,000 the one extra is any.
    extra = set()
    for seed in range(20):
        drawn, _ = draw(ops.Race(9000, seed, weights), Pool.of(6001))
        extra.update(drawn[weights[drawn] == 0].tolist())
    assert len(extra) > 15
    same = ops.Race(20_000, 0, ids=np.zeros(20_000, np.int64))  # every key equal
    assert draw(same, Pool.of(7))[0].tolist() == list(range(7))


def test_too_few_weights_are_filled_with_a_warning() -> None:
    dual = np.zeros(100)
    dual[:10] = 1
    scores = dualfast.Scores(dual=dual, mean=np.full(100, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select(scores, 0.9).tolist() == list(range(10))
    with pytest.warns(UserWarning, match="only 10 of 100 samples have a positive weight; 1 more"):
        kept = select(scores, 0.89)
    assert kept[:10].tolist() == list(range(10))
    assert len(kept) == 11
    with pytest.warns(UserWarning, match="only 0 of 100"):
        assert len(select(dualfast.Scores(dual=0 * dual, mean=dual), 0.5)) == 50


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [5000, 20_000])
def test_what_has_no_weight_is_drawn_uniformly(n: int, dtype: Any) -> None:
    """Whatever its mean."""
    dual, mean = np.zeros(n, dtype), np.linspace(0, 1, n, dtype=dtype)
    dual[:50] = 0.1
    with pytest.warns(UserWarning, match="only 50 of"):
        kept = select(dualfast.Scores(dual=dual, mean=mean), 0.5, seed=3)
    uniform = reference.race_keys(3, np.arange(n), np.zeros(n))
    uniform[:50] = -np.inf
    assert (kept == reference.smallest(uniform, n // 2)).all()


@pytest.mark.parametrize("method", ["dual+beta", "dual", "stratified", "ccs"])
@pytest.mark.parametrize("per_class", [True, "equal", {0: 300, 1: 400}])
def test_bad_scores_are_refused_within_classes_too(method: str, per_class: Any) -> None:
    scores, labels = scores_of(1000), np.arange(1000) % 2
    options = {"score": "dual"} if method == "ccs" else {}
    for bad in (np.nan, -0.1, np.inf):
        dual = scores.dual.copy()
        dual[17] = bad
        wrong = dualfast.Scores(dual=dual, mean=scores.mean)
        with pytest.raises(ValueError, match=r"dual\[17\] is"):
            select(wrong, 0.3, method=method, labels=labels, per_class=per_class, **options)
        kept = select(wrong, 0.3, method=method, labels=labels, per_class=per_class, skip_unscored=True, **options)
        assert len(kept) == 700
        assert 17 not in kept


@pytest.mark.filterwarnings("ignore:c_d auto is 4")
def test_auto_leaves_out_what_has_no_score() -> None:
    scores = scores_of(1000)
    dual, mean = scores.dual.copy(), scores.mean.copy()
    dual[3], mean[5] = np.nan, np.nan
    wrong = dualfast.Scores(dual=dual, mean=mean)
    rest = np.setdiff1d(np.arange(1000), [3, 5])
    assert beta.auto_c_d(wrong, 0.7) == beta.auto_c_d(dualfast.Scores(dual=dual[rest], mean=mean[rest]), 0.7)
    with pytest.warns(UserWarning, match="c_d auto is"):
        assert len(select(wrong, 0.7, c_d="auto", skip_unscored=True)) == 300
    with pytest.raises(ValueError, match=r"dual\[3\] is nan"):
        select(wrong, 0.7, c_d="auto")
    none = dualfast.Scores(dual=np.full(10, np.nan), mean=np.full(10, np.nan))
    with pytest.raises(ValueError, match="10 such samples of 10"):
        select(none, 0.5, c_d="auto")


@pytest.mark.parametrize("method", ["dual+beta", "dual", "random", "stratified", "ccs"])
def test_a_class_of_which_nothing_may_be_kept(method: str) -> None:
    scores, labels = scores_of(1000), np.arange(1000) % 4
    options = {"score": "dual"} if method == "ccs" else {}
    with pytest.warns(UserWarning, match=r"1 class falls short of the quota: 1 \(125\)"):
        kept = select(
            scores, 0.5, method=method, labels=labels, per_class=True, exclude=np.flatnonzero(labels == 1), **options
        )
    assert len(kept) == 500
    assert 1 not in labels[kept]


def test_numbers_of_numpy_are_numbers() -> None:
    scores = scores_of(100)
    drawn = select(scores, np.float32(0.5), c_d=np.float32(4), seed=np.int64(1), mislabel_cut=np.int64(0))
    assert drawn.tolist() == select(scores, 0.5, c_d=4, seed=1).tolist()
    uniform = select(np.int64(100), 0.5, method="random")
    assert uniform.tolist() == select(100, 0.5, method="random").tolist()
    table = dualfast.ScoreTable(np.int64(10), window=np.int32(4), epochs=np.int64(9))
    assert table.n_samples == 10
    assert type(table.state_dict()["epochs"]) is type(table.state_dict()["window"]) is int  # as weights_only loads
    assert len(dualfast.RandomSubsetSampler(np.int64(100), 0.5)) == 50
    with pytest.raises(ValueError, match=r"strata is 50\.5; give an integer"):
        select(scores, 0.5, method="stratified", strata=50.5)


def test_no_samples_are_named() -> None:
    with pytest.raises(ValueError, match="0 samples"):
        select(0, 0.5, method="random")
    with pytest.raises(ValueError, match="0 samples"):
        select(dualfast.Scores(dual=np.empty(0), mean=np.empty(0)), 0.5)


def test_a_cut_needs_every_aum() -> None:
    aum = np.array([-5, -4, -3, *[np.nan] * 7])
    scores = dualfast.Scores(dual=np.arange(10.0), mean=np.full(10, 0.5), aum=aum)
    with pytest.raises(ValueError, match=r"aum\[3\] is nan"):
        select(scores, 0.5, method="dual", mislabel_cut=2)
    kept = select(scores, 0.5, method="dual", mislabel_cut=2, skip_unscored=True)
    assert kept.tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("method", ["dual+beta", "ccs", "random", "mean"])
def test_a_cut_can_be_what_the_audit_finds(method: str) -> None:
    """60 of 1,000 samples are sure to be of another class than their label's."""
    rng = np.random.default_rng(0)
    labels, wrong = rng.integers(0, 3, 1000), rng.permutation(1000)[:60]
    own = rng.uniform(0.8, 0.99, 1000)
    own[wrong] = rng.uniform(0.01, 0.1, 60)
    margins = np.log(own / (1 - own))
    columns = {"aum": rng.permutation(margins), "late_margin": margins, "aum_prob": 2 * own - 1, "last_mean": own}
    columns |= {"top_other": (labels + 1) % 3, "visits": np.full(1000, 12)}
    scores = dualfast.Scores(dual=own * (1 - own), mean=own, **columns)
    with pytest.warns(UserWarning, match="mislabel_cut auto is 60: 60 labels look wrong$"):
        kept = select(scores, 0.3, method=method, mislabel_cut="auto", labels=labels)
    assert not np.isin(kept, wrong).any()
    assert kept.tolist() == select(scores, 0.3, method=method, mislabel_cut=60).tolist()
    with pytest.warns(UserWarning, match="mislabel_cut auto is 10: 60 labels look wrong, more than the 10 samples"):
        kept = select(scores, 0.01, method=method, mislabel_cut="auto", labels=labels)
    assert sorted({*range(1000)} - {*kept}) == sorted(np.argsort(margins)[:10])


# ---- classes, sets, explain -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dual+beta", "dual", "random", "ccs", "stratified"])
def test_quotas_of_classes(method: str) -> None:
    scores = scores_of(1000)
    labels = np.minimum(np.arange(1000) // 130, 6)
    sizes = np.bincount(labels)
    for per_class, want in ((True, shares(sizes.tolist(), 300)), ("equal", shares([1] * 7, 300))):
        kept = select(scores, 0.7, method=method, labels=labels, per_class=per_class)
        assert np.bincount(labels[kept]).tolist() == want
    given = {0: 100, 3: 130, 6: 70}
    kept = select(scores, 0.7, method=method, labels=labels, per_class=given)
    assert np.bincount(labels[kept], minlength=7).tolist() == [100, 0, 0, 130, 0, 0, 70]
    with pytest.warns(UserWarning, match=r"1 class falls short of the quota: 3 \(20\)"):
        kept = select(scores, 0.7, method=method, labels=labels, per_class={0: 100, 3: 150, 6: 50})
    assert len(kept) == 300
    assert (labels[kept] == 3).sum() == 130


def test_a_class_is_drawn_as_it_would_be_alone() -> None:
    scores = scores_of(60_000)
    labels = np.arange(60_000) % 3
    kept = select(scores, 0.9, labels=labels, per_class=True, seed=9)
    law = beta.beta_of(scores, 0.9)
    for c in range(3):
        ids = np.flatnonzero(labels == c)
        log_w = reference.log_weights(scores.dual[ids], scores.mean[ids], law.a, law.b)
        want = ids[reference.smallest(reference.race_keys(9, ids, log_w), 2000)]
        assert (kept[labels[kept] == c] == want).all()


def test_sets() -> None:
    scores = scores_of(1000)
    plain = select(scores, 0.5)
    out, into = np.array([3, 500, 999]), np.array([0, 1, 998])
    kept = select(scores, 0.5, exclude=out, force=into)
    assert len(kept) == 500
    assert not np.isin(out, kept).any()
    assert np.isin(into, kept).all()
    assert len(np.intersect1d(kept, plain)) > 490  # keys are each sample's own: little else moves
    assert (select(scores, 0.5, among=np.arange(500)) == np.arange(500)).all()
    assert (select(scores, 0.8, among=np.arange(1000) < 400) < 400).all()
    cut = select(scores, 0.1, mislabel_cut=100)
    assert not np.isin(cut, np.argsort(scores.aum)[:100]).any()
    late = dataclasses.replace(scores, late_margin=np.array(scores.aum)[::-1])
    cut = select(late, 0.1, mislabel_cut=100)
    assert not np.isin(cut, 999 - np.argsort(scores.aum)[:100]).any()
    dual = np.array(scores.dual)
    dual[[5, 6]] = np.nan
    kept = select(dualfast.Scores(dual=dual, mean=scores.mean), 0.01, skip_unscored=True)
    assert len(kept) == 990
    assert not np.isin([5, 6], kept).any()
    labels = np.arange(1000) % 2
    kept = select(scores, 0.5, labels=labels, per_class=True, exclude=np.arange(2, 100, 2), force=into)
    assert np.bincount(labels[kept]).tolist() == [250, 250]
    with pytest.warns(UserWarning, match="falls? short"):
        kept = select(scores, 0.5, labels=labels, per_class=True, exclude=np.arange(0, 700, 2))
    assert np.bincount(labels[kept]).tolist() == [150, 350]


def test_explain_says_what_is_drawn() -> None:
    scores = scores_of(20_000)
    labels = np.arange(20_000) % 4
    for ratio in (0.3, 0.7, 0.9):
        told = explain(scores, ratio, labels=labels)
        assert (told.a, told.b) == pytest.approx(reference.beta_parameters(scores.dual, scores.mean, ratio, 4.0))
        draws = [select(scores, ratio, seed=s) for s in range(20)]
        assert told.kept == len(draws[0])
        assert told.expected_mean == pytest.approx(np.mean([scores.mean[k].mean() for k in draws]), abs=0.002)
        assert told.per_class is not None
        counts = np.mean([np.bincount(labels[k]) for k in draws], 0)
        assert list(told.per_class.values()) == pytest.approx(counts.tolist(), rel=0.02)
        assert sum(told.per_class.values()) == pytest.approx(told.kept)
    assert 1 <= told.effective_samples <= 20_000
    flat = dualfast.Scores(dual=np.ones(500), mean=np.full(500, 0.5))
    assert explain(flat, 0.5).effective_samples == pytest.approx(500)


def test_names_of_data_sets_are_the_published_values() -> None:
    rng = np.random.default_rng(0)
    mean = rng.random(2000)
    scores = dualfast.Scores(dual=mean * (1 - mean), mean=mean)
    for name, c_d in (("cifar100", 4), ("imagenet", 11)):
        assert (select(scores, 0.8, c_d=name) == select(scores, 0.8, c_d=c_d)).all()  # type: ignore[arg-type]
        assert explain(scores, 0.8, c_d=name).c_d == c_d  # type: ignore[arg-type]


def test_auto_follows_the_scores() -> None:
    rng = np.random.default_rng(0)
    chosen = []
    for sure in (2, 8):
        mean = rng.beta(sure, 2, 5000)
        scores = dualfast.Scores(dual=mean * (1 - mean) * (0.5 + rng.random(5000)) / 2, mean=mean)
        with pytest.warns(UserWarning, match="c_d auto is"):
            kept = select(scores, 0.7, c_d="auto")
        chosen.append(beta.auto_c_d(scores, 0.7))
        assert (select(scores, 0.7, c_d=chosen[-1]) == kept).all()
        target = mean.mean() + 2 * 0.2**2 * (1 - mean.mean())
        off = {c: abs(explain(scores, 0.7, c_d=c).expected_mean - target) for c in (2, chosen[-1], 11)}
        assert off[chosen[-1]] <= min(off.values()) + 0.005
        assert beta.auto_c_d(scores, 0.05) == 4  # nothing to choose where nearly all are kept
    mean = rng.beta(9, 1, 5000)  # sure of nearly all: never nearer the easy end than 4 r - 1
    sure_of_most = dualfast.Scores(dual=mean * (1 - mean), mean=mean)
    assert [beta.auto_c_d(sure_of_most, ratio) for ratio in (0.7, 0.8, 0.9)] == [2, 2.25, 2.75]
    assert chosen[0] > chosen[1]  # a surer network: less far to the hard end


# ---- bad input ------------------------------------------------------------------------------------------------------

GOOD = np.full(100, 0.5)


def _with(value: float, name: str = "dual") -> dualfast.Scores:
    columns = {"dual": GOOD.copy(), "mean": GOOD.copy()}
    columns.setdefault(name, GOOD.copy())[[7, 9]] = value
    return dualfast.Scores(**columns)


@pytest.mark.parametrize(
    ("scores", "ratio", "given", "error", "says"),
    [
        (_with(math.nan), 0.5, {}, ValueError, r"dual\[7\] is nan .*2 such samples of 100"),
        (_with(-1.0), 0.5, {}, ValueError, r"dual\[7\] is -1"),
        (_with(math.inf), 0.5, {}, ValueError, r"dual\[7\] is inf"),
        (_with(math.nan, "mean"), 0.5, {}, ValueError, r"mean\[7\] is nan"),
        (_with(1.1, "mean"), 0.5, {}, ValueError, r"mean\[7\] is 1.1"),
        (_with(-0.1, "mean"), 0.5, {}, ValueError, r"mean\[7\] is -0.1"),
        (_with(math.nan), 0.5, {"method": "dual"}, ValueError, r"dual\[7\] is nan"),
        (_with(math.nan), 0.5, {"method": "stratified"}, ValueError, r"dual\[7\] is nan"),
        (_with(math.nan), 0.5, {"exclude": [1]}, ValueError, r"dual\[7\] is nan"),
        (
            _with(math.nan),
            0.01,
            {"skip_unscored": True},
            ValueError,
            "keeps 99 of 100 samples, but 0 are forced and 98",
        ),
        (_with(0.5), 1.0, {}, ValueError, "prune_ratio is 1.0"),
        (_with(0.5), -0.1, {}, ValueError, "prune_ratio is -0.1"),
        (_with(0.5), math.nan, {}, ValueError, "prune_ratio is nan"),
        (_with(0.5), "0.5", {}, TypeError, "prune_ratio is '0.5'"),
        (_with(0.5), True, {}, TypeError, "prune_ratio is True"),
        (_with(0.5), 0.5, {"seed": -1}, ValueError, "seed is -1"),
        (_with(0.5), 0.5, {"seed": 2**64}, ValueError, "seed is 18446744073709551616"),
        (_with(0.5), 0.5, {"seed": 1.0}, TypeError, "seed is 1.0"),
        (_with(0.5), 0.5, {"c_d": 0}, ValueError, "c_d is 0"),
        (_with(0.5), 0.5, {"c_d": math.nan}, ValueError, "c_d is nan"),
        (_with(0.5), 0.5, {"c_d": "4"}, ValueError, "c_d is '4'; .*auto, cifar100 or imagenet"),
        (_with(0.5), 0.5, {"c_d": "cifar10"}, ValueError, "c_d is 'cifar10', .*give c_d=5.5"),
        (_with(0.5), 0.5, {"method": "best"}, ValueError, "method is 'best'"),
        (_with(0.5), 0.5, {"method": "el2n"}, ValueError, "no el2n"),
        (
            _with(0.5),
            0.5,
            {"method": "ccs"},
            ValueError,
            r"no aum_prob; .*ScoreTable\(track_aum_prob=True\), or .*'aum'",
        ),
        (_with(0.5), 0.5, {"method": "ccs", "score": "loss"}, ValueError, r"no loss; .*ScoreTable\(track_loss=True\)"),
        (_with(1.5, "aum_prob"), 0.5, {"method": "ccs"}, ValueError, r"aum_prob\[7\] is 1.5 \(out of its range\)"),
        (_with(0.5), 0.5, {"keep": "low"}, ValueError, "no option 'keep'"),
        (_with(0.5), 0.5, {"method": "dual", "keep": "both"}, ValueError, "keep is 'both'"),
        (_with(0.5), 0.5, {"method": "ccs", "score": "dual", "mis_ratio": 1}, ValueError, "mis_ratio is 1"),
        (_with(0.5), 0.5, {"method": "ccs", "score": "dual", "strata": 0}, ValueError, "strata is 0"),
        (_with(0.5), 0.5, {"method": "stratified", "strata": 10**12}, ValueError, "strata is 1000000000000; give"),
        (_with(0.5), 0.5, {"per_class": True}, ValueError, "needs the samples"),
        (_with(0.5), 0.5, {"per_class": {0.5: 50}}, TypeError, "a class of per_class is 0.5; give an integer"),
        (_with(0.5), 0.5, {"per_class": {0: 49.9}}, TypeError, r"per_class\[0\] is 49.9; give an integer"),
        (_with(0.5), 0.5, {"per_class": {0: -1}}, ValueError, r"per_class\[0\] is -1; give an integer from 0"),
        (_with(0.5), 0.5, {"per_class": True, "labels": np.zeros(99, int)}, ValueError, r"shape \(99,\)"),
        (_with(0.5), 0.5, {"per_class": True, "labels": GOOD}, ValueError, "float64"),
        (_with(0.5), 0.5, {"per_class": "same", "labels": np.zeros(100, int)}, ValueError, "per_class is 'same'"),
        (
            _with(0.5),
            0.5,
            {"per_class": {0: 49}, "labels": np.zeros(100, int)},
            ValueError,
            "add up to 49; .* keeps 50",
        ),
        (_with(0.5), 0.5, {"per_class": {1: 50}, "labels": np.zeros(100, int)}, ValueError, "the class 1"),
        (_with(0.5), 0.5, {"among": np.arange(20)}, ValueError, "keeps 50 of 100 samples, but 0 are forced and 20"),
        (_with(0.5), 0.5, {"force": np.arange(60)}, ValueError, "60 are forced"),
        (_with(0.5), 0.5, {"force": [100]}, ValueError, r"force\[0\] is 100; .* samples 0 to 99"),
        (_with(0.5), 0.5, {"exclude": [-1]}, ValueError, r"exclude\[0\] is -1"),
        (_with(0.5), 0.5, {"exclude": [0.5]}, TypeError, "exclude is float64; give integers or a boolean mask"),
        (_with(0.5), 0.5, {"exclude": [1], "force": [1]}, ValueError, "sample 1 is both"),
        (_with(0.5), 0.5, {"labels": [0, 1, 2]}, ValueError, r"labels have shape \(3,\) .*; give \(100,\)"),
        (_with(0.5), 0.5, {"labels": np.arange(101)}, ValueError, r"labels have shape \(101,\) .*; give \(100,\)"),
        (_with(0.5), 0.5, {"mislabel_cut": 5}, ValueError, "no aum"),
        (_with(0.5), 0.5, {"mislabel_cut": 100}, ValueError, "mislabel_cut is 100"),
        (_with(0.5), 0.5, {"mislabel_cut": -1}, ValueError, "mislabel_cut is -1; give a number of samples, or auto"),
        (_with(0.5), 0.5, {"mislabel_cut": "all"}, ValueError, "mislabel_cut is 'all'; give a number of samples, or"),
        (_with(0.5), 0.5, {"mislabel_cut": "auto"}, ValueError, "'auto', and the labels are not known; give labels"),
        (100, 0.5, {}, TypeError, "scores is 100"),
    ],
)
def test_bad_input(scores: Any, ratio: Any, given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        select(scores, ratio, **given)


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="mean has 99 samples and dual has 100"):
        dualfast.Scores(dual=GOOD, mean=GOOD[1:])
    with pytest.raises(ValueError, match="mean"):
        select(type("Plain", (), {"dual": GOOD, "mean": GOOD[1:]})(), 0.5)

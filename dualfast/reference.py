"""The specification: every operation of dualfast in plain float64 NumPy.

Nothing here is fast and nothing here is clever. The compiled paths are tested against these functions, and these
against closed forms and scipy.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from itertools import permutations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

# ---- scores ---------------------------------------------------------------------------------------------------------


# ---- selection ------------------------------------------------------------------------------------------------------

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

MEAN_EDGE = 1e-12  # a mean of 0 or 1 would make the Beta density 0 or infinite
ZERO_WEIGHT_KEY = 2000.0  # beyond the key of any positive weight


def kept_count(n_samples: int, prune_ratio: float) -> int:
    """(1 - prune_ratio) * n_samples in decimal, rounded half up."""
    exact = (1 - Decimal(repr(float(prune_ratio)))) * n_samples
    return int(exact.to_integral_value(ROUND_HALF_UP))


def shares(sizes: list[int], n: int) -> list[int]:
    """n in proportion to sizes: everybody gets the floor, the largest remainders one more."""
    quotas = [n * size // sum(sizes) for size in sizes]
    remainders = [(-(n * size % sum(sizes)), at) for at, size in enumerate(sizes)]
    for _, at in sorted(remainders)[: n - sum(quotas)]:
        quotas[at] += 1
    return quotas


def beta_parameters(dual: Floats, mean: Floats, prune_ratio: float, c_d: float) -> tuple[float, float]:
    """(a, b) of Beta sampling: b = K (1 - mu)(1 - r^c_d), a = K + 1 - b, K = 15, mu the average mean of the ten
    samples with the highest dual (arXiv 2502.06905)."""
    hardest = sorted(range(len(dual)), key=lambda i: (-dual[i], i))[:10]
    mu = sum(float(mean[i]) for i in hardest) / len(hardest)
    b = 15 * (1 - mu) * (1 - prune_ratio**c_d)
    b = min(max(b, 1e-6), 16 - 1e-6)
    return 16 - b, b


def log_weights(score: Floats, mean: Floats | None = None, a: float = 1.0, b: float = 1.0) -> Floats:
    """log(score * mean^(a-1) * (1-mean)^(b-1)), the Beta density without its constant; -inf for a score of 0."""
    with np.errstate(divide="ignore"):
        out = np.log(np.asarray(score, np.float64))
    if mean is None:
        return out
    mean = np.asarray(mean, np.float64)
    easy = np.log(np.maximum(mean, MEAN_EDGE))
    hard = np.log(np.maximum(1 - mean, MEAN_EDGE))
    return out + ((a - 1) * easy + (b - 1) * hard)


def philox4x32(counter: NDArray[np.uint32], key: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Philox4x32-10 of counters (n, 4) and a key (2,): (n, 4) random words (Salmon et al., SC 2011)."""
    c = np.asarray(counter, np.uint64).T
    k = np.asarray(key, np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = np.stack([(b >> half) ^ c[1] ^ k[0], b & low, (a >> half) ^ c[3] ^ k[1], a & low])
        k = (k + np.array([0x9E3779B9, 0xBB67AE85], np.uint64)) & low
    return c.T.astype(np.uint32)


def uniforms(seed: int, ids: Ints) -> Floats:
    """u in (0, 1) of every id: 53 bits of Philox with counter (id low, id high, 0, "SELE") and key seed, and a half."""
    ids = np.asarray(ids, np.int64).astype(np.uint64)
    counter = np.zeros((len(ids), 4), np.uint32)
    counter[:, 0], counter[:, 1] = ids & np.uint64(0xFFFFFFFF), ids >> np.uint64(32)
    counter[:, 3] = 0x53454C45
    words = philox4x32(counter, np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)).astype(np.uint64)
    bits = (words[:, 0] << np.uint64(21)) | (words[:, 1] >> np.uint64(11))
    return (bits.astype(np.float64) + 0.5) * 2.0**-53


def race_keys(seed: int, ids: Ints, log_weights: Floats) -> Floats:
    """log(-log u) - log w: the n smallest are a draw without replacement with weights w (Efraimidis and Spirakis,
    2006). Weights of zero come after all others, in a race of their own."""
    gumbel = np.log(-np.log(uniforms(seed, ids)))
    return gumbel - np.where(np.isneginf(log_weights), -ZERO_WEIGHT_KEY, log_weights)


def smallest(keys: Floats, n: int) -> Ints:
    """Positions of the n smallest keys, ascending; ties go to the lower position."""
    return np.sort(np.argsort(keys, kind="stable")[:n])


def ccs(column: Floats, ids: Ints, n: int, *, seed: int, mis_ratio: float = 0.0, strata: int = 50) -> Ints:
    """Coverage-centric selection (arXiv 2210.15809): drop the floor(mis_ratio * N) lowest (never so many that fewer
    than n stay), cut the rest into strata of equal width, and go from the smallest stratum up: each takes an equal
    share of what is left to take, or all it has, uniformly."""
    drop = min(int(mis_ratio * len(ids)), len(ids) - n)
    rest = np.sort(np.argsort(column, kind="stable")[drop:])
    column, ids = column[rest], ids[rest]
    width = (column.max() - column.min()) / strata or 1.0
    stratum = np.minimum(((column - column.min()) / width).astype(np.int64), strata - 1)
    kept: list[int] = []
    groups = sorted((ids[stratum == s] for s in np.unique(stratum)), key=len)
    for at, group in enumerate(groups):
        take = min(len(group), (n - len(kept)) // (len(groups) - at))
        kept.extend(group[smallest(race_keys(seed, group, np.zeros(len(group))), take)].tolist())
    return np.sort(np.array(kept, np.int64))


def stratified(column: Floats, ids: Ints, n: int, *, seed: int, strata: int = 50) -> Ints:
    """Strata of equal size along a score (the earlier take what does not divide), of each its share of n by largest
    remainder, uniformly (Neyman, 1934)."""
    groups = [group for group in np.array_split(np.argsort(column, kind="stable"), strata) if len(group)]
    kept: list[int] = []
    for group, take in zip(groups, shares([len(g) for g in groups], n), strict=True):
        keys = race_keys(seed, ids[group], np.zeros(len(group)))
        order = sorted(range(len(group)), key=lambda i: (keys[i], i))
        kept.extend(ids[group[order[:take]]].tolist())
    return np.sort(np.array(kept, np.int64))


def inclusion(weights: Floats, n: int) -> Floats:
    """Exact inclusion probabilities of n successive draws without replacement, over all orders: for tiny N."""
    out = np.zeros(len(weights))
    for order in permutations(range(len(weights)), n):
        p, left = 1.0, float(weights.sum())
        for i in order:
            p *= weights[i] / left
            left -= weights[i]
        out[list(order)] += p
    return out

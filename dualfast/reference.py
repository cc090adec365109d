"""The specification: every operation of dualfast in plain float64 NumPy.

Nothing here is fast and nothing here is clever. The compiled paths are tested against these functions, and these
against closed forms and scipy.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# ---- scores ---------------------------------------------------------------------------------------------------------


def cross_entropy(
    logits: Any,
    targets: Any,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    mean: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Loss of each row (B,), gradient (B, C) of their sum (mean: over the denominator), and the denominator.

    loss_i = (1 - s) w_y (-log p_y) + s / C sum_c w_c (-log p_c) with p = softmax(logits_i) and s the label smoothing;
    the denominator is the sum of w_y. Rows with ignore_index have a loss and gradient of 0 and no share in it.
    """
    z = np.asarray(logits, np.float64)
    y = np.asarray(targets)
    rows, classes = z.shape
    w = np.ones(classes) if weight is None else np.asarray(weight, np.float64)
    loss, grad, denominator = np.zeros(rows), np.zeros((rows, classes)), 0.0
    for i in range(rows):
        if y[i] == ignore_index:
            continue
        share = np.full(classes, label_smoothing / classes) * w  # what each -log p_c counts
        share[y[i]] += (1 - label_smoothing) * w[y[i]]
        log_p = log_softmax(z[i])
        loss[i] = -(share * log_p).sum()
        grad[i] = share.sum() * np.expm1(log_p) + (share.sum() - share)
        denominator += w[y[i]]
    return loss, grad / denominator if mean and denominator else grad, denominator


def log_softmax(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """log softmax of one row, exact to the last bits for the largest class too."""
    best = row.argmax()
    shifted = row - row[best]
    return np.asarray(shifted - np.log1p(np.exp(np.delete(shifted, best)).sum()))


@dataclass(frozen=True)
class Visit:
    """What a sample shows in one visit: true-class probability, logit margin, EL2N, entropy (nats), argmax is true."""

    p: float
    margin: float
    el2n: float
    entropy: float
    correct: bool


def visit(logits: Any, target: int) -> Visit | None:
    """The by-products of one row of logits (C,); None when its loss is not finite, which is a visit not recorded.

    The margin is the true logit minus the largest other one; a tie is not correct. EL2N is the L2 norm of softmax minus
    one-hot.
    """
    z = np.asarray(logits, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        log_p = log_softmax(z)
        p = np.exp(log_p)
    if not np.isfinite(log_p[target]):
        return None
    wrong = np.delete(p, target)
    best = np.delete(z, target).max(initial=-np.inf)
    entropy = -(p * np.where(p > 0, log_p, 0.0)).sum()
    el2n = np.sqrt((wrong**2).sum() + wrong.sum() ** 2)
    return Visit(float(p[target]), float(z[target] - best), float(el2n), float(entropy), bool(z[target] > best))


def scores(visits: list[Visit], *, window: int = 10, epochs: int | None = None) -> dict[str, float]:
    """The scores of one sample from its visits in order, of which the first `epochs` count.

    dual: mean over the windows of J visits of std (J - 1 below) times 1 - mean of p (arXiv 2502.06905); dyn_unc: of std
    alone (arXiv 2306.05175); el2n: over the first ten visits (arXiv 2107.07075); forgetting: correct to wrong
    transitions, or visits + 1 when never correct (arXiv 1812.05159); aum: mean margin (arXiv 2001.10528); entropy: of
    the last visit. NaN where there are too few visits.
    """
    seen = visits[:epochs]
    p = np.array([v.p for v in seen])
    windows = [p[k : k + window] for k in range(len(p) - window + 1)]
    forgotten = sum(a.correct and not b.correct for a, b in itertools.pairwise(seen))
    if not seen:
        return dict.fromkeys(("dual", "dyn_unc", "mean", "aum", "el2n", "entropy", "forgetting"), np.nan) | {
            "visits": 0
        }
    return {
        "dual": float(np.mean([w.std(ddof=1) * (1 - w.mean()) for w in windows])) if windows else np.nan,
        "dyn_unc": float(np.mean([w.std(ddof=1) for w in windows])) if windows else np.nan,
        "mean": float(p.mean()),
        "aum": float(np.mean([v.margin for v in seen])),
        "el2n": float(np.mean([v.el2n for v in seen[:10]])),
        "entropy": seen[-1].entropy,
        "forgetting": float(forgotten if any(v.correct for v in seen) else len(seen) + 1),
        "visits": len(seen),
    }


# ---- selection ------------------------------------------------------------------------------------------------------

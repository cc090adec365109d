"""Pictures and the page of a run."""

from __future__ import annotations

from typing import Any

import numpy as np


def summarise(rows: list[dict[str, Any]]) -> list[list[str]]:

    out = []
    for k in sorted({(r["prune_ratio"], r["method"]) for r in rows}):
        R = [r for r in rows if (r["prune_ratio"], r["method"]) == k]
        a = [100 * r["accuracy"] for r in R]
        out.append(
            [
                f"{k[0]:g}",
                str(R[0]["kept"]),
                k[1],
                f"{np.mean(a):.2f}",
                f"{np.std(a):.2f}",
                f"{100 * np.mean([r['best_accuracy'] for r in R]):.2f}",
                f"{np.mean([r['score_seconds'] for r in R]):.1f}",
                f"{np.mean([r['train_seconds'] for r in R]):.1f}",
                str(len(R)),
            ]
        )
    return out

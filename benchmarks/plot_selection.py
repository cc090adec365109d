"""Draws docs/selection.png: how the prune ratio moves the Beta density and the kept set, for the scores of a run.

python benchmarks/plot_selection.py runs/cifar10/scores.parquet [--c-d 4] [--out docs/selection.png]
"""

from __future__ import annotations

import argparse

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from dualfast import Scores, select
from dualfast.report.figures import beta_density
from dualfast.selection.beta import beta_of

RATIOS = (0.3, 0.5, 0.7, 0.8, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scores")
    parser.add_argument("--c-d", type=float, default=4.0)
    parser.add_argument("--out", default="docs/selection.png")
    args = parser.parse_args()
    scores = Scores.load(args.scores)
    x = np.linspace(0.001, 0.999, 500)
    edges = np.linspace(0, 1, 51)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(RATIOS)))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    left.hist(scores.mean, edges, color="0.85")
    right.hist(scores.mean, edges, color="0.85", label="all images")
    density = left.twinx()
    for ratio, colour in zip(RATIOS, colours, strict=True):
        beta = beta_of(scores, ratio, args.c_d)
        density.plot(x, beta_density(x, beta.a, beta.b), color=colour)
        kept = select(scores, ratio, c_d=args.c_d)
        counts, _ = np.histogram(scores.mean[kept], edges)
        right.stairs(counts, edges, color=colour, linewidth=1.6, label=f"r = {ratio}: {len(kept):,} kept")
    left.set(xlabel="prediction mean", ylabel="images", title="Beta density over the prediction means")
    density.set_ylabel("density")
    density.set_ylim(0)
    right.set(xlabel="prediction mean", ylabel="images", title="What is kept")
    right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(args.out, dpi=110)
    print(f"{args.out}: {len(scores):,} images, c_d {args.c_d:g}")


if __name__ == "__main__":
    main()

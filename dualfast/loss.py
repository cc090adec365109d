"""DualLoss: cross-entropy that scores every sample on the way."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from dualfast import ops
from dualfast.table import Scores, ScoreTable

Reduction = Literal["mean", "sum", "none"]


HALF_HEADROOM = 1024.0  # float16 gradients are rounded so many times larger, and shrunk when the loss scale is known


class _Fused(torch.autograd.Function):
    """The gradient is formed in the forward pass; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor, options: dict[str, Any]
    ) -> Any:
        reduction = options["reduction"]
        ctx.headroom = HALF_HEADROOM if logits.dtype == torch.float16 else 1.0
        loss, grad, denominator = ops.step(
            logits,
            targets,
            index,
            options["lines"],
            backend=options["backend"],
            mean=reduction == "mean",
            scale=ctx.headroom,
            weight=options["weight"],
            label_smoothing=options["label_smoothing"],
            ignore_index=options["ignore_index"],
            with_grad=ctx.needs_input_grad[0],
        )
        ctx.grad = grad
        ctx.keeps = ops.runs_on(logits, options["backend"]) == "torch"
        if reduction == "none":
            return loss
        total = loss.sum()
        return total / denominator if reduction == "mean" and len(logits) else total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        grad = ctx.grad
        if ctx.headroom != 1:
            upstream = upstream / ctx.headroom
        if ctx.keeps:  # the plain path may go backward twice, as gradcheck does
            return grad * (upstream[:, None] if upstream.ndim else upstream), None, None, None
        ctx.grad = None  # autograd copies a gradient that somebody else still holds
        if grad is None:
            raise RuntimeError("backward through the same DualLoss twice; the gradient is kept for one pass only")
        return ops.scale_grad(grad, upstream), None, None, None


class DualLoss(nn.Module):
    """torch.nn.CrossEntropyLoss that also records every sample's visit in `table`: loss = criterion(logits, targets,
    index).

    logits (B, C) floating point, targets (B,) int64, index (B,) int64 in [0, table.n_samples): the samples' rows in the
    data set. label_smoothing, weight (C,), ignore_index and reduction as in torch.nn.functional.cross_entropy; the
    scores are those of the plain softmax. The loss is float32. An empty batch gives 0. backend "auto" runs C++ on CPU
    tensors and Triton on CUDA tensors; "cpp", "triton" and "torch" ask for one and raise when it cannot run.
    """

    def __init__(
        self,
        table: ScoreTable,
        *,
        label_smoothing: float = 0.0,
        weight: torch.Tensor | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if not isinstance(table, ScoreTable):
            raise TypeError(f"table is a {type(table).__name__}; give a dualfast.ScoreTable")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; give a number in [0, 1]")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction is {reduction!r}; give mean, sum or none")
        ops.pick_backend(backend, table.lines.device)
        self.table = table
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.backend = backend
        self.weight: torch.Tensor | None
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        lines, rows = self.table.place(index)
        options = {
            "lines": lines,
            "backend": self.backend,
            "weight": self.weight,
            "label_smoothing": self.label_smoothing,
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
        }
        loss: torch.Tensor = _Fused.apply(logits, targets, rows, options)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def observe(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> None:
        """Records the visits without a loss: for mixup, CutMix or a clean second forward pass."""
        lines, rows = self.table.place(index)
        ops.step(
            logits,
            targets,
            rows,
            lines,
            backend=self.backend,
            ignore_index=self.ignore_index,
            with_grad=False,
        )


def score_trajectories(probs: Any, *, window: int = 10, epochs: int | None = None) -> Scores:
    """Scores from someone else's training log: probs (T, N), the true-class probability of each sample at each epoch.

    NaN marks an epoch that missed the sample. Gives dual, dyn_unc, mean and visits; the other scores need the logits
    and are None. Raises ValueError for another shape, a probability outside [0, 1], or T < window.
    """
    probs = np.asarray(probs)
    if probs.ndim != 2 or probs.dtype.kind != "f":
        raise ValueError(
            f"probs have shape {probs.shape} and dtype {probs.dtype}; give (epochs, samples) floating point"
        )
    n_epochs, n_samples = probs.shape
    if n_epochs < window:
        raise ValueError(
            f"probs hold {n_epochs} epochs and window is {window}: DUAL needs at least as many; lower window"
        )
    with np.errstate(invalid="ignore"):
        bad = (probs < 0) | (probs > 1)
    if bad.any():
        t, i = np.argwhere(bad)[0]
        raise ValueError(f"probs[{t}, {i}] is {probs[t, i]}; probabilities lie in [0, 1]")
    table = ScoreTable(n_samples, window=window, epochs=epochs)
    index, zeros = torch.arange(n_samples), torch.zeros(n_samples)
    wrong = torch.zeros(n_samples, dtype=torch.bool)
    for row in probs:
        p = torch.from_numpy(np.ascontiguousarray(row, dtype=np.float32))
        seen = torch.isfinite(p)
        ops.observe(table.as_lines(), index, p=p, margin=zeros, el2n=zeros, entropy=zeros, correct=wrong, counted=seen)
    scores = table.scores()
    return Scores(dual=scores.dual, dyn_unc=scores.dyn_unc, mean=scores.mean, visits=scores.visits)

"""DualLoss: cross-entropy that scores every sample on the way."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from dualfast import ops
from dualfast.errors import UnsupportedBackward
from dualfast.ops import torch_ops as torch_ops  # registers torch.ops.dualfast
from dualfast.scoring.table import Scores, ScoreTable

Reduction = Literal["mean", "sum", "none"]


HALF_HEADROOM = 1024.0  # float16 gradients are rounded so many times larger, and shrunk when the loss scale is known


def dual_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    table: ScoreTable,
    *,
    label_smoothing: float = 0.0,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    backend: str = "auto",
    by_products: bool = True,
    inplace: bool = False,
) -> torch.Tensor:
    """torch.nn.functional.cross_entropy that also records every sample's visit in `table`.

    logits (B, C) floating point, targets (B,) int64, index (B,) int64 in [0, table.n_samples): the samples' rows in the
    data set. label_smoothing, weight (C,), ignore_index and reduction as in torch.nn.functional.cross_entropy; the
    scores are those of the plain softmax. The loss is float32. An empty batch gives 0. backend "auto" runs C++ on CPU
    tensors and Triton on CUDA tensors; "cpp", "triton" and "torch" ask for one and raise when it cannot run.

    by_products=False leaves out aum, el2n and entropy. inplace=True writes the gradient over the logits, where their
    columns are adjacent: nobody, autograd included, may need the logits afterwards.

    A sample that comes twice in an epoch has two visits; twice in one batch it has one, that of its first row. Rows
    with ignore_index are no visits, whatever their index. On CUDA nothing waits for the device: an index or a target
    out of range is counted there, and ScoreTable.scores() raises the ValueError; with DUALFAST_DEBUG=1 in the
    environment the step itself does.
    """
    _check_options(table, label_smoothing, reduction)
    if not by_products:
        table.by_products = False
    seen = logits.detach().clone() if inplace and table.tdds is not None else logits
    options: dict[str, Any] = {"backend": backend, "reduction": reduction, "label_smoothing": label_smoothing}
    options |= {"ignore_index": ignore_index, "by_products": by_products}
    loss: torch.Tensor
    if torch.compiler.is_compiling():
        if not table.traceable:
            raise ValueError(f"a {type(table).__name__} records outside torch.compile; leave the loss out of it")
        loss = _traced(logits, targets, index, table, weight, inplace, options)
    else:
        lines, rows = table.place(index)
        options |= {"lines": lines, "weight": weight, "inplace": inplace}
        loss = _Fused.apply(logits, targets, rows, options)  # type: ignore[no-untyped-call]
    if table.tdds is not None:
        table.tdds.record(seen, targets, index, table.status, ignore_index)
    return loss


def _check_options(table: ScoreTable, label_smoothing: float, reduction: str) -> None:
    if not isinstance(table, ScoreTable):
        raise TypeError(f"table is a {type(table).__name__}; give a dualfast.ScoreTable")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; give a number in [0, 1]")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; give mean, sum or none")


def _headroom(logits: torch.Tensor, weight: torch.Tensor | None, options: dict[str, Any]) -> float:
    """1 where class weights, which no sum of them divides, may leave no room above them."""
    weighted = weight is not None and (options["reduction"] != "mean" or options["label_smoothing"] > 0)
    return HALF_HEADROOM if logits.dtype == torch.float16 and not weighted else 1.0


class _Fused(torch.autograd.Function):
    """The gradient is formed in the forward pass; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: torch.Tensor,
        index: torch.Tensor,
        options: dict[str, Any],
    ) -> Any:
        ctx.headroom = _headroom(logits, options["weight"], options)
        ctx.keeps = ops.runs_on(logits, options["backend"]) == "torch"
        loss, ctx.grad = ops.step(
            logits, targets, index, scale=ctx.headroom, with_grad=ctx.needs_input_grad[0], **options
        )
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable says the same and costs 9 us
            raise UnsupportedBackward("DualLoss has no second derivative; call backward without create_graph=True")
        grad = ctx.grad
        if ctx.headroom != 1:
            upstream = upstream / ctx.headroom
        if ctx.keeps:  # the plain path may go backward twice, as gradcheck does
            return grad * (upstream[:, None] if upstream.ndim else upstream), None, None, None
        ctx.grad = None  # autograd copies a gradient that somebody else still holds
        if grad is None:
            raise UnsupportedBackward(
                "backward through the same DualLoss twice; the gradient is kept for one pass only"
            )
        return ops.scale_grad(grad, upstream), None, None, None


class _Scaled(torch.autograd.Function):
    """The loss, whose gradient by the logits is known."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, loss: torch.Tensor, grad: torch.Tensor, headroom: float) -> Any:
        ctx.save_for_backward(grad)
        ctx.headroom = headroom
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        (grad,) = ctx.saved_tensors
        upstream = upstream / ctx.headroom
        return (grad * (upstream[:, None] if upstream.ndim else upstream)).to(grad.dtype), None, None, None


def _traced(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    table: ScoreTable,
    weight: torch.Tensor | None,
    inplace: bool,
    options: dict[str, Any],
) -> torch.Tensor:
    """The same under torch.compile: the step is one opaque operator, backward is fused into the graph around it."""
    z, with_grad = logits.detach(), torch.is_grad_enabled() and logits.requires_grad
    options |= {"scale": _headroom(logits, weight, options), "window": table.window, "limit": table.limit}
    arguments = (z, targets, index, weight, table.lines, table.status, table.loss_sums)
    if inplace and with_grad:
        grad = z
        loss = torch.ops.dualfast.step_(*arguments, **options)
    else:
        loss, grad = torch.ops.dualfast.step(*arguments, with_grad=with_grad, **options)
    if with_grad:
        loss = _Scaled.apply(logits, loss, grad, options["scale"])  # type: ignore[no-untyped-call]
    return loss  # type: ignore[no-any-return]


class DualLoss(nn.Module):
    """torch.nn.CrossEntropyLoss that also records every sample's visit in `table`: loss = criterion(logits, targets,
    index).

    Arguments, errors and what counts as a visit as in dualfast.dual_loss. Works under torch.compile(fullgraph=True).
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
        by_products: bool = True,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        _check_options(table, label_smoothing, reduction)
        ops.pick_backend(backend, table.lines.device)
        self.table = table
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction
        self.backend = backend
        self.by_products = by_products
        self.inplace = inplace
        self.weight: torch.Tensor | None
        self.register_buffer("weight", weight)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return dual_loss(
            logits,
            targets,
            index,
            self.table,
            label_smoothing=self.label_smoothing,
            weight=self._buffers["weight"],  # a third of the time of self.weight
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            backend=self.backend,
            by_products=self.by_products,
            inplace=self.inplace,
        )

    @torch.no_grad()
    def observe(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> None:
        """Records the visits without a loss: for mixup, CutMix or a clean second forward pass."""
        dual_loss(
            logits.detach(),  # else a gradient would be formed, for nobody
            targets,
            index,
            self.table,
            ignore_index=self.ignore_index,
            reduction="none",
            backend=self.backend,
            by_products=self.by_products,
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

"""DualLoss: cross-entropy that also scores every sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dualfast import ops
from dualfast.errors import UnsupportedBackward
from dualfast.ops import Reduction as Reduction
from dualfast.ops import torch_ops as torch_ops  # registers torch.ops.dualfast
from dualfast.scoring.table import ScoreTable

HALF_HEADROOM = 1024.0  # float16 gradients are rounded at this scale, and divided by it once the loss scale is known


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
    tensors and Triton on CUDA tensors; "cpp", "triton" and "torch" select one and raise when it cannot run.

    by_products=False leaves out aum, aum_prob, el2n and entropy: ScoreTable.scores() gives None for them once a
    recorded visit lacks them. inplace=True writes the gradient over the logits, if their columns are adjacent and no
    two rows share memory: nothing, autograd included, may need the logits afterwards.

    A sample that comes twice in an epoch has two visits; twice in one batch it has one, that of its first row. Rows
    with ignore_index are not visits, whatever their index. On CUDA nothing waits for the device: an index or a target
    out of range is counted there, and ScoreTable.scores() raises the ValueError; with DUALFAST_DEBUG=1 in the
    environment the step itself does.
    """
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits is a {type(logits).__name__}; give a tensor")
    _check(table, by_products)
    seen = logits.detach().clone() if inplace and table.tdds is not None else logits
    with_grad = torch.is_grad_enabled() and logits.requires_grad
    scale = 1.0
    if logits.dtype == torch.float16:
        scale = _headroom(weight, label_smoothing, reduction)
    # The arguments of StepOptions, in its order.
    how = (backend, reduction, label_smoothing, ignore_index, by_products, inplace, with_grad, scale)
    loss: torch.Tensor
    if torch.compiler.is_compiling():
        loss = _traced(logits, targets, index, table, weight, *how)
    else:
        options = ops.step_options(*how)
        lines, rows, observations = table.place(index)
        loss = _Fused.apply(logits, targets, rows, weight, lines, observations, options)  # type: ignore[no-untyped-call]
        if observations is not None:
            table.take(rows, observations)
    if table.tdds is not None:
        table.tdds.record(seen, targets, index, table.status, ignore_index)
    return loss


def _check(table: ScoreTable, by_products: bool) -> None:
    if not isinstance(table, ScoreTable):
        raise TypeError(f"table is a {type(table).__name__}; give a dualfast.ScoreTable")
    if table.trajectories is not None and not by_products:
        raise ValueError("by_products is False and the table keeps trajectories, which need the margin; give True")


def _headroom(weight: torch.Tensor | None, label_smoothing: float, reduction: str) -> float:
    """The scale of float16 gradients: 1 where class weights are not divided by their sum and may be large."""
    weighted = weight is not None and (reduction != "mean" or label_smoothing > 0)
    return 1.0 if weighted else HALF_HEADROOM


class _Fused(torch.autograd.Function):
    """The gradient is formed in the forward pass; backward only scales it."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        targets: torch.Tensor,
        index: torch.Tensor,
        weight: torch.Tensor | None,
        lines: ops.Lines | None,
        observations: ops.Observations | None,
        options: ops.StepOptions,
    ) -> Any:
        ctx.options = options
        ctx.keeps_grad = ops.runs_on(logits, options.backend) == "torch"
        loss, ctx.grad = ops.step(logits, targets, index, lines, options, weight=weight, observations=observations)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable says the same and costs 9 us
            raise UnsupportedBackward("DualLoss has no second derivative; call backward without create_graph=True")
        grad = ctx.grad
        if ctx.options.scale != 1:
            upstream = upstream / ctx.options.scale
        if ctx.keeps_grad:  # the torch back end allows a second backward, as gradcheck does
            return grad * (upstream[:, None] if upstream.ndim else upstream), *NO_GRADIENTS
        ctx.grad = None  # autograd copies a gradient that is referenced elsewhere
        if grad is None:
            raise UnsupportedBackward(
                "backward through the same DualLoss twice; the gradient is kept for one pass only"
            )
        return ops.scale_grad(grad, upstream), *NO_GRADIENTS


NO_GRADIENTS = (None,) * 6  # for the arguments of _Fused after the logits


class _Scaled(torch.autograd.Function):
    """The loss, whose gradient with respect to the logits is already known."""

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
    backend: str,
    reduction: str,
    label_smoothing: float,
    ignore_index: int,
    by_products: bool,
    inplace: bool,
    with_grad: bool,
    scale: float,
) -> torch.Tensor:
    """The same under torch.compile: the step is one opaque operator, backward is fused into the graph around it."""
    ops.check_options(label_smoothing, reduction)
    if not table.traceable:
        kind = "table with trajectories" if table.trajectories is not None else type(table).__name__
        raise ValueError(f"a {kind} records outside torch.compile; leave the loss out of it")
    state = table.as_lines()[:-2]  # without window and limit
    arguments = (logits.detach(), targets, index, weight, *state)
    options = {"window": table.window, "limit": table.limit, "backend": backend, "reduction": reduction}
    options |= {"label_smoothing": label_smoothing, "ignore_index": ignore_index, "by_products": by_products}
    if inplace and with_grad and not ops.overlaps_itself(logits):
        grad = arguments[0]
        loss = torch.ops.dualfast.step_(*arguments, **options, scale=scale)
    else:
        loss, grad = torch.ops.dualfast.step(*arguments, **options, scale=scale, with_grad=with_grad)
    if with_grad:
        loss = _Scaled.apply(logits, loss, grad, scale)  # type: ignore[no-untyped-call]
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
        _check(table, by_products)
        ops.check_options(label_smoothing, reduction)
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
            weight=self._buffers["weight"],  # three times as fast as self.weight
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
            logits,
            targets,
            index,
            self.table,
            ignore_index=self.ignore_index,
            reduction="none",
            backend=self.backend,
            by_products=self.by_products,
        )

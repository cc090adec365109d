"""DualLoss: cross-entropy that also scores every sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from dualfast import ops
from dualfast.arguments import checked_bool, checked_int, unusable_tensor
from dualfast.errors import UnsupportedBackward
from dualfast.ops import Reduction as Reduction
from dualfast.ops import torch_ops as torch_ops  # registers torch.ops.dualfast
from dualfast.scoring.table import ScoreTable

_INT64 = torch.int64
_NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)
HALF_HEADROOM = 1024.0  # float16 gradients are rounded at this scale, and divided by it once the loss scale is known
SUM_TOLERANCE = 0.02  # of probabilities in bfloat16, of many classes


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
    observe_targets: torch.Tensor | None = None,
) -> torch.Tensor:
    """torch.nn.functional.cross_entropy that also records every sample's visit in `table`.

    logits (B, C) floating point, targets (B,) int64, index (B,) int64 in [0, table.n_samples): the samples' rows in the
    data set; uint8, int8, int16 and int32 are converted. label_smoothing, weight (C,), ignore_index and reduction as in
    torch.nn.functional.cross_entropy; the scores are those of the plain softmax. The loss is float32. An empty batch
    gives 0. backend "auto" runs C++ on CPU tensors and Triton on CUDA tensors; "cpp", "triton" and "torch" select one
    and raise when it cannot run.

    by_products=False leaves out aum, aum_prob, el2n and entropy: ScoreTable.scores() gives None for them once a
    recorded visit lacks them. inplace=True writes the gradient over the logits, if their columns are adjacent and no
    two rows share memory: nothing, autograd included, may need the logits afterwards.

    targets may also be probabilities (B, C), as mixup and CutMix make them. The loss is then torch's for these, and the
    visits are recorded against observe_targets (B,), the samples' own labels from before mixing: required, as a mixture
    does not tell them. Targets that are no probabilities are a ValueError on the CPU. A row where observe_targets is
    ignore_index is not a visit, and counts in the loss. The logits are not overwritten.

    A sample that comes twice in an epoch has two visits; twice in one batch it has one, that of its first row. Rows
    with ignore_index are not visits, whatever their index. On CUDA nothing waits for the device: an index or a target
    out of range is counted there, and ScoreTable.scores() raises the ValueError; with DUALFAST_DEBUG=1 in the
    environment the step itself does.
    """
    if not isinstance(logits, torch.Tensor):
        raise TypeError(f"logits is a {type(logits).__name__}; give a tensor")
    _check(table, by_products)
    if type(label_smoothing) is not float:
        label_smoothing = _number(label_smoothing)
    if observe_targets is not None or not (getattr(targets, "dtype", 0) is getattr(index, "dtype", 0) is _INT64):
        targets, index = _widened(targets), _widened(index)
        if observe_targets is not None or _are_probabilities(targets):
            ops.check_options(label_smoothing, reduction)
            own = _own_labels(logits, targets, observe_targets)
            recording: dict[str, Any] = {"ignore_index": ignore_index, "backend": backend, "by_products": by_products}
            with torch.no_grad():
                dual_loss(logits, own, index, table, weight=weight, reduction="none", **recording)
            return _soft_loss(logits, targets, weight, label_smoothing, reduction)
    with_grad = torch.is_grad_enabled() and logits.requires_grad
    scale = 1.0
    if logits.dtype == torch.float16:
        scale = _headroom(weight, label_smoothing, reduction)
    compiling = torch.compiler.is_compiling()
    chosen = backend if compiling else ops.runs_on(logits, backend)
    how = (chosen, reduction, label_smoothing, ignore_index, by_products, inplace, with_grad, scale)
    options = None if compiling else ops.step_options(*how)  # before any is used, as it checks them
    seen = logits.detach().clone() if inplace and table.tdds is not None else logits
    loss: torch.Tensor
    if options is None:
        loss = _traced(logits, targets, index, table, weight, dict(zip(ops.STEP_OPTIONS, how, strict=True)))
    else:
        lines, rows, observations = table.place(index)
        inputs = ops.StepInputs(logits, targets, rows, weight, lines, observations)
        loss = _Fused.apply(logits, inputs, options)  # type: ignore[no-untyped-call]
        if observations is not None:
            table.take(rows, observations)
    if table.tdds is not None:
        table.tdds.record(seen, targets, index, table.status, ignore_index)
    return loss


def _widened(value: torch.Tensor) -> torch.Tensor:
    """Narrower integers as int64, anything else as it is."""
    return value.long() if getattr(value, "dtype", None) in _NARROW else value


def _are_probabilities(targets: torch.Tensor) -> bool:
    return isinstance(targets, torch.Tensor) and targets.is_floating_point() and targets.ndim == 2


def _own_labels(logits: torch.Tensor, targets: torch.Tensor, observe_targets: torch.Tensor | None) -> torch.Tensor:
    """The labels that visits are recorded against. TypeError and ValueError unless targets are probabilities that fit
    the logits, and come with labels."""
    _check_dense(logits=logits, targets=targets, observe_targets=observe_targets)
    if not _are_probabilities(targets):
        if isinstance(targets, torch.Tensor) and targets.ndim == 2:
            raise ValueError(f"targets are {targets.dtype} (B, C); give probabilities, as targets.float()")
        raise ValueError(
            "observe_targets goes with targets of probabilities (B, C), as mixup makes them; leave it out for labels"
        )
    if targets.shape != logits.shape:
        raise ValueError(
            f"targets have the shape {tuple(targets.shape)}; logits of {tuple(logits.shape)} need probabilities of the "
            "same shape, or labels (B,)"
        )
    if targets.device != logits.device:
        raise ValueError(f"targets are on {targets.device} and the logits are on {logits.device}; move one of them")
    _check_probabilities(targets)
    if observe_targets is None:
        raise ValueError(
            "targets are probabilities (B, C), as of mixup or CutMix, and observe_targets is missing: give each "
            "sample's own label (B,), to score it against, or record a forward pass of your own with observe()"
        )
    if not isinstance(observe_targets, torch.Tensor):
        raise TypeError(f"observe_targets is a {type(observe_targets).__name__}; give a torch.Tensor")
    own = _widened(observe_targets)
    if own.dtype != _INT64 or own.shape != logits.shape[:1]:
        raise ValueError(
            f"observe_targets are {own.dtype} of the shape {tuple(own.shape)}; give integer labels ({len(logits)},)"
        )
    return own


def _check_probabilities(targets: torch.Tensor) -> None:
    """ValueError for values (B, C) on the CPU that are no probabilities; on CUDA it would wait for the device."""
    if torch.compiler.is_compiling() or targets.device.type != "cpu" or not len(targets):
        return
    low, sums = float(targets.amin()), targets.sum(1, dtype=torch.float64)
    far = sums[int((sums - 1).abs().nan_to_num(torch.inf).argmax())].item()
    if not (low >= 0 and abs(far - 1) <= SUM_TOLERANCE):
        problem = f"sum to {far:.4g} in a row" if low >= 0 else f"are as low as {low:.4g}"
        raise ValueError(
            f"targets (B, C) {problem}; give probabilities, whose rows sum to 1, or labels (B,): one class per image"
        )


def _soft_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor | None,
    label_smoothing: float,
    reduction: Reduction,
) -> torch.Tensor:
    """torch's cross-entropy with probabilities, float32; 0 for an empty batch."""
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    z, p = logits.to(wide), targets.to(wide)
    if not len(z) and reduction == "mean":
        return z.sum().float()
    w = None if weight is None else weight.to(wide)
    return cross_entropy(z, p, weight=w, label_smoothing=label_smoothing, reduction=reduction).float()


def _check_dense(**tensors: torch.Tensor | None) -> None:
    """TypeError for a tensor that is nested, sparse or quantized. Of one on meta the check of devices says more."""
    for name, tensor in tensors.items():
        if (error := unusable_tensor(name, tensor)) and tensor is not None and not tensor.is_meta:
            raise error


def _check(table: ScoreTable, by_products: bool) -> None:
    if not isinstance(table, ScoreTable):
        raise TypeError(f"table is a {type(table).__name__}; give a dualfast.ScoreTable")
    if table.trajectories is not None and not checked_bool("by_products", by_products):
        raise ValueError("by_products is False and the table keeps trajectories, which need the margin; give True")


def _number(value: Any) -> Any:
    """The number in a tensor of one, as torch takes it for label_smoothing; anything else as it is."""
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _headroom(weight: torch.Tensor | None, label_smoothing: float, reduction: str) -> float:
    """The scale of float16 gradients: 1 where class weights are not divided by their sum and may be large."""
    weighted = weight is not None and (reduction != "mean" or label_smoothing > 0)
    return 1.0 if weighted else HALF_HEADROOM


class _Fused(torch.autograd.Function):
    """The gradient is formed in the forward pass; backward only scales it. options.backend is one that runs."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, inputs: ops.StepInputs, options: ops.StepOptions) -> Any:
        # Autograd asks each tensor argument for its graph: those without a gradient come in a tuple, which it skips.
        ctx.options = options
        try:
            loss, ctx.grad = ops.run_step(inputs, options)
        except RuntimeError:  # torch's, in one of many places; looking at the tensors first would cost every step
            _check_dense(logits=logits, targets=inputs.targets, index=inputs.index, weight=inputs.weight)
            raise
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> Any:
        if torch.is_grad_enabled():  # once_differentiable says the same and costs 9 us
            raise UnsupportedBackward("DualLoss has no second derivative; call backward without create_graph=True")
        grad = ctx.grad
        if ctx.options.scale != 1:
            upstream = upstream / ctx.options.scale
        if ctx.options.backend == "torch":  # it allows a second backward, as gradcheck does
            return grad * (upstream[:, None] if upstream.ndim else upstream), None, None
        ctx.grad = None  # autograd copies a gradient that is referenced elsewhere
        if grad is None:
            raise UnsupportedBackward(
                "backward through the same DualLoss twice; the gradient is kept for one pass only"
            )
        return ops.scale_grad(grad, upstream), None, None


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
    options: dict[str, Any],
) -> torch.Tensor:
    """The same under torch.compile: the step is one opaque operator, backward is fused into the graph around it.

    options: those of ops.StepOptions by name.
    """
    ops.check_options(options["label_smoothing"], options["reduction"])
    if not table.traceable:
        kind = "table with trajectories" if table.trajectories is not None else type(table).__name__
        raise ValueError(f"a {kind} records outside torch.compile; leave the loss out of it")
    state = table.as_lines()[:-2]  # without window and limit
    arguments = (logits.detach(), targets, index, weight, *state)
    inplace, with_grad = options.pop("inplace"), options.pop("with_grad")
    options |= {"window": table.window, "limit": table.limit}
    if inplace and with_grad and not ops.overlaps_itself(logits):
        grad = arguments[0]
        loss = torch.ops.dualfast.step_(*arguments, **options)
    else:
        loss, grad = torch.ops.dualfast.step(*arguments, **options, with_grad=with_grad)
    if with_grad:
        loss = _Scaled.apply(logits, loss, grad, options["scale"])  # type: ignore[no-untyped-call]
    return loss  # type: ignore[no-any-return]


class DualLoss(nn.Module):
    """torch.nn.CrossEntropyLoss that also records every sample's visit in `table`: loss = criterion(logits, targets,
    index), or with mixed targets (B, C) loss = criterion(logits, mixed, index, observe_targets=labels).

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
        checked_bool("by_products", by_products)
        checked_bool("inplace", inplace)
        label_smoothing = _number(label_smoothing)
        ops.check_options(label_smoothing, reduction)
        ignore_index = checked_int("ignore_index", ignore_index, -(2**63), 2**63 - 1)
        ops.pick_backend(backend, table.lines.device)
        self.table = table
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.reduction: Reduction = reduction
        self.backend = backend
        self.by_products = by_products
        self.inplace = inplace
        if weight is not None and not isinstance(weight, torch.Tensor):
            raise TypeError(f"weight is a {type(weight).__name__}; give a torch.Tensor (C,), or None")
        self.weight: torch.Tensor | None
        self.register_buffer("weight", weight)

    def forward(
        self,
        logits: torch.Tensor,
        targets: torch.Tensor,
        index: torch.Tensor,
        observe_targets: torch.Tensor | None = None,
    ) -> torch.Tensor:
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
            observe_targets=observe_targets,
        )

    @torch.no_grad()
    def observe(self, logits: torch.Tensor, targets: torch.Tensor, index: torch.Tensor) -> None:
        """Records the visits without a loss: for a clean second forward pass, or a loss of another kind."""
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

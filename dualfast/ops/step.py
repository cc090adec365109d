"""The fused training step: checks its arguments, picks triton, cpp or torch, and calls it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from dataclasses import replace

import torch  # before _C, so that both share one OpenMP runtime

import dualfast._C as _C
from dualfast.arguments import checked_choice
from dualfast.ops import step_torch
from dualfast.ops.layout import BAD_INDEX, BAD_TARGET, VOTE_CLASS, WRONG_TARGET
from dualfast.ops.step_args import BACKENDS, BESIDE, Lines, Observations, StepInputs, StepOptions

DEBUG = os.environ.get("DUALFAST_DEBUG") == "1"  # wait for the device after each step and raise its errors there
DEFAULTS = StepOptions()

# Checks and allocations dominate the step of a small batch, so they make few calls into torch.
_KERNEL_DTYPES = {
    "cpp": (torch.float32, torch.bfloat16),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
    "torch": (),
}
_SCALAR = torch.zeros((), dtype=torch.float32, device="cpu")  # empty_like takes half the time of empty
_slow_devices: set[str] = set()


def pick_backend(backend: str, device: torch.device) -> str:
    """The back end that runs on `device`: cpp on CPUs, triton on CUDA, torch elsewhere (slow; warns once per device).

    Raises ValueError when `backend` names one that cannot run there.
    """
    checked_choice("backend", backend, BACKENDS)
    if backend == "auto":
        if device.type == "cpu":
            return "cpp"
        if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
            return "triton"
        if device.type not in _slow_devices:
            _slow_devices.add(device.type)
            why = "triton is not installed" if device.type == "cuda" else "dualfast has no kernel for it"
            warnings.warn(f"device {device.type}: {why}; the plain torch path is used, which is slow", stacklevel=4)
        return "torch"
    if backend == "cpp" and device.type != "cpu":
        raise ValueError(f"backend is 'cpp' and the logits are on {device}; it runs on CPU tensors only")
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            raise ValueError("backend is 'triton', which is not installed; pip install 'dualfast[triton]'")
        interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
        if device.type != "cuda" and not interpreted:
            raise ValueError(f"backend is 'triton' and the logits are on {device}; it runs on CUDA tensors only")
    return backend


def runs_on(logits: torch.Tensor, backend: str = "auto") -> str:
    """The back end that a step on `logits` takes: pick_backend's, or torch for a dtype without a kernel."""
    chosen = pick_backend(backend, logits.device)
    return chosen if logits.dtype in _KERNEL_DTYPES[chosen] else "torch"


def step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: Lines | None,
    options: StepOptions = DEFAULTS,
    *,
    weight: torch.Tensor | None = None,
    observations: Observations | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cross-entropy, its gradient and the update of the samples' lines, in one pass over the logits.

    logits (B, C) float32, bfloat16 or float16, rows of any stride; targets and index (B,) int64; weight (C,). Returns
    the loss, float32, () or for reduction="none" (B,), and the gradient of scale times it ("none": of its sum), in the
    dtype of logits, or None. Weights, smoothing and reduction as in torch.nn.functional.cross_entropy, but for the loss
    of an empty batch, which is 0. Of rows with the same index the first is recorded, of rows with ignore_index none.
    observations, of B rows, receives what was seen in each; without lines, index is not read.

    Raises TypeError for dtypes and ValueError for shapes, devices and ranges, naming the argument.
    """
    return run_step(StepInputs(logits, targets, index, weight, lines, observations), options)


def run_step(inputs: StepInputs, options: StepOptions) -> tuple[torch.Tensor, torch.Tensor | None]:
    """step() for arguments that are together already."""
    check_step(inputs)
    logits, _, _, _, lines, observations = inputs
    if not logits.shape[0]:
        loss = torch.zeros(() if options.reduction != "none" else 0, device=logits.device)
        return loss, logits.new_zeros(logits.shape) if options.with_grad else None
    if options.inplace and overlaps_itself(logits):
        options = replace(options, inplace=False)
    backend = runs_on(logits, options.backend)
    run = _step_cpp if backend == "cpp" else _step_triton if backend == "triton" else _step_torch
    out = run(inputs, options)
    if options.inplace and options.with_grad:
        torch.autograd.graph.increment_version(logits)  # so that autograd notices who else needs the logits
    if DEBUG:
        _raise_what_was_counted(lines, observations)
    return out


def overlaps_itself(logits: torch.Tensor) -> bool:
    """Whether two elements of logits (B, C) may share memory, as after expand: no gradient fits there."""
    (rows, classes), (row, column) = logits.shape, logits.stride()
    if rows == 1:
        return classes > 1 and column == 0
    if classes == 1:
        return row == 0
    return min(row, column) == 0 or (row <= column * (classes - 1) and column <= row * (rows - 1))


def _raise_what_was_counted(lines: Lines | None, observations: Observations | None) -> None:
    if lines is not None:
        check_status(lines)
    elif observations is not None and (count := int((observations.flags & WRONG_TARGET != 0).sum())):
        raise bad_targets(count)


def check_status(lines: Lines) -> list[int]:
    """The status words, after waiting for the device; ValueError when an index or a target was out of range."""
    status: list[int] = lines.status.tolist()
    if status[BAD_INDEX]:
        raise bad_index(status[BAD_INDEX], lines.n_samples)
    if status[BAD_TARGET]:
        raise bad_targets(status[BAD_TARGET])
    return status


def bad_index(count: int, n_samples: int) -> ValueError:
    """For index values outside a table."""
    return ValueError(
        f"{count} index values lay outside the table of {n_samples} samples; give each sample's row in the whole data "
        f"set, 0 to {n_samples - 1}, or a table of as many samples as there are"
    )


def bad_targets(count: int) -> ValueError:
    """For targets outside the classes."""
    return ValueError(
        f"{count} targets lay outside the classes of the logits; number the classes from 0, and give the model "
        "an output for each"
    )


def check_step(inputs: StepInputs) -> None:
    """Raises TypeError and ValueError as step() does, for all but index and target values."""
    logits, targets, index, weight, lines, _ = inputs
    for name, value in (("logits", logits), ("targets", targets), ("index", index)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; give a torch.Tensor")
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits are {logits.dtype}; they must be floating point")
    shape = logits.shape
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"logits have the shape {tuple(shape)}; it must be (B, C)")
    device, rows = logits.device, shape[0]
    for name, value in (("targets", targets), ("index", index)):
        if value.dtype != torch.int64:
            raise TypeError(f"{name} are {value.dtype}; they must be torch.int64, as {name}.long()")
        if value.shape != (rows,):
            squeezed = f", as {name}.squeeze(1)" if value.shape == (rows, 1) else ""
            raise ValueError(f"{name} have the shape {tuple(value.shape)}; {rows} logits need ({rows},){squeezed}")
        if value.device != device:
            raise _elsewhere(name, value, logits)
    if weight is not None:
        if not isinstance(weight, torch.Tensor) or weight.is_complex():
            raise TypeError(f"weight is {weight!r:.80}; give a tensor of real numbers, one per class")
        if weight.shape != shape[1:]:
            raise ValueError(f"weight has the shape {tuple(weight.shape)}; {shape[1]} classes need one each")
        if weight.device != device:
            raise _elsewhere("weight", weight, logits)
    if lines is not None:
        if lines.lines.device != device:
            raise _elsewhere("the score table", lines.lines, logits)
        if lines.votes is not None and shape[1] - 1 > VOTE_CLASS.max:
            raise ValueError(
                f"logits have {shape[1]} classes and top_other tells at most {VOTE_CLASS.max + 1} apart; leave "
                "track_top_other out"
            )


def _elsewhere(name: str, value: torch.Tensor, logits: torch.Tensor) -> ValueError:
    return ValueError(f"{name} is on {value.device} and the logits are on {logits.device}; move one of them")


def _step_cpp(inputs: StepInputs, options: StepOptions) -> tuple[torch.Tensor, torch.Tensor | None]:
    logits, targets, index, weight, lines, observations = inputs
    rows, classes = logits.shape
    stride, column = logits.stride()
    inplace = options.inplace
    if classes > 1 and column != 1:
        logits, inplace, stride = logits.contiguous(), False, classes
    targets, index = targets.contiguous(), index.contiguous()
    weight_address = 0
    if weight is not None:
        weight = weight.float().contiguous()
        weight_address = weight.data_ptr()
    grad = None
    grad_address = grad_stride = 0
    if options.with_grad:
        grad = logits.detach() if inplace else torch.empty_like(logits)
        grad_address, grad_stride = grad.data_ptr(), grad.stride(0)
    losses_address = reduced_address = 0
    if options.reduction == "none":
        loss = torch.empty(rows, dtype=torch.float32, device=logits.device)
        losses_address = loss.data_ptr()
    else:
        loss = torch.empty_like(_SCALAR)
        reduced_address = loss.data_ptr()
    words = samples = limit = line_address = status_address = 0
    loss_sums_address = prob_margin_sums_address = late_margin_sums_address = votes_address = 0
    window = 2
    if lines is not None:
        table, status, loss_sums, prob_margin_sums, late_margin_sums, votes, window, limit = lines
        samples, words = table.shape
        line_address, status_address = table.data_ptr(), status.data_ptr()
        loss_sums_address = 0 if loss_sums is None else loss_sums.data_ptr()
        prob_margin_sums_address = 0 if prob_margin_sums is None else prob_margin_sums.data_ptr()
        late_margin_sums_address = 0 if late_margin_sums is None else late_margin_sums.data_ptr()
        votes_address = 0 if votes is None else votes.data_ptr()
    values_address = flags_address = top_others_address = 0
    if observations is not None:
        values, flags, top_others = observations
        values_address, flags_address = values.data_ptr(), flags.data_ptr()
        top_others_address = 0 if top_others is None else top_others.data_ptr()
    _C.step(
        logits.data_ptr(),
        grad_address,
        logits.dtype == torch.bfloat16,
        rows,
        classes,
        stride,
        grad_stride,
        targets.data_ptr(),
        index.data_ptr(),
        losses_address,
        reduced_address,
        options.scale,
        options.reduction == "mean",
        weight_address,
        options.label_smoothing,
        options.ignore_index,
        line_address,
        status_address,
        loss_sums_address,
        prob_margin_sums_address,
        late_margin_sums_address,
        votes_address,
        samples,
        words,
        window,
        limit,
        values_address,
        flags_address,
        top_others_address,
        options.by_products and (line_address != 0 or values_address != 0),
        torch.get_num_threads(),
    )
    return loss, grad


def _step_triton(inputs: StepInputs, options: StepOptions) -> tuple[torch.Tensor, torch.Tensor | None]:
    run = importlib.import_module("dualfast.kernels.step").step
    loss, grad, reduced = run(inputs, options)
    return loss if reduced is None else reduced, grad


def _step_torch(inputs: StepInputs, options: StepOptions) -> tuple[torch.Tensor, torch.Tensor | None]:
    loss, grad, reduced = step_torch.step(inputs, options)
    return loss if reduced is None else reduced, grad


def _has_kernels(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda and importlib.util.find_spec("triton") is not None


def scale_grad(grad: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Multiplies grad (B, C) by upstream, a scalar or (B,), in place, skipping a factor of 1; never waits on CUDA."""
    if _has_kernels(grad):
        scaled: torch.Tensor = importlib.import_module("dualfast.kernels.step").scale_grad(grad, upstream)
        return scaled
    if upstream.ndim:
        return grad.mul_(upstream[:, None])
    return grad if upstream.is_cpu and upstream.item() == 1.0 else grad.mul_(upstream)


def observe(
    lines: Lines,
    index: torch.Tensor,
    *,
    p: torch.Tensor,
    margin: torch.Tensor,
    el2n: torch.Tensor,
    entropy: torch.Tensor,
    correct: torch.Tensor,
    top_other: torch.Tensor | None = None,
    counted: torch.Tensor | None = None,
) -> None:
    """The line update alone: folds one visit of each sample in `index` (B,) int64 from values computed elsewhere.

    p, margin, el2n, entropy (B,) float32, correct (B,) bool, top_other (B,) int32, the wrong class with the largest
    logit, which lines with votes need; rows where counted (B,) bool is False are left out. A p that is not finite makes
    a skipped visit. Of rows with the same index the first is folded. ValueError for an index out of range; on CUDA,
    where nothing waits for the device, ScoreTable.scores() raises it.

    The sums beside the lines follow from p and margin: the loss is -log p (relative error 2^-22), the probabilities'
    margin p - p exp(-margin) (error 1e-6, or 2e-5 below a margin of -16). A p near the least of a kernel, about e^-87,
    says less: there the loss is minus the margin, at most log C too low, and the largest other probability is taken
    to be 1.
    """
    seen = {"p": p, "margin": margin, "el2n": el2n, "entropy": entropy, "correct": correct}
    if lines.votes is not None and top_other is None:
        raise ValueError("top_other is missing, for which the table keeps votes; give the classes, (B,) int32")
    if all(getattr(lines, name) is None for name in BESIDE):
        _observe(lines, index, seen, counted)
        return
    known = (index >= 0) & (index < lines.n_samples)  # _observe names or counts the others
    first = step_torch.first_rows(index, known if counted is None else known & counted)
    ids = torch.where(first, index, 0)
    before = step_torch.visits(lines, ids)
    _observe(lines, index, seen, counted)
    folded = first & (step_torch.visits(lines, ids) != before)
    step_torch.add_derived(lines, ids, folded, p, margin)
    if lines.votes is not None and top_other is not None:
        step_torch.add_votes(lines.votes, ids, folded, top_other)


def _observe(lines: Lines, index: torch.Tensor, seen: dict[str, torch.Tensor], counted: torch.Tensor | None) -> None:
    """observe() for the lines themselves."""
    if _has_kernels(lines.lines):
        importlib.import_module("dualfast.kernels.line").observe(lines, index, counted, seen)
        return
    if lines.lines.device.type != "cpu":
        counted = torch.ones_like(seen["correct"]) if counted is None else counted
        step_torch.check_range("index", index, counted, lines.n_samples, "the score table has the samples 0 to {last}")
        step_torch.observe(lines, index, counted, seen)
        return
    p, margin, el2n, entropy, correct = (value.detach().contiguous().numpy() for value in seen.values())
    _C.observe(
        p,
        margin,
        el2n,
        entropy,
        correct,
        None if counted is None else counted.contiguous().numpy(),
        index.contiguous().numpy(),
        lines.lines.numpy(),
        lines.status.numpy(),
        lines.n_samples,
        lines.window,
        lines.limit,
        torch.get_num_threads(),
    )

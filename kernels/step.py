"""The fused training step in Triton: the reduced cross-entropy, its gradient and the samples' lines, in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from dualfast.kernels.line import BAD_INDEX, BAD_TARGET, DUPLICATES, FINISHED, PAUSED, RUN_TIME, fold, repeats

from dualfast.ops import layout

if TYPE_CHECKING:
    from dualfast.ops.step_args import StepInputs, StepOptions

LOG2E = tl.constexpr(1.4426950408889634)
COUNTED, CORRECT = tl.constexpr(layout.COUNTED), tl.constexpr(layout.CORRECT)
FOLDED, WRONG_TARGET = tl.constexpr(layout.FOLDED), tl.constexpr(layout.WRONG_TARGET)
SEEN_P, SEEN_MARGIN = tl.constexpr(layout.SEEN_P), tl.constexpr(layout.SEEN_MARGIN)
SEEN_EL2N, SEEN_ENTROPY = tl.constexpr(layout.SEEN_EL2N), tl.constexpr(layout.SEEN_ENTROPY)
TOTAL_BLOCK = tl.constexpr(512)
# Rows up to which each program reads the whole batch's targets and index itself, which saves a launch and costs 16
# bytes per row from the L2 cache. The number has not been tuned on a GPU.
PLAN_ROWS = 1024


@triton.jit
def log1p_ratio(part, whole):
    """log(1 + part / whole). The series is atanh's: log(1 + u) itself would lose the digits of a small u."""
    u = part / whole
    s = u / (2.0 + u)
    t = s * s
    series = 2.0 * s * (1.0 + t * (1.0 / 3 + t * (1.0 / 5 + t * (1.0 / 7 + t * (1.0 / 9)))))
    return tl.where(u < 0.5, series, tl.log(1.0 + u))


@triton.jit
def weight_of_kept(targets_ptr, weight_ptr, count, n_classes, ignore_index):
    """The denominator of the mean: the sum of the weights of the rows that are not ignored."""
    total = tl.zeros([TOTAL_BLOCK], tl.float32)
    start = 0
    while start < count:
        row = start + tl.arange(0, TOTAL_BLOCK)
        target = tl.load(targets_ptr + row, mask=row < count, other=ignore_index)
        kept = (row < count) & (target != ignore_index)
        if weight_ptr is not None:
            inside = (target >= 0) & (target < n_classes)
            total += tl.load(weight_ptr + target, mask=kept & inside, other=0.0)
        else:
            total += kept.to(tl.float32)
        start += TOTAL_BLOCK
    return tl.sum(total, axis=0)


@triton.jit
def sum_by_the_last(finished_ptr, loss_ptr, count, BLOCK: tl.constexpr):
    """(whether this program is the last of the launch to arrive here, the sum of the rows' losses if it is).

    The order of the sum does not depend on which program is last. The counter is reset to zero for the next launch on
    the stream, or the next replay of a graph."""
    tl.debug_barrier()  # all warps have stored their losses before the program counts itself
    last = tl.atomic_add(finished_ptr, 1, sem="acq_rel", scope="gpu") == tl.num_programs(0) - 1
    total = tl.zeros([BLOCK], tl.float32)
    if last:
        start = 0
        while start < count:
            row = start + tl.arange(0, BLOCK)
            total += tl.load(loss_ptr + row, mask=row < count, other=0.0, cache_modifier=".cg")
            start += BLOCK
        tl.store(finished_ptr, 0)
    return last, tl.sum(total, axis=0)


@triton.jit(do_not_specialize=RUN_TIME)
def plan_kernel(
    targets_ptr,
    index_ptr,
    weight_ptr,
    again_ptr,
    denominator_ptr,
    count,
    n_classes,
    ignore_index,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What step_kernel needs to know of the other rows, for large batches: the denominator, and which rows repeat an
    earlier index."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if tl.program_id(0) == 0:
        total = weight_of_kept(targets_ptr, weight_ptr, count, n_classes, ignore_index)
        tl.store(denominator_ptr, total)
    if again_ptr is not None:
        index = tl.load(index_ptr + row, mask=row < count, other=0)
        end = tl.minimum((tl.program_id(0) + 1) * ROWS, count)
        again = repeats(index_ptr, targets_ptr, ignore_index, row, end, index, BLOCK)
        tl.store(again_ptr + row, again.to(tl.int8), mask=row < count)


# Sums over a row's logits z, with e = exp(z - max_logit); (ROWS,) each:
#   others, squares   e and e^2 over the wrong classes
#   entropy_sum       e (z - max_logit) over the wrong classes
#   weights           the class weights w
#   smoothing_sum     w (z - max_logit) over all classes
# and, with TOP_OTHER, the wrong class with the largest logit, the lowest of several; 0 without any.


@triton.jit
def sums_in_registers(
    from_ptr,
    weight_ptr,
    in_batch,
    true,
    true_logit,
    CLASSES: tl.constexpr,
    SMOOTH: tl.constexpr,
    BY_PRODUCTS: tl.constexpr,
    TOP_OTHER: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums of rows that fit a block; also e of the wrong classes, 0 at the true one, and w, for the gradient."""
    col = tl.arange(0, BLOCK)[None, :]
    here = in_batch[:, None] & (col < CLASSES)
    z = tl.load(from_ptr + col, mask=here, other=float("-inf")).to(tl.float32)
    wrong = tl.where(col == true, float("-inf"), z)
    max_other = tl.max(wrong, axis=1)
    top_other = tl.zeros([ROWS], tl.int32)
    if TOP_OTHER:
        largest = here & (col != true) & (wrong == max_other[:, None])
        top_other = tl.min(tl.where(largest, col, CLASSES), axis=1)
        top_other = tl.where(top_other < CLASSES, top_other, 0)
    max_logit = tl.maximum(true_logit, max_other)
    e = tl.exp2((wrong - max_logit[:, None]) * LOG2E)
    others = tl.sum(e, axis=1)
    squares = tl.zeros([ROWS], tl.float32)
    entropy_sum = tl.zeros([ROWS], tl.float32)
    smoothing_sum = tl.zeros([ROWS], tl.float32)
    weights = tl.full([ROWS], CLASSES, tl.float32)
    w = tl.where(col < CLASSES, 1.0, 0.0)
    if BY_PRODUCTS:
        squares = tl.sum(e * e, axis=1)
        entropy_sum = tl.sum(tl.where(e > 0.0, e * (wrong - max_logit[:, None]), 0.0), axis=1)
    if SMOOTH:
        if weight_ptr is not None:
            w = tl.load(weight_ptr + col, mask=col < CLASSES, other=0.0)
            weights = tl.sum(w, axis=1) + tl.zeros([ROWS], tl.float32)
        smoothing_sum = tl.sum(tl.where(here, w * (z - max_logit[:, None]), 0.0), axis=1)
    return max_other, max_logit, others, squares, entropy_sum, weights, smoothing_sum, top_other, e, w


@triton.jit
def sums_in_blocks(
    from_ptr,
    weight_ptr,
    in_batch,
    true,
    true_logit,
    CLASSES: tl.constexpr,
    SMOOTH: tl.constexpr,
    BY_PRODUCTS: tl.constexpr,
    TOP_OTHER: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The sums of longer rows, block by block: one running maximum per lane; the lanes are combined after the loop."""
    col = tl.arange(0, BLOCK)[None, :]
    anchor = tl.where(true_logit == float("-inf"), 0.0, true_logit)  # of the smoothing sum, until the maximum is known
    lane_max = tl.full([ROWS, BLOCK], float("-inf"), tl.float32)
    lane_sum = tl.zeros([ROWS, BLOCK], tl.float32)
    lane_squares = tl.zeros([ROWS, BLOCK], tl.float32)
    lane_entropy = tl.zeros([ROWS, BLOCK], tl.float32)
    lane_smoothing = tl.zeros([ROWS, BLOCK], tl.float32)
    lane_weights = tl.zeros([ROWS, BLOCK], tl.float32)
    lane_top = tl.where(col == true, col + BLOCK, col)  # where all of a lane is -inf, its first class counts
    for start in range(0, CLASSES, BLOCK):
        cols = start + col
        here = in_batch[:, None] & (cols < CLASSES)
        z = tl.load(from_ptr + cols, mask=here, other=float("-inf"), eviction_policy="evict_last").to(tl.float32)
        if SMOOTH:
            w = tl.where(cols < CLASSES, 1.0, 0.0)
            if weight_ptr is not None:
                w = tl.load(weight_ptr + cols, mask=cols < CLASSES, other=0.0)
            lane_weights += w
            lane_smoothing += tl.where(here, w * (z - anchor[:, None]), 0.0)
        z = tl.where(cols == true, float("-inf"), z)
        if TOP_OTHER:
            lane_top = tl.where(z > lane_max, cols, lane_top)
        new_max = tl.maximum(lane_max, z)
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        shrink = tl.exp2((lane_max - base) * LOG2E)
        e = tl.exp2((z - base) * LOG2E)
        if BY_PRODUCTS:
            rebased = tl.where(lane_sum > 0.0, shrink * (lane_entropy + lane_sum * (lane_max - base)), 0.0)
            lane_entropy = rebased + tl.where(e > 0.0, e * (z - base), 0.0)
            lane_squares = lane_squares * shrink * shrink + e * e
        lane_sum = lane_sum * shrink + e
        lane_max = new_max
    max_other = tl.max(lane_max, axis=1)
    max_logit = tl.maximum(true_logit, max_other)
    shrink = tl.exp2((lane_max - max_logit[:, None]) * LOG2E)
    others = tl.sum(lane_sum * shrink, axis=1)
    squares = tl.zeros([ROWS], tl.float32)
    entropy_sum = tl.zeros([ROWS], tl.float32)
    smoothing_sum = tl.zeros([ROWS], tl.float32)
    weights = tl.full([ROWS], CLASSES, tl.float32)
    if BY_PRODUCTS:
        squares = tl.sum(lane_squares * shrink * shrink, axis=1)
        rebased = shrink * (lane_entropy + lane_sum * (lane_max - max_logit[:, None]))
        entropy_sum = tl.sum(tl.where((lane_sum > 0.0) & (shrink > 0.0), rebased, 0.0), axis=1)
    if SMOOTH:
        weights = tl.sum(lane_weights, axis=1)
        smoothing_sum = tl.sum(lane_smoothing, axis=1) + weights * (anchor - max_logit)
    top_other = tl.zeros([ROWS], tl.int32)
    if TOP_OTHER:
        top_other = tl.min(tl.where(lane_max == max_other[:, None], lane_top, CLASSES), axis=1)
        top_other = tl.where(top_other < CLASSES, top_other, 0)
    return max_other, max_logit, others, squares, entropy_sum, weights, smoothing_sum, top_other


# The gradient is a e - b w for the wrong classes and true_grad for the true one; a, b, true_grad (ROWS, 1).


@triton.jit
def store_gradient(to_ptr, e, w, a, b, true_grad, in_batch, kept, true, CLASSES: tl.constexpr, SMOOTH: tl.constexpr):
    """The gradient of rows whose e and w (ROWS, BLOCK) are in registers."""
    col = tl.arange(0, e.shape[1])[None, :]
    # An ignored row is zero whatever its logits are; NaN times zero would not be.
    g = tl.where(kept[:, None], a * e, 0.0)
    if SMOOTH:
        g -= b * w
    g = tl.where(col == true, true_grad, g)
    tl.store(to_ptr + col, g.to(to_ptr.dtype.element_ty), mask=in_batch[:, None] & (col < CLASSES))


@triton.jit
def store_gradient_in_blocks(
    from_ptr,
    to_ptr,
    weight_ptr,
    max_logit,
    a,
    b,
    true_grad,
    in_batch,
    kept,
    true,
    CLASSES: tl.constexpr,
    SMOOTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient of longer rows: the logits are read a second time."""
    col = tl.arange(0, BLOCK)[None, :]
    for start in range(0, CLASSES, BLOCK):
        cols = start + col
        here = in_batch[:, None] & (cols < CLASSES)
        z = tl.load(from_ptr + cols, mask=here, other=float("-inf"), eviction_policy="evict_first").to(tl.float32)
        g = tl.where(kept[:, None], a * tl.exp2((z - max_logit[:, None]) * LOG2E), 0.0)
        if SMOOTH:
            if weight_ptr is not None:
                g -= b * tl.load(weight_ptr + cols, mask=cols < CLASSES, other=0.0)
            else:
                g -= b
        g = tl.where(cols == true, true_grad, g)
        tl.store(to_ptr + cols, g.to(to_ptr.dtype.element_ty), mask=here)


@triton.jit
def visits_of_rows(
    targets_ptr,
    index_ptr,
    again_ptr,
    status_ptr,
    row,
    count,
    n_samples,
    ignore_index,
    in_batch,
    kept,
    inside,
    PLANNED: tl.constexpr,
    ROWS: tl.constexpr,
    SCAN: tl.constexpr,
):
    """(index, a safe one where it is out of range; whether the row is a visit), and what is wrong counted in status."""
    index = tl.load(index_ptr + row, mask=in_batch, other=0)
    if PLANNED:
        again = tl.load(again_ptr + row, mask=in_batch, other=0) != 0
    else:
        end = tl.minimum((tl.program_id(0) + 1) * ROWS, count)
        again = repeats(index_ptr, targets_ptr, ignore_index, row, end, index, SCAN) != 0
    known = (index >= 0) & (index < n_samples)
    tl.atomic_add(status_ptr + BAD_TARGET + index * 0, 1, mask=kept & (inside == 0), sem="relaxed")
    tl.atomic_add(status_ptr + BAD_INDEX + index * 0, 1, mask=kept & (known == 0), sem="relaxed")
    # Read on the device, so that each replay of a captured graph sees its value at that time.
    counted = kept & known & (tl.load(status_ptr + PAUSED + index * 0) == 0)
    tl.atomic_add(status_ptr + DUPLICATES + index * 0, 1, mask=counted & again, sem="relaxed")
    return tl.where(known, index, 0), counted & inside & (again == 0)


@triton.jit
def emit(values_ptr, flags_ptr, row, count, in_batch, p, margin, el2n, entropy, finite, flags):
    """Writes one observation per row: values (4, count) and flags (count,)."""
    tl.store(values_ptr + SEEN_P * count + row, tl.where(finite, p, float("nan")), mask=in_batch)
    tl.store(values_ptr + SEEN_MARGIN * count + row, margin, mask=in_batch)
    tl.store(values_ptr + SEEN_EL2N * count + row, el2n, mask=in_batch)
    tl.store(values_ptr + SEEN_ENTROPY * count + row, entropy, mask=in_batch)
    tl.store(flags_ptr + row, flags.to(tl.uint8), mask=in_batch)


@triton.jit(do_not_specialize=RUN_TIME)
def step_kernel(
    logits_ptr,
    targets_ptr,
    index_ptr,
    weight_ptr,
    loss_ptr,
    reduced_ptr,
    grad_ptr,
    denominator_ptr,
    again_ptr,
    lines_ptr,
    status_ptr,
    loss_sums_ptr,
    prob_margin_sums_ptr,
    late_margin_sums_ptr,
    votes_ptr,
    values_ptr,
    flags_ptr,
    top_others_ptr,
    count,
    ignore_index,
    n_samples,
    limit,
    scale,
    smoothing,
    CLASSES: tl.constexpr,
    STRIDE: tl.constexpr,
    GRAD_STRIDE: tl.constexpr,
    MEAN: tl.constexpr,
    SMOOTH: tl.constexpr,
    PLANNED: tl.constexpr,
    BY_PRODUCTS: tl.constexpr,
    TOP_OTHER: tl.constexpr,
    WINDOW: tl.constexpr,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SCAN: tl.constexpr,
    SUM: tl.constexpr,
):
    """ROWS rows per program. CLASSES <= BLOCK: the rows stay in registers. More: they are read twice, in blocks.

    CLASSES and the strides are constants because Triton knows of a run-time 1000 only that it is not divisible by 16,
    and would read one element at a time.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_batch = row < count
    target = tl.load(targets_ptr + row, mask=in_batch, other=ignore_index)
    kept = in_batch & (target != ignore_index)
    inside = (target >= 0) & (target < CLASSES)
    true = tl.where(kept & inside, target, 0)[:, None]
    from_ptr = logits_ptr + row.to(tl.int64)[:, None] * STRIDE
    true_logit = tl.sum(tl.load(from_ptr + true, mask=in_batch[:, None], other=0.0).to(tl.float32), axis=1)
    if CLASSES <= BLOCK:
        max_other, max_logit, others, squares, entropy_sum, weights, smoothing_sum, top_other, e, w = sums_in_registers(
            from_ptr, weight_ptr, in_batch, true, true_logit, CLASSES, SMOOTH, BY_PRODUCTS, TOP_OTHER, ROWS, BLOCK
        )
    else:
        max_other, max_logit, others, squares, entropy_sum, weights, smoothing_sum, top_other = sums_in_blocks(
            from_ptr, weight_ptr, in_batch, true, true_logit, CLASSES, SMOOTH, BY_PRODUCTS, TOP_OTHER, ROWS, BLOCK
        )

    # q = 1 - p is formed from the wrong classes: p - 1 would lose the digits of a confident row, and so would log p.
    true_e = tl.exp2((true_logit - max_logit) * LOG2E)
    inverse = 1.0 / (others + true_e)
    p = true_e * inverse
    q = others * inverse
    log_sum = tl.log(others + true_e)
    correct = true_logit > max_other
    nll = tl.where(correct, log1p_ratio(others, true_e), (max_logit - true_logit) + log_sum)
    true_weight = tl.full([ROWS], 1.0, tl.float32)
    if weight_ptr is not None:
        true_weight = tl.load(weight_ptr + tl.sum(true, axis=1))
    hard = true_weight
    loss = hard * nll
    soft = 0.0
    if SMOOTH:
        hard = (1.0 - smoothing) * true_weight
        soft = smoothing / CLASSES
        loss = hard * nll + soft * (weights * log_sum - smoothing_sum)
    tl.store(loss_ptr + row, tl.where(kept, tl.where(inside, loss, float("nan")), 0.0), mask=in_batch)

    denominator = 1.0
    if MEAN:
        if PLANNED:
            denominator = tl.load(denominator_ptr)
        else:
            denominator = weight_of_kept(targets_ptr, weight_ptr, count, CLASSES, ignore_index)

    if grad_ptr is not None:
        factor = tl.where(inside, scale, float("nan")) / denominator
        a = tl.where(kept, factor * inverse * (hard + soft * weights), 0.0)[:, None]
        b = tl.where(kept, factor * soft, 0.0)[:, None]
        true_grad = tl.where(kept, factor * (soft * (weights * p - true_weight) - hard * q), 0.0)[:, None]
        to_ptr = grad_ptr + row.to(tl.int64)[:, None] * GRAD_STRIDE
        # The gradient may overwrite the logits: nothing is written before every warp has read.
        tl.debug_barrier()
        if CLASSES <= BLOCK:
            store_gradient(to_ptr, e, w, a, b, true_grad, in_batch, kept, true, CLASSES, SMOOTH)
        else:
            store_gradient_in_blocks(
                from_ptr, to_ptr, weight_ptr, max_logit, a, b, true_grad, in_batch, kept, true, CLASSES, SMOOTH, BLOCK
            )

    margin = tl.full([ROWS], float("nan"), tl.float32)
    el2n = tl.full([ROWS], float("nan"), tl.float32)
    entropy = tl.full([ROWS], float("nan"), tl.float32)
    prob_margin = tl.full([ROWS], float("nan"), tl.float32)
    if BY_PRODUCTS:
        margin = true_logit - max_other
        prob_margin = p - tl.exp2(tl.minimum(-margin, 0.0) * LOG2E) * inverse
        el2n = tl.sqrt(squares * inverse * inverse + q * q)
        entropy_sum += tl.where(true_e > 0.0, true_e * (true_logit - max_logit), 0.0)
        entropy = tl.maximum(log_sum - entropy_sum * inverse, 0.0)
    finite = nll < float("inf")
    counted = kept & inside
    folded = kept & (kept == 0)
    if lines_ptr is not None:
        index, counted = visits_of_rows(
            targets_ptr, index_ptr, again_ptr, status_ptr, row, count, n_samples, ignore_index, in_batch, kept, inside,
            PLANNED, ROWS, SCAN,
        )  # fmt: skip
        folded = fold(
            lines_ptr, status_ptr, loss_sums_ptr, prob_margin_sums_ptr, late_margin_sums_ptr, votes_ptr, index, counted,
            finite, nll, prob_margin, top_other, p, margin, el2n, entropy, correct, limit, WINDOW, WORDS, WIDTH,
        )  # fmt: skip
    if values_ptr is not None:
        flags = tl.where(counted, COUNTED, 0) | tl.where(correct, CORRECT, 0) | tl.where(folded, FOLDED, 0)
        flags = flags | tl.where(kept & (inside == 0), WRONG_TARGET, 0)
        emit(values_ptr, flags_ptr, row, count, in_batch, p, margin, el2n, entropy, finite, flags)
        if top_others_ptr is not None:
            tl.store(top_others_ptr + row, top_other, mask=in_batch)

    if reduced_ptr is not None:
        last, total = sum_by_the_last(status_ptr + FINISHED, loss_ptr, count, SUM)
        tl.store(reduced_ptr, total / denominator, mask=last)


@triton.jit(do_not_specialize=RUN_TIME)
def scale_grad_kernel(
    grad_ptr,
    upstream_ptr,
    count,
    upstream_stride,
    CLASSES: tl.constexpr,
    STRIDE: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    factor = tl.load(upstream_ptr + row * upstream_stride, mask=row < count, other=1.0)
    if tl.max((factor != 1.0).to(tl.int32), axis=0) != 0:
        at = grad_ptr + row.to(tl.int64)[:, None] * STRIDE
        for start in range(0, CLASSES, BLOCK):
            col = start + tl.arange(0, BLOCK)[None, :]
            here = (row < count)[:, None] & (col < CLASSES)
            scaled = tl.load(at + col, mask=here, other=0.0) * factor[:, None]
            tl.store(at + col, scaled.to(grad_ptr.dtype.element_ty), mask=here)


class Shape(NamedTuple):
    """How a program is laid out: rows, classes per block, warps."""

    rows: int
    block: int
    warps: int


def shape_for(n_classes: int) -> Shape:
    """A fixed table: autotuning would run the step, and so record the batch, several times."""
    block = max(triton.next_power_of_2(n_classes), 16)
    if block <= 32:
        return Shape(4, block, 1)
    if block <= 256:
        return Shape(4, block, 4)
    if block <= 2048:
        return Shape(1, block, 4)
    if block <= 8192:
        return Shape(1, block, block // 512)
    return Shape(1, 4096, 16)


def scan_for(rows: int) -> int:
    """Rows of the batch that a program of `rows` rows compares its own with at once."""
    return 512 if rows == 1 else 256


def step(
    inputs: StepInputs, options: StepOptions, *, shape: Shape | None = None
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """dualfast.ops.step, asynchronously: the rows' losses (B,), the gradient, and the reduced loss (), None for "none".

    Bad targets and bad index values are counted in lines.status and not recorded; the loss and the gradient of a row
    with a bad target are NaN. Steps that share `lines` run on one stream. shape overrides shape_for's."""
    logits, targets, index, weight, lines, observations = inputs
    logits = logits.detach()
    count, n_classes = logits.shape
    device, inplace = logits.device, options.inplace
    if logits.stride(1) != 1 and n_classes > 1:
        logits, inplace = logits.contiguous(), False
    loss = torch.empty(count, dtype=torch.float32, device=device)
    reduced = None if options.reduction == "none" else torch.empty((), dtype=torch.float32, device=device)
    grad = None
    if options.with_grad:
        grad = logits if inplace else torch.empty_like(logits, memory_format=torch.contiguous_format)
    targets, index = targets.contiguous(), index.contiguous()
    if weight is not None:
        weight = weight.detach().float().contiguous()
    shape = shape or shape_for(n_classes)
    words = layout.LINE_WORDS if lines is None else lines.lines.shape[1]
    planned = count > PLAN_ROWS
    denominator = torch.empty((), dtype=torch.float32, device=device) if planned else None
    # The counter of finished programs lives with the lines; without them it takes a launch to clear one.
    status = torch.zeros(len(layout.STATUS), dtype=torch.int32, device=device) if lines is None else lines.status
    again = torch.empty(count, dtype=torch.int8, device=device) if planned and lines is not None else None
    with torch.cuda.device_of(logits):
        if planned:
            plan_kernel[(triton.cdiv(count, 32) if lines is not None else 1,)](
                targets,
                index,
                weight,
                again,
                denominator,
                count,
                n_classes,
                options.ignore_index,
                ROWS=32,
                BLOCK=128,
                num_warps=4,
                enable_fp_fusion=True,
            )
        step_kernel[(triton.cdiv(count, shape.rows),)](
            logits,
            targets,
            index,
            weight,
            loss,
            reduced,
            grad,
            denominator,
            again,
            None if lines is None else lines.lines,
            status,
            *(None if lines is None else getattr(lines, name) for name in layout.BESIDE),
            None if observations is None else observations.values,
            None if observations is None else observations.flags,
            None if observations is None else observations.top_others,
            count,
            options.ignore_index,
            0 if lines is None else lines.n_samples,
            0 if lines is None else lines.limit,
            float(options.scale),
            float(options.label_smoothing),
            CLASSES=n_classes,
            STRIDE=logits.stride(0),
            GRAD_STRIDE=0 if grad is None else grad.stride(0),
            MEAN=options.reduction == "mean",
            SMOOTH=options.label_smoothing != 0,
            PLANNED=planned,
            BY_PRODUCTS=options.by_products and (lines is not None or observations is not None),
            TOP_OTHER=inputs.need_top_others,
            WINDOW=10 if lines is None else lines.window,
            WORDS=words,
            WIDTH=triton.next_power_of_2(words),
            ROWS=shape.rows,
            BLOCK=shape.block,
            SCAN=scan_for(shape.rows),
            SUM=256 * shape.warps,
            num_warps=shape.warps,
            enable_fp_fusion=True,
        )
    return loss, grad, reduced


def scale_grad(grad: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """Multiplies grad (B, C) by upstream, a scalar or (B,), in place; rows whose factor is 1 are not read."""
    count, n_classes = grad.shape
    if count:
        rows, block, warps = shape_for(n_classes)
        with torch.cuda.device_of(grad):
            scale_grad_kernel[(triton.cdiv(count, rows),)](
                grad,
                upstream,
                count,
                upstream.stride(0) if upstream.ndim else 0,
                CLASSES=n_classes,
                STRIDE=grad.stride(0),
                ROWS=rows,
                BLOCK=block,
                num_warps=warps,
                enable_fp_fusion=True,
            )
    return grad

"""The fused training step in Triton: the reduced cross-entropy, its gradient and the samples' lines, in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import triton
import triton.language as tl
from dualfast.kernels.line import BAD_INDEX, BAD_TARGET, DUPLICATES, FINISHED, PAUSED, RUN_TIME, fold, repeats

if TYPE_CHECKING:
    from dualfast.ops import Lines

LOG2E = tl.constexpr(1.4426950408889634)
TOTAL_BLOCK = tl.constexpr(512)
# Rows up to which each program reads the whole batch's targets and index itself: one launch, not two. Until then 16
# bytes a row from the L2 cache are little; the number itself has not been measured on a GPU.
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
    """(whether this program is the last of the launch to come here, the sum of the rows' losses if it is).

    The order of the sum does not depend on who is last. The counter is zero again afterwards, so that the next launch
    on the stream, or the next replay of a graph, finds it so."""
    tl.debug_barrier()  # every warp has stored its losses before the one that counts says so
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
    """What step_kernel must know of the other rows, for large batches: the denominator and which rows are repeats."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    if tl.program_id(0) == 0:
        total = weight_of_kept(targets_ptr, weight_ptr, count, n_classes, ignore_index)
        tl.store(denominator_ptr, total)
    if again_ptr is not None:
        index = tl.load(index_ptr + row, mask=row < count, other=0)
        end = tl.minimum((tl.program_id(0) + 1) * ROWS, count)
        again = repeats(index_ptr, targets_ptr, ignore_index, row, end, index, BLOCK)
        tl.store(again_ptr + row, again.to(tl.int8), mask=row < count)


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
    WINDOW: tl.constexpr,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SCAN: tl.constexpr,
    SUM: tl.constexpr,
):
    """ROWS rows a program. CLASSES <= BLOCK: the rows stay in registers. More: one row, read twice in blocks.

    CLASSES and the strides are constants because Triton sees no more of a run-time 1000 than that 16 does not divide
    it, and would read one element at a time.
    """
    NEG_INF: tl.constexpr = float("-inf")
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = row < count
    target = tl.load(targets_ptr + row, mask=there, other=ignore_index)
    kept = there & (target != ignore_index)
    inside = (target >= 0) & (target < CLASSES)
    true = tl.where(kept & inside, target, 0)[:, None]
    from_ptr = logits_ptr + row.to(tl.int64)[:, None] * STRIDE
    col = tl.arange(0, BLOCK)[None, :]
    own = tl.sum(tl.load(from_ptr + true, mask=there[:, None], other=0.0).to(tl.float32), axis=1)  # the true logit

    # Sums over the wrong classes of e = exp(z - best): e, e^2, e (z - best); and of w (z - best) over all classes.
    squares = tl.zeros([ROWS], tl.float32)
    heats = tl.zeros([ROWS], tl.float32)
    tilt = tl.zeros([ROWS], tl.float32)
    weights = tl.full([ROWS], CLASSES, tl.float32)
    if CLASSES <= BLOCK:
        here = there[:, None] & (col < CLASSES)
        z = tl.load(from_ptr + col, mask=here, other=NEG_INF).to(tl.float32)
        wrong = tl.where(col == true, NEG_INF, z)
        rival = tl.max(wrong, axis=1)
        best = tl.maximum(own, rival)
        e = tl.exp2((wrong - best[:, None]) * LOG2E)
        others = tl.sum(e, axis=1)
        if BY_PRODUCTS:
            squares = tl.sum(e * e, axis=1)
            heats = tl.sum(tl.where(e > 0.0, e * (wrong - best[:, None]), 0.0), axis=1)
        if SMOOTH:
            w = tl.where(col < CLASSES, 1.0, 0.0)
            if weight_ptr is not None:
                w = tl.load(weight_ptr + col, mask=col < CLASSES, other=0.0)
                weights = tl.sum(w, axis=1) + tl.zeros([ROWS], tl.float32)
            tilt = tl.sum(tl.where(here, w * (z - best[:, None]), 0.0), axis=1)
    else:
        # One running maximum a lane; the lanes meet once, after the loop.
        anchor = tl.where(own == NEG_INF, 0.0, own)
        tops = tl.full([ROWS, BLOCK], NEG_INF, tl.float32)
        sums = tl.zeros([ROWS, BLOCK], tl.float32)
        sums2 = tl.zeros([ROWS, BLOCK], tl.float32)
        sums_heat = tl.zeros([ROWS, BLOCK], tl.float32)
        sums_tilt = tl.zeros([ROWS, BLOCK], tl.float32)
        sums_w = tl.zeros([ROWS, BLOCK], tl.float32)
        for start in range(0, CLASSES, BLOCK):
            cols = start + col
            here = there[:, None] & (cols < CLASSES)
            z = tl.load(from_ptr + cols, mask=here, other=NEG_INF, eviction_policy="evict_last").to(tl.float32)
            if SMOOTH:
                w = tl.where(cols < CLASSES, 1.0, 0.0)
                if weight_ptr is not None:
                    w = tl.load(weight_ptr + cols, mask=cols < CLASSES, other=0.0)
                sums_w += w
                sums_tilt += tl.where(here, w * (z - anchor[:, None]), 0.0)
            z = tl.where(cols == true, NEG_INF, z)
            top = tl.maximum(tops, z)
            base = tl.where(top == NEG_INF, 0.0, top)
            shrink = tl.exp2((tops - base) * LOG2E)
            e = tl.exp2((z - base) * LOG2E)
            if BY_PRODUCTS:
                moved = tl.where(sums > 0.0, shrink * (sums_heat + sums * (tops - base)), 0.0)
                sums_heat = moved + tl.where(e > 0.0, e * (z - base), 0.0)
                sums2 = sums2 * shrink * shrink + e * e
            sums = sums * shrink + e
            tops = top
        rival = tl.max(tops, axis=1)
        best = tl.maximum(own, rival)
        shrink = tl.exp2((tops - best[:, None]) * LOG2E)
        others = tl.sum(sums * shrink, axis=1)
        if BY_PRODUCTS:
            squares = tl.sum(sums2 * shrink * shrink, axis=1)
            moved = shrink * (sums_heat + sums * (tops - best[:, None]))
            heats = tl.sum(tl.where((sums > 0.0) & (shrink > 0.0), moved, 0.0), axis=1)
        if SMOOTH:
            weights = tl.sum(sums_w, axis=1)
            tilt = tl.sum(sums_tilt, axis=1) + weights * (anchor - best)

    # q = 1 - p is formed from the wrong classes: p - 1 would lose the digits of a confident row, and so would log p.
    own_e = tl.exp2((own - best) * LOG2E)
    inverse = 1.0 / (others + own_e)
    p = own_e * inverse
    q = others * inverse
    log_sum = tl.log(others + own_e)
    correct = own > rival
    nll = tl.where(correct, log1p_ratio(others, own_e), (best - own) + log_sum)
    own_weight = tl.full([ROWS], 1.0, tl.float32)
    if weight_ptr is not None:
        own_weight = tl.load(weight_ptr + tl.sum(true, axis=1))
    hard = own_weight
    loss = hard * nll
    soft = 0.0
    if SMOOTH:
        hard = (1.0 - smoothing) * own_weight
        soft = smoothing / CLASSES
        loss = hard * nll + soft * (weights * log_sum - tilt)
    tl.store(loss_ptr + row, tl.where(kept, tl.where(inside, loss, float("nan")), 0.0), mask=there)

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
        true_grad = tl.where(kept, factor * (soft * (weights * p - own_weight) - hard * q), 0.0)[:, None]
        to_ptr = grad_ptr + row.to(tl.int64)[:, None] * GRAD_STRIDE
        # The gradient may lie over the logits: nothing is written before every warp has read.
        tl.debug_barrier()
        if CLASSES <= BLOCK:
            # An ignored row is zero whatever its logits are; NaN times zero would not be.
            g = tl.where(kept[:, None], a * e, 0.0)
            if SMOOTH:
                g -= b * w
            g = tl.where(col == true, true_grad, g)
            tl.store(to_ptr + col, g.to(grad_ptr.dtype.element_ty), mask=here)
        else:
            for start in range(0, CLASSES, BLOCK):
                cols = start + col
                here = there[:, None] & (cols < CLASSES)
                z = tl.load(from_ptr + cols, mask=here, other=NEG_INF, eviction_policy="evict_first").to(tl.float32)
                g = tl.where(kept[:, None], a * tl.exp2((z - best[:, None]) * LOG2E), 0.0)
                if SMOOTH:
                    if weight_ptr is not None:
                        g -= b * tl.load(weight_ptr + cols, mask=cols < CLASSES, other=0.0)
                    else:
                        g -= b
                g = tl.where(cols == true, true_grad, g)
                tl.store(to_ptr + cols, g.to(grad_ptr.dtype.element_ty), mask=here)

    if lines_ptr is not None:
        index = tl.load(index_ptr + row, mask=there, other=0)
        if PLANNED:
            again = tl.load(again_ptr + row, mask=there, other=0) != 0
        else:
            end = tl.minimum((tl.program_id(0) + 1) * ROWS, count)
            again = repeats(index_ptr, targets_ptr, ignore_index, row, end, index, SCAN) != 0
        known = (index >= 0) & (index < n_samples)
        tl.atomic_add(status_ptr + BAD_TARGET + index * 0, 1, mask=kept & (inside == 0), sem="relaxed")
        tl.atomic_add(status_ptr + BAD_INDEX + index * 0, 1, mask=kept & (known == 0), sem="relaxed")
        # Read on the device, so that each replay of a captured graph sees it as it is then.
        counted = kept & known & (tl.load(status_ptr + PAUSED + index * 0) == 0)
        tl.atomic_add(status_ptr + DUPLICATES + index * 0, 1, mask=counted & again, sem="relaxed")
        margin = tl.zeros([ROWS], tl.float32)
        el2n = tl.zeros([ROWS], tl.float32)
        entropy = tl.zeros([ROWS], tl.float32)
        if BY_PRODUCTS:
            margin = own - rival
            el2n = tl.sqrt(squares * inverse * inverse + q * q)
            heats += tl.where(own_e > 0.0, own_e * (own - best), 0.0)
            entropy = tl.maximum(log_sum - heats * inverse, 0.0)
        fold(
            lines_ptr,
            status_ptr,
            loss_sums_ptr,
            tl.where(known, index, 0),
            counted & inside & (again == 0),
            nll < float("inf"),
            nll,
            p,
            margin,
            el2n,
            entropy,
            correct,
            limit,
            WINDOW,
            WORDS,
            WIDTH,
        )

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
    """How a program is laid out: rows, classes at once, warps."""

    rows: int
    block: int
    warps: int


def shape_for(n_classes: int) -> Shape:
    """A fixed table, not autotuning, which would run the step, and so record the batch, several times."""
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
    """Rows of the batch that a program with `rows` of its own compares with at once."""
    return 512 if rows == 1 else 256


def step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: Lines | None,
    *,
    reduction: str,
    scale: float,
    weight: torch.Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    by_products: bool,
    with_grad: bool,
    inplace: bool,
    shape: Shape | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """dualfast.ops.step without the wait: the rows' losses (B,), the gradient, and the reduced loss () but for "none".

    Bad targets and bad index values are counted in lines.status and not recorded; the loss and the gradient of a row
    with a bad target are NaN. Steps that share `lines` run on one stream. shape overrides the table's."""
    logits = logits.detach()
    count, n_classes = logits.shape
    if logits.stride(1) != 1 and n_classes > 1:
        logits, inplace = logits.contiguous(), False
    loss = torch.empty(count, dtype=torch.float32, device=logits.device)
    reduced = None if reduction == "none" else torch.empty((), dtype=torch.float32, device=logits.device)
    grad = None
    if with_grad:
        grad = logits if inplace else torch.empty_like(logits, memory_format=torch.contiguous_format)
    targets, index = targets.contiguous(), index.contiguous()
    if weight is not None:
        weight = weight.detach().float().contiguous()
    shape = shape or shape_for(n_classes)
    words = 16 if lines is None else lines.lines.shape[1]
    planned = count > PLAN_ROWS
    denominator = torch.empty((), dtype=torch.float32, device=logits.device) if planned else None
    # Without a table nobody keeps the counter of finished programs: it costs a launch that clears it.
    status = torch.zeros(FINISHED + 1, dtype=torch.int32, device=logits.device) if lines is None else lines.status
    again = torch.empty(count, dtype=torch.int8, device=logits.device) if planned and lines is not None else None
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
                ignore_index,
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
            None if lines is None else lines.loss_sums,
            count,
            ignore_index,
            0 if lines is None else lines.n_samples,
            0 if lines is None else lines.limit,
            float(scale),
            float(label_smoothing),
            CLASSES=n_classes,
            STRIDE=logits.stride(0),
            GRAD_STRIDE=0 if grad is None else grad.stride(0),
            MEAN=reduction == "mean",
            SMOOTH=label_smoothing != 0,
            PLANNED=planned,
            BY_PRODUCTS=by_products and lines is not None,
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
    """Multiplies grad (B, C) by upstream, a scalar or (B,), in place, and reads nothing where that is 1."""
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

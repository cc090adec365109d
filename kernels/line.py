"""The update of a sample's line in Triton: fold() of csrc/line.h, and observe, which does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from dualfast.ops import layout

if TYPE_CHECKING:
    from dualfast.ops import Lines

# A short last batch must not recompile the kernels, as it would if Triton specialized these by divisibility by 16.
RUN_TIME = ("count", "n_samples", "limit", "ignore_index", "upstream_stride")
TAIL_WORDS = tl.constexpr(layout.TAIL_WORDS)
DUAL_SUM, STD_SUM, P_SUM = tl.constexpr(layout.DUAL_SUM), tl.constexpr(layout.STD_SUM), tl.constexpr(layout.P_SUM)
MARGIN_SUM, EL2N_SUM = tl.constexpr(layout.MARGIN_SUM), tl.constexpr(layout.EL2N_SUM)
ENTROPY, COUNTERS = tl.constexpr(layout.ENTROPY), tl.constexpr(layout.COUNTERS)
EL2N_VISITS = tl.constexpr(layout.EL2N_VISITS)
VISITS_SHIFT, VISITS_MAX = (tl.constexpr(value) for value in layout.VISITS)
FORGOTTEN_SHIFT, FORGOTTEN_MAX = (tl.constexpr(value) for value in layout.FORGOTTEN)
LAST_CORRECT_SHIFT, EVER_CORRECT_SHIFT = (tl.constexpr(f.shift) for f in (layout.LAST_CORRECT, layout.EVER_CORRECT))
VOTE_COUNT_SHIFT, VOTE_COUNT_MAX = (tl.constexpr(value) for value in layout.VOTE_COUNT)
ONE_VOTE = tl.constexpr(layout.VOTE_COUNT.at(1))
VOTE_CLASS_SHIFT, VOTE_CLASS_MAX = (tl.constexpr(value) for value in layout.VOTE_CLASS)
SKIPPED_SHIFT, SKIPPED_MAX = (tl.constexpr(value) for value in layout.SKIPPED)
BELOW_SKIPPED = tl.constexpr((1 << layout.SKIPPED.shift) - 1)
BAD_INDEX, BAD_TARGET = tl.constexpr(layout.BAD_INDEX), tl.constexpr(layout.BAD_TARGET)
DUPLICATES, NON_FINITE = tl.constexpr(layout.DUPLICATES), tl.constexpr(layout.NON_FINITE)
PAUSED, FINISHED = tl.constexpr(layout.PAUSED), tl.constexpr(layout.FINISHED)


@triton.jit
def repeats(index_ptr, marks_ptr, unmarked, row, end, index, BLOCK: tl.constexpr):
    """1 for each of `row` (R,) < end whose `index` (R,) an earlier row of the batch has too, among rows with a mark
    other than `unmarked`; 0 elsewhere. Each row compares itself with all earlier ones, so that the result does not
    depend on the launch."""
    repeated = row * 0
    start = 0
    while start < end:  # not range(): triton 3.6's interpreter cannot take a run-time bound under NumPy 2.4
        other = start + tl.arange(0, BLOCK)
        marked = (other < end) & (tl.load(marks_ptr + other, mask=other < end, other=0) != unmarked)
        value = tl.load(index_ptr + other, mask=marked, other=-1)
        same = (value[None, :] == index[:, None]) & (other[None, :] < row[:, None]) & marked[None, :]
        repeated = tl.maximum(repeated, tl.max(same.to(tl.int32), axis=1))
        start += BLOCK
    return repeated


@triton.jit
def fold(
    lines_ptr,
    status_ptr,
    loss_sums_ptr,
    prob_margin_sums_ptr,
    late_margin_sums_ptr,
    votes_ptr,
    index,
    counted,
    finite,
    nll,
    prob_margin,
    top_other,
    p,
    margin,
    el2n,
    entropy,
    correct,
    limit,
    WINDOW: tl.constexpr,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Folds one visit into the line of each `index` (R,), and returns where it did; no two counted rows may have the
    same index. WIDTH is WORDS rounded up to a power of two."""
    RING: tl.constexpr = WINDOW - 1
    TAIL: tl.constexpr = WORDS - TAIL_WORDS
    word = tl.arange(0, WIDTH)[None, :]
    at = lines_ptr + index[:, None] * WORDS + word
    line = tl.load(at, mask=counted[:, None] & (word < WORDS), other=0)
    value = line.to(tl.float32, bitcast=True)
    packed = tl.sum(tl.where(word == TAIL + COUNTERS, line, 0), axis=1)
    visits = (packed >> VISITS_SHIFT) & VISITS_MAX
    forgotten = (packed >> FORGOTTEN_SHIFT) & FORGOTTEN_MAX
    last_correct = (packed >> LAST_CORRECT_SHIFT) & 1
    ever_correct = (packed >> EVER_CORRECT_SHIFT) & 1
    skipped = (packed >> SKIPPED_SHIFT) & SKIPPED_MAX
    folded = counted & finite & (visits < limit)
    non_finite = counted & (finite == 0)

    # Two passes over the ring: a running sum of squares loses the small variances to cancellation.
    in_ring = word < RING
    # IEEE division: an approximate 10 / 10 above 1 would make the score of a confident sample negative.
    mean = tl.div_rn(tl.sum(tl.where(in_ring, value, 0.0), axis=1) + p, WINDOW * 1.0)
    off = tl.where(in_ring, value - mean[:, None], 0.0)
    std = tl.sqrt((tl.sum(off * off, axis=1) + (p - mean) * (p - mean)) / RING)
    full = visits >= RING
    value = tl.where(word == (visits % RING)[:, None], p[:, None], value)
    value = tl.where(word == TAIL + DUAL_SUM, value + tl.where(full, std * (1.0 - mean), 0.0)[:, None], value)
    value = tl.where(word == TAIL + STD_SUM, value + tl.where(full, std, 0.0)[:, None], value)
    value = tl.where(word == TAIL + P_SUM, value + p[:, None], value)
    value = tl.where(word == TAIL + MARGIN_SUM, value + margin[:, None], value)
    value = tl.where(word == TAIL + EL2N_SUM, value + tl.where(visits < EL2N_VISITS, el2n, 0.0)[:, None], value)
    value = tl.where(word == TAIL + ENTROPY, entropy[:, None], value)

    right = correct.to(tl.int32)
    forgotten = tl.minimum(forgotten + (last_correct & (1 - right)), FORGOTTEN_MAX)
    visited = ((visits + 1) << VISITS_SHIFT) | (forgotten << FORGOTTEN_SHIFT) | (right << LAST_CORRECT_SHIFT)
    visited = visited | ((ever_correct | right) << EVER_CORRECT_SHIFT) | (skipped << SKIPPED_SHIFT)
    passed_over = (packed & BELOW_SKIPPED) | (tl.minimum(skipped + 1, SKIPPED_MAX) << SKIPPED_SHIFT)
    new = tl.where(folded[:, None], value.to(tl.int32, bitcast=True), line)
    new = tl.where(word == TAIL + COUNTERS, tl.where(folded, visited, passed_over)[:, None], new)
    if loss_sums_ptr is not None:
        loss_sum = tl.load(loss_sums_ptr + index, mask=folded, other=0.0) + nll
    if prob_margin_sums_ptr is not None:
        prob_margin_sum = tl.load(prob_margin_sums_ptr + index, mask=folded, other=0.0) + prob_margin
    if late_margin_sums_ptr is not None:
        k = (visits + 1).to(tl.float32)
        late_margin_sum = tl.load(late_margin_sums_ptr + index, mask=folded, other=0.0) + k * k * margin
    if votes_ptr is not None:
        vote = tl.load(votes_ptr + index, mask=folded, other=0)
        none_yet = ((vote >> VOTE_COUNT_SHIFT) & VOTE_COUNT_MAX) == 0
        again = ((vote >> VOTE_CLASS_SHIFT) & VOTE_CLASS_MAX) == top_other
        vote = tl.where(
            none_yet,
            (top_other << VOTE_CLASS_SHIFT) | ONE_VOTE,
            tl.where(again, vote + ONE_VOTE, vote - ONE_VOTE),
        )
    # Triton may load a line twice, in two layouts; without the barrier a slow warp could read what a fast one wrote.
    tl.debug_barrier()
    tl.store(at, new, mask=(folded | non_finite)[:, None] & (word < WORDS))
    if loss_sums_ptr is not None:
        tl.store(loss_sums_ptr + index, loss_sum, mask=folded)
    if prob_margin_sums_ptr is not None:
        tl.store(prob_margin_sums_ptr + index, prob_margin_sum, mask=folded)
    if late_margin_sums_ptr is not None:
        tl.store(late_margin_sums_ptr + index, late_margin_sum, mask=folded)
    if votes_ptr is not None:
        tl.store(votes_ptr + index, vote, mask=folded)
    tl.atomic_add(status_ptr + NON_FINITE + index * 0, 1, mask=non_finite, sem="relaxed")
    return folded


@triton.jit(do_not_specialize=RUN_TIME)
def observe_kernel(
    index_ptr,
    counted_ptr,
    p_ptr,
    margin_ptr,
    el2n_ptr,
    entropy_ptr,
    correct_ptr,
    lines_ptr,
    status_ptr,
    count,
    n_samples,
    limit,
    WINDOW: tl.constexpr,
    WORDS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    in_batch = row < count
    index = tl.load(index_ptr + row, mask=in_batch, other=0)
    counted = in_batch & (tl.load(counted_ptr + row, mask=in_batch, other=0) != 0)
    inside = (index >= 0) & (index < n_samples)
    end = tl.minimum((tl.program_id(0) + 1) * ROWS, count)
    again = repeats(index_ptr, counted_ptr, 0, row, end, index, BLOCK) != 0
    tl.atomic_add(status_ptr + BAD_INDEX + index * 0, 1, mask=counted & (inside == 0), sem="relaxed")
    counted = counted & inside & (tl.load(status_ptr + PAUSED + index * 0) == 0)
    tl.atomic_add(status_ptr + DUPLICATES + index * 0, 1, mask=counted & again, sem="relaxed")
    p = tl.load(p_ptr + row, mask=in_batch, other=0.0)
    fold(
        lines_ptr,
        status_ptr,
        None,
        None,
        None,
        None,
        tl.where(inside, index, 0),
        counted & (again == 0),
        tl.abs(p) < float("inf"),
        p,
        p,
        row,
        p,
        tl.load(margin_ptr + row, mask=in_batch, other=0.0),
        tl.load(el2n_ptr + row, mask=in_batch, other=0.0),
        tl.load(entropy_ptr + row, mask=in_batch, other=0.0),
        tl.load(correct_ptr + row, mask=in_batch, other=0) != 0,
        limit,
        WINDOW,
        WORDS,
        WIDTH,
    )


def observe(lines: Lines, index: torch.Tensor, counted: torch.Tensor | None, seen: dict[str, torch.Tensor]) -> None:
    """dualfast.ops.observe, asynchronously: an index out of range is counted in lines.status and not recorded. seen: p,
    margin, el2n, entropy and correct."""
    count, rows = len(index), 16
    if count == 0:
        return
    if counted is None:
        counted = torch.ones_like(seen["correct"])
    words = lines.lines.shape[1]
    with torch.cuda.device_of(index):
        observe_kernel[(triton.cdiv(count, rows),)](
            index.contiguous(),
            counted.contiguous().view(torch.uint8),
            *(seen[name].contiguous() for name in ("p", "margin", "el2n", "entropy")),
            seen["correct"].contiguous().view(torch.uint8),
            lines.lines,
            lines.status,
            count,
            lines.n_samples,
            lines.limit,
            WINDOW=lines.window,
            WORDS=words,
            WIDTH=triton.next_power_of_2(words),
            ROWS=rows,
            BLOCK=128,
            num_warps=4,
            enable_fp_fusion=True,
        )

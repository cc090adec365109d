"""The step and the line update in torch operations, for devices and dtypes that have no kernel."""

from __future__ import annotations

import torch

from dualfast.ops import layout
from dualfast.ops.layout import EVER_CORRECT, FORGOTTEN, LAST_CORRECT, SKIPPED, VISITS, VOTE_CLASS, VOTE_COUNT
from dualfast.ops.step_args import Lines, Observations, StepInputs, StepOptions


def step(inputs: StepInputs, options: StepOptions) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As dualfast.kernels.step.step: losses of the rows, gradient, reduced loss. Accumulates in float32, or in float64
    for float64."""
    logits, targets, index, weight, lines, observations = inputs
    n_classes = logits.shape[1]
    kept = targets != options.ignore_index
    check_range("targets", targets, kept, n_classes, "the logits have the classes 0 to {last}")
    if lines is not None:
        check_range("index", index, kept, lines.n_samples, "the score table has the samples 0 to {last}")
    column = torch.where(kept, targets, 0)[:, None]
    z = logits.detach().to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    log_p = torch.log_softmax(z, 1)
    p = log_p.exp()
    wrong = p.scatter(1, column, 0.0)
    w = torch.ones(n_classes, dtype=z.dtype, device=z.device) if weight is None else weight.to(z.dtype)
    nll = -log_p.gather(1, column)[:, 0]
    true_weight = w[column[:, 0]]
    hard = (1 - options.label_smoothing) * true_weight
    soft = options.label_smoothing / n_classes
    loss = hard * nll
    if soft:
        loss = loss - soft * (w * log_p).sum(1)
    loss = torch.where(kept, loss, 0.0)
    denominator = torch.where(kept, true_weight, 0.0).sum()
    mean = options.reduction == "mean"
    grad = None
    if options.with_grad:  # the true class as minus the sum of the others: p - 1 would cancel
        grad = hard[:, None] * wrong.scatter(1, column, -wrong.sum(1, keepdim=True))
        if soft:
            grad = grad + soft * (w.sum() * p - w)
        factor = options.scale / denominator if mean else torch.as_tensor(options.scale, device=z.device)
        grad = torch.where(kept[:, None], grad * factor, 0.0).to(logits.dtype)
    if lines is not None or observations is not None:
        seen = _by_products(z, column, p, wrong, nll, options.by_products)
        if inputs.need_top_others:
            seen["top_other"] = _top_other(z, column)
        folded = torch.zeros_like(kept)
        if lines is not None:
            kept, folded = observe(lines, index, kept, seen | {"nll": nll.float()})
        if observations is not None:
            _emit(observations, seen, kept, folded)
    if grad is not None and options.inplace:
        grad = logits.detach().copy_(grad)
    total = None if options.reduction == "none" else loss.sum() / denominator if mean else loss.sum()
    return loss, grad, total


def _by_products(
    z: torch.Tensor,
    column: torch.Tensor,
    p: torch.Tensor,
    wrong: torch.Tensor,
    nll: torch.Tensor,
    by_products: bool,
) -> dict[str, torch.Tensor]:
    """What a visit is made of, (B,) each: p, margin, el2n, entropy, prob_margin float32 and correct. wrong (B, C): p
    with 0 for the true class, column (B, 1)."""
    true_logit, true_p = z.gather(1, column)[:, 0], p.gather(1, column)[:, 0]
    max_other = z.scatter(1, column, float("-inf")).amax(1)
    finite = torch.isfinite(nll)
    seen = {"p": torch.where(finite, true_p, float("nan"))}
    if by_products:
        seen["margin"] = true_logit - max_other
        seen["prob_margin"] = true_p - wrong.amax(1)
        seen["el2n"] = (wrong.square().sum(1) + wrong.sum(1).square()).sqrt()
        seen["entropy"] = torch.special.entr(p).sum(1)
    else:
        seen |= dict.fromkeys(("margin", "prob_margin", "el2n", "entropy"), torch.full_like(nll, float("nan")))
    return {name: value.float() for name, value in seen.items()} | {"correct": true_logit > max_other}


def _top_other(z: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """The class with the largest logit, the label's left out, (B,) int64; of several the lowest, of one class 0."""
    other = torch.arange(z.shape[1], device=z.device) != column
    largest = z.masked_fill(~other, float("-inf")).amax(1, keepdim=True)
    return ((z == largest) & other).to(torch.int8).argmax(1)


def _emit(
    observations: Observations, seen: dict[str, torch.Tensor], counted: torch.Tensor, folded: torch.Tensor
) -> None:
    observations.values.copy_(torch.stack([seen[name.lower()] for name in layout.OBSERVED]))
    flags = counted * layout.COUNTED + seen["correct"] * layout.CORRECT + folded * layout.FOLDED
    observations.flags.copy_(flags)
    if observations.top_others is not None:
        observations.top_others.copy_(seen["top_other"])


def check_range(name: str, values: torch.Tensor, counted: torch.Tensor, end: int, range_text: str) -> None:
    """Raises ValueError for the first counted value that is not in [0, end)."""
    bad = counted & ((values < 0) | (values >= end))
    if bool(bad.any()):
        row = int(bad.to(torch.int8).argmax())
        raise ValueError(f"{name}[{row}] is {int(values[row])}; {range_text.format(last=end - 1)}")


def first_rows(index: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Which of the kept rows (B,) bool are the first with their index (B,); no shape depends on the values."""
    ordered, order = torch.sort(torch.where(kept, index, -1), stable=True)
    new = torch.ones_like(kept)
    new[1:] = ordered[1:] != ordered[:-1]
    return torch.zeros_like(kept).scatter(0, order, new) & kept


def observe(
    lines: Lines,
    index: torch.Tensor,
    kept: torch.Tensor,
    seen: dict[str, torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """fold() of csrc/line.h in torch operations, and the sums beside the lines of what is in seen. Returns which rows
    counted as visits, and which were folded (B,)."""
    kept = kept & (lines.status[layout.PAUSED] == 0)
    first = first_rows(index, kept)
    lines.status[layout.DUPLICATES] += (kept & ~first).sum().to(torch.int32)
    rows = torch.nonzero(first)[:, 0]
    ids, seen = index[rows], {name: value[rows] for name, value in seen.items()}
    line = lines.lines[ids]
    words, ring = line.shape[1], lines.window - 1
    tail = words - layout.TAIL_WORDS
    values, packed = line.view(torch.float32), line[:, tail + layout.COUNTERS].to(torch.int64) & 0xFFFFFFFF
    visits = VISITS.of(packed)
    finite = torch.isfinite(seen["p"])
    lines.status[layout.NON_FINITE] += (~finite).sum().to(torch.int32)
    folded = finite & (visits < lines.limit)
    past = values[:, :ring]
    window = torch.cat([past, seen["p"][:, None]], 1)
    mean = window.mean(1)
    std = (window - mean[:, None]).square().sum(1).div(ring).sqrt()
    full = visits >= ring
    slot = torch.nn.functional.one_hot(visits % ring, ring).bool()
    out = values.clone()
    out[:, :ring] = torch.where(slot, seen["p"][:, None], past)
    out[:, tail + layout.DUAL_SUM] += torch.where(full, std * (1 - mean), 0.0)
    out[:, tail + layout.STD_SUM] += torch.where(full, std, 0.0)
    out[:, tail + layout.P_SUM] += seen["p"]
    out[:, tail + layout.MARGIN_SUM] += seen["margin"]
    out[:, tail + layout.EL2N_SUM] += torch.where(visits < layout.EL2N_VISITS, seen["el2n"], 0.0)
    out[:, tail + layout.ENTROPY] = seen["entropy"]
    line = torch.where(folded[:, None], out.view(torch.int32), line)
    line[:, tail + layout.COUNTERS] = _counters(packed, seen["correct"].to(torch.int64), folded, finite)
    lines.lines[ids] = line
    for sums, name in ((lines.loss_sums, "nll"), (lines.prob_margin_sums, "prob_margin")):
        if sums is not None and name in seen:
            sums[ids] += torch.where(folded, seen[name], 0.0)
    if lines.late_margin_sums is not None and "nll" in seen:
        lines.late_margin_sums[ids] += torch.where(folded, (visits + 1).square() * seen["margin"], 0.0)
    if lines.votes is not None and "top_other" in seen:
        add_votes(lines.votes, ids, folded, seen["top_other"])
    return first, torch.zeros_like(first).scatter(0, rows, folded)


def visits(lines: Lines, ids: torch.Tensor) -> torch.Tensor:
    """How many visits of the samples ids (B,) were folded, (B,)."""
    counters: torch.Tensor = VISITS.of(lines.lines[ids, layout.COUNTERS - layout.TAIL_WORDS])
    return counters


def add_derived(lines: Lines, ids: torch.Tensor, folded: torch.Tensor, p: torch.Tensor, margin: torch.Tensor) -> None:
    """Adds to the sums beside the lines what follows from p and margin (B,) of the visits that were folded (B,)."""
    p, margin = p.detach(), margin.detach()
    least = p.clamp(min=torch.finfo(torch.float32).tiny)  # a kernel's least p is near it
    if lines.loss_sums is not None:
        nll = torch.maximum(-margin, -least.log())
        lines.loss_sums.index_add_(0, ids, torch.where(folded, nll, 0.0))
    if lines.late_margin_sums is not None:
        late = visits(lines, ids).square() * margin
        lines.late_margin_sums.index_add_(0, ids, torch.where(folded, late, 0.0))
    if lines.prob_margin_sums is not None:
        other = (least.double() * (-margin.double()).exp()).clamp(max=1.0)
        lines.prob_margin_sums.index_add_(0, ids, torch.where(folded, (p - other).float(), 0.0))


def add_votes(votes: torch.Tensor, ids: torch.Tensor, folded: torch.Tensor, top_other: torch.Tensor) -> None:
    """vote() of csrc/line.h for the visits that were folded (B,); no two of those have the same of ids (B,)."""
    before = votes[ids]
    packed = before.to(torch.int64) & 0xFFFFFFFF
    count, elected, top_other = VOTE_COUNT.of(packed), VOTE_CLASS.of(packed), top_other.to(torch.int64)
    again = torch.where(elected == top_other, count + 1, count - 1)
    after = VOTE_CLASS.at(torch.where(count > 0, elected, top_other)) | VOTE_COUNT.at(torch.where(count > 0, again, 1))
    votes.index_add_(0, ids, torch.where(folded, _as_int32(after) - before, 0))  # ids may repeat where none was folded


def _as_int32(word: torch.Tensor) -> torch.Tensor:
    """The int32 with the bits of a word in [0, 2**32)."""
    return torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)


def _counters(packed: torch.Tensor, correct: torch.Tensor, folded: torch.Tensor, finite: torch.Tensor) -> torch.Tensor:
    """The packed counters after one visit, int32."""
    forgotten = FORGOTTEN.of(packed) + (LAST_CORRECT.of(packed) & (1 - correct))
    skipped = SKIPPED.of(packed)
    visited = (
        VISITS.at(VISITS.of(packed) + 1)
        | FORGOTTEN.at(forgotten.clamp(max=FORGOTTEN.max))
        | LAST_CORRECT.at(correct)
        | EVER_CORRECT.at(EVER_CORRECT.of(packed) | correct)
        | SKIPPED.at(skipped)
    )
    passed_over = packed + SKIPPED.at((skipped < SKIPPED.max).to(torch.int64))
    return _as_int32(torch.where(folded, visited, torch.where(finite, packed, passed_over)))

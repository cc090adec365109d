"""The step and the line update in torch operations, for devices and dtypes without a kernel of ours."""

from __future__ import annotations

import torch

from dualfast.ops.layout import DUPLICATES, EL2N_VISITS, MAX_SKIPPED, NON_FINITE, PAUSED, Lines


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
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """As dualfast.kernels.step.step: losses of the rows, gradient, reduced loss. Accumulates in float32, or in float64
    for float64."""
    n_classes = logits.shape[1]
    kept = targets != ignore_index
    check_range("targets", targets, kept, n_classes, "the logits have the classes 0 to {last}")
    if lines is not None:
        check_range("index", index, kept, lines.n_samples, "the score table has the samples 0 to {last}")
    safe = torch.where(kept, targets, 0)
    z = logits.detach().to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    log_p = torch.log_softmax(z, 1)
    p = log_p.exp()
    column = safe[:, None]
    w = torch.ones(n_classes, dtype=z.dtype, device=z.device) if weight is None else weight.to(z.dtype)
    nll = -log_p.gather(1, column)[:, 0]
    hard = (1 - label_smoothing) * w[safe]
    soft = label_smoothing / n_classes
    loss = hard * nll
    if soft:
        loss = loss - soft * (w * log_p).sum(1)
    loss = torch.where(kept, loss, 0.0)
    denominator = torch.where(kept, w[safe], 0.0).sum()
    grad = None
    if with_grad:
        wrong = p.scatter(1, column, 0.0)  # the true class as minus the others' sum: p - 1 would cancel
        grad = hard[:, None] * wrong.scatter(1, column, -wrong.sum(1, keepdim=True))
        if soft:
            grad = grad + soft * (w.sum() * p - w)
        factor = scale / denominator if reduction == "mean" else torch.as_tensor(scale, device=z.device)
        grad = torch.where(kept[:, None], grad * factor, 0.0).to(logits.dtype)
    if lines is not None:
        p_true = p.gather(1, column)[:, 0]
        others = z.scatter(1, column, float("-inf"))
        best = others.amax(1)
        true = z.gather(1, column)[:, 0]
        wrong = p.scatter(1, column, 0.0)
        seen = {
            "p": p_true,
            "margin": true - best,
            "el2n": (wrong.square().sum(1) + wrong.sum(1).square()).sqrt(),
            "entropy": torch.special.entr(p).sum(1),
            "correct": true > best,
        }
        finite = torch.isfinite(nll)
        seen["p"] = torch.where(finite, p_true, float("nan"))
        observe(lines, index, kept, {k: v.float() if v.dtype != torch.bool else v for k, v in seen.items()}, nll)
    if grad is not None and inplace:
        grad = logits.detach().copy_(grad)
    total = None if reduction == "none" else loss.sum() / denominator if reduction == "mean" else loss.sum()
    return loss, grad, total


def check_range(name: str, values: torch.Tensor, counted: torch.Tensor, end: int, range_text: str) -> None:
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
    nll: torch.Tensor | None,
) -> None:
    """fold() of csrc/line.h in torch operations."""
    kept = kept & (lines.status[PAUSED] == 0)
    wins = first_rows(index, kept)
    lines.status[DUPLICATES] += (kept & ~wins).sum().to(torch.int32)
    rows = torch.nonzero(wins)[:, 0]
    ids, seen = index[rows], {name: value[rows] for name, value in seen.items()}
    line = lines.lines[ids]
    words, ring = line.shape[1], lines.window - 1
    values, packed = line.view(torch.float32), line[:, words - 1].to(torch.int64) & 0xFFFFFFFF
    visits, forgotten = packed & 0xFFF, (packed >> 12) & 0xFFF
    last, ever, skipped = (packed >> 24) & 1, (packed >> 25) & 1, packed >> 26
    finite = torch.isfinite(seen["p"])
    lines.status[NON_FINITE] += (~finite).sum().to(torch.int32)
    folded = finite & (visits < lines.limit)
    past = values[:, :ring]
    window = torch.cat([past, seen["p"][:, None]], 1)
    mean = window.mean(1)
    std = (window - mean[:, None]).square().sum(1).div(ring).sqrt()
    full = visits >= ring
    slot = torch.nn.functional.one_hot(visits % ring, ring).bool()
    out = values.clone()
    out[:, :ring] = torch.where(slot, seen["p"][:, None], past)
    tail = words - 7
    out[:, tail] += torch.where(full, std * (1 - mean), 0.0)
    out[:, tail + 1] += torch.where(full, std, 0.0)
    out[:, tail + 2] += seen["p"]
    out[:, tail + 3] += seen["margin"]
    out[:, tail + 4] += torch.where(visits < EL2N_VISITS, seen["el2n"], 0.0)
    out[:, tail + 5] = seen["entropy"]
    correct = seen["correct"].to(torch.int64)
    forgotten = (forgotten + (last & (1 - correct))).clamp(max=0xFFF)
    new = (visits + 1) | (forgotten << 12) | (correct << 24) | ((ever | correct) << 25) | (skipped << 26)
    skip = (packed & 0x3FFFFFF) | ((skipped + 1).clamp(max=MAX_SKIPPED) << 26)
    word = torch.where(folded, new, torch.where(finite, packed, skip))
    word = torch.where(word >= 2**31, word - 2**32, word).to(torch.int32)
    line = torch.where(folded[:, None], out.view(torch.int32), line)
    line[:, words - 1] = word
    lines.lines[ids] = line
    if lines.loss_sums is not None and nll is not None:
        lines.loss_sums[ids] += torch.where(folded, nll[rows].float(), 0.0)

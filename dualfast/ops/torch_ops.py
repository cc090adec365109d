"""torch.ops.dualfast.step and step_: the step as torch.compile and torch.export see it.

Eager code calls dualfast.ops.step itself: torch's dispatcher costs 5 us per call, torch.library.custom_op 20 us.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch

from dualfast.ops.step import check_step, step
from dualfast.ops.step_args import Lines, StepInputs, StepOptions

_LIBRARY: Any = torch.library.Library("dualfast", "DEF")  # type: ignore[no-untyped-call]
_OPTIONS = ", ".join(
    f"{field.type} {field.name}" for field in fields(StepOptions) if field.name not in ("inplace", "with_grad")
)
_SHARED = (
    "Tensor targets, Tensor index, Tensor? weight, Tensor(b!)? lines, Tensor(c!)? status, Tensor(d!)? loss_sums, "
    "Tensor(e!)? prob_margin_sums, Tensor(f!)? late_margin_sums, Tensor(g!)? votes, *, int window, int limit, "
    + _OPTIONS
)

_LIBRARY.define(f"step(Tensor logits, {_SHARED}, bool with_grad) -> (Tensor loss, Tensor grad)")
_LIBRARY.define(f"step_(Tensor(a!) logits, {_SHARED}) -> Tensor")


def _lines(state: Any, window: int, limit: int) -> Lines | None:
    lines, status, loss_sums, prob_margin_sums, late_margin_sums, votes = state
    if lines is None:
        return None
    return Lines(lines, status, loss_sums, prob_margin_sums, late_margin_sums, votes, window, limit)


def _step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    weight: torch.Tensor | None,
    *state: torch.Tensor | None,
    window: int,
    limit: int,
    with_grad: bool,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    lines, how = _lines(state, window, limit), StepOptions(with_grad=with_grad, **options)
    loss, grad = step(logits, targets, index, lines, how, weight=weight)
    return loss, logits.new_empty(0) if grad is None else grad


def _step_inplace(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    loss, grad = _step(logits, *arguments, with_grad=True, inplace=True, **options)
    if grad.data_ptr() != logits.data_ptr():  # columns that are not adjacent
        logits.copy_(grad)
    return loss


def _fake_step(
    *tensors: Any, window: int, limit: int, reduction: str, with_grad: bool, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    logits, targets, index, weight, *state = tensors
    check_step(StepInputs(logits, targets, index, weight, _lines(state, window, limit), None))
    wide = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss = logits.new_empty(logits.shape[:1] if reduction == "none" else (), dtype=wide)
    return loss, logits.new_empty(logits.shape if with_grad else 0)


def _fake_step_inplace(logits: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    return _fake_step(logits, *arguments, with_grad=False, **options)[0]


for _name, _run, _fake in (("step", _step, _fake_step), ("step_", _step_inplace, _fake_step_inplace)):
    _LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"dualfast::{_name}", _fake, lib=_LIBRARY)

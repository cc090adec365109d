"""dualfast.training.fit: the loss of a training that records no scores."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dualfast.comm.ranks import Ranks
from dualfast.config import RECIPES, RunConfig
from dualfast.runs.session import recipe_of
from dualfast.training.fit import CrossEntropy, _Trainer


def test_the_loss_of_bfloat16_logits_is_that_of_the_same_numbers_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (6 * torch.randn(64, 10, generator=generator)).bfloat16().requires_grad_()
    wide = logits.detach().float().requires_grad_()
    targets, ids = torch.randint(0, 10, (64,), generator=generator), torch.arange(64)
    loss, expected = (CrossEntropy(0.1)(given, targets, ids) for given in (logits, wide))
    assert loss.dtype == torch.float32
    assert loss == expected
    loss.backward()
    expected.backward()
    assert logits.grad is not None
    assert wide.grad is not None
    assert torch.equal(logits.grad, wide.grad.bfloat16())  # rounded once, from the gradient in float32


@pytest.mark.parametrize(("name", "nesterov", "last"), [("paper", True, 0.0), ("imagenet", False, 1e-4)])
def test_the_published_recipes_have_their_authors_optimizer(name: str, nesterov: bool, last: float) -> None:
    config = RunConfig(**{**RECIPES[name], "epochs": 2, "device": "cpu"})
    batches: Any = [None] * 5
    trainer = _Trainer(torch.nn.Linear(2, 2), batches, CrossEntropy(), recipe_of(config), Ranks())
    assert trainer.optimizer.defaults["nesterov"] is nesterov
    for _ in range(2 * len(batches)):
        trainer.optimizer.step()
        trainer.scheduler.step()
    assert trainer.scheduler.get_last_lr() == [pytest.approx(last, abs=1e-12)]

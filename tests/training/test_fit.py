"""dualfast.training.fit: the loss of a training that records no scores."""

from __future__ import annotations

import torch

from dualfast.training.fit import CrossEntropy


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

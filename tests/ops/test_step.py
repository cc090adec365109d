"""The fused step against the float64 reference: loss, gradient, lines; options, adversarial logits, bad input."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import ScoreTable, ops, reference
from dualfast.ops import layout, step_torch

step_module = importlib.import_module("dualfast.ops.step")  # dualfast.ops.step itself is the function

BACKENDS = ["cpp", "torch"]
BESIDE = {"track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
# Rounding alone, where torch happens to be exact.
FLOOR = {torch.float32: 2e-7, torch.bfloat16: 2**-9, torch.float16: 2**-12, torch.float64: 1e-15}


def step(
    logits: Any,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: ops.Lines | None,
    *,
    weight: torch.Tensor | None = None,
    observations: ops.Observations | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """ops.step with its options as keywords."""
    how = ops.StepOptions(**options)
    return ops.step(logits, targets, index, lines, how, weight=weight, observations=observations)


def batch(rows: int, classes: int, seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=draw) * spread
    return logits, torch.randint(0, classes, (rows,), generator=draw)


def torchs(logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """torch's own losses and gradient in the dtype of the logits, as far as it computes there."""
    z = logits.detach().clone().requires_grad_()
    mean = options.pop("mean", True)
    loss = torch.nn.functional.cross_entropy(z.float(), targets, reduction="none", **options)
    total = torch.nn.functional.cross_entropy(z.float(), targets, reduction="mean" if mean else "sum", **options)
    total.backward()
    assert z.grad is not None
    return loss.detach(), z.grad


def check(logits: torch.Tensor, targets: torch.Tensor, backend: str, **options: Any) -> None:
    """Errors of loss and gradient are at most four times torch's own, on the scale of the largest value, and a little
    more with the number of terms: above 256 classes they are added in the order that the compiler chose."""
    weight = options.get("weight")
    exact, exact_grad, denominator = reference.cross_entropy(
        logits.double().numpy(),
        targets.numpy(),
        **(options | ({"weight": weight.numpy()} if weight is not None else {})),
    )
    theirs, their_grad = torchs(logits, targets, **options)
    denominator = denominator if options.get("mean", True) else 1.0
    reduction = "mean" if options.pop("mean", True) else "sum"
    options |= {"backend": backend, "index": torch.arange(len(targets)), "lines": None}
    loss, _ = step(logits.clone(), targets, **options, reduction="none")
    total, grad = step(logits.clone(), targets, **options, reduction=reduction)
    torch.testing.assert_close(total.double(), torch.tensor(exact.sum() / denominator), rtol=1e-5, atol=1e-7)
    assert grad is not None
    assert grad.dtype == logits.dtype
    for mine, other, want, floor in (
        (loss, theirs, exact, FLOOR[torch.float32]),
        (grad, their_grad, exact_grad, FLOOR[logits.dtype]),
    ):
        scale = np.abs(want).max() + 1e-30
        error = np.abs(mine.double().numpy() - want).max() / scale
        own = np.abs(other.double().numpy() - want).max() / scale
        classes = logits.shape[1]
        more = 1e-8 * math.sqrt(classes) if classes <= 256 else 3e-9 * classes
        assert error <= 4 * own + floor + more, (error, own)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("classes", [2, 3, 10, 64, 100, 255, 256, 257, 1000, 4097])
def test_loss_and_gradient(backend: str, dtype: torch.dtype, classes: int) -> None:
    for rows in (1, 15, 16, 17, 33):
        logits, targets = batch(rows, classes, rows)
        check(logits.to(dtype), targets, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [100, 256])
def test_sums_of_equal_terms_keep_their_digits(backend: str, classes: int) -> None:
    """One long sum would round the same way at every class: 30 eps at 256 classes, where sums of sums have 4."""
    rows = 64
    logits = -3 * torch.rand(rows, 1, generator=torch.Generator().manual_seed(1)).expand(rows, classes)
    at = torch.arange(rows)
    logits = logits.index_put((at, at), torch.zeros(rows))
    want = torch.softmax(logits.double(), 1).index_put((at, at), torch.tensor(-1.0).double(), accumulate=True)
    _, grad = step(logits.clone(), at, at, None, backend=backend, reduction="sum")
    assert grad is not None
    torch.testing.assert_close(grad.double(), want, rtol=8 * torch.finfo(torch.float32).eps, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [7, 200])
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [False, True])
def test_options(backend: str, classes: int, mean: bool, smoothing: float, weighted: bool, ignored: bool) -> None:
    logits, targets = batch(37, classes, 1)
    if ignored:
        targets[::5] = -100
    weight = torch.rand(classes, generator=torch.Generator().manual_seed(2)) * 3 if weighted else None
    check(logits, targets, backend, mean=mean, label_smoothing=smoothing, weight=weight)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("kind", ["+-80", "equal", "huge", "one sure", "one sure and wrong"])
def test_adversarial_logits(backend: str, classes: int, kind: str) -> None:
    rows = 24
    logits, targets = batch(rows, classes, 3)
    if kind == "+-80":
        logits = 80 * logits.sign()
    elif kind == "equal":
        logits = torch.full_like(logits, 7.25)
    elif kind == "huge":
        logits = logits * 1e30
    else:
        logits[:] = 0
        wrong = (targets + 1) % classes
        logits[torch.arange(rows), targets if kind == "one sure" else wrong] = 60.0
    check(logits, targets, backend)


@pytest.mark.parametrize("classes", [10, 500])
def test_the_true_class_keeps_a_gradient_when_p_rounds_to_one(classes: int) -> None:
    """p - 1 in float32 would be 0 or a multiple of 6e-8; the sum of the wrong probabilities has all its bits."""
    logits = torch.zeros(1, classes)
    logits[0, 3] = 25.0
    _, grad = step(logits, torch.tensor([3]), torch.tensor([0]), None)
    wrong = (classes - 1) * math.exp(-25.0)
    assert grad is not None
    assert float(grad[0, 3]) == pytest.approx(-wrong / (1 + wrong), rel=1e-6)


@pytest.fixture(params=[0, 1, 2])
def level(request: pytest.FixtureRequest) -> Iterator[int]:
    """Instructions up to SSE2, AVX2, AVX-512, as far as the processor has them."""
    ops.set_level(request.param)
    yield request.param
    ops.set_level(2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 3, 4, 5, 10, 64, 255, 256, 257])
def test_every_level_of_instructions(level: int, dtype: torch.dtype, classes: int) -> None:
    weight = torch.rand(classes, generator=torch.Generator().manual_seed(5)) * 3
    for rows in (1, 3, 4, 5, 8, 9, 16, 17, 37):
        logits, targets = batch(rows, classes, rows)
        check(logits.to(dtype), targets, "cpp")
        targets[1::5] = -100
        check(logits.to(dtype), targets, "cpp", label_smoothing=0.1, weight=weight)


@pytest.mark.parametrize("classes", [2, 5, 10, 64, 256, 257])
@pytest.mark.parametrize("others", ["alone", "far", "equal"])
def test_losses_of_sure_rows_keep_their_digits(level: int, classes: int, others: str) -> None:
    """log(1 + x) over its whole range: each loss on its own scale, where torch's is 0 once 1 - p is under 6e-8. What
    is left is the rounding of the exponent, in proportion to the logit, and of a sum in any order."""
    depth = torch.cat([torch.linspace(0, 70, 1000), torch.logspace(-7, 0, 200)])
    for sign in (1.0, -1.0):
        logits = torch.full((len(depth), classes), {"alone": -math.inf, "far": -70.0, "equal": 0.0}[others])
        logits[:, 0] = sign * depth
        logits[:, 1] = 0.0
        zeros = torch.zeros(len(depth), dtype=torch.int64)
        loss, grad = step(logits, zeros, zeros, None, reduction="none")
        z = logits.double()
        rest = (z[:, 1:] - z[:, :1]).exp().sum(1).numpy()
        allowed = 3e-7 + 1e-7 * depth.numpy() + 6e-8 * classes + 1.7e-38 * classes / rest  # exp stops at e^-87
        assert (np.abs(loss.double().numpy() / np.log1p(rest) - 1) < allowed).all()
        assert grad is not None
        assert (np.abs(-grad[:, 0].double().numpy() / (rest / (1 + rest)) - 1) < allowed).all()


@pytest.mark.parametrize("classes", [10, 100])
def test_by_products_of_adversarial_rows(level: int, classes: int) -> None:
    """Ties, one class far above or below, -inf among the wrong classes, everything equal: each row on its own."""
    rows = []
    for gap in (0.0, 1e-6, 1e-3, 1.0, 20.0, 69.0, 80.0):
        for sign in (1, -1):
            row = torch.zeros(classes)
            row[0] = sign * gap
            rows += [row, row + 1e4, torch.where(torch.arange(classes) > 2, -math.inf, row)]
            tie = row.clone()
            tie[1] = row[0]
            rows.append(tie)
    logits = torch.stack(rows)
    n = len(rows)
    table = ScoreTable(n, **BESIDE)
    step(logits, torch.zeros(n, dtype=torch.int64), torch.arange(n), table.as_lines())
    log = [reference.visit(row.double().numpy(), 0) for row in logits]
    assert None not in log
    close(table, [reference.scores([seen]) for seen in log if seen is not None], logit_scale=80)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_ignored_row_is_zero_whatever_its_logits(level: int, classes: int, bad: float) -> None:
    logits, targets = batch(20, classes, 6)
    targets[3] = -100
    clean, _ = step(logits, targets, torch.arange(20), None)
    logits[3, 2] = bad
    loss, grad = step(logits, targets, torch.arange(20), None)
    assert grad is not None
    assert torch.equal(loss, clean)
    assert not grad[3].any()
    assert grad.isfinite().all()


@pytest.mark.parametrize("classes", [4, 128])
def test_bfloat16_gradients_are_rounded_to_nearest_and_ties_to_even(level: int, classes: int) -> None:
    logits = torch.zeros(16, classes, dtype=torch.bfloat16)
    targets, index = torch.zeros(16, dtype=torch.int64), torch.arange(16)
    for number in range(1, 16):
        scale = 1 + number * 2**-9  # four for each unit in the last place of bfloat16, ties among them
        _, grad = step(logits, targets, index, None, reduction="sum", scale=scale)
        want = torch.tensor(scale / classes).bfloat16()
        assert grad is not None
        assert grad[:, 1:].eq(want).all()


def test_the_loss_is_float32_whatever_torchs_defaults() -> None:
    logits, targets = batch(20, 10, 7)
    want, _ = step(logits, targets, torch.arange(20), None)
    rows, _ = step(logits, targets, torch.arange(20), None, reduction="none")
    torch.set_default_dtype(torch.float64)
    try:
        found, _ = step(logits, targets, torch.arange(20), None)
        found_rows, _ = step(logits, targets, torch.arange(20), None, reduction="none")
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == found_rows.dtype == torch.float32
    assert torch.equal(found, want)
    assert torch.equal(found_rows, rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_rows_and_writing_over_the_logits(backend: str) -> None:
    wide, targets = batch(20, 50, 4)
    logits = wide[:, :30]
    targets = targets % 30
    index = torch.arange(20)
    _, apart = step(logits, targets, index, None, backend=backend)
    _, over = step(logits, targets, index, None, backend=backend, inplace=True)
    assert apart is not None
    assert over is not None
    assert over.data_ptr() == wide.data_ptr()
    assert torch.equal(apart, wide[:, :30])
    transposed = batch(20, 30, 5)[0].t().contiguous().t()
    check(transposed, targets, backend)


def test_the_selected_back_end_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in ("_step_cpp", "_step_torch"):
        real = getattr(step_module, name)
        monkeypatch.setattr(step_module, name, lambda *a, r=real, n=name, **k: (ran.append(n), r(*a, **k))[1])
    logits, targets = batch(4, 10)
    for backend in ("auto", "cpp", "torch"):
        step(logits, targets, torch.arange(4), None, backend=backend)
    step(logits.double(), targets, torch.arange(4), None)
    assert ran == ["_step_cpp", "_step_cpp", "_step_torch", "_step_torch"]


# ---- what is recorded -----------------------------------------------------------------------------------------------


def close(table: ScoreTable, want: list[dict[str, float]], logit_scale: float = 1.0) -> None:
    """dual, dyn_unc within 1e-4 relative of float64, counters exactly, sums within float32's rounding."""
    found = table.scores()
    for name in ("visits", "forgetting", "top_other"):
        np.testing.assert_array_equal(getattr(found, name), [w[name] for w in want], err_msg=name)
    for name, rtol, atol in (
        ("dual", 1e-4, 1e-7),
        ("dyn_unc", 1e-4, 1e-7),
        ("mean", 1e-5, 1e-7),
        ("last_mean", 1e-5, 1e-7),
        ("aum", 1e-5, 2e-6 * logit_scale),
        ("aum_prob", 1e-5, 1e-6),
        ("late_margin", 1e-5, 2e-6 * logit_scale),
        ("el2n", 1e-5, 1e-6),
        ("entropy", 1e-5, 2e-6),
    ):
        np.testing.assert_allclose(getattr(found, name), [w[name] for w in want], rtol, atol, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("classes", "dtype"), [(10, torch.float32), (10, torch.bfloat16), (300, torch.float32)])
@pytest.mark.parametrize("window", [2, 10, 13])
def test_lines_agree_with_the_reference(backend: str, classes: int, dtype: torch.dtype, window: int) -> None:
    """Adversarial epochs: +-80, equal logits, ties, rows that are not finite, repeats, ignored rows, missed samples."""
    n, epochs = 40, 25
    table = ScoreTable(n, window=window, epochs=20, **BESIDE)
    labels = batch(n, classes, 9)[1]
    log: list[list[reference.Visit]] = [[] for _ in range(n)]
    skipped = repeated = 0
    for epoch in range(epochs):
        logits = batch(n, classes, 100 + epoch)[0].to(dtype)
        if epoch % 6 == 1:
            logits = 80 * logits.sign()
        elif epoch % 6 == 3:
            logits = torch.full_like(logits, 0.5)
        elif epoch % 6 == 4:
            logits[3] = float("nan")
            logits[4, 1] = float("inf")
            logits[5, labels[5]] = float("-inf")
            logits[6, (labels[6] + 1) % classes] = float("-inf")
        index = torch.randperm(n, generator=torch.Generator().manual_seed(epoch))
        index = torch.cat([index[: n - epoch % 4], index[:3]])  # some are missed, three come twice
        targets = labels[index]
        targets[7] = -100
        rows = logits[torch.cat([torch.arange(n - epoch % 4), torch.tensor([11, 12, 13])])]
        step(rows, targets, index, table.as_lines(), backend=backend)
        recorded: set[int] = set()
        for row, (i, y) in enumerate(zip(index.tolist(), targets.tolist(), strict=True)):
            if y == -100:
                continue
            if i in recorded:
                repeated += 1
                continue
            recorded.add(i)
            seen = reference.visit(rows[row].double().numpy(), y)
            if seen is None:
                skipped += 1
            else:
                log[i].append(seen)
    close(table_quiet(table), [reference.scores(v, window=window, epochs=20) for v in log], logit_scale=80)
    assert table.status.tolist() == [0, 0, repeated, skipped, 0, 0]
    assert skipped > 0
    assert repeated > 0


@pytest.mark.parametrize("rows", [1, 17, 1000, 5000])
@pytest.mark.parametrize("spacing", [1, 64, 4096, 618_034])
def test_repeats_are_counted_exactly(rows: int, spacing: int) -> None:
    """Indices close together and in regular steps, as a table of hashes likes them least."""
    samples = 1_000_003
    index = torch.randint(0, rows, (rows,), generator=torch.Generator().manual_seed(rows)) * spacing % samples
    table = ScoreTable(samples)
    logits, targets = batch(rows, 3, 1)
    step(logits, targets, index, table.as_lines())
    different = index.unique()
    assert int(table.status[ops.DUPLICATES]) == rows - len(different)
    visits = table.lines[:, -1] & 0xFFF
    assert torch.equal(visits.nonzero()[:, 0], different)
    assert int(visits.max()) == 1


def table_quiet(table: ScoreTable) -> ScoreTable:
    """The same table, without its warning of skipped visits."""
    quiet = ScoreTable(table.n_samples, window=table.window, epochs=table.epochs, **BESIDE)
    quiet.load_state_dict(table.state_dict() | {"status": torch.zeros_like(table.status)})
    return quiet


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_products_can_be_left_out(backend: str) -> None:
    lean, full = ScoreTable(20, window=2), ScoreTable(20, window=2)
    for epoch in range(5):
        logits, targets = batch(20, 12, epoch)
        for table, by_products in ((lean, False), (full, True)):
            step(logits, targets, torch.arange(20), table.as_lines(), backend=backend, by_products=by_products)
    a, b = lean.scores(), full.scores()
    for name in ("dual", "dyn_unc", "mean", "forgetting", "visits"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [10, 300])
def test_observations_are_what_the_lines_get(backend: str, classes: int) -> None:
    """With lines and without; ignored, repeated, skipped and late rows; folding them gives the lines, bit for bit."""
    table, folded = (ScoreTable(12, window=2, epochs=2, track_late_margin=True, track_top_other=True) for _ in range(2))
    n = 16
    for epoch in range(3):
        logits, targets = batch(n, classes, epoch)
        index = torch.cat([torch.arange(12), torch.arange(4)])
        targets[1], targets[2] = -100, 0
        logits[2, 1] = float("nan")
        logits[3, targets[3]] = float("-inf")  # p is 0, and yet the visit is skipped
        alone, beside = (ops.Observations.empty(n, logits.device, top_others=True) for _ in range(2))
        step(logits, targets, index, None, backend=backend, observations=alone)
        step(logits, targets, index, table.as_lines(), backend=backend, observations=beside)
        kept = targets != -100
        first = kept & (torch.arange(n) < 12) | (torch.arange(n) == 13)  # row 1, of the same sample, is ignored
        for seen, counted in ((alone, kept), (beside, first)):
            assert torch.equal(seen.flags & layout.COUNTED != 0, counted)
            for row in counted.nonzero()[:, 0].tolist():
                want = reference.visit(logits[row].double().numpy(), int(targets[row]))
                p, margin, el2n, entropy = seen.values[:, row].tolist()
                if want is None:
                    assert math.isnan(p)
                    continue
                assert (p, margin) == pytest.approx((want.p, want.margin), rel=1e-5, abs=1e-6)
                assert (el2n, entropy) == pytest.approx((want.el2n, want.entropy), rel=1e-5, abs=2e-6)
                assert bool(seen.flags[row] & layout.CORRECT) == want.correct
                assert seen.top_others is not None
                assert seen.top_others[row] == want.top_other
        assert not (alone.flags & layout.FOLDED).any()
        late = 0 if epoch == 2 else 1  # the limit is two visits
        visited = (beside.flags & layout.FOLDED != 0).nonzero()[:, 0].tolist()
        assert visited == ([row for row in range(n) if first[row] and row not in (2, 3)] if late else [])
        names = ("p", "margin", "el2n", "entropy")
        parts = dict(zip(names, alone.values, strict=True)) | {"correct": alone.flags & layout.CORRECT != 0}
        parts["top_other"] = alone.top_others
        ops.observe(folded.as_lines(), index, counted=alone.flags & layout.COUNTED != 0, **parts)
        if backend == "cpp":
            assert torch.equal(table.lines, folded.lines)
            assert torch.equal(table.status, folded.status)
        assert torch.equal(table.votes, folded.votes)
        assert torch.equal(table.late_margin_sums, folded.late_margin_sums)
    with table.paused():
        step(logits, targets, index, table.as_lines(), backend=backend, observations=beside)
    assert not (beside.flags & layout.COUNTED).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_votes_hold_any_class_and_every_visit(backend: str) -> None:
    """The last class that fits, whose vote sets the sign bit, for as many visits as are counted; one class more is
    refused."""
    classes = layout.VOTE_CLASS.max + 1
    table = ScoreTable(1, window=2, track_top_other=True)
    logits, here = torch.zeros(1, classes), torch.zeros(1, dtype=torch.int64)
    logits[0, -1] = 1.0
    for _ in range(2):
        step(logits, here, here, table.as_lines(), backend=backend, by_products=False)
    assert table.scores().top_other == [classes - 1]
    assert table.votes is not None
    table.votes[:] += layout.MAX_VISITS - 3
    table.lines[:, -1] += layout.MAX_VISITS - 3
    logits[0, 5] = 2.0
    step(logits, here, here, table.as_lines(), backend=backend)
    assert layout.VOTE_COUNT.of(int(table.votes[0])) == layout.MAX_VISITS - 2
    assert table.scores().top_other == [classes - 1]
    with pytest.raises(ValueError, match="1048577 classes and top_other tells at most 1048576 apart"):
        step(torch.zeros(1, classes + 1), here, here, table.as_lines(), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [1, 2, 10, 300])
def test_votes_start_with_the_lowest_wrong_class(backend: str, classes: int) -> None:
    """Where no wrong class has a finite logit, and in a tie."""
    table = ScoreTable(3, window=2, track_top_other=True)
    logits = torch.full((3, classes), -math.inf)
    logits[0, 0] = logits[1, -1] = 0.0
    logits[2] = 1.0
    step(logits, torch.tensor([0, classes - 1, 0]), torch.arange(3), table.as_lines(), backend=backend)
    lowest = min(1, classes - 1)
    np.testing.assert_array_equal(table.scores().top_other, [lowest, 0, lowest])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [10, 300])
def test_votes_are_read_before_the_gradient_overwrites_the_logits(backend: str, classes: int) -> None:
    over, apart = (ScoreTable(20, window=2, track_top_other=True) for _ in range(2))
    for table, inplace in ((over, True), (apart, False)):
        logits, targets = batch(20, classes, 3)
        step(logits, targets, torch.arange(20), table.as_lines(), backend=backend, inplace=inplace)
    np.testing.assert_array_equal(over.scores().top_other, apart.scores().top_other)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_lines(threads: int) -> None:
    before = torch.get_num_threads()
    tables = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            table = ScoreTable(3000, window=3)
            for epoch in range(5):
                logits, targets = batch(3000, 100, epoch)
                index = torch.arange(3000)
                index[1500:] = index[1500:].flip(0)
                index[2990:] = index[5]
                step(logits, targets, index, table.as_lines())
            tables.append(table)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(tables[0].lines, tables[1].lines)
    assert torch.equal(tables[0].status, tables[1].status)


def test_a_small_batch_starts_no_threads() -> None:
    code = """
import os
import torch
from dualfast import ScoreTable, ops
threads = []
for rows, classes in ((1, 1), (1024, 10), (256, 100), (1024, 1000)):
    lines = ScoreTable(2000).as_lines()
    ops.step(torch.zeros(rows, classes), torch.zeros(rows, dtype=torch.int64), torch.arange(rows), lines)
    threads.append(len(os.listdir("/proc/self/task")))
assert threads[0] == threads[1] == threads[2] < threads[3], threads
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "2"})


def test_observe_is_the_same_line_update() -> None:
    tracked = BESIDE | {"track_loss": True}
    direct, foreign = (ScoreTable(30, window=4, **tracked) for _ in range(2))
    for epoch in range(9):
        logits, targets = batch(30, 5, epoch)
        step(logits, targets, torch.arange(30), direct.as_lines())
        seen = [reference.visit(z.double().numpy(), int(y)) for z, y in zip(logits, targets, strict=True)]
        ops.observe(
            foreign.as_lines(),
            torch.arange(30),
            p=torch.tensor([v.p for v in seen if v], dtype=torch.float32),
            margin=torch.tensor([v.margin for v in seen if v], dtype=torch.float32),
            el2n=torch.tensor([v.el2n for v in seen if v], dtype=torch.float32),
            entropy=torch.tensor([v.entropy for v in seen if v], dtype=torch.float32),
            correct=torch.tensor([v.correct for v in seen if v]),
            top_other=torch.tensor([v.top_other for v in seen if v], dtype=torch.int32),
        )
    with pytest.raises(ValueError, match="top_other is missing"):
        ops.observe(foreign.as_lines(), torch.arange(1), **dict.fromkeys(("p", "margin", "el2n", "entropy", "correct")))
    assert torch.equal(direct.votes, foreign.votes)
    a, b = direct.scores(), foreign.scores()
    exact, close = ("forgetting", "visits"), ("dual", "dyn_unc", "mean", "aum", "aum_prob", "late_margin", "el2n")
    for name in (*exact, *close, "entropy", "loss"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=2e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_margins_of_probabilities_from_p_and_the_logit_margin(backend: str) -> None:
    """Within 2e-5 down to the least p of a kernel; beyond it the best other class is taken to have all the rest."""
    logits = torch.tensor([[a, 0.0, b] for b in (0.0, -1.0, -9.0) for a in (-84.0, -60.0, -16.0, -1.0, 0.0, 1.0, 90.0)])
    logits = torch.cat([logits, torch.tensor([[-300.0, 0.0, -300.0], [-2e4, 0.0, -40.0], [-300.0, 0.0, 0.0]])])
    n = len(logits)
    table, derived = ScoreTable(n, track_aum_prob=True), ScoreTable(n, track_aum_prob=True)
    where = ops.Observations.empty(n, torch.device("cpu"))
    targets, index = torch.zeros(n, dtype=torch.int64), torch.arange(n)
    step(logits, targets, index, table.as_lines(), backend=backend, observations=where)
    p, margin, el2n, entropy = where.values
    correct = where.flags & ops.layout.CORRECT != 0
    twice = torch.cat([index, index])  # of a repeated sample the first row counts
    seen = {"p": p, "margin": margin, "el2n": el2n, "entropy": entropy, "correct": correct}
    ops.observe(derived.as_lines(), twice, **{name: torch.cat([value, value]) for name, value in seen.items()})
    want = [v.prob_margin for v in (reference.visit(row.double().numpy(), 0) for row in logits) if v]
    np.testing.assert_allclose(table.scores().aum_prob, want, rtol=0, atol=1e-7)
    want[-1] = -1.0  # -0.5, which p and the margin no longer tell
    np.testing.assert_allclose(derived.scores().aum_prob, want, rtol=0, atol=2e-5)
    assert derived.scores().visits.tolist() == [1] * n  # type: ignore[union-attr]


@pytest.mark.parametrize("device", ["cpp", "torch"])
def test_a_row_that_is_left_out_does_not_hide_a_later_one(device: str) -> None:
    table = ScoreTable(3)
    seen: dict[str, torch.Tensor] = {"p": torch.tensor([0.25, 0.5, 0.75])}
    seen |= {name: torch.zeros(3) for name in ("margin", "el2n", "entropy")}
    seen["correct"] = torch.tensor([False, True, True])
    counted, index = torch.tensor([False, True, True]), torch.tensor([1, 1, 1])
    if device == "cpp":
        ops.observe(table.as_lines(), index, counted=counted, **seen)
    else:
        step_torch.observe(table.as_lines(), index, counted, seen)
    scores = table.scores()
    assert scores.mean[1] == 0.5
    assert table.status.tolist() == [0, 0, 1, 0, 0, 0]


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"logits": [[0.0, 1.0]]}, TypeError, "logits is a list"),
        ({"logits": torch.zeros(3, 4, dtype=torch.int64)}, TypeError, "logits are torch.int64"),
        ({"logits": torch.zeros(3, 4, 2)}, ValueError, "logits have the shape"),
        ({"targets": torch.zeros(3, dtype=torch.int32)}, TypeError, "targets are torch.int32"),
        ({"targets": torch.zeros(2, dtype=torch.int64)}, ValueError, "targets have the shape"),
        ({"targets": torch.tensor([0, 4, 1])}, ValueError, r"targets\[1\] is 4"),
        ({"targets": torch.tensor([0, 0, -1])}, ValueError, r"targets\[2\] is -1"),
        ({"index": torch.tensor([0, 1, 9])}, ValueError, r"index\[2\] is 9"),
        ({"index": torch.tensor([-1, 1, 2])}, ValueError, r"index\[0\] is -1"),
        ({"weight": torch.ones(5)}, ValueError, "weight has the shape"),
        ({"backend": "cuda"}, ValueError, "backend is 'cuda'"),
        ({"index": torch.zeros(3, dtype=torch.int64, device="meta")}, ValueError, "index is on meta"),
    ],
)
def test_bad_input_is_named_and_records_nothing(
    backend: str, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    table = ScoreTable(9)
    call: dict[str, Any] = {
        "logits": torch.zeros(3, 4),
        "targets": torch.tensor([0, 1, 2]),
        "index": torch.tensor([0, 1, 2]),
        "lines": table.as_lines(),
        "backend": backend,
    } | change
    with pytest.raises(error, match=words):
        step(**call)
    assert not table.lines.any()


@pytest.mark.parametrize("classes", [4, 300])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_index_of_an_ignored_row_may_be_anything(backend: str, classes: int) -> None:
    """As padding leaves it."""
    logits = torch.randn(40, classes, generator=torch.Generator().manual_seed(0))
    targets, index = torch.arange(40) % 4, torch.arange(40)
    targets[::2] = -100
    tables = [ScoreTable(40), ScoreTable(40)]
    for table, other in zip(tables, (index, index.clone()), strict=True):
        if table is tables[1]:
            other[::2] = torch.tensor([-1, 40, 2**62, -(2**62)]).repeat(5)
        step(logits, targets, other, table.as_lines(), backend=backend)
    assert torch.equal(tables[0].lines, tables[1].lines)
    assert int((tables[1].scores().visits == 1).sum()) == 20  # type: ignore[union-attr]


def test_the_index_of_what_is_not_counted_may_be_anything() -> None:
    table, one = ScoreTable(3), torch.ones(2)
    seen = {"p": one, "margin": one, "el2n": one, "entropy": one, "correct": one.bool()}
    ops.observe(table.as_lines(), torch.tensor([-7, 1]), counted=torch.tensor([False, True]), **seen)
    assert table.scores().visits.tolist() == [0, 1, 0]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"index\[0\] is -7"):
        ops.observe(table.as_lines(), torch.tensor([-7, 1]), **seen)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_is_fine(backend: str) -> None:
    table = ScoreTable(3)
    none = torch.zeros(0, dtype=torch.int64)
    loss, grad = step(torch.zeros(0, 4), none, none, table.as_lines(), backend=backend)
    assert float(loss) == 0
    assert grad is not None
    assert grad.shape == (0, 4)
    assert not table.lines.any()

"""The Triton kernels against float64 and against the C++: in Triton's interpreter, where test_kernels.py runs this
file, or on a GPU, where benchmarks/gpu.sh does: DUALFAST_TEST_DEVICE=cuda pytest tests/ops/interpreted_kernels.py

The interpreter has to be switched on before triton is imported, hence a process of its own. It shows numbers, not
races; and it cuts off bfloat16 instead of rounding it, at most one unit in the last place.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
import torch
from dualfast.kernels import line as line_kernels
from dualfast.kernels import step as step_kernels
from dualfast.kernels.step import Shape
from torch.nn import functional as F

from dualfast import DualLoss, ScoreTable, ops
from dualfast.ops import layout
from dualfast.ops.step_args import StepInputs

step_module = importlib.import_module("dualfast.ops.step")  # dualfast.ops.step itself is the function

DEVICE = os.environ.get("DUALFAST_TEST_DEVICE", "cpu")
assert (os.environ.get("TRITON_INTERPRET") == "1") == (DEVICE == "cpu"), (
    "TRITON_INTERPRET=1 or DUALFAST_TEST_DEVICE=cuda"
)

BESIDE = {"track_loss": True, "track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
ROWS = 16
TIMES_TORCH = 4  # an error may be so many times that of torch on the same input
DEFAULTS: dict[str, Any] = {
    "reduction": "mean",
    "scale": 1.0,
    "weight": None,
    "label_smoothing": 0.0,
    "ignore_index": -100,
    "by_products": True,
    "with_grad": True,
    "inplace": False,
}
WHOLE = {c: Shape(ROWS, max(1 << (c - 1).bit_length(), 16), 4) for c in (2, 10, 100, 1000, 1023)}
LOOPED = {100: Shape(ROWS, 64, 4), 1023: Shape(ROWS, 256, 4)}


def on_device(value: Any) -> Any:
    """A tensor, or the tensors of a dict or a list, on the device of the kernels."""
    if isinstance(value, list):
        return [on_device(part) for part in value]
    if isinstance(value, dict):
        return {name: on_device(part) for name, part in value.items()}
    return value.to(DEVICE) if isinstance(value, torch.Tensor) else value


def run_step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    table: ScoreTable | None,
    *,
    weight: torch.Tensor | None = None,
    observations: ops.Observations | None = None,
    shape: Shape | None = None,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """The kernel's step on its device; the results are on the CPU, but for a gradient written over the logits."""
    lines, how = None if table is None else table.as_lines(), ops.StepOptions(**options)
    tensors = on_device([logits, targets, index, weight])
    loss, grad, reduced = step_kernels.step(StepInputs(*tensors, lines, observations), how, shape=shape)
    assert lines is None or lines.status[ops.FINISHED] == 0
    grad = grad if grad is None or how.inplace else grad.cpu()
    return loss.cpu(), grad, None if reduced is None else reduced.cpu()


def run_observe(table: ScoreTable, index: torch.Tensor, counted: Any = None, **seen: Any) -> None:
    line_kernels.observe(table.as_lines(), on_device(index), on_device(counted), on_device(seen))


def pair(n_samples: int, **options: Any) -> list[ScoreTable]:
    """A table for the C++ and one for the kernels."""
    return [ScoreTable(n_samples, **options, device=device) for device in ("cpu", DEVICE)]


def batch(n_classes: int, dtype: torch.dtype, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Ordinary rows, an ignored one and the awkward ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(ROWS, n_classes, generator=generator) * 4
    targets = torch.randint(0, n_classes, (ROWS,), generator=generator)
    logits[6] = 80.0 * torch.randn(n_classes, generator=generator).sign()
    logits[7] = 3.0
    targets[8:14] = 0  # never the ignored class: torch makes NaN of an ignored row with NaN in it
    wrong = (targets + 1) % n_classes
    logits[8, wrong[8]] = float("-inf")
    logits[9, targets[9]] = float("-inf")
    logits[10, wrong[10]] = float("nan")
    logits[11, targets[11]] = float("inf")
    logits[12] = float("-inf")
    logits[13, wrong[13]] = float("inf")
    targets[14] = -100
    return logits.to(dtype), targets


def by_torch(
    logits: torch.Tensor, targets: torch.Tensor, dtype: torch.dtype, options: dict[str, Any], reduction: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Row losses and the gradient of the reduced loss with the arithmetic of dtype; the gradient in logits' dtype, or
    float64."""
    z = logits.detach().clone().requires_grad_()
    weight = None if options["weight"] is None else options["weight"].to(dtype)
    like = {"weight": weight, "label_smoothing": options["label_smoothing"], "ignore_index": options["ignore_index"]}
    total = F.cross_entropy(z.to(dtype), targets, reduction=reduction, **like) * options["scale"]
    (grad,) = torch.autograd.grad(total, z)
    return F.cross_entropy(logits.to(dtype), targets, reduction="none", **like), grad


def assert_close(ours: torch.Tensor, torchs: torch.Tensor, truth: torch.Tensor, dtype: torch.dtype) -> None:
    """Rows within TIMES_TORCH times torch's error in that row, or as many times two roundings of its largest value
    where torch is luckier; the same NaN and inf."""
    ours, torchs, truth = (t.double().reshape(len(t), -1) for t in (ours, torchs, truth))
    assert torch.equal(ours.isnan(), truth.isnan())
    assert torch.equal(ours.isinf(), truth.isinf())
    sound = truth.isfinite()
    unit = torch.finfo(dtype).eps / 2
    largest = torch.where(sound, truth, 0.0).abs().amax(1)
    theirs = torch.where(sound, torchs - truth, 0.0).abs().amax(1)
    error = torch.where(sound, ours - truth, 0.0).abs().amax(1)
    allowed = TIMES_TORCH * torch.maximum(theirs, 2 * unit * largest)
    assert (error <= allowed).all(), f"error {error.tolist()} is over {allowed.tolist()}"


OPTIONS = {
    "mean": {},
    "sum": {"reduction": "sum", "scale": 3.0},
    "smoothing": {"label_smoothing": 0.1},
    "weights": {"weight": True},
    "both": {"weight": True, "label_smoothing": 0.2},
    "ignore": {"ignore_index": 1},
    "inplace": {"inplace": True},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [*WHOLE.items(), *LOOPED.items()], ids=lambda at: f"{at[0]}-by-{at[1].block}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda dtype: str(dtype)[6:])
def test_step_against_float64(dtype: torch.dtype, shape: tuple[int, Shape], name: str) -> None:
    n_classes, layout = shape
    options = DEFAULTS | OPTIONS[name]
    if options["weight"]:
        options["weight"] = torch.rand(n_classes, generator=torch.Generator().manual_seed(1)) + 0.1
    logits, targets = batch(n_classes, dtype)
    if options["ignore_index"] >= 0:
        targets[14] = options["ignore_index"]
    reduction = options["reduction"]
    truth = by_torch(logits.double(), targets, torch.float64, options, reduction)
    torchs = by_torch(logits, targets, torch.float32, options, reduction)
    room = torch.zeros(ROWS, n_classes + 3, dtype=dtype, device=DEVICE)
    given = room[:, :n_classes].copy_(logits)  # rows with a stride of their own
    loss, grad, reduced = run_step(given, targets, torch.arange(ROWS), None, **options, shape=layout)
    assert grad is not None
    assert grad.dtype == dtype
    assert loss.dtype == torch.float32
    assert_close(loss, torchs[0], truth[0], torch.float32)
    assert_close(grad.cpu(), torchs[1], truth[1], dtype)
    assert reduced is not None
    assert reduced.isnan()  # as some rows are
    assert (grad.data_ptr() == given.data_ptr()) == options["inplace"]
    assert not room[:, n_classes:].any()
    if not options["inplace"]:
        assert torch.equal(given.cpu().contiguous().view(torch.int16), logits.view(torch.int16))


@pytest.mark.parametrize("shape", [Shape(4, 16, 1), Shape(4, 4, 1)])
def test_confident_rows_keep_their_digits(shape: Shape) -> None:
    """1 - p and -log p are formed from the wrong classes, so that they are right where torch gives zero."""
    logits = torch.zeros(4, 10)
    targets = torch.arange(4)
    logits[torch.arange(4), targets] = torch.tensor([8.0, 17.0, 25.0, 60.0])
    loss, grad, _ = run_step(logits, targets, targets, None, **DEFAULTS | {"reduction": "sum"}, shape=shape)
    truth = by_torch(logits.double(), targets, torch.float64, DEFAULTS, "sum")[0]
    others = 9 * torch.exp(-logits.double()[torch.arange(4), targets])
    assert grad is not None
    torch.testing.assert_close(loss.double(), torch.log1p(others), rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.double()[:2], truth[:2], rtol=1e-5, atol=0)
    torch.testing.assert_close(-grad[torch.arange(4), targets].double(), others / (1 + others), rtol=1e-5, atol=0)


def test_an_ignored_row_is_zero_whatever_its_logits() -> None:
    for shape in (Shape(2, 16, 1), Shape(2, 4, 1)):
        logits = torch.full((2, 10), float("nan"))
        loss, grad, _ = run_step(
            logits, torch.full((2,), -100), torch.arange(2), None, **DEFAULTS | {"label_smoothing": 0.1}, shape=shape
        )
        assert grad is not None
        assert not loss.any()
        assert not grad.any()


def test_sixteen_bit_gradients_are_scaled_before_they_are_rounded() -> None:
    logits, targets = torch.zeros(ROWS, 1000, dtype=torch.float16), torch.zeros(ROWS, dtype=torch.int64)
    _, grad, _ = run_step(logits, targets, targets, None, **DEFAULTS | {"scale": 65536.0}, shape=Shape(16, 1024, 4))
    assert grad is not None
    torch.testing.assert_close(grad[:, 1:].float(), torch.full((ROWS, 999), 65536 / 1000 / ROWS), rtol=1e-3, atol=0)


def seen_by(backend: str, table: ScoreTable, batches: int, shape: Shape | None, n_classes: int, **options: Any) -> None:
    generator = torch.Generator().manual_seed(3)
    for number in range(batches):
        logits = torch.randn(ROWS, n_classes, generator=generator) * 3
        targets = torch.randint(0, n_classes, (ROWS,), generator=generator)
        index = torch.randint(0, table.n_samples, (ROWS,), generator=generator)
        index[:2] = 0
        targets[2 + number % 3] = -100
        index[9] = index[2 + number % 3]  # the first row of that sample is ignored, so this one counts
        logits[5, 0] = float("nan") if number % 4 == 3 else 0.0
        logits[torch.arange(ROWS), targets.clamp(min=0)] += number / 4
        if backend == "cpp":
            ops.step(logits, targets, index, table.as_lines(), ops.StepOptions(backend="cpp", **options))
        else:
            run_step(logits, targets, index, table, **DEFAULTS | options, shape=shape)


def assert_same_lines(ours: ScoreTable, theirs: ScoreTable) -> None:
    """Counters, status and ring order exactly; floats to 1e-5, the ring's two-pass standard deviation in another
    order."""
    assert ours.status.tolist() == theirs.status.tolist()
    assert torch.equal(ours.lines[:, -1].cpu(), theirs.lines[:, -1])
    floats = [table.lines[:, :-1].cpu().contiguous().view(torch.float32) for table in (ours, theirs)]
    torch.testing.assert_close(floats[0], floats[1], rtol=1e-5, atol=2e-6)
    assert [*ours.beside] == [*theirs.beside]
    for name, value in theirs.beside.items():
        torch.testing.assert_close(ours.beside[name].cpu(), value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("shape", [Shape(8, 16, 1), Shape(8, 4, 1)])
@pytest.mark.parametrize("window", [3, 10, 12])
def test_step_lines_equal_those_of_cpp(
    window: int, shape: Shape, planned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 1024)
    tables = pair(12, window=window, epochs=12, **BESIDE)
    seen_by("cpp", tables[0], 15, None, 10, label_smoothing=0.1)
    seen_by("triton", tables[1], 15, shape, 10, label_smoothing=0.1)
    assert_same_lines(tables[1], tables[0])
    visits = tables[0].lines[:, -1] & 0xFFF
    assert visits.max() == 12
    assert visits.min() >= 5
    assert tables[0].status[2] > 15
    assert tables[0].status[3] > 0
    assert (tables[0].lines[:, -1] >> 12 & 0xFFF).any()


@pytest.mark.parametrize(("n_classes", "shape"), [(100, None), (300, None), (9001, None), (9001, Shape(4, 512, 4))])
def test_step_as_it_is_laid_out(n_classes: int, shape: Shape | None) -> None:
    """The shapes the table picks, and the loop in many rounds: lines, losses and gradient equal those of C++."""
    tables = pair(12, window=2, **BESIDE)
    seen_by("cpp", tables[0], 3, None, n_classes)
    seen_by("triton", tables[1], 3, shape, n_classes)
    assert_same_lines(tables[1], tables[0])
    weight = torch.linspace(0.5, 2, n_classes)
    logits, targets = batch(n_classes, torch.float32)
    options = DEFAULTS | {"weight": weight, "label_smoothing": 0.1}
    ours = run_step(logits, targets, torch.arange(ROWS), None, **options, shape=shape)
    truth = by_torch(logits.double(), targets, torch.float64, options, "mean")
    torchs = by_torch(logits, targets, torch.float32, options, "mean")
    assert ours[1] is not None
    assert_close(ours[0], torchs[0], truth[0], torch.float32)
    assert_close(ours[1], torchs[1], truth[1], torch.float32)


@pytest.mark.parametrize("shape", [Shape(4, 16, 1), Shape(4, 4, 1)])
def test_ties_among_the_wrong_classes_go_to_the_lowest(shape: Shape) -> None:
    tables = pair(8, window=2, track_top_other=True)
    logits, targets = torch.zeros(8, 10), torch.tensor([0, 1, 2, 9, 0, 5, 3, 0])
    logits[4:, 1:] = float("-inf")  # no wrong class has a finite logit
    logits[5], logits[5, 5] = float("-inf"), 0.0
    logits[6, 3] = 1.0
    logits[7, 8] = 1.0
    ops.step(logits, targets, torch.arange(8), tables[0].as_lines(), ops.StepOptions(backend="cpp"))
    run_step(logits, targets, torch.arange(8), tables[1], shape=shape)
    assert tables[0].scores().top_other.tolist() == [1, 0, 0, 0, 1, 0, 0, 8]  # type: ignore[union-attr]
    assert_same_lines(tables[1], tables[0])


def test_skipped_visits_saturate() -> None:
    tables = pair(1, window=2)
    nan, here = torch.full((1, 2), float("nan")), torch.zeros(1, dtype=torch.int64)
    for _ in range(66):
        ops.step(nan, here, here, tables[0].as_lines(), ops.StepOptions(backend="cpp"))
        run_step(nan, here, here, tables[1], **DEFAULTS)
    assert_same_lines(tables[1], tables[0])
    assert (tables[1].lines[0, -1] >> 26 & 63) == 63


@pytest.mark.parametrize("planned", [False, True])
def test_bad_rows_are_counted_and_not_recorded(planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 1024)
    table = ScoreTable(5, window=2, device=DEVICE)
    targets, index = torch.tensor([0, 3, -1, 1, 2, -100]), torch.tensor([0, 1, 2, 5, -1, 99])
    options = DEFAULTS | {"weight": torch.ones(3)}
    loss, grad, reduced = run_step(torch.zeros(6, 3), targets, index, table, **options)
    assert grad is not None
    assert reduced is not None
    assert table.status.tolist() == [2, 2, 0, 0, 0, 0]
    assert loss.isnan().tolist() == [False, True, True, False, False, False]
    assert grad.isnan().all(1).tolist() == loss.isnan().tolist()
    assert reduced.isnan()
    assert (table.lines[:, -1] & 0xFFF).tolist() == [1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="2 index values"):
        table.scores()


@pytest.mark.parametrize("planned", [False, True])
def test_a_paused_table_is_left_as_it_is(planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 1024)
    table = ScoreTable(12, window=2, **BESIDE, device=DEVICE)
    seen_by("triton", table, 1, None, 10)
    state = (table.lines, table.status, *table.beside.values())
    before = [part.clone() for part in state]
    logits, targets = batch(10, torch.float32)
    index = torch.arange(ROWS) % 12
    seen = {name: torch.rand(ROWS) for name in ("p", "margin", "el2n", "entropy")}
    with table.paused():
        run_step(logits, targets, index, table, **DEFAULTS)
        run_observe(table, index, **seen, correct=targets > 3)
    for now, then in zip(state, before, strict=True):
        assert torch.equal(now, then)
    run_step(logits, targets, index, table, **DEFAULTS)
    run_observe(table, index, **seen, correct=targets > 3)
    assert ((table.lines[:, -1] & 0xFFF) > (before[0][:, -1] & 0xFFF)).any()


def test_the_debug_switch_raises_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, here = torch.zeros(2, 3), torch.tensor([0, 1])
    for targets, index, words in ((here, here + 4, "2 index values"), (here + 2, here, "2 targets")):
        table = ScoreTable(5, window=2, device=DEVICE)
        batch_there = on_device([logits, targets, index])
        ops.step(*batch_there, table.as_lines(), ops.StepOptions(backend="triton"))
        monkeypatch.setattr(step_module, "DEBUG", True)
        with pytest.raises(ValueError, match=words):
            ops.step(*batch_there, table.as_lines(), ops.StepOptions(backend="triton"))
        monkeypatch.setattr(step_module, "DEBUG", False)


@pytest.mark.parametrize("window", [2, 10, 30])
def test_observe_equals_that_of_cpp(window: int) -> None:
    tables = pair(9, window=window, epochs=40)
    generator = torch.Generator().manual_seed(4)
    for number in range(34):
        index = torch.randint(0, 9, (20,), generator=generator)
        seen = {name: torch.rand(20, generator=generator) for name in ("p", "margin", "el2n", "entropy")}
        seen["p"][number % 20] = float("nan")
        correct, counted = torch.rand(2, 20, generator=generator) < 0.7
        marks = counted if number % 2 else None
        rows = counted if number % 2 else torch.ones_like(counted)
        left = {name: value[rows] for name, value in seen.items()}
        ops.observe(tables[0].as_lines(), index[rows], **left, correct=correct[rows])
        run_observe(tables[1], index, **seen, correct=correct, counted=marks)
    assert_same_lines(tables[1], tables[0])
    before = tables[1].lines.clone()
    run_observe(tables[1], torch.full((20,), 9), **seen, correct=correct)
    assert torch.equal(tables[1].lines, before)
    assert tables[1].status[0] == 20


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("shape", [Shape(8, 16, 1), Shape(8, 4, 1)])
def test_observations_equal_those_of_cpp(shape: Shape, planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 1024)
    tables = pair(9, window=2, epochs=2)
    for number in range(3):
        generator = torch.Generator().manual_seed(number)
        logits = torch.randn(ROWS, 10, generator=generator) * 3
        targets = torch.randint(0, 10, (ROWS,), generator=generator)
        index = torch.arange(ROWS) % 9
        targets[3] = -100
        logits[4, 0] = float("nan")
        logits[5, targets[5]] = float("-inf")  # p is 0, and yet the visit is skipped
        for with_lines in (False, True):
            theirs = ops.Observations.empty(ROWS, torch.device("cpu"), top_others=True)
            ours = ops.Observations.empty(ROWS, torch.device(DEVICE), top_others=True)
            lines = tables[0].as_lines() if with_lines else None
            ops.step(logits, targets, index, lines, ops.StepOptions(backend="cpp"), observations=theirs)
            run_step(logits, targets, index, tables[1] if with_lines else None, observations=ours)
            counted = theirs.flags & layout.COUNTED != 0
            assert torch.equal(ours.flags.cpu()[counted], theirs.flags[counted])
            assert torch.equal(ours.flags.cpu() & layout.COUNTED != 0, counted)
            values = (ours.values.cpu()[:, counted], theirs.values[:, counted])
            finite = theirs.values[0, counted].isfinite()
            assert torch.equal(values[0][0].isfinite(), finite)
            torch.testing.assert_close(values[0][:, finite], values[1][:, finite], rtol=1e-5, atol=2e-6)
            assert ours.top_others is not None
            assert theirs.top_others is not None
            tops = ours.top_others.cpu()[counted], theirs.top_others[counted]
            assert torch.equal(tops[0][finite], tops[1][finite])
    targets[0] = 10
    run_step(logits, targets, index, None, observations=ours)
    assert ours.flags[0] & layout.WRONG_TARGET
    assert not ours.flags[0] & layout.COUNTED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_scale_grad(dtype: torch.dtype) -> None:
    given = torch.randn(7, 30).to(dtype).to(DEVICE)
    for factor in (torch.tensor(1.0), torch.tensor(3.0), torch.rand(7), torch.ones(1).expand(7), torch.tensor(0.5)):
        upstream = factor.to(DEVICE)
        grad = torch.zeros(7, 33, dtype=dtype, device=DEVICE)[:, :30].copy_(given)
        assert step_kernels.scale_grad(grad, upstream) is grad
        expected = given.float() * (upstream[:, None] if upstream.ndim else upstream)
        torch.testing.assert_close(grad, expected.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_dual_loss_on_the_triton_back_end(reduction: Any) -> None:
    results = []
    for backend in ("cpp", "triton"):
        device = DEVICE if backend == "triton" else "cpu"
        table = ScoreTable(ROWS, window=2, device=device)
        criterion = DualLoss(table, reduction=reduction, backend=backend, label_smoothing=0.1)
        logits, targets = (part[:8].to(device) for part in batch(10, torch.float32))
        logits.requires_grad_()
        index = torch.arange(8, device=device)
        loss = criterion(logits, targets, index)
        (loss * (index + 1.0)).sum().backward() if reduction == "none" else (2 * loss).backward()
        criterion.observe(logits, targets, index)
        assert logits.grad is not None
        results.append((loss.detach().cpu(), logits.grad.cpu()))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("count", [1, 3, 300])
@pytest.mark.parametrize("name", ["mean", "sum", "weights", "ignore"])
def test_the_last_program_reduces(name: str, count: int, planned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss against float64, batch after batch: the counter of programs is left as it was found."""
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 2048)
    options = DEFAULTS | OPTIONS[name] | {"with_grad": False, "scale": 1.0}
    if options["weight"]:
        options["weight"] = torch.linspace(0.5, 2, 5)
    like = {part: options[part] for part in ("reduction", "ignore_index")}
    table = ScoreTable(count, window=2, device=DEVICE)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(count, 5, generator=generator)
        targets = torch.randint(0, 5, (count,), generator=generator)
        targets[0] = 2
        _, _, reduced = run_step(logits, targets, torch.arange(count), table, **options, shape=Shape(64, 8, 1))
        weight = None if options["weight"] is None else options["weight"].double()
        truth = F.cross_entropy(logits.double(), targets, weight, **like)
        assert reduced is not None
        assert float(reduced) == pytest.approx(float(truth), rel=1e-6)
    targets.fill_(options["ignore_index"] if name == "ignore" else -100)
    _, _, reduced = run_step(logits, targets, torch.arange(count), table, **options, shape=Shape(64, 8, 1))
    assert reduced is not None
    assert reduced.isnan() == (options["reduction"] == "mean")  # as torch's


def test_columns_that_are_not_dense() -> None:
    logits, targets = torch.randn(4, 6), torch.arange(4)
    ours = run_step(logits.t().contiguous().t(), targets, targets, None, **DEFAULTS)
    theirs = run_step(logits, targets, targets, None, **DEFAULTS)
    assert ours[1] is not None
    assert theirs[1] is not None
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.skipif(DEVICE != "cpu", reason="it is the interpreter that tells the addresses")
@pytest.mark.parametrize("planned", [False, True])
@pytest.mark.parametrize("shape", [None, Shape(2, 1024, 4), Shape(1, 256, 4)], ids=str)
def test_programs_stay_in_their_tensors_and_touch_nothing_that_another_writes(
    shape: Shape | None, planned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the counters, which are atomic, and the losses, which the last program reads after all have counted
    themselves. Also where rows repeat an index, or have a wrong one."""
    kernel = step_kernels.step_kernel
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    tensors: dict[str, torch.Tensor] = {}
    seen: set[tuple[str, int, int]] = set()  # what is done, by which program, at which address

    class Launched:
        def __getitem__(self, grid: Any) -> Any:
            def launch(*args: Any, **constants: Any) -> None:
                tensors.update((n, a) for n, a in zip(kernel.arg_names, args, strict=False) if torch.is_tensor(a))
                kernel[grid](*args, **constants)

            return launch

    def watch(name: str, pointer: int, mask: int) -> None:
        original = getattr(builder, name)

        def watched(*args: Any, **options: Any) -> Any:
            if tensors:  # not in plan_kernel
                addresses = args[pointer].data[args[mask].data.astype(bool)].ravel().tolist()
                seen.update((name, builder.grid_idx[0], address) for address in addresses)
            return original(*args, **options)

        monkeypatch.setattr(builder, name, watched)

    watch("create_masked_load", 0, 1)
    watch("create_masked_store", 0, 2)
    watch("create_atomic_rmw", 1, 3)
    monkeypatch.setattr(step_kernels, "step_kernel", Launched())
    monkeypatch.setattr(step_kernels, "PLAN_ROWS", 0 if planned else 2048)
    rows, n_classes = 9, 10 if shape is None else 1000
    targets, index = torch.arange(rows), torch.arange(rows)
    targets[3], targets[4] = -100, n_classes
    index[2], index[5], index[6] = index[1], -1, rows
    table = ScoreTable(rows, **BESIDE)
    run_step(torch.randn(rows, n_classes), targets, index, table, **DEFAULTS, shape=shape)

    spans = {name: (t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for name, t in tensors.items()}
    owner = {at: [name for name, (start, end) in spans.items() if start <= at < end] for _, _, at in seen}
    assert all(owner.values()), "an access outside all tensors"
    writers: dict[int, set[int]] = {}
    for what, program, at in seen:
        if what == "create_masked_store":
            writers.setdefault(at, set()).add(program)
    shared = {(what, owner[at][0], program) for what, program, at in seen if writers.get(at, set()) - {program}}
    last = max(program for _, program, _ in seen)
    assert last > 1
    assert {case for case in shared if case[:2] != ("create_atomic_rmw", "status_ptr")} == {
        ("create_masked_load", "loss_ptr", last)
    }

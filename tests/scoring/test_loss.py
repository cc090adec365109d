"""DualLoss: torch's cross-entropy to the caller, and a table that agrees with float64 scoring of the logged logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from dualfast import DualLoss, ScoreTable, reference, score_trajectories

SCORES = ("dual", "dyn_unc", "mean", "aum", "aum_prob", "el2n", "entropy", "forgetting", "visits")


def batch(rows: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=draw, dtype=torch.float64) * 3
    return logits, torch.randint(0, classes, (rows,), generator=draw), torch.randperm(rows, generator=draw)


@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_torchs(backend: str, reduction: Any, smoothing: float, weighted: bool) -> None:
    logits, targets, index = batch(50, 12)
    targets[4] = 7
    weight = torch.linspace(0.2, 2, 12) if weighted else None
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": 7}
    upstream = torch.linspace(-1, 2, 50) if reduction == "none" else torch.tensor(0.7)
    mine, theirs = logits.float().requires_grad_(), logits.clone().requires_grad_()
    criterion = DualLoss(ScoreTable(50), weight=weight, backend=backend, **options)
    loss = criterion(mine, targets, index)
    exact = cross_entropy(theirs, targets, weight=None if weight is None else weight.double(), **options)
    loss.backward(upstream)
    exact.backward(upstream.double())
    assert mine.grad is not None
    torch.testing.assert_close(loss.double(), exact, rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=2e-6, atol=2e-6)


def test_gradcheck_of_the_float64_path() -> None:
    logits, targets, index = batch(6, 5)
    for options in ({}, {"label_smoothing": 0.3, "weight": torch.rand(5, dtype=torch.float64)}, {"reduction": "none"}):
        criterion = DualLoss(ScoreTable(6), **options)  # type: ignore[arg-type]
        assert torch.autograd.gradcheck(lambda z, c=criterion: c(z, targets, index), logits.requires_grad_())


def test_gradients_accumulate_and_scale() -> None:
    """Two micro-batches with a loss scale, as a GradScaler would apply it."""
    logits, targets, index = batch(40, 8)
    draw = torch.randn(8, 8, dtype=torch.float32, generator=torch.Generator().manual_seed(1))
    weights, torchs = (draw.clone().requires_grad_() for _ in range(2))
    exact = draw.double().requires_grad_()
    criterion = DualLoss(ScoreTable(40))
    for part in (slice(0, 20), slice(20, 40)):
        (criterion(logits[part].float() @ weights, targets[part], index[part]) * 1024).backward()
        (cross_entropy(logits[part].float() @ torchs, targets[part]) * 1024).backward()
        (cross_entropy(logits[part] @ exact, targets[part]) * 1024).backward()
    assert weights.grad is not None
    assert torchs.grad is not None
    own = float((torchs.grad - exact.grad).abs().max())
    torch.testing.assert_close(weights.grad.double(), exact.grad, rtol=0, atol=4 * own)


@pytest.mark.parametrize(("reduction", "label_smoothing"), [("sum", 0.0), ("none", 0.0), ("mean", 0.1)])
def test_large_weights_leave_float16_gradients_finite(reduction: Any, label_smoothing: float) -> None:
    weight, targets = torch.tensor([1.0, 200.0, 1.0]), torch.tensor([0, 1, 2, 2])
    logits = [torch.zeros(4, 3, dtype=torch.float16, requires_grad=True) for _ in range(2)]
    options = {"weight": weight, "reduction": reduction, "label_smoothing": label_smoothing}
    DualLoss(ScoreTable(4), **options)(logits[0], targets, torch.arange(4)).sum().backward()
    cross_entropy(logits[1].float(), targets, **options).sum().backward()
    torch.testing.assert_close(logits[0].grad, logits[1].grad, rtol=2e-3, atol=1e-5)


def test_small_float16_gradients_survive_a_loss_scale() -> None:
    """What would round to 0 in float16 is kept when a GradScaler's factor lifts it, as in torch's own graph."""
    logits = torch.zeros(64, 8)
    logits[:, 0] = 14.0
    targets, index = torch.zeros(64, dtype=torch.int64), torch.arange(64)
    half = logits.half().requires_grad_()
    (DualLoss(ScoreTable(64))(half, targets, index) * 65536.0).backward()
    exact = logits.double().requires_grad_()
    (cross_entropy(exact, targets) * 65536.0).backward()
    assert half.grad is not None
    torch.testing.assert_close(half.grad.double(), exact.grad, rtol=2e-3, atol=1e-7)


def test_autocast_gives_bfloat16_gradients() -> None:
    logits, targets, index = batch(16, 10)
    layer = torch.nn.Linear(10, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(logits.float())
        loss = DualLoss(ScoreTable(16))(out, targets, index)
    assert out.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    loss.backward()
    exact = cross_entropy(out.detach().double(), targets)
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=1e-6)


def test_a_second_backward_says_why_it_cannot() -> None:
    logits, targets, index = batch(4, 3)
    loss = DualLoss(ScoreTable(4))(logits.float().requires_grad_(), targets, index)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        loss.backward()


def test_a_second_derivative_is_refused() -> None:
    logits, targets, index = batch(4, 3)
    loss = DualLoss(ScoreTable(4))(logits.float().requires_grad_(), targets, index)
    with pytest.raises(RuntimeError, match="second derivative"):
        loss.backward(create_graph=True)


def test_no_gradient_is_formed_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, targets, index = batch(4, 3)
    table = ScoreTable(4)
    assert not DualLoss(table)(logits.float(), targets, index).requires_grad
    DualLoss(table).observe(logits.float(), targets, index)
    assert table.scores().visits.tolist() == [2, 2, 2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_non_finite_logits_show_as_in_torch_and_are_counted(backend: str) -> None:
    for bad in (float("nan"), float("inf"), float("-inf")):
        logits, targets, index = batch(6, 4)
        logits[2, targets[2]] = bad
        table = ScoreTable(6)
        loss = DualLoss(table, reduction="none", backend=backend)(logits.float(), targets, index)
        exact = cross_entropy(logits.float(), targets, reduction="none")
        torch.testing.assert_close(loss, exact, equal_nan=True)
        with pytest.warns(UserWarning, match="1 visits had logits that are not finite"):
            scores = table.scores()
        assert scores.visits is not None
        assert scores.visits[index[2]] == 0
        assert scores.visits.sum() == 5


def test_track_loss_is_the_mean_of_plain_cross_entropy() -> None:
    table = ScoreTable(30, track_loss=True)
    criterion = DualLoss(table, label_smoothing=0.2)
    total = np.zeros(30)
    for epoch in range(3):
        logits, targets, index = batch(30, 6, epoch)
        criterion(logits.float(), targets, index)
        total[index] += cross_entropy(logits, targets, reduction="none").numpy()
    np.testing.assert_allclose(table.scores().loss, total / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
        ({"reduction": "avg"}, ValueError, "reduction is 'avg'"),
        ({"backend": "triton"}, ValueError, "backend is 'triton'"),
        ({"table": "x"}, TypeError, "table is a str"),
        ({"weight": [1.0, 2.0]}, TypeError, "weight is a list; give a torch.Tensor"),
        ({"ignore_index": "x"}, TypeError, "ignore_index is 'x'; give an integer"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        DualLoss(**({"table": ScoreTable(4)} | options))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_integers_are_taken(dtype: torch.dtype) -> None:
    logits, targets, index = batch(9, 5)
    narrow, plain = ScoreTable(9), ScoreTable(9)
    loss = DualLoss(narrow)(logits.float(), targets.to(dtype), index.to(dtype))
    torch.testing.assert_close(loss, DualLoss(plain)(logits.float(), targets, index), rtol=0, atol=0)
    assert torch.equal(narrow.lines, plain.lines)


# ---- mixed targets --------------------------------------------------------------------------------------------------


def mixed(targets: torch.Tensor, classes: int) -> torch.Tensor:
    one_hot = torch.nn.functional.one_hot(targets, classes).float()
    return 0.3 * one_hot + 0.7 * one_hot.roll(1, 0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_mixed_targets_give_torchs_loss_and_score_the_own_label(
    reduction: Any, smoothing: float, dtype: torch.dtype
) -> None:
    logits, targets, index = batch(40, 7)
    logits = logits.to(dtype)
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
    weight = torch.linspace(0.2, 2, 7)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().double().requires_grad_()
    table, plain = ScoreTable(40), ScoreTable(40)
    loss = DualLoss(table, weight=weight, **options)(mine, mixed(targets, 7), index, observe_targets=targets.int())
    exact = cross_entropy(theirs, mixed(targets, 7).double(), weight=weight.double(), **options)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-6)
    loss.sum().backward()
    exact.sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad.to(dtype))
    DualLoss(plain).observe(logits, targets, index)
    assert torch.equal(table.lines, plain.lines)


def test_mixed_targets_compile() -> None:
    logits, targets, index = batch(8, 3)
    table, plain = ScoreTable(8), ScoreTable(8)
    compiled = torch.compile(DualLoss(table), fullgraph=True, backend="eager")
    loss = compiled(logits.float(), mixed(targets, 3), index, observe_targets=targets)
    torch.testing.assert_close(loss, cross_entropy(logits.float(), mixed(targets, 3)))
    DualLoss(plain).observe(logits.float(), targets, index)
    assert torch.equal(table.lines, plain.lines)


def test_rows_without_a_label_count_in_the_mixed_loss_alone() -> None:
    logits, targets, index = batch(8, 3)
    table = ScoreTable(8)
    own = targets.clone()
    own[2] = -100
    loss = DualLoss(table)(logits.float(), mixed(targets, 3), index, observe_targets=own)
    torch.testing.assert_close(loss, cross_entropy(logits.float(), mixed(targets, 3)))
    visits = table.scores().visits
    assert visits is not None
    assert visits.sum() == 7
    assert visits[index[2]] == 0


def test_an_empty_mixed_batch_costs_nothing() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = DualLoss(ScoreTable(8))(logits, torch.zeros(0, 3), none, observe_targets=none)
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"observe_targets": None}, ValueError, "observe_targets is missing: give each sample's own label"),
        (
            {"targets": torch.full((8, 3), 0.4)},
            ValueError,
            r"targets \(B, C\) sum to 1\.2 in a row; give probabilities",
        ),
        ({"targets": torch.tensor([[1.5, -0.5, 0]] * 8)}, ValueError, r"are as low as -0\.5"),
        ({"targets": torch.full((8, 3), torch.nan)}, ValueError, "are as low as nan"),
        ({"targets": torch.tensor([[torch.inf, 0, 0]] * 8)}, ValueError, "sum to inf in a row"),
        ({"targets": torch.eye(8, 5).long()}, ValueError, r"targets are torch.int64 \(B, C\); give probabilities, as"),
        ({"observe_targets": [0] * 8}, TypeError, "observe_targets is a list"),
        ({"observe_targets": torch.zeros(7, dtype=torch.int64)}, ValueError, r"of the shape \(7,\); give .* \(8,\)"),
        ({"observe_targets": torch.zeros(8)}, ValueError, "observe_targets are torch.float32"),
        ({"observe_targets": torch.full((8,), 5)}, ValueError, r"targets\[0\] is 5"),
        ({"targets": torch.zeros(8, 4)}, ValueError, r"targets have the shape \(8, 4\)"),
        ({"targets": torch.zeros(8, 3, device="meta")}, ValueError, "targets are on meta"),
        ({"targets": torch.zeros(8, dtype=torch.int64)}, ValueError, "leave it out for labels"),
        ({"index": torch.full((8,), 8)}, ValueError, "index"),
    ],
)
def test_mixed_targets_that_cannot_be_scored_record_nothing(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    logits, targets, index = batch(8, 3)
    table = ScoreTable(8)
    call = {"targets": mixed(targets, 3), "index": index, "observe_targets": targets} | change
    with pytest.raises(error, match=words):
        DualLoss(table)(logits.float(), **call)
    assert not table.lines.any()


# ---- against logged logits ------------------------------------------------------------------------------------------


def agree(table: ScoreTable, log: list[list[reference.Visit]], logit_scale: float) -> None:
    """dual within 1e-4 relative, forgetting and visits exactly."""
    found = table.scores()
    want = [reference.scores(visits, window=table.window, epochs=table.epochs) for visits in log]
    tolerance = {"dual": (1e-4, 1e-8), "dyn_unc": (1e-4, 1e-8), "mean": (1e-6, 1e-7), "aum": (1e-5, 1e-6 * logit_scale)}
    for name in SCORES:
        rtol, atol = tolerance.get(name, (1e-5, 2e-6))
        if name in ("forgetting", "visits"):
            rtol = atol = 0
        np.testing.assert_allclose(getattr(found, name), [w[name] for w in want], rtol, atol, err_msg=name)


def test_a_run_on_real_digits_agrees_with_post_hoc_scoring(tmp_path: Path) -> None:
    """What DualLoss gathers through the Loader equals float64 scores of the logits, logged and scored afterwards."""
    from dualfast import Loader, write
    from dualfast.data import sources
    from dualfast.training import models

    written = write(sources.digits("train"), tmp_path / "digits.beton")
    torch.manual_seed(0)
    model = models.build("small", num_classes=10, image_size=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    table = ScoreTable(written.n_samples, window=4, epochs=8, track_aum_prob=True)
    criterion = DualLoss(table)
    log: list[list[reference.Visit]] = [[] for _ in range(written.n_samples)]
    with Loader(written.path, 128, image_size=8, augment="crop") as loader:
        for _ in range(9):
            for images, labels, index in loader:
                logits = model(images)
                loss = criterion(logits, labels, index)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                for i, y, row in zip(index.tolist(), labels.tolist(), logits.detach().double().numpy(), strict=True):
                    seen = reference.visit(row, y)
                    assert seen is not None
                    log[i].append(seen)
    assert {len(visits) for visits in log} == {9}
    agree(table, log, 20)
    scores = table.scores()
    assert scores.forgetting is not None
    assert scores.forgetting.max() > 0  # the run learns, and forgets
    assert scores.mean.mean() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adversarial_epochs_agree_with_post_hoc_scoring(dtype: torch.dtype) -> None:
    n, classes = 60, 10
    table = ScoreTable(n, window=5, epochs=20, track_aum_prob=True)
    criterion = DualLoss(table)
    labels = batch(n, classes, 77)[1]
    log: list[list[reference.Visit]] = [[] for _ in range(n)]
    for epoch in range(24):
        logits, _, index = batch(n, classes, epoch)
        logits = 80 * logits.sign() if epoch % 4 == 1 else torch.full_like(logits, -80.0) if epoch % 4 == 3 else logits
        logits = logits.to(dtype).requires_grad_()
        loss = criterion(logits, labels[index], index)
        loss.backward()
        for i, row in zip(index.tolist(), logits.detach().double().numpy(), strict=True):
            seen = reference.visit(row, int(labels[i]))
            assert seen is not None
            log[i].append(seen)
    agree(table, log, 80)


def test_trajectories_are_scored_as_a_table_would() -> None:
    rng = np.random.default_rng(0)
    probs = rng.uniform(0, 1, (12, 50))
    probs[3, :5] = np.nan  # an epoch that missed them
    found = score_trajectories(probs, window=4, epochs=9)
    for i in range(50):
        visits = [reference.Visit(p, 0, 0, 0, False, 0) for p in probs[:, i] if np.isfinite(p)]
        want = reference.scores(visits, window=4, epochs=9)
        assert found.dual[i] == pytest.approx(want["dual"], rel=1e-4)
        assert found.mean[i] == pytest.approx(want["mean"], rel=1e-6)
    assert found.aum is found.aum_prob is None
    assert found.visits is not None
    assert found.visits.tolist() == [9] * 50


@pytest.mark.parametrize(
    ("probs", "words"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((5, 4)), "5 epochs and window is 10"),
        (np.full((12, 4), 1.5), r"probs\[0, 0\] is 1.5"),
        (np.zeros((12, 4), np.int64), "int64"),
        (np.zeros((12, 4), bool), "dtype bool"),
        (np.zeros((12, 4, 3)), r"shape \(12, 4, 3\) .*take the true one"),
        (np.full((12, 4), -2.0), "softmax"),
        (np.zeros((500, 12)), r"shape \(500, 12\), 500 epochs of 12 samples; give probs\.T .* else epochs=500"),
    ],
)
def test_bad_trajectories_are_named(probs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        score_trajectories(probs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_trajectories_of_every_precision_may_exceed_1_by_rounding(dtype: torch.dtype) -> None:
    probs = torch.rand(12, 50, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    with torch.no_grad():
        probs[:, 3] = 1 + torch.finfo(dtype).eps if dtype not in (torch.bfloat16,) else 1
    scores = score_trajectories(probs)
    assert scores.mean[3] == 1
    assert scores.mean[4] == pytest.approx(float(probs[:, 4].double().mean()), abs=1e-3)


def test_more_epochs_than_samples_are_taken_where_they_may_be_meant() -> None:
    assert len(score_trajectories(np.full((64, 3), 0.5))) == 3
    assert len(score_trajectories(np.full((500, 12), 0.5), epochs=500)) == 12

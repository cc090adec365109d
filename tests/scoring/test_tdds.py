"""TDDS: its definition on closed forms, and the table's running form against it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualfast import DualLoss, Scores, ScoreTable, reference, select

# The previous log-probabilities, 0 to -18.4, are kept in float16: each is off by at most 2^-11 of itself.
TOLERANCE = 18.5 * 2.0**-11


def test_reference_on_closed_forms() -> None:
    still = [[0.2, 0.3, 0.5]] * 12
    assert reference.tdds(still) == 0.0
    assert np.isnan(reference.tdds(still[:9]))
    # A swap of 1/4 and 3/4 changes by (1/4 + 3/4) log 3; changes 0, log 3 deviate by log(3) / 2 each way.
    a, b = [0.25, 0.75], [0.75, 0.25]
    change = np.log(3)
    assert reference.tdds([a, a, b], window=3) == pytest.approx(0.9 * change / np.sqrt(2), rel=1e-6)
    assert reference.tdds([a, a, b, a], window=3) == pytest.approx(0.09 * change / np.sqrt(2), rel=1e-6)
    assert reference.tdds([a, b, b, a], window=3) == pytest.approx(0.99 * change / np.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("window", [2, 3, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tdds_agrees_with_the_reference(window: int, dtype: torch.dtype) -> None:
    """Rows that are ignored, not finite, repeated or beyond the limit are not visits; samples miss epochs."""
    n, classes, limit = 30, 7, 14
    table = ScoreTable(n, window=window, epochs=limit, tdds=classes)
    criterion = DualLoss(table, ignore_index=3)
    log: list[list[np.ndarray]] = [[] for _ in range(n)]
    for epoch in range(26):
        draw = torch.Generator().manual_seed(epoch)
        index = torch.randint(0, n, (40,), generator=draw)
        logits = (torch.randn(40, classes, generator=draw) * 4).to(dtype)
        targets = torch.randint(0, classes, (40,), generator=draw)
        logits[3, 1] = float("nan")
        criterion(logits, targets, index)
        seen: set[int] = set()
        for i, y, row in zip(index.tolist(), targets.tolist(), logits.double().numpy(), strict=True):
            if y == 3 or i in seen:
                continue
            seen.add(i)
            if np.isfinite(row).all():
                log[i].append(np.exp(reference.log_softmax(row)))
    with pytest.warns(UserWarning, match="not finite"):
        scores = table.scores()
    assert scores.tdds is not None
    assert scores.visits is not None
    assert scores.visits.tolist() == [min(len(rows), limit) for rows in log]
    assert max(len(rows) for rows in log) > limit
    want = [reference.tdds(rows[:limit], window=window) for rows in log]
    np.testing.assert_allclose(scores.tdds, want, rtol=0, atol=3 * TOLERANCE)
    if window > 2:
        assert np.nanmax(want) > 50 * TOLERANCE


def test_a_paused_table_keeps_its_tdds() -> None:
    table = ScoreTable(4, window=2, tdds=3)
    index = torch.arange(4)
    with table.paused():
        DualLoss(table)(torch.randn(4, 3), index.clamp(max=2), index)
    assert table.tdds is not None
    assert not table.tdds.visits[:4].any()
    assert not table.tdds.previous[:4].any()


def test_inplace_gradients_and_bad_input_leave_no_trace_in_it() -> None:
    plain, inplace = ScoreTable(6, window=2, tdds=5), ScoreTable(6, window=2, tdds=5)
    targets, index = torch.arange(6) % 5, torch.arange(6)
    for epoch in range(3):
        logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(epoch)).requires_grad_()
        DualLoss(plain)(logits, targets, index)
        DualLoss(inplace, inplace=True)(logits, targets, index)
    np.testing.assert_array_equal(plain.scores().tdds, inplace.scores().tdds)
    with pytest.raises(ValueError, match=r"index\[5\] is 6"):
        DualLoss(plain)(torch.zeros(6, 5), targets, torch.tensor([0, 1, 2, 3, 4, 6]))
    assert plain.tdds is not None
    assert plain.tdds.visits[:6].tolist() == [3] * 6


def test_state_and_selection() -> None:
    table = ScoreTable(20, window=3, tdds=5)
    for epoch in range(5):
        logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(epoch))
        DualLoss(table)(logits, torch.arange(20) % 5, torch.arange(20))
    again = ScoreTable(20, window=3, tdds=5)
    again.load_state_dict(table.state_dict())
    scores = again.scores()
    assert scores.tdds is not None
    np.testing.assert_array_equal(scores.tdds, table.scores().tdds)
    kept = select(scores, 0.75, method="tdds")
    assert kept.tolist() == sorted(np.argsort(-scores.tdds)[:5].tolist())
    with pytest.raises(ValueError, match="keeps tdds"):
        ScoreTable(20, window=3).load_state_dict(table.state_dict())


def test_it_compiles_as_one_graph() -> None:
    tables = [ScoreTable(8, window=2, tdds=5) for _ in range(2)]
    runs = [DualLoss(tables[0]), torch.compile(DualLoss(tables[1]), fullgraph=True, backend="aot_eager")]
    for epoch in range(3):
        logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(epoch))
        for run in runs:
            run(logits, torch.arange(8) % 5, torch.arange(8))
    assert isinstance(tables[0].scores(), Scores)
    np.testing.assert_allclose(tables[0].scores().tdds, tables[1].scores().tdds, rtol=1e-5)


def test_what_does_not_fit_is_refused_with_its_bytes() -> None:
    with pytest.raises(ValueError, match="2562334000 bytes, more than tdds_bytes, 2147483648"):
        ScoreTable(1_281_167, tdds=1000)
    with pytest.raises(ValueError, match="200 bytes, more than tdds_bytes, 100"):
        ScoreTable(10, tdds=10, tdds_bytes=100)
    with pytest.raises(TypeError, match="tdds_bytes is '2 GiB'; give an integer"):
        ScoreTable(4, tdds=3, tdds_bytes="2 GiB")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tdds is 0"):
        ScoreTable(10, tdds=0)
    with pytest.raises(ValueError, match="tdds is 7 classes"):
        DualLoss(ScoreTable(4, tdds=7))(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4))

"""Scores of trajectories: registered functions of p and margin become columns everywhere."""

from __future__ import annotations

import copy
import functools
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dualfast
from dualfast import DualLoss, Scores, ScoreTable, reference, score_trajectories, select
from dualfast.scoring import trajectories
from dualfast.selection import methods

N, CLASSES = 30, 5


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "_REGISTERED", {})


def test_an_example() -> None:
    """Dataset cartography's variability (arXiv 2009.10795), over the last three visits."""

    @dualfast.score("variability", keep="high")
    def variability(p: Any) -> Any:
        return np.nanstd(p[-3:], axis=0)

    table = ScoreTable(4, window=2, epochs=6, trajectories=True)
    criterion = DualLoss(table)
    for epoch in range(6):
        logits = torch.tensor([[3.0, 0.0], [float(epoch % 2), 0.0], [0.0, 0.0], [4.0 * (epoch % 2), 0.0]])
        criterion(logits, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    scores = table.scores()
    assert scores.variability[[0, 2]] == pytest.approx(0.0, abs=1e-6)
    assert select(scores, 0.5, method="variability").tolist() == [1, 3]


def logged(table: ScoreTable, backend: str, epochs: int, start: int = 0) -> list[list[reference.Visit]]:
    """Trains and observes by turns; samples are ignored, missed, repeated and not finite. Returns each one's visits."""
    log: list[list[reference.Visit]] = [[] for _ in range(N)]
    for epoch in range(start, start + epochs):
        draw = torch.Generator().manual_seed(epoch)
        index = torch.randint(0, N - 2, (20,), generator=draw)  # the last two are never seen
        logits = torch.randn(20, CLASSES, generator=draw) * 3
        targets = torch.randint(0, CLASSES, (20,), generator=draw)
        targets[4] = -100
        logits[5, 0] = float("nan") if epoch % 2 else 0.0
        criterion = DualLoss(table, backend=backend)
        if epoch % 3:
            criterion(logits.clone().requires_grad_(), targets, index).backward()
        else:
            criterion.observe(logits, targets, index)
        with table.paused():
            criterion(logits, targets, index)
        seen: set[int] = set()
        for row, (i, y) in enumerate(zip(index.tolist(), targets.tolist(), strict=True)):
            if y == -100 or i in seen:
                continue
            seen.add(i)
            visit = reference.visit(logits[row].double().numpy(), y)
            if visit is not None:
                log[i].append(visit)
    return log


def table_of(log: list[list[reference.Visit]], name: str, epochs: int | None) -> np.ndarray[Any, Any]:
    """(T, N): the first `epochs` visits of each sample, NaN after its last."""
    visits = [one[:epochs] for one in log]
    out = np.full((max(map(len, visits)), N), np.nan)
    for i, one in enumerate(visits):
        out[: len(one), i] = [getattr(visit, name) for visit in one]
    return out


def check(table: ScoreTable, log: list[list[reference.Visit]]) -> None:
    assert table.trajectories is not None
    p, margin = table.trajectories.arrays()
    for ours, name in ((p, "p"), (margin, "margin")):
        assert not ours.flags.writeable
        np.testing.assert_allclose(ours, table_of(log, name, table.epochs), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.filterwarnings("ignore:.*not finite")
@pytest.mark.parametrize("backend", ["cpp", "torch"])
@pytest.mark.parametrize("epochs", [None, 6])
def test_every_visit_is_kept_and_nothing_else(
    backend: str, epochs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectories, "FLUSH_ROWS", 64)
    table, plain = ScoreTable(N, window=3, epochs=epochs, trajectories=True), ScoreTable(N, window=3, epochs=epochs)
    log = logged(table, backend, 16)
    logged(plain, backend, 16)
    assert max(map(len, log)) > 6
    check(table, log)
    assert torch.equal(table.lines, plain.lines)
    assert table.scores().visits.tolist() == [len(visits[:epochs]) for visits in log]  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:.*not finite")
def test_a_training_resumes_with_its_trajectories(tmp_path: Path) -> None:
    @dualfast.score("last_margin", keep="low")
    def last_margin(p: Any, margin: Any) -> Any:
        count = (~np.isnan(p)).sum(0)
        return np.take_along_axis(margin, np.maximum(count - 1, 0)[None], 0)[0]

    whole = ScoreTable(N, window=3, trajectories=tmp_path / "whole")
    first = ScoreTable(N, window=3, trajectories=True)
    logged(whole, "cpp", 12)
    logged(first, "cpp", 7)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    again = ScoreTable(N, window=3, trajectories=True)
    logged(again, "cpp", 30, start=50)  # replaced by what is loaded
    again.exchange()
    again.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    logged(again, "cpp", 5, start=7)
    for ours, expected in zip(again.trajectories.arrays(), whole.trajectories.arrays(), strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(ours, expected)
    a, b = whole.scores(), again.scores()
    np.testing.assert_array_equal(a.last_margin, b.last_margin)
    assert np.isnan(a.last_margin[-2:]).all()
    assert np.isfinite(a.last_margin[:-2]).all()
    assert (tmp_path / "whole").stat().st_size == 8 * N * len(whole.trajectories.arrays()[0])  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="keeps trajectories"):
        ScoreTable(N, window=3).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="keeps trajectories"):
        whole.load_state_dict({**ScoreTable(N, window=3).state_dict(), "trajectories": None})


def test_a_state_of_version_01_still_loads() -> None:
    state = ScoreTable(N).state_dict()
    del state["trajectories"]
    ScoreTable(N).load_state_dict(state)


def test_columns_go_through_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    @dualfast.score("mean_p", keep="low")
    def mean_p(p: Any) -> Any:
        return np.nanmean(p, axis=0)

    scores = score_trajectories(np.random.default_rng(0).uniform(0, 1, (12, 9)), window=3)
    scores.save(tmp_path / "scores.parquet", fingerprint="abc")
    assert select(scores, 0.5, method="mean_p").tolist() == sorted(np.argsort(scores.mean)[:5].tolist())
    trajectories._REGISTERED.clear()  # as in a process that does not know the score
    again = Scores.load(tmp_path / "scores.parquet")
    np.testing.assert_array_equal(again.mean_p, scores.mean_p)
    assert again.extra_keep == {"mean_p": "low"}
    assert list(again.columns) == ["dual", "mean", "dyn_unc", "last_mean", "visits", "mean_p"]
    with pytest.raises(AttributeError, match=r"Scores has no 'other'; it has dual.*mean_p"):
        _ = again.other


def test_logged_trajectories_are_scored_by_visit() -> None:
    """NaN marks a missed epoch; the function sees visits, first to last, as from a table."""
    seen: list[Any] = []

    @dualfast.score("first_p")
    def first_p(p: Any) -> Any:
        seen.append(p)
        return p[0]

    @dualfast.score("needs_logits")
    def needs_logits(p: Any, margin: Any) -> Any:
        raise AssertionError("there is no margin")

    probs = np.array([[np.nan, 0.1, np.nan], [0.2, 0.3, np.nan], [0.4, np.nan, np.nan], [0.5, 0.6, np.nan]])
    scores = score_trajectories(probs, window=2)
    np.testing.assert_array_equal(scores.first_p, np.float32([0.2, 0.1, np.nan]))
    np.testing.assert_array_equal(seen[0], np.float32([[0.2, 0.1, np.nan], [0.4, 0.3, np.nan], [0.5, 0.6, np.nan]]))
    assert list(scores.extra) == ["first_p"]
    score_trajectories(probs, window=2, epochs=2)
    assert len(seen[1]) == 2


def test_a_sample_without_visits_is_nan_and_so_is_an_empty_table() -> None:
    @dualfast.score("count")
    def count(p: Any) -> Any:
        return (~np.isnan(p)).sum(0)

    table = ScoreTable(3, window=2, trajectories=True)
    assert np.isnan(table.scores().extra["count"]).all()
    DualLoss(table)(torch.zeros(2, 2), torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2]))
    np.testing.assert_array_equal(table.scores().extra["count"], [1, np.nan, 1])


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (np.zeros(3), r"returned shape \(3,\) and dtype float64; it must return \(4,\) numbers"),
        (np.zeros((4, 1)), r"shape \(4, 1\)"),
        (0.5, r"shape \(\)"),
        (np.array(list("abcd")), "dtype <U1"),
    ],
)
def test_a_function_that_returns_something_else_is_named(result: Any, words: str) -> None:
    dualfast.score("odd")(lambda p: result)
    with pytest.raises(ValueError, match="score 'odd' " + words if words.startswith("returned") else words):
        score_trajectories(np.full((3, 4), 0.5), window=2)


def test_names_that_are_taken_or_unfit_are_refused() -> None:
    def one(p: Any) -> Any:
        return p[0]

    def two(p: Any) -> Any:
        return p[0]

    dualfast.score("mine")(one)
    dualfast.score("mine")(one)  # a notebook's cell, run again
    with pytest.raises(ValueError, match=r"name is 'mine', which .*one has"):
        dualfast.score("mine")(two)
    for name in ("dual", "aum", "visits", "id", "label", "random", "ccs", "full", "save", "extra"):
        with pytest.raises(ValueError, match=f"name is '{name}', which dualfast uses"):
            dualfast.score(name)
    for name in ("dual+beta", "", "_private", 3):
        with pytest.raises(ValueError, match="identifier"):
            dualfast.score(name)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keep is 'middle'"):
        dualfast.score("other", keep="middle")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"needs \(p, margin, entropy\); it must take \(p\) or \(p, margin\)"):
        dualfast.score("other")(lambda p, margin, entropy: p)
    assert list(trajectories.registered()) == ["mine"]
    assert {name for name in methods.METHODS if name.isidentifier()} <= trajectories.RESERVED


def test_what_cannot_keep_trajectories_says_so() -> None:
    table = ScoreTable(4, trajectories=True)
    with pytest.raises(ValueError, match="by_products is False and the table keeps trajectories"):
        DualLoss(table, by_products=False)
    compiled = torch.compile(DualLoss(table), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match=r"table with trajectories records outside torch\.compile"):
        compiled(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4))


def test_extra_columns_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="mine has 3 samples and dual has 2"):
        Scores(dual=np.zeros(2), mean=np.zeros(2), extra={"mine": np.zeros(3)})


def test_parameters_with_a_default_are_not_filled_in() -> None:
    @dualfast.score("powered")
    def powered(p: Any, power: float = 3.0) -> Any:
        return p[0] ** power

    assert not trajectories.registered()["powered"].needs_margin
    with pytest.raises(TypeError, match="needs"):
        dualfast.score("by_name")(lambda p, *, k: p[0])
    first = functools.partial(powered, power=2.0)
    dualfast.score("squared")(first)
    dualfast.score("squared")(first)


def test_a_table_with_trajectories_is_copied_with_them() -> None:
    table = ScoreTable(3, window=2, epochs=4, trajectories=True)
    criterion = DualLoss(table)
    criterion(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    copied = copy.deepcopy(criterion)
    criterion(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert (copied.table.scores().visits == 1).all()
    assert (table.scores().visits == 2).all()
    assert copied.table.state_dict()["trajectories"].shape == (1, 2, 3)


def test_names_that_differ_in_case_alone_are_refused() -> None:
    """A condition on the columns of a score table ignores the case."""
    for name in ("ID", "Dual", "Label"):
        with pytest.raises(ValueError, match=f"name is '{name}', which dualfast uses itself; choose another"):
            dualfast.score(name)
    dualfast.score("steepness")(lambda p: p[0])
    with pytest.raises(ValueError, match="name is 'Steepness', and 'steepness' differs from it in case alone"):
        dualfast.score("Steepness")


def test_a_module_whose_scores_are_registered_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Again, from a package that imports them, and of functions that another library makes."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "scores_in_a_package").mkdir()
    (tmp_path / "scores_in_a_package" / "one.py").write_text(
        "import dualfast\n\n@dualfast.score('of_a_package')\ndef one(p):\n    return p.max(0)\n"
    )
    (tmp_path / "scores_in_a_package" / "__init__.py").write_text("from .one import one\n")
    (tmp_path / "scores_by_partial.py").write_text(
        "import dualfast, functools\ndef f(p, k=1):\n    return p.max(0)\n"
        "dualfast.score('by_partial')(functools.partial(f, k=2))\n"
    )
    for module in ("scores_in_a_package", "scores_by_partial") * 2:
        trajectories.import_scores(module)
    with pytest.raises(ValueError, match="'json', which registers no score"):
        trajectories.import_scores("json")


def test_a_function_in_the_place_of_another_is_said() -> None:
    def quantile(q: float) -> Any:
        return lambda p: np.nanquantile(p, q, axis=0)

    dualfast.score("a_quantile")(quantile(0.1))
    with pytest.warns(UserWarning, match=r"the score 'a_quantile' is registered again, and .*<lambda> takes the place"):
        dualfast.score("a_quantile")(quantile(0.9))


def test_a_function_that_fails_can_be_replaced() -> None:
    @dualfast.score("failing")
    def broken(p: Any) -> Any:
        raise KeyError("x")

    p = np.full((2, 3), 0.5, np.float32)
    with pytest.raises(
        ValueError, match=r"'failing' fails on .*; register one that works with @dualfast\.score\('failing'\)"
    ):
        trajectories.evaluate(p, None)

    @dualfast.score("failing")
    def fixed(p: Any) -> Any:
        return p[0]

    assert trajectories.evaluate(p, None)["extra"]["failing"].tolist() == [0.5] * 3


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trajectories is '.*nowhere/t\.bin', which cannot be written: No such file"):
        ScoreTable(4, trajectories=str(tmp_path / "nowhere" / "t.bin"))


def test_a_function_of_the_margin_alone_is_refused() -> None:
    """It would be given p."""
    for function in (lambda margin: margin[-1], lambda margin, p: p[-1]):
        with pytest.raises(TypeError, match=r"needs \(margin.*\); it must take \(p\) or \(p, margin\)"):
            dualfast.score("backwards")(function)
    for odd in (3, int):
        with pytest.raises(TypeError, match=r"registered for .*; decorate a function of \(p\) or \(p, margin\)"):
            dualfast.score("odd")(odd)  # type: ignore[arg-type]
    assert not {"backwards", "odd"} & trajectories.registered().keys()


def test_a_function_of_another_shape_may_be_replaced() -> None:
    table = ScoreTable(4, window=2, trajectories=True)
    for _ in range(3):
        dualfast.dual_loss(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4), table)

    @dualfast.score("reshaped")
    def of_all(p: Any) -> Any:
        return p

    with pytest.raises(ValueError, match=r"returned shape \(3, 4\) .*; register one that does with @dualfast.score"):
        table.scores()

    @dualfast.score("reshaped")
    def of_the_last(p: Any) -> Any:
        return p[-1]

    assert table.scores().reshaped.shape == (4,)


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("x", TypeError),
        (torch.zeros(3, 10), TypeError),
        (torch.zeros(3, 2, 10, dtype=torch.float64), TypeError),
        (torch.zeros(3, 2, 9), ValueError),
        (torch.zeros(2, 2, 10), ValueError),
    ],
)
def test_states_with_other_trajectories_change_nothing(state: Any, error: type[Exception]) -> None:
    tables = [ScoreTable(10, window=2, trajectories=True) for _ in range(2)]
    for _ in range(3):
        dualfast.dual_loss(torch.randn(10, 3), torch.zeros(10, dtype=torch.int64), torch.arange(10), tables[0])
    with pytest.raises(error, match=r"trajectories .*; "):
        tables[1].load_state_dict(tables[0].state_dict() | {"trajectories": state})
    assert not tables[1].lines.any()
    tables[1].load_state_dict(tables[0].state_dict())
    assert np.array_equal(tables[1].scores().dual, tables[0].scores().dual)


def test_states_of_other_dtypes_change_nothing() -> None:
    tables = [ScoreTable(4, window=2, track_top_other=True) for _ in range(2)]
    for _ in range(3):
        dualfast.dual_loss(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4), tables[0])
    state = tables[0].state_dict()
    for name in ("lines", "status", "votes"):
        with pytest.raises(TypeError, match=rf"{name} of the state are torch\.float32, not torch\.int32"):
            tables[1].load_state_dict(state | {name: state[name].float()})
    for name in ("window", "epochs"):
        with pytest.raises(TypeError, match=rf"{name} of the state is .*; give what state_dict"):
            tables[1].load_state_dict(state | {name: np.array([1, 2])})
    assert not tables[1].lines.any()

"""ScoreTable and Scores: sizes, state, files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualfast import DualLoss, Scores, ScoreTable
from dualfast.ops import layout


def filled(n: int = 20, epochs: int = 12, **options: Any) -> ScoreTable:
    table = ScoreTable(n, **options)
    criterion = DualLoss(table)
    for epoch in range(epochs):
        draw = torch.Generator().manual_seed(epoch)
        criterion(torch.randn(n, 4, generator=draw), torch.arange(n) % 4, torch.randperm(n, generator=draw))
    return table


def test_a_sample_takes_64_bytes() -> None:
    assert ScoreTable(1000).lines.nbytes == 64_000
    assert ScoreTable(1000, window=10).lines.shape[1] == 16
    assert ScoreTable(10, window=11).lines.shape[1] == 32


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"n_samples": 0}, ValueError, "n_samples is 0"),
        ({"n_samples": 4.0}, TypeError, "n_samples is 4.0"),
        ({"n_samples": 4, "window": 1}, ValueError, "window is 1"),
        ({"n_samples": 4, "window": 10, "epochs": 9}, ValueError, "epochs is 9 and window is 10"),
        ({"n_samples": 4, "epochs": 5000}, ValueError, "at most 4095"),
    ],
)
def test_sizes_that_cannot_be_are_named(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ScoreTable(**arguments)


def test_what_was_never_seen_is_nan() -> None:
    scores = ScoreTable(3).scores()
    assert scores.visits is not None
    assert scores.visits.tolist() == [0, 0, 0]
    for name in ("dual", "dyn_unc", "mean", "aum", "el2n", "entropy", "forgetting"):
        assert np.isnan(getattr(scores, name)).all(), name
    assert scores.loss is scores.top_other is None
    assert ScoreTable(3, track_top_other=True).scores().top_other.tolist() == [-1, -1, -1]  # type: ignore[union-attr]


def test_visits_stop_counting_before_they_overflow() -> None:
    table = ScoreTable(1, window=2)
    criterion = DualLoss(table)
    for _ in range(4100):
        criterion(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor([0]))
    scores = table.scores()
    assert scores.visits is not None
    assert scores.forgetting is not None
    assert scores.visits.tolist() == [4095]
    assert scores.forgetting.tolist() == [4096]


def test_state_goes_through_a_weights_only_file() -> None:
    tracked = {"track_loss": True, "track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
    table = filled(window=3, epochs=5, **tracked)
    file = io.BytesIO()
    torch.save(table.state_dict(), file)
    file.seek(0)
    again = ScoreTable(20, window=3, **tracked)
    again.load_state_dict(torch.load(file, weights_only=True))
    a, b = table.scores(), again.scores()
    for name in ("dual", "mean", "aum_prob", "late_margin", "loss", "top_other", "visits"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"n_samples": 21, "window": 3, "epochs": None}, "lines"),
        ({"n_samples": 20, "window": 4, "epochs": None}, "window 3, this table 4"),
        ({"n_samples": 20, "window": 3, "epochs": 9}, "epochs None, this table 9"),
        ({"n_samples": 20, "window": 3, "epochs": None, "track_loss": True}, "tracks loss; give track_loss"),
        ({"n_samples": 20, "window": 3, "track_aum_prob": True}, "tracks aum_prob; give track_aum_prob"),
        ({"n_samples": 20, "window": 3, "track_late_margin": True}, "tracks late_margin; give track_late_margin"),
        ({"n_samples": 20, "window": 3, "track_top_other": True}, "tracks top_other; give track_top_other"),
    ],
)
def test_state_of_another_table_is_refused(other: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScoreTable(**other).load_state_dict(filled(window=3).state_dict())


def test_a_state_of_version_01_has_no_aum_prob() -> None:
    state = filled(window=3).state_dict()
    for name in layout.BESIDE.keys() - {"loss_sums"}:
        del state[name]
    table = ScoreTable(20, window=3, track_aum_prob=True, track_late_margin=True, track_top_other=True)
    table.load_state_dict(state)
    DualLoss(table).observe(torch.zeros(20, 4), torch.zeros(20, dtype=torch.int64), torch.arange(20))
    scores = table.scores()
    assert scores.aum is not None
    assert scores.aum_prob is scores.late_margin is scores.top_other is None


def test_scores_go_through_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    scores = filled(track_aum_prob=True, track_late_margin=True, track_top_other=True).scores()
    path = tmp_path / "scores.parquet"
    scores.save(path, labels=np.arange(20) % 4, fingerprint="abc")
    again = Scores.load(path, fingerprint="abc")
    for name in ("dual", "mean", "aum", "aum_prob", "late_margin", "el2n", "entropy", "top_other", "visits"):
        np.testing.assert_array_equal(getattr(scores, name), getattr(again, name))
    about = Scores.about(path)
    assert (about["fingerprint"], about["n_samples"], about["labels"].tolist()) == ("abc", 20, [0, 1, 2, 3] * 5)
    pq.write_table(pq.read_table(path).sort_by("label"), path)  # another order of rows
    assert Scores.about(path)["labels"].tolist() == [0, 1, 2, 3] * 5
    with pytest.raises(ValueError, match="written for the data abc; these are xyz"):
        Scores.load(path, fingerprint="xyz")
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]


def test_a_score_file_tells_names_and_classes(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "scores.parquet"
    names, labels = [f"cat/{i}.jpg" for i in range(20)], np.arange(20) % 4
    filled().scores().save(path, labels=labels, names=names, class_names=("ant", "bee", "cat"))
    table = pq.read_table(path)
    assert table.column_names[:4] == ["id", "name", "label", "class"]
    assert table["name"].to_pylist() == names
    assert table["class"].to_pylist()[:5] == ["ant", "bee", "cat", None, "ant"]  # a class without a name
    assert Scores.about(path)["class_names"] == ["ant", "bee", "cat"]
    assert len(Scores.load(path)) == 20
    with pytest.raises(ValueError, match="names are 19; 20 samples"):
        filled().scores().save(path, names=names[1:])


def test_rows_of_a_score_file_come_in_order_of_id(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "shuffled.parquet"
    pq.write_table(pa.table({"id": [2, 0, 1], "dual": [0.2, 0.0, 0.1], "mean": [0.5, 0.6, 0.7]}), path)
    assert Scores.load(path).dual.tolist() == [0.0, 0.1, 0.2]
    pq.write_table(pa.table({"id": [2, 0, 0], "dual": [0.2, 0.0, 0.1], "mean": [0.5, 0.6, 0.7]}), path)
    with pytest.raises(ValueError, match="gaps or repeats"):
        Scores.load(path)
    pq.write_table(pa.table({"dual": [0.2]}), path)
    with pytest.raises(ValueError, match="no column 'mean'"):
        Scores.load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a score table"):
        Scores.load(path)


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"dual": np.zeros(3), "mean": np.zeros(4)}, ValueError, "mean has 4 samples and dual has 3"),
        ({"dual": np.zeros((3, 1)), "mean": np.zeros(3)}, ValueError, "dual has shape"),
        ({"dual": np.zeros(3), "mean": None}, TypeError, "mean is None"),
        ({"dual": np.array(["a"]), "mean": np.zeros(1)}, ValueError, "dual has shape"),
    ],
)
def test_scores_that_do_not_fit_are_named(arrays: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Scores(**arrays)


def test_anyone_may_build_scores() -> None:
    scores = Scores(dual=[0.1, 0.2], mean=[0.3, 0.4])  # type: ignore[arg-type]
    assert len(scores) == 2
    assert scores.aum is None

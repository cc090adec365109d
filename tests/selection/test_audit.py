"""audit: ranking, estimate, likely classes, files, and what it refuses."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dualfast
from dualfast import DualLoss, Scores, ScoreTable
from dualfast.selection.audit import audit_table

N, CLASSES = 2000, 5


def blobs(rate: float, *, spread: float = 0.5, seed: int = 0) -> tuple[torch.Tensor, NDArray[Any], NDArray[Any]]:
    """Points around a centre per class, their labels with a fraction `rate` wrong, and the right ones."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, CLASSES, N)
    points = rng.normal(0, spread, (N, 8)) + 3 * np.eye(8)[clean]
    wrong = rng.permutation(N)[: round(rate * N)]
    labels = clean.copy()
    labels[wrong] = (clean[wrong] + rng.integers(1, CLASSES, len(wrong))) % CLASSES
    return torch.from_numpy(points).float(), labels, clean


def trained(points: torch.Tensor, labels: NDArray[Any], epochs: int = 12, **options: Any) -> Scores:
    """The scores of a linear classifier trained on these labels."""
    torch.manual_seed(0)
    model = torch.nn.Linear(points.shape[1], CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    tracked = {"track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
    table = ScoreTable(N, epochs=max(epochs, 10), **tracked)
    criterion, targets = DualLoss(table), torch.from_numpy(labels)
    for epoch in range(epochs):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(epoch))
        for ids in order.split(100):
            optimizer.zero_grad()
            criterion(model(points[ids]), targets[ids], ids).backward()
            optimizer.step()
    return table.scores()


@pytest.mark.parametrize("rate", [0.03, 0.1, 0.2, 0.4])
def test_wrong_labels_are_found_and_counted(rate: float) -> None:
    points, labels, clean = blobs(rate)
    found = dualfast.audit(trained(points, labels), labels)
    wrong = labels != clean
    assert found.method == "confident joint"
    assert found.n_wrong == pytest.approx(wrong.sum(), rel=0.2)
    assert wrong[found.ranking[: wrong.sum()]].mean() > 0.99
    assert found.likely is not None
    assert (found.likely == clean).mean() > 0.97
    assert found.quality[wrong].mean() < 0.2 < 0.9 < found.quality[~wrong].mean()
    np.testing.assert_allclose((1 - found.quality).sum(), found.n_wrong, rtol=1e-9)
    assert (np.diff(found.quality[found.ranking]) >= 0).all()
    assert sorted(found.ranking) == list(range(N))
    assert found.suspects.tolist() == found.ranking[: found.n_wrong].tolist()


@pytest.mark.parametrize(("spread", "most"), [(0.5, 0), (1.0, 0.02 * N)])
def test_few_labels_of_clean_data_are_suspected(spread: float, most: float) -> None:
    points, labels, _ = blobs(0.0, spread=spread)
    assert dualfast.audit(trained(points, labels), labels).n_wrong <= most


def test_confusion_counts_every_sample_once_and_names_the_mistakes() -> None:
    points, _, clean = blobs(0.0)
    labels = clean.copy()
    labels[np.flatnonzero(clean == 1)[:60]] = 3
    found = dualfast.audit(trained(points, labels), labels, class_names=["ant", "bee", "cat", "dog", "eel"])
    assert found.confusion.shape == (CLASSES, CLASSES)
    assert found.confusion.sum(1).tolist() == np.bincount(labels).tolist()
    (given, likely, count), *_ = found.confused()
    assert (given, likely) == (3, 1)
    assert count == pytest.approx(60, rel=0.2)
    assert found.wrong_rates[3] == pytest.approx(60 / (labels == 3).sum(), rel=0.2)
    first, second, *_, last = str(found).splitlines()
    assert first.startswith(f"{found.n_wrong} of 2,000 labels look wrong (")
    assert second == f"  {count} labelled dog look like bee"
    assert last.startswith("  most in the classes dog ")


def test_without_top_other_the_likely_class_is_unknown() -> None:
    points, labels, clean = blobs(0.2)
    scores = trained(points, labels)
    found = dualfast.audit(Scores(dual=scores.dual, mean=scores.mean, aum=scores.aum, aum_prob=scores.aum_prob), labels)
    assert found.method == "mixture"
    assert found.likely is None
    assert found.n_wrong == pytest.approx((labels != clean).sum(), rel=0.2)
    assert found.confusion.sum() == N - found.n_wrong
    assert np.diag(found.confusion).sum() == found.confusion.sum()
    assert "look like" not in str(found)


def hand_made(**given: Any) -> Scores:
    """Six samples of three classes; the last two are labelled 0 and look like 2."""
    columns = {"last_mean": [0.8, 0.9, 0.8, 0.97, 0.1, 0.2], "late_margin": [2.0, 3.0, 2.0, 3.0, -4.0, -3.0]}
    columns |= {"aum": [1.0, 2.0, -3.0, 2.0, -2.0, 1.0]}
    columns |= {"aum_prob": [0.7, 0.85, 0.7, 0.85, -0.8, -0.75], "top_other": [1, 1, 2, 0, 2, 2]}
    arrays: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
    return Scores(**({"dual": np.ones(6), "mean": np.full(6, 0.5), "visits": np.full(6, 10)} | arrays | given))


LABELS = np.array([0, 0, 1, 2, 0, 0])


def test_an_audit_in_closed_form() -> None:
    found = dualfast.audit(hand_made(), LABELS)
    assert found.n_wrong == 2  # class 2 has 0.9 and 0.95 there: below its 0.97, above two thirds
    assert found.ranking.tolist() == [4, 5, 0, 2, 1, 3]
    only_aum = dualfast.audit(hand_made(last_mean=None, late_margin=None), LABELS)
    assert (only_aum.ranking.tolist(), only_aum.method) == ([2, 4, 0, 5, 1, 3], "mixture")
    odds = np.log(found.quality / (1 - found.quality))
    np.testing.assert_allclose(odds - odds[0], 1.5 * (np.array([2, 3, 2, 3, -4, -3]) - 2))
    assert found.likely is not None
    assert found.likely.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.confusion.tolist() == [[2, 0, 2], [0, 1, 0], [0, 0, 1]]
    assert found.wrong_rates.tolist() == [0.5, 0, 0]
    ahead = dualfast.audit(hand_made(late_margin=np.array([2.0, 3.0, 2.0, 3.0, -1.0, 0.5])), LABELS)
    assert ahead.n_wrong == 1  # the margin of one is not negative
    half = np.array([0.7, 0.85, 0.7, 0.85, -0.5, -0.4])  # 0.6 for class 2 in both
    assert dualfast.audit(hand_made(aum_prob=half), LABELS).n_wrong == 0
    for own, wrong in ((0.59, 2), (0.6, 2), (0.61, 0)):  # what the only sample of class 2 has
        weak = np.array([0.8, 0.9, 0.8, own, 0.1, 0.2])
        assert dualfast.audit(hand_made(aum_prob=half, last_mean=weak), LABELS).n_wrong == wrong


def test_nothing_and_everything_wrong_have_a_quality() -> None:
    sure = dualfast.audit(hand_made(aum_prob=np.full(6, 0.05)), LABELS)
    assert (sure.n_wrong, sure.quality.tolist()) == (0, [1.0] * 6)
    assert str(sure) == "0 of 6 labels look wrong (0.0%, estimated by confident joint)"
    constant = dualfast.audit(Scores(dual=np.ones(6), mean=np.ones(6), aum=np.ones(6)), LABELS)
    assert (constant.n_wrong, constant.ranking.tolist()) == (0, list(range(6)))
    huge = dualfast.audit(hand_made(late_margin=np.array([1e30, np.inf, 0, 0, -np.inf, -1e30])), LABELS)
    assert ((huge.quality >= 0) & (huge.quality <= 1)).all()


def test_tables_list_the_most_suspicious_first(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import csv

    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", 'c/"1".jpg', "a/3, old.jpg", "a/4.jpg"]
    found = dualfast.audit(hand_made(), LABELS, names=names, class_names=["ant", "bee", "cat"])
    for path, read in ((tmp_path / "a.csv", csv.read_csv), (tmp_path / "a.parquet", parquet.read_table)):
        found.save(path)
        table = read(path)
        assert table.column_names == ["id", "name", "label", "class", "quality", "suspect", "likely", "likely_class"]
        assert table["id"].to_pylist() == [4, 5, 0, 2, 1, 3]
        assert table["name"].to_pylist()[:2] == ["a/3, old.jpg", "a/4.jpg"]
        assert table["name"].to_pylist()[-1] == 'c/"1".jpg'
        assert table["class"].to_pylist() == ["ant", "ant", "ant", "bee", "ant", "cat"]
        assert table["likely_class"].to_pylist() == ["cat", "cat", "ant", "bee", "ant", "cat"]
        assert table["suspect"].to_pylist() == [True, True, False, False, False, False]
        np.testing.assert_allclose(table["quality"].to_numpy(), found.quality[found.ranking], rtol=1e-12)
    dualfast.audit(hand_made(top_other=None), LABELS).save(tmp_path / "b.csv")
    assert csv.read_csv(tmp_path / "b.csv").column_names == ["id", "label", "quality", "suspect"]
    with pytest.raises(ValueError, match=r"'a.json'; give a name that ends in .csv or .parquet"):
        found.save("a.json")


def test_a_score_table_is_audited_with_its_labels_names_and_classes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "scores.parquet"
    hand_made().save(path)
    with pytest.raises(ValueError, match="no column label"):
        audit_table(path)
    hand_made().save(path, labels=LABELS, names=list("abcdef"), class_names=["ant", "bee", "cat"])
    found = audit_table(path)
    assert (found.n_wrong, found.names, found.class_names) == (2, list("abcdef"), ["ant", "bee", "cat"])


def _at(value: float, name: str, where: int = 3) -> dict[str, Any]:
    column = np.array(getattr(hand_made(), name), np.float64)
    column[where] = value
    return {name: column}


@pytest.mark.parametrize(
    ("scores", "labels", "names", "error", "words"),
    [
        ({"late_margin": None, "aum": None}, LABELS, None, ValueError, "no aum; gather it with DualLoss"),
        ([1.0] * 6, LABELS, None, TypeError, r"scores is a list; give Scores"),
        ({}, None, None, TypeError, "labels is None; give the labels that the network was trained with"),
        ({}, LABELS + 0.5, None, TypeError, "labels has shape .* float64; give class numbers"),
        ({}, LABELS[1:], None, ValueError, "labels has 5 samples and the scores have 6"),
        ({}, LABELS - 1, None, ValueError, r"labels\[0\] is -1; classes start at 0"),
        ({}, np.full(6, 4), None, ValueError, "labels has one class, 4"),
        (
            {},
            np.array([0, 0, 1, 2, 0, 2]),
            None,
            ValueError,
            r"labels\[5\] is 2, which the network saw as a wrong class",
        ),
        (
            {"visits": np.array([10, 9, 10, 3, 10, 10])},
            LABELS,
            None,
            ValueError,
            r"visits\[1\] is 9, with 2 such .*--sco",
        ),
        (_at(np.nan, "late_margin"), LABELS, None, ValueError, r"late_margin\[3\] is nan .*1 such samples of 6"),
        (
            _at(np.nan, "aum") | {"late_margin": None},
            LABELS,
            None,
            ValueError,
            r"aum\[3\] is nan .*1 such samples of 6",
        ),
        ({"late_margin": np.full(6, np.nan)}, LABELS, None, ValueError, r"late_margin\[0\] is nan .*6 such samples"),
        (_at(np.nan, "aum_prob"), LABELS, None, ValueError, r"aum_prob\[3\] is nan"),
        (_at(-1, "top_other"), LABELS, None, ValueError, r"top_other\[3\] is -1 \(a sample that was never recorded\)"),
        ({}, LABELS, list("abcde"), ValueError, "names are 5; 6 samples need as many"),
        ({}, LABELS, list("abcdeb"), ValueError, r"names\[5\] is 'b', as is names\[1\]"),
    ],
)
def test_bad_input_is_named(scores: Any, labels: Any, names: Any, error: type[Exception], words: str) -> None:
    given = hand_made(**scores) if isinstance(scores, dict) else scores
    with pytest.raises(error, match=words):
        dualfast.audit(given, labels, names=names)


@pytest.mark.parametrize("share", [0.03, 0.4])
def test_a_mixture_of_many_samples_is_fitted_to_their_histogram(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    n, wrong = 100_000, round(share * 100_000)
    margin = np.concatenate([rng.normal(-2, 1.5, wrong), rng.normal(3, 1.2, n - wrong)])
    auditing = importlib.import_module("dualfast.selection.audit")
    binned = auditing._mixture(margin)
    monkeypatch.setattr(auditing, "BINS", n)
    assert binned == pytest.approx(auditing._mixture(margin), rel=1e-3)
    assert binned == pytest.approx(wrong, rel=0.05)

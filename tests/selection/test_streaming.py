"""Selection from files: the answer of select in memory, for one shard or several, and nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualfast
from dualfast.data.index_list import load_keep
from dualfast.selection import beta, shards, streaming
from dualfast.selection.select import select
from dualfast.selection.streaming import select_files

N = 50_000


@pytest.fixture(scope="module")
def scores() -> dualfast.Scores:
    rng = np.random.default_rng(0)
    mean = rng.beta(4, 2, N).astype(np.float32)
    dual = mean * (1 - mean) * rng.random(N, np.float32)
    dual[::50] = 0
    return dualfast.Scores(dual=dual, mean=mean, aum=rng.normal(size=N))


def _npy(folder: Path, scores: dualfast.Scores, first: int, last: int) -> dict[str, str]:
    paths = {}
    for name in ("dual", "mean", "aum"):
        paths[name] = str(folder / f"{name}-{first}-{last}.npy")
        np.save(paths[name], getattr(scores, name)[first:last])
    return paths


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ROWS", 4096)
    monkeypatch.setattr(beta, "MOST", 5000)  # c_d auto from fewer samples than there are


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("dual+beta", {"c_d": 5.5}),
        ("dual+beta", {"c_d": "auto"}),
        ("random", {}),
        ("dual", {}),
        ("aum", {}),
        ("dual", {"keep": "low"}),
    ],
)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.9, 0.9999])
@pytest.mark.filterwarnings("ignore:only 49000 of 50000")
def test_files_give_what_memory_gives(
    tmp_path: Path, scores: dualfast.Scores, method: str, options: dict[str, Any], ratio: float
) -> None:
    want = select(scores, ratio, method=method, seed=5, **options)
    cuts = np.linspace(0, N, 8).astype(int)
    sources: list[Any] = [
        _npy(tmp_path, scores, 0, N),
        [_npy(tmp_path, scores, int(f), int(t)) for f, t in pairwise(cuts)],
    ]
    scores.save(tmp_path / "scores.parquet")
    sources.append(tmp_path / "scores.parquet")
    for at, source in enumerate(sources):
        done: list[int] = []
        out = tmp_path / f"keep{at}.npy"
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            counts = select_files(source, ratio, out, method=method, seed=5, progress=done.append, **options)
        assert any("c_d auto is" in str(one.message) for one in warned) == (options.get("c_d") == "auto")
        assert counts == (len(want), N - len(want))
        assert sum(done) == 2 * N
        assert (load_keep(out, n_samples=N) == want).all()
    about = json.loads((tmp_path / "keep0.json").read_text())
    if options.get("c_d") == "auto":
        options = {"c_d": beta.auto_c_d(scores, ratio)}
    assert {**about, **options, "method": method, "prune_ratio": ratio, "seed": 5} == about


def test_too_few_weights_are_said(tmp_path: Path, scores: dualfast.Scores) -> None:
    with pytest.warns(UserWarning, match="only 49000 of 50000 samples have a positive weight; 1000 more"):
        select_files(_npy(tmp_path, scores, 0, N), 0.0, tmp_path / "keep.npy")


def test_a_wrong_bracket_is_widened(tmp_path: Path, scores: dualfast.Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualfast.selection.draw.bracket", lambda *_: (-50.0, -40.0))
    select_files(_npy(tmp_path, scores, 0, N), 0.9, tmp_path / "keep.npy")
    monkeypatch.undo()
    assert (load_keep(tmp_path / "keep.npy") == select(scores, 0.9)).all()


@pytest.mark.parametrize("levels", [1, 2, 7, 200])
@pytest.mark.parametrize("ratio", [0.3, 0.4999, 0.5, 0.5001, 0.7, 0.9999])
def test_tied_scores_are_a_bit_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, levels: int, ratio: float) -> None:
    aum = np.random.default_rng(1).integers(0, levels, N).astype(np.float32)
    tied = dualfast.Scores(dual=np.ones(N), mean=np.ones(N), aum=aum - levels // 2)
    np.save(tmp_path / "aum.npy", tied.aum)
    passes: list[streaming.SecondPass] = []
    second_pass = streaming.second_pass
    monkeypatch.setattr(streaming, "second_pass", lambda *given: passes.append(second_pass(*given)) or passes[-1])
    select_files({"aum": tmp_path / "aum.npy"}, ratio, tmp_path / "keep.npy", method="aum")
    assert (load_keep(tmp_path / "keep.npy", n_samples=N) == select(tied, ratio, method="aum")).all()
    assert sum(len(one.ids) for one in passes) < N / 6


def test_a_disk_that_is_full_leaves_the_old_list(tmp_path: Path, scores: dualfast.Scores) -> None:
    source, out = _npy(tmp_path, scores, 0, N), tmp_path / "out" / "keep.npy"
    out.parent.mkdir()
    select_files(source, 0.99, out)
    old, limits = out.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))  # writing stops in the middle of the list
        with pytest.raises(OSError, match="too large"):
            select_files(source, 0.5, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_bytes() == old
    assert json.loads(out.with_suffix(".json").read_text())["kept"] == 500
    assert sorted(os.listdir(out.parent)) == ["keep.json", "keep.npy"]


def test_bad_files(tmp_path: Path, scores: dualfast.Scores) -> None:
    out = tmp_path / "out" / "keep.npy"
    out.parent.mkdir()
    good = _npy(tmp_path, scores, 0, N)
    scores.save(tmp_path / "scores.parquet")
    whole = (tmp_path / "scores.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "short.npy", scores.mean[:-1])
    bad = np.array(scores.mean)
    bad[30_000] = 2
    np.save(tmp_path / "bad.npy", bad)
    nan = np.array(scores.dual)
    nan[7] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    np.save(tmp_path / "none.npy", nan[:0])
    (tmp_path / "cut.npy").write_bytes(Path(good["mean"]).read_bytes()[:-100])
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (tmp_path / "cut.parquet", {}, "cut.parquet"),
        (tmp_path / "missing.parquet", {}, "missing.parquet"),
        ({**good, "mean": tmp_path / "missing.npy"}, {}, "missing.npy"),
        ({**good, "mean": tmp_path / "cut.npy"}, {}, "cut.npy"),
        ({**good, "mean": tmp_path / "short.npy"}, {}, "49999"),
        ({**good, "mean": tmp_path / "bad.npy"}, {}, r"bad.npy, .*: mean\[30000\] is 2"),
        ({**good, "dual": tmp_path / "nan.npy"}, {}, r"nan.npy, .*: dual\[7\] is nan"),
        ({**good, "dual": tmp_path / "nan.npy"}, {"method": "dual"}, r"dual\[7\] is nan"),
        ({**good, "mean": tmp_path / "bad.npy"}, {"method": "mean"}, r"mean\[30000\] is 2"),
        ({**good, "dual": tmp_path / "nan.npy"}, {"c_d": "auto"}, r"nan.npy, .*: dual\[7\] is nan"),
        ({"dual": tmp_path / "none.npy", "mean": tmp_path / "none.npy"}, {}, "no samples to select from"),
        (good, {"method": "dual", "keep": "mid"}, "keep is 'mid'; give high or low"),
        ({"dual": good["dual"]}, {}, "no column 'mean'; it has dual"),
        ([tmp_path / "scores.parquet"] * 2, {}, "the ids are not 50000"),
        (good, {"method": "ccs"}, "needs its scores in memory"),
        (good, {"method": "worst"}, "method is 'worst'"),
        (good, {"method": "dual", "keep": "all"}, "keep is 'all'"),
        (good, {"c_d": -1.0}, "c_d is -1"),
    ]
    for source, options, says in cases:
        with pytest.raises(ValueError, match=says):
            select_files(source, 0.5, out, **options)
    with pytest.raises(ValueError, match="prune_ratio is 1"):
        select_files(good, 1.0, out)
    with pytest.raises(ValueError, match="does not exist"):
        select_files(good, 0.5, tmp_path / "nowhere" / "keep.npy")
    assert os.listdir(out.parent) == []


def test_a_column_that_is_cut_while_it_is_read_is_named(tmp_path: Path) -> None:
    """A mapped file would end the process with SIGBUS."""
    for name in ("dual", "mean"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random(3 << 20, np.float32))
    columns = {name: tmp_path / f"{name}.npy" for name in ("dual", "mean")}
    with pytest.raises(ValueError, match=r"dual\.npy' ends at byte \d+; it was cut short"):
        select_files(columns, 0.5, tmp_path / "out.npy", progress=lambda _: os.truncate(columns["dual"], 4096))
    assert not (tmp_path / "out.npy").exists()

"""benchmarks/bench_scale.py: each step runs on files that those before it wrote, and the page shows how they grow."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bokeh")
pytest.importorskip("pyarrow")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_every_step_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench = importlib.import_module("bench_scale")
    monkeypatch.setattr(bench, "CLASSES", 10)
    for _, prepare in bench.STEPS.values():
        prepare(300, tmp_path)()
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"images.beton", "scores.parquet", "keep.npy", "run"}


def test_the_page_says_how_each_step_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "accuracy"))
    readme: Any = importlib.import_module("readme")
    rows = [
        {"what": what, "n": n, "median_s": n * each, "peak_bytes": 3e8, "rounds": 3}
        for what, each in (("write", 1e-5), ("open", 0.0))
        for n in (100, 1000)
    ]
    rows = [row | {"median_s": row["median_s"] or 0.01} for row in rows]
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"machine": "M", "cores": 2, "commit": "c" * 40, "rows": rows}))
    lines = readme.scale(path)
    assert "| step | 100 images | 1,000 images | times as long for 10 x |" in lines
    assert "| write | 1 ms (300 MB) | 10 ms (300 MB) | 10.0 |" in lines
    assert "| open | 10 ms (300 MB) | 10 ms (300 MB) | 1.0 |" in lines

"""What of a run directory the report is made from."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualfast import Scores
from dualfast.config import RunConfig
from dualfast.data.index_list import save_keep
from dualfast.report.explorer import RATIOS
from dualfast.runs.reporting import write_report
from dualfast.runs.rundir import RunDir
from dualfast.selection import beta
from dualfast.selection.select import kept_count, select_in_memory
from dualfast.selection.spec import SelectionSpec

for name in ("bokeh", "jinja2", "pyarrow"):
    pytest.importorskip(name)


def test_auto_is_chosen_once_for_each_ratio_and_not_where_it_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, ratios, rng = 400, (0.3, 0.5, 0.8), np.random.default_rng(0)
    mean = rng.beta(4, 1.5, n)
    scores = Scores(dual=mean * (1 - mean) * rng.random(n), mean=mean)
    config = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(RunConfig(c_d="auto")).items()}
    run_dir = RunDir(tmp_path / "run", config)
    scores.save(run_dir.path / "scores.parquet", labels=rng.integers(0, 3, n))
    run_dir.append({"event": "scored", "seed": 0})
    for ratio in ratios:
        row = {"event": "trained", "method": "dual+beta", "prune_ratio": ratio, "seed": 0, "accuracy": 0.9}
        row |= {"kept": kept_count(n, ratio), "n_samples": n, "best_accuracy": 0.9, "score_seconds": 1.0}
        run_dir.append(row | {"train_seconds": 1.0, "epochs": 1, "batch_size": 8})
    search, asked = beta.nearest_to_usual, []

    def noted(*arguments: Any) -> int:
        asked.append(arguments)
        return search(*arguments)

    monkeypatch.setattr(beta, "nearest_to_usual", noted)
    write_report(run_dir, None)
    assert len(asked) == len({*RATIOS, *ratios})

    page = run_dir.report_path.read_text()
    for ratio in ratios:
        spec = SelectionSpec(prune_ratio=ratio, c_d="auto").resolve(beta.Statistics.of(scores), lambda _: None)
        path = run_dir.keep_path(ratio, "dual+beta", 0)
        save_keep(path, select_in_memory(spec, scores), n_samples=n, **spec.sidecar())
    asked.clear()
    write_report(run_dir, None)
    assert len(asked) == len({*RATIOS} - {*ratios})
    assert "were selected again" in page
    assert "were selected again" not in run_dir.report_path.read_text()

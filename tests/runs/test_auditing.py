"""The audit that a scoring pass ends with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

from dualfast.config import ScoreConfig
from dualfast.data import sources
from dualfast.runs import commands
from dualfast.runs.auditing import audit_facts
from dualfast.runs.progress import NullProgress


def test_wrong_labels_of_the_digits_come_first(tmp_path: Path) -> None:
    images, clean = sources.digits("train")
    rng, labels = np.random.default_rng(0), clean.copy()
    wrong = rng.permutation(len(clean))[: round(0.03 * len(clean))]
    labels[wrong] = (clean[wrong] + rng.integers(1, 10, len(wrong))) % 10
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    config = ScoreConfig(data=str(tmp_path / "data.npz"), out=str(tmp_path / "run"), epochs=12, score_epochs=12)
    commands.score(config, NullProgress())
    facts = audit_facts(tmp_path / "run")
    assert facts["n_samples"] == len(clean)
    assert facts["n_wrong"] == pytest.approx(len(wrong), rel=0.2)
    _, *rows = (tmp_path / "run" / "audit.csv").read_text().splitlines()
    first = {int(row.split(",")[0]) for row in rows[: 2 * len(wrong)]}
    assert len(first & set(wrong.tolist())) >= 0.9 * len(wrong)
    # The audit is made once.
    (tmp_path / "run" / "audit.csv").unlink()
    commands.score(config, NullProgress())
    assert not (tmp_path / "run" / "audit.csv").exists()
    events = [json.loads(line)["event"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert events.count("audited") == 1

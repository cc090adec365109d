"""The audit that a scoring pass ends with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from dualfast.config import ScoreConfig
from dualfast.data import sources
from dualfast.runs import commands
from dualfast.runs.auditing import audit, audit_facts
from dualfast.runs.progress import NullProgress


def test_links_sort_the_suspects(tmp_path: Path) -> None:
    """Three classes of flat colours; one image is in the folder of another class."""
    image = pytest.importorskip("PIL.Image")
    for at in range(60):
        colour = tuple(int(255 * (channel == at % 3)) for channel in range(3))
        place = tmp_path / "data" / ("red", "green", "blue")[at % 3 if at != 40 else 0] / f"{at}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        image.new("RGB", (8, 8), colour).save(place)
    config = ScoreConfig(data=str(tmp_path / "data"), out=str(tmp_path / "run"), epochs=12, score_epochs=12)
    commands.score(config, NullProgress())
    found, folder = audit(tmp_path / "run", None, "links")
    assert folder == tmp_path / "run" / "audit-links"
    assert found.n_wrong == 1
    (link,) = folder.iterdir()
    assert link.name == f"1-{found.quality.min():.3f}-red-green-40.png"
    assert link.resolve() == tmp_path / "data" / "red" / "40.png"
    with pytest.raises(ValueError, match="a folder that holds something; give another --out"):
        audit(tmp_path / "run", None, "links")
    # An image that has gone is written from the run's own copy; a long name is cut.
    long = tmp_path / "run2"
    commands.score(replace(config, out=str(long)), NullProgress())
    (tmp_path / "data" / "red" / "40.png").unlink()
    _, folder = audit(long, tmp_path / "links", "links")
    assert folder is not None
    (copy,) = folder.iterdir()
    assert not copy.is_symlink()
    assert image.open(copy).size == (8, 8)
    with pytest.raises(ValueError, match=r"'.*scores.parquet' is not a run directory; links need the run's images"):
        audit(tmp_path / "run" / "scores.parquet", None, "links")


def test_wrong_labels_of_the_digits_come_first(tmp_path: Path) -> None:
    images, clean = sources.digits("train")
    rng, labels = np.random.default_rng(0), clean.copy()
    wrong = rng.permutation(len(clean))[: round(0.03 * len(clean))]
    labels[wrong] = (clean[wrong] + rng.integers(1, 10, len(wrong))) % 10
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    config = ScoreConfig(data=str(tmp_path / "data.npz"), out=str(tmp_path / "run"), epochs=12, score_epochs=12)
    commands.score(config, NullProgress())
    facts = audit_facts(tmp_path / "run")
    table = tmp_path / "run" / "audit.csv"
    header, first, *rows = table.read_text().splitlines()
    decided = "\n".join([f'{header},"decision"', f"{first},3", *(f"{row}," for row in rows)])
    before = table.read_text()
    table.write_text(decided)
    with pytest.warns(UserWarning, match=r"audit\.csv has decisions in it, and stays as it is"):
        audit(tmp_path / "run", None)
    assert table.read_text() == decided
    table.write_text(before)
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

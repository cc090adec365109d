"""dualfast.report.figures: the curves and the styles of methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import report_fixture

from dualfast.report import figures, summary
from dualfast.scoring.table import Scores
from dualfast.selection.beta import beta_of

pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")


def test_the_beta_curve_is_the_density() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    scores = Scores(dual=rng.uniform(0, 0.3, 100), mean=rng.uniform(0, 1, 100))
    beta = beta_of(scores, 0.7)
    x = np.linspace(0.005, 0.995, 199)
    np.testing.assert_allclose(figures.beta_density(x, beta.a, beta.b), stats.beta.pdf(x, beta.a, beta.b), rtol=1e-10)


def test_methods_look_different_and_keep_their_looks(tmp_path: Path) -> None:
    methods = ("random", "dual+beta", "dual+beta:c_d=5.5", "dual", "aum")
    style = figures.styles(
        summary.groups(report_fixture.make_run(tmp_path / "run", methods=methods).records("trained"))
    )
    assert set(style) == {"full", *methods}
    assert len({look.colour for look in style.values()}) == len(style)
    assert style["random"].colour == figures.RANDOM
    assert style["full"].dash == "dashed"

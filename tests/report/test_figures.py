"""dualfast.report.figures: the styles of methods."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_fixture

from dualfast.report import figures, summary

pytest.importorskip("pyarrow", reason="pyarrow is not installed: scores cannot be stored")


def test_methods_look_different_and_keep_their_looks(tmp_path: Path) -> None:
    methods = ("random", "dual+beta", "dual+beta:c_d=5.5", "dual", "aum")
    style = figures.styles(
        summary.groups(report_fixture.make_run(tmp_path / "run", methods=methods).records("trained"))
    )
    assert set(style) == {"full", *methods}
    assert len({look.colour for look in style.values()}) == len(style)
    assert style["random"].colour == figures.RANDOM
    assert style["full"].dash == "dashed"

"""--where: one condition over the columns, and nothing else that DuckDB could do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualfast.selection.where import MAX_DEPTH, columns_of, ids_where

pa = pytest.importorskip("pyarrow")
pytest.importorskip("duckdb")
import pyarrow.parquet as pq  # noqa: E402

COLUMNS = ("id", "dual", "aum", "label", "a column", "getenv")


@pytest.fixture
def table(tmp_path: Path) -> str:
    columns = {
        "id": np.arange(6),
        "dual": np.arange(6) / 6,
        "aum": [1.0, -1.0, 2.0, None, float("nan"), -3.0],
        "label": np.arange(6) % 3,
        "a column": list("abcdef"),
        "getenv": np.zeros(6),
    }
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    return str(tmp_path / "scores.parquet")


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("aum > 0 AND label <> 2", [0, 4]),  # DuckDB has NaN above all numbers
        ("AUM>0 and not isnan(aum)", [0, 2]),
        ("aum is null or \"a column\" in ('a', 'it''s')", [0, 3]),
        ("label = 1", [1, 4]),
        ("label between 1 and 2", [1, 2, 4, 5]),
        ("\"a column\" like 'f%'", [5]),
        ("case when label = 0 then true else dual < -1 end", [0, 3]),
        ("abs(aum - 1) <= 2e0 and (dual * 6 + 1) / 2 > 1", [2]),
        ("round(dual, 1) > .8", []),
        ("id % 2 = 0 and greatest(dual, 0.5) = 0.5", [0, 2]),
        ("true", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_conditions(table: str, expression: str, ids: list[int]) -> None:
    assert ids_where(table, expression).tolist() == ids


def test_without_an_id_column_the_row_counts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"aum": [1.0, -1.0, 2.0]}), tmp_path / "scores.parquet")
    assert ids_where(str(tmp_path / "scores.parquet"), "aum > 0").tolist() == [0, 2]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("id < (SELECT ascii(content) FROM read_text('/etc/passwd'))", "no column 'SELECT'"),
        ("aum > 0 and id in (from range(9))", "no column 'from'"),
        ("aum > 0; drop table x", "';.*cannot be used"),
        ("aum > 0 -- and label = 1", "'-- and.*cannot be used"),
        ("aum > 0 /* x */", "cannot be used"),
        ("aum > 0) or (1 = 1", "do not fit"),
        ("aum > 0, dual", "do not fit"),
        ("((aum > 0)", "not closed"),
        ("(" * (MAX_DEPTH + 1) + "true" + ")" * (MAX_DEPTH + 1), "do not fit"),
        ("not " * 501 + "true", "2008 characters; give at most 2000"),
        ("random() > 0.5", "'random' is not a function"),
        ("getenv('HOME') = 'x'", "'getenv' is not a function"),  # a column, too
        ("\"getenv\"('HOME') = 'x'", "'getenv' is not a function"),
        ("label = e'\\'", "cannot be used"),
        ("\"a column\" = 'x\\'", "cannot be used"),
        ("label = $$x$$", "cannot be used"),
        ("label = ?", "cannot be used"),
        ("label = 0x1", "cannot be used"),
        ("size > 1", "no column 'size'; there is id, dual"),
        ("dual", "which is DOUBLE"),
        ("aum >", "syntax error"),
        ("", "which is|syntax error"),
    ],
)
def test_all_else_is_refused(table: str, expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)where .*({words})"):
        ids_where(table, expression)


def test_only_the_columns_that_are_named_are_read() -> None:
    assert columns_of("AUM > 0 and \"a column\" = 'dual' and aum < 3", COLUMNS) == ["aum", "a column"]


def test_duckdb_by_itself_is_shut_in(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever passed the check of words would meet a database without files, extensions and settings to change."""
    monkeypatch.setattr("dualfast.selection.where.columns_of", lambda expression, columns: ["aum"])
    for expression, words in (
        ("1 = (SELECT count(*) FROM read_text('/etc/passwd'))", "disabled by configuration"),
        ("1 = (SELECT count(*) FROM 'scores.parquet')", "disabled by configuration|does not exist"),
        ("aum > 0; SELECT 1", "modifiers|syntax|one"),
    ):
        with pytest.raises(ValueError, match=rf"where is .*({words})"):
            ids_where(table, expression)

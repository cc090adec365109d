"""The condition of --where: one expression over the columns of a score table, which sees nothing else.

It may come from a file that somebody else made. So its words are looked at before DuckDB gets it, and DuckDB gets the
columns it names, in memory, and no access to files, networks or extensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

MAX_LENGTH = 2000  # characters
MAX_DEPTH = 50  # of parentheses
TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w)) | (?P<text>'(?:[^'\\]|'')*') | "(?P<quoted>[^"]+)"
    | (?P<word>[A-Za-z_]\w*)(?!') | (?P<sign><=|>=|<>|!=|=|<|>|\+|-(?!-)|\*|/(?!\*)|%|\(|\)|,))""",
    re.VERBOSE,
)
KEYWORDS = (
    *("and", "or", "not", "is", "null", "in", "between", "like"),
    *("true", "false", "case", "when", "then", "else", "end"),
)
FUNCTIONS = (
    *("abs", "ceil", "coalesce", "exp", "floor", "greatest", "isfinite", "isinf", "isnan"),
    *("least", "ln", "log10", "log2", "pow", "round", "sqrt"),
)
HELP = (
    "write a condition on columns, as 'aum > 0 and label <> 3', with numbers, 'text', comparisons, arithmetic, "
    f"parentheses, {', '.join(KEYWORDS)} and {', '.join(FUNCTIONS)}"
)


def columns_of(expression: str, columns: Iterable[str]) -> list[str]:
    """Those of the columns that an expression names. ValueError when it is more than one expression over columns."""
    by_name = {name.lower(): name for name in columns}
    named: dict[str, None] = {}
    at = depth = 0
    text = expression.rstrip()
    if len(text) > MAX_LENGTH:
        raise ValueError(f"where has {len(text)} characters; give at most {MAX_LENGTH}")
    while at < len(text):
        token = TOKEN.match(text, at)
        if token is None:
            raise ValueError(f"where is {expression!r}: {text[at:].strip()[:20]!r} cannot be used; {HELP}")
        word, sign, at = token["quoted"] or token["word"], token["sign"], token.end()
        depth += (sign == "(") - (sign == ")")
        if not 0 <= depth <= MAX_DEPTH or (sign == "," and depth == 0):
            raise ValueError(f"where is {expression!r}: its {sign!r} do not fit; {HELP}")
        if word is None or (token["word"] and word.lower() in KEYWORDS):
            continue
        if text[at:].lstrip().startswith("("):
            if word.lower() not in FUNCTIONS:
                raise ValueError(f"where is {expression!r}: {word!r} is not a function that can be used; {HELP}")
        elif word.lower() not in by_name:
            raise ValueError(f"where is {expression!r}: there is no column {word!r}; there is {', '.join(columns)}")
        else:
            named[by_name[word.lower()]] = None
    if depth:
        raise ValueError(f"where is {expression!r}: a parenthesis is not closed; {HELP}")
    return list(named)


def ids_where(path: str, expression: str) -> NDArray[np.int64]:
    """The ids of the samples of a score table for which an expression on its columns holds, ascending. Without an id
    column, a sample's id is its row. ValueError for what is not one condition on the columns."""
    import duckdb
    import pyarrow.parquet as pq

    have = pq.read_schema(path).names
    named = columns_of(expression, have)
    table = pq.read_table(path, columns=[*named, *({"id"} & set(have) - set(named))], page_checksum_verification=True)
    if "id" not in have:
        table = table.append_column("id", [np.arange(pq.read_metadata(path).num_rows)])
    try:
        with duckdb.connect(config=ISOLATED) as database:
            database.execute("SET lock_configuration = true")
            rows = database.from_arrow(table).project(f"id, ({expression}) AS holds")
            if str(rows.types[1]) != "BOOLEAN":
                raise ValueError(f"where is {expression!r}, which is {rows.types[1]}; {HELP}")
            found = rows.filter("holds").fetchnumpy()["id"]
    except duckdb.Error as error:
        raise ValueError(f"where is {expression!r}: {str(error).splitlines()[0]}; {HELP}") from None
    return np.sort(np.asarray(found, np.int64))


ISOLATED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
"""DuckDB's settings: no files, no network, no extensions."""

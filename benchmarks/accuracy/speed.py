"""Markdown tables of the JSON results of the other benchmarks: speed and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tables import Row, markdown

PREDICTED = "-step-paper"  # what no machine has measured


def speed_tables(folder: Path) -> list[str]:
    """The tables of the newest result file of each benchmark and machine."""
    made = (path for path in sorted(folder.glob("????-??-??-*.json")) if not path.stem.endswith(PREDICTED))
    newest = {path.stem[11:]: path for path in made}
    out: list[str] = []
    for name, path in newest.items():
        result = json.loads(path.read_text(encoding="utf-8"))
        about = [result["date"], result["machine"], f"{result['cores']} cores", f"commit {result['commit'][:8]}"]
        about += [f"{package} {version}" for package, version in result["versions"].items()]
        out += [f"### {name}", "", ", ".join(about) + ".", ""]
        for columns, rows in same_columns(row for row in result["rows"] if "arithmetic" not in row):
            cells = [[cell(column, row.get(column)) for column in columns] for row in rows]
            out += markdown([heading(column) for column in columns], cells)
        for row in result["rows"]:
            if "arithmetic" in row:
                out += [f"{row['what']}:", "", *(f"- {line}" for line in row["arithmetic"]), ""]
    return out


def same_columns(rows: Any) -> list[tuple[list[str], list[Row]]]:
    """(columns, rows) of each table: two rows share a table when the columns of one include those of the other."""
    groups: list[tuple[list[str], list[Row]]] = []
    for row in rows:
        shown = [name for name, value in row.items() if not isinstance(value, dict | list) or "median" in value]
        for columns, members in groups:
            if set(shown) <= set(columns) or set(columns) <= set(shown):
                columns[:] = max(columns, shown, key=len)
                members.append(row)
                break
        else:
            groups.append((shown, [row]))
    return groups


def heading(column: str) -> str:
    """A column's name in words with its unit: rates per second, times in ms, bytes in MiB."""
    for end, unit in (("_per_s", " per s"), ("_us", ", us"), ("_s", ", ms"), ("_bytes", ", MiB")):
        if column.endswith(end):
            return column.removesuffix(end).replace("_", " ") + unit
    return column.replace("_", " ")


def cell(column: str, value: Any) -> str:
    """A value in its column's unit; repeated measurements as median and quartiles."""
    if value is None:
        return ""
    if isinstance(value, dict):
        low, middle, high = (cell(column, value[name]) for name in ("q1", "median", "q3"))
        return f"{middle} ({low} to {high})"
    if isinstance(value, bool | str):
        return str(value)[:8] if column == "commit" else str(value)
    if column.endswith("_s") and not column.endswith("_per_s"):
        value = 1000.0 * value
    elif column.endswith("_bytes"):
        return f"{value / 2**20:,.1f}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"

"""Puts the newest result of `bench_select.py --options` into docs/selection.md: python benchmarks/select_page.py"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "selection.md"
BEGIN, END = "<!-- made: time by N -->\n", "<!-- end -->"


def newest() -> Path:
    return sorted((HERE / "results").glob("*-select-options.json"))[-1]


def table(path: Path) -> str:
    """A row for each option, a column for each number of samples."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    cells: dict[str, dict[int, dict[str, Any]]] = {}
    for row in about["rows"]:
        cells.setdefault(row["what"], {})[row["n"]] = row
    sizes = sorted({row["n"] for row in about["rows"]})
    first = about["rows"][0]
    where = (
        f"Milliseconds of `select` at prune ratio {first['prune_ratio']:g}, by number of samples, and in brackets MB "
        f"of memory beyond the scores, the labels and the ids kept; {about['machine']}, {first['threads']} threads, "
        f"median of {first['repeats']}. `benchmarks/bench_select.py --options`, {about['date']}; raw figures in "
        f"`benchmarks/results/{path.name}`."
    )
    lines = [*textwrap.wrap(where, 118, break_long_words=False, break_on_hyphens=False), ""]
    lines += ["| | " + " | ".join(f"{n:,}" for n in sizes) + " |", "|---|" + "--:|" * len(sizes)]
    for name, by_size in cells.items():
        lines.append(f"| {name} | {' | '.join(_cell(by_size.get(n)) for n in sizes)} |")
    return "\n".join(lines) + "\n"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    extra = max(row["peak_bytes"] - row["kept_bytes"], 0) / 1e6
    time = 1e3 * row["median_s"]
    return f"{time:,.0f} ({extra:.0f})" if time >= 100 else f"{time:.3g} ({extra:.0f})"


def page(text: str, path: Path) -> str:
    before, rest = text.split(BEGIN)
    return before + BEGIN + table(path) + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), newest()), encoding="utf-8")
    print(PAGE)

"""Puts the table of results/audit.jsonl into docs/audit.md: python benchmarks/audit/page.py"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "audit.md"
RESULTS = HERE.parent / "results" / "audit.jsonl"
BEGIN, END = "<!-- made: against cleanlab -->\n", "<!-- end -->"
Row = dict[str, Any]


def rows() -> list[Row]:
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def table(found: list[Row]) -> str:
    """For each kind of training a row per set of labels, ours beside the best of cleanlab's scores."""
    kinds = list(dict.fromkeys(_kind(row) for row in found))
    return "\n".join(_table_of([row for row in found if _kind(row) == kind]) for kind in kinds)


def _kind(row: Row) -> tuple[Any, ...]:
    return row["images"], row["model"], row["epochs"], row["seed"]


def _table_of(found: list[Row]) -> str:
    images, model, epochs, seed = _kind(found[0])
    versions = ", ".join(dict.fromkeys(v for row in found if (v := row["versions"].get("cleanlab")) is not None))
    where = (
        f'Average precision and AUROC of "this label is wrong" on {images:,} CIFAR-10 images, network `{model}`, '
        f"{epochs} epochs, seed {seed}: `dualfast.audit` after one training, and cleanlab {versions} after its five, "
        "with the score of cleanlab's three that is best there. Labels: sets of CIFAR-10N, made by people, and "
        "synthetic ones. The estimated number is compared with the true one, and with that of cleanlab; CPU seconds of "
        f"{_machines(found)}, one thread. `benchmarks/audit/run.py`; raw figures, with the commit of each, in "
        "`benchmarks/results/audit.jsonl`."
    )
    lines = [*textwrap.wrap(where, 118, break_long_words=False, break_on_hyphens=False), ""]
    lines.append("| labels | wrong | ours | cleanlab | ours estimates | cleanlab estimates | CPU s, ours / cleanlab |")
    lines.append("|---|--:|--:|--:|--:|--:|--:|")
    for name in dict.fromkeys(row["labels"] for row in found):
        ours = next((row for row in found if (row["labels"], row["score"]) == (name, "audit")), None)
        theirs = [row for row in found if (row["labels"], row["by"]) == (name, "cleanlab")]
        best = max(theirs, key=lambda row: row["average_precision"], default=None)
        wrong = next(row["wrong"] for row in found if row["labels"] == name)
        cpu = " / ".join("" if row is None else format(row["cpu_seconds"], ".0f") for row in (ours, best))
        cells = [name, f"{wrong:,}", _quality(ours), _quality(best), _estimate(ours), _estimate(best), cpu]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _machines(found: list[Row]) -> str:
    return ", ".join(dict.fromkeys(row["machine"] for row in found))


def _quality(row: Row | None) -> str:
    return "" if row is None else f"{row['average_precision']:.3f} / {row['auroc']:.3f}"


def _estimate(row: Row | None) -> str:
    return "" if row is None else f"{row['estimate']:,} ({row['estimate'] / row['wrong'] - 1:+.0%})"


def page(text: str, found: list[Row]) -> str:
    before, rest = text.split(BEGIN)
    return before + BEGIN + table(found) + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), rows()), encoding="utf-8")
    print(PAGE)

"""Writes docs/scaling.md with the newest results of bench_distributed.py: python benchmarks/scaling.py"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scaling.md"

# Assumptions of the derived table.
LINK_BYTES_S = 5e9  # per rank and direction in an all-to-all: a tenth of a 400 Gb/s adapter
MESSAGE_S = 20e-6  # latency of each of the W - 1 messages that a rank sends
IMAGES_S = 2500.0  # training speed of a GPU: ResNet-50 in bf16
CASES = (("8 GPUs, ImageNet-21k", 8, 14_197_122), ("1,024 GPUs, 1B samples", 1024, 1_000_000_000))


def newest() -> Path:
    return sorted((HERE / "results").glob("*-distributed.json"))[-1]


def paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, 118, break_long_words=False, break_on_hyphens=False)


def page(path: Path) -> str:
    """The page for one result file."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    exchanges = [row for row in about["rows"] if row["what"] == "exchange"]
    (checkpoint,) = (row for row in about["rows"] if row["what"] == "checkpoint")
    (recording,) = (row for row in about["rows"] if row["what"] == "recording")
    (epoch,) = (row for row in about["rows"] if row["what"] == "epoch")
    (two,) = (row for row in exchanges if (row["samples"], row["ranks"]) == (checkpoint["samples"], 2))
    one_rank = max((row for row in exchanges if row["ranks"] == 1), key=lambda row: row["samples"])
    repeats = [row["repeats"] for row in exchanges]
    work = one_rank["median_s"] / one_rank["samples"]
    lines = [
        "# More processes, more samples",
        "",
        *paragraph(
            "`dualfast.ShardedTable` spreads the score table of N samples over W ranks: 64 N / W bytes per rank. Once "
            "per "
            "epoch every observation, 16 bytes, is sent to the rank that owns its sample, in all-to-alls of at most a "
            "million observations per rank. Ranks that read only the samples they own (`reads='own'`) send nothing. "
            "Training can resume on another number of ranks with the same scores (`dualfast.distributed.load_parts`)."
        ),
        "",
        "## Measured",
        "",
        *paragraph(
            f"{about['machine']}, {about['cores']} cores shared by all ranks, gloo between processes of one machine, "
            f"one "
            f"thread per rank, torch {about['versions']['torch']}; median, fastest and slowest of {min(repeats)} to "
            f"{max(repeats)} exchanges. `benchmarks/bench_distributed.py`, {about['date']}, load before "
            f"{about['load_before']:.1f}; raw figures in `benchmarks/results/{path.name}`."
        ),
        "",
        "| samples | ranks | exchange s | fastest to slowest | bytes sent per sample | table MB per rank"
        " | process MB per rank | scores to rank 0 s | selection s |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in exchanges:
        gathered = [f"{row[name]:.2f}" if name in row else "" for name in ("gather_s", "select_s")]
        lines.append(
            f"| {row['samples']:,} | {row['ranks']} | {row['median_s']:.2f} | {row['min_s']:.2f} to {row['max_s']:.2f} "
            f"| {row['wire_bytes_per_sample']:.1f} | {row['table_bytes_per_rank'] / 1e6:.0f} "
            f"| {row['peak_bytes_per_rank'] / 1e6:.0f} | {' | '.join(gathered)} |"
        )
    plain, sharded = recording["ScoreTable_step_us"], recording["ShardedTable_step_us"]
    lines += [
        "",
        *paragraph(
            "A rank does not send observations of samples that it owns: 16 (W - 1) / W bytes per sample are sent. "
            "Where "
            "there are more ranks than cores, they share the cores. A process holds torch, the table, one epoch's "
            "observations (20 bytes each) and, where they are gathered, the scores."
        ),
        "",
        *paragraph(
            f"The network `small` at 32 px trains on {epoch['images_per_s']:,.0f} images per second and core here, "
            f"loading "
            f"excluded. In an epoch of {two['samples']:,} samples on 2 ranks the exchange takes "
            f"{100 * two['median_s'] * 2 * epoch['images_per_s'] / two['samples']:.2f}%."
        ),
        "",
        *paragraph(
            f"A step of DualLoss ({recording['rows']} rows, {recording['classes']} classes, with backward) takes "
            f"{plain:.0f} us with a ScoreTable and {sharded:.0f} us with a ShardedTable, including its share of the "
            f"exchange."
        ),
        "",
        *paragraph(
            f"A checkpoint of a table of {checkpoint['samples']:,} samples pauses training for "
            f"{1e3 * checkpoint['median_s']:.0f} ms ({1e3 * checkpoint['min_s']:.0f} to "
            f"{1e3 * checkpoint['max_s']:.0f}); the file is complete after {checkpoint['write_s']:.2f} s, written in "
            f"the "
            "background."
        ),
        "",
        "## Derived",
        "",
        "Assumed, not measured:",
        "",
        f"- each rank has one core like those above for the exchange ({1e9 * work:.0f} ns per sample, as in the "
        f"one-rank "
        f"row of {one_rank['samples']:,} samples)",
        f"- in an all-to-all a rank sends and receives {LINK_BYTES_S / 1e9:.0f} GB/s, and each of its W - 1 messages "
        f"adds {1e6 * MESSAGE_S:.0f} us",
        f"- a GPU trains on {IMAGES_S:,.0f} images per second (ResNet-50 in bf16)",
        "",
        "| | table MB per rank | queued MB per rank | sent MB per rank and epoch | exchange s | of an epoch"
        " | all scores on one rank |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, ranks, samples in CASES:
        own = samples / ranks
        sent = 16 * own * (ranks - 1) / ranks
        seconds = own * work + sent / LINK_BYTES_S + (ranks - 1) * MESSAGE_S
        lines.append(
            f"| {name} | {64 * own / 1e6:.1f} | {20 * own / 1e6:.1f} | {sent / 1e6:.1f} | {seconds:.2f} "
            f"| {100 * seconds / (own / IMAGES_S):.2f}% | {28 * samples / 1e9:.1f} GB |"
        )
    lines += [
        "",
        *paragraph(
            "Where the scores do not fit on one rank, `ShardedTable.local_scores()` and `dualfast.distributed.select` "
            "select without gathering them; the ranks exchange only four all-reduced histograms of 512 KB and the "
            "kept ids."
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(newest()), encoding="utf-8")
    print(PAGE)

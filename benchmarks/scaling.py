"""Writes docs/scaling.md from the newest result of bench_distributed.py: python benchmarks/scaling.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "scaling.md"

# What is assumed, not measured.
LINK_BYTES_S = 5e9  # what one rank sends and receives at once in an all-to-all: a tenth of a 400 Gb/s adapter
MESSAGE_S = 20e-6  # of one of the W - 1 messages a rank sends
IMAGES_S = 2500.0  # a GPU trains on in a second: ResNet-50 in bf16
CASES = (("8 GPUs, ImageNet-21k", 8, 14_197_122), ("1,024 GPUs, 1B samples", 1024, 1_000_000_000))


def newest() -> Path:
    return sorted((HERE / "results").glob("*-distributed.json"))[-1]


def page(path: Path) -> str:
    """The page of a result."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    exchanges = [row for row in about["rows"] if row["what"] == "exchange"]
    (checkpoint,) = (row for row in about["rows"] if row["what"] == "checkpoint")
    (recording,) = (row for row in about["rows"] if row["what"] == "recording")
    (epoch,) = (row for row in about["rows"] if row["what"] == "epoch")
    (two,) = (row for row in exchanges if (row["samples"], row["ranks"]) == (checkpoint["samples"], 2))
    alone = max((row for row in exchanges if row["ranks"] == 1), key=lambda row: row["samples"])
    repeats = [row["repeats"] for row in exchanges]
    work = alone["median_s"] / alone["samples"]
    lines = [
        "# More processes, more samples",
        "",
        "The score table of N samples on W ranks takes 64 N / W bytes on each; once an epoch every observation travels",
        "to the rank that keeps its sample's line, 16 bytes each, in all-to-alls of a million observations a rank",
        "(`dualfast.ShardedTable`). Ranks that read only what they own (`reads='own'`) send nothing. On another number",
        "of ranks a training goes on with the same lines (`dualfast.distributed.load_parts`).",
        "",
        "## Measured",
        "",
        f"{about['machine']}, {about['cores']} cores shared by all ranks, gloo over the machine's memory, one thread a",
        f"rank, torch {about['versions']['torch']}; medians of {min(repeats)} to {max(repeats)} exchanges,",
        "with the fastest and the slowest.",
        f"`benchmarks/bench_distributed.py`, {about['date']}, load before {about['load_before']:.1f};",
        f"raw figures in `benchmarks/results/{path.name}`.",
        "",
        "| samples | ranks | exchange s | fastest to slowest | bytes a sample on the wire | table MB a rank"
        " | process MB a rank | scores to rank 0 s | selection s |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in exchanges:
        gathered = [f"{row[name]:.2f}" if name in row else "" for name in ("gather_s", "select_s")]
        lines.append(
            f"| {row['samples']:,} | {row['ranks']} | {row['median_s']:.2f} | {row['min_s']:.2f} to {row['max_s']:.2f} "
            f"| {row['wire_bytes_per_sample']:.1f} | {row['table_bytes_per_rank'] / 1e6:.0f} "
            f"| {row['peak_bytes_per_rank'] / 1e6:.0f} | {' | '.join(gathered)} |"
        )
    plain, ours = recording["ScoreTable_step_us"], recording["ShardedTable_step_us"]
    lines += [
        "",
        "What a rank keeps for itself does not travel: of 16 bytes (W - 1) / W do. More ranks than cores share them.",
        "A process holds torch, the table, an epoch's observations (20 bytes each) and, where gathered, the scores.",
        "",
        f"The small network at 32 px trains on {epoch['images_per_s']:,.0f} images a second and core here, loading",
        f"left out: of an epoch of {two['samples']:,} samples on 2 ranks the exchange takes "
        f"{100 * two['median_s'] * 2 * epoch['images_per_s'] / two['samples']:.2f}%.",
        "",
        f"A step of the loss ({recording['rows']} rows, {recording['classes']} classes, backward included) takes "
        f"{plain:.0f} us into a ScoreTable and {ours:.0f} us into",
        "a ShardedTable, its share of the exchange included.",
        "",
        f"A checkpoint of a table of {checkpoint['samples']:,} samples stops training for "
        f"{1e3 * checkpoint['median_s']:.0f} ms ({1e3 * checkpoint['min_s']:.0f} to "
        f"{1e3 * checkpoint['max_s']:.0f}); the file is there after",
        f"{checkpoint['write_s']:.2f} s, while training goes on.",
        "",
        "## Derived",
        "",
        "Assumed, not measured:",
        "",
        f"- each rank has a core of the kind above for the exchange ({1e9 * work:.0f} ns a sample, the one-rank row of "
        f"{alone['samples']:,} samples)",
        f"- in an all-to-all a rank sends and receives {LINK_BYTES_S / 1e9:.0f} GB/s, and each of its W - 1 messages "
        f"costs {1e6 * MESSAGE_S:.0f} us",
        f"- a GPU trains on {IMAGES_S:,.0f} images a second (ResNet-50 in bf16)",
        "",
        "| | lines MB a rank | waiting MB a rank | sent MB a rank and epoch | exchange s | of an epoch"
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
        "Where all scores do not fit on one rank, `ShardedTable.local_scores()` and `dualfast.distributed.select` draw",
        "without gathering them: four all-reduced histograms of 512 KB and the ids that are kept.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(newest()), encoding="utf-8")
    print(PAGE)

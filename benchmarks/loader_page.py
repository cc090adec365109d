"""Writes docs/loader.md with the figures of the newest result of bench_loader.py: python benchmarks/loader_page.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "loader.md"

TEXT = """# The loader

`dualfast.Loader` takes the arguments of `ffcv.loader.Loader` and gives its batches with the samples' ids appended:
`for images, labels, index in loader`. `examples/ffcv_cifar.py` is a program for FFCV in which one import has changed.

```python
from dualfast import Loader, PageRandom, compact, verify

loader = Loader("train.beton", 128, image_size=224, augment="rrc", order=PageRandom(budget_bytes=4 << 30))
loader.set_indices(kept)  # ids, a boolean mask, a range, a tensor, or the path of an .npy
print(loader.plan())
```

## Orders

| order | what comes when | of the file in memory |
|---|---|---|
| `"random"` | a full shuffle | what is selected, or each epoch reads it again |
| `"sequential"` | as the indices are given | two windows of 16 MiB, read ahead |
| `"page_random"`, `PageRandom(budget)` | pages at random, shuffled by half a budget of them | at most the budget |

All follow (seed, epoch, sample id), whatever the number of workers; on several processes each sample comes once. An
order reads the 4 KiB blocks that selected samples lie on, each once, and nothing else: the kernel's own read-ahead is
off, and what will be needed is asked for by name. With `os_cache=False` what has been visited is dropped from the
kernel's cache.

## plan()

`loader.plan()` says before an epoch what it will read: bytes needed and read, pages, the memory it takes, how good the
shuffle is (how far apart neighbours in the file come, 1 being a full shuffle's distance), and after how many epochs a
compact copy has cost less than going on.

## compact, write, verify

`compact("train.beton", kept, "small.beton")` copies the kept samples' bytes and keeps their ids in the field
`original_index`; FFCV reads the copy. `write` and `compact` work in `NAME.partial`, with a journal of finished steps
beside it: stopped, killed or out of disk, they go on when the same is asked for again, to the same bytes, and the name
is given to a whole file only. An image that `write` has stored is not encoded again; checksums tell whether the source
still gives it and the disk still has it.

`verify("train.beton")` checks the tables and every page against the checksums in `train.beton.crc` (`full=True` decodes
every image too); opening a file checks its tables. `docs/faults.md` lists what happens when something goes wrong.

## Measured
"""


def newest() -> Path:
    return sorted((HERE / "results").glob("*-loader.json"))[-1]


def rate(row: dict[str, Any]) -> str:
    found = row.get("images_per_s")
    return f"{found['median']:,.0f} ({found['q1']:,.0f} to {found['q3']:,.0f})" if found else row["missing"]


def page(path: Path) -> str:
    """The page of a result."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    by_case: dict[str, list[dict[str, Any]]] = {}
    for row in about["rows"]:
        by_case.setdefault(row["case"], []).append(row)

    def command(pattern: str) -> str:
        return f"`python benchmarks/bench_loader.py --images FOLDER --case '{pattern}'`"

    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name != "dualfast")
    lines = [
        f"{about['machine']}, {about['cores']} cores, {about['workers']} workers on every side, "
        f"Python {about['python']}, {versions}; {about['date']}.",
        f"The rows, each with its commit and the machine's load, are in `benchmarks/results/{path.name}`.",
        "Images are 128 photographs of ImageNet over and over, cropped at random to 224 px, or 32 px of noise.",
        "",
        "### Epochs from memory",
        "",
        "Images a second, median and quartiles of epochs taken in turn; the ratio is that of the paired epochs. Pillow",
        "(torch's DataLoader) and SPDL decode the original files. " + command("warm"),
        "",
        "| file | side | images/s | dualfast is faster by | to the first batch s | peak memory MB |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for case, rows in by_case.items():
        for row in rows if case.startswith("warm, ") else []:
            ratio = row.get("dualfast_is_faster_by", {}).get("median")
            ratio_text = "" if ratio is None else f"{ratio:.2f}"
            start, peak = row.get("begin_to_first_batch_s", 0), row.get("peak_bytes", 0) / 1e6
            lines.append(f"| {case[6:]} | {row['side']} | {rate(row)} | {ratio_text} | {start:.1f} | {peak:,.0f} |")
    lines += [
        "",
        "### An epoch from a cold disk",
        "",
        "Bytes that the process had the disk read, over those of the selected samples; what plan() had said; and the",
        "most of the file that was in memory at once. " + command("cold"),
        "",
        "| selection | side | needed MB | read MB | amplification | planned MB | in memory MB | budget MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case, rows in by_case.items():
        for row in rows if case.startswith("cold, ") else []:
            if "missing" in row:
                lines.append(
                    f"| {case[6:]} | {row['side']} | {row['needed_bytes'] / 1e6:,.1f} | {row['missing']} | | | | |"
                )
                continue
            megabytes = [
                f"{row[name] / 1e6:,.1f}" if name in row else ""
                for name in ("needed_bytes", "read_bytes", "planned_bytes", "held_bytes", "budget_bytes")
            ]
            needed, read, planned, held, budget = megabytes
            lines.append(
                f"| {case[6:]} | {row['side']} | {needed} | {read} | {row['amplification']:.3f} | {planned} | {held} "
                f"| {budget} |"
            )
    lines += [
        "",
        "### Opening a file of 1,280,000 samples, and another subset of it",
        "",
        "FFCV needs a new loader for another subset. " + command("subsets"),
        "",
        "| side | to open s | peak memory for it MB | another subset s | with its first batch s |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in by_case.get("subsets, 1,280,000 samples", []):
        lines.append(
            f"| {row['side']} | {row['construct_s']:.2f} | {row['construct_bytes'] / 1e6:,.0f} "
            f"| {row['set_indices_s']['median']:.4f} | {row['set_indices_and_batch_s']['median']:.2f} |"
        )
    return TEXT + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(newest()), encoding="utf-8")
    print(PAGE)

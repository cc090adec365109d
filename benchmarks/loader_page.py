"""Writes docs/loader.md from the newest results of bench_loader.py: python benchmarks/loader_page.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "loader.md"

TEXT = """# The loader

`dualfast.Loader` takes the arguments of `ffcv.loader.Loader` and gives its batches with the samples' ids appended:
`for images, labels, index in loader`. `examples/ffcv_cifar.py` is an FFCV program with one import changed.

```python
from dualfast import Loader, PageRandom, compact, verify

loader = Loader("train.beton", 128, image_size=224, augment="rrc", order=PageRandom(budget_bytes=4 << 30))
loader.set_indices(kept)  # ids, a boolean mask, a range, a tensor, or the path of an .npy
print(loader.plan())
```

## Orders

| order | visits | memory for the file |
|---|---|---|
| `"random"` | a full shuffle | all selected samples, or every epoch reads them again |
| `"sequential"` | the order of the indices | two windows of 16 MiB, read ahead |
| `"page_random"`, `PageRandom(budget)` | shuffled pages, shuffled again within half a budget | at most the budget |

Orders depend only on (seed, epoch, sample id), not on the number of workers; over several processes each sample comes
once. An epoch reads only the 4 KiB blocks that hold selected samples, once each: the kernel's own read-ahead is off,
and the blocks needed next are requested explicitly. With `os_cache=False`, blocks already visited are dropped from the
kernel's cache.

## plan()

`loader.plan()` tells before an epoch what it will read: bytes needed and read, pages, memory, how well the order
shuffles (the distance between samples that are neighbours in the file, 1 being a full shuffle's), and after how many
epochs a compact copy pays off.

## compact, write, verify

`compact("train.beton", kept, "small.beton")` copies the kept samples' bytes and keeps their ids in the field
`original_index`; FFCV can read the copy. `write` and `compact` work in `NAME.partial`, with a journal of finished steps
beside it: after an interruption, a kill or a full disk the same call resumes and produces the same bytes, and only a
complete file gets its name. An image that `write` has stored is not encoded again; checksums tell whether the source
and the disk still hold it unchanged.

`verify("train.beton")` checks the tables and every page against the checksums in `train.beton.crc` (`full=True` decodes
every image too); opening a file checks its tables. `docs/faults.md` lists the outcome of every fault.

## Measured
"""


def newest() -> Path:
    return sorted((HERE / "results").glob("*-loader.json"))[-1]


def rate(row: dict[str, Any]) -> str:
    rates = row.get("images_per_s")
    return f"{rates['median']:,.0f} ({rates['q1']:,.0f} to {rates['q3']:,.0f})" if rates else row["missing"]


def page(path: Path) -> str:
    """The page for one results file."""
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
        "Images are 128 photographs of ImageNet, repeated, cropped at random to 224 px, or noise of 32 px.",
        "",
        "### Epochs from memory",
        "",
        "Images per second, median and quartiles of alternating epochs; the ratio is of paired epochs. Pillow",
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
        "Bytes that the process read from disk, over those of the selected samples; what plan() predicted; the most",
        "of the file that was in memory at once. " + command("cold"),
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

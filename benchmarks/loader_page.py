"""Writes docs/loader.md with the newest results of bench_loader.py: python benchmarks/loader_page.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "loader.md"

TEXT = """# The loader

`dualfast.Loader` takes the arguments of `ffcv.loader.Loader` and yields its batches with the samples' ids appended:
`for images, labels, index in loader`. `examples/ffcv_cifar.py` is an FFCV training script with one import changed.
FFCV itself has to be installed only for pipelines of its own operations; the default ones need neither it nor a
just-in-time compiler.

```python
from dualfast import Loader, PageRandom, compact, verify

loader = Loader("train.beton", 128, image_size=224, augment="rrc", order=PageRandom(budget_bytes=4 << 30))
loader.set_indices(kept)  # ids, a boolean mask, a range, a tensor, or the path of an .npy
print(loader.plan())
```

## Orders

| order | sequence | part of the file in memory |
|---|---|---|
| `"random"` | a full shuffle | all selected samples; otherwise every epoch reads them again |
| `"sequential"` | the order of the indices | two windows of 16 MiB, read ahead |
| `"page_random"`, `PageRandom(budget)` | random pages, their samples shuffled by half a budget | at most the budget |

Every order is a function of (seed, epoch, sample id) and independent of the number of workers; over several processes
each sample comes exactly once per epoch. An epoch reads only the 4 KiB blocks that hold selected samples, once each:
the kernel's read-ahead is disabled, and the blocks needed next are requested explicitly. With `os_cache=False`, blocks
are dropped from the page cache after use.

## plan()

`loader.plan()` predicts what the next epoch will read: bytes needed, bytes read, pages, memory, the quality of the
shuffle (how far apart samples end up that are neighbours in the file; 1 for a full shuffle), and the number of epochs
after which a compact copy pays off.

## compact, write, verify

`compact("train.beton", kept, "small.beton")` copies the kept samples byte for byte and stores their ids in the field
`original_index`; FFCV can read the copy. `write` and `compact` work in `NAME.partial` with a journal beside it. After a
stop, a kill or a full disk, the same call resumes and produces the same bytes; the file gets its name only when it is
complete. An image that `write` has already stored is not encoded again: checksums confirm that the source and the disk
still hold the same bytes.

`verify("train.beton")` checks the tables and every page against the checksums in `train.beton.crc` (`full=True` also
decodes every image); opening a file checks its tables. `Loader(verify="open")` checks every page first, and
`verify="read"` a page when an image in it is first read, and again after somebody wrote to the file: 1.6 µs per batch
once all pages are checked. `compact` checks the pages that it copies from. `docs/faults.md` lists the outcome of every
fault.

## Measured
"""


def newest() -> Path:
    return sorted((HERE / "results").glob("*-loader.json"))[-1]


def rate(row: dict[str, Any]) -> str:
    images = row.get("images_per_s")
    return f"{images['median']:,.0f} ({images['q1']:,.0f} to {images['q3']:,.0f})" if images else row["missing"]


def page(path: Path) -> str:
    """The page for one result file."""
    about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    by_case: dict[str, list[dict[str, Any]]] = {}
    for row in about["rows"]:
        by_case.setdefault(row["case"], []).append(row)

    def command(pattern: str) -> str:
        return f"`python benchmarks/bench_loader.py --images FOLDER --case '{pattern}'`"

    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if name != "dualfast")
    lines = [
        f"{about['machine']}, {about['cores']} cores, {about['workers']} workers for every loader, "
        f"Python {about['python']}, {versions}; {about['date']}.",
        f"The raw rows, each with its commit and the machine's load, are in `benchmarks/results/{path.name}`.",
        "The images are 128 ImageNet photographs, repeated and cropped at random to 224 px, or 32 px images of noise.",
        "",
        "### Epochs from memory",
        "",
        "Images per second: median and quartiles of epochs that alternate between the loaders; the speed-up is that of",
        "the paired epochs. Pillow (in torch's DataLoader) and SPDL decode the original files. " + command("warm"),
        "",
        "| file | loader | images/s | speed-up of dualfast | s to the first batch | peak memory MB |",
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
        "Amplification: bytes read from disk over bytes of the selected samples. Planned: what plan() predicted. In",
        "memory: the largest part of the file that was cached at once. " + command("cold"),
        "",
        "| selection | loader | needed MB | read MB | amplification | planned MB | in memory MB | budget MB |",
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
        "### Opening a file of 1,280,000 samples, and switching to another subset",
        "",
        "FFCV has to build a new loader for each subset. " + command("subsets"),
        "",
        "| loader | s to open | peak memory to open MB | s to switch | s to switch, with the first batch |",
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

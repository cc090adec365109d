"""The parts of README.md that come from benchmarks/results: what stands between `<!-- made: NAME -->` and
`<!-- end -->`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tables import (
    OURS,
    Row,
    again,
    markdown,
    means,
    one_of,
    over_seeds,
    ratios,
    read,
    seconds_named,
    settings,
    timed,
    title,
)

SHOWN = ("random", "dual+beta", OURS, "dual", "ccs", "dyn_unc", "el2n")
PICTURED = ("paper", "fast", "cpu")  # the grids, the best proof first


def blocks(results: Path) -> dict[str, list[str]]:
    """The lines of each part by its name; a part without results is left out."""
    made = {}
    for grid in PICTURED:
        path = results / f"accuracy-{grid}.jsonl"
        if path.exists() and (rows := read(path)):
            made["accuracy"], made["total-time"] = accuracy(grid, rows), total_time(grid, rows)
            break
    for name, part in (("demo", demo), ("end-to-end", end_to_end), ("step", step), ("loader", loader)):
        if found := sorted(results.glob(f"????-??-??-*-{name}.json")):
            made[name] = part(found[-1])
    return made


def fill(readme: str, parts: dict[str, list[str]]) -> str:
    """The text with its parts made anew. ValueError for a part it has no place for."""
    for name, lines in parts.items():
        place = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", re.S)
        if not place.search(readme):
            raise ValueError(f"README.md has no place for {name}; add <!-- made: {name} --> and <!-- end -->")
        text = "\n".join(lines).strip() + "\n"
        readme = place.sub(lambda found, text=text: found[1] + text + found[2], readme)
    return readme


def _clean(rows: list[Row]) -> list[Row]:
    return next(group for group in settings(rows) if group[0]["scenario"] == "clean" and not group[0]["score_model"])


def accuracy(grid: str, rows: list[Row]) -> list[str]:
    group = _clean(rows)
    full, at = means(group, "full", 0.0), ratios(group)
    lines = [[name, *(means(group, name, ratio) or "-" for ratio in at)] for name in SHOWN]
    return [
        f"![Test accuracy against prune ratio](docs/accuracy-{grid}.svg)",
        "",
        f"{title(group[0])}: test accuracy in % after the last epoch, {over_seeds(group)}"
        + (f"; all images: {full}." if full else "."),
        "",
        *markdown(["fraction removed", *(f"{ratio:g}" for ratio in at)], lines),
        f"`python benchmarks/accuracy/run.py {grid}` runs it, `make results` draws it; every method is in"
        " `docs/results.md`. One of its trainings alone:",
        "",
        "```sh",
        again(one_of(group)),
        "```",
    ]


def total_time(grid: str, rows: list[Row]) -> list[str]:
    group = timed(_clean(rows))
    full = means(group, "full", 0.0, "train", 1)
    cells = []
    for ratio in ratios(group):
        took = [means(group, OURS, ratio, part, 1) for part in ("score", "train")]
        random, ours = means(group, "random", ratio), means(group, OURS, ratio)
        if full and ours and random and took[0] and took[1]:
            both = (took[0].value + took[1].value) / full.value
            later = took[1].value / full.value
            cells.append([f"{ratio:g}", f"{both:.2f}", f"{later:.2f}", ours, f"{ours.value - random.value:+.1f}"])
    head = ["fraction removed", "scoring and training", "each further training", "accuracy %", "over random"]
    return [
        f"![Test accuracy against total time](docs/total-time-{grid}.svg)",
        "",
        f"What {OURS} costs, in {seconds_named(group[0])} of one training on all images ({group[0]['machine']}). The"
        " scores are gathered once and serve every ratio, seed and network that follows:",
        "",
        *markdown(head, cells),
        f"The same command, `python benchmarks/accuracy/run.py {grid}`.",
    ]


def demo(path: Path) -> list[str]:
    """The table that `make demo` ends with, and how long it takes."""
    made = json.loads(path.read_text(encoding="utf-8"))
    whole, *lines = made["rows"]
    return [
        f"Once set up it took {whole['whole_s']:.0f} s on {made['machine']}, {made['cores']} cores, and ended like this"
        " (`python benchmarks/demo.py`, the same in an empty folder):",
        "",
        *markdown(list(lines[0]), [list(line.values()) for line in lines]),
    ]


def end_to_end(path: Path) -> list[str]:
    """What scoring adds to an epoch, ours and as published code does it, and the memory it takes."""
    made = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in made["rows"]}
    ours = rows["dualfast"]
    names = {
        "plain": "training alone",
        "dualfast": "with every score",
        "log and score after": "logits logged, scored afterwards",
        "log and score after, DataLoader": "the same, fed by torch's DataLoader",
    }
    lines = []
    for what, name in names.items():
        row = rows[what]
        speed = f"{row['n'] / row['median_epoch_s']:,.0f}"
        times = [_quartiles(row, clock) for clock in ("times_plain", "processor_times_plain")]
        lines.append([name, speed, *times, f"{row['score_state_bytes'] / 1e6:.1f} MB"])
    (imagenet,) = (row for row in made["rows"] if "arithmetic" in row)
    loss = [f"{imagenet[key]:,.0f} s" for key in ("loss_plain_s", "loss_dualfast_s", "loss_log_and_score_s")]
    kept, logged = imagenet["score_state_bytes"] / 1e6, imagenet["logits_kept_bytes"] / 1e9
    return [
        *markdown(["an epoch", "images/s", "time over a plain one", "processor time", "kept for scores"], lines),
        f"The network `{ours['model']}` on {ours['n']:,} images of 32 px in batches of {ours['batch']}, medians and"
        f" quartiles of {ours['epochs']} epochs in turns on {made['machine']}, {made['cores']} cores:"
        f" `python benchmarks/end_to_end.py --images {ours['n']} --epochs {ours['epochs']}`."
        f" By arithmetic from the losses' times, {imagenet['epochs']} epochs of ImageNet-1k spend {loss[0]} in the"
        f" plain loss, {loss[1]} with every score and {loss[2]} logging and scoring afterwards, and keep {kept:.0f} MB"
        f" against {logged:.0f} GB.",
    ]


def _quartiles(row: Row, clock: str) -> str:
    """A ratio to plain: its median over the rounds, and its quartiles."""
    if row["what"] == "plain" or clock not in row:
        return "1" if row["what"] == "plain" else "-"
    return f"{row[clock]:.2f} ({row[f'{clock}_low']:.2f} to {row[f'{clock}_high']:.2f})"


def step(path: Path) -> list[str]:
    """Each size's times of ours, and of what a user would run instead as multiples of it."""
    made = json.loads(path.read_text(encoding="utf-8"))
    found = {(row["size"], row["dtype"], row["what"]): row for row in made["rows"]}
    lines = []
    for size, dtype in dict.fromkeys((row["size"], row["dtype"]) for row in made["rows"]):
        ours = found[size, dtype, "dualfast"]
        others = (found.get((size, dtype, what)) for what in ("cross_entropy", "cross_entropy + eager scores"))
        times = [f"{row['times_dualfast']:.1f}x" if row else "-" for row in others]
        lines.append([size.replace("x", " x "), dtype, f"{1000 * ours['median_s']:.3g} ms", *times])
    head = [
        "batch x classes",
        "logits",
        "dualfast, all scores",
        "cross_entropy alone",
        "and scores in torch operations",
    ]
    return [
        *markdown(head, lines),
        f"Loss and gradient, medians of {made['rows'][0]['repeats']} paired rounds on {made['machine']},"
        f" {made['cores']} cores, torch {made['versions']['torch']}, commit {made['commit'][:8]}:"
        " `python benchmarks/bench_step.py`.",
    ]


def loader(path: Path) -> list[str]:
    """Images a second of ours from memory, and how many times those of a user's other choices."""
    made = json.loads(path.read_text(encoding="utf-8"))
    found = {(row["case"], row["side"]): row for row in made["rows"] if row["case"].startswith("warm, ")}
    lines = []
    for case in dict.fromkeys(case for case, side in found if side == "dualfast"):
        others = (found.get((case, side)) for side in ("ffcv", "pillow"))
        times = [f"{row['dualfast_is_faster_by']['median']:.1f}x" if row else "-" for row in others]
        ours = found[case, "dualfast"]["images_per_s"]["median"]
        lines.append([case.removeprefix("warm, "), f"{ours:,.0f}", *times])
    head = ["file", "dualfast, images/s", "faster than FFCV's loader", "than torch's DataLoader with Pillow"]
    return [
        *markdown(head, lines),
        f"Random crops to 224 px (32 px: crop and flip), medians of paired epochs on {made['machine']}, {made['cores']}"
        " cores, two workers: `python benchmarks/bench_loader.py --images FOLDER`. What the files are, cold disks and"
        " memory: `docs/loader.md`.",
    ]

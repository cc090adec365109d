"""The parts of README.md and docs/measured.md that are generated from benchmarks/results: the text between
`<!-- made: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tables import (
    AUTO,
    CCS_ON_LOGITS,
    Row,
    markdown,
    means,
    methods,
    one_of,
    over_seeds,
    ratios,
    read,
    remarks,
    rerun_command,
    seconds_unit,
    settings,
    timed,
    title,
)

SHOWN = ("random", "dual+beta", AUTO, "dual", "ccs", CCS_ON_LOGITS, "dyn_unc", "el2n")
PAGES = {
    "README.md": ("compared",),
    "docs/measured.md": (
        *("accuracy", "total-time", "end-to-end", "step", "loader", "scale", "commits", "commits-busy", "demo"),
        *("step-paper", "step-paper-tried"),
    ),
}
"""The pages, and the parts that each holds."""
PICTURED = ("paper", "fast", "cpu")  # the grids, the strongest evidence first


def blocks(results: Path) -> dict[str, list[str]]:
    """The lines of each part, by name; parts without results are left out."""
    parts = {}
    for grid in PICTURED:
        path = results / f"accuracy-{grid}.jsonl"
        if path.exists() and (rows := read(path)):
            parts["accuracy"], parts["total-time"] = accuracy(grid, rows), total_time(grid, rows)
            break
    made = {"demo": demo, "end-to-end": end_to_end, "step": step, "loader": loader}
    made |= {"commits": commits, "commits-busy": commits, "step-paper": step_paper, "scale": scale}
    for name, part in made.items():
        if files := sorted(results.glob(f"????-??-??-*-{name}.json")):
            parts[name] = part(files[-1])
    if paper := sorted(results.glob("????-??-??-*-step-paper.json")):
        parts["step-paper-tried"] = step_paper_tried(paper[-1])
    latest = {name: sorted(results.glob(f"????-??-??-*-{name}.json"))[-1:] for name in ("end-to-end", "loader")}
    if all(latest.values()):
        parts["compared"] = compared(latest["end-to-end"][0], latest["loader"][0], results / "audit.jsonl")
    return parts


def fill_pages(root: Path, parts: dict[str, list[str]]) -> list[Path]:
    """Fills in the parts of every page below root that exists; returns the pages."""
    filled = []
    for name, held in PAGES.items():
        page = root / name
        if page.exists():
            text = fill(page.read_text(encoding="utf-8"), {part: parts[part] for part in held if part in parts})
            page.write_text(text, encoding="utf-8")
            filled.append(page)
    return filled


def fill(readme: str, parts: dict[str, list[str]]) -> str:
    """The text with its generated parts replaced. ValueError for a part that the text has no place for."""
    for name, lines in parts.items():
        place = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", re.S)
        if not place.search(readme):
            raise ValueError(f"the page has no place for {name}; add <!-- made: {name} --> and <!-- end -->")
        text = "\n".join(lines).strip() + "\n"
        readme = place.sub(lambda match, text=text: match[1] + text + match[2], readme)
    return readme


def _clean(rows: list[Row]) -> list[Row]:
    return next(group for group in settings(rows) if group[0]["scenario"] == "clean" and not group[0]["score_model"])


def accuracy(grid: str, rows: list[Row]) -> list[str]:
    group = _clean(rows)
    full, at = means(group, "full", 0.0), ratios(group)
    lines = [[name, *(means(group, name, ratio) or "-" for ratio in at)] for name in SHOWN if name in methods(group)]
    return [
        f"![Test accuracy against prune ratio](accuracy-{grid}.svg)",
        "",
        f"{title(group[0])}: test accuracy in % after the last epoch, {over_seeds(group)}"
        + (f"; training on all images: {full}." if full else "."),
        "",
        *markdown(["fraction removed", *(f"{ratio:g}" for ratio in at)], lines),
        *remarks(group),
        f"`python benchmarks/accuracy/run.py {grid}` runs these trainings and `make results` updates this page;"
        " `docs/results.md` has all methods. To repeat a single training:",
        "",
        "```sh",
        rerun_command(one_of(group)),
        "```",
    ]


def total_time(grid: str, rows: list[Row]) -> list[str]:
    group = timed(_clean(rows))
    full = means(group, "full", 0.0, "train", 1)
    cells = []
    for ratio in ratios(group):
        took = [means(group, AUTO, ratio, part, 1) for part in ("score", "train")]
        random, auto = means(group, "random", ratio), means(group, AUTO, ratio)
        if full and auto and random and took[0] and took[1]:
            both = (took[0].value + took[1].value) / full.value
            later = took[1].value / full.value
            cells.append([f"{ratio:g}", f"{both:.2f}", f"{later:.2f}", auto, f"{auto.value - random.value:+.1f}"])
    head = ["fraction removed", "scoring + training", "each further training", "accuracy %", "gain over random"]
    return [
        f"![Test accuracy against total time](total-time-{grid}.svg)",
        "",
        f"The cost of `{AUTO}` relative to one training on all images, in {seconds_unit(group[0])}"
        f" ({group[0]['machine']}). The scores are computed once and serve every later ratio, seed and network:",
        "",
        *markdown(head, cells),
        *remarks([row for row in group if row["method"] == AUTO]),
        f"These figures come from the same command, `python benchmarks/accuracy/run.py {grid}`.",
    ]


def demo(path: Path) -> list[str]:
    """The table that `make demo` prints, and how long it takes."""
    result = json.loads(path.read_text(encoding="utf-8"))
    whole, *lines = result["rows"]
    return [
        f"Once installed, it took {whole['whole_s']:.0f} s on {result['machine']}, {result['cores']} cores, and printed"
        " this table (`python benchmarks/demo.py` runs the same in an empty folder):",
        "",
        *markdown(list(lines[0]), [list(line.values()) for line in lines]),
    ]


def compared(end_to_end: Path, loader: Path, audit: Path) -> list[str]:
    """What a user would have otherwise, and what the measurements say of each."""
    ours = json.loads(end_to_end.read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in ours["rows"]}
    scores = _quartiles(rows["dualfast"], "processor_times_plain")
    (imagenet,) = (row for row in ours["rows"] if "arithmetic" in row)
    kept, logged = imagenet["score_state_bytes"] / 1e6, imagenet["logits_kept_bytes"] / 1e9
    by_case = {(row["case"], row["side"]): row for row in json.loads(loader.read_text(encoding="utf-8"))["rows"]}

    def faster(case: str, side: str) -> str:
        return f"{by_case[f'warm, {case}', side]['dualfast_is_faster_by']['median']:.1f}x"

    found = wrong_labels(audit) if audit.exists() else ""
    lines = [
        [
            "`CrossEntropyLoss`",
            "the same loss and gradient, and all scores",
            f"an epoch takes {scores} times the processor time",
        ],
        [
            "logits logged, scored afterwards",
            "scores in place, 64 bytes per sample",
            f"ImageNet-1k, {imagenet['epochs']} epochs: {kept:.0f} MB instead of {logged:.0f} GB (extrapolated)",
        ],
        [
            "`DataLoader` with Pillow",
            "one pass of C++ from file to normalised crop",
            f"images/s: {faster('originals', 'pillow')} on originals, "
            f"{faster('max side 256, JPEG', 'pillow')} at 256 px",
        ],
        [
            "FFCV's `Loader`",
            "drop-in; damaged files and wrong indices are exceptions",
            f"images/s: {faster('originals', 'ffcv')} on originals, {faster('max side 256, JPEG', 'ffcv')} at 256 px",
        ],
        [
            "the authors' code",
            "every score in one training, on one or many processes",
            "rank correlation with their code above 0.9999 (`docs/scores.md`)",
        ],
        *([["cleanlab, cross-validated", "wrong labels from the one training that you run", found]] if found else []),
    ]
    return [
        *markdown(["you use now", "with dualfast", "measured"], lines),
        f"Images of 32 px in the first row, ImageNet photographs in those of loaders; {ours['machine']}, "
        f"{ours['cores']} cores, without a GPU; cleanlab on the machine that `docs/audit.md` names:"
        f" `python benchmarks/end_to_end.py --images {rows['dualfast']['n']} --epochs {rows['dualfast']['epochs']}`,"
        " `python benchmarks/bench_loader.py --images FOLDER`, `pytest tests/scoring/test_baselines.py`,"
        " `python benchmarks/audit/run.py`.",
    ]


def wrong_labels(path: Path) -> str:
    """Our audit beside the best of cleanlab's scores, on the sets of human labels that both were given."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_set: dict[tuple[int, str], dict[str, Row]] = {}
    for row in rows:
        if row["labels"] in ("random1", "worst", "aggregate") and row["score"] not in ("aum", "mean"):
            sides = by_set.setdefault((row["images"], row["labels"]), {})
            best = sides.get(row["by"], row)
            sides[row["by"]] = max(best, row, key=lambda one: one["average_precision"])
    most = max((images for (images, _), sides in by_set.items() if len(sides) == 2), default=0)
    both = [sides for (images, _), sides in by_set.items() if images == most and len(sides) == 2]
    if not both:
        return ""
    ours, theirs = (
        ", ".join(f"{sides[by]['average_precision']:.2f}" for sides in both) for by in ("dualfast", "cleanlab")
    )
    times = [sides["dualfast"]["cpu_seconds"] / sides["cleanlab"]["cpu_seconds"] for sides in both]
    names = ", ".join(sides["dualfast"]["labels"] for sides in both)
    return (
        f"average precision {ours} against {theirs} on CIFAR-10N's {names}, {most:,} images, in"
        f" {100 * sum(times) / len(times):.0f}% of the processor time"
    )


def end_to_end(path: Path) -> list[str]:
    """What scoring adds to the time of an epoch, in DualLoss and by logging the logits, and the memory it takes."""
    result = json.loads(path.read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in result["rows"]}
    about = rows["dualfast"]
    names = {
        "plain": "training alone",
        "dualfast": "with all scores",
        "log and score after": "logits logged, scored afterwards",
        "log and score after, DataLoader": "the same, with torch's DataLoader",
    }
    lines = []
    for what, name in names.items():
        row = rows[what]
        speed = f"{row['n'] / row['median_epoch_s']:,.0f}"
        times = [_quartiles(row, clock) for clock in ("times_plain", "processor_times_plain")]
        lines.append([name, speed, *times, f"{row['score_state_bytes'] / 1e6:.1f} MB"])
    (imagenet,) = (row for row in result["rows"] if "arithmetic" in row)
    loss = [f"{imagenet[key]:,.0f} s" for key in ("loss_plain_s", "loss_dualfast_s", "loss_log_and_score_s")]
    kept, logged = imagenet["score_state_bytes"] / 1e6, imagenet["logits_kept_bytes"] / 1e9
    return [
        *markdown(
            ["one epoch", "images/s", "time / training alone", "processor time / training alone", "memory for scores"],
            lines,
        ),
        f"Network `{about['model']}`, {about['n']:,} images of 32 px, batch size {about['batch']}; medians and"
        f" quartiles of {about['epochs']} epochs, alternating between the rows, on {result['machine']},"
        f" {result['cores']} cores: `python benchmarks/end_to_end.py --images {about['n']} --epochs {about['epochs']}`."
        f" Extrapolated from the measured time per sample, {imagenet['epochs']} epochs of ImageNet-1k spend {loss[0]}"
        f" in the plain loss, {loss[1]} in the loss with all scores, and {loss[2]} when logits are logged and scored"
        f" afterwards; the scores need {kept:.0f} MB, the logged logits {logged:.0f} GB.",
    ]


def _quartiles(row: Row, clock: str) -> str:
    """The time relative to training alone: median and quartiles over the rounds."""
    if row["what"] == "plain" or clock not in row:
        return "1" if row["what"] == "plain" else "-"
    return f"{row[clock]:.2f} ({row[f'{clock}_low']:.2f} to {row[f'{clock}_high']:.2f})"


def step(path: Path) -> list[str]:
    """The time of the loss with all scores at each size, and the alternatives' times as multiples of it."""
    result = json.loads(path.read_text(encoding="utf-8"))
    by_case = {(row["size"], row["dtype"], row["what"]): row for row in result["rows"]}
    lines = []
    for size, dtype in dict.fromkeys((row["size"], row["dtype"]) for row in result["rows"]):
        dualfast = by_case[size, dtype, "dualfast"]
        others = (by_case.get((size, dtype, what)) for what in ("cross_entropy", "cross_entropy + eager scores"))
        times = [f"{row['times_dualfast']:.1f}x" if row else "-" for row in others]
        lines.append([size.replace("x", " x "), dtype, f"{1000 * dualfast['median_s']:.3g} ms", *times])
    head = [
        "batch x classes",
        "logits",
        "dualfast, all scores",
        "cross_entropy alone",
        "cross_entropy + scores in torch",
    ]
    return [
        *markdown(head, lines),
        f"Loss and gradient, medians of {result['rows'][0]['repeats']} paired rounds on {result['machine']},"
        f" {result['cores']} cores, torch {result['versions']['torch']}, commit {result['commit'][:8]}; the last two"
        " columns give the time as a multiple of dualfast's: `python benchmarks/bench_step.py`.",
    ]


def loader(path: Path) -> list[str]:
    """Images per second from memory, and the speed-up over FFCV's loader and torch's DataLoader."""
    result = json.loads(path.read_text(encoding="utf-8"))
    by_case = {(row["case"], row["side"]): row for row in result["rows"] if row["case"].startswith("warm, ")}
    lines = []
    for case in dict.fromkeys(case for case, side in by_case if side == "dualfast"):
        others = (by_case.get((case, side)) for side in ("ffcv", "pillow"))
        times = [f"{row['dualfast_is_faster_by']['median']:.1f}x" if row else "-" for row in others]
        rate = by_case[case, "dualfast"]["images_per_s"]["median"]
        lines.append([case.removeprefix("warm, "), f"{rate:,.0f}", *times])
    head = ["file", "dualfast, images/s", "speed-up over FFCV's loader", "over torch's DataLoader with Pillow"]
    return [
        *markdown(head, lines),
        f"Random crops to 224 px (32 px: crop and flip), medians of paired epochs on {result['machine']},"
        f" {result['cores']} cores, two workers: `python benchmarks/bench_loader.py --images FOLDER`. `docs/loader.md`"
        " describes the files and has the figures for cold disks and memory.",
    ]


def commits(path: Path) -> list[str]:
    """The time of this version and of an earlier one, row by row."""
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for row in result["rows"]:
        low, high = row["interval"]
        times = [_time_text(row[side]) for side in ("other_s", "this_s")]
        memory = f"{row['other_mb']:,.0f}, {row['this_mb']:,.0f} MB"
        lines.append([row["what"], *times, f"{row['ratio']:.2f}x ({low:.2f} to {high:.2f})", memory])
    fewest, most = (end(row["rounds"] for row in result["rows"]) for end in (min, max))
    rounds = f"{most}" if fewest == most else f"{fewest} to {most}"
    busy = " --busy" if "busy" in path.name else ""
    other = result["other_commit"][:8]
    return [
        *markdown(["work", f"commit {other}", "this version", "faster by (95% interval)", "peak memory"], lines),
        f"Medians of {rounds} paired rounds on {result['machine']}, {result['cores']} cores, commit"
        f" {result['commit'][:8]}; the memory of a process includes 235 MB of Python and torch and what the work reads:"
        f" `python benchmarks/bench_commits.py CHECKOUT --images FOLDER{busy}`.",
    ]


def scale(path: Path) -> list[str]:
    """Each step of a run by the number of images, and how its time grows over the last tenfold."""
    result = json.loads(path.read_text(encoding="utf-8"))
    by_step: dict[str, dict[int, Row]] = {}
    for row in result["rows"]:
        by_step.setdefault(row["what"], {})[row["n"]] = row
    sizes = sorted({row["n"] for row in result["rows"]})
    before, last = sizes[-2:]
    lines = [
        [
            what,
            *(f"{_time_text(rows[n]['median_s'])} ({rows[n]['peak_bytes'] / 1e6:,.0f} MB)" for n in sizes),
            f"{rows[last]['median_s'] / rows[before]['median_s']:.1f}",
        ]
        for what, rows in by_step.items()
    ]
    return [
        *markdown(["step", *(f"{n:,} images" for n in sizes), f"times as long for {last / before:.0f} x"], lines),
        f"Images of 16 x 16 px in 1,000 classes on {result['machine']}, {result['cores']} cores, commit"
        f" {result['commit'][:8]}; medians of {result['rows'][0]['rounds']}, and in brackets the highest memory of the"
        " process, of which Python and torch are 235 MB: `python benchmarks/bench_scale.py`.",
    ]


def _time_text(seconds: float) -> str:
    return f"{seconds * 1e3:,.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def step_paper(path: Path) -> list[str]:
    """What the compiled Triton step needs per row, and the time predicted from it beside that of a copy."""
    result = json.loads(path.read_text(encoding="utf-8"))
    by_case = {(row["size"], row["dtype"], row["gpu"]): row for row in result["rows"] if row["what"] == "as it is"}
    lines = []
    for size, dtype in dict.fromkeys((size, dtype) for size, dtype, _ in by_case):
        both = [by_case[size, dtype, gpu] for gpu in ("H200", "B200")]
        cells = [f"{both[0]['bytes_per_row']:,.0f} ({both[0]['least_bytes_per_row']:,})"]
        cells.append(" / ".join(f"{row['instructions_per_row']:,.0f}" for row in both))
        cells.append(" / ".join(f"{row['registers']}" for row in both))
        cells.append(f"{max(row['shared_bytes'] for row in both):,}")
        cells.append(" / ".join(f"{row['programs_per_sm']} ({row['occupancy']:.0%})" for row in both))
        for row in both:
            cells += [f"{_range(row)} ({row['copy_us']:.3g})", row["limit"].replace("issue", "instructions")]
        lines.append([size.replace("x", " x "), dtype, *cells])
    head = ["batch x classes", "logits", "bytes per row (least)", "instructions per row", "registers", "shared bytes"]
    head += ["programs per multiprocessor (occupancy)"]
    head += [text for gpu in ("H200", "B200") for text in (f"{gpu}, us (copy)", "limit")]
    gpus, assumed = result["gpus"], result["assumed"]
    bandwidths = ", ".join(f"{name} {gpu['memory'] / 1e12:g}" for name, gpu in gpus.items())
    l2 = ", ".join(f"{name} {gpu['l2'] / 1e12:g}" for name, gpu in gpus.items())
    latencies = ", ".join(f"{name} {gpu['l2_cycles']} and {gpu['memory_cycles']}" for name, gpu in gpus.items())
    return [
        *markdown(head, lines),
        f"Predicted by `python benchmarks/bench_step_paper.py` with triton {result['versions']['triton']}, commit"
        f" {result['commit'][:8]}; where two numbers stand, sm_90 / sm_100. Data sheets: {bandwidths} TB/s of memory,"
        f" {gpus['H200']['sms']} and {gpus['B200']['sms']} multiprocessors at {gpus['H200']['clock'] / 1e9:g} GHz."
        f" Assumed: {assumed['first_launch_s'] * 1e6:g} us for a launch in a graph and"
        f" {assumed['next_launch_s'] * 1e6:g} us for a second one; {l2} TB/s of L2 cache; latencies in cycles of L2 and"
        f" of memory: {latencies}.",
    ]


def step_paper_tried(path: Path) -> list[str]:
    """The variants' predicted times beside those of the code as it is."""
    result = json.loads(path.read_text(encoding="utf-8"))
    by_case = {(row["size"], row["dtype"], row["what"], row["gpu"]): row for row in result["rows"]}
    lines = []
    for size, dtype, what in dict.fromkeys(case[:3] for case in by_case):
        if what != "as it is":
            cells = [
                f"{_range(by_case[size, dtype, 'as it is', gpu])} -> {_range(by_case[size, dtype, what, gpu])}"
                for gpu in ("H200", "B200")
            ]
            lines.append([size.replace("x", " x "), dtype, what, *cells])
    return markdown(["batch x classes", "logits", "variant", "H200, us", "B200, us"], lines)


def _range(row: Row) -> str:
    low, high = row["predicted_us"], row["no_overlap_us"]
    return f"{low:.0f} to {high:,.0f}" if low >= 100 else f"{low:.1f} to {high:.1f}"

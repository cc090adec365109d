"""JPEGs: random crops of 224 px from photographs, on one thread against Pillow, then through Loader against FFCV's
loader and torch's DataLoader with Pillow, each in its own process, taking turns.

--folder keeps the files for later runs; --prepare makes them and measures nothing."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _harness import origin, paired, save
from bench_loader import Bench, warm

from dualfast import ops, write
from dualfast.data import beton

SIZE = 224
SETS: dict[str, dict[str, Any]] = {
    "originals": {},
    "max side 400, JPEG": {"max_size": 400},
    "max side 256, JPEG": {"max_size": 256},
    "max side 256, raw": {"max_size": 256, "mode": "raw"},
}


def prepare(images: Path, folder: Path, times: int) -> dict[str, Path]:
    """The photographs, each `times` times, as files and as each of the SETS. Existing files are kept."""
    root = folder / "set"
    if not root.exists():
        for label, file in enumerate(sorted(images.glob("*/*.*"))):
            (folder / "set.part" / f"{label:04}").mkdir(parents=True, exist_ok=True)
            for copy in range(times):
                shutil.copyfile(file, folder / "set.part" / f"{label:04}" / f"{copy:02}{file.suffix}")
        (folder / "set.part").rename(root)
    betons = {name: folder / f"{name.replace(' ', '-').replace(',', '')}.beton" for name in SETS}
    for name, path in betons.items():
        if not path.exists():
            write(root, path, progress=False, **SETS[name])
    return betons


def one_thread(case: str, path: Path, repeats: int) -> dict[str, Any]:
    """Crops of up to 128 images from memory: load_images, and Pillow's decoding and resizing of the same boxes."""
    from PIL import Image

    source = beton.open_beton(path)
    ids = np.arange(0, source.n_samples, max(1, source.n_samples // 128))
    height, width = source.height[ids], source.width[ids]
    boxes = ops.crop_boxes(ids, height, width, kind="resized", out_size=(SIZE, SIZE), flip=True)
    out, table = np.empty((len(ids), SIZE, SIZE, 3), np.uint8), np.tile(np.arange(256, dtype=np.uint8), (3, 1))
    places = source.ptr[ids], source.size[ids], source.mode[ids]
    payloads = [source.payload(row) for row in ids.tolist()]

    def ours() -> None:
        status = ops.load_images(source.fd, *places, height, width, boxes, out, table, np.zeros(3, np.uint8), 1)
        assert not status.any()

    def pillow() -> None:
        for at, (payload, (top, left, h, w, flip)) in enumerate(zip(payloads, boxes.tolist(), strict=True)):
            image = Image.open(io.BytesIO(payload)).convert("RGB")
            cut = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (left, top, left + w, top + h))
            out[at] = np.asarray(cut)[:, :: -1 if flip else 1]

    times = paired({"dualfast": ours, "pillow": pillow}, repeats)
    rates = {f"{name}_images_per_s": len(ids) / timing["median_s"] for name, timing in times.items()}
    ratio = times["pillow"]["median_s"] / times["dualfast"]["median_s"]
    return {"case": f"{case}, one thread", "side": "dualfast", **rates, "faster_than_pillow_by": ratio, "times": times}


def run(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    betons = prepare(args.images, folder, args.times)
    if args.prepare:
        return
    files = [str(file) for file in sorted((folder / "set").glob("*/*"))]
    bench = Bench(folder, [], args.workers, args.repeats, quick=False)
    for case, path in betons.items():
        if case.endswith("JPEG") or case == "originals":
            yield one_thread(case, path, args.repeats)
    for case, path in betons.items():
        sides = "dualfast ffcv pillow" if "256" in case else "dualfast ffcv"
        task = {"path": str(path), "files": files, "n": len(files), "batch": 64, "size": SIZE, "workers": args.workers}
        for row in warm(bench, task, sides):
            yield {"case": f"{len(files):,} {case}, crop to {SIZE} px", **row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="a folder of class folders of JPEGs")
    parser.add_argument("--times", type=int, default=8, help="copies of each image")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    about = origin(("ffcv", "numba", "pillow")) | {"jpeg": ops.JPEG_LIBRARY, "workers": args.workers}
    if args.folder is not None:
        args.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for row in run(args, args.folder or Path(temporary)):
            rows.append(row)
            print(json.dumps(row), flush=True)
    about["load_after"] = os.getloadavg()[0]
    if not (args.no_save or args.prepare):
        print(save("jpeg", rows, about))


if __name__ == "__main__":
    main()

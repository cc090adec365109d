"""dualfast.Loader against ffcv.loader.Loader, torch's DataLoader with Pillow and SPDL, each in a process of its own.

Cases that are in the results already are skipped, so that an interrupted run resumes; --again measures them anew. A
side that hangs is killed and counts as missing. --quick uses small sets and saves nothing."""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import mmap
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LIMIT = 600  # seconds that a side may take to answer
BUDGET = 256 << 20  # bytes, of the page-local order


# ---- the sides, each in a process of its own ------------------------------------------------------------------------


def dualfast_side(request: dict[str, Any]) -> Any:
    from dualfast import Loader, PageRandom

    order = request.get("order", "random")
    return Loader(
        request["path"],
        request["batch"],
        num_workers=request["workers"],
        indices=request.get("indices"),
        order=PageRandom(BUDGET) if order == "page_random" else order,
        image_size=request["size"],
        augment="crop+flip" if request["size"] <= 64 else "rrc",
        os_cache=request.get("os_cache", True),
    )


def ffcv_side(request: dict[str, Any]) -> Any:
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

    size, indices = request["size"], request.get("indices")
    cut = [SimpleRGBImageDecoder(), RandomTranslate(padding=4)]
    if size > 64:
        cut = [RandomResizedCropRGBImageDecoder((size, size))]
    normalise = NormalizeImage(np.array(MEAN) * 255, np.array(STD) * 255, np.float32)
    pipelines = {
        "image": [*cut, RandomHorizontalFlip(), normalise, ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor()],
    }
    return Loader(
        request["path"],
        request["batch"],
        num_workers=request["workers"],
        indices=None if indices is None else np.load(indices),
        order=OrderOption.RANDOM,
        pipelines=pipelines,
        drop_last=False,
        os_cache=request.get("os_cache", True),
        seed=0,
    )


def pillow_side(request: dict[str, Any]) -> Any:
    """The original images: files, or an array of pixels."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    torch.manual_seed(0)
    size, mean, std = request["size"], torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    pixels = np.load(request["pixels"], mmap_mode="r") if request.get("pixels") else None
    files = request.get("files")

    def random_resized_crop(image: Image.Image) -> Image.Image:
        for _ in range(10):
            area = image.width * image.height * float(torch.empty(1).uniform_(0.08, 1))
            ratio = float(torch.exp(torch.empty(1).uniform_(np.log(3 / 4), np.log(4 / 3))))
            width, height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < width <= image.width and 0 < height <= image.height:
                left = int(torch.randint(image.width - width + 1, (1,)))
                top = int(torch.randint(image.height - height + 1, (1,)))
                return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + width, top + height))
        return image.resize((size, size), Image.Resampling.BILINEAR)

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return request["n"] if pixels is None else len(pixels)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int, int]:
            if pixels is None:
                with Image.open(files[i % len(files)]) as image:
                    array = np.asarray(random_resized_crop(image.convert("RGB")))
            else:
                padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)))
                top, left = torch.randint(9, (2,)).tolist()
                array = padded[top : top + size, left : left + size]
            if torch.rand(()) < 0.5:
                array = array[:, ::-1]
            image_tensor = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
            return (image_tensor.float() / 255 - mean) / std, 0, i

    return DataLoader(Images(), request["batch"], shuffle=True, num_workers=request["workers"], persistent_workers=True)


def spdl_side(request: dict[str, Any]) -> Any:
    """Original files through SPDL's threads and FFmpeg. The crop's sides are drawn relative to the image's, so that the
    filter can be written before the image is opened."""
    import spdl.io
    import torch
    from spdl.pipeline import PipelineBuilder

    size, files, rng = request["size"], request["files"], np.random.default_rng(0)
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)

    def image(work: tuple[int, float, float, float, float, float]) -> Any:
        i, area, ratio, x, y, flip = work
        width, height = min(1, (area * ratio) ** 0.5), min(1, (area / ratio) ** 0.5)
        crop = f"crop=iw*{width:.4f}:ih*{height:.4f}:(iw-ow)*{x:.4f}:(ih-oh)*{y:.4f},scale={size}:{size}"
        filters = f"{crop}{',hflip' * (flip < 0.5)},format=pix_fmts=rgb24"
        return spdl.io.decode_packets(spdl.io.demux_image(files[i % len(files)]), filter_desc=filters)

    def batch(frames: list[Any]) -> tuple[torch.Tensor]:
        pixels = torch.from_numpy(spdl.io.to_numpy(spdl.io.convert_frames(frames)))
        return ((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std,)

    class Epochs:
        def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
            n = request["n"]
            draws = [rng.permutation(n), rng.uniform(0.08, 1, n), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), n))]
            work = list(zip(*(column.tolist() for column in (*draws, *rng.random((3, n)))), strict=True))
            built = (
                PipelineBuilder()
                .add_source(work)
                .pipe(image, concurrency=request["workers"])
                .aggregate(request["batch"])
                .pipe(batch)
                .add_sink(3)
                .build(num_threads=request["workers"])
            )
            with built.auto_stop():
                yield from built

    return Epochs()


MAKERS = {"dualfast": dualfast_side, "ffcv": ffcv_side, "pillow": pillow_side, "spdl": spdl_side}


def bytes_read() -> int:
    return int(re.findall(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[0])


def memory_now() -> int:
    """Resident bytes; resets the peak."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak()


def memory_peak() -> int:
    """Peak bytes, including worker processes, where shared memory counts once per process."""
    pids = ["self", *(p for task in Path("/proc/self/task").glob("*/children") for p in task.read_text().split())]
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return 1024 * sum(int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) for text in status)


def forget(path: str) -> None:
    """Drops a file from the page cache. RuntimeError when it stays, because another process has mapped it."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    if cached(path) > 1 << 20:
        raise RuntimeError(f"{path} stays in memory: another process has mapped it")


def cached(path: str) -> int:
    """Bytes of a file in the page cache."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as view:
        blocks = (ctypes.c_ubyte * -(-len(view) // 4096))()
        address = ctypes.c_void_p(np.frombuffer(view, np.uint8).ctypes.data)
        ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(view)), blocks)
        return int((np.frombuffer(blocks, np.uint8) & 1).sum()) * 4096


def serve(side: str, request: dict[str, Any]) -> None:
    """Answers each line of stdin: begin (make the loader), epoch, or switch (to another subset)."""
    if side == "dualfast":  # imports are not timed
        import dualfast.loading.loader  # noqa: F401
    elif side == "ffcv":
        import ffcv.loader  # noqa: F401
    make, loader, rng = MAKERS[side], None, np.random.default_rng(0)
    for line in sys.stdin:
        before, memory, extra = bytes_read(), memory_now(), {}
        start = time.perf_counter()
        if line == "begin\n":
            loader = make(request)
            extra = {"construct_bytes": memory_peak() - memory}
        elif line == "epoch\n":
            images = held = 0
            for batch in loader:
                if not images:
                    extra |= {"first_batch_s": time.perf_counter() - start, "first_batch": len(batch[0])}
                images += len(batch[0])
                if request.get("os_cache") is False and side == "dualfast":
                    held = max(held, cached(request["path"]))
            extra |= {"images": images, "held_bytes": held}
        elif line == "switch\n":
            ids = np.sort(rng.choice(request["n"], request["n"] // 10, replace=False))
            np.save(f"{request['path']}.ids.npy", ids)
            start = time.perf_counter()
            if side == "dualfast":
                loader.set_indices(ids)
            else:
                loader = make(request | {"indices": f"{request['path']}.ids.npy"})
            extra = {"set_indices_s": time.perf_counter() - start}
            next(iter(loader))
        answer = {"s": time.perf_counter() - start, "read": bytes_read() - before, **extra}
        print(json.dumps(answer | {"peak_bytes": memory_peak()}), flush=True)


class Side:
    """One side's process. Answers are None after it has failed or taken too long."""

    def __init__(self, name: str, request: dict[str, Any]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        command = [sys.executable, __file__, "--side", name, json.dumps(request)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.log, text=True)

    def ask(self, what: str) -> dict[str, Any] | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.poll() is None:
            self.process.stdin.write(what + "\n")
            self.process.stdin.flush()
            if select.select([self.process.stdout], [], [], LIMIT)[0]:
                line = self.process.stdout.readline()
                if line:
                    return dict(json.loads(line))
            self.process.kill()
            self.process.wait()
            self.log.seek(0)
            print(f"{self.name} gave no answer to {what}:\n{self.log.read()[-1500:]}", file=sys.stderr)
        return None

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


# ---- the files ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where the files are and how much is measured. Every set repeats the original images."""

    folder: Path
    originals: list[Path]
    workers: int
    repeats: int
    quick: bool

    def photographs(self, n: int, **options: Any) -> dict[str, Any]:
        """The task of every side for n images written with beton.write's options; writes the file if it is missing."""
        from dualfast.data import beton, sources

        n = n // 16 if self.quick else n
        name = "-".join(["photographs", str(n), *(f"{value}" for value in options.values())])
        path, once = self.folder / f"{name}.beton", self.folder / f"{name}-once.beton"
        if not path.exists():
            labels = np.arange(len(self.originals))
            read = partial(map, Path.read_bytes, self.originals)
            source = sources.Source(
                kind="files", location="originals", labels=labels, class_names=None, items=read, describe=str
            )
            beton.write(source, once, progress=False, **options)
            stored = beton.open_beton(once)
            each = [stored.payload(i) if stored.mode[i] == beton.JPEG else stored.image(i) for i in range(len(labels))]
            of = np.arange(n) * len(each) // n  # sorted by class, as data sets are
            source = sources.Source(
                kind="files",
                location="originals",
                labels=labels[of],
                class_names=None,
                items=lambda: (each[i] for i in of),
                describe=str,
            )
            beton.write(source, path, progress=False, mode=options.get("mode", "jpeg"), page_size=1 << 23)
            for leftover in self.folder.glob(f"{once.name}*"):
                leftover.unlink()
        files = [str(file) for file in self.originals]
        return {"path": str(path), "files": files, "batch": 64, "size": 224, "n": n, "workers": self.workers}

    def small(self) -> dict[str, Any]:
        from dualfast import write

        n = 10_000 if self.quick else 50_000
        path, pixels = self.folder / f"small-{n}.beton", self.folder / f"small-{n}.npy"
        if not path.exists():
            images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
            np.save(pixels, images)
            write((images, np.arange(n) % 10), path, progress=False)
        return {"path": str(path), "pixels": str(pixels), "batch": 512, "size": 32, "n": n, "workers": self.workers}

    def many(self) -> dict[str, Any]:
        n, path = 1_280_000, self.folder / "many.beton"
        if not path.exists():
            synthetic(path, n)
        return {"path": str(path), "batch": 512, "size": 32, "n": n, "workers": self.workers}

    def kept(self, ids: NDArray[np.int64], name: str) -> str:
        path = self.folder / f"{name}.npy"
        np.save(path, ids)
        return str(path)


def synthetic(path: Path, n: int) -> None:
    """Writes n raw images of 8 x 8 px whose pixels are a hole in a sparse file."""
    from dualfast.data.beton import format as form

    size, page = 192, 1 << 23
    rows = np.zeros(n, np.dtype([("", form.IMAGE), ("", "<i8")], align=True))
    fields = np.zeros(2, form.DESCRIPTOR)
    for field, name, kind in zip(fields, (b"image", b"label"), (form.IMAGE_TYPE, form.INT_TYPE), strict=True):
        field["type_id"], field["name"][: len(name)] = kind, np.frombuffer(name, np.uint8)
    start = -(-(form.HEADER.itemsize + fields.nbytes + rows.nbytes) // page) * page
    number = np.arange(n)
    ptr = start + number // (page // size) * page + number % (page // size) * size
    image = rows["f0"]
    image["mode"], image["width"], image["height"], image["data_ptr"] = form.RAW, 8, 8, ptr
    rows["f1"] = number % 1000
    table = np.zeros(n, form.ALLOCATION)
    table["sample_id"], table["ptr"], table["size"] = number, ptr, size
    end = int(ptr[-1]) + size
    with open(path, "wb") as file:
        file.write(np.array([(form.VERSION, 2, page, n, end)], form.HEADER).tobytes())
        file.write(fields.tobytes() + rows.tobytes())
        file.seek(end)
        file.write(table.tobytes())


# ---- the cases ------------------------------------------------------------------------------------------------------


def summary(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q1": float(low), "q3": float(high), "repeats": len(values)}


MISSING = {"missing": "no answer in time, or an error"}


def warm(bench: Bench, request: dict[str, Any], names: str, share: float = 1.0) -> Iterator[dict[str, Any]]:
    """Epochs of all sides, taking turns, after a warm-up epoch. share < 1: of a random subset."""
    if share < 1:
        n = int(share * request["n"])
        ids = np.sort(np.random.default_rng(1).choice(request["n"], n, replace=False))
        request = request | {"n": n, "indices": bench.kept(ids, f"warm-{share}")}
    sides = [Side(name, request) for name in names.split()]
    begun = {side.name: side.ask("begin") for side in sides}
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    last: dict[str, dict[str, Any]] = {}
    first: dict[str, float] = {}
    for _ in range(bench.repeats + 1):
        for side in sides:
            answer = side.ask("epoch")
            if answer and side.name not in first:
                first[side.name] = answer["first_batch_s"]
            elif answer:
                rates[side.name].append(answer["images"] / answer["s"])
                last[side.name] = answer
    for side in sides:
        side.__exit__()
        start = begun[side.name]
        if not rates[side.name] or start is None:
            yield {"side": side.name} | MISSING
            continue
        row = {"side": side.name, "images": last[side.name]["images"], "images_per_s": summary(rates[side.name])}
        if side.name != "dualfast" and rates["dualfast"]:
            ratios = [a / b for a, b in zip(rates["dualfast"], rates[side.name], strict=False)]
            row["dualfast_is_faster_by"] = summary(ratios)
        yield row | {
            "begin_to_first_batch_s": start["s"] + first[side.name],
            "peak_bytes": last[side.name]["peak_bytes"],
        }


def cold(bench: Bench, request: dict[str, Any], share: float, clustered: bool = False) -> Iterator[dict[str, Any]]:
    """The first epoch over a subset from a cold disk: a random one or, clustered, contiguous parts of the file."""
    from dualfast import Loader, PageRandom, compact
    from dualfast.data import beton

    n, source = request["n"], beton.open_beton(request["path"])
    count = int(share * n)
    ids = np.sort(np.random.default_rng(1).choice(n, count, replace=False))
    if clustered:
        ids = np.flatnonzero(np.arange(n) % (n // 4) < count // 4)
    stem = f"{Path(request['path']).stem}-{share}{'-clustered' * clustered}"
    if share < 1:
        request = request | {"indices": bench.kept(ids, stem)}
    needed = int(source.size[ids].sum())
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("dualfast", "random", request),
        ("dualfast", "sequential", request | {"order": "sequential"}),
        ("dualfast", "page_random", request | {"order": "page_random", "os_cache": False}),
        ("ffcv", "random", request),
    ]
    if share < 1:
        small = bench.folder / f"{stem}.beton"
        compact(request["path"], ids, small, progress=False)
        of_all = {"path": str(small), "indices": None}
        cases.insert(3, ("dualfast", "random, compacted", request | of_all))
        cases.append(("ffcv", "random, os_cache=False", request | {"os_cache": False}))
    for name, kind, wanted in cases:
        row: dict[str, Any] = {"side": f"{name}, {kind}", "needed_bytes": needed}
        if name == "dualfast":
            order = PageRandom(BUDGET) if "page" in kind else "sequential" if kind == "sequential" else "random"
            with Loader(wanted["path"], 64, order=order, indices=wanted.get("indices")) as loader:
                plan = loader.plan()
            row |= {"planned_bytes": plan.read, "planned_memory_bytes": plan.memory, "spread": plan.spread}
        forget(wanted["path"])
        with Side(name, wanted) as side:
            begun, answer = side.ask("begin"), side.ask("epoch")
        if begun is None or answer is None:
            yield row | MISSING
            continue
        read, rest = begun["read"] + answer["read"], answer["s"] - answer["first_batch_s"]
        row |= {"read_bytes": read, "amplification": read / needed, "peak_bytes": answer["peak_bytes"]}
        row |= {"first_batch_s": answer["first_batch_s"]}
        row |= {"images_per_s_after_it": (answer["images"] - answer["first_batch"]) / rest}
        if answer["held_bytes"]:
            row |= {"budget_bytes": BUDGET, "held_bytes": answer["held_bytes"]}
        yield row


def switching(bench: Bench, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Seconds to make a loader and to change its subset, with and without the first batch; peak memory. FFCV needs a
    new loader for another subset."""
    for name, repeats in (("dualfast", 9), ("ffcv", 3)):
        with Side(name, request) as side:
            first = side.ask("begin")
            answers = [answer for _ in range(repeats) if (answer := side.ask("switch"))]
        if first is None or len(answers) < repeats:
            yield {"side": name} | MISSING
            continue
        yield {
            "side": name,
            "construct_s": first["s"],
            "construct_bytes": first["construct_bytes"],
            "set_indices_s": summary([answer["set_indices_s"] for answer in answers]),
            "set_indices_and_batch_s": summary([answer["s"] for answer in answers]),
        }


FORMATS: dict[str, tuple[dict[str, Any], str]] = {
    "originals": ({}, "dualfast ffcv pillow spdl"),
    "max side 512, JPEG": ({"max_size": 512}, "dualfast ffcv"),
    "max side 400, JPEG": ({"max_size": 400}, "dualfast ffcv"),
    "max side 256, JPEG": ({"max_size": 256}, "dualfast ffcv pillow"),
    "max side 512, raw": ({"max_size": 512, "mode": "raw"}, "dualfast ffcv"),
    "max side 400, raw": ({"max_size": 400, "mode": "raw"}, "dualfast ffcv"),
    "max side 256, raw": ({"max_size": 256, "mode": "raw"}, "dualfast ffcv pillow"),
}
WARM, COLD = 2048, 24_576  # images


def cases() -> dict[str, Callable[[Bench], Iterator[dict[str, Any]]]]:
    by_name: dict[str, Callable[[Bench], Iterator[dict[str, Any]]]] = {
        "warm, 32 px, raw": lambda b: warm(b, b.small(), "dualfast ffcv pillow"),
        "subsets, 1,280,000 samples": lambda b: switching(b, b.many()),
    }
    for form, (options, names) in FORMATS.items():
        by_name[f"warm, {form}"] = lambda b, o=options, s=names: warm(b, b.photographs(WARM, **o), s)
    for form in ("originals", "max side 256, raw"):
        options = FORMATS[form][0]
        for share in (0.1, 0.3):
            by_name[f"warm, {share:.0%} of {form}"] = lambda b, o=options, p=share: warm(
                b, b.photographs(COLD, **o), "dualfast ffcv", p
            )
        for share in (0.1, 0.3, 1.0):
            by_name[f"cold, {share:.0%} of {form}"] = lambda b, o=options, p=share: cold(b, b.photographs(COLD, **o), p)
        by_name[f"cold, 10% of {form}, clustered"] = lambda b, o=options: cold(b, b.photographs(COLD, **o), 0.1, True)
    return by_name


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        serve(sys.argv[2], json.loads(sys.argv[3]))
        return
    from _harness import origin, path_of, save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", default="", help="a regular expression: run only the cases that match it")
    parser.add_argument("--again", action="store_true", help="measure again what the results have")
    parser.add_argument("--prepare", action="store_true", help="make the files and measure nothing")
    parser.add_argument("--quick", action="store_true", help="use small sets and save nothing")
    parser.add_argument("--images", type=Path, help="a folder of class folders of JPEGs", required=True)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "bench_loader", help="where the files are kept")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    originals = sorted(args.images.glob("*/*.*"))
    bench = Bench(args.folder, originals, args.workers, args.repeats, args.quick)
    chosen = {name: run for name, run in cases().items() if re.search(args.case, name)}
    if args.prepare:
        bench.small(), bench.many()
        for form, (options, _) in FORMATS.items():
            bench.photographs(WARM, **options)
            if form in ("originals", "max side 256, raw"):
                bench.photographs(COLD, **options)
        return
    packages = ["ffcv", "numba", "pillow", *(["spdl-io"] if importlib.util.find_spec("spdl") else [])]
    about = origin(tuple(packages)) | {"workers": args.workers}
    path = path_of("loader", about)

    def rows() -> list[dict[str, Any]]:
        return json.loads(path.read_text())["rows"] if path.exists() and not args.quick else []

    for name, run in chosen.items():
        if not args.again and any(row["case"] == name for row in rows()):
            continue
        results = [{"case": name, **row, "commit": about["commit"], "load": os.getloadavg()[0]} for row in run(bench)]
        for row in results:
            print(json.dumps(row), flush=True)
        if not args.quick:
            results += [row for row in rows() if row["case"] != name]
            save("loader", sorted(results, key=lambda row: list(cases()).index(row["case"])), about)


if __name__ == "__main__":
    main()

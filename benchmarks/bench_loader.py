"""dualfast.Loader against ffcv.loader.Loader and torch's DataLoader with Pillow, each in its own process, in turn.

--quick for small sets, --images for a folder of classes of original JPEGs. A side that hangs is ended and counts as
missing."""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES = ("dualfast", "ffcv", "pillow")
LIMIT = 120  # seconds a side may take for one answer


# ---- the sides, each in a process of its own ------------------------------------------------------------------------


def dualfast_side(asked: dict[str, Any]) -> Any:
    from dualfast import Loader

    indices, order = asked.get("indices"), asked.get("order", "random")
    return Loader(
        asked["path"],
        asked["batch"],
        num_workers=asked["workers"],
        indices=indices,
        order=order,
        image_size=asked["size"],
        augment="crop+flip" if asked["size"] <= 64 else "rrc",
        os_cache=asked.get("os_cache", True),
    )


def ffcv_side(asked: dict[str, Any]) -> Any:
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder, SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, RandomTranslate, ToTensor, ToTorchImage

    size = asked["size"]
    cut = [SimpleRGBImageDecoder(), RandomTranslate(padding=4)]
    if size > 64:
        cut = [RandomResizedCropRGBImageDecoder((size, size))]
    normalise = NormalizeImage(np.array(MEAN) * 255, np.array(STD) * 255, np.float32)
    pipelines = {
        "image": [*cut, RandomHorizontalFlip(), normalise, ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor()],
    }
    return Loader(
        asked["path"],
        asked["batch"],
        num_workers=asked["workers"],
        indices=asked.get("indices"),
        order=OrderOption.RANDOM,
        pipelines=pipelines,
        drop_last=False,
        os_cache=asked.get("os_cache", True),
        seed=0,
    )


def pillow_side(asked: dict[str, Any]) -> Any:
    """Images as they come before they are written: files, or an array of pixels."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    torch.manual_seed(0)
    size, mean, std = asked["size"], torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    pixels = np.load(asked["pixels"], mmap_mode="r") if asked.get("pixels") else None
    files = asked.get("files")

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
            return len(files) if pixels is None else len(pixels)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int, int]:
            if pixels is None:
                with Image.open(files[i]) as image:
                    array = np.asarray(random_resized_crop(image.convert("RGB")))
            else:
                padded = np.pad(pixels[i], ((4, 4), (4, 4), (0, 0)))
                top, left = torch.randint(9, (2,)).tolist()
                array = padded[top : top + size, left : left + size]
            if torch.rand(()) < 0.5:
                array = array[:, ::-1]
            image_tensor = torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)
            return (image_tensor.float() / 255 - mean) / std, 0, i

    return DataLoader(Images(), asked["batch"], shuffle=True, num_workers=asked["workers"], persistent_workers=True)


def bytes_read() -> int:
    return int(re.findall(r"read_bytes: (\d+)", Path("/proc/self/io").read_text())[0])


def memory_now() -> int:
    """Resident bytes; the peak is counted from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak()


def memory_peak() -> int:
    return 1024 * int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def forget(path: str) -> None:
    """Drops a file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def serve(side: str, asked: dict[str, Any]) -> None:
    """Answers each line of stdin: begin (make the loader, take a batch), epoch, or switch to another subset."""
    make = {"dualfast": dualfast_side, "ffcv": ffcv_side, "pillow": pillow_side}[side]
    if side == "dualfast":  # imports are not what is timed
        import dualfast.loader  # noqa: F401
    elif side == "ffcv":
        import ffcv.loader  # noqa: F401
    loader: Any = None
    rng = np.random.default_rng(0)
    for line in sys.stdin:
        before, memory = bytes_read(), memory_now()
        start, images, extra = time.perf_counter(), 0, {}
        if line == "begin\n":
            loader = make(asked)
            extra = {
                "construct_s": time.perf_counter() - start,
                "construct_bytes": memory_peak() - memory,
            }
            next(iter(loader))
        elif line == "epoch\n":
            for batch in loader:
                images += len(batch[0])
        elif line == "switch\n":
            ids = np.sort(rng.choice(asked["n"], asked["n"] // 10, replace=False))
            start = time.perf_counter()
            if side == "dualfast":
                loader.set_indices(ids)
                extra = {"set_indices_s": time.perf_counter() - start}
            else:
                loader = make(asked | {"indices": ids})
                extra = {"set_indices_s": time.perf_counter() - start}
            next(iter(loader))
        answer = {"s": time.perf_counter() - start, "images": images, "read": bytes_read() - before, **extra}
        answer["peak_bytes"] = memory_peak()
        print(json.dumps(answer), flush=True)


class Side:
    """One side's process. Answers are None once it has failed or taken too long."""

    def __init__(self, name: str, asked: dict[str, Any]) -> None:
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        command = [sys.executable, __file__, "--side", name, json.dumps(asked)]
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


# ---- the cases ------------------------------------------------------------------------------------------------------


def summary(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"median": float(middle), "q1": float(low), "q3": float(high), "repeats": len(values)}


def throughput(case: str, asked: dict[str, Any], names: tuple[str, ...], repeats: int) -> Iterator[dict[str, Any]]:
    """Warm epochs of all sides in turn, after one that is not counted."""
    sides = [Side(name, asked) for name in names]
    begun = {side.name: side.ask("begin") for side in sides}
    rates: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, int] = {}
    for turn in range(repeats + 1):
        for side in sides:
            answer = side.ask("epoch")
            if answer and turn:
                rates[side.name].append(answer["images"] / answer["s"])
                peaks[side.name] = answer["peak_bytes"]
    for side in sides:
        side.__exit__()
        first = begun[side.name]
        if not rates[side.name] or first is None:
            yield {"case": case, "side": side.name, "missing": "no answer in time, or an error"}
            continue
        row = {"case": case, "side": side.name, "images_per_s": summary(rates[side.name])}
        if side.name != "dualfast" and rates["dualfast"]:
            ratios = [a / b for a, b in zip(rates["dualfast"], rates[side.name], strict=False)]
            row["dualfast_is_faster_by"] = summary(ratios)
        yield row | {"begin_to_first_batch_s": first["s"], "peak_bytes": peaks[side.name]}


def cold(path: str, asked: dict[str, Any], share: float, folder: Path, quick: bool) -> Iterator[dict[str, Any]]:
    """Bytes that the first epoch over a random subset reads from a cold disk."""
    from dualfast import beton, compact

    source = beton.open_beton(path)
    ids = np.sort(np.random.default_rng(1).choice(source.n_samples, int(share * source.n_samples), replace=False))
    needed = int(source.size[ids].sum())
    np.save(folder / "kept.npy", ids)
    compact(path, ids, folder / "compact.beton", progress=False)
    cases = [
        ("dualfast", "random", asked | {"indices": str(folder / "kept.npy")}),
        ("dualfast", "page_random", asked | {"indices": str(folder / "kept.npy"), "order": "page_random"}),
        ("dualfast", "random, compacted", asked | {"path": str(folder / "compact.beton")}),
        ("ffcv", "random", asked | {"indices": ids.tolist()}),
        ("ffcv", "random, os_cache=False", asked | {"indices": ids.tolist(), "os_cache": False}),
    ]
    for name, kind, wanted in cases[:3] if quick else cases:  # each start of FFCV compiles for many seconds
        forget(wanted["path"])
        with Side(name, wanted) as side:
            answers = [side.ask("begin"), side.ask("epoch")]
        row = {"case": f"cold {share:.0%}", "side": f"{name}, {kind}", "needed_bytes": needed}
        if all(answers):
            read = sum(answer["read"] for answer in answers if answer)
            yield row | {"read_bytes": read, "amplification": read / needed}
        else:
            yield row | {"missing": "no answer in time, or an error"}


def switching(path: str, asked: dict[str, Any], case: str, repeats: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Seconds to make a loader, and to change its subset, with and without the first batch; peak memory. FFCV's way to
    another subset is a new loader, so that no repeats leave its first one."""
    for name in ("dualfast", "ffcv"):
        with Side(name, asked | {"path": path}) as side:
            first = side.ask("begin")
            answers = [answer for _ in range(repeats[name]) if (answer := side.ask("switch"))]
        if first is None or len(answers) < repeats[name]:
            yield {"case": case, "side": name, "missing": "no answer in time, or an error"}
            continue
        row = {
            "case": case,
            "side": name,
            "construct_s": first["construct_s"],
            "construct_bytes": first["construct_bytes"],
            "first_batch_s": first["s"],
        }
        if answers:
            row["set_indices_s"] = summary([answer["set_indices_s"] for answer in answers])
            row["set_indices_and_batch_s"] = summary([answer["s"] for answer in answers])
        yield row


def synthetic(path: Path, n: int) -> None:
    """n raw images of 8 x 8 px whose pixels are a hole in the file."""
    from dualfast import beton_file as form

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


def run(asked: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    from dualfast import write

    shared = {"workers": asked.workers}
    small, large = folder / "small.beton", folder / "large.beton"
    n = 20_000 if asked.quick else 50_000
    pixels = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "pixels.npy", pixels)
    write((pixels, np.arange(n) % 10), small, progress=False)
    cifar = shared | {"path": str(small), "pixels": str(folder / "pixels.npy"), "batch": 512, "size": 32, "n": n}
    repeats = asked.repeats or (3 if asked.quick else 7)
    yield from throughput(f"{n:,} of 32 px, raw", cifar, SIDES, repeats)
    if asked.images is not None:
        originals = sorted(asked.images.glob("*/*.*"))
        times = max(1, (384 if asked.quick else 4096) // len(originals))
        for label, file in enumerate(originals):
            (folder / "set" / f"{label:04}").mkdir(parents=True)
            for copy in range(times):
                shutil.copyfile(file, folder / "set" / f"{label:04}" / f"{copy}{file.suffix}")
        photographs = shared | {"batch": 64, "size": 224, "n": times * len(originals), "path": str(large)}
        photographs["files"] = [str(file) for file in sorted((folder / "set").glob("*/*"))]
        for label, options in {
            "originals": {},
            "max side 400, JPEG": {"max_size": 400},
            "max side 256, JPEG": {"max_size": 256},
            "max side 256, raw": {"max_size": 256, "mode": "raw"},
        }.items():
            if asked.quick and label != "originals":
                break
            write(folder / "set", large, progress=False, **options)
            yield from throughput(f"{photographs['n']:,} {label}, crop to 224 px", photographs, SIDES, repeats)
            if label == "originals":
                for share in (0.1,) if asked.quick else (0.1, 0.3):
                    yield from cold(str(large), photographs, share, folder, asked.quick)
    synthetic(folder / "many.beton", 1_280_000)
    turns = {"dualfast": 5, "ffcv": 0 if asked.quick else 3}
    many = shared | {"batch": 512, "size": 32, "n": 1_280_000}
    yield from switching(str(folder / "many.beton"), many, "1,280,000 samples", turns)


def main() -> None:
    if sys.argv[1:2] == ["--side"]:
        serve(sys.argv[2], json.loads(sys.argv[3]))
        return
    from _harness import origin, save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sets, in 90 seconds on an idle machine")
    parser.add_argument("--images", type=Path, help="a folder of class folders of JPEGs")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the files go for the time being")
    parser.add_argument("--no-save", action="store_true")
    asked = parser.parse_args()
    about, rows = origin(("ffcv", "numba", "pillow")) | {"quick": asked.quick, "workers": asked.workers}, []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for row in run(asked, Path(folder)):
            rows.append(row)
            print(json.dumps(row), flush=True)
    about["load_after"] = os.getloadavg()[0]
    if not asked.no_save:
        print(save("loader", rows, about))


if __name__ == "__main__":
    main()

"""Changed copies of small valid files, given to what reads them: python tests/fuzz/readers.py [TARGET ...] --seconds 60

An input is a function of (target, number): `readers.py TARGET --only NUMBER` runs one again, in this process. Wrong are
a crash, an exception of another kind than ALLOWED, more than SECONDS of processor time, and more than LIMIT bytes."""

from __future__ import annotations

import argparse
import math
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import seeds
import torch

from dualfast import Loader, Scores
from dualfast.config import Reading
from dualfast.data import index_list, sources
from dualfast.data.beton import Beton
from dualfast.errors import DualfastError
from dualfast.runs.rundir import RunDir
from dualfast.selection.shards import shards_of
from dualfast.storage import npy
from dualfast.training import checkpoint_files

ALLOWED = (ValueError, TypeError, OSError, DualfastError)
SECONDS = 5.0
LIMIT = 1 << 30  # bytes; a MemoryError means that a reader asked for more
Files = dict[str, bytes]
EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    1 << 20,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 40,
    (1 << 63) - 1,
    (1 << 64) - 1,
)
TOKENS = (b"[" * 30, b"{" * 30, b"&a [*a]", b"*a", b"!!python/object:os.system", b"null", b"NaN", b"-1", b"1e999")
TOKENS += (b"99999999999999999999", b'""', b"[]", b"{}", b"true", b"'", b'"', b": ", b"\n", b"\0", b"\xff", b"../../x")


class Target(NamedTuple):
    make: Callable[[Path], None]
    """Writes the seed."""
    changed: tuple[str, ...]
    """The files of it that are changed, one or more at a time."""
    read: Callable[[Path], object]
    repair: Callable[[bytes], bytes] = bytes
    """Makes the checksum of a changed file right."""


# ---- the readers ----------------------------------------------------------------------------------------------------


def read_scores(folder: Path) -> None:
    path = folder / "scores.parquet"
    for read in (Scores.load, Scores.about, lambda path: shards_of([str(path)])):
        with suppress(*ALLOWED):
            read(path)
    for shard in shards_of([str(path)]):
        list(shard.pieces(["dual"]))


def make_list(folder: Path) -> None:
    index_list.save_keep(folder / "keep.npy", np.arange(0, 40, 3), n_samples=40, method="dual", prune_ratio=0.5)
    np.save(folder / "mask.npy", np.arange(40) % 2 == 0)


def read_list(folder: Path) -> None:
    for read in (lambda: npy.load(folder / "mask.npy"), lambda: index_list.read_sidecar(folder / "keep.npy")):
        with suppress(*ALLOWED):
            read()
    with suppress(*ALLOWED):
        index_list.as_indices(folder / "mask.npy", 40)
    index_list.load_keep(folder / "keep.npy", n_samples=40)


def make_run(folder: Path) -> None:
    (folder / "config.yaml").write_text(seeds.CONFIG)
    (folder / "metrics.jsonl").write_text(seeds.METRICS)


def read_run(folder: Path) -> None:
    run = RunDir(folder)
    with suppress(*ALLOWED):
        run.requested()
    with suppress(*ALLOWED):
        run.scored_seeds()
    run.records("trained")


def with_right_crc(content: bytes) -> bytes:
    body = content[: -len(checkpoint_files.MARK) - 4]
    return body + checkpoint_files.MARK + struct.pack("<I", zlib.crc32(body))


def read_beton(folder: Path) -> None:
    beton = Beton(folder / "seed.beton")
    assert str(beton)
    for row in range(min(beton.n_samples, 2 * seeds.N)):
        with suppress(*ALLOWED):
            beton.image(row)
    beton.close()
    with Loader(folder / "seed.beton", 5, image_size=8, dtype=torch.uint8, num_workers=1, order="sequential") as loader:
        assert loader.labels.shape == (loader.n_samples,)
        list(loader)


def read_sidecars(folder: Path) -> None:
    beton = Beton(folder / "named.beton")
    for read in (lambda: beton.class_names, lambda: beton.sums):
        with suppress(*ALLOWED):
            read()
    names = beton.names
    if names is not None:
        names.column.to_pylist()
        assert len(names.files) >= 0
        names.take(np.array([0, seeds.N - 1]))


def read_source(path: Path, reading: Reading | None = None) -> None:
    """Both parts of a data set, with all their images."""
    for part in sources.splits(str(path), None, reading.labels if reading else None):
        if part is not None:
            source = sources.open_source(part, reading)
            for payload in source.items():
                with suppress(*ALLOWED):
                    if isinstance(payload, Exception):
                        raise payload
                    sources.decode(payload)


def read_tables(folder: Path) -> None:
    for name in TABLES:
        with suppress(*ALLOWED):
            read_source(folder, Reading(labels=str(folder / name)))


def read_archives(folder: Path) -> None:
    for name in ARCHIVES:
        with suppress(*ALLOWED):
            read_source(folder / name)


TABLES = ("labels.csv", "labels.txt", "labels.jsonl", "labels.parquet")
ARCHIVES = ("photos.zip", "photos.tar", "photos.tar.gz", "photos.tar.xz", "photos.tar.bz2")
ARCHIVES += ("shard-0.tar", "classes.tar", "arrays.npz", "images.parquet")
BATCHES = ("data_batch_1", "test_batch", "batches.meta")
IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")

TARGETS = {
    "tables": Target(seeds.tables, TABLES, read_tables),
    "archives": Target(seeds.archives, ARCHIVES, read_archives),
    "batches": Target(seeds.batches, BATCHES, read_source),
    "idx": Target(seeds.idx, IDX, read_source),
    "scores": Target(lambda folder: seeds.scores(folder / "scores.parquet", False), ("scores.parquet",), read_scores),
    "scores-checked": Target(
        lambda folder: seeds.scores(folder / "scores.parquet", True), ("scores.parquet",), read_scores
    ),
    "lists": Target(make_list, ("keep.npy", "keep.json", "mask.npy"), read_list),
    "run": Target(make_run, ("config.yaml", "metrics.jsonl"), read_run),
    "checkpoint": Target(
        lambda folder: seeds.checkpoint(folder / "0000000001.pt"),
        ("0000000001.pt",),
        lambda folder: checkpoint_files.read(folder / "0000000001.pt"),
        with_right_crc,
    ),
    "beton": Target(lambda folder: seeds.beton(folder / "seed.beton", False), ("seed.beton",), read_beton),
    "fields": Target(lambda folder: seeds.beton(folder / "seed.beton", True), ("seed.beton",), read_beton),
    "sidecars": Target(
        lambda folder: seeds.beton_with_sidecars(folder / "named.beton"),
        ("named.beton.names.parquet", "named.beton.json", "named.beton.crc"),
        read_sidecars,
    ),
}

# ---- changing files -------------------------------------------------------------------------------------------------


def changed(files: Files, target: str, number: int) -> Files:
    """The input of this number."""
    random = np.random.default_rng([number, zlib.crc32(target.encode())])
    names = list(TARGETS[target].changed)
    picked = random.permutation(names)[: 1 + int(random.integers(len(names)) * random.integers(2))]
    out = dict(files)
    for name in picked.tolist():
        data = bytearray(out[name])
        for _ in range(int(random.choice([1, 1, 1, 2, 4, 16]))):
            change(data, random)
        out[name] = TARGETS[target].repair(bytes(data))
    return out


def change(data: bytearray, random: np.random.Generator) -> None:
    """One change, in place. Tables stand at the ends of files, so that these are changed more often."""
    size = len(data)
    if not size:
        data += b"\0"
        return
    near = min(size, 2048)
    at = int(random.choice([random.integers(size), random.integers(near), size - 1 - random.integers(near)]))
    length = int(random.choice([1, 2, 4, 8, random.integers(1, 64)]))
    match int(random.integers(8)):
        case 0:
            data[at] ^= 1 << int(random.integers(8))
        case 1:
            data[at] = int(random.integers(256))
        case 2 | 3:
            value = int(random.choice(np.array(EXTREMES, np.uint64))) + int(random.integers(-1, 2))
            width = int(random.choice([1, 2, 4, 8]))
            data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
        case 4:
            data[at:at] = TOKENS[int(random.integers(len(TOKENS)))]
        case 5:
            del data[at : at + length]
        case 6:
            other = int(random.integers(size))
            data[at : at + length] = data[other : other + length]
        case 7:
            if random.integers(4) == 0:
                del data[at:]
            else:
                data[at:at] = data[at : at + length] * int(random.integers(1, 40))


# ---- running --------------------------------------------------------------------------------------------------------


def attempt(target: str, files: Files, number: int, folder: Path) -> str | None:
    """Reads one input; what is wrong with the outcome, None: nothing."""
    for name, data in changed(files, target, number).items():
        (folder / name).write_bytes(data)
    try:
        TARGETS[target].read(folder)
    except ALLOWED:
        pass
    except MemoryError:
        return f"asked for more than {LIMIT:,} bytes\n{traceback.format_exc()}"
    except BaseException:
        return traceback.format_exc()
    return None


def seed_files(target: str) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        TARGETS[target].make(Path(folder))
        TARGETS[target].read(Path(folder))  # valid
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def work(target: str, files: Files, first: int, until: float, board: mmap.mmap, folder: Path) -> None:
    """Attempts from number `first` on, noting on `board` the number and the processor time at its start."""
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + LIMIT, size + LIMIT))
    number = first
    while time.monotonic() < until:
        board[:16] = struct.pack("<Qd", number, time.process_time())
        if wrong := attempt(target, files, number, folder):
            print(f"{target} {number}: {wrong}", flush=True)
            os._exit(1)
        number += 1
    board[:16] = struct.pack("<Qd", number, math.inf)  # it ends: no input is slow
    os._exit(0)


def ended(pid: int, board: mmap.mmap) -> str | None:
    """Waits for a worker; what was wrong, None: nothing."""
    before, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 0 else "an exception" if code == 1 else f"a crash: {code}"
        time.sleep(0.05)
        number, began = struct.unpack("<Qd", board[:16])
        if number != before:
            before, since = number, time.monotonic()
        with suppress(OSError, IndexError), open(f"/proc/{pid}/stat") as file:
            ticks = sum(map(int, file.read().rpartition(") ")[2].split()[11:13]))
            slow = ticks / os.sysconf("SC_CLK_TCK") - began > SECONDS
            if (slow or time.monotonic() - since > 60) and struct.unpack("<Qd", board[:16])[0] == number:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return f"no end after {SECONDS} s"


def fuzz(target: str, seconds: float, first: int) -> tuple[int, Counter[str]]:
    """How many inputs were read, and the wrong outcomes by kind."""
    files, wrong = seed_files(target), Counter[str]()
    number, until = first, time.monotonic() + seconds
    with mmap.mmap(-1, 16) as board, tempfile.TemporaryDirectory() as home:
        while time.monotonic() < until:
            folder = Path(home, "work")
            folder.mkdir()
            board[:16] = struct.pack("<Qd", number, time.process_time())
            pid = os.fork()
            if pid == 0:
                work(target, files, number, until, board, folder)
            outcome = ended(pid, board)
            number = struct.unpack("<Qd", board[:16])[0]
            if outcome is not None:
                wrong[outcome] += 1
                print(f"{target} {number}: {outcome}", flush=True)
                number += 1
            shutil.rmtree(folder)
    return number - first, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", type=int, help="run this input alone")
    args = parser.parse_args()
    if unknown := set(args.targets) - TARGETS.keys():
        parser.error(f"unknown target {min(unknown)}; give {', '.join(TARGETS)}")
    targets = args.targets or list(TARGETS)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.only is not None:
        with tempfile.TemporaryDirectory() as folder:
            wrong = attempt(targets[0], seed_files(targets[0]), args.only, Path(folder))
        print(wrong or "nothing wrong")
        return int(wrong is not None)
    failed = 0
    for target in targets:
        count, wrong_kinds = fuzz(target, args.seconds / len(targets), args.first)
        failed += wrong_kinds.total()
        print(f"{target}: {count:,} inputs, {wrong_kinds.total()} wrong {dict(wrong_kinds) or ''}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

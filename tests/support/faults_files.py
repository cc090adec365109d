"""Faults of .beton files: damaged bytes, and interrupted writes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults import case, child, content, copied, opened, refused

MADE = [f"made.beton{end}" for end in ("", ".crc", ".json", ".names.parquet")]
"""A .beton and what lies beside it."""

# ---- damaged bytes --------------------------------------------------------------------------------------------------


def _photographs(name: str) -> None:
    """Writes a few JPEGs to `name`."""
    from PIL import Image

    from dualfast import write

    rng = np.random.default_rng(1)
    coarse = [Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)) for _ in range(6)]
    pixels = np.stack([np.asarray(image.resize((24, 20), Image.Resampling.BICUBIC)) for image in coarse])
    write((pixels, np.arange(6) % 2), name, mode="jpeg", rewrite=True, progress=False)


def _cuts(path: str) -> tuple[int, int]:
    """Truncates path further and further: how many cuts were refused, and how many gave the right data."""
    from dualfast.data.beton import Beton

    whole, right = Beton(path), content(path)
    tables = 24 + 2 * 1041 + whole.metadata.nbytes
    padding = np.linspace(tables, whole.data_start, 100).astype(int).tolist()
    lengths = sorted({*range(tables), *padding, *range(whole.data_start, whole.bytes)}, reverse=True)
    refusals = 0
    for at, length in enumerate(lengths):
        os.truncate(path, length)
        try:
            Beton(path)
        except ValueError:
            refusals += 1
        else:
            assert content(path) == right, length
        if at % 200 == 0:
            refused(lambda: opened(path))
    return refusals, len(lengths) - refusals


@case("bytes", "a file cut at any byte", "odd errors, stale images under new labels, segmentation faults")
def _() -> str:
    from dualfast.data.beton import checksums

    copied("cut.beton")
    _photographs("photographs.beton")
    checksums.forget("photographs.beton")
    for name in ("cut.beton", "photographs.beton"):
        refusals, right = _cuts(name)
        assert refusals > 2000
        assert right == 0
    return "ValueError on opening, for every cut"


@case("bytes", "a file whose writer was killed", "segmentation fault, or wrong images")
def _() -> str:
    data = bytearray(Path("set.beton").read_bytes())
    data[:24] = bytes(24)
    Path("unfinished.beton").write_bytes(data)
    return refused(lambda: opened("unfinished.beton"))


@case("bytes", "a file without its allocation table", "segmentation fault, or wrong images")
def _() -> str:
    from dualfast.data.beton import Beton, checksums

    os.truncate("set.beton", Beton("set.beton").table_start)
    checksums.forget("set.beton")
    return refused(lambda: opened())


def _flips(path: str, count: int, seed: int) -> dict[str, int]:
    """Flips one random bit at a time, half of them in the tables, and counts the outcomes."""
    from dualfast import verify
    from dualfast.data.beton import Beton

    whole, right = Beton(path), content(path)
    rng = np.random.default_rng(seed)
    tables, outcomes = 24 + 2 * 1041 + whole.metadata.nbytes, dict.fromkeys(("refused", "right", "pixels", "labels"), 0)
    used = [*range(tables), *range(whole.data_start, whole.bytes)]
    with open(path, "rb+", buffering=0) as file:
        for at, bit in zip(rng.choice(used, count), rng.integers(0, 8, count), strict=True):
            before = os.pread(file.fileno(), 1, at)
            os.pwrite(file.fileno(), bytes([before[0] ^ (1 << int(bit))]), at)
            try:
                got = content(path)
            except (ValueError, RuntimeError):
                outcomes["refused"] += 1
            else:
                wrong = [a for a, b in zip(right, got, strict=False) if a != b]
                labels = [b for _, b in right] != [b for _, b in got]
                outcomes["labels" if labels else "pixels" if wrong else "right"] += 1
                inside = whole.data_start <= at < whole.table_start
                assert inside or not wrong or labels, at
                assert len(wrong) <= 1 or labels, "one byte lies in one image"
            if whole.sums is not None:
                refused(lambda: verify(path, progress=False))
            os.pwrite(file.fileno(), before, at)
    return outcomes


@case("bytes", "a random bit flipped, with checksums (1,000 times)")
def _() -> str:
    _photographs("photographs.beton")
    outcomes = [_flips("set.beton", 500, 0), _flips("photographs.beton", 500, 1)]
    assert not any(f["labels"] for f in outcomes)
    assert all(f["refused"] > 100 for f in outcomes)
    return (
        "in the tables: ValueError on opening; in the images: an error, or wrong pixels in one; verify finds every one"
    )


@case("bytes", "a random bit flipped, without checksums (1,000 times)")
def _() -> str:
    from dualfast.data.beton import checksums

    outcomes = []
    for seed, make in enumerate((copied, _photographs)):
        make("bare.beton")
        checksums.forget("bare.beton")
        outcomes.append(_flips("bare.beton", 500, seed))
    assert all(f["refused"] > 50 for f in outcomes)
    return "an error, the right data, a wrong label, or wrong pixels in one image; never a crash or a hang"


@case("bytes", "a truncated JPEG, or bytes that are not one", "a wrong image, silently")
def _() -> str:
    from dualfast.data.beton import Beton

    _photographs("photographs.beton")
    ptr, size = (int(column[3]) for column in (Beton("photographs.beton").ptr, Beton("photographs.beton").size))
    with open("photographs.beton", "rb+") as file:
        file.seek(ptr + size // 2)
        file.write(bytes(size - size // 2))
        file.seek(ptr)
        file.write(b"no")
    return refused(lambda: list(opened("photographs.beton")), (ValueError, RuntimeError))


# ---- making files ---------------------------------------------------------------------------------------------------

WORK = np.random.default_rng(2).integers(0, 256, (600, 64, 64, 3), dtype=np.uint8)
LABELS = np.arange(600) % 3


def _write(pause: float = 0.0, name: str = "made.beton") -> None:
    from dualfast.data import beton
    from dualfast.data.beton.encode import Encoder

    encode = Encoder.__call__

    def slowly(self: Any, payload: Any) -> Any:
        time.sleep(pause)
        return encode(self, payload)

    Encoder.__call__ = slowly  # type: ignore[method-assign]
    try:
        beton.write((WORK, LABELS), name, rewrite=True, progress=False)
    finally:
        Encoder.__call__ = encode  # type: ignore[method-assign]


def _compact(pause: float = 0.0) -> None:
    from dualfast.data.beton import compact as compacting

    copy = compacting._copy_range

    def slowly(*arguments: Any) -> int:
        time.sleep(pause)
        return copy(*arguments)

    compacting._copy_range, compacting.SAVE_EVERY = slowly, 1 << 20
    try:
        compacting.compact("work.beton", range(0, 600, 2), "made.beton", progress=False)
    finally:
        compacting._copy_range = copy


def _interrupted(make: Callable[..., None], what: signal.Signals, times: int = 12) -> None:
    """Ends make() with a signal at several moments, each attempt resuming the one before: the file of that name is
    complete, the same as from an uninterrupted make(), and nothing else remains in the end."""
    from dualfast import verify

    if not Path("work.beton").exists():
        _write(name="work.beton")
    make()
    expected = Path("made.beton").read_bytes()
    os.remove("made.beton")
    for attempt in range(times):

        def end(pid: int, after: float = 0.03 * attempt) -> None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

        code = child(lambda: make(0.001), end)
        assert code in (0, 130, -what), code
        if Path("made.beton").exists():
            assert Path("made.beton").read_bytes() == expected
            verify("made.beton", progress=False)
            os.remove("made.beton")
    make()
    assert Path("made.beton").read_bytes() == expected
    left = [name for name in os.listdir() if "made" in name]
    assert sorted(left) == MADE, left
    for name in left:
        os.remove(name)


@case("making", "Ctrl-C or SIGKILL while writing")
def _() -> str:
    _interrupted(_write, signal.SIGINT)
    _interrupted(_write, signal.SIGKILL)
    return "no file has the name, or a complete one; the next attempt resumes, to the same bytes"


@case("making", "Ctrl-C or SIGKILL while compacting")
def _() -> str:
    _interrupted(_compact, signal.SIGINT)
    _interrupted(_compact, signal.SIGKILL)
    return "no file has the name, or a complete one; the next attempt resumes, to the same bytes"


@case("making", "Ctrl-C or SIGKILL while an epoch runs")
def _() -> str:
    def epochs() -> None:
        with opened(batch_size=1) as loader:
            while True:
                list(loader)

    for what, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        for after in (0.1, 0.2):

            def end(pid: int, what: signal.Signals = what, after: float = after) -> None:
                time.sleep(after)
                os.kill(pid, what)

            start = time.monotonic()
            assert child(epochs, end) == code
            assert time.monotonic() - start < 3
    return "the process ends at once"


@case("making", "a full disk while writing or compacting")
def _() -> str:
    def limited(make: Callable[..., None], limit: int) -> int:
        def run() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            make()

        return child(run)

    if not Path("work.beton").exists():
        _write(name="work.beton")
    for make in (_write, _compact):
        for limit in (0, 100, 1 << 20, (2 << 20) + 1, 3 << 20):
            assert limited(make, limit) == 28, limit
            assert not Path("made.beton").exists()
        make()
        before = Path("made.beton").read_bytes()
        assert limited(make, 3 << 20) == 28
        assert Path("made.beton").read_bytes() == before, "the existing file stays"
        make()
        for name in MADE:
            os.remove(name)
        assert not [name for name in os.listdir() if "made" in name]
    return "OSError; no file gets the name, and an existing one stays"


@case("making", "an image that cannot be read while writing", "the writer hangs")
def _() -> str:
    from dualfast import write

    for label in "ab":
        Path("folder", label).mkdir(parents=True)
        Path("folder", label, "0.jpg").write_bytes(b"not an image")
    return refused(lambda: write("folder", "made.beton", progress=False))


@case("making", "a data set that fails while it is read", "the writer hangs")
def _() -> str:
    from dualfast import write
    from dualfast.data import sources

    def items() -> Any:
        yield from WORK[:100]
        raise ConnectionError("the connection was lost")

    whole = sources.open_source((WORK, LABELS))
    failing = dataclasses.replace(whole, items=items)
    error = refused(lambda: write(failing, "made.beton", progress=False), (ConnectionError,))
    assert not Path("made.beton").exists()
    write(whole, "made.beton", progress=False)
    assert sorted(os.listdir()) == [*MADE, "set.beton", "set.beton.crc"]
    return f"{error}; the next attempt resumes"


@case("making", "two processes that write the same file")
def _() -> str:
    from dualfast.storage.resumable import Partial

    with Partial("made.beton", "another's"):
        return refused(lambda: _write())

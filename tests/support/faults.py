"""Faults of selections and of running loaders, and the tools for the cases of test_faults.py.

The cases of a group run in one process with a time limit, each in a folder that holds set.beton alone; a case returns
the outcome."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

N, SIDE = 40, 6
PAGE = 1 << 21


class Case(NamedTuple):
    """`fault` is what goes wrong, `ffcv` what FFCV 1.0.2 does then, `run` returns what dualfast does."""

    group: str
    fault: str
    ffcv: str
    run: Callable[[], str]


CASES: list[Case] = []
SECONDS = {
    "selection": 60,
    "running": 120,
    "bytes": 120,
    "making": 120,
    "hostile": 120,
}  # time limit of a group's process; far more than it needs


def case(group: str, fault: str, ffcv: str = "") -> Callable[[Callable[[], str]], Callable[[], str]]:
    def add(run: Callable[[], str]) -> Callable[[], str]:
        CASES.append(Case(group, fault, ffcv, run))
        return run

    return add


def refused(
    action: Callable[[], Any], kinds: tuple[type[Exception], ...] = (ValueError, TypeError), within: float = 5.0
) -> str:
    """The error that action raises, which must be of these kinds and come within so many seconds."""
    start = time.monotonic()
    try:
        action()
    except kinds as error:
        assert time.monotonic() - start < within
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def main(group: str) -> None:
    """Runs a group's cases in this process, each in its own folder, and prints a line when one begins and ends."""
    from dualfast import write

    pixels = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
    write((pixels, np.arange(N) % 7), "set.beton", progress=False)
    home = Path.cwd()
    for number, one in enumerate(CASES):
        if one.group != group:
            continue
        (home / str(number)).mkdir()
        os.chdir(home / str(number))
        for name in ("set.beton", "set.beton.crc"):
            Path(name).write_bytes((home / name).read_bytes())
        print(json.dumps([number, None]), flush=True)
        start = time.monotonic()
        print(json.dumps([number, one.run()]), flush=True)
        print(f"{time.monotonic() - start:6.2f} s  {one.fault}", file=sys.stderr)


# ---- selections -----------------------------------------------------------------------------------------------------


def selections() -> dict[str, tuple[Any, str]]:
    hangs, mask = "hangs", np.ones(N, bool)
    return {
        "empty indices": ([], "no batches, silently, or OverflowError"),
        "a mask that selects nothing": (~mask, "no batches, silently"),
        "an index one past the end": ([0, N], "garbage, silently"),
        "an index far past the end": ([0, 10**7], "segmentation fault"),
        "a negative index": ([0, -1], "the last sample, or a segmentation fault"),
        "a repeated index": ([1, 1], "accepted, or an unrelated ValueError"),
        "float indices": (np.array([0.0, 1.0]), hangs),
        "a float mask": (mask.astype(np.float32), hangs),
        "a mask of the wrong length": (mask[:-1], ""),
        "a mask of bytes, 0 and 1": (mask.astype(np.uint8), "trains on samples 0 and 1, silently"),
        "2-D indices": ([[0, 1], [2, 3]], hangs),
        "a path that is not a file": ("nowhere.npy", ""),
    }


def _selection(indices: Any) -> Callable[[], str]:
    def run() -> str:
        from dualfast import Loader

        error = refused(lambda: Loader("set.beton", 8, indices=indices))
        with Loader("set.beton", 8) as loader:
            assert refused(lambda: loader.set_indices(indices)) == error
            assert len(loader.indices) == N, "the selection is unchanged"
        return error

    return run


for _fault, (_indices, _ffcv) in selections().items():
    case("selection", _fault, _ffcv)(_selection(_indices))


@case("selection", "a boolean mask", "hangs")
def _() -> str:
    from dualfast import Loader

    mask = np.arange(N) % 3 == 0
    with Loader("set.beton", 8, indices=mask) as loader:
        assert sorted(i for _, _, index in loader for i in index.tolist()) == np.flatnonzero(mask).tolist()
    return "selects"


@case("selection", "an index past the end, with os_cache=False", "segmentation fault")
def _() -> str:
    return refused(lambda: opened(indices=[0, N + 5], os_cache=False))


@case("selection", "a batch larger than the data set, drop_last", "no batches, silently")
def _() -> str:
    from dualfast import Loader

    return refused(lambda: Loader("set.beton", N + 1, drop_last=True))


@case("selection", "a batch larger than the subset, drop_last", "no batches, silently")
def _() -> str:
    with opened(batch_size=8, drop_last=True) as loader:
        error = refused(lambda: loader.set_indices(range(7)))
        assert len(list(loader)) == N // 8, "the selection is unchanged"
    return error


@case("selection", "a batch larger than the data set", "no batches, silently: its drop_last defaults to True")
def _() -> str:
    assert [len(index) for _, _, index in opened(batch_size=1000)] == [N]
    return "one batch of all samples"


# ---- running --------------------------------------------------------------------------------------------------------


def opened(path: str = "set.beton", **options: Any) -> Any:
    from dualfast import Loader

    return Loader(path, **{"batch_size": 8, "num_workers": 2, "order": "sequential", **options})


def content(path: str = "set.beton", **options: Any) -> list[tuple[bytes, int]]:
    """(pixels, label) of every sample, as the loader yields them."""
    import torch

    with opened(path, dtype=torch.uint8, **options) as loader:
        return [(p.numpy().tobytes(), int(label)) for pixels, labels, _ in loader for p, label in zip(pixels, labels)]  # noqa: B905


def _no_thread_left(before: int) -> None:
    deadline = time.monotonic() + 3
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before, [t.name for t in threading.enumerate()]


@case("running", "an exception in an operation", "hangs")
def _() -> str:
    from ffcv.pipeline.operation import Operation

    from dualfast import image_pipelines

    class Fails(Operation):  # type: ignore[misc]
        def generate_code(self) -> Callable[..., Any]:
            def operation_that_fails(images: Any, _: Any) -> Any:
                raise KeyError("no such thing")

            return operation_that_fails

        def declare_state_and_memory(self, previous_state: Any) -> Any:
            return replace(previous_state, jit_mode=False), None

    pipelines = image_pipelines(SIDE)
    pipelines["image"].append(Fails())
    before = threading.active_count()
    with opened(pipelines=pipelines) as loader:
        for _ in range(3):  # and again
            message = refused(lambda: list(loader), (KeyError,), within=1)
    try:
        next(iter(opened(pipelines=pipelines)))
    except KeyError as error:
        names, trace = [], error.__traceback__
        while trace is not None:
            names.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        assert "operation_that_fails" in names, "the traceback leads to the operation"
    gc.collect()
    _no_thread_left(before)
    return message + ", with the operation's traceback, within a second"


@case(
    "running", "`break`, an exception in the loop, close(), garbage collection", "13 threads and 40 MB left each time"
)
def _() -> str:
    before = threading.active_count()
    for _ in range(10):
        for _ in opened():
            break
    with contextlib.suppress(ZeroDivisionError), opened() as loader:
        for _ in loader:
            _ = 1 / 0
    loader = opened(batch_size=1)
    next(iter(loader))
    loader.close()
    gc.collect()
    _no_thread_left(before)
    assert len(os.listdir("/proc/self/fd")) < 40
    return "no thread and no open file remains"


@case("running", "more workers than cores", "ValueError")
def _() -> str:
    assert content(num_workers=64) == content(num_workers=1)
    return "the same batches"


@case("running", "two loaders in two threads", "the process aborts, with one of numba's threading layers")
def _() -> str:
    contents: list[Any] = []
    threads = [threading.Thread(target=lambda: contents.append([content() for _ in range(5)])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert contents[0] == contents[1] == [content()] * 5
    return "the same batches"


def child(run: Callable[[], Any], meanwhile: Callable[[int], Any] = lambda pid: None) -> int:
    """Runs in a forked process and returns its exit code: 0 for success, or minus the signal that ended it."""
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            code = int(run() or 0)
        except KeyboardInterrupt:
            code = 130
        except OSError as error:
            code = 28 if error.errno in (errno.EFBIG, errno.ENOSPC) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    meanwhile(pid)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


@case("running", "a fork while an epoch runs")
def _() -> str:
    wanted = content()
    with opened(batch_size=1) as loader:
        running = iter(loader)
        next(running)

        def both() -> int:
            error = refused(lambda: next(running), (RuntimeError,), within=1)
            return 0 if "forked" in error and len(list(loader)) == N and content() == wanted else 1

        for _ in range(10):
            assert child(both) == 0
        assert len(list(running)) == N - 1
    return (
        "the child's own iterations work, the parent's continue; "
        "one begun before the fork raises RuntimeError in the child"
    )


@case("running", "a spawned process")
def _() -> str:
    import subprocess

    code = "import sys; sys.path.insert(0, sys.argv[1]); import faults; print(len(faults.content()))"
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    assert subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.split() == [b"40"]
    return "works"


@case("running", "torch's and numba's thread counts", "its import sets torch's")
def _() -> str:
    import numba
    import torch

    torch.set_num_threads(1)
    before = numba.get_num_threads()
    for workers in (1, 2, 5):
        content(num_workers=workers)
    assert (torch.get_num_threads(), numba.get_num_threads()) == (1, before)
    return "unchanged"


def copied(name: str) -> str:
    Path(name).write_bytes(Path("set.beton").read_bytes())
    return name


@case("running", "the file deleted, or another one moved to its name, while open")
def _() -> str:
    import torch

    from dualfast import write

    with opened(copied("open.beton"), dtype=torch.uint8) as loader:
        first = [pixels.clone() for pixels, _, _ in loader]
        write((np.zeros((99, 5, 5), np.uint8), np.arange(99) % 2), "open.beton", rewrite=True, progress=False)
        assert all(torch.equal(a, b) for a, (b, _, _) in zip(first, loader, strict=True))
        os.remove("open.beton")
        assert all(torch.equal(a, b) for a, (b, _, _) in zip(first, loader, strict=True))
    return "the epoch continues with the file that was opened"


@case("running", "the file overwritten or cut while open")
def _() -> str:
    for change in (lambda: os.truncate("open.beton", 5000), lambda: _rewrite("open.beton")):
        with opened(copied("open.beton")) as loader:
            list(loader)
            change()
            error = refused(lambda: list(loader), (RuntimeError,), within=1)
    return error


@case("running", "the images overwritten in place while open")
def _() -> str:
    Path("open.beton.crc").write_bytes(Path("set.beton.crc").read_bytes())
    with opened(copied("open.beton"), verify="read") as checked, opened("open.beton") as trusting:
        before = content("open.beton")
        list(checked)
        with open("open.beton", "rb+") as file:
            file.seek(int(checked.beton.ptr[3]))
            file.write(b"rot")
        error = refused(lambda: list(checked))
        assert len(list(trusting)) == 5
        assert content("open.beton") != before
    return f'verify="read": {error.partition(";")[0]}; without it the new pixels are read'


def _rewrite(name: str) -> None:
    data = bytearray(Path(name).read_bytes())
    data[24 + 2 * 1041 + 16] ^= 1
    Path(name).write_bytes(data)

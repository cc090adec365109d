"""Work on many chunks at once, and the bar that shows how far it is."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

from dualfast.arguments import checked_int
from dualfast.config import MAX_THREADS

T = TypeVar("T")
R = TypeVar("R")

AHEAD_PER_THREAD = 4  # items in work or waiting to be yielded


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """Yields work(item) in the order of the items, a few of which are computed ahead. Close it to stop early (an error
    or interrupt then does not wait for items that have not begun)."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > AHEAD_PER_THREAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def thread_count(requested: int | None) -> int:
    """requested, or the number of CPUs this process may use when it is None or not positive."""
    number = 0 if requested is None else checked_int("num_workers", requested, -MAX_THREADS, MAX_THREADS)
    return number if number > 0 else len(os.sched_getaffinity(0))


def progress_bar(total: int, description: str, enabled: bool, unit: str = " images") -> Any:
    """A tqdm bar; it appears on a terminal only, after two seconds."""
    disable = None if enabled else True  # None: where stderr is not a terminal
    return tqdm(total=total, desc=description, unit=unit, unit_scale=unit == "B", delay=2, disable=disable, leave=False)

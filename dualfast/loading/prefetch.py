"""Work done ahead on a thread: results come in order, exceptions reach the caller, and no thread outlives its use."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from dualfast.errors import IterationLost

T = TypeVar("T")

POLL_SECONDS = 1.0  # how often a waiting caller checks that the worker is alive
JOIN_SECONDS = 10.0


class _Channel(Generic[T]):
    """At most `ahead` results between one worker and one caller. Separate from Prefetcher, so that the worker's thread
    holds no reference to that and ends when it is dropped."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.results: deque[T] = deque()
        self.changed = threading.Condition()
        self.ended = False
        self.closed = False
        self.error: BaseException | None = None
        self.pid = os.getpid()

    @property
    def in_forked_child(self) -> bool:
        """Whether this is a forked child's copy: the worker is not there, and whoever held the lock never releases
        it."""
        return self.pid != os.getpid()

    def put(self, result: T) -> bool:
        """Waits until there is room; False once the caller has closed the channel."""
        with self.changed:
            while len(self.results) >= self.ahead and not self.closed:
                self.changed.wait()
            if not self.closed:
                self.results.append(result)
                self.changed.notify_all()
            return not self.closed

    def end(self, error: BaseException | None = None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def close(self) -> None:
        if self.in_forked_child:
            return
        with self.changed:
            self.closed = True
            self.results.clear()
            self.changed.notify_all()


def _work(channel: _Channel[T], produce: Callable[[int], T], first: int, last: int) -> None:
    try:
        for step in range(first, last):
            if channel.closed or not channel.put(produce(step)):
                break
    except BaseException as error:  # of any kind: the caller handles it
        channel.end(error)
    else:
        channel.end()


_running: weakref.WeakKeyDictionary[_Channel[object], threading.Thread] = weakref.WeakKeyDictionary()


@atexit.register
def _stop_all() -> None:
    # A daemon thread that returns from compiled code into a finalizing interpreter aborts the process.
    for channel, thread in list(_running.items()):
        channel.close()
        if not channel.in_forked_child:
            thread.join(JOIN_SECONDS)


class Prefetcher(Generic[T]):
    """Iterates produce(first), ..., produce(last - 1), computed in order on a thread of its own, up to `ahead` in
    advance.

    An exception in produce is raised here, with its traceback, in place of its result. The thread ends with the
    iteration, with close(), and when this object is dropped."""

    def __init__(self, produce: Callable[[int], T], first: int, last: int, ahead: int, name: str) -> None:
        self.step = first
        self.last = last
        self._channel: _Channel[T] = _Channel(ahead)
        self._thread = threading.Thread(
            target=_work, args=(self._channel, produce, first, last), name=name, daemon=True
        )
        _running[self._channel] = self._thread  # type: ignore[index]
        self._finalizer = weakref.finalize(self, self._channel.close)
        self._finalizer.atexit = False
        self._thread.start()

    def __len__(self) -> int:
        return self.last - self.step

    def __iter__(self) -> Prefetcher[T]:
        return self

    def __next__(self) -> T:
        channel = self._channel
        if channel.in_forked_child:
            raise IterationLost("this iteration began before the process was forked; start a new one")
        with channel.changed:
            while not channel.results:
                if channel.closed:
                    raise StopIteration
                if channel.ended:
                    channel.closed = True
                    self._finalizer.detach()  # a Ctrl-C during a finalizer is lost
                    if channel.error is not None:
                        error, channel.error = channel.error, None
                        raise error
                    raise StopIteration
                if not self._thread.is_alive():
                    channel.closed = True
                    raise IterationLost("the loading thread has died; start a new iteration")
                channel.changed.wait(POLL_SECONDS)
            result = channel.results.popleft()
            channel.changed.notify_all()
        self.step += 1
        return result

    def close(self) -> None:
        """Ends the iteration and its thread; later calls do nothing."""
        self._channel.close()
        if not self._channel.in_forked_child and self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

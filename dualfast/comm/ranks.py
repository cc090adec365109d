"""The processes of one training: who they are, what they must agree on, and how long they wait for each other.

With a single process every method of Ranks() returns at once, so callers need no second path.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from dualfast.errors import DualfastError

TIMEOUT_S = 600.0
HEARTBEAT_S, POLL_S = 1.0, 0.05
SETTLE_S = 0.2
"""Seconds in which gloo's threads release their last tensors: that takes the GIL, which destroying a group holds."""
LEAVE_S = 30.0
"""Seconds after which a process that such a thread blocks is ended, with its stack printed: everything is saved by
then, and no run hangs at its end."""
NETWORK_ERROR = re.compile(r"timed? ?out|connection|peer|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. control: a gloo group for everything but training: it needs no GPU, and its barrier
    names the ranks that are missing."""

    rank: int = 0
    size: int = 1
    control: Any = None
    timeout_s: float = TIMEOUT_S
    joined: bool = False
    """Whether join() created the process group."""

    @property
    def is_rank0(self) -> bool:
        """Whether this is the rank that writes files and reports progress."""
        return self.rank == 0

    def barrier(self, what: str) -> None:
        """Waits for all ranks. Raises TimeoutError naming `what`, the ranks that are missing, and the timeout."""
        if self.size == 1:
            return
        try:
            dist.monitored_barrier(self.control, timedelta(seconds=self.timeout_s), wait_all_ranks=True)
        except RuntimeError as error:
            raise self._timeout_error(f"waited for the others at {what!r}", error) from error

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, on every rank. For small objects."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, self.control)
        return values

    def largest(self, values: list[int]) -> list[int]:
        """The elementwise maximum over all ranks."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self.control)
        return [int(value) for value in tensor]

    def sums(self, values: list[float]) -> list[float]:
        """The elementwise sum over all ranks, in float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        return [float(value) for value in tensor]

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Gives every rank the buffers of rank 0 (the running averages of batch normalisation)."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def run_on_rank0(self, what: str, action: Callable[[], None]) -> None:
        """Runs `action` on rank 0 while the others wait for it, however long it takes: they receive a heartbeat every
        second and give up only when none comes for the timeout. An error of `action` is raised on rank 0; the other
        ranks then exit silently, with code 2."""
        error: Exception | None = None
        if self.is_rank0:
            try:
                with self._heartbeats():
                    action()
            except (DualfastError, ValueError, TypeError, OSError) as raised:
                error = raised
        else:
            self._await_heartbeats(what)
        self.barrier(what)
        if any(self.gather(error is not None)):
            raise error or SystemExit(2)

    @contextmanager
    def _heartbeats(self) -> Iterator[None]:
        """Tells the other ranks every second that this one is at work, until the block ends."""
        if self.size == 1:
            yield
            return
        done = threading.Event()

        def beat() -> None:
            with suppress(RuntimeError):  # a rank is gone: the barrier that follows says which
                while not done.wait(min(HEARTBEAT_S, self.timeout_s / 4)):
                    dist.broadcast(torch.tensor([1]), 0, self.control)
                dist.broadcast(torch.tensor([0]), 0, self.control)

        beater = threading.Thread(target=beat, daemon=True)
        beater.start()
        try:
            yield
        finally:
            done.set()
            beater.join()

    def _await_heartbeats(self, what: str) -> None:
        working = torch.tensor([1])
        try:
            while int(working):
                dist.broadcast(working, 0, self.control)
        except RuntimeError as error:
            raise self._timeout_error(f"got no heartbeat from rank 0 at {what!r}", error) from error

    def check_same(self, values: dict[str, Any]) -> None:
        """Raises ValueError, on every rank, for the first of `values` that differs between ranks, naming those that
        differ from rank 0 and their values."""
        by_rank = self.gather({name: str(value) for name, value in values.items()})
        for name, expected in by_rank[0].items():
            odd = [(rank, other.get(name)) for rank, other in enumerate(by_rank) if other.get(name) != expected]
            if odd:
                shown = ", ".join(f"rank {rank} has {value}" for rank, value in odd[:4])
                more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
                raise ValueError(
                    f"{name} differs between the ranks: rank 0 has {expected}, {shown}{more}; start all with the same "
                    "command on the same data and version"
                )

    @contextmanager
    def leave_group_on_exit(self) -> Iterator[None]:
        """Destroys the process group that join() created when the block ends. A network error in the block becomes a
        TimeoutError that names this rank and the timeout."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not NETWORK_ERROR.search(str(error)):
                raise
            raise self._timeout_error("lost the connection to another", error) from error
        finally:
            if self.joined:
                time.sleep(SETTLE_S)
                if sys.__stderr__ is not None:
                    faulthandler.dump_traceback_later(LEAVE_S, exit=True, file=sys.__stderr__)  # needs no GIL
                dist.destroy_process_group()
                faulthandler.cancel_dump_traceback_later()

    def _timeout_error(self, what: str, error: RuntimeError) -> TimeoutError:
        reason = str(error).splitlines()[0]
        return TimeoutError(f"rank {self.rank} {what}: {reason}; the timeout is {self.timeout_s:g} s (--rank-timeout)")


def join(device: Literal["cpu", "cuda"], timeout_s: float = TIMEOUT_S) -> Ranks:
    """The ranks that torchrun started, joined (gloo on CPUs, plus nccl on GPUs), or those of an existing process group;
    a single process when there is neither.

    timeout_s: seconds that a rank waits for another before it gives up. Raises ValueError when it is not positive.
    """
    if not timeout_s > 0:
        raise ValueError(f"rank_timeout is {timeout_s}; give a positive number of seconds")
    initialized = dist.is_available() and dist.is_initialized()
    if not initialized and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    timeout = timedelta(seconds=timeout_s)
    if not initialized:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        try:
            store, rank, size = next(rendezvous("env://", timeout=timeout))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise TimeoutError(f"the processes did not find each other ({reason}); start them with torchrun") from error
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        unused = _unused_store(store, rank, size, timeout_s)
        dist.init_process_group(backend, store=unused, rank=rank, world_size=size, timeout=timeout)
    control = dist.new_group(backend="gloo", timeout=timeout)
    return Ranks(dist.get_rank(), dist.get_world_size(), control, timeout_s, not initialized)


def _unused_store(store: Any, rank: int, size: int, timeout_s: float) -> Any:
    """A section of torchrun's store that nothing was written to yet: torchrun keeps the store when it restarts the
    processes, and with it the addresses of the dead ones.

    Rank 0 names the section and lists the ranks that read this name. A rank that read the name of an earlier start is
    not on the list, and reads again.
    """
    own_id = uuid.uuid4().hex
    if rank == 0:
        store.set("dualfast/start", own_id)
        present = []
        for other in range(1, size):
            try:
                present.append(store.get(f"dualfast/{own_id}/{other}").decode())
            except RuntimeError as error:
                raise TimeoutError(
                    f"rank 0 waited {timeout_s:g} s for rank {other} to start (--rank-timeout)"
                ) from error
        store.set(f"dualfast/{own_id}/there", " ".join(present))
        return PrefixStore(own_id, store)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        start = store.get("dualfast/start").decode()
        store.set(f"dualfast/{start}/{rank}", own_id)
        listed = f"dualfast/{start}/there"
        if store.check([listed]) and own_id in store.get(listed).decode().split():
            return PrefixStore(start, store)
        time.sleep(POLL_S)
    raise TimeoutError(f"rank {rank} waited {timeout_s:g} s for rank 0 to start (--rank-timeout)")

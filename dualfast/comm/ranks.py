"""The processes of one training: who they are, what they must agree on, and how long they wait for each other.

Ranks() of a single process does nothing, so that callers need no second path.
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

TIMEOUT_S = 600.0
BEAT_S, POLL_S = 1.0, 0.05
SETTLE_S = 0.2
"""Seconds in which gloo's threads let go of their last tensors: they need the GIL, which a group's end holds."""
LEAVE_S = 30.0
"""Seconds after which a process that such a thread keeps from leaving is ended, its stack printed: no hang at the end
of a night's work, which is saved by then."""
NETWORK = re.compile(r"timed? ?out|connection|peer|broken pipe", re.IGNORECASE)


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. control: a gloo group for what is not training: it needs no GPU and names who is
    missing."""

    rank: int = 0
    size: int = 1
    control: Any = None
    timeout_s: float = TIMEOUT_S
    joined: bool = False
    """Whether join() made the process group."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks."""
        return self.rank == 0

    def barrier(self, what: str) -> None:
        """Waits for all ranks. TimeoutError naming `what`, the ranks that did not come, and the timeout."""
        if self.size == 1:
            return
        try:
            dist.monitored_barrier(self.control, timedelta(seconds=self.timeout_s), wait_all_ranks=True)
        except RuntimeError as error:
            raise self._unheard(f"waited for the others at {what!r}", error) from error

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, on every rank. For small things."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, self.control)
        return values

    def largest(self, values: list[int]) -> list[int]:
        """The largest of each of some integers over all ranks."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self.control)
        return [int(value) for value in tensor]

    def sums(self, values: list[float]) -> list[float]:
        """The sum of each of some numbers over all ranks, in float64."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.control)
        return [float(value) for value in tensor]

    def share_buffers(self, model: torch.nn.Module) -> None:
        """Gives every rank the first one's buffers (batch normalisation's averages)."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def first_does(self, what: str, action: Callable[[], None]) -> None:
        """Runs `action` on the first rank while the others wait, however long it takes: they hear of it every second,
        and give up only when that stops for the timeout. What it raises is raised there; the others leave, silently,
        with exit code 2."""
        error: Exception | None = None
        if self.first:
            try:
                with self._beating():
                    action()
            except (ValueError, TypeError, OSError) as raised:
                error = raised
        else:
            self._listen(what)
        self.barrier(what)
        if any(self.gather(error is not None)):
            raise error or SystemExit(2)

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Tells the other ranks that this one is at work, until it is done."""
        if self.size == 1:
            yield
            return
        done = threading.Event()

        def beat() -> None:
            with suppress(RuntimeError):  # a rank has gone: the barrier behind says which
                while not done.wait(min(BEAT_S, self.timeout_s / 4)):
                    dist.broadcast(torch.tensor([1]), 0, self.control)
                dist.broadcast(torch.tensor([0]), 0, self.control)

        beater = threading.Thread(target=beat, daemon=True)
        beater.start()
        try:
            yield
        finally:
            done.set()
            beater.join()

    def _listen(self, what: str) -> None:
        working = torch.tensor([1])
        try:
            while int(working):
                dist.broadcast(working, 0, self.control)
        except RuntimeError as error:
            raise self._unheard(f"heard nothing of rank 0 at {what!r}", error) from error

    def check_same(self, values: dict[str, Any]) -> None:
        """Raises ValueError, on every rank, naming the first of `values` that is not the same everywhere, the ranks
        that differ from rank 0, and what they have."""
        everybody = self.gather({name: str(value) for name, value in values.items()})
        for name in everybody[0]:
            odd = [(rank, theirs.get(name)) for rank, theirs in enumerate(everybody) if theirs != everybody[0]]
            odd = [(rank, value) for rank, value in odd if value != everybody[0][name]]
            if odd:
                shown = ", ".join(f"rank {rank} has {value}" for rank, value in odd[:4])
                more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
                raise ValueError(
                    f"{name} differs between the ranks: rank 0 has {everybody[0][name]}, {shown}{more}; start all with "
                    "the same command on the same data and version"
                )

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Leaves the process group that join() made at the end. An error of the network becomes a TimeoutError that
        names this rank and the timeout."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not NETWORK.search(str(error)):
                raise
            raise self._unheard("lost another", error) from error
        finally:
            if self.joined:
                time.sleep(SETTLE_S)
                if sys.__stderr__ is not None:
                    faulthandler.dump_traceback_later(LEAVE_S, exit=True, file=sys.__stderr__)  # needs no GIL
                dist.destroy_process_group()
                faulthandler.cancel_dump_traceback_later()

    def _unheard(self, what: str, error: RuntimeError) -> TimeoutError:
        reason = str(error).splitlines()[0]
        return TimeoutError(f"rank {self.rank} {what}: {reason}; the timeout is {self.timeout_s:g} s (--rank-timeout)")


def join(device: Literal["cpu", "cuda"], timeout_s: float = TIMEOUT_S) -> Ranks:
    """The ranks that torchrun started, joined (gloo on CPUs, nccl beside it on GPUs), or those of a process group that
    exists; one process without either.

    timeout_s: how long a rank waits for another before it gives up. ValueError when it is not positive.
    """
    if not timeout_s > 0:
        raise ValueError(f"rank_timeout is {timeout_s}; give a positive number of seconds")
    joined = dist.is_available() and dist.is_initialized()
    if not joined and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    wait = timedelta(seconds=timeout_s)
    if not joined:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        store, rank, size = next(rendezvous("env://", timeout=wait))
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        fresh = _fresh_store(store, rank, size, timeout_s)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=size, timeout=wait)
    control = dist.new_group(backend="gloo", timeout=wait)
    return Ranks(dist.get_rank(), dist.get_world_size(), control, timeout_s, not joined)


def _fresh_store(store: Any, rank: int, size: int, timeout_s: float) -> Any:
    """A part of torchrun's store that nothing was written to: when it starts the processes again it keeps the store,
    and with it the addresses of the dead. The first rank names the part; who has seen the name of an earlier start is
    not among those whom the first rank then lists."""
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("dualfast/start", mine)
        there = []
        for other in range(1, size):
            try:
                there.append(store.get(f"dualfast/{mine}/{other}").decode())
            except RuntimeError as error:
                raise TimeoutError(
                    f"rank 0 waited {timeout_s:g} s for rank {other} to start (--rank-timeout)"
                ) from error
        store.set(f"dualfast/{mine}/there", " ".join(there))
        return PrefixStore(mine, store)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        start = store.get("dualfast/start").decode()
        store.set(f"dualfast/{start}/{rank}", mine)
        listed = f"dualfast/{start}/there"
        if store.check([listed]) and mine in store.get(listed).decode().split():
            return PrefixStore(start, store)
        time.sleep(POLL_S)
    raise TimeoutError(f"rank {rank} heard nothing of rank 0 at the start for {timeout_s:g} s (--rank-timeout)")


def wire_device(group: Any) -> torch.device:
    """Where tensors must lie to travel in `group`: the GPU for nccl, else memory."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def exchange(rows: torch.Tensor, to: torch.Tensor, group: Any = None) -> torch.Tensor:
    """Sends each of rows (M, k) to the rank named in `to` (M,) int64; returns what came here, ordered by sender and,
    of one sender, as it had them. One all-to-all of the counts and one of the rows."""
    size = dist.get_world_size(group)
    device = wire_device(group)
    order = torch.argsort(to, stable=True)
    given = rows[order].contiguous().to(device)
    send = torch.bincount(to, minlength=size).to(device)
    receive = torch.empty_like(send)
    dist.all_to_all_single(receive, send, group=group)
    taken = given.new_empty(int(receive.sum()), rows.shape[1])
    dist.all_to_all_single(taken, given, receive.tolist(), send.tolist(), group=group)
    return taken.to(rows.device)


def gather_rows(rows: torch.Tensor, group: Any = None, to: int | None = None) -> list[torch.Tensor] | None:
    """rows (M_r, k) of every rank r, in order of rank, in memory: on all ranks, or on rank `to` alone (None on the
    others)."""
    size, device = dist.get_world_size(group), wire_device(group)
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=device), group=group)
    lengths = [int(count) for count in counts]
    longest = max(lengths)
    padded = rows.new_zeros(longest, *rows.shape[1:], device=device)
    padded[: len(rows)] = rows
    mine = to is None or dist.get_rank(group) == to
    parts = [torch.empty_like(padded) for _ in range(size)] if mine else None
    if to is None:
        dist.all_gather(parts, padded, group=group)
    else:
        dist.gather(padded, parts, group_dst=to, group=group)
    return None if parts is None else [part[:n].cpu() for part, n in zip(parts, lengths, strict=True)]

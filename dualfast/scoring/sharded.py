"""Scores of a training on many processes: a sample's line lives on one rank, whoever sees the sample.

The owner of sample i of N on W ranks is rank i mod W, line i // W there. So any subset and any order (a data set
sorted by class, a selection) falls on all ranks alike, which contiguous blocks would not; and where a line lives
follows from the id alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dualfast import ops
from dualfast.comm.collectives import exchange, gather_rows, wire_device
from dualfast.scoring.table import TAIL_WORDS, Scores, ScoreTable

WIRE_WORDS = 4
"""int32 words of an observation on the wire, 16 bytes: line on the owner | p float32, its sign set when the sample was
right | logit margin float32 | EL2N and entropy as two halves."""
ROUND_ROWS = 1 << 20  # rows a rank sends at once, so that memory beyond the table and what waits stays small
FOLD_ROWS = 8192  # observations folded in one call: the kernel's search for repeats is quadratic in it
CLOSE_ROWS = 16384  # observations that wait in lines of 64 bytes until they are packed


class ShardedTable(ScoreTable):
    """A ScoreTable over the ranks of torch.distributed: 64 bytes times n_samples / W a rank. DualLoss takes it.

    reads "any" (DistributedSampler, Loader(distributed=True), any other): a rank keeps what it observes and
    exchange(), called by all ranks once an epoch, sends it to the owners, 16 bytes a sample in all-to-alls of a
    million rows a rank. Of a sample that occurs twice within an exchange, as in DistributedSampler's padding, one visit
    counts: the first of the lowest rank in the earliest of them. dual, dyn_unc, mean, aum, forgetting and visits are
    those of one process with the same visits, bit for bit; EL2N and entropy travel as halves (relative error 2^-11);
    the loss of a visit is -log p of the p that travels (2^-22 beside the exact one), for the least p, about e^-87,
    minus the margin, which is at most log C too low.
    reads "own": every rank visits the ids in `owned` alone (PrunedSampler(table.owned)), and records in place.

    group: a torch.distributed group, None the default one. device: where the lines are; it need not be the logits'.
    window, epochs and track_loss as in ScoreTable; load_parts() restores it on another number of ranks. Not for
    torch.compile or CUDA graphs around the loss. ValueError without a process group, for fewer samples than ranks, and
    for tdds, whose observations are of all classes.
    """

    traceable = False

    def __init__(
        self,
        n_samples: int,
        *,
        window: int = 10,
        epochs: int | None = None,
        track_loss: bool = False,
        tdds: int | None = None,
        device: str | torch.device = "cpu",
        group: Any = None,
        reads: Literal["any", "own"] = "any",
    ) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("ShardedTable needs torch.distributed.init_process_group; on one process use ScoreTable")
        if reads not in ("any", "own"):
            raise ValueError(f"reads is {reads!r}; give 'any' or 'own'")
        if tdds is not None:
            raise ValueError(
                f"tdds is {tdds}: it compares the probabilities of all classes, which ranks do not exchange; gather it "
                "on one process with ScoreTable(tdds=...), or leave tdds out"
            )
        self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
        if not isinstance(n_samples, int | np.integer) or n_samples < self.world_size:
            raise ValueError(f"n_samples is {n_samples} and there are {self.world_size} ranks; start at most as many")
        n_samples = int(n_samples)
        mine = len(range(self.rank, n_samples, self.world_size))
        super().__init__(mine, window=window, epochs=epochs, track_loss=track_loss, device=device)
        self.group, self.reads = group, reads
        self.total = n_samples
        self.exchanges = 0
        self._open: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._paused = False
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._status = self.status

    @property
    def n_samples(self) -> int:
        return self.total

    @property
    def owned(self) -> NDArray[np.int64]:
        """The ids whose lines live on this rank, ascending."""
        return np.arange(self.rank, self.total, self.world_size)

    # ---- recording --------------------------------------------------------------------------------------------------

    def place(self, index: torch.Tensor) -> tuple[ops.Lines, torch.Tensor]:
        """Where a step records these samples: fresh lines, one a row, whose first visit is the observation."""
        if not isinstance(index, torch.Tensor) or index.dtype != torch.int64 or index.ndim != 1:
            return self.as_lines(), index  # the step names what is wrong with it
        if index.device.type == "cpu":
            _check_ids(index, self.total)
        if self.reads == "own":
            foreign = index % self.world_size != self.rank
            if index.device.type == "cpu" and bool(foreign.any()):
                stray = int(index[foreign][0])
                raise ValueError(
                    f"index holds sample {stray}, whose line lives on rank {stray % self.world_size}, not on "
                    f"{self.rank}; visit table.owned alone, or make the table with reads='any'"
                )
            return self.as_lines(), torch.where(foreign, -1, index // self.world_size)
        rows = index.new_zeros(len(index), 16, dtype=torch.int32)
        if self._status is self.status or self._status.device != rows.device:
            self._status = rows.new_zeros(len(self.status))
        if sum(len(ids) for ids, _ in self._open) >= CLOSE_ROWS:
            self._close()
        self._open.append((torch.full_like(index, -1) if self._paused else index.clone(), rows))
        return ops.Lines(rows, self._status, None, 10, 1), torch.arange(len(index), device=index.device)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is recorded inside."""
        self._paused = True
        try:
            with super().paused():
                yield
        finally:
            self._paused = False

    def _close(self) -> None:
        """Takes the observations out of the lines of the latest steps."""
        if not self._open:
            return
        index, lines = (torch.cat(parts) for parts in zip(*self._open, strict=True))
        self._open = []
        packed = lines[:, -1]
        values = lines[:, -TAIL_WORDS:-1].view(torch.float32)  # dual, std, p, margin, EL2N, entropy
        p = torch.where(packed >> 24 & 1 != 0, -values[:, 2], values[:, 2])
        p = torch.where(packed & 0xFFF != 0, p, float("nan"))  # a visit skipped, as its logits were not finite
        halves = values[:, 4:6].half().contiguous().view(torch.int32)[:, 0]
        floats = torch.stack([p, values[:, 3]], 1).view(torch.int32)
        ids = torch.where(packed != 0, index, -1)  # a row with ignore_index has no observation
        self._seen.append((ids, torch.cat([floats, halves[:, None]], 1)))

    def _pending(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(M,) int64 ids, -1 for none, and (M, 3) int32 values of what waits to be exchanged."""
        self._close()
        if self._status is not self.status:
            self.status[ops.BAD_TARGET] += int(self._status[ops.BAD_TARGET])  # a GPU counts what a CPU raises
            self._status.zero_()
        self._seen = [_joined(self._seen)]
        return self._seen[0]

    def exchange(self) -> None:
        """Sends what this rank has observed since the last exchange to the owners, who fold it in. All ranks call it,
        once an epoch."""
        if self.reads == "own":
            return
        ids, values = self._pending()
        self._seen = []
        outside = (ids < -1) | (ids >= self.total)
        if count := int(outside.sum()):
            self.status[ops.BAD_INDEX] += count
            ids = torch.where(outside, -1, ids)
        _deliver(self, ids, values)
        self.exchanges += 1

    # ---- scores -----------------------------------------------------------------------------------------------------

    def local_scores(self) -> Scores:
        """The scores of the samples in `owned`, after an exchange. All ranks call it. Raises and warns, on every rank,
        as scores() does."""
        self.exchange()
        self._check_all()
        return self._scores_of(self.lines[:, -TAIL_WORDS:].cpu(), self.loss_sums)

    def scores(self) -> Scores:
        """The scores of all samples, on every rank: exchanges what waits and gathers 28 bytes a sample, 32 with the
        loss. All ranks call it. Warns as ScoreTable.scores(), and when so many samples came more than once
        between exchanges that one was forgotten."""
        gathered = self._gathered(None)
        assert gathered is not None
        return gathered

    def scores_on(self, rank: int) -> Scores | None:
        """scores() gathered on one rank only; None on the others, which call it too."""
        return self._gathered(rank)

    def _gathered(self, to: int | None) -> Scores | None:
        self.exchange()
        self._check_all()
        rows, sums = self.lines[:, -TAIL_WORDS:], self.loss_sums
        if sums is not None:
            rows = torch.cat([rows, sums.view(torch.int32)[:, None]], 1)
        parts = gather_rows(rows, self.group, to)
        if parts is None:
            return None
        whole = interleaved(parts)
        sums = None if sums is None else whole[:, TAIL_WORDS].view(torch.float32)
        return self._scores_of(whole[:, :TAIL_WORDS], sums)

    def _check_all(self) -> None:
        """What the ranks have counted in all, so that one rank's error ends them all."""
        total = self.status.to(wire_device(self.group), torch.int64)
        dist.all_reduce(total, group=self.group)
        counts = total.tolist()
        for what, word in (("index values lay outside the table", ops.BAD_INDEX), ("targets", ops.BAD_TARGET)):
            if counts[word]:
                end = f" of {self.total} samples" if word == ops.BAD_INDEX else " lay outside the classes of the logits"
                raise ValueError(f"{counts[word]} {what}{end}")
        self._note(counts)
        # Samplers pad with up to a batch a rank; an epoch more without an exchange repeats every sample.
        if self.reads == "any" and counts[ops.DUPLICATES] > self.exchanges * self.total / 2:
            warnings.warn(
                f"{counts[ops.DUPLICATES]} visits repeated a sample within one exchange and were left out; call "
                "table.exchange() at the end of every epoch",
                stacklevel=4,
            )

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """This rank's part, with what waits for the next exchange: tensors and plain numbers."""
        ids, values = self._pending()
        mine = {"n_samples": self.total, "rank": self.rank, "world_size": self.world_size, "exchanges": self.exchanges}
        return super().state_dict() | mine | {"pending_ids": ids, "pending_values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict() gave on the same rank of as many; ValueError otherwise, and as ScoreTable.
        load_parts() does for any number of ranks."""
        for name, mine in (("n_samples", self.total), ("world_size", self.world_size), ("rank", self.rank)):
            if state.get(name) != mine:
                way = "" if name == "n_samples" else "; load_parts() takes the states of any number of ranks"
                raise ValueError(f"the state has {name} {state.get(name)}, this table {mine}{way}")
        super().load_state_dict(state)
        self.exchanges = state["exchanges"]
        self._open, self._seen = [], [(state["pending_ids"], state["pending_values"])]


def load_parts(table: ScoreTable, parts: Sequence[Mapping[str, Any]]) -> None:
    """Restores a table, on ranks or on one process, from what state_dict() gave on any number of ranks (a ScoreTable's
    is that of one). Lines go to their new owners bit for bit, and what waits for an exchange waits again; one process
    folds it in at once.

    parts: what this rank has read, in order of rank; over all ranks every part comes once. All ranks call it.
    ValueError when some samples are in none of them, and as load_state_dict().
    """
    n, words, sums = table.n_samples, table.lines.shape[1], table.loss_sums
    parts = [{k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in part.items()} for part in parts]
    for part in parts:
        if (theirs := part.get("n_samples", len(part["lines"]))) != n:
            raise ValueError(f"the state has n_samples {theirs}, this table {n}")
        table.check_state(part)
    none = torch.empty(0, words + (sums is not None), dtype=torch.int32)
    ids, rows = [torch.empty(0, dtype=torch.int64)], [none]
    for part in parts:
        ids.append(torch.arange(part.get("rank", 0), n, part.get("world_size", 1)))
        columns = [part["lines"]] if sums is None else [part["lines"], part["loss_sums"].view(torch.int32)[:, None]]
        rows.append(torch.cat(columns, 1))
    whole = torch.zeros(len(table.lines), none.shape[1], dtype=torch.int32)
    filled = torch.zeros(len(whole), dtype=torch.bool)
    for came in _travel(table, torch.cat(ids), torch.cat(rows)):
        whole[came[:, 0].long()] = came[:, 1:]
        filled[came[:, 0].long()] = True
    if not bool(filled.all()):
        raise ValueError(f"{int((~filled).sum())} samples are in none of the states; give every rank's, once")
    waiting = [(part["pending_ids"], part["pending_values"]) for part in parts if "pending_ids" in part]
    state = table.state_dict() | {"lines": whole[:, :words], "by_products": all(part["by_products"] for part in parts)}
    state["status"] = sum((part["status"] for part in parts), torch.zeros(len(ops.STATUS), dtype=torch.int32))
    if table.tdds is not None and len(parts) == 1:  # on one process alone
        state["tdds"] = parts[0]["tdds"]
    if sums is not None:
        state["loss_sums"] = whole[:, words].view(torch.float32)
    pending = _joined(waiting)
    if isinstance(table, ShardedTable) and table.reads == "any":
        state["exchanges"] = _most(max((part.get("exchanges", 0) for part in parts), default=0), table.group)
        state["pending_ids"], state["pending_values"] = pending
        table.load_state_dict(state)
    else:
        table.load_state_dict(state)
        _deliver(table, *pending)


def _joined(seen: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """All (ids, values) in one, where the latest are: a checkpoint's lie in memory."""
    if not seen:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, WIRE_WORDS - 1, dtype=torch.int32)
    ids, values = zip(*seen, strict=True)
    device = ids[-1].device
    return torch.cat([part.to(device) for part in ids]), torch.cat([part.to(device) for part in values])


def _most(value: int, group: Any) -> int:
    """The largest of all ranks' values."""
    most = torch.tensor([value], device=wire_device(group))
    dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
    return int(most)


def _travel(table: ScoreTable, ids: torch.Tensor, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Sends rows (M, k) int32 of the samples ids (M,), -1 for none, to the owners of their lines; yields what came
    here, each behind the number of its line, in rounds of at most ROUND_ROWS a rank."""
    sharded = table if isinstance(table, ShardedTable) else None
    count = len(ids) if sharded is None else _most(len(ids), sharded.group)
    for start in range(0, count, ROUND_ROWS):
        some = ids[start : start + ROUND_ROWS]
        there = some >= 0
        some, values = some[there], rows[start : start + ROUND_ROWS][there]
        size = 1 if sharded is None else sharded.world_size
        sent = torch.cat([(some // size).to(torch.int32)[:, None], values], 1)
        yield sent if sharded is None else exchange(sent, some % size, sharded.group)


def _deliver(table: ScoreTable, ids: torch.Tensor, values: torch.Tensor) -> None:
    """Folds observations (M, 3) of the samples ids (M,) into their lines, wherever those are: of a sample the first."""
    device = table.lines.device
    first = torch.full((len(table.lines),), 2**31 - 1, dtype=torch.int32, device=device)
    done = 0
    for came in _travel(table, ids, values):
        for rows in torch.split(came.to(device), FOLD_ROWS):
            line = rows[:, 0].long()
            at = torch.arange(done, done + len(rows), dtype=torch.int32, device=device)
            done += len(rows)
            first.scatter_reduce_(0, line, at, "amin")
            new = first[line] == at
            table.status[ops.DUPLICATES] += (~new).sum()
            _fold(table, line, rows[:, 1:], new)


def _fold(table: ScoreTable, line: torch.Tensor, values: torch.Tensor, new: torch.Tensor) -> None:
    p, margin = values[:, :2].contiguous().view(torch.float32).unbind(1)
    el2n, entropy = values[:, 2:].contiguous().view(torch.float16).float().unbind(1)
    seen = {"p": p.abs(), "margin": margin, "el2n": el2n, "entropy": entropy, "correct": torch.signbit(p)}
    before = table.lines[line, -1] if table.loss_sums is not None else None
    ops.observe(table.as_lines(), line, counted=new, **seen)
    if table.loss_sums is not None and before is not None:
        folded = new & ((table.lines[line, -1] ^ before) & ops.MAX_VISITS != 0)
        least = torch.finfo(torch.float32).tiny  # a kernel's least p lies near it, where minus the margin says more
        nll = torch.maximum(-margin, -p.abs().clamp(min=least).log())
        table.loss_sums.index_add_(0, line, torch.where(folded, nll, 0.0))


def interleaved(parts: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all samples in order of id, from each rank's own."""
    rows = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows


def _check_ids(index: torch.Tensor, n_samples: int) -> None:
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_samples:
        at = int(((index < 0) | (index >= n_samples)).to(torch.int8).argmax())
        raise ValueError(f"index[{at}] is {int(index[at])}; the score table has the samples 0 to {n_samples - 1}")

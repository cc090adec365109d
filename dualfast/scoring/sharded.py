"""Scores of a training on several processes: a sample's line lives on one rank, whichever rank sees the sample.

Sample i belongs to rank i mod W, line i // W there. So any subset in any order (a data set sorted by class, a
selection) spreads evenly over the ranks, as contiguous blocks would not, and the owner follows from the id alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Unpack

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import checked_bool, checked_choice, checked_int
from dualfast.comm.collectives import exchange, gather_rows, wire_device
from dualfast.ops import layout
from dualfast.ops.layout import CORRECT, COUNTED, TAIL_WORDS
from dualfast.scoring.scores import Scores, has_by_products, tails_of
from dualfast.scoring.table import ScoreTable, TableArguments
from dualfast.scoring.trajectories import OTHER_DATA

WIRE_WORDS = 4
"""int32 words of an observation on the wire, 16 bytes: line on the owner | p float32, its sign set when the prediction
was correct | logit margin float32 | EL2N and entropy as two float16. A table that keeps top_other sends a fifth."""
ROUND_ROWS = 1 << 20  # rows that a rank sends at once, which bounds the memory of an exchange
FOLD_ROWS = 8192  # observations folded in one call: the kernel's search for duplicates is quadratic in it
PACK_ROWS = 16384  # observations that wait as the steps left them, until they are packed for the wire


class ShardedTable(ScoreTable):
    """A ScoreTable over the ranks of torch.distributed: 64 bytes times n_samples / W per rank. DualLoss takes it.

    reads "any" (DistributedSampler, Loader(distributed=True), any other): a rank keeps what it observes, and
    exchange(), called by all ranks once per epoch, sends it to the owners, 16 bytes per sample (20 with top_other) in
    all-to-alls of a million rows per rank. Of a sample that occurs twice within an exchange, as in
    DistributedSampler's padding, one visit counts: the first of the lowest rank in the earliest all-to-all. dual,
    dyn_unc, mean, last_mean, aum, late_margin, forgetting, top_other and visits are those of one process with the same
    visits, bit for bit. EL2N and entropy travel as float16 (relative error 2^-11). The loss and aum_prob follow from p
    and margin, as ops.observe says.
    reads "own": every rank visits only the ids in `owned` (PrunedSampler(table.owned)), and records in place.

    group: a torch.distributed group; None: the default one. device: where the lines are; it may differ from the
    logits'. window, epochs and track_... as in ScoreTable; load_parts() restores it on another number of ranks. Not for
    torch.compile or CUDA graphs around the loss. ValueError without a process group, for fewer samples than ranks, for
    tdds, which needs the probabilities of all classes, and for trajectories.
    """

    def __init__(
        self,
        n_samples: int,
        *,
        group: Any = None,
        reads: Literal["any", "own"] = "any",
        tdds: int | None = None,
        trajectories: bool = False,
        **as_in_score_table: Unpack[TableArguments],
    ) -> None:
        if unknown := sorted(as_in_score_table.keys() - TableArguments.__annotations__.keys()):
            raise TypeError(f"ShardedTable has no argument {unknown[0]!r}; it takes those of ScoreTable")
        if not (dist.is_available() and dist.is_initialized()):
            raise ValueError("ShardedTable needs torch.distributed.init_process_group; on one process use ScoreTable")
        checked_choice("reads", reads, ("any", "own"))
        if tdds is not None:
            raise ValueError(
                f"tdds is {tdds}: it compares the probabilities of all classes, which ranks do not exchange; gather it "
                "on one process with ScoreTable(tdds=...), or leave tdds out"
            )
        if checked_bool("trajectories", trajectories):
            raise ValueError(
                f"trajectories is {trajectories}: ranks keep no trajectories; gather them on one process with "
                "ScoreTable(trajectories=...), or leave trajectories out"
            )
        self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
        n_samples = checked_int("n_samples", n_samples, high=2**63 - 1)
        if n_samples < self.world_size:
            raise ValueError(f"n_samples is {n_samples} and there are {self.world_size} ranks; start at most as many")
        n_owned = len(range(self.rank, n_samples, self.world_size))
        super().__init__(n_owned, **as_in_score_table)
        self.group, self.reads = group, reads
        self.total = n_samples
        self.exchanges = 0
        self._observed: list[tuple[torch.Tensor, ops.Observations]] = []  # of the latest steps
        self._packed: list[tuple[torch.Tensor, torch.Tensor]] = []  # ids, wire words

    @property
    def traceable(self) -> bool:
        return False

    @property
    def n_samples(self) -> int:
        return self.total

    @property
    def owned(self) -> NDArray[np.int64]:
        """The ids whose lines live on this rank, ascending."""
        return np.arange(self.rank, self.total, self.world_size)

    # ---- recording --------------------------------------------------------------------------------------------------

    def place(self, index: torch.Tensor) -> tuple[ops.Lines | None, torch.Tensor, ops.Observations | None]:
        """Where a step records the samples `index` (B,): in observations, or with reads="own" in their lines."""
        if not isinstance(index, torch.Tensor) or index.dtype != torch.int64 or index.ndim != 1:
            return self.as_lines(), index, None  # the step raises, naming what is wrong with it
        if index.device.type == "cpu":
            _check_ids(index, self.total)
        if self.reads == "any":
            return None, index, ops.Observations.empty(len(index), index.device, top_others=self.votes is not None)
        foreign = index % self.world_size != self.rank
        if index.device.type == "cpu" and bool(foreign.any()):
            stray = int(index[foreign][0])
            raise ValueError(
                f"index holds sample {stray}, whose line lives on rank {stray % self.world_size}, not on {self.rank}; "
                "visit table.owned alone, or create the table with reads='any'"
            )
        return self.as_lines(), torch.where(foreign, -1, index // self.world_size), None

    def take(self, index: torch.Tensor, observations: ops.Observations) -> None:
        """Keeps what a step saw of the samples `index` (B,) for the next exchange."""
        if self._paused:
            return
        self._observed.append((index.clone(), observations))
        if sum(len(ids) for ids, _ in self._observed) >= PACK_ROWS:
            self._pack()

    def _pack(self) -> None:
        """Packs the observations of the latest steps for the wire."""
        if not self._observed:
            return
        observed, self._observed = self._observed, []
        index = torch.cat([ids for ids, _ in observed])
        values = torch.cat([seen.values for _, seen in observed], 1)
        flags = torch.cat([seen.flags for _, seen in observed])
        bad_targets = (flags & layout.WRONG_TARGET != 0).sum()  # a GPU counts what the CPU raises
        self.status[ops.BAD_TARGET] += bad_targets.to(self.status.device)
        p = torch.where(flags & CORRECT != 0, -values[layout.SEEN_P], values[layout.SEEN_P])
        floats = torch.stack([p, values[layout.SEEN_MARGIN]], 1).view(torch.int32)
        halves = torch.stack([values[layout.SEEN_EL2N], values[layout.SEEN_ENTROPY]], 1).half().view(torch.int32)
        words = [floats, halves]
        if self.votes is not None:
            words.append(torch.cat([top for _, seen in observed if (top := seen.top_others) is not None])[:, None])
        self._packed.append((torch.where(flags & COUNTED != 0, index, -1), torch.cat(words, 1)))

    @property
    def wire_words(self) -> int:
        """int32 words of an observation on the wire."""
        return WIRE_WORDS + (self.votes is not None)

    def _pending(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(M,) int64 ids, -1 for rows that are not visits, and (M, wire_words - 1) int32 values of what waits to be
        exchanged."""
        self._pack()
        self._packed = [_joined(self._packed, self.wire_words - 1)]
        return self._packed[0]

    def exchange(self) -> None:
        """Sends what this rank has observed since the last exchange to the owners, who fold it in. All ranks call it,
        once per epoch."""
        if self.reads == "own":
            return
        ids, values = self._pending()
        self._packed = []
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
        by_products = self._check_all()
        return self._scores_of(tails_of(self.lines, self.window), self.beside, by_products)

    def scores(self) -> Scores:
        """The scores of all samples, on every rank: exchanges what waits and gathers 32 bytes per sample, and 4 for
        each of layout.BESIDE that is kept. All ranks call it. Warns as ScoreTable.scores() does, and when so many
        samples came more than once between exchanges that one must have been forgotten."""
        gathered = self._gathered(None)
        assert gathered is not None
        return gathered

    def scores_on(self, rank: int) -> Scores | None:
        """scores() gathered on one rank only; None on the others, which call it too."""
        return self._gathered(rank)

    def _gathered(self, to: int | None) -> Scores | None:
        self.exchange()
        by_products = self._check_all()
        parts = gather_rows(_joined_columns(tails_of(self.lines, self.window), self.beside), self.group, to)
        if parts is None:
            return None
        tails, beside = _split_columns(interleaved(parts), self.beside)
        return self._scores_of(tails, beside, by_products)

    def _check_all(self) -> bool:
        """Raises and warns on every rank for what any rank has counted; returns whether all visits on all ranks had
        their by-products."""
        lacking = not has_by_products(self.lines[:, -TAIL_WORDS:])
        total = torch.tensor([*self.status.tolist(), lacking], dtype=torch.int64, device=wire_device(self.group))
        dist.all_reduce(total, group=self.group)
        counts = total.tolist()
        if counts[ops.BAD_INDEX]:
            raise ops.bad_index(counts[ops.BAD_INDEX], self.total)
        if counts[ops.BAD_TARGET]:
            raise ops.bad_targets(counts[ops.BAD_TARGET])
        self._note(counts)
        # Samplers pad with up to a batch per rank; a second epoch without an exchange repeats every sample.
        if self.reads == "any" and counts[ops.DUPLICATES] > self.exchanges * self.total / 2:
            warnings.warn(
                f"{counts[ops.DUPLICATES]} visits repeated a sample within one exchange and were left out; call "
                "table.exchange() at the end of every epoch",
                stacklevel=4,
            )
        return not counts[-1]

    # ---- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """This rank's part, with what waits for the next exchange: tensors and plain numbers."""
        ids, values = self._pending()
        part = {"n_samples": self.total, "rank": self.rank, "world_size": self.world_size, "exchanges": self.exchanges}
        return super().state_dict() | part | {"pending_ids": ids, "pending_values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict() gave on the same rank of as many; ValueError for another, and as in ScoreTable.
        load_parts() restores it on any number of ranks."""
        for name, own in (("n_samples", self.total), ("world_size", self.world_size), ("rank", self.rank)):
            if state.get(name) != own:
                ranks = "load_parts() takes the states of any number of ranks"
                way = OTHER_DATA if name == "n_samples" else ranks
                raise ValueError(f"the state has {name} {state.get(name)}, this table {own}; {way}")
        exchanges = checked_int("exchanges of the state", state.get("exchanges"))
        self.check_state(state)
        ids, values = _waiting(state)
        super().load_state_dict(state)
        self.exchanges = exchanges
        self._observed, self._packed = [], [(ids, values[:, : self.wire_words - 1])]


def _waiting(state: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """The observations of a state that wait for an exchange; without by-products their margin is NaN, where version 0.1
    has 0."""
    ids, values = state.get("pending_ids"), state.get("pending_values")
    if not (
        isinstance(ids, torch.Tensor)
        and isinstance(values, torch.Tensor)
        and (ids.ndim, values.ndim, len(ids)) == (1, 2, len(values))
        and values.shape[1] >= WIRE_WORDS - 1
        and not ids.is_floating_point()
        and values.dtype == torch.int32
    ):
        raise ValueError("pending_ids and pending_values of the state do not fit; give what state_dict() returned")
    if not state["by_products"]:
        values = values.clone()
        values[:, 1] = torch.full((len(values),), torch.nan).view(torch.int32)
    return ids, values


def load_parts(table: ScoreTable, parts: Sequence[Mapping[str, Any]]) -> None:
    """Restores a table, on ranks or on one process, from what state_dict() gave on any number of ranks (a ScoreTable's
    counts as one rank's). Lines go to their new owners bit for bit, and what waits for an exchange waits again; one
    process folds it in at once.

    parts: the states that this rank has read, in order of rank; over all ranks every part comes once. All ranks call
    it. ValueError when some samples are in none of them, and as load_state_dict().
    """
    n = table.n_samples
    parts = [{k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in part.items()} for part in parts]
    for part in parts:
        table.check_state(part)
        if (saved := part.get("n_samples", len(part["lines"]))) != n:
            raise ValueError(f"the state has n_samples {saved}, this table {n}; {OTHER_DATA}")
    names = [name for name in table.beside if all(name in part for part in parts)]
    none = torch.empty(0, table.lines.shape[1] + len(names), dtype=torch.int32)
    ids, rows = [torch.empty(0, dtype=torch.int64)], [none]
    for part in parts:
        ids.append(torch.arange(part.get("rank", 0), n, part.get("world_size", 1)))
        rows.append(_joined_columns(part["lines"], {name: part[name] for name in names}))
    whole = torch.zeros(len(table.lines), none.shape[1], dtype=torch.int32)
    filled = torch.zeros(len(whole), dtype=torch.bool)
    for arrived in _send(table, torch.cat(ids), torch.cat(rows)):
        whole[arrived[:, 0].long()] = arrived[:, 1:]
        filled[arrived[:, 0].long()] = True
    if not bool(filled.all()):
        raise ValueError(f"{int((~filled).sum())} samples are in none of the states; give every rank's once")
    waiting = [_waiting(part) for part in parts if "pending_ids" in part]
    lines, beside = _split_columns(whole, names)
    state = {name: value for name, value in table.state_dict().items() if name not in ops.BESIDE} | beside
    state |= {"lines": lines, "by_products": all(part["by_products"] for part in parts)}
    state["status"] = sum((part["status"] for part in parts), torch.zeros(len(ops.STATUS), dtype=torch.int32))
    if len(parts) == 1:  # these are only kept on one process
        state |= {name: parts[0].get(name) for name in ("tdds", "trajectories")}
    pending = _joined(waiting, WIRE_WORDS - 1 + ("votes" in names))
    if isinstance(table, ShardedTable) and table.reads == "any":
        state["exchanges"] = _max_over_ranks(max((part.get("exchanges", 0) for part in parts), default=0), table.group)
        state["pending_ids"], state["pending_values"] = pending
        table.load_state_dict(state)
    else:
        table.load_state_dict(state)
        _deliver(table, *pending)


def _joined(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], words: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All (ids, values) as one pair, values (M, words), on the device of the last; a checkpoint's are in memory."""
    if not pairs:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, words, dtype=torch.int32)
    ids, values = zip(*pairs, strict=True)
    device = ids[-1].device
    return torch.cat([part.to(device) for part in ids]), torch.cat([part[:, :words].to(device) for part in values])


def _max_over_ranks(value: int, group: Any) -> int:
    largest = torch.tensor([value], device=wire_device(group))
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return int(largest)


def _send(table: ScoreTable, ids: torch.Tensor, rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Sends rows (M, k) int32 of the samples ids (M,), -1 for none, to the owners of their lines; yields the rows that
    arrive here (m, 1 + k), the number of the line first, in rounds of at most ROUND_ROWS per rank."""
    sharded = table if isinstance(table, ShardedTable) else None
    count = len(ids) if sharded is None else _max_over_ranks(len(ids), sharded.group)
    for start in range(0, count, ROUND_ROWS):
        part = ids[start : start + ROUND_ROWS]
        valid = part >= 0
        part, values = part[valid], rows[start : start + ROUND_ROWS][valid]
        size = 1 if sharded is None else sharded.world_size
        sent = torch.cat([(part // size).to(torch.int32)[:, None], values], 1)
        yield sent if sharded is None else exchange(sent, part % size, sharded.group)


def _deliver(table: ScoreTable, ids: torch.Tensor, values: torch.Tensor) -> None:
    """Folds observations (M, 3 or 4) of the samples ids (M,) into their lines, on whichever rank those are; of each
    sample the first."""
    device = table.lines.device
    first = torch.full((len(table.lines),), 2**31 - 1, dtype=torch.int32, device=device)
    done = 0
    for arrived in _send(table, ids, values):
        for rows in torch.split(arrived.to(device), FOLD_ROWS):
            line = rows[:, 0].long()
            at = torch.arange(done, done + len(rows), dtype=torch.int32, device=device)
            done += len(rows)
            first.scatter_reduce_(0, line, at, "amin")
            new = first[line] == at
            table.status[ops.DUPLICATES] += (~new).sum()
            _fold(table, line, rows[:, 1:], new)


def _fold(table: ScoreTable, line: torch.Tensor, values: torch.Tensor, new: torch.Tensor) -> None:
    p, margin = values[:, :2].contiguous().view(torch.float32).unbind(1)
    el2n, entropy = values[:, 2:3].contiguous().view(torch.float16).float().unbind(1)
    seen = {"p": p.abs(), "margin": margin, "el2n": el2n, "entropy": entropy, "correct": torch.signbit(p)}
    if table.votes is not None:
        seen["top_other"] = values[:, 3]
    ops.observe(table.as_lines(), line, counted=new, **seen)


def _joined_columns(lines: torch.Tensor, beside: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """lines (N, words) int32 and the bits of what is beside them, (N,) each, as further columns."""
    return torch.cat([lines, *(value.view(torch.int32)[:, None] for value in beside.values())], 1)


def _split_columns(rows: torch.Tensor, names: Iterable[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """What _joined_columns() joined: lines (N, words) int32, and what was beside them by its names in ops.Lines."""
    names = list(names)
    words = rows.shape[1] - len(names)
    return rows[:, :words], {name: rows[:, words + i].view(ops.BESIDE[name]) for i, name in enumerate(names)}


def interleaved(parts: list[torch.Tensor]) -> torch.Tensor:
    """The rows of all samples in order of id, from the rows that each rank owns."""
    rows = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows


def _check_ids(index: torch.Tensor, n_samples: int) -> None:
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < n_samples:
        at = int(((index < 0) | (index >= n_samples)).to(torch.int8).argmax())
        raise ValueError(f"index[{at}] is {int(index[at])}; the score table has the samples 0 to {n_samples - 1}")

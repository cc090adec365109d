"""ScoreTable: one line of memory per sample, filled while a classifier trains."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypedDict

import numpy as np
import torch

from dualfast import ops
from dualfast.arguments import checked_bool, checked_int
from dualfast.config import DEFAULT_WINDOW
from dualfast.ops import layout
from dualfast.scoring.scores import Scores as Scores
from dualfast.scoring.scores import has_by_products, scores_of, tails_of
from dualfast.scoring.tdds import Tdds
from dualfast.scoring.trajectories import OTHER_DATA, Trajectories, evaluate


class TableArguments(TypedDict, total=False):
    """The arguments of ScoreTable that a table over ranks takes too."""

    window: int
    epochs: int | None
    track_loss: bool
    track_aum_prob: bool
    track_late_margin: bool
    track_top_other: bool
    device: str | torch.device


class ScoreTable:
    """The state of N samples while they are scored: 64 bytes each for a window of up to 10 visits.

    window J (at least 2): visits in DUAL's sliding window; J > 10 takes longer lines, in multiples of 64 bytes. epochs
    T: visits after a sample's T-th are not recorded; None: all are, up to 4,095. track_loss, track_aum_prob,
    track_late_margin and track_top_other keep the score of that name too, 4 bytes per sample each. tdds, the number of
    classes C, keeps that score too, 2 C + 4 J bytes per sample; more than tdds_bytes (2 GiB) in all are refused.
    trajectories keeps p and margin of every visit for the scores registered with dualfast.score: 8 bytes per sample and
    visit, in a memory-mapped file, which is temporary for True and else at the given path; not under torch.compile or
    CUDA graphs. Checkpoints contain them. Raises ValueError for sizes that cannot be, among them epochs < window.
    """

    def __init__(
        self,
        n_samples: int,
        *,
        window: int = DEFAULT_WINDOW,
        epochs: int | None = None,
        track_loss: bool = False,
        track_aum_prob: bool = False,
        track_late_margin: bool = False,
        track_top_other: bool = False,
        tdds: int | None = None,
        tdds_bytes: int = 2**31,
        trajectories: bool | str | os.PathLike[str] = False,
        device: str | torch.device = "cpu",
    ) -> None:
        wanted = {
            "loss": track_loss,
            "aum_prob": track_aum_prob,
            "late_margin": track_late_margin,
            "top_other": track_top_other,
        }
        tracked = [score for score in wanted if checked_bool(f"track_{score}", wanted[score])]
        lines = ops.Lines.zeros(n_samples, window, epochs, tracked=tracked, device=device)
        self.lines, self.status, self.window, self.limit = lines.lines, lines.status, lines.window, lines.limit
        self.loss_sums, self.prob_margin_sums = lines.loss_sums, lines.prob_margin_sums
        self.late_margin_sums, self.votes = lines.late_margin_sums, lines.votes
        self.epochs = None if epochs is None else self.limit
        self.trajectories = None
        if not isinstance(trajectories, bool | np.bool_ | None):
            self.trajectories = Trajectories(len(self.lines), trajectories)
        elif trajectories:
            self.trajectories = Trajectories(len(self.lines))
        self._paused = False
        self.tdds = None
        if tdds is not None:
            tdds, tdds_bytes = checked_int("tdds", tdds), checked_int("tdds_bytes", tdds_bytes, 0, 2**63 - 1)
            if tdds < 1:
                raise ValueError(f"tdds is {tdds}; give the number of classes of the logits")
            n_samples = len(self.lines)
            needed = n_samples * tdds * 2
            if needed > tdds_bytes:
                raise ValueError(
                    f"tdds keeps the last probabilities of {n_samples} samples x {tdds} classes: {needed} bytes, more "
                    f"than tdds_bytes, {tdds_bytes}; raise it, or leave tdds out"
                )
            self.tdds = Tdds(n_samples, tdds, self.window, self.limit, device)

    @property
    def n_samples(self) -> int:
        return len(self.lines)

    @property
    def traceable(self) -> bool:
        """Whether a step may record under torch.compile."""
        return self.trajectories is None

    def as_lines(self) -> ops.Lines:
        """The lines as the operations take them."""
        beside = (self.loss_sums, self.prob_margin_sums, self.late_margin_sums, self.votes)
        return ops.Lines(self.lines, self.status, *beside, self.window, self.limit)

    @property
    def beside(self) -> dict[str, torch.Tensor]:
        """What the table keeps beside its lines, (N,) each, by their names in ops.Lines."""
        return {name: value for name in ops.BESIDE if (value := getattr(self, name)) is not None}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is recorded inside: for warm-up steps, for example before the capture of a CUDA graph.

        The switch is on the device: a graph captured inside records when it is replayed outside. Enter and leave it
        outside the capture itself, on the stream that the others wait for.
        """
        self._paused = True
        self.status[ops.PAUSED] = 1
        try:
            yield
        finally:
            self._paused = False
            self.status[ops.PAUSED] = 0

    def place(self, index: torch.Tensor) -> tuple[ops.Lines | None, torch.Tensor, ops.Observations | None]:
        """Where a step records the samples `index` (B,): lines, the row of each sample there, and observations, which
        take() gets after the step."""
        if self.trajectories is None or self._paused or not isinstance(index, torch.Tensor) or index.ndim != 1:
            return self.as_lines(), index, None
        return self.as_lines(), index, ops.Observations.empty(len(index), index.device)

    def take(self, index: torch.Tensor, observations: ops.Observations) -> None:
        """Keeps what a step saw of the samples `index` (B,)."""
        assert self.trajectories is not None
        folded = observations.flags & layout.FOLDED != 0
        rows = torch.where(folded, index, 0)
        visits = layout.VISITS.of(self.lines[rows, layout.COUNTERS - layout.TAIL_WORDS]).to(torch.int64) - 1
        values = observations.values[[layout.SEEN_P, layout.SEEN_MARGIN]]
        self.trajectories.record(rows, torch.where(folded, visits, -1), values)

    def exchange(self) -> None:
        """To be called at the end of each epoch; changes no score on one process. See ShardedTable."""
        if self.trajectories is not None:
            self.trajectories.flush()

    def scores(self) -> Scores:
        """The scores so far, float64; warns when visits were skipped because their logits were not finite.

        aum, aum_prob, late_margin, el2n and entropy are None when a step left them out of some visit
        (by_products=False)."""
        self._note(ops.check_status(self.as_lines()))
        by_products = has_by_products(self.lines[:, -layout.TAIL_WORDS :])
        return self._scores_of(tails_of(self.lines, self.window), self.beside, by_products)

    def scores_on(self, rank: int) -> Scores | None:
        """The scores; a ShardedTable gives them to `rank` alone, None to the others."""
        return self.scores()

    def _scores_of(self, tails: torch.Tensor, beside: Mapping[str, torch.Tensor], by_products: bool) -> Scores:
        """Scores from tails_of() the lines and what is kept beside them (N,)."""
        columns: dict[str, Any] = {"tdds": None if self.tdds is None else self.tdds.scores().cpu().numpy()}
        if self.trajectories is not None:
            columns |= evaluate(*self.trajectories.arrays())
        return scores_of(tails, self.window, beside=beside, by_products=by_products, **columns)

    def _note(self, status: list[int]) -> None:
        if status[ops.NON_FINITE]:
            warnings.warn(
                f"{status[ops.NON_FINITE]} visits had logits that are not finite and were not recorded", stacklevel=3
            )

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only: loads with torch.load(weights_only=True)."""
        return {
            "lines": self.lines,
            "status": self.status,
            **{name: getattr(self, name) for name in ops.BESIDE},
            "by_products": has_by_products(self.lines[:, -layout.TAIL_WORDS :]),
            "tdds": None if self.tdds is None else self.tdds.state_dict(),
            "trajectories": None if self.trajectories is None else self.trajectories.state_dict(),
            "window": self.window,
            "epochs": self.epochs,
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when a state lacks something, has another window or epochs, or keeps other scores;
        TypeError for what is no state."""
        if not isinstance(state, Mapping):
            raise TypeError(f"the state is a {type(state).__name__}; give what state_dict() returned")
        needed = {"lines", "status", "loss_sums", "by_products", "tdds", "window", "epochs"}
        if missing := sorted(needed - state.keys()):
            raise ValueError(f"the state lacks {', '.join(missing)}; give what state_dict() returned")
        tensors = ["lines", "status", *(name for name in ops.BESIDE if state.get(name) is not None)]
        if odd := [name for name in tensors if not isinstance(state[name], torch.Tensor)]:
            raise TypeError(
                f"{odd[0]} of the state is a {type(state[odd[0]]).__name__}; give what state_dict() returned"
            )
        if not isinstance(state["by_products"], bool):
            raise TypeError(
                f"by_products of the state is {state['by_products']!r:.80}; give what state_dict() returned"
            )
        for name, own in {"lines": self.lines, "status": self.status, **self.beside}.items():
            if (given := state.get(name, own)) is not None and given.dtype != own.dtype:
                raise TypeError(
                    f"{name} of the state are {given.dtype}, not {own.dtype}; give what state_dict() returned"
                )
        for name in ("window", "epochs"):
            if not isinstance(state[name], int | None):
                raise TypeError(f"{name} of the state is {state[name]!r:.80}; give what state_dict() returned")
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the state has {name} {state[name]}, this table {getattr(self, name)}; give the table the state's"
                )
        for name, score in layout.BESIDE.items():
            if name in state and (state[name] is None) != (getattr(self, name) is None):
                raise ValueError(
                    f"only one of the state and this table tracks {score}; give track_{score} the same value"
                )
        if (state["tdds"] is None) != (self.tdds is None):
            raise ValueError("only one of the state and this table keeps tdds; give tdds the same value")
        if (state.get("trajectories") is None) != (self.trajectories is None):
            raise ValueError("only one of the state and this table keeps trajectories; give trajectories to both")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict() gave; ValueError when its size, window, epochs or kept scores differ. A state of
        version 0.1 has no aum_prob, late_margin and top_other: the table keeps none from then on."""
        self.check_state(state)
        lines = state["lines"]
        if tuple(lines.shape) != tuple(self.lines.shape):
            raise ValueError(
                f"the state holds {tuple(lines.shape)} lines, this table {tuple(self.lines.shape)}; {OTHER_DATA}"
            )
        for name, own in {"status": self.status, **self.beside}.items():
            if state.get(name, own).shape != own.shape:
                raise ValueError(
                    f"{name} of the state is {tuple(state[name].shape)}, not {tuple(own.shape)}; {OTHER_DATA}"
                )
        if self.trajectories is not None:
            visits = layout.VISITS.of(lines[:, layout.COUNTERS - layout.TAIL_WORDS])
            self.trajectories.check_state(state["trajectories"], int(visits.max()))
        self.lines.copy_(lines)
        self.status.copy_(state["status"])
        for name, value in self.beside.items():
            if name in state:
                value.copy_(state[name])
            else:
                setattr(self, name, None)
        tails = self.lines[:, -layout.TAIL_WORDS :]
        if not state["by_products"] and has_by_products(tails):  # version 0.1 noted it nowhere else
            visited = layout.VISITS.of(tails[:, layout.COUNTERS]) > 0
            nan = torch.tensor(float("nan"), device=tails.device).view(torch.int32)
            tails[:, layout.MARGIN_SUM] = torch.where(visited, nan, tails[:, layout.MARGIN_SUM])
        if self.tdds is not None:
            self.tdds.load_state_dict(state["tdds"])
        if self.trajectories is not None:
            self.trajectories.load_state_dict(state["trajectories"])

"""What a step takes: its tensors, its options, and where it records."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from dualfast.arguments import checked_bool, checked_choice, checked_int
from dualfast.ops import layout

Reduction = Literal["mean", "sum", "none"]
BACKENDS = ("auto", "cpp", "triton", "torch")


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step computes; every back end takes it. Raises TypeError and ValueError for values that cannot
    be."""

    backend: str = "auto"
    reduction: str = "mean"
    """mean, sum or none, as in torch.nn.functional.cross_entropy; so are label_smoothing and ignore_index."""
    label_smoothing: float = 0.0
    ignore_index: int = -100
    by_products: bool = True
    """The margins, EL2N and entropy too; without them they are recorded as NaN."""
    inplace: bool = False
    """Write the gradient over the logits."""
    with_grad: bool = True
    scale: float = 1.0
    """What the gradient is multiplied by."""

    def __post_init__(self) -> None:
        check_options(self.label_smoothing, self.reduction)
        checked_int("ignore_index", self.ignore_index, -(2**63), 2**63 - 1)
        for switch in ("by_products", "inplace", "with_grad"):
            checked_bool(switch, getattr(self, switch))
        checked_choice("backend", self.backend, BACKENDS)
        if not math.isfinite(self.scale):
            raise ValueError(f"scale is {self.scale}; give a finite number")


STEP_OPTIONS = tuple(field.name for field in fields(StepOptions))
_cached = lru_cache(maxsize=256, typed=True)(StepOptions)  # a look-up takes a tenth of the time of construction


def step_options(*values: Any) -> StepOptions:
    """The options of these values, in the order of STEP_OPTIONS."""
    try:
        return _cached(*values)
    except TypeError:  # one cannot be hashed: its check says more
        return StepOptions(*values)


def check_options(label_smoothing: float, reduction: str) -> None:
    """Raises TypeError and ValueError when one of them cannot be."""
    if not isinstance(label_smoothing, int | float | np.number) or isinstance(label_smoothing, bool):
        raise TypeError(f"label_smoothing is {label_smoothing!r}; give a number in [0, 1]")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; give a number in [0, 1]")
    checked_choice("reduction", reduction, ("mean", "sum", "none"))


BESIDE = {name: torch.int32 if name == "votes" else torch.float32 for name in layout.BESIDE}
"""What a table may keep beside its lines, (n_samples,) each, by their names in Lines."""


class Lines(NamedTuple):
    """The lines of a table: lines (n_samples, words) int32, status int32 (layout.STATUS), the sums over the visits of
    the cross-entropy, of the probabilities' margin and of k^2 times the margin of the k-th visit, (n_samples,) float32
    or None each, the vote of the visits for the wrong class with the largest logit, (n_samples,) int32
    (layout.VOTE_FIELDS) or None, the window J, and the number of visits per sample after which none is recorded."""

    lines: torch.Tensor
    status: torch.Tensor
    loss_sums: torch.Tensor | None
    prob_margin_sums: torch.Tensor | None
    late_margin_sums: torch.Tensor | None
    votes: torch.Tensor | None
    window: int
    limit: int

    @property
    def n_samples(self) -> int:
        return len(self.lines)

    @classmethod
    def zeros(
        cls,
        n_samples: int,
        window: int,
        epochs: int | None = None,
        *,
        tracked: Collection[str] = (),
        device: str | torch.device = "cpu",
    ) -> Lines:
        """Lines of samples that were never visited; visits after the `epochs`-th are not recorded. tracked: the scores
        of layout.BESIDE that are kept. TypeError and ValueError for sizes that cannot be, among them epochs < window.
        """
        n_samples, window, limit = _sizes(n_samples, window, epochs)
        given: Any = device  # the number of a GPU, too, as torch takes it
        if not isinstance(given, str | torch.device) and not (isinstance(given, int) and 0 <= given < MAX_DEVICES):
            raise TypeError(f"device is {device!r:.80}; give a torch.device, or text such as 'cpu'")
        shape = n_samples, layout.line_words(window)
        try:
            lines = torch.zeros(shape, dtype=torch.int32, device=device)
        except (RuntimeError, AssertionError) as error:  # AssertionError: a CPU build of torch is asked for CUDA
            why = str(error).partition("\n")[0]
            if "memory" in why:
                raise MemoryError(f"{n_samples} lines take {4 * math.prod(shape)} bytes on {device}: {why}") from error
            raise ValueError(f"device is {str(device)!r}, which cannot hold the table: {why}") from error
        if lines.is_meta:
            raise ValueError("device is 'meta', which cannot hold the table: it keeps no values; give cpu or a GPU")
        status = torch.zeros(len(layout.STATUS), dtype=torch.int32, device=device)
        loss_sums, prob_margin_sums, late_margin_sums, votes = (
            torch.zeros(n_samples, dtype=BESIDE[name], device=device) if score in tracked else None
            for name, score in layout.BESIDE.items()
        )
        return cls(lines, status, loss_sums, prob_margin_sums, late_margin_sums, votes, window, limit)


MAX_DEVICES = 128  # that torch can number


def _sizes(n_samples: int, window: int, epochs: int | None) -> tuple[int, int, int]:
    """n_samples, window and the limit of visits, checked."""
    for name, value in (("n_samples", n_samples), ("window", window), ("epochs", epochs)):
        if not (name == "epochs" and value is None):
            checked_int(name, value)
    if not 1 <= n_samples < 2**63:
        raise ValueError(f"n_samples is {n_samples}; give at least 1, and no more than memory holds")
    if window < 2:
        raise ValueError(f"window is {window}; a standard deviation needs at least 2 visits")
    if window > layout.MAX_VISITS:
        raise ValueError(f"window is {window}; a sample counts {layout.MAX_VISITS} visits at most")
    if epochs is not None and not window <= epochs <= layout.MAX_VISITS:
        raise ValueError(
            f"epochs is {epochs} and window is {window}: DUAL needs at least as many epochs as its window, and at most "
            f"{layout.MAX_VISITS}; raise epochs or lower window"
        )
    return int(n_samples), int(window), layout.MAX_VISITS if epochs is None else int(epochs)


class Observations(NamedTuple):
    """What a step saw in each row: values (4, B) float32 (layout.OBSERVED), flags (B,) uint8 (layout.FLAGS) and, unless
    None, the wrong class with the largest logit, (B,) int32.

    Values are set where COUNTED is; there p is NaN when the row's loss is not finite."""

    values: torch.Tensor
    flags: torch.Tensor
    top_others: torch.Tensor | None = None

    @classmethod
    def empty(cls, rows: int, device: torch.device, *, top_others: bool = False) -> Observations:
        values = torch.empty(len(layout.OBSERVED), rows, dtype=torch.float32, device=device)
        flags = torch.empty(rows, dtype=torch.uint8, device=device)
        return cls(values, flags, torch.empty(rows, dtype=torch.int32, device=device) if top_others else None)


class StepInputs(NamedTuple):
    """The tensors of a step: logits (B, C), targets and index (B,) int64, class weights (C,) or None, and where the
    visits are recorded."""

    logits: torch.Tensor
    targets: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index
    weight: torch.Tensor | None
    lines: Lines | None
    observations: Observations | None

    @property
    def need_top_others(self) -> bool:
        """Whether the wrong class with the largest logit is recorded."""
        voted = self.lines is not None and self.lines.votes is not None
        return voted or (self.observations is not None and self.observations.top_others is not None)

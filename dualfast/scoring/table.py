"""ScoreTable: one line of memory a sample, filled while a classifier trains. Scores: what the lines come to."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
import torch

from dualfast import ops
from dualfast.scoring.tdds import Tdds
from dualfast.storage.files import atomic

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

LINE_WORDS = 16
TAIL_WORDS = 7


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of N samples, 1-D arrays of length N; `dual` and `mean` are needed, the others may be None.

    dual        mean over windows of std * (1 - mean) of the true-class probability (arXiv 2502.06905); high: keep
    dyn_unc     mean over windows of std (arXiv 2306.05175); high: keep
    mean        mean true-class probability over the visits, in [0, 1]
    aum         mean of the true logit minus the largest other (arXiv 2001.10528); low: hard or mislabelled
    el2n        mean over the first ten visits of the L2 norm of softmax minus one-hot (arXiv 2107.07075); high: keep
    entropy     of the softmax at the last visit, in nats (arXiv 1906.11829); high: keep
    tdds        moving average of how unevenly the softmax changes from visit to visit (arXiv 2311.13613); high: keep
    forgetting  correct to wrong transitions; a sample never right has its visits + 1 (arXiv 1812.05159); high: keep
    loss        mean cross-entropy over the visits
    visits      how often the sample was seen

    A score that needs more visits than a sample had is NaN. Raises TypeError and ValueError for arrays that do not fit.
    """

    dual: Array
    mean: Array
    dyn_unc: Array | None = None
    aum: Array | None = None
    el2n: Array | None = None
    entropy: Array | None = None
    forgetting: Array | None = None
    loss: Array | None = None
    tdds: Array | None = None
    visits: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                if field.name in ("dual", "mean"):
                    raise TypeError(f"{field.name} is None; Scores needs dual and mean")
                continue
            array = np.asarray(value)
            if array.ndim != 1 or array.dtype.kind not in "fiu":
                raise ValueError(f"{field.name} has shape {array.shape} and dtype {array.dtype}; give 1-D numbers")
            if len(array) != len(self.dual):
                raise ValueError(f"{field.name} has {len(array)} samples and dual has {len(self.dual)}")
            object.__setattr__(self, field.name, array)

    def __len__(self) -> int:
        return len(self.dual)

    def save(self, path: str | os.PathLike[str], *, labels: Any = None, fingerprint: str | None = None) -> None:
        """Writes a Parquet table with the columns id, label (when given) and one for each score, all at once."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns: dict[str, Any] = {"id": np.arange(len(self), dtype=np.int64)}
        if labels is not None:
            labels = np.asarray(labels)
            if labels.shape != (len(self),):
                raise ValueError(f"labels have the shape {labels.shape}; {len(self)} samples need ({len(self)},)")
            columns["label"] = labels.astype(np.int64)
        columns |= {f.name: v for f in fields(self) if (v := getattr(self, f.name)) is not None}
        about = json.dumps({"n_samples": len(self), "fingerprint": fingerprint})
        table = pa.table(columns).replace_schema_metadata({"dualfast": about})
        with atomic(path) as part:
            pq.write_table(table, part)

    @staticmethod
    def about(path: str | os.PathLike[str]) -> dict[str, Any]:
        """What save() noted: n_samples; fingerprint, and labels (N,) int64 in order of id, or None."""
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        labels = None
        if "label" in schema.names:
            table = pq.read_table(path, columns=[name for name in ("id", "label") if name in schema.names])
            labels = (table.sort_by("id") if "id" in schema.names else table)["label"].to_numpy()
        noted = json.loads((schema.metadata or {}).get(b"dualfast", b"{}"))
        return {"n_samples": None, "fingerprint": None, **noted, "labels": labels}

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, fingerprint: str | None = None) -> Scores:
        """Reads a table that save() wrote, rows in order of id.

        Raises ValueError for a missing, damaged or foreign file, and when `fingerprint` is given and the file was
        written for other data.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise ValueError(f"{os.fspath(path)!r} is no score table: {str(error).splitlines()[0]}") from None
        missing = {"dual", "mean"} - set(table.column_names)
        if missing:
            raise ValueError(
                f"{os.fspath(path)!r} has no column {sorted(missing)[0]!r}; it has {', '.join(table.column_names)}"
            )
        about = json.loads((table.schema.metadata or {}).get(b"dualfast", b"{}"))
        theirs = about.get("fingerprint")
        if fingerprint is not None and theirs is not None and theirs != fingerprint:
            raise ValueError(f"{os.fspath(path)!r} was written for the data {theirs}; these are {fingerprint}")
        if "id" in table.column_names:
            ids = table["id"].to_numpy()
            if not np.array_equal(ids, np.arange(len(ids))):
                table = table.sort_by("id")
                if not np.array_equal(table["id"].to_numpy(), np.arange(len(ids))):
                    raise ValueError(f"{os.fspath(path)!r} has gaps or repeats in its ids; they must be 0 to N-1")
        return cls(**{f.name: table[f.name].to_numpy() for f in fields(cls) if f.name in table.column_names})


class ScoreTable:
    """The state of N samples while they are scored: 64 bytes each for a window of up to 10 visits.

    window J (2 and up): visits in the sliding window of DUAL; J > 10 takes longer lines, in multiples of 64 bytes.
    epochs T: visits after a sample's T-th are not folded in; None: all, up to 4,095. track_loss keeps the mean loss
    too, 4 bytes more. tdds, the number of classes C, keeps that score too, at 2 C + 4 J bytes a sample; more than
    tdds_bytes (2 GiB) in all are refused. Raises ValueError for sizes that cannot be, among them epochs < window.
    """

    traceable = True  # a step may record under torch.compile

    def __init__(
        self,
        n_samples: int,
        *,
        window: int = 10,
        epochs: int | None = None,
        track_loss: bool = False,
        tdds: int | None = None,
        tdds_bytes: int = 2**31,
        device: str | torch.device = "cpu",
    ) -> None:
        for name, value in (("n_samples", n_samples), ("window", window), ("epochs", epochs), ("tdds", tdds)):
            if not isinstance(value, int | np.integer) and not (name in ("epochs", "tdds") and value is None):
                raise TypeError(f"{name} is {value!r}; give an integer")
        n_samples, window, epochs = int(n_samples), int(window), None if epochs is None else int(epochs)
        if n_samples < 1:
            raise ValueError(f"n_samples is {n_samples}; give at least 1")
        if window < 2:
            raise ValueError(f"window is {window}; a standard deviation needs at least 2 visits")
        if epochs is not None and not window <= epochs <= ops.MAX_VISITS:
            raise ValueError(
                f"epochs is {epochs} and window is {window}: DUAL needs at least as many epochs as its window, and at "
                f"most {ops.MAX_VISITS}; raise epochs or lower window"
            )
        self.window, self.epochs = window, epochs
        words = -(-(window - 1 + TAIL_WORDS) // LINE_WORDS) * LINE_WORDS
        self.lines = torch.zeros(n_samples, words, dtype=torch.int32, device=device)
        self.status = torch.zeros(len(ops.STATUS), dtype=torch.int32, device=device)
        self.loss_sums = torch.zeros(n_samples, device=device) if track_loss else None
        self.by_products = True  # False once a step left out margin, EL2N and entropy
        self.tdds = None
        if tdds is not None:
            if tdds < 1:
                raise ValueError(f"tdds is {tdds}; give the number of classes of the logits")
            needed = n_samples * tdds * 2
            if needed > tdds_bytes:
                raise ValueError(
                    f"tdds keeps the last probabilities of {n_samples} samples x {tdds} classes: {needed} bytes, more "
                    f"than tdds_bytes, {tdds_bytes}; raise it, or leave tdds out"
                )
            self.tdds = Tdds(n_samples, tdds, window, self.limit, device)

    @property
    def n_samples(self) -> int:
        return len(self.lines)

    @property
    def limit(self) -> int:
        """Visits after so many are not folded in."""
        return ops.MAX_VISITS if self.epochs is None else self.epochs

    def as_lines(self) -> ops.Lines:
        """What the operations take."""
        return ops.Lines(self.lines, self.status, self.loss_sums, self.window, self.limit)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is recorded inside: for warm-up steps, as before the capture of a CUDA graph.

        The switch is on the device: a graph captured inside records when it is replayed outside. Enter and leave it
        outside the capture itself, on the stream that the others wait for.
        """
        self.status[ops.PAUSED] = 1
        try:
            yield
        finally:
            self.status[ops.PAUSED] = 0

    def place(self, index: torch.Tensor) -> tuple[ops.Lines, torch.Tensor]:
        """Where a step records the samples `index` (B,): the lines, and the row of each sample there."""
        return self.as_lines(), index

    def exchange(self) -> None:
        """The end of an epoch: nothing to do on one process; see ShardedTable."""

    def scores(self) -> Scores:
        """The scores so far, float64; warns when visits were skipped for logits that are not finite."""
        self._note(ops.check_status(self.as_lines()))
        return self._scores_of(self.lines[:, -TAIL_WORDS:].cpu(), self.loss_sums)

    def scores_on(self, rank: int) -> Scores | None:
        """scores(), whatever the rank; see ShardedTable."""
        return self.scores()

    def _scores_of(self, tails: torch.Tensor, loss_sums: torch.Tensor | None) -> Scores:
        """What lines come to, from their last seven words (N, 7) int32 in memory and the sums of the loss (N,)."""
        words = tails.contiguous().numpy()
        tail = words.view(np.float32).astype(np.float64)
        packed = words[:, -1].view(np.uint32)
        visits = (packed & 0xFFF).astype(np.int64)
        forgotten = ((packed >> 12) & 0xFFF).astype(np.float64)
        ever = (packed >> 25) & 1
        windows = np.maximum(visits - self.window + 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            seen = np.where(visits > 0, visits, np.nan)
            full = np.where(windows > 0, windows, np.nan)
            return Scores(
                dual=tail[:, 0] / full,
                dyn_unc=tail[:, 1] / full,
                mean=tail[:, 2] / seen,
                aum=tail[:, 3] / seen if self.by_products else None,
                el2n=tail[:, 4] / np.minimum(seen, ops.EL2N_VISITS) if self.by_products else None,
                entropy=np.where(visits > 0, tail[:, 5], np.nan) if self.by_products else None,
                forgetting=np.where(visits == 0, np.nan, np.where(ever == 1, forgotten, visits + 1.0)),
                loss=None if loss_sums is None else loss_sums.cpu().numpy().astype(np.float64) / seen,
                tdds=None if self.tdds is None else self.tdds.scores().cpu().numpy(),
                visits=visits,
            )

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
            "loss_sums": self.loss_sums,
            "by_products": self.by_products,
            "tdds": None if self.tdds is None else self.tdds.state_dict(),
            "window": self.window,
            "epochs": self.epochs,
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when a state is of another window or epochs, or keeps other scores."""
        for name in ("window", "epochs"):
            if state[name] != getattr(self, name):
                raise ValueError(f"the state has {name} {state[name]}, this table {getattr(self, name)}")
        if (state["loss_sums"] is None) != (self.loss_sums is None):
            raise ValueError("only one of the state and this table tracks the loss; give track_loss the same value")
        if (state["tdds"] is None) != (self.tdds is None):
            raise ValueError("only one of the state and this table keeps tdds; give tdds the same value")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what state_dict() gave; ValueError when it is of another size, window or epochs."""
        lines = state["lines"]
        if tuple(lines.shape) != tuple(self.lines.shape):
            raise ValueError(f"the state holds {tuple(lines.shape)} lines, this table {tuple(self.lines.shape)}")
        self.check_state(state)
        self.lines.copy_(lines)
        self.status.copy_(state["status"])
        if self.loss_sums is not None:
            self.loss_sums.copy_(state["loss_sums"])
        self.by_products = state["by_products"]
        if self.tdds is not None:
            self.tdds.load_state_dict(state["tdds"])

"""Scores of whole trajectories: p and margin of every visit, and functions of them that become columns of Scores."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import as_array, checked_choice, checked_int
from dualfast.config import BASELINES
from dualfast.notices import warn
from dualfast.scoring.scores import ABOUT_SAMPLES, COLUMNS, Array, End, Scores, scores_of, tails_of
from dualfast.user_code import described, import_named

Floats: TypeAlias = NDArray[np.float32]
Function = TypeVar("Function", bound=Callable[..., Any])

SURELY_EPOCHS = 64  # first axes up to this long are taken for epochs, however few samples there are
TRIED = 8  # samples that a registered function is tried on
OTHER_DATA = "it was saved for other data"  # of a state that does not fit a table
FLUSH_ROWS = 1 << 16  # observations that wait in memory until they are written to the file
RESERVED = {*ABOUT_SAMPLES, "full", *BASELINES, *COLUMNS, *dir(Scores), "extra", "extra_keep"}
"""Names that no score may take; the registry of selection methods adds its own."""

# ---- registered scores -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrajectoryScore:
    """A score registered with dualfast.score, in the module that called it."""

    name: str
    keep: End
    function: Callable[..., Any]
    needs_margin: bool
    module: str


_REGISTERED: dict[str, TrajectoryScore] = {}
_FAILED: set[str] = set()  # names of functions that raised an error: another may take their place


def registered() -> Mapping[str, TrajectoryScore]:
    """The scores registered with dualfast.score, by name."""
    return MappingProxyType(_REGISTERED)


def import_scores(module: str) -> None:
    """Imports the module of this name, which registers scores; ValueError when it cannot be imported or registers
    none."""
    try:
        import_named(module)
    except ValueError as error:
        raise ValueError(f"score_module: {error}; give the name of a module that registers scores") from error
    imported = _modules_below(module)
    if imported.isdisjoint(one.module for one in _REGISTERED.values()):
        raise ValueError(f"score_module is {module!r}, which registers no score; decorate one with @dualfast.score")


def _modules_below(name: str) -> set[str]:
    """A module, those in its package, and those that its names are from."""
    found = {other for other in sys.modules if other == name or other.startswith(f"{name}.")}
    names = vars(sys.modules[name]).values()
    return found | {str(getattr(value, "__module__", "")) for value in names if callable(value)}


def score(name: str, *, keep: End = "high") -> Callable[[Function], Function]:
    """Registers a function of trajectories as a score: a column of Scores, of score files, and a method of select.

    The function takes p, or p and margin: (T, N) float32 arrays, read-only and perhaps memory-mapped. p is the
    true-class probability and margin the true logit minus the largest other; row t is each sample's t-th visit, NaN
    where it had fewer. It returns (N,) numbers. A sample without visits gets NaN whatever it returns. keep: which end
    select keeps. The columns are there for ScoreTable(n, trajectories=True) and, when the function takes p alone, for
    score_trajectories.

    Raises ValueError for a name that is taken or not an identifier, and for another keep; TypeError for a function of
    other parameters.
    """
    if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
        raise ValueError(f"name is {name!r}; give a Python identifier that does not start with an underscore")
    if name.lower() in {taken.lower() for taken in RESERVED}:  # conditions on columns ignore the case
        raise ValueError(f"name is {name!r}, which dualfast uses itself; choose another")
    if alike := [other for other in _REGISTERED if other != name and other.lower() == name.lower()]:
        raise ValueError(f"name is {name!r}, and {alike[0]!r} differs from it in case alone; choose another")
    checked_choice("keep", keep, ("high", "low"))

    caller = str(sys._getframe(1).f_globals.get("__name__"))

    def register(function: Function) -> Function:
        before = _REGISTERED.get(name)
        if before is not None and name not in _FAILED:
            if _source(before.function) != _source(function):  # a notebook cell may run again
                raise ValueError(f"name is {name!r}, which {'.'.join(_source(before.function))} has; choose another")
            if not _is_plain(function):
                warn(f"the score {name!r} is registered again, and {_source(function)[1]} takes the place of the other")
        required = _required(name, function)
        names = [parameter.name for parameter in required]
        if (
            len(required) not in (1, 2)
            or "margin" in names[:1]
            or any(
                parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                for parameter in required
            )
        ):
            shown = ", ".join(map(str, required))
            raise TypeError(f"the function of score {name!r} needs ({shown}); it must take (p) or (p, margin)")
        _REGISTERED[name] = TrajectoryScore(name, keep, function, len(required) == 2, caller)
        _FAILED.discard(name)
        return function

    return register


def _required(name: str, function: Any) -> list[inspect.Parameter]:
    """The parameters of a function that have no default. TypeError for what is no function, or tells none."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        raise TypeError(
            f"score {name!r} is registered for {function!r:.80}; decorate a function of (p) or (p, margin)"
        ) from None
    return [parameter for parameter in parameters if parameter.default is parameter.empty]


def _is_plain(function: Any) -> bool:
    """Whether its name says which function it is: not of one made by another, nor of an object with several."""
    return inspect.isfunction(function) and not {"<lambda>", "<locals>"} & set(function.__qualname__.split("."))


def _source(function: Any) -> tuple[str, str]:
    return function.__module__, getattr(function, "__qualname__", type(function).__qualname__)


def evaluate(p: Floats, margin: Floats | None) -> dict[str, Any]:
    """The registered scores of p and margin (T, N) as the fields extra and extra_keep of Scores; without margin those
    that need it are left out. ValueError for a function that fails, or returns another shape or no numbers."""
    if not _REGISTERED:
        return {}
    extra: dict[str, Array] = {}
    unseen = np.isnan(p).all(0)
    for one in _REGISTERED.values():
        if one.needs_margin and margin is None:
            continue
        if not len(p):
            extra[one.name] = np.full(p.shape[1], np.nan)
            continue
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of columns that are NaN throughout
            try:
                found = one.function(p, margin) if one.needs_margin else one.function(p)
                values = as_array("what it returns", found)
            except MemoryError:
                raise
            except Exception as error:  # whatever the user's code raises
                _FAILED.add(one.name)
                raise ValueError(
                    f"the function of score {one.name!r} fails on p and margin of {p.shape}: {described(error)}; "
                    f"register one that works with @dualfast.score({one.name!r})"
                ) from error
        if values.shape != unseen.shape or values.dtype.kind not in "fiu":
            _FAILED.add(one.name)
            raise ValueError(
                f"the function of score {one.name!r} returned shape {values.shape} and dtype {values.dtype}; it must "
                f"return {unseen.shape} numbers; register one that does with @dualfast.score({one.name!r})"
            )
        extra[one.name] = np.where(unseen, np.nan, values.astype(np.float64))
    return {"extra": extra, "extra_keep": {name: _REGISTERED[name].keep for name in extra}}


def try_scores(n_visits: int) -> None:
    """Calls every registered function once, on n_visits visits of TRIED samples, before any training depends on it.
    ValueError, naming the function, when it fails or returns something else than numbers per sample."""
    steps = np.linspace(-4, 4, max(n_visits, 1) * TRIED, dtype=np.float32).reshape(-1, TRIED)
    p = np.asarray(1 / (1 + np.exp(-steps)), np.float32)  # of two classes with this margin
    evaluate(p, steps)


# ---- what they are computed from -------------------------------------------------------------------------------------


class Trajectories:
    """p and margin of every visit of N samples, 8 bytes each, in a memory-mapped file that grows by a row per visit.

    path: a new file; None: a temporary one, gone with the object. ValueError for a file that holds something."""

    def __init__(self, n_samples: int, path: str | os.PathLike[str] | None = None) -> None:
        if not isinstance(path, str | os.PathLike | None) or path == "":
            raise TypeError(f"trajectories is {path!r:.80}; give True, for a temporary file, or the path of a new file")
        if path is not None and os.path.exists(path) and (not os.path.isfile(path) or os.path.getsize(path)):
            raise ValueError(f"trajectories is {os.fspath(path)!r}, which exists; give the path of a new file")
        self.n_samples, self.n_visits = n_samples, 0  # the largest number of any sample
        try:
            self._file = tempfile.TemporaryFile(prefix="dualfast-") if path is None else open(path, "w+b")  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"trajectories is {path!r}, which cannot be written: {error.strerror}") from None
        self._data: Floats = np.empty((0, 2, n_samples), np.float32)
        self._waiting: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._rows = 0

    def record(self, index: torch.Tensor, visits: torch.Tensor, values: torch.Tensor) -> None:
        """Keeps values (2, B), p and margin, of the samples index (B,) at their visits (B,), from 0; -1: none."""
        self._waiting.append((index, visits, values))
        self._rows += len(index)
        if self._rows >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what waits to the file."""
        if not self._waiting:
            return
        index, visits, values = (torch.cat(parts, -1).cpu().numpy() for parts in zip(*self._waiting, strict=True))
        self._waiting, self._rows = [], 0
        kept = visits >= 0
        index, visits, values = index[kept], visits[kept], values[:, kept]
        self.n_visits = max(self.n_visits, int(visits.max(initial=-1)) + 1)
        self._grow(self.n_visits)
        self._data[visits, 0, index] = values[0]
        self._data[visits, 1, index] = values[1]

    def _grow(self, rows: int) -> None:
        """Makes room for so many visits, NaN until they happen."""
        if rows <= len(self._data):
            return
        empty = np.full((2, self.n_samples), np.nan, np.float32)
        self._file.seek(0, os.SEEK_END)
        for _ in range(len(self._data), rows):
            empty.tofile(self._file)
        self._file.flush()
        self._data = np.memmap(self._file, np.float32, "r+", shape=(rows, 2, self.n_samples))

    def __deepcopy__(self, memo: dict[int, Any]) -> Trajectories:
        copied = Trajectories(self.n_samples)  # in a temporary file of its own
        copied.load_state_dict(self.state_dict())
        return copied

    def arrays(self) -> tuple[Floats, Floats]:
        """p and margin, (T, N) float32 each, read-only; T is the largest number of visits."""
        self.flush()
        data = self._data[: self.n_visits]
        data.flags.writeable = False
        return data[:, 0], data[:, 1]

    def state_dict(self) -> torch.Tensor:
        """(T, 2, N) float32; it shares memory with the file."""
        self.flush()
        return torch.from_numpy(self._data[: self.n_visits])

    def check_state(self, state: Any, n_visits: int) -> None:
        """TypeError and ValueError for what state_dict() cannot have given, of samples with n_visits visits at most."""
        if not isinstance(state, torch.Tensor) or state.dtype != torch.float32 or state.ndim != 3:
            what = f"{state.dtype} of shape {tuple(state.shape)}" if isinstance(state, torch.Tensor) else type(state)
            raise TypeError(f"trajectories of the state are {what}; give what state_dict() returned")
        if state.shape[1:] != (2, self.n_samples):
            raise ValueError(
                f"the state holds trajectories of {state.shape[2]} samples, this table {self.n_samples}; {OTHER_DATA}"
            )
        if len(state) != n_visits:
            raise ValueError(
                f"the state holds trajectories of {len(state)} visits, and lines of {n_visits}; give what state_dict() "
                "returned"
            )

    def load_state_dict(self, state: torch.Tensor) -> None:
        """Restores what state_dict() gave and check_state() has checked."""
        self._waiting, self._rows = [], 0
        saved = state.cpu().numpy()
        self.n_visits = len(saved)
        self._grow(self.n_visits)
        self._data[: len(saved)] = saved
        self._data[len(saved) :] = np.nan


# ---- another training's log ------------------------------------------------------------------------------------------


def score_trajectories(probs: Any, *, window: int = 10, epochs: int | None = None) -> Scores:
    """Scores from existing training logs: probs (T, N), the true-class probability of each sample at each epoch.

    NaN marks an epoch that missed the sample; visits after a sample's `epochs`-th do not count. A rounding error
    outside [0, 1] is cut off. Gives dual, dyn_unc, mean, last_mean, visits and the scores registered with
    dualfast.score that take p alone; the others need the logits and are None.

    Raises ValueError for another shape, a probability outside [0, 1], T < window, and for more epochs than samples,
    from 65 epochs on, unless `epochs` is given: it is (N, T), then, and probs.T is meant.
    """
    window = checked_int("window", window)
    probs = _probabilities(probs)
    n_epochs, n_samples = probs.shape
    if epochs is None and n_epochs > max(n_samples, SURELY_EPOCHS):
        raise ValueError(
            f"probs have the shape {probs.shape}, {n_epochs} epochs of {n_samples} samples; give probs.T if the first "
            f"axis is the samples, else epochs={n_epochs}"
        )
    if n_epochs < window:
        raise ValueError(
            f"probs hold {n_epochs} epochs and window is {window}: DUAL needs at least as many; lower window"
        )
    lines = ops.Lines.zeros(n_samples, window, epochs)
    index, zeros = torch.arange(n_samples), torch.zeros(n_samples)
    wrong = torch.zeros(n_samples, dtype=torch.bool)
    for row in probs:
        p = torch.from_numpy(np.ascontiguousarray(row, dtype=np.float32))
        ops.observe(
            lines, index, p=p, margin=zeros, el2n=zeros, entropy=zeros, correct=wrong, counted=torch.isfinite(p)
        )
    scores = scores_of(tails_of(lines.lines, lines.window), lines.window, by_products=False)
    extra = evaluate(_by_visit(probs, epochs), None)
    return replace(scores, forgetting=None, **extra)


def _probabilities(given: Any) -> NDArray[Any]:
    """probs (T, N) as floating point in [0, 1] or NaN. ValueError for another shape, dtype or range."""
    probs = as_array("probs", given)
    if probs.ndim != 2 or probs.dtype.kind != "f":
        of_classes = "; of each sample's classes take the true one" if probs.ndim == 3 else ""
        raise ValueError(
            f"probs have shape {probs.shape} and dtype {probs.dtype}; give (epochs, samples) floating point{of_classes}"
        )
    rounding = max(1e-6, 4 * float(np.finfo(probs.dtype).eps))
    with np.errstate(invalid="ignore"):
        bad = (probs < -rounding) | (probs > 1 + rounding)
    if bad.any():
        t, i = np.argwhere(bad)[0]
        raise ValueError(f"probs[{t}, {i}] is {probs[t, i]}; probabilities lie in [0, 1]; softmax makes them of logits")
    clipped: NDArray[Any] = np.clip(probs, 0, 1)
    return clipped


def _by_visit(probs: NDArray[Any], epochs: int | None) -> Floats:
    """probs (T, N) with each sample's visits first, as a ScoreTable keeps them: no more rows than visits."""
    missed = np.isnan(probs)
    most = int((~missed).sum(0).max()) if epochs is None else min(int((~missed).sum(0).max()), epochs)
    order = np.argsort(missed, axis=0, kind="stable")[:most]
    return np.take_along_axis(probs, order, 0).astype(np.float32)

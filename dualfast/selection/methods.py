"""The registry of selection methods: each is one class here, and nothing else has code for one of them.

A method says which columns of the scores it reads, which options it takes, and how it draws from some samples. To add
one, write a subclass of one of these, and put @register on it:

    KeyedMethod     keeps the samples with the smallest keys; a key depends on the sample's own columns, id and the seed
    WeightedMethod  draws without replacement with a weight per sample
    Method          anything else: it gets all samples at once, and Pool.members gives those of each group

Keyed and weighted methods run in every engine: in memory, from files of any size, and over ranks. Weighted draws are
exponential races: each sample's key is the logarithm of an exponential waiting time with its weight as rate, and the n
smallest keys are a draw without replacement (Efraimidis and Spirakis, 2006).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualfast import ops
from dualfast.arguments import checked_choice
from dualfast.config import DEFAULT_C_D, GivenCD, check_c_d, method_options
from dualfast.ops import Bits, Floats, Ints
from dualfast.scoring import scores, trajectories
from dualfast.scoring.trajectories import score as score
from dualfast.selection.beta import Beta, Statistics, beta_from, c_d_number
from dualfast.selection.draw import Pool, draw, warn_if_filled_up
from dualfast.selection.ranks import cuts_at, ranking_of

Columns: TypeAlias = tuple[NDArray[Any], ...]

# ---- what a method is -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """The samples that a method looks at: all of them, one class, a piece of a file or one rank's.

    columns: those that the method names, in its order, each (count,) float32 or float64, contiguous. ids (count,)
    int64; None: first, first + 1, ...
    """

    count: int
    seed: int
    columns: Columns = ()
    ids: Ints | None = None
    first: int = 0

    def at(self, where: Ints) -> Samples:
        """Those at these positions."""
        ids = where + self.first if self.ids is None else self.ids[where]
        return Samples(len(where), self.seed, tuple(column[where] for column in self.columns), ids)

    def uniform(self) -> ops.Race:
        """The race in which all weights are 1."""
        return ops.Race(self.count, self.seed, ids=self.ids, first=self.first)


class Method(ABC):
    """A way to choose which samples to keep: a frozen dataclass whose fields with a "doc" in their metadata are its
    options. Its __post_init__ raises ValueError for an option out of range."""

    name: str
    keeps: ClassVar[str]
    """What is kept, as a phrase for the docs."""
    source: ClassVar[str] = ""
    columns: tuple[str, ...] = ()
    """The columns of the scores it reads; none: it needs no scores."""
    density: Beta | None = None
    """The density over the prediction mean that it samples with; fit() sets it."""
    fits: ClassVar[bool] = False
    """Whether fit looks at the statistics of all scores; it then reads dual and mean, in this order."""
    streams: ClassVar[bool] = False
    """Whether it can draw from files and over ranks: a KeyedMethod can."""
    checks_scores: ClassVar[bool] = False
    """Whether drawing raises ValueError for a score out of range, so that no pass of its own has to look for them."""
    instead: ClassVar[str] = ""
    """What one may give where the scores lack its columns."""
    unsaid: ClassVar[Mapping[str, Any]] = {}
    """Options whose default is another than in 0.1, with the value of 0.1: what the sidecars of 0.1, which do not name
    them, stand for."""

    def fit(self, statistics: Statistics, prune_ratio: float) -> Method:
        """The method with what depends on the scores of all samples."""
        return self

    @abstractmethod
    def draw(self, samples: Samples, pool: Pool) -> Ints:
        """The ascending positions of those kept: of each group of the pool its quota, and the forced ones."""

    @classmethod
    def options(cls) -> dict[str, Field[Any]]:
        """The options by name: the fields with a line of documentation."""
        return {f.name: f for f in fields(cls) if "doc" in f.metadata}  # type: ignore[arg-type]


class KeyedMethod(Method):
    """Keeps the samples with the smallest keys, ties to the lower id."""

    streams = True

    @abstractmethod
    def keys(self, samples: Samples) -> Floats:
        """The keys (count,) float64: of each sample its own, whatever the others are."""

    def classify(self, samples: Samples, low: float, high: float) -> tuple[Bits, int, Ints, Floats]:
        """A bit set for every sample whose key is certainly below low, their number, the positions of every sample
        whose key may lie in [low, high], and the keys of these."""
        keys = self.keys(samples)
        kept = keys < low
        undecided = np.flatnonzero((keys >= low) & (keys <= high))
        return np.packbits(kept, bitorder="little"), int(np.count_nonzero(kept)), undecided, keys[undecided]

    def n_positive(self, samples: Samples) -> int:
        """How many samples have a positive weight."""
        return samples.count

    def ranking(self, samples: Samples) -> tuple[NDArray[Any], bool]:
        """The column whose n smallest values are kept, or, if the second is True, its n largest: (count,) float32 or
        float64."""
        return self.keys(samples), False

    def draw(self, samples: Samples, pool: Pool) -> Ints:
        column, descending = self.ranking(samples)
        ranking = ranking_of(column, pool.groups, descending)
        return pool.ids(ops.mark_below(ranking, cuts_at(ranking, pool.quotas[:, None])))


class WeightedMethod(KeyedMethod):
    """Draws without replacement, each sample with a weight of its own, as an exponential race."""

    @abstractmethod
    def race(self, samples: Samples) -> ops.Race:
        """The race whose n smallest keys are kept."""

    def keys(self, samples: Samples) -> Floats:
        return ops.race_keys(self.race(samples))

    def classify(self, samples: Samples, low: float, high: float) -> tuple[Bits, int, Ints, Floats]:
        race = self.race(samples)
        found = ops.classify(race, low, high)
        return found.kept, found.n_kept, found.undecided, ops.race_keys(race, found.undecided)

    def draw(self, samples: Samples, pool: Pool) -> Ints:
        kept, last = draw(self.race(samples), pool)
        filled = last > ops.ZERO_WEIGHT_KEY / 2
        if filled.any():
            pairs = zip(pool.members(samples.count), filled.tolist(), strict=True)
            where = np.concatenate([members for (members, _), is_filled in pairs if is_filled])
            warn_if_filled_up(self.n_positive(samples.at(where)), len(where), int(pool.quotas[filled].sum()))
        return kept


METHODS: dict[str, type[Method]] = {}


def register(cls: type[Method]) -> type[Method]:
    """Adds a method to the registry under its name."""
    METHODS[cls.name] = cls
    trajectories.RESERVED.add(cls.name)
    return cls


# ---- the methods ----------------------------------------------------------------------------------------------------


@register
@dataclass(frozen=True, kw_only=True)
class DualBeta(WeightedMethod):
    """Draws with weights BetaPDF(mean) * dual."""

    name = "dual+beta"
    keeps = "a draw with weights BetaPDF(mean) · dual"
    source = "arXiv 2502.06905"
    columns = ("dual", "mean")
    fits = True
    checks_scores = True  # the race gets both columns as they are

    c_d: GivenCD = field(default=DEFAULT_C_D, metadata={"doc": "how fast it turns to easy samples as more are removed"})
    density: Beta | None = None

    def __post_init__(self) -> None:
        check_c_d(self.c_d)

    def fit(self, statistics: Statistics, prune_ratio: float) -> DualBeta:
        c_d = c_d_number(self.c_d, statistics, prune_ratio)
        return replace(self, c_d=c_d, density=beta_from(statistics.mu, prune_ratio, c_d))

    def race(self, samples: Samples) -> ops.Race:
        assert self.density is not None, "fit comes first"
        dual, mean = samples.columns
        return replace(samples.uniform(), score=dual, mean=mean, a=self.density.a, b=self.density.b)

    def n_positive(self, samples: Samples) -> int:
        return int(np.count_nonzero(samples.columns[0]))


@register
@dataclass(frozen=True, kw_only=True)
class Random(WeightedMethod):
    """Draws uniformly."""

    name = "random"
    keeps = "a uniform draw"

    def race(self, samples: Samples) -> ops.Race:
        return samples.uniform()


@dataclass(frozen=True, kw_only=True)
class ByScore(KeyedMethod):
    """Keeps the n samples at one end of a score."""

    keeps = "the n highest, or lowest, of a score"

    score: str
    keep: Literal["high", "low"] | None = field(default=None, metadata={"doc": "the end that is kept, high or low"})

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.score

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.score,)

    def __post_init__(self) -> None:
        if self.keep is not None:
            checked_choice("keep", self.keep, ("high", "low"))

    def keys(self, samples: Samples) -> Floats:
        column, descending = self.ranking(samples)
        return -column.astype(np.float64) if descending else column.astype(np.float64)

    def ranking(self, samples: Samples) -> tuple[NDArray[Any], bool]:
        return samples.columns[0], (self.keep or kept_end(self.score)) == "high"


MOST_STRATA = 1 << 24  # over all classes: each has counters


@dataclass(frozen=True, kw_only=True)
class OverStrata(Method):
    """Spreads what is kept over strata of a score and draws uniformly in each."""

    score: str
    strata: int = field(default=50, metadata={"doc": "number of strata"})

    @property
    def columns(self) -> tuple[str, ...]:  # type: ignore[override]
        return (self.score,)

    def __post_init__(self) -> None:
        if not isinstance(self.score, str):
            raise ValueError(f"score is {self.score!r}; give the name of a score")
        given = self.strata
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 1 <= given < 2**31:
            raise ValueError(f"strata is {given!r}; give an integer from 1 to 2**31 - 1")

    def draw(self, samples: Samples, pool: Pool) -> Ints:
        groups, quotas = self.divide(ranking_of(samples.columns[0], pool.groups), pool.quotas)
        return draw(samples.uniform(), Pool(quotas, groups, pool.forced))[0]

    @abstractmethod
    def divide(self, ranking: ops.Ranking, quotas: Ints) -> tuple[ops.Groups, Ints]:
        """Each group divided into strata, which are groups of their own, and how many are kept of each stratum, given
        how many are kept of each group."""

    def n_strata(self, groups: ops.Groups, most: int) -> int:
        """The number of strata in each group: self.strata, or `most` where more would change nothing. ValueError for so
        many that the counters do not fit in memory."""
        strata = min(int(self.strata), most)
        if groups.count * strata > MOST_STRATA:
            most = MOST_STRATA // groups.count
            raise ValueError(f"strata is {self.strata}, of each of {groups.count} classes; give at most {most}")
        return strata


@register
@dataclass(frozen=True, kw_only=True)
class Ccs(OverStrata):
    """Coverage-centric selection."""

    name = "ccs"
    keeps = "equal shares of equal-width bins of a score"
    source = "arXiv 2210.15809"
    instead = "give score='aum' (ccs:score=aum), the margin of logits"
    unsaid = MappingProxyType({"score": "aum"})

    score: str = field(default="aum_prob", metadata={"doc": "the score whose range is covered"})
    mis_ratio: float = field(default=0.0, metadata={"doc": "fraction with the lowest score, dropped first"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.mis_ratio, int | float | np.floating | np.integer) or not 0 <= self.mis_ratio < 1:
            raise ValueError(f"mis_ratio is {self.mis_ratio!r}; give a number in [0, 1)")

    def divide(self, ranking: ops.Ranking, quotas: Ints) -> tuple[ops.Groups, Ints]:
        count, strata = len(ranking.column), self.n_strata(ranking.groups, self.strata)
        sizes = ranking.groups.sizes(count)
        hardest = np.minimum(np.floor(float(self.mis_ratio) * sizes).astype(np.int64), sizes - quotas)
        cuts = cuts_at(ranking, hardest[:, None])
        low, high = (ops.values_of(ranking, keys) for keys in ops.extents(ranking, cuts.keys[:, 0]))
        width = (high - low) / strata
        groups = ops.stratify(ranking, cuts, ops.Bands(strata, low, np.where(width > 0, width, 1.0)))
        return groups, _equal_shares(groups.sizes(count).reshape(-1, strata), quotas).ravel()


@register
@dataclass(frozen=True, kw_only=True)
class Stratified(OverStrata):
    """Proportional stratified sampling."""

    name = "stratified"
    keeps = "the same fraction of each quantile of a score"
    source = "Neyman, 1934"

    score: str = field(default="dual", metadata={"doc": "the score whose quantiles are the strata"})

    def divide(self, ranking: ops.Ranking, quotas: Ints) -> tuple[ops.Groups, Ints]:
        sizes = ranking.groups.sizes(len(ranking.column))[:, None]
        n_strata = self.n_strata(ranking.groups, max(int(sizes.max()), 1))
        strata = sizes // n_strata + (np.arange(n_strata) < sizes % n_strata)
        groups = ops.stratify(ranking, cuts_at(ranking, np.cumsum(strata, axis=1)[:, :-1]))
        return groups, _proportional_shares(strata, quotas).ravel()


def _proportional_shares(sizes: Ints, n: Ints) -> Ints:
    """n (groups,) split in proportion to sizes (groups, strata), as quotas.shares does."""
    total = np.maximum(sizes.sum(axis=1), 1)  # of an empty group nothing is kept
    out, remainders = np.divmod(sizes * n[:, None], total[:, None])
    order = np.argsort(-remainders, axis=1, kind="stable")
    more = np.arange(sizes.shape[1]) < (n - out.sum(axis=1))[:, None]
    np.put_along_axis(out, order, np.take_along_axis(out, order, axis=1) + more, axis=1)
    return out


def _equal_shares(sizes: Ints, n: Ints) -> Ints:
    """n (groups,) as equal shares of strata of given sizes (groups, strata), from the smallest stratum up, so that what
    a small one lacks is shared by the larger ones."""
    order = np.argsort(sizes, axis=1, kind="stable")
    ascending, left, out = np.take_along_axis(sizes, order, axis=1), n.copy(), np.empty_like(sizes)
    strata = sizes.shape[1]
    for at in range(strata):
        share = np.minimum(ascending[:, at], left // (strata - at))
        left -= share
        np.put_along_axis(out, order[:, at : at + 1], share[:, None], axis=1)
    return out


# ---- scores ---------------------------------------------------------------------------------------------------------

COLUMNS = tuple(name for name in scores.COLUMNS if name not in ("visits", "top_other"))
"""The columns of Scores that measure something."""
LOW_IS_KEPT = ("mean", "last_mean", "aum", "aum_prob", "late_margin")
"""The columns of Scores of which the low end is kept; of the others it is the high end."""
RANGES = {"mean": (0.0, 1.0), "last_mean": (0.0, 1.0), "aum_prob": (-1.0, 1.0)}
RANGES |= dict.fromkeys(("aum", "late_margin"), (-math.inf, math.inf))
"""Where valid values lie: for the other columns of Scores 0 and up, for other scores anywhere. All are finite."""


def score_names() -> list[str]:
    """Every score that is a method of the same name. ValueError when a registered score has the name of a method."""
    registered = trajectories.registered()
    if taken := METHODS.keys() & registered.keys():
        raise ValueError(f"a score is registered as {min(taken)!r}, which is a method of selection; rename it")
    return [*COLUMNS, *registered]


def kept_end(score: str) -> str:
    """Which end of a score is kept unless an option says otherwise, "high" or "low"."""
    if score not in COLUMNS and score in (registered := trajectories.registered()):
        return registered[score].keep
    return "low" if score in LOW_IS_KEPT else "high"


def valid_range(name: str) -> tuple[float, float]:
    """Between which values, both included, a valid score lies; it is finite, too."""
    return RANGES.get(name, (0.0, math.inf) if name in COLUMNS else (-math.inf, math.inf))


def bad_scores(name: str, column: NDArray[Any]) -> NDArray[np.bool_]:
    """Which samples have no valid score: NaN, infinite, or out of the score's range."""
    low, high = valid_range(name)
    valid = np.isfinite(column)
    if low > -math.inf:
        valid &= column >= low
    if high < math.inf:
        valid &= column <= high
    bad: NDArray[np.bool_] = ~valid
    return bad


# ---- by name --------------------------------------------------------------------------------------------------------


def kind_of(name: str) -> type[Method]:
    """The class of the method of this name; ValueError for an unknown one, TypeError for what is no text."""
    if not isinstance(name, str):
        raise TypeError(f"method is {name!r:.80}; give a name, such as 'dual+beta'")
    if name in METHODS and name not in trajectories.registered():
        return METHODS[name]
    if name not in (names := score_names()):
        raise ValueError(
            f"method is {name!r}; give one of {', '.join(sorted({*METHODS, *names}))}; a score of your "
            "own is known once its module is imported (--score-module)"
        )
    return ByScore


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """ValueError for an unknown method, or an option that its text may not hold: its own, and mislabel_cut, which is an
    argument of select, where scores are used."""
    kind = kind_of(name)
    for given in options:
        allowed = {*kind.options(), *(["mislabel_cut"] if kind.columns != () else [])}
        if given not in allowed:
            takes = ", ".join(map(repr, sorted(allowed))) or "none"
            raise ValueError(f"method {name!r} has no option {given!r}; it takes {takes}")


def configure(name: str, options: Mapping[str, Any]) -> Method:
    """The method of this name with these options of its own. ValueError for an unknown method or option and for a value
    out of range."""
    check_options(name, options)
    kind: Any = kind_of(name)
    for given, value in options.items():
        default = kind.options()[given].default if given in kind.options() else None
        if isinstance(value, str) and type(default) in (int, float) and given != "c_d":  # that may be a name
            raise ValueError(f"{given} is {value!r}; give a number, as {given}={default}")
    method: Method = kind(score=name, **options) if kind is ByScore else kind(**options)
    return method


def uses_scores(text: str) -> bool:
    """Whether a method, given as text with its options, reads scores; True for a name that is not registered."""
    kind = METHODS.get(method_options(text)[0])
    return kind is None or kind.columns != ()


# ---- for people -----------------------------------------------------------------------------------------------------


def help_text() -> str:
    """The methods and their options, for the help of the command line."""
    told = [f"{name} ({', '.join(kind.options())})" if kind.options() else name for name, kind in METHODS.items()]
    return (
        f"{', '.join(told)}, or a score by name ({', '.join(score_names())}; {', '.join(ByScore.options())}). Options "
        "follow a colon, separated by commas: dual+beta:c_d=5.5"
    )


def markdown_table() -> str:
    """The methods as a Markdown table: name, what is kept, options with their defaults, source."""
    rows = [(f"`{name}`", kind.keeps, kind) for name, kind in METHODS.items()]
    for end, phrase in (("high", "the n highest"), ("low", "the n lowest")):
        names = [f"`{name}`" for name in score_names() if kept_end(name) == end]
        rows.append((", ".join(names), phrase, ByScore))
    lines = ["| method | keeps | options | source |", "|---|---|---|---|"]
    for name, keeps, kind in rows:
        told = "; ".join(
            f"`{option}`{'' if f.default is None else f'={f.default}'}: {f.metadata['doc']}"
            for option, f in kind.options().items()
        )
        lines.append(f"| {name} | {keeps} | {told} | {kind.source or 'see `dualfast.Scores`' if told else ''} |")
    return "\n".join(lines) + "\n"

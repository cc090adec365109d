"""SelectionSpec: everything that determines a selection. Parsed, resolved, saved and read again here; each engine draws
from it what it can (memory: select, files: streaming, ranks: sharded)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.arguments import checked_bool
from dualfast.config import (
    DEFAULT_C_D,
    DEFAULT_METHOD,
    GivenCD,
    Selection,
    check_c_d,
    check_ratio,
    checked_seed,
    method_options,
    ratio_text,
)
from dualfast.data.index_list import RESULT_KEYS, read_sidecar
from dualfast.notices import warn
from dualfast.selection import methods
from dualfast.selection.beta import Statistics, c_d_number
from dualfast.selection.quotas import PerClass, checked_per_class, kept_count
from dualfast.storage.files import named_file
from dualfast.storage.plain import read_json


@dataclass(frozen=True, kw_only=True)
class SelectionSpec(Selection):
    """The arguments of select by name, checked when it is made.

    exclude and force: ids, a mask, or the path of an .npy with either; only paths can be saved. where: a condition on
    the columns of a score table. options: those of the method. Raises ValueError and TypeError as
    select does.
    """

    prune_ratio: float
    method: str = DEFAULT_METHOD
    c_d: GivenCD = DEFAULT_C_D
    per_class: PerClass = False  # type: ignore[assignment]  # more than the command line takes, as the next two
    exclude: Any = None
    force: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        methods.check_options(self.method, self.options)
        for name in self.options:
            if name == "options" or name in _DEFAULTS:
                raise ValueError(f"options holds {name!r}, which is an argument; give {name}={self.options[name]!r}")
        check_ratio(self.prune_ratio)
        check_c_d(self.c_d)
        if not isinstance(self.where, str | None):
            raise TypeError(f"where is {self.where!r}; give a condition as text, as 'aum > 0'")
        if self.where is not None and not self.where.strip():
            raise ValueError("where is empty; give a condition, as 'aum > 0', or leave it out")
        object.__setattr__(self, "per_class", checked_per_class(self.per_class))
        object.__setattr__(self, "skip_unscored", checked_bool("skip_unscored", self.skip_unscored))
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in self.options.items()}
        object.__setattr__(self, "options", plain)  # numpy's numbers do not go into JSON
        for name in ("exclude", "force"):
            if isinstance(path := getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(path))
        cut = self.mislabel_cut
        is_count = isinstance(cut, int | np.integer) and not isinstance(cut, bool) and cut >= 0
        if not is_count and not (isinstance(cut, str) and cut == "auto"):
            raise ValueError(f"mislabel_cut is {cut!r}; give a number of samples, or auto")
        object.__setattr__(self, "mislabel_cut", cut if isinstance(cut, str) else int(cut))
        object.__setattr__(self, "prune_ratio", float(self.prune_ratio))
        object.__setattr__(self, "seed", checked_seed(self.seed))
        _ = self.configured  # checks the values of the options
        if self._takes_c_d and not isinstance(self.c_d, str):
            object.__setattr__(self, "c_d", float(self.c_d))

    @classmethod
    def parse(cls, method: str, **arguments: Any) -> SelectionSpec:
        """From the text of a method with its options, as "dual+beta:c_d=5.5", and the other arguments; where both give
        an argument, the text wins."""
        name, options = method_options(method)
        methods.check_options(name, options)
        in_text = {f.name: options.pop(f.name) for f in fields(cls) if f.name in options}
        return cls(method=name, options=options, **arguments | in_text)

    @cached_property
    def configured(self) -> methods.Method:
        """The method with its options, not yet fit to any scores."""
        given = {"c_d": self.c_d} if self._takes_c_d else {}
        return methods.configure(self.method, {**self.options, **given})

    @cached_property
    def _takes_c_d(self) -> bool:
        return "c_d" in methods.kind_of(self.method).options()

    @property
    def restricting(self) -> set[str]:
        """The arguments that say which samples may be drawn, or how many of a class: all but those of the draw itself
        that are not at their default."""
        values = {name: getattr(self, name) for name in _DEFAULTS.keys() - OF_THE_DRAW}
        return {
            name
            for name, value in values.items()
            if not (isinstance(value, str | int | float | None) and value == _DEFAULTS[name])
        }

    @property
    def can_stream(self) -> bool:
        """Whether the files engine can draw it: keys of single samples decide, and nothing restricts the set."""
        return not self.restricting and self.configured.streams

    def resolve(self, statistics: Statistics, say: Callable[[str], None] = warn) -> SelectionSpec:
        """The same selection with c_d and mislabel_cut as numbers, as it is saved and drawn again. `say` is told what
        "auto" chose."""
        numbers: dict[str, Any] = {}
        if self.mislabel_cut == "auto":
            found = statistics.audit
            most = len(found.labels) - kept_count(len(found.labels), self.prune_ratio)
            numbers["mislabel_cut"] = cut = min(found.n_wrong, most)
            more = f", more than the {most} samples that are removed" if found.n_wrong > most else ""
            say(f"mislabel_cut auto is {cut}: {found.n_wrong} labels look wrong{more}")
        if self._takes_c_d and isinstance(self.c_d, str):
            numbers["c_d"] = c_d = c_d_number(self.c_d, statistics, self.prune_ratio)
            if self.c_d == "auto":
                say(f"c_d auto is {c_d:g} for these scores at prune ratio {ratio_text(self.prune_ratio)}")
        return replace(self, **numbers) if numbers else self

    def sidecar(self) -> dict[str, Any]:
        """What is saved beside the index list: the arguments that define every draw, all others that are not at their
        default, and the options. Of a resolved spec."""
        always = {"prune_ratio", "method", "seed", "per_class"}
        if self._takes_c_d:
            assert not isinstance(self.c_d, str), "resolve comes first"
            always.add("c_d")
        noted = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("options", "c_d")}
        noted = {name: value for name, value in noted.items() if name in always or value != _DEFAULTS[name]}
        unsaid = {name: getattr(self.configured, name) for name in self.configured.unsaid}
        return noted | ({"c_d": self.c_d} if self._takes_c_d else {}) | unsaid | dict(self.options)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, trust: bool = False) -> tuple[SelectionSpec, str | None]:
        """The spec that a sidecar (.json, or the .npy beside it) holds, and the fingerprint of its data.

        trust: whether drawing it may evaluate its `where` and read the files that its `exclude` and `force` name.
        Raises ValueError for a file that does not hold a spec, and, unless trust, for one with any of these.
        """
        path = named_file(path, "like", "the .json of an index list").with_suffix(".json")
        try:
            about = _about(path)
            about |= {"skip_unscored": about.pop("skip_bad")} if "skip_bad" in about else {}  # as version 0.1 saved it
            arguments = {name: about[name] for name in _DEFAULTS if name in about}
            if isinstance(per_class := arguments.get("per_class"), dict):
                numbered = {int(name) if _is_number(name) else name: count for name, count in per_class.items()}
                arguments["per_class"] = numbered  # in JSON, names are texts
            options = {name: value for name, value in about.items() if name not in {*_DEFAULTS, *RESULT_KEYS}}
            if str(about.get("dualfast", "")).startswith("0.1"):
                _as_in_0_1(arguments, path)
            unsaid = methods.kind_of(arguments.get("method", _DEFAULTS["method"])).unsaid
            spec = cls(**arguments, options={**unsaid, **options})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{str(path)!r} does not say how a list was drawn: {error}") from None
        reads = {name: getattr(spec, name) for name in ("where", "exclude", "force")}
        if not trust and any(value is not None for value in reads.values()):
            named = ", ".join(f"{name} {value!r}" for name, value in reads.items() if value is not None)
            raise ValueError(
                f"{str(path)!r} restricts the selection by {named}; give trust=True if you know who wrote that"
            )
        return spec, about.get("fingerprint")


def _is_number(name: str) -> bool:
    return re.fullmatch(r"0|-?[1-9]\d*", name) is not None


def _about(path: Path) -> dict[str, Any]:
    """What a sidecar holds. ValueError where it is not that of an index list."""
    try:
        about = read_sidecar(path.with_suffix(".npy")) or read_json(path)
    except ValueError:
        about = read_json(path)  # says what is wrong with it
    if not isinstance(about, dict) or not isinstance(about.get("method", ""), str):
        raise ValueError("it is not an object with a method")
    if "prune_ratio" not in about:
        raise ValueError("it has no prune_ratio")
    return about


def _as_in_0_1(arguments: dict[str, Any], path: Path) -> None:
    """Gives the arguments of a list of version 0.1, the values that they stood for."""
    if arguments.get("per_class") is True:
        arguments["per_class"] = "shares"
    if arguments.get("mislabel_cut"):
        warn(f"{path} is of version 0.1, where mislabel_cut went by aum; late_margin now, if the scores have it")


OF_THE_DRAW = {"prune_ratio", "method", "seed", "c_d"}
_DEFAULTS = {f.name: f.default for f in fields(SelectionSpec) if f.name != "options"}

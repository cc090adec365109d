"""Arguments become a checked dataclass: recipes as defaults, and a --help in groups, the important flags on top."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, field, fields, make_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, get_type_hints

import tyro

from dualfast.config import (
    BASELINES,
    DATA_HELP,
    GROUPS,
    METHOD_HELP,
    RECIPES,
    RUN_METHOD_HELP,
    SOURCE_HELP,
    Checked,
    Recipe,
    check_c_d,
)

_RENAMED = {"--skip-bad": "--skip-unscored"}  # names of version 0.1
OPTIONS = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)


def _name_of(command: type) -> str:
    """What a command is called: ApplyLabels is apply-labels."""
    return "".join(f"-{letter}" if letter.isupper() else letter for letter in command.__name__).lstrip("-").lower()


def parse(argv: list[str], commands: Iterable[type[Checked]]) -> Any:
    """The command that argv asks for, an instance of one of these classes, not checked yet. SystemExit for --help and
    flags that do not exist, after saying so; ValueError for an unknown recipe."""
    argv, commands = list(argv), tuple(commands)
    if argv[:1] == ["bench"] and "--" not in argv:
        argv.insert(2, "--")  # what follows the name is the benchmark's, flags too
    if argv[:1] == ["select"]:
        argv = ["".join((_RENAMED.get(flag, flag), *value)) for flag, *value in (word.partition("=") for word in argv)]
        if argv[1:] and not argv[1].startswith("-"):
            raise ValueError(
                f"select takes the scores with a flag: dualfast select --scores {argv[1]} --prune-ratio ..."
            )
    shown = any(word in ("-h", "--help") for word in itertools.takewhile("--".__ne__, argv))
    if shown:
        _fill_in_help()
    preset = _recipe(argv)
    if "--c-d=cifar10" in argv or ("--c-d", "cifar10") in itertools.pairwise(argv):
        check_c_d("cifar10")  # of 0.1: the types know it no more, and say less
    end = argv.index("--") if "--" in argv else len(argv)
    argv[:end] = [word for given in argv[:end] for word in _switch(given, argv[0], commands, preset)]
    kinds: list[Any] = []
    for command in commands:
        name, text = _name_of(command), inspect.getdoc(command)
        presets = {f.name: preset[f.name] for f in fields(command) if issubclass(command, Recipe) and f.name in preset}
        kind: Any = _in_groups(command, presets) if shown else command
        if shown or not issubclass(command, Recipe):  # without a default, required arguments stay required
            kinds.append(Annotated[kind, tyro.conf.subcommand(name, description=text)])
        else:
            kinds.append(Annotated[kind, tyro.conf.subcommand(name, description=text, default=command(**presets))])
    return tyro.cli(reduce(or_, kinds), prog="dualfast", args=argv, config=OPTIONS)


def _switch(word: str, name: str, commands: Iterable[type[Checked]], preset: dict[str, Any]) -> list[str]:
    """A switch in the form that tyro takes, if any is needed: --skip-bad for --skip-bad=True, nothing for --nesterov,
    which is on. Any other word as it is. ValueError for a value that is neither true nor false."""
    flag, equals, value = word.partition("=")
    option = flag.removeprefix("--").replace("-", "_")
    defaults = {f.name: preset.get(f.name, f.default) for c in commands if _name_of(c) == name for f in fields(c)}
    on = not option.startswith("no_") or option in defaults
    default = defaults.get(option if on else option.removeprefix("no_"))
    if not equals and word.startswith("--") and isinstance(default, bool) and default == on:
        return []
    if not equals or flag == option or not isinstance(defaults.get(option), bool):
        return [word]
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{flag} is {value!r}; give {flag} alone, {flag}=true or {flag}=false")
    wanted = value.lower() == "true"
    return [] if wanted == defaults[option] else [flag if wanted else f"--no-{flag[2:]}"]


def _recipe(argv: list[str]) -> dict[str, Any]:
    """The presets of the recipe that argv names, which become the defaults of the other flags."""
    for at, word in enumerate(argv):
        if word == "--recipe" or word.startswith("--recipe="):
            name = word.partition("=")[2] or (argv[at + 1] if at + 1 < len(argv) else "")
            if name not in RECIPES:
                raise ValueError(f"recipe is {name!r}; give one of {', '.join(RECIPES)}")
            return RECIPES[name]
    return {}


def _fill_in_help() -> None:
    """The help texts that registries give; apart, as these import torch, which parsing does not need."""
    from dualfast.data.sources.registry import KINDS
    from dualfast.selection.methods import help_text

    METHOD_HELP["help"] = help_text()
    compared = "; ".join(f"{name}, {what}" for name, what in BASELINES.items())
    RUN_METHOD_HELP["help"] = f"{help_text()}. For comparison: {compared}."
    kinds = ", ".join(kind.accepts for kind in KINDS)
    SOURCE_HELP["help"], DATA_HELP["help"] = f"Images: {kinds}.", f"Training images: {kinds}, or a .beton file."


def _in_groups(command: type[Checked], presets: dict[str, Any]) -> type:
    """The command as a class with one nested class per group of flags: tyro's help lists the groups one by one."""
    own = _name_of(command).replace("-", "_")
    members: dict[str, list[Any]] = {name: [] for name in (*GROUPS, own)}
    hints = get_type_hints(command, include_extras=True)
    mine = inspect.get_annotations(command)
    for option in sorted(fields(command), key=lambda o: (o.name != "data", o.name not in mine)):  # what is needed first
        owner = next(kind for kind in command.__mro__ if option.name in inspect.get_annotations(kind))
        default = presets.get(option.name, option.default)
        text = option.metadata.get("help") or _docstrings(owner)[option.name]
        shown = tyro.conf.arg(
            help=f"Turns this off: {text}" if default is True else text,
            metavar=option.name.upper() if "Positional" in str(option.type) else None,
        )
        hint: Any = Annotated.__class_getitem__((hints[option.name], shown))  # type: ignore[attr-defined]
        copied = field() if default is MISSING else field(default=default)
        members[owner.__dict__.get("group", own)].append((option.name, hint, copied))
    nested: list[Any] = []
    for name in sorted(filter(members.get, members), key=_position):
        kind = make_dataclass(name, members[name], kw_only=True)
        kind.__doc__ = GROUPS.get(name)
        required = any(option.default is MISSING for option in fields(kind))
        nested.append((name, kind, field() if required else field(default_factory=kind)))
    return make_dataclass(command.__name__, nested, kw_only=True)


def _position(group: str) -> int:
    """Where a group stands in --help; that of a command's own flags below the data."""
    return list(GROUPS).index(group) if group in GROUPS else 0


def _docstrings(kind: type) -> dict[str, str]:
    """The texts below the fields of a class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    return {
        above.target.id: inspect.cleandoc(text.value.value)
        for above, text in itertools.pairwise(body.body)
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }

"""The command line: arguments become a checked dataclass, the dataclass becomes one call."""

from __future__ import annotations

import inspect
import io
import os
import shlex
import sys
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from dualfast.config import (
    DATA_HELP,
    DEFAULT_METHOD,
    METHOD_HELP,
    RECIPES,
    SOURCE_HELP,
    Checked,
    Columns,
    GivenCD,
    Recipe,
    RunConfig,
    ScoreConfig,
    Storing,
    TrainConfig,
    check_ratio,
    check_seed,
    columns_of,
    reading_of,
    storing_of,
)
from dualfast.errors import DualfastError, Stopped, in_flags, printable
from dualfast.runs.progress import Console


@dataclass(frozen=True, kw_only=True)
class Command(Checked):
    """Checked after parsing, by main, so that an error is one line."""

    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Run(Command, RunConfig):
    """Score, select, retrain and report in one run directory; the same command continues an interrupted run.

    --recipe default | cpu | fast | paper | imagenet presets the flags below; a flag given beside it takes precedence.
    """


@dataclass(frozen=True, kw_only=True)
class Score(Command, ScoreConfig):
    """Train for the scoring epochs and write the score table into the run directory."""


@dataclass(frozen=True, kw_only=True)
class Train(Command, TrainConfig):
    """Train once, on all images or on those that an index list keeps, and write model.pt into the run directory."""


@dataclass(frozen=True, kw_only=True)
class Select(Command):
    """Draw the samples to keep from a score table of any size."""

    scores: tuple[str, ...]
    """scores.parquet; its parts, in order; or a .npy for each column, named after it."""
    out: str
    """The index list to write: .npy, with a .json beside it."""
    prune_ratio: float | None = None
    """Fraction REMOVED, in [0, 1)."""
    like: str | None = None
    """The .json of an index list: repeat that selection. Of the other flags only --scores, --out and --trust apply."""
    trust: bool = False
    """With --like: evaluate its where and read the files that its exclude and force name, as you know who wrote it."""
    method: str = field(default=DEFAULT_METHOD, metadata=METHOD_HELP)
    seed: int = 0
    c_d: GivenCD = "auto"
    """c_D of Beta sampling: a number, cifar100 (4) or imagenet (11), or auto, computed from the scores."""
    per_class: bool = False
    """Keep the same fraction of every class."""
    where: str | None = None
    """Keep only samples for which this holds: a condition on the table's columns, as 'aum > 0 and label <> 3'."""
    exclude: str | None = None
    """.npy of ids, or of a mask, never to keep."""
    force: str | None = None
    """.npy of ids, or of a mask, to keep in any case."""
    score_module: str | None = None
    """Python module that registers scores of your own with @dualfast.score."""
    mislabel_cut: int = 0
    """Number of samples of lowest aum to leave out."""
    skip_unscored: Annotated[bool, tyro.conf.arg(aliases=["--skip-bad"])] = False  # its name in version 0.1
    """Leave out samples without a score."""

    def check(self) -> None:
        if self.like is not None:
            return
        if self.prune_ratio is None:
            raise ValueError("prune_ratio is missing; give --prune-ratio R, the fraction REMOVED, or --like keep.json")
        check_ratio(self.prune_ratio)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Write(Command, Storing):
    """Write a data set as a .beton file."""

    data: Positional[str] = field(metadata=SOURCE_HELP)
    out: Positional[str]
    """The .beton file to write."""
    jpeg_quality: int = 90
    """1 to 100, of images that are not JPEG files already."""
    mode: Literal["auto", "raw", "jpeg"] = "auto"
    """auto: raw pixels up to 64 px, JPEG above."""
    rewrite: bool = False
    """Replace a .beton that was made of other data, or of these before they changed."""


@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check a .beton file: its header, its tables and the extent of every sample."""

    path: Positional[str]
    full: bool = False
    """Also decode every image."""


@dataclass(frozen=True, kw_only=True)
class Compact(Command, Columns):
    """Copy the kept samples of a .beton into a smaller one, byte for byte."""

    src: Positional[str]
    keep: Positional[str]
    """A keep-*.npy index list."""
    out: Positional[str]


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Rewrite report.html of a run directory."""

    out: Positional[str]
    """The run directory."""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Run a benchmark of the source checkout that this command belongs to: step, select, loader, distributed."""

    name: Positional[str]
    arguments: Positional[tuple[str, ...]] = ()
    """Flags for the benchmark."""


def main(argv: list[str] | None = None) -> int:
    """Entry point of `dualfast` and `python -m dualfast`. Exit codes: 0 done or stopped by a signal with everything
    saved, 2 bad input, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    args: Any = None
    try:
        args = _parse(argv)
        args.check()
    except (ValueError, TypeError) as error:
        return _fail(error, args)
    except BrokenPipeError:  # --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # modules that --model and --score-module name; python -m has it already
    warnings.showwarning = lambda message, *_: _note(_in_flags(message, args))
    warnings.simplefilter("default", append=True)  # a warning that an earlier call of main showed is shown again
    try:
        _COMMANDS[type(args)](args)
    except Stopped as stopped:
        if _is_rank0():
            again = _resume_command(argv)
            print(f"dualfast: stopped {stopped}; everything is saved; to resume: {again}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("\ndualfast: stopped; the same command continues after the last finished step", file=sys.stderr)
        return 130
    except (DualfastError, ValueError, TypeError, OSError) as error:
        if args.debug:
            raise
        return _fail(error, args)
    except MemoryError as error:
        if args.debug:
            raise
        return _fail(f"not enough memory; {str(error) or 'close other programs, or use a larger machine'}")
    except ModuleNotFoundError as error:
        if args.debug or error.name is None or error.name.startswith("dualfast"):
            raise
        return _fail(f"the package {error.name!r} is not installed; pip install 'dualfast[all]' installs it")
    return 0


def _parse(argv: list[str]) -> Any:
    """The command that argv asks for, an instance of one of the classes above, not checked yet."""
    argv = list(argv)
    if argv[:1] == ["bench"] and "--" not in argv:
        argv.insert(2, "--")  # what follows the name is the benchmark's, flags too
    if not {"-h", "--help"}.isdisjoint(argv):
        _fill_in_help()
    recipe = _recipe(argv)
    union: Any = None
    for command in _COMMANDS:
        name, text = command.__name__.lower(), inspect.getdoc(command)
        if issubclass(command, Recipe):
            preset = {field.name: recipe[field.name] for field in fields(command) if field.name in recipe}
            kind = tyro.conf.subcommand(name, default=command(**preset), description=text)
        else:  # without a default, required arguments stay required
            kind = tyro.conf.subcommand(name, description=text)
        union = Annotated[command, kind] if union is None else union | Annotated[command, kind]
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(union, prog="dualfast", args=argv, config=config)


def _fill_in_help() -> None:
    """The help texts that registries give; apart, as these import torch, which parsing does not need."""
    from dualfast.data.sources.registry import KINDS
    from dualfast.selection.methods import help_text

    METHOD_HELP["help"] = help_text()
    kinds = ", ".join(kind.accepts for kind in KINDS)
    SOURCE_HELP["help"], DATA_HELP["help"] = f"Images: {kinds}.", f"Training images: {kinds}, or a .beton file."


def _recipe(argv: list[str]) -> dict[str, Any]:
    """Removes --recipe NAME from argv and returns its presets, which become the defaults of the other flags."""
    for at, word in enumerate(argv):
        if word == "--recipe" or word.startswith("--recipe="):
            name = word.partition("=")[2] or (argv[at + 1] if at + 1 < len(argv) else "")
            if name not in RECIPES:
                raise ValueError(f"recipe is {name!r}; give one of {', '.join(RECIPES)}")
            del argv[at : at + (1 if "=" in word else 2)]
            return RECIPES[name]
    return {}


def _fail(error: object, args: Command | None = None) -> int:
    print(f"dualfast: error: {printable(' '.join(_in_flags(error, args).split()))}", file=sys.stderr)
    return 2


def _in_flags(message: object, args: Command | None) -> str:
    flags = [] if args is None else [option.name for option in fields(args) if "Positional" not in str(option.type)]
    return in_flags(str(message), flags)


def _is_rank0() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _note(message: object) -> None:
    if _is_rank0():
        print(f"dualfast: note: {printable(message)}", file=sys.stderr)


def _resume_command(arguments: list[str]) -> str:
    """The command that resumes the one with these arguments, which a signal stopped."""
    size = os.environ.get("WORLD_SIZE", "1")
    words = ["dualfast"] if size == "1" else ["torchrun", f"--nproc-per-node={size}", "-m", "dualfast"]
    return shlex.join([*words, *arguments])


def _run(args: Run) -> None:
    from dualfast.runs import commands

    with Console() as console:
        run_dir, rows = commands.run(args, console)
    if not _is_rank0():
        return
    print_table(rows)
    if run_dir.report_path.exists():
        print(f"report: {printable(run_dir.report_path)}")


def _score(args: Score) -> None:
    from dualfast.runs import commands

    with Console() as console:
        path = commands.score(args, console)
    if _is_rank0():
        print(f"scores: {printable(path)}")


def _train(args: Train) -> None:
    from dualfast.runs import commands

    with Console() as console:
        run_dir, row = commands.train(args, console)
    if _is_rank0():
        print_table([row])
        print(f"model: {printable(run_dir.model_path)}")


def _select(args: Select) -> None:
    from dualfast.scoring.trajectories import import_scores
    from dualfast.selection.files import write_list
    from dualfast.selection.spec import SelectionSpec

    if args.score_module is not None:
        import_scores(args.score_module)
    fingerprint = None
    if args.like is not None:
        spec, fingerprint = SelectionSpec.read(args.like, trust=args.trust)
    else:
        names = {f.name for f in fields(SelectionSpec)} & {f.name for f in fields(args)} - {"method"}
        spec = SelectionSpec.parse(args.method, **{name: getattr(args, name) for name in names})
    with Console() as console:
        shown: dict[str, Any] = {"plan": console.plan, "progress": console.images}
        kept, removed = write_list(spec, args.scores, args.out, fingerprint=fingerprint, **shown)
    print(f"{printable(args.out)}: kept {kept} of {kept + removed}, removed {removed}")


def _write(args: Write) -> None:
    from dualfast.data import sources
    from dualfast.data.beton import write
    from dualfast.storage.files import check_folder

    check_folder(Path(args.out))  # before all files are looked at
    source = sources.open_source(args.data, reading_of(args))
    print(source)
    print(
        write(
            source,
            args.out,
            jpeg_quality=args.jpeg_quality,
            mode=args.mode,
            rewrite=args.rewrite,
            **storing_of(args),
        )
    )


def _verify(args: Verify) -> None:
    from dualfast.data.beton import verify

    print(printable(verify(args.path, full=args.full)))


def _compact(args: Compact) -> None:
    from dualfast.data.beton import open_beton
    from dualfast.data.beton.compact import compact
    from dualfast.data.index_list import load_keep

    source = open_beton(args.src, **columns_of(args))
    ids = load_keep(args.keep, n_samples=source.n_samples, fingerprint=source.fingerprint)
    compact(args.src, ids, args.out, **columns_of(args))


def _report(args: Report) -> None:
    from dualfast.runs import commands

    print(f"report: {printable(commands.report(args.out))}")


def _bench(args: Bench) -> None:
    import runpy

    folder = Path(__file__).resolve().parent.parent / "benchmarks"
    script = folder / f"bench_{args.name}.py"
    if not script.is_file():
        names = ", ".join(sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py")))
        known = f"there is {names}" if names else "benchmarks come with a source checkout, not with the package"
        raise ValueError(f"bench name is {args.name!r}; {known}")
    sys.argv = [str(script), *args.arguments]
    sys.path.insert(0, str(folder))
    runpy.run_path(str(script), run_name="__main__")


_COMMANDS: dict[type, Any] = {
    Run: _run,
    Score: _score,
    Select: _select,
    Train: _train,
    Write: _write,
    Verify: _verify,
    Compact: _compact,
    Report: _report,
    Bench: _bench,
}
"""Each command's class and what it runs, in the order of --help."""


def print_table(rows: list[dict[str, Any]]) -> None:
    """Prints the results as a table: a line for each prune ratio and method, mean and spread over seeds."""
    from rich.console import Console as RichConsole
    from rich.table import Table
    from rich.text import Text

    from dualfast.report.summary import COLUMNS, summarise

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right")
    for line in summarise(rows):
        table.add_row(*(Text(printable(cell)) for cell in line))
    console = RichConsole(highlight=False)
    if not console.is_terminal:  # a file has no width to fit
        console.width = 200
    console.print(table)

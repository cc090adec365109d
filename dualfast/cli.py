"""The command line: arguments become a checked dataclass, the dataclass becomes one call."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from dualfast.config import (
    RECIPES,
    Checked,
    GivenCD,
    Recipe,
    RunConfig,
    ScoreConfig,
    TrainConfig,
    check_ratio,
    check_seed,
)
from dualfast.errors import Stopped, resume_command


@dataclass(frozen=True, kw_only=True)
class Command(Checked):
    """Checked after parsing, not while parsing, so that an error is one line."""

    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        pass


METHOD_HELP = {"help": ""}
"""Filled in from the registry when help is asked for: it imports torch, which parsing does not need."""


@dataclass(frozen=True, kw_only=True)
class Run(Command, RunConfig):
    """Score, select, retrain and report in one run directory; the same command continues a stopped run.

    --recipe default | cpu | fast | paper | imagenet presets the flags below; any given beside it wins."""

    method: tuple[str, ...] = field(default=RunConfig.method, metadata=METHOD_HELP)


@dataclass(frozen=True, kw_only=True)
class Score(Command, ScoreConfig):
    """Train for the scoring epochs and write the score table into the run directory."""


@dataclass(frozen=True, kw_only=True)
class Train(Command, TrainConfig):
    """Train once, on all images or on the ones an index list keeps, and write model.pt into the run directory."""


@dataclass(frozen=True, kw_only=True)
class Select(Command):
    """Draw the samples to keep from a score table of any size."""

    scores: tuple[str, ...]
    """scores.parquet; several that follow each other; or a .npy for each column, named after it."""
    out: str
    """The index list to write: .npy, with a .json beside it."""
    prune_ratio: float | None = None
    """Fraction REMOVED, in [0, 1)."""
    like: str | None = None
    """The .json of an index list: draw as it was drawn. Of the other flags only --scores and --out apply then."""
    method: str = field(default="dual+beta", metadata=METHOD_HELP)
    seed: int = 0
    c_d: GivenCD = "auto"
    """c_D of Beta sampling: a number, a data set's published value by name, or auto, computed from the scores."""
    per_class: bool = False
    """Every class keeps its share."""
    where: str | None = None
    """Keep only samples for which this holds: a DuckDB expression on the table's columns, as 'aum > 0'."""
    exclude: str | None = None
    """.npy of ids, or of a mask, never to keep."""
    force: str | None = None
    """.npy of ids, or of a mask, to keep in any case."""
    mislabel_cut: int = 0
    """Number of samples of lowest aum to leave out."""
    skip_bad: bool = False
    """Leave out samples without a score."""

    def check(self) -> None:
        if self.like is not None:
            return
        if self.prune_ratio is None:
            raise ValueError("prune_ratio is missing; give --prune-ratio R, the fraction REMOVED, or --like keep.json")
        check_ratio(self.prune_ratio)
        check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Write(Command):
    """Write images as a .beton file."""

    data: Positional[str]
    """digits, a folder of class folders, a .parquet, .npz or WebDataset .tar."""
    out: Positional[str]
    """The .beton to write."""
    max_size: int | None = None
    """Shrink images whose longer side exceeds this many pixels."""
    jpeg_quality: int = 90
    mode: Literal["auto", "raw", "jpeg"] = "auto"
    skip_bad: bool = False
    """Leave out images that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check a .beton file: header, tables, every sample's extent."""

    path: Positional[str]
    full: bool = False
    """Decode every image as well."""


@dataclass(frozen=True, kw_only=True)
class Compact(Command):
    """Copy the kept samples of a .beton into a smaller one, byte for byte."""

    src: Positional[str]
    keep: Positional[str]
    """A keep-*.npy index list."""
    out: Positional[str]


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write report.html of a run directory again."""

    out: Positional[str]
    """The run directory."""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Run a benchmark of the checkout this command stands in: step, select, loader, distributed."""

    name: Positional[str]
    arguments: Positional[tuple[str, ...]] = ()
    """Passed on to the benchmark."""


class Console:
    """Progress of a run: a bar on a terminal, a line a step elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self.console = RichConsole(highlight=False)
        self.bar = Progress(
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, visible=False)
        self.interrupted = False

    def __enter__(self) -> Console:
        self.bar.start()
        # In the background a shell has its children ignore Ctrl-C; that stays so.
        heard = signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        self.listens = heard and threading.current_thread() is threading.main_thread()
        if self.listens:
            self.before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)
        self.bar.stop()

    def _interrupt(self, *_: object) -> None:
        """Ctrl-C. Remembered too: an exception raised inside a finaliser is lost."""
        self.interrupted = True
        raise KeyboardInterrupt

    def plan(self, images: int) -> None:
        self.bar.update(self.task, total=images, visible=images > 0)

    def step(self, what: str) -> None:
        self.bar.update(self.task, description=what)

    def images(self, count: int) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.bar.advance(self.task, count)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `dualfast` and `python -m dualfast`. Exit codes: 0 done, 2 bad input, 130 interrupted."""
    commands = (Run, Score, Select, Train, Write, Verify, Compact, Report, Bench)
    argv = list(sys.argv[1:] if argv is None else argv)
    given = list(argv)
    if argv[:1] == ["bench"] and "--" not in argv:
        argv.insert(2, "--")  # what follows the name is the benchmark's, flags too
    union: Any = None
    if not {"-h", "--help"}.isdisjoint(argv):
        from dualfast.selection.methods import help_text

        METHOD_HELP["help"] = help_text()
    try:
        recipe = _recipe(argv)
        for command in commands:
            # A subcommand without a default keeps its required arguments required.
            kind = tyro.conf.subcommand(command.__name__.lower(), description=command.__doc__)
            if issubclass(command, Recipe):
                preset = {name: recipe[name] for field in fields(command) if (name := field.name) in recipe}
                kind = tyro.conf.subcommand(
                    command.__name__.lower(), default=command(**preset), description=command.__doc__
                )
            union = Annotated[command, kind] if union is None else union | Annotated[command, kind]
        asked = tyro.cli(
            union,
            prog="dualfast",
            args=argv,
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff),
        )
        asked.check()
    except (ValueError, TypeError) as error:
        return _fail(error)
    except BrokenPipeError:  # --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    warnings.showwarning = lambda message, *_: _note(message)
    warnings.simplefilter("default", append=True)  # a warning that an earlier call of main showed is shown again
    try:
        _COMMANDS[type(asked)](asked)
    except Stopped as stopped:
        if _speaks():
            again = resume_command(given)
            print(f"dualfast: stopped {stopped}; everything is saved; to go on: {again}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        print("\ndualfast: stopped; the same command continues after the last finished step", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError) as error:
        if asked.debug:
            raise
        return _fail(error)
    except RuntimeError as error:
        *_, (raised, _) = traceback.walk_tb(error.__traceback__)
        # Data that were changed or cannot be read; what torch raises is worth its traceback.
        if asked.debug or raised.f_globals["__name__"] not in ("dualfast.data.beton.reader", "dualfast.loading.decode"):
            raise
        return _fail(error)
    except ModuleNotFoundError as error:
        if asked.debug or error.name is None or error.name.startswith("dualfast"):
            raise
        return _fail(f"the package {error.name!r} is not installed; pip install 'dualfast[all]' brings it")
    return 0


def _recipe(argv: list[str]) -> dict[str, Any]:
    """Takes --recipe NAME out of argv and returns its presets, which become the defaults of the other flags."""
    for at, word in enumerate(argv):
        if word == "--recipe" or word.startswith("--recipe="):
            name = word.partition("=")[2] or (argv[at + 1] if at + 1 < len(argv) else "")
            if name not in RECIPES:
                raise ValueError(f"recipe is {name!r}; there is {', '.join(RECIPES)}")
            del argv[at : at + (1 if "=" in word else 2)]
            return RECIPES[name]
    return {}


def _fail(error: object) -> int:
    print(f"dualfast: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _speaks() -> bool:
    """Whether this is the only process, or the first of torchrun's."""
    return os.environ.get("RANK", "0") == "0"


def _note(message: object) -> None:
    if _speaks():
        print(f"dualfast: note: {message}", file=sys.stderr)


def _run(asked: Run) -> None:
    from dualfast.runs import session as pipeline

    with Console() as console:
        run_dir, rows = pipeline.run(asked, console)
    if not _speaks():
        return
    print_table(rows)
    if run_dir.report_path.exists():
        print(f"report: {run_dir.report_path}")


def _score(asked: Score) -> None:
    from dualfast.runs import session as pipeline

    with Console() as console:
        path = pipeline.score_only(asked, console)
    if _speaks():
        print(f"scores: {path}")


def _train(asked: Train) -> None:
    from dualfast.runs import session as pipeline

    with Console() as console:
        run_dir, row = pipeline.train_only(asked, console)
    if _speaks():
        print_table([row])
        print(f"model: {run_dir.path / 'model.pt'}")


def _select(asked: Select) -> None:
    from dualfast.selection.files import write_list
    from dualfast.selection.spec import SelectionSpec

    if asked.like is not None:
        spec, fingerprint = SelectionSpec.read(asked.like)
    else:
        names = ("prune_ratio", "seed", "c_d", "per_class", "where", "exclude", "force", "mislabel_cut", "skip_bad")
        spec = SelectionSpec.parse(asked.method, **{name: getattr(asked, name) for name in names})
        fingerprint = None
    with Console() as console:
        shown: dict[str, Any] = {"plan": console.plan, "progress": console.images}
        kept, removed = write_list(spec, asked.scores, asked.out, fingerprint=fingerprint, **shown)
    print(f"{asked.out}: kept {kept} of {kept + removed}, removed {removed}")


def _write(asked: Write) -> None:
    from dualfast.data import sources
    from dualfast.data.beton import write

    source: Any = sources.digits("train") if asked.data == "digits" else asked.data
    write(
        source,
        asked.out,
        max_size=asked.max_size,
        jpeg_quality=asked.jpeg_quality,
        mode=asked.mode,
        skip_bad=asked.skip_bad,
    )


def _verify(asked: Verify) -> None:
    from dualfast.data.beton import verify

    print(verify(asked.path, full=asked.full))


def _compact(asked: Compact) -> None:
    from dualfast.data.beton import open_beton
    from dualfast.data.beton.compact import compact
    from dualfast.data.index_list import load_keep

    source = open_beton(asked.src)
    ids = load_keep(asked.keep, n_samples=source.n_samples, fingerprint=source.fingerprint)
    compact(asked.src, ids, asked.out)


def _report(asked: Report) -> None:
    from dualfast.runs import session as pipeline

    print(f"report: {pipeline.report_only(asked.out)}")


def _bench(asked: Bench) -> None:
    import runpy

    here = Path(__file__).resolve().parent.parent / "benchmarks"
    script = here / f"bench_{asked.name}.py"
    if not script.is_file():
        names = ", ".join(sorted(p.stem.removeprefix("bench_") for p in here.glob("bench_*.py")))
        raise ValueError(
            f"bench name is {asked.name!r}; a checkout has {names or 'them, the installed package does not'}"
        )
    sys.argv = [str(script), *asked.arguments]
    sys.path.insert(0, str(here))
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


def print_table(rows: list[dict[str, Any]]) -> None:
    """The results as a table: a line for each (prune ratio, method), mean and spread over seeds."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    from dualfast.report.summary import COLUMNS, summarise

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "method" else "right")
    for line in summarise(rows):
        table.add_row(*line)
    console = RichConsole(highlight=False)
    if not console.is_terminal:  # a file has no width to fit
        console.width = 200
    console.print(table)

"""The command line: arguments become a checked dataclass, the dataclass becomes one call."""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
import warnings
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from tyro.conf import Positional, arg

from dualfast._moved import former_names
from dualfast.cli_parse import parse
from dualfast.config import (
    DEFAULT_JPEG_QUALITY,
    DEFAULT_METHOD,
    METHOD_HELP,
    SOURCE_HELP,
    Checked,
    Columns,
    RecipeName,
    RunConfig,
    ScoreConfig,
    Selection,
    Storing,
    TrainConfig,
    check_ratio,
    checked_seed,
)
from dualfast.errors import DualfastError, Stopped, full_memory, in_flags, printable
from dualfast.interrupts import interruptible
from dualfast.runs.progress import Console

INTRODUCTION = """dualfast finds the images that are worth training on, and trains on them.

  dualfast demo                     try it: 1,797 handwritten digits, some labels wrong, two minutes
  dualfast run --data photos/       your images: photos/train/<class>/*.jpg and photos/val/<class>/*.jpg
  dualfast select --scores runs/photos/scores.parquet --prune-ratio 0.7 --out keep.npy

dualfast --help lists all commands, dualfast run --help the flags of one."""


@dataclass(frozen=True, kw_only=True)
class Command(Checked):
    """Checked after parsing, by main, so that an error is one line."""

    group: ClassVar = "output"
    quiet: bool = False
    """Show no progress, only notes, errors and the result."""
    json: bool = False
    """Print the result as a JSON object, without progress."""
    debug: bool = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        pass

    @property
    def shows_progress(self) -> bool:
        return not (self.quiet or self.json)

    def console(self) -> Console:
        """Where the command shows its progress."""
        return Console(quiet=not self.shows_progress)


@dataclass(frozen=True, kw_only=True)
class Training(Command):
    """A command that trains."""

    group: ClassVar = "training"
    recipe: RecipeName = "default"
    """Presets of the flags below; a flag given beside it takes precedence."""


class Result(NamedTuple):
    """What a command prints at its end: as text, or with --json the facts."""

    text: str
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run(RunConfig, Training):
    """Score, select, retrain and report in one run directory; the same command continues an interrupted run."""


@dataclass(frozen=True, kw_only=True)
class Score(ScoreConfig, Training):
    """Train for the scoring epochs and write the score table into the run directory."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig, Training):
    """Train once, on all images or on those that an index list keeps, and write model.pt into the run directory."""


OF_THE_LIST = {"prune_ratio", "method", *(option.name for option in fields(Selection))}
"""The flags of select that --like takes from a list."""


@dataclass(frozen=True, kw_only=True)
class Select(Command, Selection):
    """Draw the samples to keep from a score table of any size."""

    scores: tuple[str, ...]
    """scores.parquet; its parts, in order; or a .npy for each column, named after it."""
    out: str
    """The index list to write: .npy, with a .json beside it."""
    prune_ratio: float | None = None
    """Fraction REMOVED, in [0, 1)."""
    like: str | None = None
    """The .json of an index list: repeat that selection. Of the other flags only --scores, --out, --trust and
    --score-module apply."""
    trust: bool = False
    """With --like: evaluate its where and read the files that its exclude and force name. Only for lists whose author
    you know."""
    method: str = field(default=DEFAULT_METHOD, metadata=METHOD_HELP)
    score_module: str | None = None
    """Python module that registers scores of your own with @dualfast.score."""

    def check(self) -> None:
        if not self.scores:
            raise ValueError("scores is empty; give scores.parquet, its parts, or a .npy for each column")
        if self.like is not None:
            own = {f.name: f.default for f in fields(self) if f.name in OF_THE_LIST}
            if other := next((name for name, default in own.items() if getattr(self, name) != default), None):
                raise ValueError(
                    f"{other} is {getattr(self, other)!r}, and like {self.like!r} says how to select; leave one out"
                )
            return
        if self.prune_ratio is None:
            raise ValueError("prune_ratio is missing; give --prune-ratio R, the fraction REMOVED, or --like keep.json")
        check_ratio(self.prune_ratio)
        checked_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class Write(Command, Storing):
    """Write a data set as a .beton file."""

    data: Positional[str] = field(metadata=SOURCE_HELP)
    out: Positional[str]
    """The .beton file to write."""
    jpeg_quality: int = DEFAULT_JPEG_QUALITY
    """1 to 100, of images that are not JPEG files already."""
    mode: Literal["auto", "raw", "jpeg"] = "auto"
    """auto: raw pixels up to 64 px, JPEG above."""
    rewrite: bool = False
    """Replace a .beton that was made of other data, of these before they changed, or with other options."""


@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check a .beton file: its header, its tables and the extent of every sample."""

    path: Positional[str]
    """The .beton file."""
    full: bool = False
    """Also decode every image."""


@dataclass(frozen=True, kw_only=True)
class Compact(Command, Columns):
    """Copy the kept samples of a .beton into a smaller one, byte for byte."""

    src: Positional[str]
    """The .beton file."""
    keep: Positional[str]
    """A keep-*.npy index list."""
    out: Positional[str]
    """The smaller .beton file to write."""


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write the samples that a run kept, or those that it removed, as a list or as a data set."""

    path: Positional[str]
    """A run directory; or, for --as csv with --keep and --out, a score table."""
    kept: bool = False
    """Write the samples to train on."""
    removed: bool = False
    """Write the others; give --kept or --removed, one of them."""
    form: Annotated[Literal["csv", "symlinks", "copy", "parquet"], arg(name="as")]
    """csv: name, label, class and scores. symlinks, copy: class folders of links to the images, or of the images.
    parquet: the images and labels, as Hugging Face's datasets reads them."""
    out: str | None = None
    """The file or folder to write; None: kept-<ratio> or removed-<ratio> in the run directory."""
    prune_ratio: float | None = None
    """Take the index list of this ratio; None: the only one that the other flags leave."""
    method: str | None = None
    """Take the index list of this method; None: of the run's first."""
    seed: int | None = None
    """Take the index list of this seed; None: of the run's first."""
    keep: str | None = None
    """The index list, a keep-*.npy of the same data, instead of one of the run's."""

    def check(self) -> None:
        if self.kept == self.removed:
            raise ValueError("give --kept or --removed, one of them")


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Rewrite report.html of a run directory."""

    out: Positional[str]
    """The run directory."""


@dataclass(frozen=True, kw_only=True)
class Audit(Command):
    """List the labels that look wrong, by the scores of a training on them."""

    path: Positional[str]
    """A run directory, or a score table (scores.parquet) with labels."""
    out: str | None = None
    """The file to write. A table lists all samples, most suspicious first, as .csv or .parquet; of a run directory, it
    is its audit.csv."""
    format: Literal["table", "cleanlab", "fiftyone", "labelstudio", "links"] = "table"
    """What to write: the table; a file that another tool reads (cleanlab: .csv; the others: .json); or, of a run
    directory, a folder of links to the images, most suspicious first."""


@dataclass(frozen=True, kw_only=True)
class ApplyLabels(Command):
    """Turn a reviewed audit.csv into corrected labels, or into a list of samples to leave out."""

    decisions: Positional[str]
    """audit.csv with a further column decision: empty, the right class, or exclude; or decisions.csv of a page."""
    out: Positional[str]
    """labels.csv, for --labels; or exclude.npy, for dualfast select --exclude."""
    audit: str | None = None
    """The audit.csv of all samples, for decisions on some of them."""


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Try it: score, prune, retrain and find wrong labels on handwritten digits, in two minutes."""

    out: str = "runs/demo"
    """Run directory."""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Run a benchmark of the source checkout that this command belongs to: step, select, loader, distributed."""

    name: Positional[str]
    """step, select, loader or distributed."""
    arguments: Positional[tuple[str, ...]] = ()
    """Flags for the benchmark."""


def main(argv: list[str] | None = None) -> int:
    """The `dualfast` command. Exit codes: 0 done or stopped by a signal with everything saved, 2 bad input, 130
    interrupted."""
    return interruptible(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(argv: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what the terminal cannot show
    args: Any = None
    if not argv:
        print(INTRODUCTION)
        return 0
    if argv == ["--version"]:
        print(f"dualfast {version('dualfast')}")
        return 0
    try:
        args = parse(argv, _COMMANDS)
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
        with full_memory("the command"):
            result = _COMMANDS[type(args)](args)
        if result is not None and _is_rank0():
            print(json.dumps(result.facts, default=str) if args.json else result.text)
    except Stopped as stopped:
        if _is_rank0():
            again = _resume_command(argv)
            print(f"dualfast: stopped {stopped}; everything is saved; to resume: {again}", file=sys.stderr)
        return 0
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


def _fail(error: object, args: Command | None = None) -> int:
    print(f"dualfast: error: {printable(' '.join(_in_flags(error, args).split()))}", file=sys.stderr)
    return 2


def _in_flags(message: object, args: Command | None) -> str:
    kinds = list(_COMMANDS) if args is None else [type(args)]
    options = {option.name: option for kind in kinds for option in fields(kind)}
    return in_flags(str(message), [name for name, option in options.items() if "Positional" not in str(option.type)])


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


def _run(args: Run) -> Result:
    from dualfast.runs import commands

    with args.console() as console:
        run_dir, rows = commands.run(args, console)
    report = run_dir.report_path if run_dir.report_path.exists() else None
    line, audited = _audited(run_dir.path)
    text = table_text(rows) + ("" if report is None else f"\nreport: {printable(report)}") + line
    return Result(text, {"out": run_dir.path, "report": report, "trainings": rows} | audited)


def _audited(run: Path) -> tuple[str, dict[str, Any]]:
    """A further line of text, and the facts, about the labels of a run that look wrong; empty for one without audit."""
    from dualfast.runs.auditing import audit_facts

    facts = audit_facts(run)
    if not facts:
        return "", {}
    path = printable(facts["audit"])
    return f"\n{facts['n_wrong']:,} of {facts['n_samples']:,} labels look wrong: {path}", facts


def _score(args: Score) -> Result:
    from dualfast.runs import commands

    with args.console() as console:
        path = commands.score(args, console)
    line, audited = _audited(path.parent)
    return Result(f"scores: {printable(path)}{line}", {"scores": path} | audited)


def _train(args: Train) -> Result:
    from dualfast.runs import commands

    with args.console() as console:
        run_dir, row = commands.train(args, console)
    text = f"{table_text([row])}\nmodel: {printable(run_dir.model_path)}"
    return Result(text, {"model": run_dir.model_path, "training": row})


def _select(args: Select) -> Result:
    from dualfast.scoring.trajectories import import_scores
    from dualfast.selection.files import write_list
    from dualfast.selection.sample_rows import check_csv_beside, csv_beside
    from dualfast.selection.spec import SelectionSpec

    if args.score_module is not None:
        import_scores(args.score_module)
    fingerprint = None
    if args.like is not None:
        spec, fingerprint = SelectionSpec.read(args.like, trust=args.trust)
    else:
        spec = SelectionSpec.parse(args.method, **{name: getattr(args, name) for name in OF_THE_LIST - {"method"}})
    check_csv_beside(args.out)
    with args.console() as console:
        shown: dict[str, Any] = {"plan": console.plan, "progress": console.images}
        kept, removed = write_list(spec, args.scores, args.out, fingerprint=fingerprint, **shown)
    listed = csv_beside(args.out, args.scores)
    text = f"{printable(args.out)}: kept {kept} of {kept + removed}, removed {removed}"
    text += "" if listed is None else f"\ntheir names and scores: {printable(listed)}"
    return Result(text, {"out": args.out, "kept": kept, "removed": removed, "csv": listed})


def _write(args: Write) -> Result:
    from dualfast.data import sources
    from dualfast.data.beton import write
    from dualfast.storage.files import check_folder

    check_folder(Path(args.out))  # before all files are looked at
    source = sources.open_source(args.data, args.reading)
    if args.shows_progress:
        print(source)
    written = write(
        source,
        args.out,
        jpeg_quality=args.jpeg_quality,
        mode=args.mode,
        rewrite=args.rewrite,
        progress=args.shows_progress,
        **args.storing,
    )
    return Result(printable(written), asdict(written))


def _verify(args: Verify) -> Result:
    from dualfast.data.beton import verify

    beton = verify(args.path, full=args.full, progress=args.shows_progress)
    return Result(printable(beton), {"path": args.path, "n_samples": beton.n_samples, "fingerprint": beton.fingerprint})


def _compact(args: Compact) -> Result:
    from dualfast.data.beton import open_beton
    from dualfast.data.beton.compact import compact
    from dualfast.data.index_list import load_keep

    source = open_beton(args.src, **args.columns)
    ids = load_keep(args.keep, n_samples=source.n_samples, fingerprint=source.fingerprint)
    written = compact(args.src, ids, args.out, progress=args.shows_progress, **args.columns)
    return Result(printable(written), asdict(written))


def _export(args: Export) -> Result:
    from dualfast.runs.export import export

    which = {name: getattr(args, name) for name in ("removed", "out", "keep", "prune_ratio", "method", "seed")}
    with args.console() as console:
        path, count = export(args.path, args.form, console, **which)
    text = f"{printable(path)}: {count:,} samples {'removed' if args.removed else 'kept'}"
    return Result(text, {"out": path, "samples": count})


def _report(args: Report) -> Result:
    from dualfast.runs import commands

    path = commands.report(args.out)
    return Result(f"report: {printable(path)}", {"report": path})


def _audit(args: Audit) -> Result:
    from dualfast.runs.auditing import audit

    found, path = audit(args.path, args.out, args.format)
    lines = [printable(line) for line in str(found).splitlines()]
    if path is not None:
        what = "all labels, most suspicious first" if args.format == "table" else args.format
        lines.append(f"{what}: {printable(path)}")
    return Result("\n".join(lines), {"n_wrong": found.n_wrong, "n_samples": len(found.labels), "audit": path})


def _apply_labels(args: ApplyLabels) -> Result:
    from dualfast.selection.audit_exports import apply_labels

    corrected, excluded = apply_labels(args.decisions, args.out, args.audit)
    text = f"{printable(args.out)}: {corrected:,} labels corrected, {excluded:,} samples left out"
    return Result(text, {"out": args.out, "corrected": corrected, "excluded": excluded})


def _demo(args: Demo) -> Result:
    from dualfast.runs.demo import demo

    with args.console() as console:
        run_dir, rows, sentences = demo(args.out, console)
    report = run_dir.report_path if run_dir.report_path.exists() else None
    shown = [*sentences, *([] if report is None else [f"The page: {report}"])]
    text = "\n".join([table_text(rows), "", *map(printable, shown)])
    return Result(text, {"out": run_dir.path, "report": report, "trainings": rows, "sentences": sentences})


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
    Export: _export,
    Report: _report,
    Audit: _audit,
    ApplyLabels: _apply_labels,
    Demo: _demo,
    Bench: _bench,
}
"""Each command's class and what it runs, in the order of --help."""


def table_text(rows: list[dict[str, Any]]) -> str:
    """The results as a table: a line for each prune ratio and method, mean and spread over seeds."""
    from dualfast.report.summary import COLUMNS, summarise

    lines = [list(COLUMNS), *([printable(cell) for cell in line] for line in summarise(rows))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<" if name == "method" else ">" for name in COLUMNS]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    )


if not TYPE_CHECKING:  # which knows the names of today alone
    __getattr__ = former_names("cli")

"""The parts of a run's data: the source that each .beton of a run directory is written from, and what has changed in it
since."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.config import Data, Reading
from dualfast.data import beton, sources
from dualfast.data.beton import Beton
from dualfast.data.inventory import Files, changes, some, valid_text
from dualfast.data.sources import Where
from dualfast.data.sources.paths import split_of
from dualfast.runs.originals import Originals, made_from, open_whole
from dualfast.runs.progress import Progress
from dualfast.runs.rundir import RunDir

SCANNED = 100_000  # files of a source that are compared one by one, in a second on a local disk
LOOKED_AT = 10_000  # of more files


@dataclass(frozen=True)
class Parts:
    """sources: of the training images, and of the test images if there are any, by the path of their .beton.
    unreachable: why a URL among them cannot be opened now, while all that is needed is written; empty where none is.
    notes: what the run directory keeps of the comparison. changed: what has changed since they were written, where all
    are to be written again; else empty."""

    sources: dict[Path, Where]
    unreachable: str = ""
    notes: list[str] = field(default_factory=list)
    changed: str = ""


def parts_of(config: Data, run_dir: RunDir) -> Parts:
    if not isinstance(config.data, str) and any(map(is_beton, config.data)):
        raise ValueError(
            f"data are {', '.join(config.data)}: .beton files are not joined; give one, or what they were made of"
        )
    written = _written(config, run_dir)
    if written is not None and not _is_there(config.data):
        return Parts(written)
    try:
        train, test = sources.splits(config.data, config.test, config.labels)
    except (ValueError, ImportError) as error:
        if written is None or not any(map(_has_url, written.values())):
            raise
        return Parts(written, unreachable=str(error))
    if config.test_labels is not None and test is None:
        test = sources.flat_test(config.data)
        if test is None:
            raise ValueError(
                f"test_labels is {config.test_labels!r}, and {text_of(config.data)} has no test images; name them with "
                "test=PATH"
            )
    if config.test_fraction is not None:
        if test is not None:
            raise ValueError(
                f"test_fraction is {config.test_fraction}, and {text_of(config.data)} has test images: "
                f"{text_of(test)}; leave test_fraction out, or give the training images alone"
            )
        if is_beton(train):
            raise ValueError(
                f"test_fraction is {config.test_fraction}, which is for data that are still to be written; {train} is "
                "a .beton: give what it was made of, or its test images with --test"
            )
        test = train
    return Parts({run_dir.train_beton: train} | ({} if test is None else {run_dir.test_beton: test}))


def _is_there(source: Where) -> bool:
    """Whether any of the paths leads anywhere: to a file or folder, or to what is no path, as a URL or the digits."""
    try:
        paths = sources.expand(source)
    except ValueError:  # a pattern that nothing matches
        return False
    return any(os.path.exists(split_of(path)[0]) or sources.find_kind(path) or sources.is_url(path) for path in paths)


def _written(config: Data, run_dir: RunDir) -> dict[Path, Where] | None:
    """The sources as they were given, where an earlier call has written all that is needed; else None."""
    noted = run_dir.requested()
    known = {run_dir.train_beton: config.data} if "data_fingerprint" in noted else {}
    if "test_fingerprint" in noted:
        known[run_dir.test_beton] = config.data if config.test is None else config.test
    is_complete = bool(known) and all(is_beton(source) or path.exists() for path, source in known.items())
    return known if is_complete else None


def is_beton(source: Where) -> bool:
    return isinstance(source, str) and source.endswith(".beton")


def open_given(path: str, reading: Reading) -> Beton:
    """A .beton that is given itself."""
    return open_whole(path, **{name: value for name, value in reading.columns.items() if value is not None})


def text_of(source: Where) -> str:
    return sources.with_urls(source if isinstance(source, str) else some(source, 2))


def _has_url(source: Where) -> bool:
    return any(map(sources.is_url, [source] if isinstance(source, str) else source))


def reading_of(path: Path, source: Where, config: Data, run_dir: RunDir) -> Reading:
    """How the source of the .beton at `path` is read. Test images of a kind without columns have none, whatever the
    columns of the training images."""
    own = path == run_dir.train_beton or config.test_fraction is not None
    if own or _is_split_by_labels(config):
        return config.reading
    reading = config.test_reading
    taken = sources.options_of(source, has_labels=reading.labels is not None)
    return replace(
        reading,
        image_column=reading.image_column if "image_column" in taken else config.test_image_column,
        label_column=reading.label_column if "label_column" in taken else config.test_label_column,
    )


@contextmanager
def with_way_out(path: Path, config: Data, run_dir: RunDir) -> Iterator[None]:
    """Says in an error about test images which arguments are theirs: a table of labels, and another column."""
    try:
        yield
    except ValueError as error:
        is_of_table = config.labels is not None and str(error).startswith(f"{config.labels}:")
        if path == run_dir.train_beton and is_of_table and config.test is not None and config.test_labels is None:
            raise ValueError(f"{error}; a table of the test images is given with test_labels") from None
        if path != run_dir.test_beton or config.test_fraction is not None or _is_split_by_labels(config):
            raise
        message = re.sub(r"\blabels(?==| is )", "test_labels", str(error))
        if config.test_labels is not None:
            message = re.sub(r"\b(image|label)_column(?==)", r"test_\1_column", message)
        name = message.partition(" is ")[0]
        if name in config.columns and getattr(config, f"test_{name}") is None:
            message += f"; that of the test images is given with test_{name}"
        raise ValueError(message) from None


def _is_split_by_labels(config: Data) -> bool:
    """Whether the table --labels says which images are for testing."""
    if config.labels is None or config.test is not None or not isinstance(config.data, str):
        return False
    return bool(sources.table_splits(config.data, config.labels))


# ---- a run directory in its own data --------------------------------------------------------------------------------


def check_outside(data: str | Sequence[str], test: str | Sequence[str] | None, out: str) -> None:
    """ValueError for a place in a folder that is read as data, of which the files there would become a part."""
    place = os.path.realpath(out)
    for name, given in (("data", data), ("test", test)):
        for path in () if given is None else sources.expand(given):
            folder = split_of(path)[0]
            if sources.is_url(path) or not os.path.isdir(folder) or not _is_in(place, folder):
                continue
            parts = sources.splits(path) if name == "data" else (path, None)
            if parts[1] is None or any(part == path or ":" in str(part) or _is_in(place, str(part)) for part in parts):
                raise ValueError(
                    f"out is {out!r}, in the folder of the {name}, {folder}, of which what is written would become a "
                    f"part; give another, as --out {os.path.relpath(_beside(folder, place))}"
                )


def _is_in(place: str, folder: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.commonpath((real, place)) == real


def _beside(folder: str, place: str) -> str:
    """A folder called like `place`, beside the one of the data."""
    return os.path.join(os.path.dirname(os.path.realpath(folder)), "runs", os.path.basename(place))


# ---- what has changed -----------------------------------------------------------------------------------------------


def check_sources(config: Data, run_dir: RunDir, progress: Progress) -> Parts:
    """Compares the data with what the run directory's images were written from. Where they have changed: ValueError
    that says what, or with config.rewrite parts that are to be written again. Of a .beton that is given itself, and of
    URLs that cannot be opened, what is to be known is said, and in the notes of the result."""
    by_source: dict[Where, list[Path]] = {}  # a test part that is held out is of the same source
    parts = parts_of(config, run_dir)
    for path, source in parts.sources.items():
        by_source.setdefault(source, []).append(path)
    notes = [_note_on(source, paths, parts, config, run_dir, progress) for source, paths in by_source.items()]
    parts.notes.extend(filter(None, notes))
    for note in parts.notes:
        progress.note(note)
    changed = [
        f"{text_of(source)}: {change}"
        for source, paths in by_source.items()
        if all(path.exists() for path in paths)
        if not (parts.unreachable and _has_url(source))
        if (change := _changes(paths, source, config, run_dir, progress))
    ]
    if not changed:
        return parts
    what = f"the data have changed since they were written to {run_dir.path}: {'; '.join(changed)}"
    if not config.rewrite:
        raise ValueError(
            f"{what}. Give another --out, or --rewrite, which writes the images again and, unless they are the same "
            "byte for byte, starts this run over (its "
            f"{len(run_dir.records('trained'))} finished trainings are deleted)"
        )
    return replace(parts, changed=what)


def _note_on(
    source: Where, paths: list[Path], parts: Parts, config: Data, run_dir: RunDir, progress: Progress
) -> str | None:
    """What is to be known of a source that is a .beton itself, or that cannot be read now."""
    note = None
    if is_beton(source):
        note = _changes_since(open_given(str(source), reading_of(paths[0], source, config, run_dir)), progress)
    elif parts.unreachable and _has_url(source):
        note = f"{parts.unreachable}; using {_text(paths)}, written from it earlier, without comparing them"
    return note and valid_text(note)


def _text(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths))


def _changes(paths: list[Path], source: Where, config: Data, run_dir: RunDir, progress: Progress) -> str | None:
    """What differs between the files that the .betons at `paths` were written from and the source as it is now."""
    if is_beton(source):
        return None
    written = [names.files for path in paths if (names := beton.open_beton(path).names) is not None]
    before = sum(written, Files.none())
    if len(written) < len(paths) or not len(before):
        return None
    now = sources.files_of(source, reading_of(paths[0], source, config, run_dir))
    if len(now) and (now.sizes < 0).all():
        progress.note(f"{text_of(source)} is not there any more; using {_text(paths)}, which was written from it")
        return None
    return changes(before, now) if len(now) else None


def _changes_since(given: Beton, progress: Progress) -> str | None:
    """A sentence on how the files that a .beton was made of have changed, as far as they are where they were then and a
    look at them takes no time: up to SCANNED files one by one, of more LOOKED_AT of those that it was made of."""
    if (told := made_from(given)) is None:
        return None
    (paths, reading), before = told, given.made_of
    places = [*paths, *([] if reading.labels is None else [reading.labels])]
    where = text_of(paths)
    progress.step(f"comparing {given.path} with {where}")
    try:
        if not all(os.path.exists(split_of(place)[0]) for path in places for place in sources.expand(path)):
            return None
        if len(before) > SCANNED and given.names is not None and "size" in given.names.table.column_names:
            change = _sampled_changes(given, paths)
        else:
            now = sources.files_of(paths, reading)
            change = changes(before, _known(now, before) if given.sidecar["made_from"].get("is_part") is True else now)
    except (ValueError, OSError, ImportError) as error:
        return f"{given.path} was made of {where}, which cannot be compared with it: {error}"
    if change is None:
        return None
    return (
        f"{given.path} was made of {where}, which has changed since: {change}; the run takes the images that are in "
        f"{given.path}"
    )


def _known(now: Files, before: Files) -> Files:
    """Those of the files whose names were there before."""
    import pyarrow.compute as pc

    at = np.flatnonzero(pc.is_in(now.names, value_set=before.names).to_numpy(zero_copy_only=False))
    return Files.of_rows(now.rows(at))


def _sampled_changes(given: Beton, paths: tuple[str, ...]) -> str | None:
    originals = Originals(given, [paths])
    rows: Any = np.unique(np.linspace(0, given.n_samples - 1, LOOKED_AT).astype(np.int64)).tolist()
    differ = [row for row in rows if originals.path(row) is None]
    if not differ:
        return None
    names = [originals.name(row) for row in differ]
    return f"of {len(rows):,} files looked at, {len(differ):,} are gone or have changed ({some(names)})"

"""The training and test images of a run: written as .beton files into the run directory, opened and checked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from dualfast.comm.ranks import Ranks
from dualfast.config import Data
from dualfast.data import beton, sources
from dualfast.data.beton import Beton
from dualfast.data.beton.write import warn_of_notes
from dualfast.data.classes import check_labels
from dualfast.data.images import decode
from dualfast.data.inventory import some
from dualfast.data.sources import Source, Where
from dualfast.runs.classes import class_names_of, match
from dualfast.runs.originals import open_whole
from dualfast.runs.parts import Parts, is_beton, open_given, reading_of, text_of, with_way_out
from dualfast.runs.progress import Progress
from dualfast.runs.rundir import RunDir

PEEKED = 8  # images
COMPARED = 1000  # pairs of images
PIECE = 1 << 16  # names
NOTES = "data_notes"  # in config.yaml: what the last call said of data that differ, or could not be compared
TryModel = Callable[[int, int, tuple[int, int] | None], None]


def open_datasets(
    config: Data,
    run_dir: RunDir,
    parts: Parts,
    ranks: Ranks,
    progress: Progress,
    *,
    needs_test: bool,
    try_model: TryModel,
) -> tuple[Beton, Beton | None]:
    """The training images and the test images, None without any.

    try_model(number of images, of classes, (height, width) of the images, None where they differ) is called on rank 0
    before anything is written. Raises ValueError for missing test images if `needs_test`, for data other than the run
    directory's or other than another rank's, and for test images of classes that the training images lack; a run
    directory in which nothing was written then forgets what was asked.
    """
    paths = parts.sources

    def prepare() -> None:
        try:
            _write_missing(parts, config, run_dir, progress, try_model, needs_test)
        except Exception:
            run_dir.withdraw()
            raise

    ranks.run_on_rank0("writing the images", prepare)
    opened = [_open_beton(path, source, config, run_dir) for path, source in paths.items()]
    train, test = opened[0], opened[1] if len(opened) > 1 else None
    ranks.check_same({"the training data": train.fingerprint})
    noted = {"data_fingerprint": train.fingerprint}
    noted |= {} if test is None else {"test_fingerprint": test.fingerprint}
    if test is not None and test.fingerprint == train.fingerprint:
        progress.note("the test images are the training images: the accuracy is that of memory, not of new images")
    elif test is not None and ranks.rank == 0 and (shared := _shared(train, test)):
        progress.note(f"{shared} are training images: the accuracy is in part that of memory, not of new images")

    def note() -> None:
        run_dir.note(noted)
        if parts.notes or run_dir.requested().get(NOTES):
            run_dir.note({NOTES: parts.notes}, (NOTES,))

    ranks.run_on_rank0("comparing the data with the run's", note)
    if train.n_samples < ranks.size:
        raise too_few_images("the training data", train.n_samples, ranks)
    return train, test


def _shared(train: Beton, test: Beton) -> str:
    """How many test images are among the training images: those with a file and folder of the same names and the same
    bytes. Of many only COMPARED are looked at. Empty for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if train.names is None or test.names is None:
        return ""
    wanted, found = _keys(test, 0, test.n_samples), []
    for start in range(0, train.n_samples, PIECE):  # the keys of all training images would take as much as their names
        keys = _keys(train, start, PIECE)
        is_wanted = pc.is_in(keys, value_set=wanted)
        found.append(pa.table({"key": keys.filter(is_wanted), "row": np.flatnonzero(is_wanted) + start}))
    candidates = pa.concat_tables(found)
    rows = candidates["row"].take(pc.index_in(wanted, value_set=candidates["key"]))
    alike = np.flatnonzero(rows.is_valid())
    looked_at = alike[:: -(-len(alike) // COMPARED)] if len(alike) else alike
    same = sum(test.payload(row) == train.payload(rows[row].as_py()) for row in looked_at.tolist())
    about = "about " if len(looked_at) < len(alike) else ""
    return f"{about}{same * len(alike) // len(looked_at):,} of {test.n_samples:,} test images" if same else ""


def _keys(part: Beton, start: int, count: int) -> Any:
    """The ends of the samples' names, FOLDER/FILE, with their sizes, of so many samples from `start` on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    assert part.names is not None
    ends = pc.replace_substring_regex(part.names.column.slice(start, count), "^.*/([^/]*/[^/]*)$", r"\1")
    return pc.binary_join_element_wise(ends, pa.array(part.size[start : start + count]).cast(ends.type), ":")


def too_few_images(what: str, count: int, ranks: Ranks) -> ValueError:
    return ValueError(f"{what}: {count} images for {ranks.size} processes; start at most one process per image")


def _open_beton(path: Path, source: Where, config: Data, run_dir: RunDir) -> Beton:
    """The source itself if it is a .beton, else the .beton at `path`, which was written from it."""
    if not is_beton(source):
        return open_whole(path)
    with with_way_out(path, config, run_dir):
        opened = open_given(str(source), reading_of(path, source, config, run_dir))
        opened.check_columns()
    return opened


def _open_parts(given: Parts, config: Data, run_dir: RunDir, progress: Progress) -> dict[Path, Beton | Source]:
    """Each part of the data as the .beton that it is or was written to, or as the source that is still to be
    written."""
    paths = given.sources
    missing = {
        path: source for path, source in paths.items() if not is_beton(source) and (given.changed or not path.exists())
    }
    parts: dict[Path, Beton | Source] = {}
    if config.test_fraction is not None and missing:
        source = next(iter(missing.values()))
        progress.step(f"reading {text_of(source)}")
        held_out = sources.hold_out(sources.open_source(source, config.reading), config.test_fraction)
        parts = {path: part for path, part in zip(paths, held_out, strict=True) if path in missing}
    for path, source in paths.items():
        if path not in missing:
            parts[path] = _open_beton(path, source, config, run_dir)
        elif path not in parts:
            progress.step(f"reading {text_of(source)}")
            reading = reading_of(path, source, config, run_dir)
            with with_way_out(path, config, run_dir):
                parts[path] = sources.open_source(source, reading, is_test=path == run_dir.test_beton)
    return {path: parts[path] for path in paths}


def _write_missing(
    given: Parts,
    config: Data,
    run_dir: RunDir,
    progress: Progress,
    try_model: TryModel,
    needs_test: bool,
) -> None:
    """Writes each source that is not a .beton to its path, unless that exists, once all is known to fit together. Where
    the data have changed, what the run directory holds of the old ones is deleted once the new ones are written."""
    paths = given.sources
    parts = _open_parts(given, config, run_dir, progress)
    if not given.unreachable and (unused := sources.unused_parts(config.data, list(paths.values()), config.labels)):
        progress.note(f"{text_of(config.data)}: not used: {some(unused)}")
    train, *test = parts
    if needs_test and not test:
        hold_out = ", or hold some out with --test-fraction 0.1; in a folder they lie in class folders of val"
        others = "" if is_beton(paths[train]) else hold_out
        raise ValueError(
            f"data {text_of(config.data)!r} has no test images with classes; name them with --test PATH{others}"
        )
    _check_labels(parts[train])
    for path in test:
        where = text_of(paths[path]) if config.test_fraction is None else f"the test part of {text_of(paths[path])}"
        parts[path] = _with_classes_of(parts[train], parts[path], where, progress)
    try_model(_count(parts[train]), len(class_names_of(parts[train])), _image_size(parts[train], config))
    folder = run_dir.rewritten if given.changed else run_dir.path
    folder.mkdir(exist_ok=True)
    for path, part in parts.items():
        if isinstance(part, Source):
            progress.step(f"writing {path.name}")
            progress.say(str(part))
            options = {**config.storing, "rewrite": bool(given.changed), "progress": False}
            progress.say(str(beton.write(part, folder / path.name, **options)))
        else:
            warn_of_notes(part.sidecar, text_of(paths[path]))
    if given.changed and all(map(run_dir.is_the_same, parts)):
        progress.note(f"{given.changed}; the images are the same, byte for byte: the results stay")
        run_dir.take_over()
    elif given.changed:
        progress.note(f"{given.changed}; starting over")
        run_dir.start_over()
    shutil.rmtree(run_dir.rewritten, ignore_errors=True)  # of a call that was stopped


def _count(part: Beton | Source) -> int:
    return part.n_samples if isinstance(part, Beton) else len(part)


def _check_labels(train: Beton | Source) -> None:
    """ValueError for labels of a .beton that number no classes; those of a source are checked when it is opened."""
    if isinstance(train, Source):
        return
    check_labels(train.labels, lambda row: f"sample {row} of {train.path}")
    if len(train.labels) and train.labels.min() == train.labels.max():
        raise ValueError(f"{train.path} has only one class (label {train.labels[0]}); a classifier needs at least two")
    if train.class_names and len(train.class_names) <= (high := int(train.labels.max())):
        raise ValueError(
            f"{train.path} has the label {high} and names {len(train.class_names)} classes; write it again"
        )


def _with_classes_of(train: Beton | Source, test: Beton | Source, where: str, progress: Progress) -> Beton | Source:
    """The test images, numbered as the training classes if they are still to be written."""
    matched = match(train, test, where)
    for note in matched.notes:
        progress.note(note)
    if isinstance(test, Beton):
        return test
    labels = test.labels if matched.numbers is None else matched.numbers[test.labels]
    return replace(test, labels=labels, class_names=train.class_names)


def _image_size(data: Beton | Source, config: Data) -> tuple[int, int] | None:
    """(height, width) of the images, by a look at the first ones where they are still to be written; None where they
    differ."""
    if isinstance(data, Beton):
        return data.constant_size
    sizes = set()
    for payload in islice(data.items(), PEEKED):
        with suppress(Exception):  # write() names what cannot be read
            assert not isinstance(payload, Exception)
            sizes.add(decode(payload, max_size=config.max_size).size[::-1])
    return sizes.pop() if len(sizes) == 1 else None

"""The training and test images of a run: written as .beton files into the run directory, opened and checked."""

from __future__ import annotations

from pathlib import Path

from dualfast.comm.ranks import Ranks
from dualfast.config import Data, reading_of, storing_of
from dualfast.data import beton, sources
from dualfast.data.beton import Beton
from dualfast.data.classes import check_labels
from dualfast.runs.progress import Progress
from dualfast.runs.rundir import RunDir


def check_sources(config: Data, run_dir: RunDir, progress: Progress) -> None:
    """Compares the data with what the run directory's images were written from. Where they have changed: ValueError
    that says what, or with config.rewrite a run directory that starts over."""
    changed = [
        f"{source}: {change}"
        for path, source in _paths(config, run_dir).items()
        if path.exists() and (change := _changes(path, source, progress))
    ]
    if not changed:
        return
    what = f"the data have changed since they were written to {run_dir.path}: {'; '.join(changed)}"
    if not config.rewrite:
        raise ValueError(
            f"{what}. Give another --out, or --rewrite, which writes the images again and starts this run over (its "
            f"{len(run_dir.records('trained'))} finished trainings are deleted)"
        )
    progress.say(f"{what}; starting over")
    run_dir.start_over()


def open_datasets(
    config: Data, run_dir: RunDir, ranks: Ranks, progress: Progress, *, needs_test: bool
) -> tuple[Beton, Beton | None]:
    """The training images and the test images, None without any.

    Raises ValueError for missing test images if `needs_test`, for data other than the run directory's or other than
    another rank's, and for test images whose classes do not match.
    """
    paths = _paths(config, run_dir)
    ranks.run_on_rank0("writing the images", lambda: _write_missing(paths, config, progress))
    if run_dir.test_beton not in paths and needs_test:
        raise ValueError(f"data {config.data!r} has no test images; name them with --test PATH")
    opened = [beton.open_beton(source if source.endswith(".beton") else path) for path, source in paths.items()]
    train, test = opened[0], opened[1] if len(opened) > 1 else None
    check_labels(train.labels, lambda row: f"sample {row} of {train.path}")
    if train.class_names and len(train.class_names) <= (high := int(train.labels.max())):
        raise ValueError(
            f"{train.path} has the label {high} and names {len(train.class_names)} classes; write it again"
        )
    ranks.check_same({"the training data": train.fingerprint})
    noted = {"data_fingerprint": train.fingerprint}
    noted |= {} if test is None else {"test_fingerprint": test.fingerprint}
    ranks.run_on_rank0("comparing the data with the run's", lambda: run_dir.note(noted))
    if train.n_samples < ranks.size:
        raise too_few_images("the training data", train.n_samples, ranks)
    if test is not None:
        _check_classes(train, test)
    return train, test


def _paths(config: Data, run_dir: RunDir) -> dict[Path, str]:
    """The source of the training images, and of the test images if there are any, by the path of their .beton."""
    train, test = sources.splits(config.data, config.test)
    return {run_dir.train_beton: train} | ({} if test is None else {run_dir.test_beton: test})


def _changes(path: Path, source: str, progress: Progress) -> str | None:
    """What differs between the files that the .beton at `path` was written from and the source as it is now."""
    if source.endswith(".beton"):
        return None
    written = beton.open_beton(path)
    if written.names is None or not len(written.names.files):
        return None
    now = sources.files_of(source)
    if len(now) and (now.sizes < 0).all():
        progress.say(f"{source} is not there any more; using {path}, which was written from it")
        return None
    return written.changes_since(now)


def class_names_of(train: Beton) -> tuple[str, ...]:
    """The names of the classes; their numbers where the data have no names."""
    return train.class_names or tuple(map(str, range(int(train.labels.max()) + 1)))


def too_few_images(what: str, count: int, ranks: Ranks) -> ValueError:
    return ValueError(f"{what}: {count} images for {ranks.size} processes; start at most one process per image")


def _write_missing(paths: dict[Path, str], config: Data, progress: Progress) -> None:
    """Writes each source that is not a .beton to its path, unless that exists."""
    for path, source in paths.items():
        if source.endswith(".beton") or path.exists():
            continue
        progress.step(f"writing {path.name}")
        opened = sources.open_source(source, reading_of(config))
        progress.say(str(opened))
        progress.say(str(beton.write(opened, path, **storing_of(config), progress=False)))


def _check_classes(train: Beton, test: Beton) -> None:
    if test.class_names and train.class_names and test.class_names != train.class_names:
        unmatched = sorted(set(test.class_names) ^ set(train.class_names))
        raise ValueError(
            f"the test images have {len(test.class_names)} classes and the training images {len(train.class_names)}; "
            f"only one of them has {', '.join(unmatched[:5]) or 'this order'}"
        )
    n_classes = len(class_names_of(train))
    if int(test.labels.max()) >= n_classes:
        raise ValueError(
            f"the test images have the label {int(test.labels.max())}; the training images have the classes 0 to "
            f"{n_classes - 1}"
        )

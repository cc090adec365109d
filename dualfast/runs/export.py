"""dualfast export: the samples that an index list of a run keeps, or those that it removes, as a table or as a data set
of their own."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.config import Columns, Reading, method_options, ratio_text
from dualfast.data.beton import Beton
from dualfast.data.images import suffixes
from dualfast.data.index_list import load_keep, read_sidecar
from dualfast.data.inventory import some
from dualfast.data.sources.parquet_columns import declared_features
from dualfast.data.sources.paths import split_of
from dualfast.runs.classes import class_names_of
from dualfast.runs.originals import Image, Originals, made_from, open_whole
from dualfast.runs.parts import check_outside
from dualfast.runs.progress import Progress
from dualfast.runs.rundir import RunDir
from dualfast.runs.scoring import rows_of
from dualfast.scoring.scores import Scores
from dualfast.selection import sample_rows
from dualfast.storage.files import atomic, check_folder
from dualfast.storage.locks import lock_folder

ROW_GROUP_BYTES = 64 << 20
OWN_COLUMNS = ("image", "label", "name")


def export(
    path: str,
    form: str,
    progress: Progress,
    *,
    removed: bool = False,
    out: str | None = None,
    keep: str | None = None,
    **which: Any,
) -> tuple[Path, int]:
    """Writes what an index list keeps, or removes, to `out`; returns its path and the number of samples.

    path: a run directory, or a score table, of which only the form "csv" can be made. form: csv, parquet, symlinks or
    copy. out: None for kept-<ratio> or removed-<ratio> in the run directory. keep: the index list; None for the run's,
    of which prune_ratio, method and seed choose one. Raises ValueError when that leaves several, when `out` exists and
    is not an empty folder, and for samples that the form has no place for."""
    if keep is not None and any(value is not None for value in which.values()):
        raise ValueError("keep names the index list; leave out --prune-ratio, --method and --seed, which choose one")
    run_dir = None
    if Path(path).is_dir():
        run_dir = RunDir(path)
        list_path = Path(keep) if keep is not None else _list_of(run_dir, **which)
        out = out or str(run_dir.path / _default_name(list_path, form, removed))
    elif keep is None or out is None or form != "csv":
        raise ValueError(
            f"{path!r} is not a run directory; of a score table, --as csv can be made, with --keep LIST and --out FILE"
        )
    else:
        list_path = Path(keep)
    target = free_path(Path(out))
    if run_dir is None:
        about = Scores.about(path)
        ids = load_keep(list_path, n_samples=about["n_samples"], fingerprint=about["fingerprint"])
        return target, sample_rows.write_csv(sample_rows.rows_of_table(path), ids, target, removed=removed)
    if form != "csv":
        _check_outside(run_dir, target)
    beton = beton_of(run_dir)
    ids = load_keep(list_path, n_samples=beton.n_samples, fingerprint=beton.fingerprint)
    if form != "parquet":
        _note_missing_classes(beton, ids, removed, progress)
    if form == "csv":
        progress.plan(beton.n_samples)
        rows = rows_of(run_dir, beton, read_sidecar(list_path).get("seed"))
        return target, sample_rows.write_csv(rows, ids, target, removed=removed, progress=progress.images)
    if removed:
        ids = np.setdiff1d(np.arange(beton.n_samples), ids, assume_unique=True)
    originals = originals_of(run_dir, beton)
    progress.plan(len(ids))
    write = {"parquet": _write_parquet, "symlinks": _write_links, "copy": _write_copies}[form]
    write(originals, ids, target, progress)
    return target, len(ids)


def _check_outside(run_dir: RunDir, target: Path) -> None:
    """check_outside for the data of a run, as far as they are there."""

    def folders(name: str) -> list[str]:
        given = run_dir.requested().get(name) or []
        found = [run_dir.find(path) for path in ([given] if isinstance(given, str) else given)]
        return [path for path in found if os.path.isdir(split_of(path)[0])]

    check_outside(folders("data"), folders("test"), str(target))


def _note_missing_classes(beton: Beton, ids: NDArray[np.int64], removed: bool, progress: Progress) -> None:
    """Says which classes have no sample in the result, whose names a list or a folder cannot keep."""
    names, counts = class_names_of(beton), np.bincount(beton.labels)
    listed = np.bincount(beton.labels[ids], minlength=len(names))
    here = np.pad(counts, (0, len(names) - len(counts))) - listed if removed else listed
    missing = [names[number] for number in np.flatnonzero(here == 0)]
    if missing:
        progress.note(
            f"{len(missing):,} of {len(names):,} classes have no sample here: {some(missing)}; what numbers classes by "
            "the folders or rows that are there numbers the others anew; --as parquet keeps all numbers and names"
        )


def beton_of(run_dir: RunDir) -> Beton:
    """The training images of a run. ValueError where they are gone."""
    requested = run_dir.requested()
    data = requested.get("data")
    if isinstance(data, str) and data.endswith(".beton"):
        return open_whole(run_dir.find(data), **Columns.among(requested))
    return open_whole(run_dir.train_beton)


def originals_of(run_dir: RunDir, beton: Beton) -> Originals:
    """What the images of a run were read from; of a .beton that was given itself, what that was made of."""
    requested = run_dir.requested()
    given = requested["data"]
    if isinstance(given, str) and given.endswith(".beton"):
        paths, reading = made_from(beton) or ((), Reading())
        return Originals(beton, [paths] if paths else [], reading)
    paths = (given,) if isinstance(given, str) else given
    places = list(dict.fromkeys(zip(*map(run_dir.places_of, paths), strict=False)))
    options = {option.name: requested[option.name] for option in fields(Reading) if option.name in requested}
    return Originals(beton, places, Reading(**options))


# ---- which list, and where to ---------------------------------------------------------------------------------------


def _list_of(
    run_dir: RunDir, prune_ratio: float | None = None, method: str | None = None, seed: int | None = None
) -> Path:
    """The one index list of a run that was drawn so. Of several at one ratio, that of the run's first method and seed,
    keep-<ratio>.npy, is meant."""
    lists = {path: read_sidecar(path) for path in sorted(run_dir.path.glob("keep-*.npy"))}
    wanted: dict[str, Any] = {} if prune_ratio is None else {"prune_ratio": prune_ratio}
    if method is not None:
        name, options = method_options(method)
        wanted |= {"method": name, **options}
    wanted |= {} if seed is None else {"seed": seed}
    found = [path for path, about in lists.items() if wanted.items() <= about.items()]
    ratios = {path: lists[path].get("prune_ratio") for path in found}
    first = [path for path, ratio in ratios.items() if ratio is not None and path == run_dir.keep_path(ratio, "", 0)]
    for few in (found, first):
        if len(few) == 1:
            return few[0]
    have = ", ".join(sorted({_drawn(about) for about in lists.values()}))
    if not lists:
        raise ValueError(f"{run_dir.path} has no index lists; dualfast run draws them, or give one with --keep LIST")
    if not found:
        raise ValueError(f"{run_dir.path} has no index list like that; it has {have}")
    raise ValueError(f"{run_dir.path} has several index lists: {have}; choose with --prune-ratio, --method and --seed")


def _drawn(about: dict[str, Any]) -> str:
    return f"{ratio_text(about.get('prune_ratio', 0))} {about.get('method')} seed {about.get('seed')}"


def _default_name(list_path: Path, form: str, removed: bool) -> str:
    stem = list_path.stem.removeprefix("keep-")
    suffix = f".{form}" if form in ("csv", "parquet") else ""
    return f"{'removed' if removed else 'kept'}-{stem}{suffix}"


def free_path(out: Path) -> Path:
    """The path, which holds nothing; the folders above it are made."""
    if out.is_dir():
        if any(out.iterdir()):
            raise ValueError(f"out is {str(out)!r}, a folder that holds something; give another --out, or delete it")
        return out
    if out.exists() or out.is_symlink():
        raise ValueError(f"out is {str(out)!r}, which exists; give another --out, or delete it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"out is {str(out)!r}, and the folder {str(out.parent)!r} cannot be made ({error.strerror}); give another "
            "--out"
        ) from None
    check_folder(out)
    return out


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill, which gets the name `out` when the block succeeds. What a killed call left of it is deleted."""
    part = out.parent / f".{out.name}.partial"
    if part.is_symlink():  # others can foresee the name
        raise ValueError(f"{str(part)!r} is a link, and what it leads to is not written to; delete it")
    with lock_folder(part):
        for left in part.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        try:
            yield part
            os.rename(part, out)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


# ---- folders --------------------------------------------------------------------------------------------------------


def _write_links(originals: Originals, ids: NDArray[np.int64], out: Path, progress: Progress) -> None:
    places = _Places(originals)
    with new_folder(out) as folder:
        for row in ids.tolist():
            original = originals.path(row)
            if original is None:
                places.of(row, folder)  # refuses a name that leads outside
                why = originals.why_none(row)
                raise ValueError(f"{originals.name(row)} {why}; --as copy writes the images themselves")
            places.of(row, folder, original).symlink_to(original)
            progress.images(1)


def _write_copies(originals: Originals, ids: NDArray[np.int64], out: Path, progress: Progress) -> None:
    places, instead = _Places(originals), Counter[str]()
    with new_folder(out) as folder:
        for image in originals.images(ids):
            if image.path is not None:
                shutil.copy2(image.path, places.of(image.row, folder, image.path))
            else:
                places.of(image.row, folder, suffix=image.suffix).write_bytes(image.data)
            instead.update(filter(None, [image.instead]))
            progress.images(1)
    _note_instead(instead, len(ids), progress)
    others = originals.other_columns()
    if others is not None and others.schema.names:
        progress.note(f"columns that are left out: {some(others.schema.names)}; --as parquet keeps them")


def _note_instead(instead: Counter[str], total: int, progress: Progress) -> None:
    for text, n in instead.items():
        progress.note(f"{n:,} of {total:,} images are not the bytes of the originals: {text}")


class _Places:
    """Where samples go in a folder of class folders."""

    def __init__(self, originals: Originals) -> None:
        self.originals, self.labels = originals, originals.beton.labels
        self.classes = class_names_of(originals.beton)
        self.folders = list(map(originals.class_folder, self.classes))

    def of(self, row: int, folder: Path, original: Path | None = None, suffix: str | None = None) -> Path:
        """The path for a sample, which is new; its folder is made. original: the file that it is of, which keeps its
        name; suffix: of what is written instead. ValueError for a name that leads outside."""
        name, label = self.originals.name(row), self.folders[self.labels[row]]
        in_name = self.classes[self.labels[row]] if original is None else label
        inside = PurePosixPath(label, *self._inside(row, name, in_name, original, is_file=suffix is None))
        if suffix is not None and _format(inside.suffix) != _format(suffix):
            inside = inside.with_name(inside.name + suffix)
        if len(PurePosixPath(label).parts) != 1 or {"..", "/"} & set(inside.parts) or "\0" in str(inside):
            raise ValueError(
                f"{name!r} of the class {label!r} would not be in a class folder of its own; --as csv or --as parquet "
                "has room for such names"
            )
        place = folder / inside
        while os.path.lexists(place):
            place = place.with_name(f"{place.stem}-{row}{place.suffix}")
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    @staticmethod
    def _inside(row: int, name: str, label: str, original: Path | None, is_file: bool) -> tuple[str, ...]:
        """The parts of a sample's name below its class folder; its row where it is not named like a file."""
        if not is_file:
            if PurePosixPath(name).suffix.lower() not in suffixes():
                return (str(row),)
            name = name.rpartition(":")[2]  # of a member of an archive, without that
        parts = name.split("/")
        if original is not None:  # as the file system has it
            parts = list(original.parts[-len(parts) :])
        return tuple(parts[parts.index(label) + 1 :] if label in parts[:-1] else parts)


def _format(suffix: str) -> str | None:
    """Pillow's name of the format of files with a suffix."""
    from PIL import Image

    return Image.registered_extensions().get(suffix.lower())


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _write_parquet(originals: Originals, ids: NDArray[np.int64], out: Path, progress: Progress) -> None:
    """A file as Hugging Face's datasets writes it: image (bytes, path), label and name, and what else the run's tables
    hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    classes, labels = class_names_of(originals.beton), originals.beton.labels
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
        "name": {"dtype": "string", "_type": "Value"},
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    own = [pa.field("image", image), pa.field("label", pa.int64()), pa.field("name", pa.string())]
    others = _Others(originals, ids, progress)
    schema = pa.schema([*own, *others.fields])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features | others.features}})})
    instead = Counter[str]()
    with atomic(out) as part, pq.ParquetWriter(part, schema, compression="none", use_dictionary=False) as writer:
        for group in _groups(originals.images(ids)):
            instead.update(image.instead for image, _ in group if image.instead)
            names = [originals.name(image.row) for image, _ in group]
            images = [{"bytes": data, "path": PurePosixPath(n).name} for n, (_, data) in zip(names, group, strict=True)]
            columns = {"image": images, "label": [int(labels[image.row]) for image, _ in group], "name": names}
            columns |= others.next(len(group))
            writer.write_table(pa.table(columns, schema))
            progress.images(len(group))
    _note_instead(instead, len(ids), progress)


def _groups(images: Iterator[Image]) -> Iterator[list[tuple[Image, bytes]]]:
    """The samples and their encoded images, in groups of bounded size."""
    group: list[tuple[Image, bytes]] = []
    size = 0
    for image in images:
        group.append((image, image.read()))
        size += len(group[-1][1])
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


class _Others:
    """The other columns of the table that the samples were read from, row by row with them. fields: of a pyarrow
    schema; features: what Hugging Face's metadata say of them. One that is called like a column of ours is renamed."""

    def __init__(self, originals: Originals, ids: NDArray[np.int64], progress: Progress) -> None:
        found = originals.other_columns()
        self._tables: Iterator[Any] = iter(())
        self._buffer: Any = None
        self.fields: list[Any] = []
        self.features: dict[str, Any] = {}
        if found is None:
            if (left := originals.left_columns) is not None:
                progress.note(left)
            return
        if found.differ:
            progress.note(f"columns that not all of the data have, with one type, are left out: {some(found.differ)}")
        names = found.schema.names
        renamed = {name: _free_name(name, names) for name in names}
        declared = declared_features(found.schema)
        self.features = {renamed[name]: declared[name] for name in names if name in declared}
        self.fields = [field.with_name(renamed[field.name]) for field in found.schema]
        if self.fields:
            self._tables = originals.taken_tables(ids, found)
        for name in names:
            if renamed[name] != name:
                progress.note(f"the column {name} of the data is called {renamed[name]}")

    def next(self, count: int) -> dict[str, Any]:
        """The next rows, by column."""
        import pyarrow as pa

        if not self.fields:
            return {}
        parts = [] if self._buffer is None else [self._buffer]
        while sum(map(len, parts)) < count:
            parts.append(next(self._tables))
        table = pa.concat_tables(parts)
        self._buffer = table.slice(count)
        return {field.name: table.column(at).slice(0, count) for at, field in enumerate(self.fields)}


def _free_name(name: str, taken: Sequence[str]) -> str:
    """The name, or of one of our columns another that is free."""
    if name not in OWN_COLUMNS:
        return name
    return next(free for n in count(1) if (free := "source_" * n + name) not in taken)

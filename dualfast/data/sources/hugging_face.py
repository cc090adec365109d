"""Data sets of the library datasets: a folder that save_to_disk wrote, hf://USER/NAME on the hub, a Dataset itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dualfast.data.images import Payload
from dualfast.data.inventory import Files, Inventory, numbered_texts
from dualfast.data.sources import parquet_columns
from dualfast.data.sources.labels import LabelWords, labels_of
from dualfast.data.sources.parquet import as_array, cell_bytes, files_at
from dualfast.data.sources.paths import addresses, split_of
from dualfast.data.sources.source import Kind, OtherColumns, Source
from dualfast.errors import MissingPackage

HUB = "hf://"
BATCH_ROWS = 256
CONTACT_SECONDS = 10  # for an answer of the hub, before its cache is looked into


def from_dataset(
    data: Any,
    location: str,
    *,
    folder: str | None = None,
    files: Files | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """The samples of a datasets.Dataset. folder: a real path, outside which no image is read that a cell names by its
    path; None for a Dataset of the caller's own, which may name any file."""
    rows = _Rows(data)
    columns = parquet_columns.choose(rows, location, image_column, label_column)
    words = LabelWords(
        what=f"{location}: the labels in {columns.label}",
        describe=lambda row: f"row {row} of {location}",
        way_out=parquet_columns.LABEL_WAY_OUT,
    )
    column = rows.column(columns.label)
    if column.null_count:
        raise words.missing(column.is_null().to_pylist().index(True))
    labels, class_names = labels_of(as_array(column), words).numbered()

    def images() -> Iterator[Payload | Exception]:
        for batch in rows.iter_batches(BATCH_ROWS, [columns.image]):
            for cell in batch.column(0):
                yield cell_bytes(cell.as_py(), folder or "", follow_links=folder is None)

    return Source(
        kind="datasets",
        location=location,
        labels=labels,
        class_names=class_names or columns.class_names,
        items=images,
        names=lambda: numbered_texts(f"{location}:", len(labels)),
        describe=words.describe,
        inventory=Inventory(files=files or Files.none(), remarks=columns.remarks),
        other_columns=lambda: rows.others((columns.image, columns.label)),
    )


class _Rows:
    """A Dataset with the part of ParquetFile's interface that parquet_columns uses."""

    def __init__(self, data: Any) -> None:
        self._data = data.with_format("arrow")
        self.schema_arrow = data.features.arrow_schema

    def iter_batches(self, n: int, columns: list[str]) -> Iterator[Any]:
        return iter(self._data.select_columns(columns).iter(n))

    def column(self, name: str) -> Any:
        return self._data.select_columns([name])[:].column(0)

    def others(self, own: tuple[str, ...]) -> OtherColumns:
        import pyarrow as pa

        fields = [field for field in self.schema_arrow if field.name not in own]
        names = [field.name for field in fields]
        schema = pa.schema(fields, self.schema_arrow.metadata)
        return OtherColumns(schema, lambda: (table.select(names) for table in self.iter_batches(BATCH_ROWS, names)))


def is_dataset(value: object) -> bool:
    """Whether it is a datasets.Dataset; without importing the library."""
    return any(kind.__module__.startswith("datasets.") and kind.__name__ == "Dataset" for kind in type(value).__mro__)


def _library() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingPackage(
            "this data set needs the package datasets; pip install 'dualfast[hub]' installs it"
        ) from None
    return datasets


def _open(path: str, *, image_column: str | None = None, label_column: str | None = None) -> Source:
    columns: dict[str, Any] = {"image_column": image_column, "label_column": label_column}
    if path.startswith(HUB):
        name, split = split_of(path)
        return from_dataset(_from_hub(name, split), path, folder=_hub_home(), **columns)
    try:
        data = _library().load_from_disk(path)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as datasets' save_to_disk writes it: {error}") from None
    files = _files(path)
    return from_dataset(data, str(Path(path)), folder=os.path.realpath(path), files=files, **columns)


def _files(path: str) -> Files:
    if path.startswith(HUB):
        return Files.none()
    saved = [Path(path, name) for name in sorted(os.listdir(path)) if name.endswith((".arrow", ".json"))]
    folder = os.path.realpath(path)
    images = files_at((folder, name) for file in saved if file.suffix == ".arrow" for name in _paths_in(file))
    return Files.of(saved) + images


def _paths_in(file: Path) -> Iterator[str]:
    """The paths of the images in a saved file that have no bytes. None of a file that cannot be read, of which size and
    time say enough."""
    import pyarrow as pa

    with suppress(OSError, pa.ArrowException), pa.memory_map(str(file)) as data, pa.ipc.open_stream(data) as stream:
        names = parquet_columns.columns_with_paths(stream.schema)
        for batch in stream:
            for name in names:
                images = batch.column(name)
                yield from images.field("path").filter(images.field("bytes").is_null()).drop_null().to_pylist()


def _is_saved(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "state.json")) and os.path.isfile(os.path.join(path, "dataset_info.json"))


# ---- the hub --------------------------------------------------------------------------------------------------------


def _hub_id(path: str) -> str:
    return path.removeprefix(HUB).removeprefix("datasets/").strip("/")


def _is_hub_id(path: str) -> bool:
    """Whether it is hf://USER/NAME, and not a file there."""
    return path.startswith(HUB) and _hub_id(path).count("/") == 1 and "*" not in path


@contextmanager
def _hub(path: str) -> Iterator[Any]:
    """The library datasets, to read `path` with. Where the hub does not answer, it looks in its cache at once, instead
    of after half a minute of retries. ValueError for what cannot be read."""
    library = _library()
    from huggingface_hub import HfApi, constants

    why = ""
    try:
        HfApi().dataset_info(_hub_id(path), timeout=CONTACT_SECONDS)
    except Exception as error:  # of whichever library it uses for HTTP; what the hub answers, datasets explains
        if getattr(error, "response", None) is None and not isinstance(error, ValueError):
            why = " ".join(str(error).split()) or type(error).__name__
    modules: list[Any] = [constants, library.config] if why else []
    offline = [(module, module.HF_HUB_OFFLINE) for module in modules]
    try:
        for module, _ in offline:
            module.HF_HUB_OFFLINE = True
        yield library
    except Exception as error:  # of half a dozen libraries
        reason = " ".join(str(error).split())[:300]
        if why:
            reason = f"the Hugging Face hub cannot be reached ({why[:200]}), and its cache here does not hold that"
        raise ValueError(f"{path} cannot be read: {reason}") from None
    finally:
        for module, before in offline:
            module.HF_HUB_OFFLINE = before


def _from_hub(path: str, split: str | None) -> Any:
    with _hub(path) as library:
        names = [split] if split else library.get_dataset_split_names(_hub_id(path))
        data = library.load_dataset(_hub_id(path), split=names[0]) if len(names) == 1 else None
    if data is None:
        raise ValueError(f"{path} holds several splits ({', '.join(names)}); give one, as {path}:{names[0]}")
    return data


def _hub_home() -> str:
    from datasets import config

    return os.path.realpath(str(config.HF_CACHE_HOME))


def _splits(path: str) -> dict[str, str]:
    if not _is_hub_id(path):
        return {}
    with _hub(path) as library:
        return addresses(path, library.get_dataset_split_names(_hub_id(path)))


KIND = Kind(
    accepts="hf://USER/NAME of the Hugging Face hub",
    recognizes=lambda path: _is_hub_id(path) or _is_saved(path),
    open=_open,
    options=("image_column", "label_column"),
    files=_files,
    splits=_splits,
)

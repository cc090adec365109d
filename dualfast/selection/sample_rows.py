"""Which samples an index list keeps or leaves out, as rows with id, name, label, class and scores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.data.index_list import load_keep
from dualfast.scoring.scores import open_table
from dualfast.storage.files import atomic, open_regular, what_is

MAX_HEADER = 1 << 16
ABOUT = ("id", "name", "label", "class")


def rows_of_table(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The rows of a score table, as pyarrow tables of bounded size: ABOUT, as far as there, then the scores. ValueError
    for a damaged table."""
    import pyarrow as pa

    with open_table(path) as file:
        names = file.schema_arrow.names
        columns = [*(name for name in ABOUT if name in names), *(name for name in names if name not in ABOUT)]
        first = 0
        for batch in file.iter_batches(columns=columns):
            table = pa.Table.from_batches([batch]).select(columns)
            if "id" not in names:
                table = table.add_column(0, "id", pa.array(np.arange(first, first + len(table))))
            first += len(table)
            yield table


def rows_of_beton(beton: Beton) -> Iterator[Any]:
    """The same of a .beton, without scores."""
    import pyarrow as pa

    columns: dict[str, Any] = {"id": np.arange(beton.n_samples, dtype=np.int64)}
    if beton.names is not None:
        columns["name"] = beton.names.column
    columns["label"] = beton.labels
    if beton.class_names is not None:
        columns["class"] = pa.array(beton.class_names, pa.string()).take(pa.array(beton.labels))
    yield pa.table(columns)


def write_csv(
    rows: Iterable[Any],
    ids: NDArray[np.int64],
    path: str | os.PathLike[str],
    *,
    removed: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Writes those of the rows whose id is one of `ids` (sorted), or with removed=True is none of them, atomically;
    returns their number. progress is told how many rows were looked at."""
    import pyarrow as pa
    import pyarrow.csv

    written, writer = 0, None
    with atomic(path) as part, open(part, "wb") as file:
        for table in rows:
            own = table["id"].to_numpy()
            listed = np.zeros(len(own), np.bool_) if not len(ids) else ids[np.searchsorted(ids[:-1], own)] == own
            chosen = table.filter(pa.array(listed != removed))
            for at, field in enumerate(chosen.schema):
                if pa.types.is_dictionary(field.type):
                    chosen = chosen.set_column(at, field.name, chosen[at].cast(pa.string()))
            writer = writer or pyarrow.csv.CSVWriter(file, chosen.schema)
            writer.write_table(chosen)
            written += len(chosen)
            progress(len(own))
        if writer is not None:
            writer.close()
    return written


def check_csv_beside(list_path: str | os.PathLike[str]) -> None:
    """ValueError where keep.csv, beside the index list keep.npy, is there and none of ours."""
    path = Path(list_path).with_suffix(".csv")
    if path.is_file():
        with open_regular(path) as file:
            first = file.readline(MAX_HEADER)
        if not first.startswith((b'"id","name"', b"id,name")):
            raise ValueError(f"{str(path)!r} is there, where the names of {Path(list_path).name} would go; rename one")


def csv_beside(list_path: str | os.PathLike[str], tables: tuple[str, ...]) -> Path | None:
    """Writes keep.csv beside the index list keep.npy, of its rows in the score table; returns its path. None where the
    list was drawn from several tables, or from one without names."""
    import pyarrow.parquet as pq

    if len(tables) != 1 or what_is(tables[0]) != "a Parquet file" or "name" not in pq.read_schema(tables[0]).names:
        return None
    path = Path(list_path).with_suffix(".csv")
    write_csv(rows_of_table(tables[0]), load_keep(list_path), path)
    return path

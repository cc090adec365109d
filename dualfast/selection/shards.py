"""Columns of scores on disk, read a piece at a time: Parquet score tables and .npy columns."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from dualfast.arguments import as_path
from dualfast.scoring.scores import check_column, note_of
from dualfast.selection.methods import Columns
from dualfast.storage.files import open_regular, what_is
from dualfast.storage.npy import NpyFile

Path: TypeAlias = str | os.PathLike[str]
Source: TypeAlias = Path | Mapping[str, Path]

ROWS = 1 << 20  # samples of a piece
AHEAD = 4  # pieces that are read from the disk while one is processed


class Shard:
    """Columns on disk: a Parquet score table, or a mapping from column names to .npy files.

    `first` is the id of its first sample; the others follow. Raises ValueError for files that are missing, damaged,
    or disagree in length.
    """

    def __init__(self, source: Source, first: int = 0) -> None:
        self.first = first
        for path in source.values() if isinstance(source, Mapping) else [source]:
            as_path("source", path)
        self.name = ", ".join(map(str, source.values())) if isinstance(source, Mapping) else str(source)
        self.arrays: dict[str, NpyFile] = {}
        self.parquet: Any = None
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            if isinstance(source, Mapping):
                self.arrays = {name: NpyFile(path) for name, path in source.items()}
                self.count = _common_length(self.arrays)
            else:
                open_regular(source).close()  # for a pipe Arrow would wait
                self.parquet = pq.ParquetFile(source, page_checksum_verification=True)
                self.count = self.parquet.metadata.num_rows
        except (OSError, ValueError, pa.ArrowException) as error:
            why = str(error).splitlines()[0]
            for path in source.values() if isinstance(source, Mapping) else [source]:
                kind = what_is(path)
                if kind not in (None, "an .npy file", "a Parquet file"):
                    why = f"it is {kind}; save the scores as Parquet, or each column with np.save"
            raise ValueError(f"{self.name!r} is not a score table: {why}") from None

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        return list(self.arrays) if self.parquet is None else list(self.parquet.schema_arrow.names)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What a score table says of itself, as Scores.save writes it: fingerprint, class_names."""
        return {} if self.parquet is None else note_of(self.name, self.parquet.schema_arrow)

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the data that a score table was written for, where it says so."""
        return self.about.get("fingerprint")

    def pieces(self, names: Sequence[str], rows: int | None = None) -> Iterator[tuple[int, int, Columns]]:
        """Piece by piece: the id of the first sample, their number, at most `rows`, and the named columns."""
        rows = rows or ROWS
        for name in names:
            if name not in self.columns:
                raise ValueError(f"{self.name!r} has no column {name!r}; it has {', '.join(self.columns)}")
        if not names:
            for begin in range(0, self.count, rows):
                yield self.first + begin, min(rows, self.count - begin), ()
        elif self.parquet is None:
            for begin, columns in self._from_arrays(names, rows):
                yield self.first + begin, len(columns[0]), columns
        else:
            for begin, columns in self._from_parquet(names, rows):
                yield self.first + begin, len(columns[0]), columns

    def _from_arrays(self, names: Sequence[str], rows: int) -> Iterator[tuple[int, Columns]]:
        columns = [self.arrays[name] for name in names]
        with ThreadPoolExecutor(1) as reader:

            def request(begin: int, count: int) -> None:
                # The kernel reads only a few pages ahead of what was read, so that every piece would be waited for.
                for column in columns:
                    size, fd = column.dtype.itemsize, column.file.fileno()
                    os.posix_fadvise(fd, column.offset + begin * size, count * size, os.POSIX_FADV_WILLNEED)

            for begin in range(0, self.count, rows):  # a request takes time itself, hence the thread
                reader.submit(request, begin + AHEAD * rows if begin else 0, rows if begin else (AHEAD + 1) * rows)
                yield begin, tuple(_floats(column.rows(begin, begin + rows)) for column in columns)

    def _from_parquet(self, names: Sequence[str], rows: int) -> Iterator[tuple[int, Columns]]:
        ids = ["id"] if "id" in self.columns else []
        schema = self.parquet.schema_arrow
        for name in [*names, *ids]:
            check_column(self.name, name, schema.field(name).type)
        begin = 0
        try:
            for batch in self.parquet.iter_batches(rows, columns=[*names, *ids]):
                at = self.first + begin
                if ids and not (batch["id"].to_numpy() == np.arange(at, at + batch.num_rows)).all():
                    raise ValueError(f"the ids are not {at}, {at + 1}, ...: sort the table by id, shards in order")
                yield begin, tuple(_floats(batch[name].to_numpy(zero_copy_only=False)) for name in names)
                begin += batch.num_rows
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.name!r} cannot be read: {str(error).splitlines()[0]}") from None


def shards_of(source: Source | Sequence[Source]) -> list[Shard]:
    """One source, or several that follow each other."""
    sources = list(source) if isinstance(source, list | tuple) else [cast(Source, source)]
    shards: list[Shard] = []
    for one in sources:
        shards.append(Shard(one, shards[-1].first + shards[-1].count if shards else 0))
    return shards


def _common_length(arrays: Mapping[str, NpyFile]) -> int:
    """The length of the columns. ValueError unless they are 1-D numbers of one length."""
    for name, array in arrays.items():
        if len(array.shape) != 1:
            raise ValueError(
                f"{name} has the shape {array.shape}; a score is one number per sample; of a log of (epochs, samples) "
                "dualfast.score_trajectories makes scores"
            )
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{name} is {array.dtype}; a score is a number")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"columns must be of one length; they have {lengths}")
    return next(iter(lengths.values()))


def _floats(column: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(column, None if column.dtype in (np.float32, np.float64) else np.float64)

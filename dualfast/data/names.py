"""The names of a .beton's samples: PATH.names.parquet, a row per sample.

    id        its row in the .beton
    name      path in the folder, member of the tar file, Parquet file and row, or the item's own name
    size      bytes, and
    modified  ns since 1970, of its file; only where every sample is a file of its own

The metadata hold the fingerprint of the data, and the files that are not samples: archives, tables, unreadable images.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import Files
from dualfast.data.sources.source import Source
from dualfast.storage import files
from dualfast.storage.plain import parse_json

KEY = b"dualfast"


@dataclass(frozen=True)
class Names:
    """table: as above. other_files: those that are not samples."""

    table: Any
    other_files: Files

    @classmethod
    def of(cls, source: Source, stored: NDArray[np.bool_]) -> Names:
        """The names of the samples of `source` that are `stored`, a mask over its samples."""
        import pyarrow as pa

        names = source.names().slice(0, len(source))
        columns = {
            "id": np.arange(int(stored.sum()), dtype=np.int64),
            "name": names if stored.all() else names.filter(pa.array(stored)),
        }
        facts = source.inventory.files
        if not source.one_file_each:
            return cls(pa.table(columns), facts)
        n = len(source)
        columns |= {"size": facts.sizes[:n][stored], "modified": facts.times[:n][stored]}
        others = np.concatenate([np.flatnonzero(~stored), np.arange(n, len(facts))])
        return cls(pa.table(columns), Files.of_rows(facts.rows(others)))

    @property
    def column(self) -> Any:
        """The names by id, a pyarrow array."""
        return self.table["name"]

    @property
    def files(self) -> Files:
        """The files that the .beton was made of; empty for arrays in memory, and after compact."""
        if "size" not in self.table.column_names:
            return self.other_files
        sizes, times = (self.table[name].to_numpy() for name in ("size", "modified"))
        return Files.of_images(self.column, sizes, times) + self.other_files

    def take(self, ids: NDArray[np.int64]) -> Names:
        """The names of the samples `ids` alone, which get the ids 0, 1, ..."""
        table = self.table.select(["id", "name"]).take(ids)
        return Names(table.set_column(0, "id", [np.arange(len(ids), dtype=np.int64)]), Files.none())

    def save(self, beton: str | os.PathLike[str], fingerprint: str, waiting: bool = False) -> None:
        """Beside the .beton of that fingerprint, atomically; waiting: where they wait until it has its name."""
        import pyarrow.parquet as pq

        about = {"fingerprint": fingerprint, "other_files": self.other_files.rows(np.arange(len(self.other_files)))}
        file = path_of(beton)
        with files.atomic(files.waiting_for(file) if waiting else file) as part:
            table = self.table.replace_schema_metadata({KEY: json.dumps(about)})
            pq.write_table(table, part, compression="none", use_dictionary=False)  # plain, so that grep finds a name


def path_of(beton: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(beton)}.names.parquet")


def load(beton: str | os.PathLike[str], n_samples: int, fingerprint: str) -> Names | None:
    """The names of the .beton at this path, also those that wait beside it; None where it has none, or names of other
    data. ValueError when the file is damaged."""
    own = path_of(beton)
    return _load(own, n_samples, fingerprint) or _load(files.waiting_for(own), n_samples, fingerprint)


def _load(path: Path, n_samples: int, fingerprint: str) -> Names | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        files.open_regular(path).close()
        with pq.ParquetFile(path) as parquet:  # not of a Python file: Arrow's threads may let go of it after the end
            about = parse_json(parquet.schema_arrow.metadata[KEY], "its note")
            if about["fingerprint"] != fingerprint:
                return None
            _check_plain(parquet.metadata, n_samples)
            table = parquet.read()
        names = Names(table, Files.of_rows(about["other_files"]))
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError):
        names = None
    if names is None or table.num_rows != n_samples or not {"id", "name"} <= set(table.column_names):
        raise ValueError(f"{path} is damaged; delete it to continue without the names of the samples")
    return names


def _check_plain(metadata: Any, n_samples: int) -> None:
    """ValueError unless there are as many rows, stored as save() does: a few compressed bytes may become gigabytes."""
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
    plain = all(one.compression == "UNCOMPRESSED" and set(one.encodings) <= {"PLAIN", "RLE"} for one in chunks)
    if metadata.num_rows != n_samples or not plain:
        raise ValueError(f"it has {metadata.num_rows} rows, and is not stored as plain values")

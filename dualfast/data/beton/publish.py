"""The last steps of writing and compacting: checksums, the sidecars, the file's name."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualfast.data import names as names_file
from dualfast.data.beton import checksums
from dualfast.data.beton.parallel import progress_bar
from dualfast.data.beton.reader import open_beton
from dualfast.data.names import Names
from dualfast.storage import files
from dualfast.storage.resumable import Partial


@dataclass(frozen=True)
class Written:
    """The result of write() or compact(). skipped: the images left out, each as "name: reason". already_there: nothing
    was written, as the file was made of the same data with the same options."""

    path: Path
    n_samples: int
    class_names: tuple[str, ...] | None
    bytes: int
    fingerprint: str
    skipped: tuple[str, ...]
    already_there: bool = False

    def __str__(self) -> str:
        text = f"{self.path}: {self.n_samples:,} images, {self.bytes / 1e6:,.1f} MB"
        return f"{text}; it was there already" if self.already_there else text


def publish(
    partial: Partial,
    path: str | os.PathLike[str],
    sidecar: dict[str, Any],
    names: Names | None,
    threads: int,
    progress: bool,
) -> Written:
    """Checks the finished `partial` and gives it the name `path`, with PATH.json, `sidecar` and the fingerprint,
    PATH.names.parquet and PATH.crc. Stopped at any moment, the old file is there with its sidecars, or the new one with
    its own: these wait as PATH.json.next and so on until the file has its name."""
    beton = open_beton(partial.path)
    with progress_bar(beton.bytes, "checksums", progress, unit="B") as bar:
        pages = checksums.of_pages(beton.fd, beton.page_size, beton.bytes, threads, bar.update)
    sums = checksums.Checksums(beton.page_size, beton.bytes, beton.tables_crc, pages)
    sidecar = sidecar | {"fingerprint": beton.fingerprint}
    own = [Path(f"{os.fspath(path)}.json"), names_file.path_of(path), checksums.path_of(path)]
    files.write_text(files.waiting_for(own[0]), json.dumps(sidecar, indent=1) + "\n")
    if names is not None:
        names.save(path, beton.fingerprint, waiting=True)
    else:
        files.waiting_for(own[1]).unlink(missing_ok=True)  # of a call that was stopped
    checksums.save(path, sums, waiting=True)
    partial.finish()
    files.settle(own)
    class_names = sidecar.get("class_names")
    class_names = tuple(map(str, class_names)) if class_names is not None else None
    skipped = tuple(sidecar["skipped"])
    return Written(Path(path), beton.n_samples, class_names, beton.bytes, beton.fingerprint, skipped)

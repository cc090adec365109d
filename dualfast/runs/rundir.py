"""A run's files: config.yaml, metrics.jsonl (append only), the data, scores, index lists, checkpoints and the page."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dualfast.storage.files import write_text


class RunDir:
    """A run directory, opened for a run with `asked`: what the run was asked for, plain values only.

    Keys of `asked` in `may_differ` may change between one call and the next (more seeds, another ratio); any other
    difference raises ValueError with both values, since results of two different runs must not mix.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        asked: dict[str, Any] | None = None,
        may_differ: tuple[str, ...] = (),
    ) -> None:
        self.path = Path(path)
        if asked is None:
            if not self.config_path.is_file():
                raise ValueError(f"{str(self.path)!r} is no run directory: it has no config.yaml")
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out is {str(self.path)!r}, which is a file; give a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.config_path.is_file() and any(self.path.iterdir()):
            raise ValueError(f"{str(self.path)!r} is not empty and no run directory; give another --out")
        self.note(asked, may_differ)

    def note(self, asked: dict[str, Any], may_differ: tuple[str, ...] = ()) -> None:
        """Adds `asked` to what config.yaml says the run was asked for; ValueError as above where that differs."""
        before = self.config()["asked"] if self.config_path.is_file() else {}
        for key in sorted(set(before) & set(asked)):
            if key not in may_differ and before[key] != asked[key]:
                raise ValueError(
                    f"{str(self.path)!r} holds a run with {key}: {before[key]}, and this one asks for "
                    f"{asked[key]}; give another --out, or delete that folder"
                )
        self._write_config(before | asked)

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def report_path(self) -> Path:
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def train_beton(self) -> Path:
        return self.path / "train.beton"

    @property
    def test_beton(self) -> Path:
        return self.path / "test.beton"

    def scores_path(self, seed: int, first: bool = True) -> Path:
        """scores.parquet for the run's first seed, scores-seed<k>.parquet for the others."""
        return self.path / ("scores.parquet" if first else f"scores-seed{seed}.parquet")

    def keep_path(self, ratio: float, method: str, seed: int, first: bool = True) -> Path:
        """keep-<ratio>.npy for the run's first method and seed, keep-<ratio>-<method>-seed<k>.npy for the others."""
        method = method.replace("/", "_").replace(":", "_")
        return self.path / (f"keep-{ratio:g}.npy" if first else f"keep-{ratio:g}-{method}-seed{seed}.npy")

    def config(self) -> dict[str, Any]:
        """config.yaml: {"asked": ..., "environment": ...}."""
        import yaml

        loaded = yaml.safe_load(self.config_path.read_text(encoding="utf-8"))
        if not isinstance(loaded, dict) or not isinstance(loaded.get("asked"), dict):
            raise ValueError(f"{str(self.config_path)!r} is damaged; delete the run directory or give another --out")
        return loaded

    def _write_config(self, asked: dict[str, Any]) -> None:
        import yaml

        write_text(self.config_path, yaml.safe_dump({"asked": asked, "environment": environment()}, sort_keys=False))

    def append(self, record: dict[str, Any]) -> None:
        """Adds one line to metrics.jsonl and makes it durable."""
        with open(self.metrics_path, "ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                # A line cut off by a crash is dropped: its record was never finished.
                file.seek(0)
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
            file.write((json.dumps(record) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def records(self, event: str) -> list[dict[str, Any]]:
        """The finished records of metrics.jsonl with this "event", oldest first."""
        if not self.metrics_path.is_file():
            return []
        found = []
        for line in self.metrics_path.read_bytes().split(b"\n")[:-1]:
            record = json.loads(line)
            if record["event"] == event:
                found.append(record)
        return found


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps the run directory at `path`, made where it is missing, to this process, until the end or its death.

    ValueError when another holds it. A file system without locks, as some NFS, keeps nobody out.
    """
    path = Path(path)
    if not path.exists():
        path.mkdir(parents=True, exist_ok=True)
    folder = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{str(path)!r} is in use by another run; wait for it, or give another --out") from None
        except OSError:
            pass
        yield
    finally:
        os.close(folder)


def environment() -> dict[str, str]:
    """Versions, machine and commit, for files that hold results."""
    return versions() | {"machine": f"{_processor()}, {os.cpu_count()} cores", "commit": _commit()}


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("dualfast", "torch", "numpy", "ffcv", "numba", "triton"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return "installed package"
    try:
        asked = ["git", "-C", str(here), "describe", "--always", "--dirty"]
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"

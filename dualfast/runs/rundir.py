"""The files of a run directory: config.yaml, metrics.jsonl (append only), data, scores, index lists, checkpoints and
the report."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dualfast.config import CIFAR10_C_D, Data, Recipe, RunConfig, Safety, Scoring, ratio_text
from dualfast.data.inventory import valid_text
from dualfast.data.sources import is_url
from dualfast.runs.environment import environment
from dualfast.storage.files import write_text
from dualfast.storage.plain import read_yaml
from dualfast.storage.records import Records

MAY_DIFFER = {option.name for option in fields(RunConfig) if option.metadata.get("may_change")}
"""What may differ between two calls on the same run directory."""
MADE_BY_RUNS = (
    *(
        "metrics.jsonl",
        "scores*.parquet",
        "audit*.csv",
        "audit-*.json",
        "keep-*",
        "report.html",
        "model.pt",
        "checkpoints",
    ),
    *("train.beton*", "test.beton*"),
)
"""What start_over deletes."""
_NUMBER = (int, float)
_TRAINED = {"method": str, "prune_ratio": _NUMBER, "seed": int, "kept": int, "n_samples": int, "accuracy": _NUMBER}
EVENTS: dict[str, dict[str, Any]] = {
    "scored": {"seed": int},
    "audited": {"n_wrong": int, "n_samples": int},
    "trained": _TRAINED | dict.fromkeys(("best_accuracy", "score_seconds", "train_seconds"), _NUMBER),
    "train": _TRAINED,
}
"""What the records of metrics.jsonl say at least, by their "event"."""
PLACES = {"data", "test", "labels", "test_labels"}
"""What is a path, or several."""
OF_IMAGES = {"data_fingerprint": "training images", "test_fingerprint": "test images"}
THIS_CALL_ONLY = ("debug", "quiet", "json", "recipe", "rewrite")
SCHEDULE = "score_schedule_epochs"


class RunDir:
    """A run directory. request: the configuration of the call that opens it, plain values only; None to read it.

    Keys of `request` in `may_differ` may change from one call to the next (more seeds, another ratio); any other
    difference raises ValueError with both values, since results of different configurations must not mix.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        request: dict[str, Any] | None = None,
        may_differ: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        self.config_path, self.metrics_path = self.path / "config.yaml", self.path / "metrics.jsonl"
        self.train_beton, self.test_beton = self.path / "train.beton", self.path / "test.beton"
        self.rewritten = self.path / "rewritten"
        """Where images are written again, until all are there."""
        self.checkpoints, self.model_path = self.path / "checkpoints", self.path / "model.pt"
        self.report_path, self.audit_path = self.path / "report.html", self.path / "audit.csv"
        self._before: str | None = None  # the configuration, before this call
        if request is None:
            if not self.config_path.is_file():
                raise ValueError(
                    f"{str(self.path)!r} is not a run directory: it has no config.yaml; give the --out of a run"
                )
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out is {str(self.path)!r}, which is a file; give a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.config_path.is_file() and self._made():
            raise ValueError(f"{str(self.path)!r} is neither empty nor a run directory; give another --out")
        self._before = self.config_path.read_text(encoding="utf-8") if self.config_path.is_file() else None
        self.note(request, may_differ)

    def note(self, request: dict[str, Any], may_differ: Collection[str] = ()) -> None:
        """Adds `request` to config.yaml; raises ValueError, as above, where it differs. A score_schedule_epochs of None
        means what the directory notes."""
        noted = self.requested() if self.config_path.is_file() else {}
        if request.get(SCHEDULE, 0) is None and noted.get(SCHEDULE) is not None:
            request = request | {SCHEDULE: noted[SCHEDULE]}
        common = sorted(set(noted) & set(request) - set(may_differ))
        pairs = {key: (_meant(noted, key), _meant(request, key)) for key in common}
        differ = {
            key: (before, now)
            for key, (before, now) in pairs.items()
            if before != now and not (key in PLACES and self._is_same_place(before, now))
        }
        if differ:
            texts = [
                f"{OF_IMAGES[key]} of the fingerprint {before}, and these have {now}"
                if key in OF_IMAGES
                else f"{key}={before}, and this one asks for {now}"
                for key, (before, now) in differ.items()
            ]
            raise ValueError(
                f"{str(self.path)!r} holds a run with {'; '.join(texts)}; give another --out, or delete that folder"
            )
        self._write_config(noted | request, os.getcwd() if "data" in request else None)

    def _is_same_place(self, before: Any, now: Any) -> bool:
        """Whether a path of an earlier call and one of this call are the same; or the former leads nowhere any more, as
        of data that were moved, which are compared with the images of the run."""
        if not isinstance(before, str) or not isinstance(now, str):
            return False
        places = set(map(os.path.realpath, self.places_of(before)))
        return os.path.realpath(now) in places or (os.path.exists(now) and not any(map(os.path.exists, places)))

    def _made(self) -> list[str]:
        """The names of what is in the directory, but for its configuration and what was not written to its end."""
        unfinished = ("train.beton.partial", "test.beton.partial", ".config.yaml.")
        return [p.name for p in self.path.iterdir() if p != self.config_path and not p.name.startswith(unfinished)]

    def withdraw(self) -> None:
        """Forgets what the call that opened it asked for, which was refused, so that another may ask differently."""
        if not self._made():
            self.config_path.unlink(missing_ok=True)
        elif self._before is not None:
            write_text(self.config_path, self._before)

    def start_over(self) -> None:
        """Deletes all results, index lists and images, which are of data that have changed, and takes over those in
        `rewritten`. The configuration stays, but for what it notes of the data."""
        for path in (path for pattern in MADE_BY_RUNS for path in self.path.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        requested = self.config()["asked"]
        kept = {key: value for key, value in requested.items() if not key.endswith("_fingerprint")}
        self._write_config(kept, os.getcwd())
        self.take_over()

    def is_the_same(self, path: Path) -> bool:
        """Whether the images at `path` and those of its name in `rewritten`, if any, have the same checksums."""
        new = self.rewritten / path.name
        sums = [Path(f"{beton}.crc") for beton in (path, new)]
        return not new.exists() or (all(map(Path.exists, sums)) and sums[0].read_bytes() == sums[1].read_bytes())

    def take_over(self) -> None:
        """Puts the images in `rewritten` into the place of the old ones."""
        if self.rewritten.is_dir():
            sidecars_first = sorted(self.rewritten.iterdir(), key=lambda path: path.suffix == ".beton")
            for path in sidecars_first:
                path.rename(self.path / path.name)
            self.rewritten.rmdir()

    def scored_seeds(self) -> list[int]:
        """The seeds whose scores are complete, in the order they were gathered."""
        return [record["seed"] for record in self.records("scored")]

    def scores_path(self, seed: int) -> Path:
        """scores.parquet for the first seed that was scored, scores-seed<k>.parquet for the others."""
        first = (self.scored_seeds() or [seed])[0] == seed
        return self.path / ("scores.parquet" if first else f"scores-seed{seed}.parquet")

    def keep_path(self, ratio: float, method: str, seed: int, first: bool = True) -> Path:
        """keep-<ratio>.npy for the run's first method and seed, keep-<ratio>-<method>-seed<k>.npy for the others."""
        method = method.replace("/", "_").replace(":", "_")
        name = f"keep-{ratio_text(ratio)}"
        return self.path / (f"{name}.npy" if first else f"{name}-{method}-seed{seed}.npy")

    def config(self) -> dict[str, Any]:
        """config.yaml: {"asked": the configuration, "folder": the working directory, "environment": versions, machine
        and commit}."""
        why = "it is not a configuration"
        try:
            loaded = read_yaml(self.config_path)
            if isinstance(loaded, dict) and isinstance(loaded.get("asked"), dict):
                if loaded["asked"].get("c_d") == "cifar10":
                    loaded["asked"]["c_d"] = CIFAR10_C_D
                return loaded
        except ValueError as error:
            why = str(error)
        raise ValueError(
            f"{str(self.config_path)!r} is damaged ({why}); delete the run directory or give another --out"
        )

    def requested(self) -> dict[str, Any]:
        """The configuration in config.yaml. An option that it lacks, as it is of an earlier version, has its default,
        except that 0.1 took scores from the beginning of a training of `epochs`."""
        requested: dict[str, Any] = dict(self.config()["asked"])
        if "score_epochs" in requested and SCHEDULE not in requested:
            epochs = requested["score_epochs"], requested.get("epochs", 0)
            if not all(isinstance(count, int) for count in epochs):
                raise ValueError(f"{str(self.config_path)!r} is damaged: its epochs are not whole numbers")
            requested[SCHEDULE] = None if max(epochs) == requested["score_epochs"] else max(epochs)
        for group in (Data, Recipe, Scoring, Safety):
            if requested.keys() & {option.name for option in fields(group)}:
                requested = {option.name: option.default for option in fields(group)} | requested
        return {name: value for name, value in requested.items() if name not in THIS_CALL_ONLY}

    def _write_config(self, request: dict[str, Any], folder: str | None = None) -> None:
        import yaml

        folder = folder or self._folder() or os.getcwd()
        config = {"asked": request, "folder": folder, "environment": environment()}
        write_text(self.config_path, yaml.safe_dump(config, sort_keys=False))

    def _folder(self) -> str | None:
        """The working directory that the run was started in; None in a directory of 0.1, and before one is noted."""
        folder = self.config().get("folder") if self.config_path.is_file() else None
        return folder if isinstance(folder, str) else None

    def places_of(self, path: str) -> list[str]:
        """Where a path of the configuration may be: as seen from the working directory of the run, and from today's."""
        folder = self._folder()
        return [path] if folder is None or is_url(path) else list(dict.fromkeys((os.path.join(folder, path), path)))

    def find(self, path: str) -> str:
        """The first of places_of where something is; the path itself where nothing is."""
        return next(filter(os.path.exists, self.places_of(path)), path)

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record to metrics.jsonl, on disk when this returns."""
        Records(self.metrics_path).append(record)

    def records(self, event: str) -> list[dict[str, Any]]:
        """The complete records of metrics.jsonl with this "event", oldest first. ValueError for one that lacks what
        records of its kind have, or has something else there."""
        found: list[dict[str, Any]] = []
        for record in Records(self.metrics_path).read():
            kind = str(record.get("event"))
            has = EVENTS.get(kind, {"event": ()})  # () is no type: the event itself is wrong
            lacks = [name for name, value in has.items() if not isinstance(record.get(name), value)]
            if lacks:
                raise ValueError(
                    f"{str(self.metrics_path)!r} is damaged: the record {record!r:.80} lacks {lacks[0]}, or has "
                    "another kind of value there"
                )
            if kind == event:
                found.append(record)
        return found


def _meant(requested: dict[str, Any], key: str) -> Any:
    """The value of a key, a score_schedule_epochs of None as its number."""
    unset = key == SCHEDULE and requested[key] is None
    return requested["score_epochs"] if unset else requested[key]


def out_of(config: Data) -> str:
    """The path of a configuration's run directory: config.out, or runs/<name of the data>."""
    first = config.data if isinstance(config.data, str) else config.data[0]
    name = os.path.basename(os.path.abspath(first)).lstrip(".").partition(".")[0]
    plain = re.sub(r"[*?\[\]{}]", "", name).strip("-_") or "data"  # of a pattern
    return config.out or f"runs/{valid_text(plain)}"


def request_of(config: Data) -> dict[str, Any]:
    """A configuration as config.yaml stores it."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items() if k not in THIS_CALL_ONLY}
    return plain | {"out": str(out_of(config))}

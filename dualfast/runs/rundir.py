"""The files of a run directory: config.yaml, metrics.jsonl (append only), data, scores, index lists, checkpoints and
the report."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dualfast.config import Data, Reading, ratio_text
from dualfast.runs.environment import environment
from dualfast.storage.files import write_text
from dualfast.storage.plain import read_yaml
from dualfast.storage.records import Records

# What may differ between two calls on the same run directory.
MAY_DIFFER = (
    *("prune_ratio", "method", "seed", "full", "num_workers", "threads", "out"),
    *("checkpoint_every", "rank_timeout"),
)
COUNTS, NUMBERS = ("seed", "kept", "n_samples"), ("prune_ratio", "accuracy", "best_accuracy", "train_seconds")
RESULT: dict[str, Any] = {"method": str} | dict.fromkeys(COUNTS, int) | dict.fromkeys(NUMBERS, int | float)
"""What a record of a training must have."""


class RunDir:
    """A run directory. request: the configuration of the call that opens it, plain values only; None to read it.

    Keys of `request` in `may_differ` may change from one call to the next (more seeds, another ratio); any other
    difference raises ValueError with both values, since results of different configurations must not mix.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        request: dict[str, Any] | None = None,
        may_differ: tuple[str, ...] = (),
    ) -> None:
        self.path = Path(path)
        self.config_path, self.metrics_path = self.path / "config.yaml", self.path / "metrics.jsonl"
        self.train_beton, self.test_beton = self.path / "train.beton", self.path / "test.beton"
        self.checkpoints, self.model_path = self.path / "checkpoints", self.path / "model.pt"
        self.report_path = self.path / "report.html"
        if request is None:
            if not self.config_path.is_file():
                raise ValueError(f"{str(self.path)!r} is not a run directory: it has no config.yaml")
            return
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"out is {str(self.path)!r}, which is a file; give a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.config_path.is_file() and any(self.path.iterdir()):
            raise ValueError(f"{str(self.path)!r} is neither empty nor a run directory; give another --out")
        self.note(request, may_differ)

    def note(self, request: dict[str, Any], may_differ: tuple[str, ...] = ()) -> None:
        """Adds `request` to config.yaml; raises ValueError, as above, where it differs."""
        noted = _complete(self.config()["asked"]) if self.config_path.is_file() else {}
        for key in sorted(set(noted) & set(request)):
            before, now = _meant(noted, key), _meant(request, key)
            if key not in may_differ and before != now:
                raise ValueError(
                    f"{str(self.path)!r} holds a run with {key}: {before}, and this one asks for {now}; give another "
                    "--out, or delete that folder"
                )
        self._write_config(noted | request)

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
        """config.yaml: {"asked": the configuration, "environment": versions, machine and commit}."""
        why = "it is not a configuration"
        try:
            loaded = read_yaml(self.config_path)
            if isinstance(loaded, dict) and isinstance(loaded.get("asked"), dict):
                return loaded
        except ValueError as error:
            why = str(error)
        raise ValueError(
            f"{str(self.config_path)!r} is damaged ({why}); delete the run directory or give another --out"
        )

    def _write_config(self, request: dict[str, Any]) -> None:
        import yaml

        write_text(self.config_path, yaml.safe_dump({"asked": request, "environment": environment()}, sort_keys=False))

    def append(self, record: dict[str, Any]) -> None:
        """Adds one record to metrics.jsonl, on disk when this returns."""
        Records(self.metrics_path).append(record)

    def records(self, event: str) -> list[dict[str, Any]]:
        """The complete records of metrics.jsonl with this "event", oldest first."""
        records = Records(self.metrics_path).read()
        self._check(records, {"event": str})
        chosen = [record for record in records if record["event"] == event]
        self._check(chosen, {"seed": int})
        return chosen

    def results(self) -> list[dict[str, Any]]:
        """The records of trainings, oldest first, each with all that a result needs."""
        rows = self.records("trained")
        self._check(rows, RESULT)
        return rows

    def _check(self, records: list[dict[str, Any]], kinds: dict[str, Any]) -> None:
        for record in records:
            for name, kind in kinds.items():
                if not isinstance(record.get(name), kind):
                    where = f"{str(self.metrics_path)!r} is damaged: {name} is {record.get(name)!r} in"
                    raise ValueError(f"{where} {json.dumps(record)[:200]}")


def _complete(asked: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what one of 0.1 left unsaid: columns were chosen by name and type, and scores came from the
    beginning of a training of `epochs`."""
    asked = {option.name: option.default for option in fields(Reading)} | asked
    if "score_epochs" not in asked:
        return asked
    planned = max(asked.get("epochs", 0), asked["score_epochs"])
    return {"score_module": None, "score_schedule_epochs": planned} | asked


def _meant(asked: dict[str, Any], key: str) -> Any:
    """The value of a key, a score_schedule_epochs of None as its number."""
    unset = key == "score_schedule_epochs" and asked[key] is None
    return asked["score_epochs"] if unset else asked[key]


def out_of(config: Data) -> str:
    """The path of a configuration's run directory: config.out, or runs/<name of the data>."""
    return config.out or f"runs/{os.path.basename(os.path.abspath(config.data)).lstrip('.').partition('.')[0]}"


def request_of(config: Data) -> dict[str, Any]:
    """A configuration as config.yaml stores it."""
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items() if k != "debug"}
    return plain | {"out": str(out_of(config))}

"""The modules of 0.1 under their old names, which warn: each looks its names up in the modules that hold them now."""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "batches": ("loading.epoch", "loading.buffers", "loading.ffcv_graph"),
    "beta": ("selection.beta",),
    "beton": ("data.beton", "data.beton.write", "data.beton.encode"),
    "beton_file": ("data.beton.format", "data.beton.reader"),
    "checkpoint": ("training.checkpoint", "training.checkpoint_files", "training.checkpoint_resume"),
    "checksums": ("data.beton.checksums",),
    "compacting": ("data.beton.compact",),
    "decode": ("loading.decode",),
    "files": ("storage.files",),
    "keep": ("data.index_list",),
    "loader": ("loading.loader",),
    "loss": ("scoring.loss", "scoring.trajectories"),
    "models": ("training.models",),
    "partial": ("storage.resumable",),
    "prefetch": ("loading.prefetch",),
    "race": ("selection.draw",),
    "ranks": ("comm.ranks", "comm.collectives"),
    "reading": ("loading.read_plan", "loading.readahead"),
    "redraw": ("selection.spec",),
    "rundir": ("runs.rundir", "runs.environment"),
    "sampler": ("loading.sampler",),
    "selection_files": ("selection.files", "selection.streaming", "selection.shards"),
    "sources": ("data.sources",),
    "table": ("scoring.table", "scoring.scores"),
    "tdds": ("scoring.tdds",),
    "train": ("training.fit", "training.device"),
}
RENAMED = {"redraw.like": ("selection.spec", "SelectionSpec", "read")}


class MovedModule(ModuleType):
    """Reads and sets the names of the modules that replaced one."""

    def _home(self, name: str) -> ModuleType | None:
        homes = (importlib.import_module(f"dualfast.{home}") for home in MOVED[self.__name__.rpartition(".")[2]])
        return next((home for home in homes if hasattr(home, name)), None)

    def __getattr__(self, name: str) -> Any:
        if renamed := RENAMED.get(f"{self.__name__.rpartition('.')[2]}.{name}"):
            return functools.reduce(getattr, renamed[1:], importlib.import_module(f"dualfast.{renamed[0]}"))
        for now in () if name.startswith("__") else (name, name.removeprefix("_")):  # some names are public now
            if (home := self._home(now)) is not None:
                return getattr(home, now)
        raise AttributeError(f"module {self.__name__!r} of version 0.1 has moved, and {name!r} is gone")

    def __setattr__(self, name: str, value: Any) -> None:
        home = None if name.startswith("__") else self._home(name)
        super().__setattr__(name, value) if home is None else setattr(home, name, value)


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        return ModuleSpec(fullname, self) if package == "dualfast" and name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        homes = " and ".join(f"dualfast.{home}" for home in MOVED[spec.name.rpartition(".")[2]])
        warnings.warn(f"{spec.name} is a module of version 0.1; import from {homes}", DeprecationWarning, stacklevel=2)
        return MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Makes `import dualfast.NAME` find the moved modules; after all others, so that it costs nothing."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())

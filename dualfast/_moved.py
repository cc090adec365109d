"""The modules and names of 0.1 that have others now. The old ones still work, with a warning; of those that are gone an
error says where what came after is."""

from __future__ import annotations

import importlib
import operator
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "batches": ("loading.epoch", "loading.buffers", "loading.ffcv_graph"),
    "beta": ("selection.beta",),
    "beton": ("data.beton", "data.beton.write", "data.beton.encode"),
    "beton_file": ("data.beton.format", "data.beton.reader"),
    "checkpoint": (
        *("training.checkpoint", "training.checkpoint_files", "training.checkpoint_resume"),
        *("training.fit", "training.stop_signal"),
    ),
    "checksums": ("data.beton.checksums",),
    "cifar": ("data.sources.cifar",),
    "compacting": ("data.beton.compact", "data.beton.format"),
    "decode": ("loading.decode",),
    "ffcv_parts": ("loading.ffcv_graph",),
    "figures": ("report.figures", "report.explorer"),
    "files": ("storage.files",),
    "keep": ("data.index_list",),
    "loader": ("loading.loader",),
    "loss": ("scoring.loss", "scoring.trajectories"),
    "models": ("training.models",),
    "operators": ("ops.torch_ops",),
    "partial": ("storage.resumable",),
    "pipeline": ("runs.commands", "runs.session", "runs.rundir", "runs.progress"),
    "prefetch": ("loading.prefetch",),
    "race": ("selection.draw",),
    "ranks": ("comm.ranks", "comm.collectives"),
    "reading": ("loading.read_plan", "loading.readahead"),
    "redraw": ("selection.spec",),
    "rundir": ("runs.rundir", "runs.environment"),
    "sampler": ("loading.sampler",),
    "selection_files": ("selection.files", "selection.streaming", "selection.shards"),
    "sources": ("data.sources", "data.columns", "data.sources.paths"),
    "step_torch": ("ops.step_torch", "ops.layout"),
    "stopped": ("errors", "training.stop_signal"),
    "table": ("scoring.table", "scoring.scores", "ops.layout"),
    "tdds": ("scoring.tdds",),
    "train": ("training.fit", "training.device"),
}
NAMES = {
    "batches": "Position=loading.cursor:Cursor Slot=loading.buffers:BatchBuffers Slots=loading.buffers:BufferPool",
    "beta": "Thin=selection.beta:ScoreSubset thinned=selection.beta:subset_positions",
    "beton": "threads_of=data.beton.parallel:thread_count",
    "checkpoint": "Damaged=errors:DamagedCheckpoint",
    "cli": "RECIPES=config print_table",
    "config": "check_seed=config:checked_seed",
    "decode": "Current=loading.decode:BatchContext current=loading.decode:batch_context "
    "DecodeImages=loading.ffcv_graph DecodeLabels=loading.ffcv_graph",
    "distributed": "CLOSE_ROWS=scoring.sharded:PACK_ROWS FOLD_ROWS=scoring.sharded RADIX_BITS=selection.sharded "
    "ROUND_ROWS=scoring.sharded TAIL_WORDS=ops.layout WIRE_WORDS=scoring.sharded interleaved=scoring.sharded",
    "keep": "side_of=data.index_list:read_sidecar",
    "ops": "LEFT Sifted=ops:Classified narrow=ops:settle_by_ratio sift=ops:classify",
    "order": "BLOCK=loading.order Kind=loading.order:OrderKind Leg=loading.order:EpochSegment "
    "PAGES=loading.order:PAGE_IDS Share=loading.order WINDOW=loading.order block_bytes=loading.order "
    "epoch_order=loading.order left_over=loading.order:unvisited n_batches=loading.order "
    "page_random_order=loading.order random_order=loading.order selection=data.index_list:selected_ids "
    "share=loading.order spread=loading.order",
    "pipeline": "Silent=runs.progress:NullProgress Workshop=runs.session:RunSession "
    "batch_of_a_rank=runs.session:rank_batch_size report_only=runs.commands:report score_only=runs.commands:score "
    "train_only=runs.commands:train workshop=runs.session:open_session",
    "race": "limits=selection.draw:ratio_limits",
    "redraw": "Draw=selection.spec:SelectionSpec like=selection.spec:SelectionSpec.read "
    "write=selection.files:write_list",
    "report": "COLUMNS=report.summary Classes=report.page Content=report.page Difference=report.summary GALLERY "
    "Group=report.summary PIXELATED TABLE_CLASSES=report.page THUMBNAIL=report.page Thumbnail=report.page WITHIN "
    "answer=report.summary:headline command=report.page groups=report.summary render=report.page "
    "summarise=report.summary write=report.page",
    "selection": "Floats=ops HIGH_IS_KEPT Ints=ops LOW_IS_KEPT=selection.methods METHODS=selection.methods OPTIONS "
    "bad_scores=selection.methods check_method=selection.methods:check_options filled_up fitted=selection.quotas "
    "shares=selection.quotas",
    "selection_files": "Law=selection.streaming:DrawParams Part=selection.streaming:SecondPass "
    "Survey=selection.streaming:FirstPass emit=selection.streaming:kept_ids law_of=selection.streaming:draw_params "
    "sift=selection.streaming:second_pass survey=selection.streaming:first_pass",
    "train": "Fit=training.fit:TrainResult",
    "training": "KEEP_FACTS Training=runs.trial:Trial draw_options drawn mixed_seed=runs.session "
    "needs_scores=runs.trial same_draw takes_auto training_of=runs.trial:trial_of",
}
"""Of a module of 0.1, the names that do not simply stand in a module of MOVED: OLD=MODULE:NEW, or OLD=MODULE where the
name is as it was, or OLD where it is gone."""


def _now(module: str, name: str) -> str | None:
    """Where NAMES has a name of a module of 0.1, as "MODULE:NEW"; "" where it is gone; None where it has none."""
    for entry in NAMES.get(module, "").split():
        old, _, now = entry.partition("=")
        if old == name:
            return now if ":" in now or not now else f"{now}:{name}"
    return None


def _gone(module: str, name: str) -> str:
    homes = " and ".join(f"dualfast.{home}" for home in MOVED.get(module, ()))
    instead = f"; {homes} hold what came after" if " and " in homes else f"; see {homes}" if homes else ""
    return f"dualfast.{module} is not that of version 0.1: {name!r} is gone{instead}"


def _found(now: str) -> Any:
    home, _, path = now.partition(":")
    return operator.attrgetter(path)(importlib.import_module(f"dualfast.{home}"))


def former_names(module: str) -> Callable[[str], Any]:
    """The __getattr__ of a module that 0.1 had too, for the names that it no longer has."""

    def __getattr__(name: str) -> Any:
        now = _now(module, name)
        if now is None:
            raise AttributeError(f"module 'dualfast.{module}' has no attribute {name!r}")
        if not now:
            raise AttributeError(_gone(module, name))
        at = "dualfast." + now.replace(":", ".")
        warnings.warn(f"dualfast.{module}.{name} is of version 0.1; it is {at} now", DeprecationWarning, stacklevel=2)
        return _found(now)

    return __getattr__


class MovedModule(ModuleType):
    """Reads and sets the names of the modules that replaced one."""

    @property
    def _old(self) -> str:
        return self.__name__.rpartition(".")[2]

    def _home(self, name: str) -> ModuleType | None:
        homes = (importlib.import_module(f"dualfast.{home}") for home in MOVED[self._old])
        return next((home for home in homes if hasattr(home, name)), None)

    def __getattr__(self, name: str) -> Any:
        if now := _now(self._old, name):
            return _found(now)
        for one in () if name.startswith("__") else (name, name.removeprefix("_")):  # some names are public now
            if (home := self._home(one)) is not None:
                return getattr(home, one)
        raise AttributeError(_gone(self._old, name))

    def __setattr__(self, name: str, value: Any) -> None:
        home = None if name.startswith("__") else self._home(name)
        super().__setattr__(name, value) if home is None else setattr(home, name, value)


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package == "dualfast" and name in MOVED:
            return ModuleSpec(fullname, self, is_package=True)  # so that `from ... import GONE` asks here, below
        module = package.removeprefix("dualfast.")
        if package != module and (module in MOVED or _now(module, name) == ""):
            raise ImportError(_gone(module, name))
        return None

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

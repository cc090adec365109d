"""dualfast: score every sample while you train, keep the ones worth keeping, retrain on those.

Importing the package loads no optional dependency, touches no device and changes no global; each public name is
imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dualfast import _moved

if TYPE_CHECKING:
    from dualfast.data.beton.compact import compact as compact
    from dualfast.data.beton.verify import verify as verify
    from dualfast.data.beton.write import write as write
    from dualfast.loading.loader import Loader as Loader
    from dualfast.loading.loader import image_pipelines as image_pipelines
    from dualfast.loading.order import PageRandom as PageRandom
    from dualfast.loading.sampler import PrunedSampler as PrunedSampler
    from dualfast.loading.sampler import RandomSubsetSampler as RandomSubsetSampler
    from dualfast.scoring.loss import DualLoss as DualLoss
    from dualfast.scoring.loss import dual_loss as dual_loss
    from dualfast.scoring.scores import Scores as Scores
    from dualfast.scoring.sharded import ShardedTable as ShardedTable
    from dualfast.scoring.table import ScoreTable as ScoreTable
    from dualfast.scoring.trajectories import score as score
    from dualfast.scoring.trajectories import score_trajectories as score_trajectories
    from dualfast.selection.audit import audit as audit
    from dualfast.selection.select import select as select

_HOME = {
    "audit": "selection.audit",
    "write": "data.beton.write",
    "verify": "data.beton.verify",
    "compact": "data.beton.compact",
    "ShardedTable": "scoring.sharded",
    "Loader": "loading.loader",
    "image_pipelines": "loading.loader",
    "DualLoss": "scoring.loss",
    "dual_loss": "scoring.loss",
    "score": "selection.methods",  # which reserves the names of methods
    "score_trajectories": "scoring.trajectories",
    "PageRandom": "loading.order",
    "PrunedSampler": "loading.sampler",
    "RandomSubsetSampler": "loading.sampler",
    "select": "selection.select",
    "ScoreTable": "scoring.table",
    "Scores": "scoring.scores",
}

_moved.install()

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dualfast")
    if name in _HOME:
        return getattr(importlib.import_module(f"dualfast.{_HOME[name]}"), name)
    raise AttributeError(f"module 'dualfast' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__

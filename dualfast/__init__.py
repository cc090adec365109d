"""dualfast: score every sample while you train, keep the ones worth keeping, retrain on those.

Importing the package loads no optional dependency, touches no device and changes no global; each public name is
imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualfast.beton import verify as verify
    from dualfast.beton import write as write
    from dualfast.compacting import compact as compact
    from dualfast.distributed import ShardedTable as ShardedTable
    from dualfast.loader import Loader as Loader
    from dualfast.loader import image_pipelines as image_pipelines
    from dualfast.loss import DualLoss as DualLoss
    from dualfast.loss import dual_loss as dual_loss
    from dualfast.loss import score_trajectories as score_trajectories
    from dualfast.order import PageRandom as PageRandom
    from dualfast.sampler import PrunedSampler as PrunedSampler
    from dualfast.sampler import RandomSubsetSampler as RandomSubsetSampler
    from dualfast.selection import select as select
    from dualfast.table import Scores as Scores
    from dualfast.table import ScoreTable as ScoreTable

_HOME = {
    "write": "beton",
    "verify": "beton",
    "compact": "compacting",
    "ShardedTable": "distributed",
    "Loader": "loader",
    "image_pipelines": "loader",
    "DualLoss": "loss",
    "dual_loss": "loss",
    "score_trajectories": "loss",
    "PageRandom": "order",
    "PrunedSampler": "sampler",
    "RandomSubsetSampler": "sampler",
    "select": "selection",
    "ScoreTable": "table",
    "Scores": "table",
}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("dualfast")
    if name in _HOME:
        return getattr(importlib.import_module(f"dualfast.{_HOME[name]}"), name)
    raise AttributeError(f"module 'dualfast' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__

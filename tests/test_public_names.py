"""The names that other people's code uses: they stay, with their parameters, wherever their code moves."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import dualfast
from dualfast import _moved

# name: parameters in order; "*" begins those that are given by name.
SIGNATURES = {
    "ScoreTable": "n_samples * window epochs track_loss track_aum_prob device",
    "ScoreTable.scores": "self",
    "ScoreTable.state_dict": "self",
    "ScoreTable.load_state_dict": "self state",
    "Scores.save": "self path",
    "Scores.load": "path",
    "DualLoss": "table * label_smoothing weight ignore_index reduction backend",
    "DualLoss.forward": "self logits targets index",
    "DualLoss.observe": "self logits targets index",
    "score_trajectories": "probs * window epochs",
    "audit": "scores labels * names",
    "select": "scores prune_ratio * method c_d seed labels per_class",
    "write": "source path * max_size jpeg_quality mode",
    "verify": "path",
    "compact": "src indices dst",
    "Loader": "fname batch_size * indices num_workers os_cache order distributed seed drop_last batches_ahead "
    "pipelines custom_fields recompile image_size augment mean std",
    "Loader.set_indices": "self indices",
    "Loader.set_epoch": "self epoch",
    "Loader.state_dict": "self",
    "Loader.load_state_dict": "self state",
    "Loader.close": "self",
}
DEFAULTS = {
    "ScoreTable": {"window": 10, "epochs": None, "track_loss": False, "track_aum_prob": False, "device": "cpu"},
    "DualLoss": {
        "label_smoothing": 0.0,
        "weight": None,
        "ignore_index": -100,
        "reduction": "mean",
        "backend": "auto",
    },
    "score_trajectories": {"window": 10, "epochs": None},
    "select": {"method": "dual+beta", "c_d": 4.0, "seed": 0, "labels": None, "per_class": False},
    "write": {"max_size": None, "jpeg_quality": 90, "mode": "auto"},
    "Loader": {"indices": None, "drop_last": False, "pipelines": None},
}
SCORES = ("dual", "dyn_unc", "mean", "aum", "aum_prob", "el2n", "entropy", "forgetting", "loss", "visits")
DOCUMENTED = {
    "dualfast": "DualLoss Loader PageRandom PrunedSampler RandomSubsetSampler ScoreTable Scores ShardedTable compact "
    "dual_loss image_pipelines score_trajectories select verify write",
    "dualfast.selection": "explain select",
    "dualfast.order": "PageRandom",
    "dualfast.distributed": "ShardedTable load_parts select",
    "dualfast.cli": "main",
    "dualfast.config": "RECIPES",
}


def the(name: str) -> object:
    found: object = dualfast
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters(name: str) -> None:
    parameters = inspect.signature(the(name)).parameters  # type: ignore[arg-type]
    positional, _, by_name = (part.split() for part in SIGNATURES[name].partition("*"))
    kinds = {p.name: p.kind for p in parameters.values()}
    assert list(kinds)[: len(positional)] == positional
    for keyword in by_name:
        assert kinds[keyword] is inspect.Parameter.KEYWORD_ONLY
    for keyword, value in DEFAULTS.get(name, {}).items():
        assert parameters[keyword].default == value, keyword


def test_scores_are_built_by_name_and_only_dual_and_mean_are_needed() -> None:
    parameters = inspect.signature(dualfast.Scores).parameters
    assert set(SCORES) <= set(parameters)
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
    assert {name for name, p in parameters.items() if p.default is inspect.Parameter.empty} == {"dual", "mean"}


@pytest.mark.parametrize("module", DOCUMENTED)
def test_documented_imports(module: str) -> None:
    for name in DOCUMENTED[module].split():
        assert hasattr(importlib.import_module(module), name), name


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import dualfast, dualfast.cli, sys; print(*{'torch', 'ffcv', 'triton', 'bokeh', 'numba'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", _moved.MOVED)
def test_modules_of_0_1_still_import_and_say_where_they_went(name: str) -> None:
    sys.modules.pop(f"dualfast.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"dualfast.{name} is a module of version 0.1; import from dualfast"):
        module = importlib.import_module(f"dualfast.{name}")
    with pytest.raises(AttributeError, match="'nothing' is gone"):
        _ = module.nothing


FORMER = {
    module: names
    for module, *names in map(
        str.split, (Path(__file__).parent / "fixtures" / "names-0.1.txt").read_text().splitlines()
    )
}
"""The public names of each module of 0.1."""
GONE = 38  # of these 391; the others are there under their old names


def former(module: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module(f"dualfast.{module}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("module", FORMER)
def test_every_name_of_0_1_is_there_or_said_to_be_gone(module: str) -> None:
    imported = former(module)
    for name in FORMER[module]:
        if hasattr(imported, name):
            continue
        with pytest.raises(AttributeError, match=f"{name!r} is gone"):
            getattr(imported, name)
        if hasattr(imported, "__path__"):  # else Python hides the reason
            with pytest.raises(ImportError, match=f"{name!r} is gone"):
                exec(f"from dualfast.{module} import {name}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_most_names_of_0_1_are_there() -> None:
    gone = [(module, name) for module in FORMER for name in FORMER[module] if not hasattr(former(module), name)]
    assert len(gone) <= GONE


def test_names_of_0_1_in_modules_of_today() -> None:
    selection = importlib.import_module("dualfast.selection")
    with pytest.warns(
        DeprecationWarning, match=r"dualfast.selection.shares is .*; it is dualfast.selection.quotas.shares"
    ):
        assert selection.shares is importlib.import_module("dualfast.selection.quotas").shares
    with pytest.raises(ImportError, match="cannot import name 'slect'"):
        exec("from dualfast.selection import slect")
    former("prefetch")
    with pytest.raises(ImportError, match=r"'nothing' is gone; see dualfast\.loading\.prefetch"):
        exec("from dualfast.prefetch import nothing")
    damaged = importlib.import_module("dualfast.errors").DamagedCheckpoint
    assert former("checkpoint").Damaged is damaged  # type: ignore[attr-defined]


def test_names_of_moved_modules_are_those_of_today() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from dualfast.beton import Beton, open_beton, verify, write
        from dualfast.keep import load_keep

        from dualfast import checksums, redraw
        from dualfast.selection.spec import SelectionSpec
    assert redraw.like == SelectionSpec.read
    assert (verify, write) == (dualfast.verify, dualfast.write)
    assert open_beton.__module__ == Beton.__module__ == "dualfast.data.beton.reader"
    assert load_keep.__module__ == "dualfast.data.index_list"
    now = importlib.import_module("dualfast.data.beton.checksums")
    before = now.FIXED
    try:
        checksums.FIXED = "set under the old name"  # type: ignore[attr-defined]
        assert now.FIXED == "set under the old name"
    finally:
        now.FIXED = before

"""dualfast.config: what cannot be is refused when it is asked for."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from dualfast.config import PUBLISHED_C_D, RECIPES, GivenCD, Recipe, RecipeName, RunConfig, Scoring, method_options
from dualfast.loading.decode import NORMALIZATIONS
from dualfast.training.models import MODELS


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prune_ratio": (1.0,)}, "prune_ratio is 1.0"),
        ({"prune_ratio": (-0.1,)}, "prune_ratio is -0.1"),
        ({"prune_ratio": (float("nan"),)}, "prune_ratio is nan"),
        ({"prune_ratio": ()}, "prune_ratio is empty"),
        ({"prune_ratio": (0.5, 0.5)}, "each value once"),
        ({"method": ()}, "method is empty"),
        ({"seed": (-1,)}, "seed is -1"),
        ({"c_d": 0.0}, "c_d is 0.0"),
        ({"c_d": 10**400}, "c_d is 1000000"),
        ({"c_d": True}, "c_d is True"),
        ({"c_d": "cifar"}, "c_d is 'cifar'"),
        ({"score_epochs": 9}, "score_epochs is 9 and window is 10"),
        ({"score_epochs": 5000}, "at most 4095"),
        ({"window": 1}, "window is 1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"tests": 0}, "tests is 0"),
        ({"batch_size": 1}, "batch_size is 1"),
        ({"lr": float("inf")}, "lr is inf"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"max_size": 2}, "max_size is 2"),
        ({"data": ""}, "data is an empty path"),
        ({"test": ""}, "test is an empty path"),
        ({"out": ""}, "out is an empty path"),
        ({"image_size": 0}, "image_size is 0"),
        ({"num_workers": 0}, "num_workers is 0"),
        ({"min_lr": 1e-4}, "min_lr is 0.0001; give 0, or with --schedule cosine"),
        ({"min_lr": 0.1, "schedule": "cosine"}, "a number below lr, 0.1"),
    ],
)
def test_what_cannot_be_is_named(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunConfig(**asked)


def test_the_parts_check_themselves() -> None:
    with pytest.raises(ValueError, match="weight_decay"):
        Recipe(weight_decay=-1)
    with pytest.raises(ValueError, match="window"):
        Scoring(window=40)


def test_the_paper_retrains_in_smaller_batches_where_little_is_left() -> None:
    paper = RunConfig(**RECIPES["paper"])
    assert [paper.batch_size_at(ratio) for ratio in (0.0, 0.7, 0.8, 0.89, 0.9, 0.99)] == [128, 128, 64, 64, 32, 32]
    assert Recipe(batch_size=64).batch_size_at(0.9) == 64
    assert Recipe(batch_size=4, batch_rule="paper").batch_size_at(0.9) == 2  # batch normalisation needs two


def test_a_subset_takes_as_many_epochs_or_steps() -> None:
    equal_steps = Recipe(epochs=10, batch_size=64, compute="steps", batch_rule="paper")
    assert equal_steps.for_subset(0.0, 1000, 1000) == equal_steps
    subset = equal_steps.for_subset(0.9, 100, 1000)
    assert (subset.batch_size, subset.epochs) == (16, round(10 * 16 / 7))
    assert Recipe(epochs=10).for_subset(0.9, 100, 1000) == Recipe(epochs=10)


def test_every_recipe_can_be_asked_for() -> None:
    for name, preset in RECIPES.items():
        assert RunConfig(**preset).epochs >= 1, name


@pytest.mark.parametrize("c_d", [4.0, 4, np.float32(4), np.int64(4), "auto", "cifar100", "imagenet"])
def test_c_d_may_be_a_number_a_name_or_auto(c_d: Any) -> None:
    assert RunConfig(c_d=c_d).c_d == c_d


def test_method_options_are_numbers_where_they_can_be() -> None:
    assert method_options("aum:mislabel_cut=20,keep=low") == ("aum", {"mislabel_cut": 20, "keep": "low"})
    assert isinstance(method_options("aum:mislabel_cut=20")[1]["mislabel_cut"], int)
    assert method_options("dual+beta:c_d=5.5") == ("dual+beta", {"c_d": 5.5})


def test_the_scoring_schedule_is_no_shorter_than_the_pass() -> None:
    assert Scoring(score_epochs=30, score_schedule_epochs=30).score_schedule_epochs == 30
    with pytest.raises(ValueError, match="score_schedule_epochs is 29 and score_epochs is 30"):
        Scoring(score_epochs=30, score_schedule_epochs=29)
    with pytest.raises(ValueError, match="score_schedule_epochs is 0"):
        Scoring(score_schedule_epochs=0)


def test_the_published_recipes_score_the_beginning_of_their_own_schedule() -> None:
    assert RECIPES["paper"]["score_schedule_epochs"] == RECIPES["paper"]["epochs"]
    imagenet = RECIPES["imagenet"]  # scores from all of its epochs: the schedule ends with the pass in any case
    assert imagenet["score_epochs"] == imagenet["epochs"]
    assert "score_schedule_epochs" not in imagenet


def test_the_choices_in_the_help_are_those_there_are() -> None:
    hints = get_type_hints(Recipe)
    assert set(get_args(hints["normalize"])) == set(NORMALIZATIONS)
    assert f"{', '.join(MODELS)}, or module:factory." in inspect.getsource(Recipe)
    assert set(get_args(GivenCD)[1].__args__) == {"auto", *PUBLISHED_C_D}
    assert set(get_args(RecipeName)) == set(RECIPES)

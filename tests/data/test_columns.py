"""dualfast.data.columns: the column whose name says most is meant; what that leaves open is an error."""

from __future__ import annotations

import pytest

from dualfast.data.columns import LABEL_NAMES, has_usual_name, the_one


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        (["x"], "x"),
        (["fine_label", "coarse", "Label"], "Label"),
        (["y", "fine_label"], "fine_label"),
        (["id", "target"], "target"),
    ],
)
def test_a_name_of_an_earlier_group_wins(found: list[str], meant: str) -> None:
    assert the_one(found, LABEL_NAMES, "a.beton", "integer fields", "label_column") == meant


@pytest.mark.parametrize(("found", "open_ones"), [(["id", "age"], "id, age"), (["id", "y", "target"], "y, target")])
def test_what_is_open_is_an_error_that_says_how_to_choose(found: list[str], open_ones: str) -> None:
    with pytest.raises(ValueError, match=rf"^a\.beton has several fields: {open_ones}; choose with label_column='\w+'"):
        the_one(found, LABEL_NAMES, "a.beton", "fields", "label_column")


def test_names_are_usual_in_any_case() -> None:
    assert has_usual_name("TARGETS", LABEL_NAMES)
    assert not has_usual_name("weight", LABEL_NAMES)

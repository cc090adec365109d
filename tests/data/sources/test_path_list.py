"""Many paths in little memory."""

from __future__ import annotations

import tracemalloc

import pytest

from dualfast.data.sources.path_list import PathList

pytest.importorskip("pyarrow")


def paths_of(names: list[str]) -> PathList:
    paths = PathList()
    for name in names:
        paths.append(name)
    return paths


@pytest.mark.parametrize("names", [[], ["a"], ["a/\u00e9.jpg", "", "b c/\U0001f436.png"], ["caf\udce9/1.jpg", "b"]])
def test_paths_are_a_sequence_and_an_array(names: list[str]) -> None:
    paths = paths_of(names)
    assert len(paths) == len(names)
    assert list(paths) == names == paths[:]
    assert [paths[at] for at in range(len(names))] == names
    assert names[-1:] == paths[-1:] == ([paths[-1]] if names else [])
    with pytest.raises(IndexError):
        paths[len(names)]
    assert paths.to_arrow().to_pylist() == [name.replace("\udce9", "\\udce9") for name in names]
    paths.append("later")  # after an array was made of it
    assert paths[len(names)] == "later"


def test_paths_take_less_memory_than_strings() -> None:
    names = [f"n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG" for i in range(100_000)]
    tracemalloc.start()
    paths = paths_of(names)
    now, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(paths) == 100_000
    assert now < 55 * 100_000

"""dualfast/_C.pyi declares what the compiled module has: the same names, and for each function the same arguments."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import dualfast
import dualfast._C as _C

STUB = ast.parse((Path(dualfast.__file__).parent / "_C.pyi").read_text(encoding="utf-8"))
FUNCTIONS = {node.name: node.args for node in STUB.body if isinstance(node, ast.FunctionDef)}
ATTRIBUTES = {node.target.id for node in STUB.body if isinstance(node, ast.AnnAssign) and node.value is None}  # type: ignore[union-attr]


def test_names() -> None:
    public = {name for name in vars(_C) if not name.startswith("_")} | {"__version__"}
    assert FUNCTIONS.keys() | ATTRIBUTES == public


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments(name: str) -> None:
    # pybind11 begins a function's docstring with its signature.
    signature = (getattr(_C, name).__doc__ or "").splitlines()[0]
    compiled = re.findall(r"(?:^\w+\(|, )(\w+): ", signature)
    declared = FUNCTIONS[name]
    assert not declared.defaults
    if declared.posonlyargs:  # without names in C++
        assert compiled == [f"arg{i}" for i in range(len(declared.posonlyargs))]
    else:
        assert compiled == [argument.arg for argument in declared.args]

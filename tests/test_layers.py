"""What the import contract cannot see: the compiled module, and the kernels, which are imported by name."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import dualfast

PACKAGE = Path(dualfast.__file__).resolve().parent


BY_NAME = {"ops/step.py", "_moved.py", "__init__.py", "user_code.py"}
"""The modules that may import by name: the kernels, the names of 0.1, the public names, and what users bring."""
IMPORTERS = {"import_module", "__import__", "resolve_name", "module_from_spec"}


def _package_of(file: Path) -> tuple[str, ...]:
    if file.parent.name == "kernels":
        return "dualfast", "kernels"
    return "dualfast", *file.parent.relative_to(PACKAGE).parts


def _module_of(node: ast.ImportFrom, file: Path) -> str:
    """The module that names are imported from."""
    home = _package_of(file)
    above = home[: len(home) + 1 - node.level] if node.level else ()
    return ".".join(filter(None, (*above, node.module)))


def imported(file: Path) -> Iterator[str]:
    """The modules that a file names in its imports, importlib's too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{_module_of(node, file)}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def test_only_ops_imports_compiled_code() -> None:
    found = {"_C": 0, "kernels": 0}
    for file in PACKAGE.rglob("*.py"):
        for name in imported(file):
            package, _, rest = name.partition(".")
            part = rest.partition(".")[0]
            if package == "dualfast" and part in found and "kernels" not in file.parts:
                assert file.parent == PACKAGE / "ops", f"{file} imports {name}"
                found[part] += 1
    assert min(found.values()) > 2


def test_imports_by_name_go_down_too() -> None:
    """The import contract does not see importlib.import_module("dualfast...")."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    layers = [layer.split(" | ") for layer in tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]["layers"]]
    depth = {name: at for at, layer in enumerate(layers) for name in layer}
    seen = 0
    for file in PACKAGE.rglob("*.py"):
        own = depth.get(file.relative_to(PACKAGE).parts[0].removesuffix(".py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and called in ("import_module", "__import__") and own is not None:
                if file.name == "step.py":
                    assert all(isinstance(argument, ast.Constant) for argument in node.args)
                for argument in node.args:
                    if isinstance(argument, ast.Constant) and str(argument.value).startswith("dualfast."):
                        part = str(argument.value).split(".")[1]
                        assert part == "kernels" or depth[part] >= own, f"{file} imports {argument.value}"
                        seen += 1
    assert seen


def test_few_modules_import_by_name() -> None:
    """Of a name that is made up as the program runs, nothing else can be said."""
    for file in PACKAGE.rglob("*.py"):
        if file.relative_to(PACKAGE).as_posix() in BY_NAME:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", "")) if isinstance(node, ast.Attribute | ast.Name) else ""
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else {name}
            assert names.isdisjoint(IMPORTERS), f"{file}, line {getattr(node, 'lineno', 0)}"


def test_modules_do_not_import_each_other_by_the_public_names() -> None:
    """Those are loaded when they are asked for, which the import contract does not see."""
    parts = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert "dualfast" not in {name.name for name in node.names}, f"{file}, line {node.lineno}"
            if isinstance(node, ast.ImportFrom) and _module_of(node, file) == "dualfast":
                assert {name.name for name in node.names} <= parts | {"__version__"}, f"{file}, line {node.lineno}"


def test_the_kernels_import_nothing_but_each_other_and_ops() -> None:
    files = list((PACKAGE.parent / "kernels").glob("*.py"))
    assert len(files) > 2
    for file in files:
        ours = {name for name in imported(file) if name.startswith("dualfast")}
        assert all(name.startswith(("dualfast.kernels.", "dualfast.ops.")) for name in ours), ours

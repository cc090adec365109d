"""Claims of the documents: paths, make targets and flags exist, and the README's program runs."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import dualfast
from dualfast import cli
from dualfast.scoring import trajectories
from dualfast.selection import methods

ROOT = Path(__file__).resolve().parent.parent
METHODS_PAGE = ROOT / "docs" / "selection.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_paths_and_make_targets_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    mentioned = set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]*`|```.*?```", text, re.S))))
    assert mentioned <= targets, mentioned - targets
    roots = "csrc|dualfast|kernels|tests|benchmarks|docs|examples"
    for path in re.findall(rf"`((?:{roots})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


@cache
def help_of(command: str) -> str:
    with redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return out.getvalue()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_exist(document: Path) -> None:
    for line in re.findall(r"^\s*dualfast (.+)$", document.read_text(encoding="utf-8"), re.M):
        words = shlex.split(line, comments=True)
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in help_of(words[0]), line


def test_the_program_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in range(10):
        folder = tmp_path / "photos" / "train" / str(name)
        folder.mkdir(parents=True)
        for i in range(3):
            image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    namespace: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), namespace)
    kept = namespace["kept"]
    assert isinstance(kept, np.ndarray)
    assert len(kept) == 9


class _Noise(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """250 images of noise in 10 classes."""

    def __len__(self) -> int:
        return 250

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(i)), i % 10


def _network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


def _audit_names() -> dict[str, Any]:
    labels = torch.arange(200) % 10

    def train(model: nn.Module, criterion: nn.Module, epochs: int) -> None:
        for _ in range(epochs):
            criterion(model(torch.randn(200, 3, 8, 8)), labels, torch.arange(200))

    return {"labels": labels.numpy(), "model": _network(), "train": train}


def _loader_names() -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (20, 256, 256, 3), dtype=np.uint8)
    dualfast.write((images, np.arange(20) % 2), "train.beton", progress=False)
    return {"kept": np.arange(5)}


def _selection_names() -> dict[str, Any]:
    folder = Path("runs/cifar10")
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    dualfast.Scores(dual=rng.random(50_000) / 10, mean=rng.random(50_000)).save(folder / "scores.parquet")
    return {}


NAMES: dict[str, Callable[[], dict[str, Any]]] = {
    "audit.md": _audit_names,
    "loader.md": _loader_names,
    "loop.md": lambda: {"dataset": _Noise(), "model": _network()},
    "scores.md": dict,
    "selection.md": _selection_names,
}
"""What the programs of a page find: the names they use without defining them, and files in the current folder."""


KEPT = {"loop.md": 250, "scores.md": 30, "selection.md": 5_000}
"""How many samples the programs of a page end up keeping."""


def programs(document: Path) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.S))


def test_every_page_with_a_program_is_run() -> None:
    pages = {document.name for document in DOCUMENTS if document.parent.name == "docs" and programs(document)}
    assert pages == NAMES.keys()


@pytest.mark.parametrize("page", NAMES)
def test_the_programs_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "_REGISTERED", {})
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace = NAMES[page]() | {"__name__": page}
    exec(compile(programs(ROOT / "docs" / page), page, "exec"), namespace)
    if page in KEPT:
        assert isinstance(namespace["kept"], np.ndarray)
        assert len(namespace["kept"]) == KEPT[page]


def test_the_site_builds_without_a_dead_link(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    pages = {path.parent.name for path in (tmp_path / "site").glob("*/index.html")}
    assert {path.stem for path in DOCUMENTS if path.name != "README.md"} <= pages
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    missing = [name for name in dualfast.__all__ if f'id="dualfast.{name}"' not in api and name != "__version__"]
    assert not missing, f"docs/api.md lacks {missing}"


def test_the_table_of_methods_is_the_registry_s() -> None:
    text = METHODS_PAGE.read_text(encoding="utf-8")
    assert with_methods(text) == text, "run python tests/test_docs.py --table"


def with_methods(text: str) -> str:
    """docs/selection.md with the table of the registry."""
    block = f"<!-- made: methods -->\n{methods.markdown_table()}<!-- end -->"
    return re.sub(r"<!-- made: methods -->\n.*?<!-- end -->", lambda _: block, text, flags=re.S)


if __name__ == "__main__" and sys.argv[1:] == ["--table"]:
    METHODS_PAGE.write_text(with_methods(METHODS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")

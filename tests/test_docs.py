"""Claims of the documents: paths, make targets and flags exist, and the README's program runs."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_flags_exist(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = document.read_text(encoding="utf-8")
    for line in re.findall(r"^\s*dualfast (.+)$", text, re.M):
        words = shlex.split(line, comments=True)
        with pytest.raises(SystemExit):
            cli.main([words[0], "--help"])
        known = capsys.readouterr().out
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, line


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


def test_the_example_of_a_score_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectories, "_REGISTERED", {})
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scores.md").read_text(encoding="utf-8"), re.S)
    namespace: dict[str, object] = {}
    exec(compile(program, "scores.md", "exec"), namespace)
    kept = namespace["kept"]
    assert isinstance(kept, np.ndarray)
    assert len(kept) == 30


def test_the_table_of_methods_is_the_registry_s() -> None:
    text = METHODS_PAGE.read_text(encoding="utf-8")
    assert with_methods(text) == text, "run python tests/test_docs.py --table"


def with_methods(text: str) -> str:
    """docs/selection.md with the table of the registry."""
    block = f"<!-- made: methods -->\n{methods.markdown_table()}<!-- end -->"
    return re.sub(r"<!-- made: methods -->\n.*?<!-- end -->", lambda _: block, text, flags=re.S)


if __name__ == "__main__" and sys.argv[1:] == ["--table"]:
    METHODS_PAGE.write_text(with_methods(METHODS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")

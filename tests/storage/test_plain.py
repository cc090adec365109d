"""JSON and YAML from anybody: values, or a ValueError within a moment."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dualfast.storage import plain
from dualfast.storage.plain import read_json, read_regular, read_yaml


def laughs(levels: int) -> str:
    """Ten times as many words at every level, all in a few hundred bytes."""
    lines = ["asked:", "  a0: &a0 [" + ", ".join(["ha"] * 9) + "]"]
    lines += [f"  a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(10), "anchors, aliases or tags"),
        ("a: &b 1", "anchors, aliases or tags"),
        ("a: !!python/object/apply:os.system [true]", "anchors, aliases or tags"),
        ("a: !!binary aGVsbG8=", "anchors, aliases or tags"),
        ("a: " + "[" * 20000, "nested too deeply"),
        ("- " * 30 + "x", "nested too deeply"),
        ("a: " + "9" * 5000, "cannot be read"),
        ("a: 2024-99-99", "cannot be read"),
        ("a: [", "cannot be read"),
        ("? {a: [b]}\n: 1", "cannot be read"),
        ("a: \x00", "cannot be read"),
        ("#" * (1 << 17), "more than 65,536 bytes"),
    ],
)
def test_yaml_is_plain_values_only(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        read_yaml(path)
    assert time.perf_counter() - start < 5
    assert "config.yaml" in str(caught.value)


def test_yaml_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("asked:\n  seed: [0, 1]\n  lr: 0.1\n  out: null\n  full: true\n  data: 'a: b'\nenvironment: {}\n")
    asked = {"seed": [0, 1], "lr": 0.1, "out": None, "full": True, "data": "a: b"}
    assert read_yaml(path) == {"asked": asked, "environment": {}}


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "keep.json"
    path.write_text('{"a": [1, null]}')
    assert read_json(path) == {"a": [1, None]}
    for text, words in (("[" * 100_000, "nested too deeply"), ("{", "is not JSON"), ("\ud800", "is not JSON")):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ValueError, match=f"keep.json.*{words}"):
            read_json(path)


def test_only_regular_files_of_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_regular(path, 10)
    (tmp_path / "x").write_bytes(bytes(11))
    assert read_regular(tmp_path / "x", 11) == bytes(11)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_regular(tmp_path / "x", 10)
    monkeypatch.setattr(plain, "MAX_JSON", 3)
    (tmp_path / "x").write_text("1234")
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_json(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nowhere")

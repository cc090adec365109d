"""dualfast.errors: every error is bad input, the system's, or one of ours; the command line decides by class."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dualfast
from dualfast import cli, errors

OURS = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}
ELSEWHERE = {
    "OSError",
    "TimeoutError",
    "KeyboardInterrupt",
    "StopIteration",
    "AttributeError",  # of the package's own __getattr__
    "SystemExit",  # of a rank whose rank 0 has said why
}


def raised(tree: ast.AST) -> set[str]:
    """The classes that the code raises by name, without private ones, which the module itself catches."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(call, ast.Name) and call.id[:1].isupper():
                found.add(call.id)
    return found


def test_no_other_class_is_raised() -> None:
    package = Path(dualfast.__file__).resolve().parent
    files = [*package.rglob("*.py"), *(package.parent / "kernels").glob("*.py")]
    assert len(files) > 50
    for file in files:
        unknown = raised(ast.parse(file.read_text(encoding="utf-8"))) - OURS - ELSEWHERE - {"ValueError", "TypeError"}
        assert not unknown, f"{file} raises {unknown}"


@pytest.mark.parametrize("name", sorted(OURS - {"Stopped"}))
def test_each_of_ours_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = getattr(errors, name)

    def fail(asked: object) -> None:
        raise error("what went wrong")

    monkeypatch.setitem(cli._COMMANDS, cli.Verify, fail)
    assert cli.main(["verify", "x.beton"]) == 2
    assert capsys.readouterr().err == "dualfast: error: what went wrong\n"
    with pytest.raises(error):
        cli.main(["verify", "x.beton", "--debug"])


def test_older_except_clauses_still_catch_them() -> None:
    for name in ("DataChanged", "UnreadableData", "IterationLost", "UnsupportedBackward"):
        assert issubclass(getattr(errors, name), RuntimeError)
    assert issubclass(errors.MissingPackage, ImportError)
    assert issubclass(errors.UnsupportedCall, NotImplementedError)
    assert not issubclass(errors.Stopped, Exception)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("skip_bad=True leaves them out", "--skip-bad leaves them out"),
        ("give full=False", "give --no-full"),
        ("choose with image_column='front'", "choose with --image-column 'front'"),
        ("seed is -1; give another", "--seed is -1; give another"),
        (
            "batch_size is 1 and lr is 2; raise batch_size or lower lr",
            "--batch-size is 1 and --lr is 2; raise --batch-size or lower --lr",
        ),
        ("/data/batch_size/a.png is broken", "/data/batch_size/a.png is broken"),
        ("the model is too large, score_batch_size too", "the model is too large, score_batch_size too"),
    ],
)
def test_messages_in_the_words_of_the_command_line(message: str, said: str) -> None:
    options = ["skip_bad", "full", "image_column", "seed", "batch_size", "lr", "model"]
    assert errors.in_flags(message, options) == said
    assert errors.in_flags(message, []) == message


def test_what_a_terminal_obeys_is_shown_as_text() -> None:
    name = "a\x1b]0;owned\x07\x1b[2J\n\u202egpj.\udcff \x9b2J é 猫.jpg"
    assert errors.printable(name) == r"a\x1b]0;owned\x07\x1b[2J\n\u202egpj.\udcff \x9b2J é 猫.jpg"

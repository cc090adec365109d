"""dualfast.errors: every error is bad input, the system's, or one of ours; the command line decides by class."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dualfast
from dualfast import cli, errors
from dualfast.data.index_list import load_keep
from dualfast.scoring.sharded import load_parts
from dualfast.selection.select import explain
from dualfast.selection.spec import SelectionSpec

OURS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, BaseException)}
ELSEWHERE = {
    "OSError",
    "MemoryError",
    "UnidentifiedImageError",  # Pillow's OSError
    "TimeoutError",
    "KeyboardInterrupt",
    "StopIteration",
    "AttributeError",  # of the package's own __getattr__
    "ImportError",  # of its import hook, for names of 0.1 that are gone
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
        ("'ccs:batch_size=3,batch_size=4' and 'batch_size'", "'ccs:batch_size=3,batch_size=4' and 'batch_size'"),
        ('seed=3; python -c "f(seed=3, lr=1)" or lr=2', '--seed 3; python -c "f(seed=3, lr=1)" or --lr 2'),
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


def test_arguments_of_another_kind_are_named() -> None:
    """None of these ends in an error of Python's or torch's own."""
    table = dualfast.ScoreTable(4)
    criterion: Any = dualfast.DualLoss(table)
    ones: Any = np.ones(4)
    scores: Any = dualfast.Scores(dual=ones, mean=ones / 2)
    with pytest.raises(TypeError, match="scores is a ndarray; give Scores"):
        dualfast.select(ones, 0.5)
    with pytest.raises(TypeError, match=r"scores is 5\.0; give Scores"):
        dualfast.select(5.0, 0.5, method="random")
    with pytest.raises(TypeError, match="scores is a NoneType; give Scores"):
        explain(None, 0.5)
    with pytest.raises(ValueError, match="score is 3; give the name of a score"):
        dualfast.select(scores, 0.5, method="ccs", score=3)
    with pytest.raises(TypeError, match="logits is a list; give a tensor"):
        criterion([1.0], [0], [0])
    for load in (table.load_state_dict, lambda state: load_parts(table, [state])):
        with pytest.raises(ValueError, match="the state lacks by_products, epochs, lines"):
            load({})
    with pytest.raises(ValueError, match="device is 'nonsense', which cannot hold the table"):
        dualfast.ScoreTable(4, device="nonsense")
    with pytest.raises(TypeError, match="label_smoothing is None; give a number"):
        dualfast.DualLoss(table, label_smoothing=None)(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="window is None; give an integer"):
        dualfast.score_trajectories(np.ones((3, 4)), window=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strata is 'many'; give a number, as strata=50"):
        dualfast.select(scores, 0.5, method="stratified", strata="many")
    logits, zeros = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    for options, words in (
        ({"weight": [1.0, 1.0]}, r"weight is \[1\.0, 1\.0\]; give a tensor of real numbers"),
        ({"weight": torch.ones(2, dtype=torch.complex64)}, "weight is tensor.*; give a tensor of real numbers"),
        ({"reduction": np.ones(2)}, r"reduction is array\(\[1\., 1\.\]\); give mean, sum or none"),
        ({"ignore_index": "a"}, "ignore_index is 'a'; give an integer"),
        ({"label_smoothing": True}, "label_smoothing is True; give a number"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            dualfast.dual_loss(logits, zeros, zeros, table, **options)
    criterion.label_smoothing = 3
    with pytest.raises(ValueError, match="label_smoothing is 3"):
        criterion(logits, torch.full((4, 2), 0.5), zeros, observe_targets=zeros)
    assert int(table.scores().visits.sum()) == 0
    with pytest.raises(TypeError, match="the state is a NoneType; give what state_dict"):
        table.load_state_dict(None)  # type: ignore[arg-type]
    for name, value, words in (
        ("lines", 3, "is a int; give what"),
        ("status", torch.zeros(1, dtype=torch.int32), r"is \(1,\), not"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"{name} of the state {words}"):
            table.load_state_dict(table.state_dict() | {name: value})
    with pytest.raises(ValueError, match="extra has 'mean', which is a column of its own"):
        dualfast.Scores(dual=ones, mean=ones, extra={"mean": ones})
    for name in ("name", "class", "rs2"):
        with pytest.raises(ValueError, match=f"name is '{name}', which dualfast uses itself"):
            dualfast.score(name)
    with pytest.raises(MemoryError, match="100000000000000 lines take 6400000000000000 bytes on cpu"):
        dualfast.ScoreTable(10**14)


def test_full_memory_is_a_memory_error() -> None:
    with (
        pytest.raises(MemoryError, match=r"training: .*; lower batch_size or image_size"),
        errors.full_memory("training"),
    ):
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="an illegal memory access"), errors.full_memory("training"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_paths_that_name_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scores is '', which names no file"):
        dualfast.Scores.load("")
    with pytest.raises(ValueError, match=r"keep is '\.', which names no file"):
        load_keep(".")
    with pytest.raises(ValueError, match="like is '', which names no file"):
        SelectionSpec.read("")
    with pytest.raises(ValueError, match="where is empty"):
        SelectionSpec(prune_ratio=0.5, where=" ")
    with pytest.raises(TypeError, match="method is None; give a name"):
        SelectionSpec.parse(None, prune_ratio=0.5)  # type: ignore[arg-type]
    os.mkfifo(tmp_path / "pipe.beton")
    with pytest.raises(ValueError, match="cannot be written: it is a pipe, socket or device"):
        dualfast.write((np.zeros((4, 8, 8, 3), np.uint8), np.arange(4) % 2), tmp_path / "pipe.beton", progress=False)
    (tmp_path / "mine.txt").write_text("notes")
    with pytest.raises(ValueError, match="which exists; give the path of a new file"):
        dualfast.ScoreTable(4, trajectories=str(tmp_path / "mine.txt"))
    with pytest.raises(TypeError, match="trajectories is 3; give True"):
        dualfast.ScoreTable(4, trajectories=3)  # type: ignore[arg-type]
    assert (tmp_path / "mine.txt").read_text() == "notes"


def test_arguments_of_a_loader_of_another_kind_are_named(tmp_path: Path) -> None:
    path, images = tmp_path / "x.beton", np.zeros((8, 8, 8, 3), np.uint8)
    dualfast.write((images, np.arange(8) % 2), path, progress=False)
    pipelines: Any = 3
    with pytest.raises(ValueError, match="mean is 3; give three numbers"):
        dualfast.Loader(path, 4, mean=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size is 1000000000000; give an integer from 1 to"):
        dualfast.Loader(path, 10**12)
    pair: Any = (images, np.arange(8) % 2)
    for name, wrong in (("jpeg_quality", None), ("max_size", "")):
        with pytest.raises(TypeError, match=f"{name} is {wrong!r}; give an integer"):
            dualfast.write(pair, tmp_path / "y.beton", **{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="background is None; give the name of a colour"):
        dualfast.write(pair, tmp_path / "y.beton", background=None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pipelines is 3; give a dict"):
        dualfast.Loader(path, 4, pipelines=pipelines)
    state: Any = None
    with dualfast.Loader(path, 4) as loader, pytest.raises(TypeError, match="state is a NoneType; give what"):
        loader.load_state_dict(state)
    pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    with pytest.raises(ValueError, match="pipelines has 'x', and the file the fields image, label"):
        dualfast.Loader(path, 4, pipelines={"x": [3]})

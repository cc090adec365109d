"""What callers may hand in as data, numbers, switches and paths, and what each public call says of the rest."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import dualfast
from dualfast.arguments import as_array, as_path, as_texts, checked_bool, checked_int
from dualfast.config import RunConfig
from dualfast.data.index_list import load_keep, save_keep
from dualfast.ops import StepOptions
from dualfast.selection.streaming import select_files

N = 60
LABELS = np.arange(N) % 3
Scores = dualfast.Scores


def scores(**columns: Any) -> dualfast.Scores:
    half = np.full(N, 0.5)
    return Scores(**{"dual": half, "mean": half, "aum": half - 1, "visits": np.full(N, 20), **columns})


class Columns:
    """Scores of someone else."""

    def __init__(self, dual: Any) -> None:
        self.dual, self.mean = dual, np.full(N, 0.5)


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("data") / "set.beton")
    dualfast.write((np.zeros((N, 8, 8), np.uint8), LABELS), path, progress=False)
    return path


def visited(beton: str, indices: Any) -> NDArray[np.int64]:
    with dualfast.Loader(beton, 10, indices=indices) as loader:
        return loader.indices


def written(beton: str, images: Any, labels: Any) -> str:
    return dualfast.write((images, labels), f"{beton}.again.beton", rewrite=True, progress=False).fingerprint


def loss(**given: Any) -> torch.Tensor:
    arguments = {"logits": torch.zeros(N, 3), "targets": torch.zeros(N, dtype=torch.int64), "index": torch.arange(N)}
    return dualfast.dual_loss(**{**arguments, "table": dualfast.ScoreTable(N), **given})


# The argument, numbers that fit it, and the call: of the path of a .beton, and of the argument.
DATA: dict[str, tuple[NDArray[Any], Callable[[str, Any], Any]]] = {
    "dual": (np.linspace(0.1, 1, N), lambda _, given: scores(dual=given)),
    "extra": (np.linspace(0.1, 1, N), lambda _, given: scores(extra={"extra": given})),
    "dual ": (np.linspace(0.1, 1, N), lambda _, given: dualfast.select(Columns(given), 0.5)),
    "labels": (LABELS, lambda _, given: dualfast.select(scores(), 0.5, labels=given, per_class=True)),
    "labels ": (LABELS, lambda _, given: dualfast.audit(scores(), given)),
    "exclude": (np.arange(5), lambda _, given: dualfast.select(scores(), 0.5, exclude=given)),
    "indices": (np.arange(5), visited),
    "indices ": (
        np.arange(5),
        lambda beton, given: dualfast.compact(beton, given, f"{beton}.small.beton", progress=False),
    ),
    "indices  ": (np.arange(5), lambda _, given: dualfast.PrunedSampler(given).ids),
    "labels  ": (LABELS, lambda beton, given: written(beton, np.zeros((N, 8, 8), np.uint8), given)),
    "images": (np.zeros((N, 8, 8), np.uint8), lambda beton, given: written(beton, given, LABELS)),
    "probs": (np.full((10, N), 0.5), lambda _, given: dualfast.score_trajectories(given)),
    "epochs": (np.array([3]), lambda _, given: RunConfig(epochs=given)),
}


def odd(values: NDArray[Any]) -> dict[str, tuple[torch.Tensor, str]]:
    tensor = torch.from_numpy(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are prototypes, or deprecated
        return {
            "meta": (tensor.to("meta"), "on the device meta"),
            "nested": (torch.nested.nested_tensor([tensor, tensor]), "nested tensor; give a plain one"),
            "jagged": (
                torch.nested.nested_tensor([tensor, tensor], layout=torch.jagged),
                "nested tensor; give a plain one",
            ),
            "sparse": (tensor.to_sparse(), "to_dense"),
            "quantized": (torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8), "dequantize"),
        }


@pytest.mark.parametrize("kind", ["meta", "nested", "jagged", "sparse", "quantized"])
@pytest.mark.parametrize("argument", DATA)
def test_tensors_without_plain_values_are_named(argument: str, kind: str, beton: str) -> None:
    values, call = DATA[argument]
    given, way_out = odd(values)[kind]
    with pytest.raises(TypeError, match=f"^{argument.strip()} is a") as raised:
        call(beton, given)
    assert way_out in str(raised.value)


@pytest.mark.parametrize("argument", DATA)
def test_tensors_are_read_apart_from_their_graph(argument: str, beton: str) -> None:
    values, call = DATA[argument]
    if values.dtype.kind == "f":
        given: Any = torch.from_numpy(values).requires_grad_() * 1
    else:  # the negative bit, the only such thing that integers have
        given = torch._neg_view(torch.from_numpy(-values))
    assert repr(call(beton, given)) == repr(call(beton, values))


@pytest.mark.filterwarnings("ignore:device meta")
@pytest.mark.parametrize("kind", ["nested", "sparse", "meta"])
@pytest.mark.parametrize("argument", ["logits", "targets", "index", "weight"])
def test_tensors_of_a_step(argument: str, kind: str) -> None:
    values = {"logits": np.zeros((N, 3), np.float32), "weight": np.ones(3, np.float32)}.get(argument, np.arange(N))
    given, _ = odd(values)[kind]
    elsewhere = kind == "meta"
    with pytest.raises(ValueError if elsewhere else TypeError, match="on meta" if elsewhere else f"^{argument} is a"):
        loss(**{argument: given})
    if argument == "targets" and kind != "meta":
        mixed, _ = odd(np.full((N, 3), 0.5, np.float32))[kind]
        with pytest.raises(TypeError, match="targets is a"):
            loss(targets=mixed, observe_targets=torch.zeros(N, dtype=torch.int64))


def test_as_array() -> None:
    complex_ = torch.complex(torch.ones(2), torch.full((2,), 2.0)).conj()
    assert as_array("x", complex_).tolist() == [1 - 2j, 1 - 2j]
    assert as_array("x", complex_.imag).tolist() == [-2, -2]
    assert as_array("x", torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    assert as_array("x", torch.ones(2, dtype=torch.float8_e4m3fn)).tolist() == [1, 1]
    assert as_array("x", [torch.ones(2, requires_grad=True), np.zeros(2)]).tolist() == [[1, 1], [0, 0]]
    swapped = np.arange(3).astype(">i8")
    assert as_array("x", swapped).dtype == np.int64
    assert as_array("x", swapped).tolist() == [0, 1, 2]
    assert as_array("x", range(3)).tolist() == [0, 1, 2]
    plain = np.arange(3)
    assert as_array("x", plain) is plain
    with pytest.raises(ValueError, match="x has masked entries"):
        as_array("x", np.ma.masked_less(plain, 1))
    with pytest.raises(ValueError, match=r"x cannot be made an array: .* inhomogeneous"):
        as_array("x", [[1], [2, 3]])
    with pytest.raises(TypeError, match=r"x\[1\] is a tensor on the device meta"):
        as_array("x", [torch.ones(()), torch.ones((), device="meta")])


def test_scores_of_foreign_numbers_are_saved(tmp_path: Path) -> None:
    values = np.linspace(0, 1, N)
    scores(dual=values.astype(">f8"), aum=values.astype(np.longdouble), mean=values.astype(">f4")).save(
        tmp_path / "scores.parquet", labels=LABELS.astype(">i2")
    )
    loaded = Scores.load(tmp_path / "scores.parquet")
    assert (loaded.dual == values).all()
    assert (loaded.mean == values.astype(np.float32)).all()
    assert loaded.aum is not None
    assert loaded.aum.dtype == np.float64
    assert (loaded.aum == values).all()


SWITCHES: dict[str, Callable[[str, Any], Any]] = {
    "inplace": lambda _, given: loss(inplace=given),
    "inplace ": lambda _, given: loss(table=dualfast.ScoreTable(N, tdds=3), inplace=given),
    "by_products": lambda _, given: loss(by_products=given),
    "by_products ": lambda _, given: dualfast.DualLoss(dualfast.ScoreTable(N, trajectories=True), by_products=given),
    "inplace  ": lambda _, given: dualfast.DualLoss(dualfast.ScoreTable(N), inplace=given),
    "with_grad": lambda _, given: StepOptions(with_grad=given),
    "track_loss": lambda _, given: dualfast.ScoreTable(N, track_loss=given),
    "as_mask": lambda _, given: dualfast.select(scores(), 0.5, as_mask=given),
    "skip_unscored": lambda _, given: dualfast.select(scores(), 0.5, skip_unscored=given),
    "shuffle": lambda _, given: dualfast.PrunedSampler([1, 2], shuffle=given),
    "drop_last": lambda beton, given: dualfast.Loader(beton, 2, drop_last=given),
    "os_cache": lambda beton, given: dualfast.Loader(beton, 2, os_cache=given),
    "distributed": lambda beton, given: dualfast.Loader(beton, 2, distributed=given),
    "recompile": lambda beton, given: dualfast.Loader(beton, 2, recompile=given),
    "nesterov": lambda _, given: RunConfig(nesterov=given),
}


PAIR = np.array(["mean", "sum"])
CHOICES: dict[str, Callable[[str], object]] = {
    "backend": lambda beton: dualfast.DualLoss(dualfast.ScoreTable(N), backend=PAIR),  # type: ignore[arg-type]
    "reduction": lambda beton: dualfast.DualLoss(dualfast.ScoreTable(N), reduction=PAIR),  # type: ignore[arg-type]
    "keep": lambda beton: dualfast.select(scores(), 0.5, method="dual", keep=PAIR),
    "per_class": lambda beton: dualfast.select(scores(), 0.5, per_class=PAIR, labels=LABELS),  # type: ignore[arg-type]
    "mode": lambda beton: dualfast.write(beton, "x.beton", mode=PAIR),  # type: ignore[arg-type]
    "verify": lambda beton: dualfast.Loader(beton, 10, verify=PAIR),  # type: ignore[arg-type]
    "fill": lambda beton: dualfast.image_pipelines(32, fill=PAIR),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", CHOICES)
def test_an_array_for_a_choice_is_named_with_the_choices(name: str, beton: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is array.*; give "):
        CHOICES[name](beton)


def test_numbers_that_cannot_be_are_named(beton: str) -> None:
    for call, words in (
        (lambda: dualfast.ScoreTable(N, window=5000), "window is 5000; a sample counts 4095 visits"),
        (lambda: dualfast.ScoreTable(True), "n_samples is True; give an integer"),
        (lambda: dualfast.Loader(beton, 10, num_workers=10**30), "num_workers is 1000"),
        (lambda: dualfast.Loader(beton, 10, image_size=True), "image_size is True; give 1 to"),
        (lambda: dualfast.Loader(beton, 10, image_size=[[1], [1, 2]]), "image_size is "),  # type: ignore[arg-type]
        (lambda: RunConfig(lr=1e308), "lr is 1e\\+308; give a positive number, at most"),
        (lambda: RunConfig(lr=10**400), "lr is 1000"),
        (lambda: RunConfig(batch_size=10**12), "batch_size is 1000000000000; give less than"),
        (lambda: dualfast.select(scores(), 0.5, method="dual", c_d="foo"), "c_d is 'foo'; give a positive"),  # type: ignore[arg-type]
        (lambda: dualfast.audit(scores(), LABELS, names=np.array(3)), "names is array"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    assert loss(label_smoothing=torch.tensor(0.25)) == loss(label_smoothing=0.25)


def test_an_option_is_checked_whatever_was_given_before() -> None:
    loss(ignore_index=-100, by_products=True)
    with pytest.raises(TypeError, match=r"ignore_index is -100\.0; give an integer"):
        loss(ignore_index=-100.0)
    with pytest.raises(TypeError, match=r"by_products is 1\.0; give True or False"):
        loss(by_products=1.0)


@pytest.mark.parametrize(("device", "error"), [("abacus", ValueError), ("meta", ValueError), (PAIR, TypeError)])
def test_a_table_names_a_device_that_cannot_hold_it(device: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"device is .*(; give |cannot hold the table)"):
        dualfast.ScoreTable(N, device=device)


@pytest.mark.parametrize("given", [torch.tensor([1, 2]), np.array([True, False]), "no", 2, None], ids=str)
@pytest.mark.parametrize("argument", SWITCHES)
def test_switches_are_true_or_false(argument: str, given: Any, beton: str) -> None:
    with pytest.raises(TypeError, match=f"{argument.strip()} is .*; give True or False"):
        SWITCHES[argument](beton, given)


def test_checked_bool() -> None:
    assert [checked_bool("x", value) for value in (True, np.True_, 1, False, np.False_, 0)] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("given", [torch.tensor([1, 2]), torch.tensor(1.0), torch.ones((), device="meta"), True, "3"])
def test_checked_int(given: Any) -> None:
    with pytest.raises(TypeError, match=r"x is .*; give an integer"):
        checked_int("x", given)
    assert checked_int("x", torch.tensor([3])) == checked_int("x", np.uint8(3)) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": torch.tensor([1, 2])}, r"epochs is \(1, 2\); give an integer"),
        ({"epochs": "3"}, "epochs is '3'; give an integer"),
        ({"image_size": "a"}, "image_size is 'a'; give an integer, or None"),
        ({"lr": "a"}, "lr is 'a'; give a number"),
        ({"prune_ratio": 0.5}, "prune_ratio is 0.5; give a tuple, each entry a number"),
        ({"out": 3}, "out is 3; give text, or None"),
    ],
)
def test_options_have_types(given: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        RunConfig(**given)


def test_options_are_made_plain() -> None:
    config = RunConfig(prune_ratio=np.array([0.25, 0.5]), lr=torch.tensor(0.5), seed=[1, 2], out=Path("a"))  # type: ignore[arg-type]
    assert (config.prune_ratio, config.lr, config.seed, config.out) == ((0.25, 0.5), 0.5, (1, 2), "a")
    with pytest.raises(ValueError, match="schedule is 'flat'; give onecycle, cosine"):
        RunConfig(schedule="flat")  # type: ignore[arg-type]


PATHS: dict[str, Callable[[Any], Any]] = {
    "path": lambda given: scores().save(given),
    "scores": Scores.load,
    "path ": Scores.about,
    "keep": load_keep,
    "path  ": lambda given: save_keep(given, np.arange(3), n_samples=3),
    "out": lambda given: select_files("missing.parquet", 0.5, given),
    "source": lambda given: select_files(given, 0.5, "out.npy"),
    "fname": lambda given: dualfast.Loader(given, 2),
}


@pytest.mark.parametrize("given", [3, b"scores.parquet", None], ids=str)
@pytest.mark.parametrize("argument", PATHS)
def test_paths_are_text_or_path_objects(argument: str, given: Any) -> None:
    with pytest.raises(TypeError, match=f"^{argument.strip()} is .*; give a path, as text or pathlib.Path"):
        PATHS[argument](given)


def test_as_path(tmp_path: Path) -> None:
    assert as_path("x", tmp_path) == as_path("x", str(tmp_path)) == tmp_path


def test_texts_and_what_are_none(tmp_path: Path) -> None:
    assert as_texts("names", np.array(["a", "b"])) == ["a", "b"]
    assert as_texts("names", torch.tensor([1.0, 2.0], requires_grad=True)) == ["1.0", "2.0"]
    path = tmp_path / "scores.parquet"
    for name in ("names", "class_names"):
        for given in (3, "abc", {"a": 1}, b"ab"):
            with pytest.raises(TypeError, match=f"^{name} is .*; give a list of texts"):
                scores().save(path, labels=LABELS, **{name: given})
    with pytest.raises(TypeError, match=r"class_names\[0\] is None; give a text"):
        scores().save(path, labels=LABELS, class_names=[None])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"fingerprint is array\(.*; give the text"):
        scores().save(path, fingerprint=np.arange(3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^names is 3; give a list of texts"):
        dualfast.audit(scores(), LABELS, names=3)
    assert not path.exists()


def test_a_method_is_a_name() -> None:
    with pytest.raises(TypeError, match=r"method is \['dual'\]; give a name"):
        dualfast.select(scores(), 0.5, method=["dual"])  # type: ignore[arg-type]

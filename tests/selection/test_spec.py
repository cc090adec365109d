"""dualfast select: what it writes is what select keeps, and its side file draws the same again."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import dualfast
from dualfast import cli
from dualfast.data.index_list import load_keep
from dualfast.selection.beta import Statistics, auto_c_d
from dualfast.selection.files import write_list
from dualfast.selection.select import select
from dualfast.selection.spec import SelectionSpec
from dualfast.selection.streaming import select_files

N = 2000
LABELS = np.arange(N) % 3


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dualfast.Scores:
    rng = np.random.default_rng(0)
    mean = rng.beta(4, 2, N)
    made = dualfast.Scores(
        dual=mean * (1 - mean) * rng.random(N), mean=mean, aum=rng.normal(size=N), aum_prob=2 * mean - 1
    )
    monkeypatch.chdir(tmp_path)
    made.save("scores.parquet", labels=LABELS, fingerprint="f")
    for name in ("dual", "mean"):
        np.save(f"{name}.npy", getattr(made, name))
    np.save("out.npy", np.arange(50))
    np.save("in.npy", np.arange(N) >= N - 50)
    return made


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], {}),
        (["--seed", "7", "--c-d", "5.5"], {"seed": 7, "c_d": 5.5}),
        (["--method", "dual+beta:c_d=11"], {"c_d": 11}),
        (["--c-d", "imagenet"], {"c_d": 11}),
        (["--c-d", "imagenet", "--force", "in.npy"], {"c_d": 11, "force": range(N - 50, N)}),
        (["--method", "random"], {"method": "random"}),
        (["--method", "dual:keep=low"], {"method": "dual", "keep": "low"}),
        (["--method", "ccs:strata=7,mis_ratio=0.2"], {"method": "ccs", "strata": 7, "mis_ratio": 0.2}),
        (["--per-class"], {"per_class": True, "labels": LABELS}),
        (["--exclude", "out.npy", "--force", "in.npy"], {"exclude": range(50), "force": range(N - 50, N)}),
        (["--mislabel-cut", "100"], {"mislabel_cut": 100}),
        (["--mislabel-cut", "auto"], {"mislabel_cut": "auto", "labels": LABELS}),
        (["--method", "dual:mislabel_cut=100"], {"method": "dual", "mislabel_cut": 100}),
        (["--method", "dual:mislabel_cut=auto"], {"method": "dual", "mislabel_cut": "auto", "labels": LABELS}),
        (
            ["--method", "dual+beta:mislabel_cut=100,c_d=5", "--per-class"],
            {"mislabel_cut": 100, "c_d": 5, "per_class": True, "labels": LABELS},
        ),
    ],
)
def test_select_and_select_like_it(
    scores: dualfast.Scores, flags: list[str], options: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"c_d": "auto"} | {k: list(v) if isinstance(v, range) else v for k, v in options.items()}
    want = select(scores, 0.8, **options)
    command = ["select", "--scores", "scores.parquet", "--out"]
    assert cli.main([*command, "keep.npy", "--prune-ratio", "0.8", *flags]) == 0
    assert "kept 400 of 2000, removed 1600" in capsys.readouterr().out
    assert (load_keep("keep.npy", n_samples=N, fingerprint="f") == want).all()
    if {"--exclude", "--force"} & set(flags):  # files that the sidecar names
        assert cli.main([*command, "again.npy", "--like", "keep.json"]) == 2
        assert "give --trust" in capsys.readouterr().err
    assert cli.main([*command, "again.npy", "--like", "keep.json", "--trust"]) == 0
    assert Path("again.npy").read_bytes() == Path("keep.npy").read_bytes()
    assert Path("again.json").read_text() == Path("keep.json").read_text()


def test_an_expression_on_the_table(scores: dualfast.Scores, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("duckdb")
    command = ["select", "--scores", "scores.parquet", "--out"]
    assert cli.main([*command, "keep.npy", "--prune-ratio", "0.8", "--where", "aum > 0 AND label <> 1"]) == 0
    want = select(scores, 0.8, c_d="auto", among=(np.asarray(scores.aum) > 0) & (LABELS != 1))
    assert (load_keep("keep.npy") == want).all()
    assert cli.main([*command, "again.npy", "--like", "keep.npy"]) == 2
    assert "restricts the selection by where 'aum > 0 AND label <> 1'; give --trust" in capsys.readouterr().err
    assert cli.main([*command, "again.npy", "--like", "keep.npy", "--trust"]) == 0
    assert (load_keep("again.npy") == want).all()
    for expression, says in (("aum >", "where is 'aum >'"), ("size > 1", "where is 'size > 1'")):
        assert cli.main([*command, "bad.npy", "--prune-ratio", "0.8", "--where", expression]) == 2
        assert says in capsys.readouterr().err
    assert cli.main([*command, "bad.npy", "--prune-ratio", "0.1", "--where", "aum > 0"]) == 2
    assert "keeps 1800 of 2000 samples" in capsys.readouterr().err
    assert not Path("bad.npy").exists()


def test_auto_is_said_and_noted_as_the_number_it_is(
    scores: dualfast.Scores, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["select", "--scores", "scores.parquet", "--out", "keep.npy", "--prune-ratio", "0.7", "--c-d", "auto"]
    for flags, how in (([], {}), (["--force", "in.npy"], {"force": np.arange(N - 50, N)})):
        assert cli.main([*command, *flags]) == 0
        c_d = json.loads(Path("keep.json").read_text())["c_d"]
        assert capsys.readouterr().err.count(f"--c-d auto is {c_d:g}") == 1
        assert (load_keep("keep.npy") == select(scores, 0.7, c_d=c_d, **how)).all()


def test_columns_and_shards(scores: dualfast.Scores) -> None:
    assert cli.main(["select", "--scores", "dual.npy", "mean.npy", "--out", "keep.npy", "--prune-ratio", "0.8"]) == 0
    assert (load_keep("keep.npy") == select(scores, 0.8, c_d="auto")).all()


def test_a_column_given_twice_is_refused(scores: dualfast.Scores, capsys: pytest.CaptureFixture[str]) -> None:
    Path("more").mkdir()
    np.save("more/dual.npy", np.ones(N))
    columns = ["dual.npy", "mean.npy", "more/dual.npy"]
    assert cli.main(["select", "--scores", *columns, "--out", "keep.npy", "--prune-ratio", "0.8"]) == 2
    said = capsys.readouterr().err
    assert "dual.npy more/dual.npy: a .npy is one whole column" in said
    assert ".parquet" in said
    assert not Path("keep.npy").exists()


def test_every_shard_must_be_of_the_list_s_data(scores: dualfast.Scores, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table("scores.parquet")
    both = [table.slice(0, N // 2), table.slice(N // 2)]
    pq.write_table(both[0], "a.parquet")
    for fingerprint, exit_code in ((b"f", 0), (b"g", 2)):
        pq.write_table(
            both[1].replace_schema_metadata({b"dualfast": b'{"fingerprint": "%s"}' % fingerprint}), "b.parquet"
        )
        Path("of_f.json").write_text('{"prune_ratio": 0.5, "fingerprint": "f"}')
        command = ["select", "--scores", "a.parquet", "b.parquet", "--out", "keep.npy", "--like", "of_f.json"]
        assert cli.main(command) == exit_code
    assert "'b.parquet' was written for the data g; the list was drawn from f" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "--prune-ratio is missing"),
        (["--prune-ratio", "1"], "--prune-ratio is 1"),
        (["--like", "none.json"], "does not say how a list was drawn"),
        (["--like", "empty.json"], "does not say how a list was drawn"),
        (["--like", "list.json"], "does not say how a list was drawn"),
        (["--like", "named.json"], "published nowhere; give --c-d 5.5 for it"),
        (["--like", "other.json"], "written for the data f; the list was drawn from g"),
        (["--prune-ratio", "0.8", "--exclude", "none.npy"], "exclude is 'none.npy', which is not a file"),
        (["--prune-ratio", "0.8", "--method", "dual:strata=3"], "no option 'strata'"),
        (["--prune-ratio", "0.8", "--method", "dual:c_d=3"], "no option 'c_d'"),
    ],
)
def test_bad_input(scores: dualfast.Scores, flags: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.json").write_text("{}")
    Path("list.json").write_text("[]")
    Path("named.json").write_text('{"prune_ratio": 0.5, "c_d": "cifar10"}')
    Path("other.json").write_text('{"prune_ratio": 0.5, "fingerprint": "g"}')
    assert cli.main(["select", "--scores", "scores.parquet", "--out", "keep.npy", *flags]) == 2
    assert says in capsys.readouterr().err
    assert not Path("keep.npy").exists()


def test_an_argument_is_no_option() -> None:
    with pytest.raises(ValueError, match="mislabel_cut=9"):
        SelectionSpec(prune_ratio=0.5, method="dual", options={"mislabel_cut": 9})


# Sidecars as version 0.1 wrote them: drawn from files, and in memory.
OLD = {
    """{
 "n_samples": 2000,
 "kept": 400,
 "removed": 1600,
 "method": "dual+beta",
 "prune_ratio": 0.8,
 "seed": 7,
 "per_class": false,
 "c_d": 5.5,
 "fingerprint": "f",
 "dualfast": "0.1.0"
}
""": {"seed": 7, "c_d": 5.5},
    """{
 "n_samples": 2000,
 "kept": 400,
 "removed": 1600,
 "prune_ratio": 0.8,
 "method": "ccs",
 "seed": 0,
 "c_d": 3.5,
 "per_class": true,
 "exclude": "out.npy",
 "mislabel_cut": 100,
 "strata": 7,
 "fingerprint": "f",
 "dualfast": "0.1.0"
}
""": {
        "method": "ccs",
        "score": "aum",  # what 0.1 covered, and its sidecars do not say
        "per_class": "shares",  # what True was
        "labels": LABELS,
        "exclude": range(50),
        "mislabel_cut": 100,
        "strata": 7,
    },
}


@pytest.mark.parametrize("text", OLD)
def test_a_list_of_version_0_1_is_drawn_again(scores: dualfast.Scores, text: str) -> None:
    Path("old.json").write_text(text)
    trust = ["--trust"] if "exclude" in text else []
    assert cli.main(["select", "--scores", "scores.parquet", "--out", "keep.npy", "--like", "old.json", *trust]) == 0
    assert (load_keep("keep.npy", fingerprint="f") == select(scores, 0.8, **OLD[text])).all()
    before, now = json.loads(text), json.loads(Path("keep.json").read_text())
    if before["method"] == "ccs":
        del before["c_d"]  # it plays no part in such a draw
        before["score"] = "aum"
    if before["per_class"]:
        before["per_class"] = "shares"
    assert now == before | {name: now[name] for name in ("dualfast", "crc32")}  # 0.1 wrote no checksum


def test_shares_of_0_1_leave_small_classes_out(scores: dualfast.Scores) -> None:
    labels = np.zeros(len(scores), np.int64)
    labels[:3] = 1
    kept = {kind: select(scores, 0.9, labels=labels, per_class=kind) for kind in (True, "shares")}
    assert [int((labels[ids] == 1).sum()) for ids in kept.values()] == [1, 0]


def test_a_spec_is_resolved_once_and_saved_resolved(scores: dualfast.Scores) -> None:
    said: list[str] = []
    spec = SelectionSpec.parse("dual+beta", prune_ratio=0.7, c_d="auto")
    with pytest.raises(AssertionError, match="resolve comes first"):
        spec.sidecar()
    statistics = Statistics.of(scores)
    resolved = spec.resolve(statistics, said.append)
    assert resolved.sidecar()["c_d"] == auto_c_d(scores, 0.7)
    assert said == [f"c_d auto is {resolved.c_d:g} for these scores at prune ratio 0.7"]
    assert resolved.resolve(statistics, said.append) == resolved
    assert len(said) == 1
    named = SelectionSpec(prune_ratio=0.7, c_d="imagenet").resolve(statistics, said.append)
    assert (named.sidecar()["c_d"], len(said)) == (11, 1)
    dual = SelectionSpec(prune_ratio=0.7, c_d="auto", method="dual").resolve(statistics, said.append)
    assert ("c_d" in dual.sidecar(), len(said)) == (False, 1)


def test_the_sidecar_is_read_as_it_was_written(scores: dualfast.Scores) -> None:
    spec = SelectionSpec.parse(
        "dual:keep=low,mislabel_cut=3",
        prune_ratio=np.float32(0.5),
        seed=np.int64(9),
        where="aum > 0",
        exclude="out.npy",
    )
    Path("keep.json").write_text(json.dumps(spec.sidecar() | {"fingerprint": "f", "kept": 9}))
    assert SelectionSpec.read("keep.json", trust=True) == (spec, "f")
    assert SelectionSpec.read("keep.npy", trust=True) == (spec, "f")
    numbers = SelectionSpec(
        prune_ratio=0.5, method="ccs", options={"strata": np.int64(9), "mis_ratio": np.float32(0.5), "score": "aum"},
        mislabel_cut=np.int64(3), exclude=Path("out.npy"), force=Path("in.npy"),
    )  # fmt: skip
    Path("keep.json").write_text(json.dumps(numbers.sidecar()))
    assert SelectionSpec.read("keep.json", trust=True)[0] == numbers
    counts = SelectionSpec(prune_ratio=0.5, per_class={-1: 1, 0: 3, 7: 2})
    Path("keep.json").write_text(json.dumps(counts.resolve(Statistics.of(scores)).sidecar()))
    assert SelectionSpec.read("keep.json")[0].per_class == {-1: 1, 0: 3, 7: 2}
    Path("keep.json").write_text(json.dumps(SelectionSpec(prune_ratio=0.5, method="dual", per_class=True).sidecar()))
    assert SelectionSpec.read("keep.json")[0].per_class is True  # written by hand, and not by version 0.1
    for name, value in (("where", "aum > 0"), ("exclude", "out.npy"), ("force", [3])):
        Path("keep.json").write_text(json.dumps({"prune_ratio": 0.5, name: value}))
        with pytest.raises(ValueError, match=f"restricts the selection by {name} "):
            SelectionSpec.read("keep.json")
    for text, words in (
        ('{"method": "dual"}', "it has no prune_ratio"),
        ('{"prune_ratio": 0.5, "per_class": {"3": 0.5}}', r"per_class\[3\] is 0\.5; give an integer"),
        ('{"prune_ratio": ', r"keep\.json"),
    ):
        Path("keep.json").write_text(text)
        with pytest.raises(ValueError, match=f"does not say how a list was drawn: .*{words}"):
            SelectionSpec.read("keep.json")
    Path("keep.json").write_text('{"prune_ratio": 0.5, "where": 3}')
    with pytest.raises(ValueError, match="does not say how a list was drawn: where is 3"):
        SelectionSpec.read("keep.json", trust=True)


def test_ccs_of_0_1_covered_aum(tmp_path: Path) -> None:
    """Its sidecars leave the score out, whose default was aum."""
    spec = SelectionSpec.parse("ccs:mis_ratio=0.3", prune_ratio=0.5)
    assert (spec.configured.columns, spec.sidecar()["score"]) == (("aum_prob",), "aum_prob")
    old = {name: value for name, value in spec.sidecar().items() if name != "score"}
    for saved, column in ((old, "aum"), (spec.sidecar(), "aum_prob"), (spec.sidecar() | {"score": "dual"}, "dual")):
        (tmp_path / "keep.json").write_text(json.dumps(saved))
        assert SelectionSpec.read(tmp_path / "keep.json")[0].configured.columns == (column,)


def test_skip_bad_of_0_1_is_skip_unscored(scores: dualfast.Scores) -> None:
    dual = np.array(scores.dual)
    dual[3] = np.nan
    damaged = dualfast.Scores(dual=dual, mean=scores.mean)
    with pytest.warns(DeprecationWarning, match="skip_unscored"):
        kept = select(damaged, 0.1, skip_bad=True)
    assert (kept == select(damaged, 0.1, skip_unscored=True)).all()
    np.save("dual.npy", dual)
    command = ["select", "--scores", "dual.npy", "--method", "dual", "--prune-ratio", "0.1", "--out"]
    assert cli.main([*command, "old.npy", "--skip-bad"]) == 0
    assert cli.main([*command, "new.npy", "--skip-unscored"]) == 0
    assert Path("old.npy").read_bytes() == Path("new.npy").read_bytes()
    about = Path("new.json").read_text()
    assert '"skip_unscored": true' in about
    Path("new.json").write_text(about.replace("skip_unscored", "skip_bad"))
    assert SelectionSpec.read("new.json")[0].skip_unscored


def test_which_specs_can_stream() -> None:
    plain = {"prune_ratio": 0.5}
    for spec in (SelectionSpec(**plain), SelectionSpec(**plain, method="random"), SelectionSpec(**plain, method="aum")):
        assert spec.can_stream
    restricted = (
        {"per_class": True},
        {"where": "aum > 0"},
        {"exclude": "a.npy"},
        {"force": [1]},
        {"skip_unscored": True},
    )
    for more in (*restricted, {"mislabel_cut": 1}, {"method": "ccs"}, {"method": "stratified"}):
        assert not SelectionSpec(**plain, **more).can_stream


def test_warnings_point_at_the_caller(scores: dualfast.Scores) -> None:
    for says, draw in (
        ("c_d auto is", lambda: select(scores, 0.7, c_d="auto")),
        ("c_d auto is", lambda: select_files("scores.parquet", 0.7, "keep.npy", c_d="auto")),
        ("only 0 of 2000", lambda: select(dualfast.Scores(dual=np.zeros(N), mean=scores.mean), 0.5)),
        (
            "falls short",
            lambda: select(scores, 0.5, labels=LABELS, per_class=True, exclude=np.flatnonzero(LABELS == 1)),
        ),
    ):
        with pytest.warns(UserWarning, match=says) as caught:
            draw()
        assert [warning.filename for warning in caught] == [__file__]


def test_every_argument_that_restricts_is_drawn_in_memory() -> None:
    """What is not of the draw itself restricts: a new flag is never passed over by the files engine."""
    given = {"per_class": True, "where": "aum > 0", "exclude": [3], "force": np.array([3]), "mislabel_cut": 2}
    given |= {"skip_unscored": True}
    names = {field.name for field in fields(SelectionSpec)} - {"prune_ratio", "method", "seed", "c_d", "options"}
    assert names == given.keys()
    assert SelectionSpec(prune_ratio=0.5, seed=3, c_d=2).can_stream
    for name, value in given.items():
        spec = SelectionSpec(prune_ratio=0.5, **{name: value})
        assert (spec.restricting, spec.can_stream) == ({name}, False)


def test_a_list_never_takes_the_place_of_what_it_is_drawn_from(scores: dualfast.Scores) -> None:
    for name in ("dual", "mean"):
        np.save(f"{name}.npy", getattr(scores, name))
    np.save("seen.npy", np.arange(9))
    for out, options in (("dual.npy", {}), ("./mean.npy", {}), ("seen.npy", {"exclude": "seen.npy"})):
        before = Path(out).read_bytes()
        with pytest.raises(
            ValueError, match=r"out is .*, which would replace .*, one of its inputs; give another name"
        ):
            write_list(SelectionSpec(prune_ratio=0.5, **options), ("dual.npy", "mean.npy"), out)
        assert Path(out).read_bytes() == before

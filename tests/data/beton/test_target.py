"""write onto a .beton that is there: it stays, is refused, or is replaced on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import class_folders, jpeg, parquet_file, zip_file

import dualfast
from dualfast import cli
from dualfast.data import beton, sources
from dualfast.data.beton import checksums

pytest.importorskip("pyarrow")
pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(6) % 2


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "x.beton"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_size": 16}, r"written with no max_size, and this asks for max_size=16"),
        ({"jpeg_quality": 50, "mode": "jpeg"}, r"with mode=auto, jpeg_quality=90, and this asks for mode=jpeg, jpeg_"),
        ({"background": "black"}, r"background=#ffffff, and this asks for background=#000000; rewrite=True replaces"),
        ({"page_size": 1 << 22}, r"written with no page_size, and this asks for page_size=4194304"),
    ],
)
def test_other_options_are_refused(tmp_path: Path, out: Path, options: dict[str, Any], said: str) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    beton.write(photos, out, background="#fff", progress=False)
    before = out.read_bytes()
    with pytest.raises(ValueError, match=rf"x\.beton was .*{said}"):
        beton.write(photos, out, **options, progress=False)
    assert out.read_bytes() == before
    beton.write(photos, out, **options, rewrite=True, progress=False)
    assert beton.write(photos, out, **options, progress=False).already_there


def test_the_command_names_its_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    words = ["write", str(photos), str(tmp_path / "x.beton")]
    assert cli.main([*words, "--max-size", "16"]) == 0
    capsys.readouterr()
    assert cli.main(words) == 2
    assert "with --max-size 16, and this asks for no --max-size; --rewrite replaces it" in capsys.readouterr().err
    assert cli.main([*words, "--max-size", "16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already_there"] is True


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ((PIXELS[:4], LABELS[:4]), "other data than a pair of arrays holds now: 6 images, and these are 4"),
        ((PIXELS ^ 1, LABELS), "now: other images or labels; rewrite=True replaces it, another path keeps it"),
        ((PIXELS, LABELS[::-1]), "now: other images or labels"),
        ((PIXELS[:, :, :4], LABELS), "now: other images or labels"),
    ],
)
def test_other_arrays_are_refused(out: Path, other: Any, said: str) -> None:
    beton.write((PIXELS, LABELS), out, progress=False)
    with pytest.raises(ValueError, match=said):
        beton.write(other, out, progress=False)
    assert beton.write((PIXELS.copy(), LABELS.copy()), out, progress=False).already_there
    assert np.array_equal(beton.open_beton(out).image(3), PIXELS[3])
    assert not beton.write(other, out, rewrite=True, progress=False).already_there


def test_another_split_or_column_of_the_same_file_is_refused(tmp_path: Path, out: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    beton.write(f"{tmp_path}/a.npz:train", out, progress=False)
    with pytest.raises(ValueError, match=r"the part train of these data, and .*a\.npz:test is the part test"):
        beton.write(f"{tmp_path}/a.npz:test", out, progress=False)
    columns = {"image": [jpeg(0), jpeg(1)], "label": ["a", "b"], "turned": ["b", "a"], "named": ["x", "y"]}
    table = parquet_file(tmp_path / "t.parquet", columns)
    beton.write(table, tmp_path / "t.beton", progress=False)
    for options, said in (
        ({"label_column": "turned"}, "has other labels than .* gives now: the first at row 0 of"),
        ({"label_column": "named"}, "was made of other classes than .* holds now"),
        ({"image_column": "image"}, "was written with no image_column, and this asks for image_column=image"),
    ):
        with pytest.raises(ValueError, match=rf"t\.beton {said}"):
            beton.write(table, tmp_path / "t.beton", **options, progress=False)


def test_what_is_there_is_written_again_where_it_is_not_whole(tmp_path: Path, out: Path) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    beton.write(photos, out, progress=False)
    checksums.path_of(out).unlink()
    assert not beton.write(photos, out, progress=False).already_there
    assert checksums.path_of(out).exists()


def test_notes_are_said_again(tmp_path: Path, out: Path) -> None:
    photos = class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    (photos / "a" / "bad.jpg").write_bytes(b"no image")
    (photos / "a" / "x.heic").write_bytes(b"x")
    for already in (False, True):
        with pytest.warns(UserWarning, match=r"1 unreadable, left out: .*bad\.jpg") as said:
            assert beton.write(photos, out, skip_bad=True, progress=False).already_there == already
        assert any("left out: 1 .heic" in str(one.message) for one in said)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.jpg"), pytest.warns(UserWarning, match="left out"):
        beton.write(photos, out, progress=False)


def test_a_compacted_file_is_not_the_whole(tmp_path: Path, out: Path) -> None:
    beton.write((PIXELS, LABELS), out, progress=False)
    dualfast.compact(out, [0, 1], tmp_path / "small.beton", progress=False)
    with pytest.raises(ValueError, match=r"small\.beton does not tell which files it was made of"):
        beton.write((PIXELS, LABELS), tmp_path / "small.beton", progress=False)


def test_a_source_remembers_what_it_was_opened_from(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "photos", {"a": 2, "b": 2})
    zip_file(tmp_path / "z.zip", {"a/0.jpg": jpeg(0), "b/0.jpg": jpeg(1)})
    monkeypatch.chdir(tmp_path)
    beton.write(["photos", "z.zip"], out, progress=False)
    made_from = beton.open_beton(out).sidecar["made_from"]
    assert made_from["paths"] == [str(tmp_path / "photos"), str(tmp_path / "z.zip")]
    assert sources.open_source((PIXELS, LABELS)).paths is None

"""Where training and test images are."""

from __future__ import annotations

from pathlib import Path

from dualfast.data import sources


def test_splits_find_train_and_test(tmp_path: Path) -> None:
    assert sources.splits("digits") == ("digits:train", "digits:test")
    assert sources.splits(str(tmp_path)) == (str(tmp_path), None)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert sources.splits(str(tmp_path)) == (str(tmp_path / "train"), str(tmp_path / "val"))
    assert sources.splits(str(tmp_path), "x.npz") == (str(tmp_path), "x.npz")
    assert sources.splits("digits", "digits") == ("digits:train", "digits:test")
    assert sources.splits("a.beton", "c.tar.gz") == ("a.beton", "c.tar.gz:test")
    assert sources.splits("c.tgz", "c.tgz:train") == ("c.tgz", "c.tgz:train")
    other = tmp_path / "other"
    other.mkdir()
    for name in ("train", "test"):
        (other / f"{name}.parquet").touch()
    assert sources.splits(str(other)) == (str(other / "train.parquet"), str(other / "test.parquet"))

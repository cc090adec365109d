"""dualfast.storage.files: what is under a final name is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualfast.storage.files import atomic, what_is, write_text


def test_atomic_leaves_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def fail() -> None:
        with atomic(path) as part:
            part.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder .*nowhere' does not exist"), atomic(tmp_path / "nowhere" / "x"):
        pass


def test_atomic_names_what_cannot_be_a_file_before_the_work(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it is a folder"), (tmp_path / "caf\udce9", "it is not UTF-8")):
        with pytest.raises(ValueError, match=f"cannot be written: {why}; give"), atomic(path):
            pytest.fail("the work began")


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PAR1", "a Parquet file"),
        (b"\x93NUMPY\x01", "an .npy file"),
        (b"\x80\x04\x95", "a pickle, which is never loaded"),
        (b"id,el2n\r\n", "text"),
        (b"\x00\x01", None),
        (b"", None),
    ],
)
def test_the_first_bytes_say_what_a_file_is(start: bytes, what: str | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(start)
    assert what_is(tmp_path / "file") == what
    assert what_is(tmp_path / "missing") is None

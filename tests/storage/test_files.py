"""dualfast.storage.files: what is under a final name is complete."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dualfast.storage.files import atomic, open_own, open_regular, what_is, write_text


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


@pytest.mark.parametrize("mode", ["rb+", "ab+"])
def test_what_was_put_under_a_foreseeable_name_is_not_written_to(mode: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", tmp_path / "link")
    os.link(tmp_path / "victim", tmp_path / "second")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, what in {"link": "a link", "second": "a second name", "pipe": "not a reg", "socket": "not a"}.items():
            with pytest.raises(ValueError, match=rf"{name}' is {what}.*delete it"):
                open_own(tmp_path / name, mode)
    with open_own(tmp_path / "new", mode) as file:
        file.write(b"mine")
    assert (tmp_path / "new").read_bytes() == b"mine"
    assert (tmp_path / "victim").read_text() == "precious"


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="not a regular file"):
            open_regular(path)
        assert what_is(path) is None
    os.mkfifo(tmp_path / ".x.abcdefgh.part")
    write_text(tmp_path / "x", "text")
    assert (tmp_path / "x").read_text() == "text"

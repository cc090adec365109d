"""A write that was stopped resumes when the same file is requested again, to the same bytes."""

from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualfast import compact
from dualfast.data import beton, sources
from dualfast.data.beton import checksums
from dualfast.data.beton.encode import Encoder
from dualfast.data.names import Names
from dualfast.storage import files
from dualfast.storage.resumable import Partial

write_module = importlib.import_module("dualfast.data.beton.write")  # the package has the function of that name

pytest.importorskip("PIL")

N, CHUNK = 300, 8  # small images of 300 bytes, and some of a megabyte, so that pages have gaps
AHEAD = 6  # chunks that may be encoded and not yet written when a write stops
LABELS = np.arange(N) % 3


def folder_of(root: Path, bad: tuple[int, ...] = ()) -> Path:
    """Raw images as .ppm, in one folder per class; those in `bad` are not images."""
    for i in range(N):
        side = 600 if i % 60 == 30 else 10
        path = root / str(i % 3) / f"{i:03}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
        path.write_bytes(b"not an image" if i in bad else b"P6 %d %d 255\n" % (side, side) + pixels.tobytes())
    return root


class Encodings:
    """Counts the encoded images, and stops write() with an exception at image number `stop`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.stop = 0, -1
        encode = Encoder.__call__

        def counted(encoder: Any, payload: Any) -> Any:
            self.count += 1
            if self.count == self.stop:
                raise KeyboardInterrupt
            return encode(encoder, payload)

        monkeypatch.setattr(Encoder, "__call__", counted)
        monkeypatch.setattr(write_module, "CHUNK", CHUNK)

    def of(self, run: Callable[[], Any], stop: int = -1) -> int:
        self.count, self.stop = 0, stop
        if stop > 0:
            with pytest.raises(KeyboardInterrupt):
                run()
        else:
            run()
        return self.count


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> Encodings:
    return Encodings(monkeypatch)


def write(source: Any, path: Path, **options: Any) -> beton.Written:
    return beton.write(source, path, mode="raw", num_workers=1, progress=False, **options)


def steps(path: Path) -> int:
    return len(Path(f"{path}.partial.steps").read_bytes().splitlines()) - 1


def test_nothing_that_was_finished_is_encoded_again(tmp_path: Path, encodings: Encodings) -> None:
    source, out = folder_of(tmp_path / "set"), tmp_path / "out" / "set.beton"
    out.parent.mkdir()
    write(source, tmp_path / "wanted.beton")
    finished = 0
    for stop in (90, 70, 100):
        encodings.of(lambda: write(source, out), stop)
        assert not out.exists()
        assert steps(out) >= finished + stop // CHUNK - AHEAD
        finished = steps(out)
    assert encodings.of(lambda: write(source, out)) == N - finished * CHUNK
    for end in ("", ".crc"):
        assert Path(f"{out}{end}").read_bytes() == Path(f"{tmp_path / 'wanted.beton'}{end}").read_bytes()
    assert sorted(os.listdir(out.parent)) == [f"set.beton{end}" for end in ("", ".crc", ".json", ".names.parquet")]


@pytest.mark.parametrize("harm", ["journal", "zeros", "garbage", "data", "cut", "source", "later", "option"])
def test_steps_that_no_longer_agree_are_written_again(tmp_path: Path, encodings: Encodings, harm: str) -> None:
    source, out = folder_of(tmp_path / "set"), tmp_path / "set.beton"
    encodings.of(lambda: write(source, out), 280)
    finished = steps(out)
    assert finished > 20
    partial, journal = Path(f"{out}.partial"), Path(f"{out}.partial.steps")
    lines = journal.read_bytes().splitlines(keepends=True)
    again, options = 1, {}  # chunks that are written again, besides those that were not finished
    if harm == "journal":
        journal.write_bytes(b"".join(lines)[:-5])
    elif harm == "zeros":
        journal.write_bytes(b"".join(lines[:10]) + bytes(len(lines[10])) + b"\n" + b"".join(lines[11:]))
        again = finished - 9
    elif harm == "garbage":
        with partial.open("ab") as file:
            file.write(b"x" * 5_000_000)
        again = 0
    elif harm == "data":
        with partial.open("r+b") as file:
            file.seek(partial.stat().st_size - 10)
            file.write(b"123")
    elif harm == "cut":
        os.truncate(partial, partial.stat().st_size - 1)
    elif harm == "source":
        (source / "0" / "003.ppm").write_bytes((source / "0" / "006.ppm").read_bytes())
        again = finished
    elif harm == "later":  # the 81st image, in the eleventh step
        (source / "0" / "240.ppm").write_bytes((source / "0" / "243.ppm").read_bytes())
        again = finished - 10
    elif harm == "option":
        again, options = finished, {"max_size": 9}
    made = encodings.of(lambda: write(source, out, **options))
    expected = N - (finished - again) * CHUNK
    assert expected <= made <= expected + AHEAD * CHUNK
    assert not partial.exists()
    assert not journal.exists()
    write(source, tmp_path / "wanted.beton", **options)
    assert out.read_bytes() == (tmp_path / "wanted.beton").read_bytes()


def test_skipped_images_are_skipped_again(tmp_path: Path, encodings: Encodings) -> None:
    source, out = folder_of(tmp_path / "set", bad=(3, 100)), tmp_path / "set.beton"
    wanted = write(source, tmp_path / "wanted.beton", skip_bad=True)
    with pytest.raises(ValueError, match=r"cannot read .*003\.ppm"):  # in the first chunk: nothing is finished
        write(source, out)
    assert not list(tmp_path.glob("*.partial*"))
    encodings.of(lambda: write(source, out, skip_bad=True), 280)
    with pytest.raises(ValueError, match=r"cannot read .*003\.ppm"):
        write(source, out)
    made = write(source, out, skip_bad=True)
    assert made.skipped == wanted.skipped
    assert len(made.skipped) == 2
    assert out.read_bytes() == wanted.path.read_bytes()


def test_a_page_that_had_to_grow_stays_so(tmp_path: Path, encodings: Encodings) -> None:
    images = [np.full((1200, 1200, 3) if i == 40 else (5, 5, 3), i % 256, np.uint8) for i in range(N)]
    source = sources.open_source((np.zeros((N, 5, 5), np.uint8), LABELS))
    source = sources.Source(**{**vars(source), "items": lambda: iter(images)})
    out = tmp_path / "set.beton"
    encodings.of(lambda: write(source, out), 300)
    finished = steps(out)
    assert finished > 2
    assert encodings.of(lambda: write(source, out)) == N - finished * CHUNK
    assert beton.verify(out, full=True, progress=False).page_size == 1 << 23
    write(source, tmp_path / "wanted.beton")
    assert out.read_bytes() == (tmp_path / "wanted.beton").read_bytes()


def test_pages_that_need_not_grow_any_more(tmp_path: Path, encodings: Encodings) -> None:
    source, out = folder_of(tmp_path / "set"), tmp_path / "set.beton"
    first = source / "0" / "000.ppm"
    small = first.read_bytes()
    first.write_bytes(b"P6 1200 1200 255\n" + bytes(1200 * 1200 * 3))
    encodings.of(lambda: write(source, out), 280)
    assert steps(out) > 2
    first.write_bytes(small)
    write(source, out)
    write(source, tmp_path / "wanted.beton")
    assert out.read_bytes() == (tmp_path / "wanted.beton").read_bytes()


def test_two_that_make_the_same_file(tmp_path: Path) -> None:
    out = tmp_path / "set.beton"
    code = (
        "import sys; from dualfast.storage.resumable import Partial\n"
        "with Partial(sys.argv[1], 'x'): print('has it', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(ValueError, match="is being written by another process"):
            write((np.zeros((N, 5, 5), np.uint8), LABELS), out)
        other.communicate()
    write((np.zeros((N, 5, 5), np.uint8), LABELS), out)


def test_a_file_finished_while_one_waits_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, out = Partial(tmp_path / "a", "x"), tmp_path / "a"
    first.file.write(b"whole")
    real, calls = fcntl.flock, 0

    def finishes(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            with first:
                first.finish()
        real(*arguments)

    monkeypatch.setattr(fcntl, "flock", finishes)
    with Partial(out, "x") as second:
        second.file.write(b"other")
        second.step("1")
    assert out.read_bytes() == b"whole"
    assert calls == 2


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the folder '.*nowhere' does not exist"):
        write((np.zeros((N, 5, 5), np.uint8), LABELS), tmp_path / "nowhere" / "set.beton")


@pytest.mark.parametrize("how", ["write", "compact"])
@pytest.mark.parametrize(
    "stop",
    ["before the sidecar", "before the names", "before its name", "before the checksums", "before the sidecars' names"],
)
def test_sidecars_are_those_of_the_file_whenever_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stop: str
) -> None:
    rng = np.random.default_rng(0)
    sets = {}
    for names in ("ab", "xy"):
        pixels = rng.integers(0, 256, (10, 5, 5), dtype=np.uint8)
        opened = sources.open_source((pixels, np.arange(10) % 2))
        sets[names] = sources.Source(**{**vars(opened), "class_names": tuple(names)})
        write(sets[names], tmp_path / f"{names}.beton")
    out = tmp_path / "out.beton"

    def make(names: str) -> None:
        if how == "write":
            write(sets[names], out, rewrite=True)
        else:
            compact(tmp_path / f"{names}.beton", range(6), out, progress=False)

    def stops(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    make("ab")
    old = out.read_bytes()
    place: dict[str, tuple[Any, str]] = {
        "before the sidecar": (files, "write_text"),
        "before the names": (Names, "save"),
        "before its name": (Partial, "finish"),
        "before the checksums": (checksums, "save"),
        "before the sidecars' names": (files, "settle"),
    }
    monkeypatch.setattr(*place[stop], stops)
    with pytest.raises(KeyboardInterrupt):
        make("xy")
    monkeypatch.undo()
    class_names = beton.verify(out, progress=False).class_names  # PATH.crc, too, if there is one
    assert beton.open_beton(out).sums is not None
    assert beton.open_beton(out).names is not None
    assert class_names == (("a", "b") if out.read_bytes() == old else ("x", "y"))
    make("xy")
    assert beton.open_beton(out).class_names == ("x", "y")


@pytest.mark.parametrize("name", ["x.partial", "x.partial.steps"])
def test_a_link_that_waits_for_the_unfinished_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    os.symlink("victim", tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}' is a link"):
        Partial(tmp_path / "x", "request")
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["victim", name]

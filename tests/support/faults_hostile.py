"""Faults of files that somebody else made, to do harm or by mistake, and of files that change while they are read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from faults import N, case, copied, opened, refused
from hostile import POSTSCRIPT, progressive_jpeg

# ---- images ---------------------------------------------------------------------------------------------------------


def _written(odd: bytes | None) -> str:
    """The error of writing a folder of class folders with one odd file, a pipe for None."""
    from PIL import Image

    from dualfast import write

    for label in "ab":
        Path("photos", label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(f"photos/{label}/0.jpg")
    if odd is None:
        os.mkfifo("photos/a/odd.jpg")
    else:
        Path("photos/a/odd.jpg").write_bytes(odd)
    return refused(lambda: write("photos", "made.beton", progress=False), within=20)


@case("hostile", "PostScript that is called .jpg", "torchvision 0.28, ImageFolder: Pillow starts Ghostscript with it")
def _() -> str:
    return _written(POSTSCRIPT)


@case("hostile", "a JPEG of 44 KB with hundreds of scans", "torchvision 0.28, ImageFolder: decodes every scan")
def _() -> str:
    return _written(progressive_jpeg(4000, 400))


@case("hostile", "a pipe among the images", "torchvision 0.28, ImageFolder: no end within 100 s")
def _() -> str:
    return _written(None)


def _tar(damaged: int | None = None) -> bytes:
    """A tar file of six images in class folders; damaged: the number of one whose header is."""
    from PIL import Image

    image, out, starts = io.BytesIO(), io.BytesIO(), []
    Image.new("RGB", (8, 8)).save(image, "PNG")
    with tarfile.open(fileobj=out, mode="w") as tar:
        for at in range(6):
            starts.append(out.tell())
            info = tarfile.TarInfo(f"{'ab'[at % 2]}/{at}.png")
            info.size = len(image.getvalue())
            tar.addfile(info, io.BytesIO(image.getvalue()))
    data = bytearray(out.getvalue())
    if damaged is not None:
        data[starts[damaged]] ^= 1
    return bytes(data)


@case("hostile", "a tar file with a damaged header", "Python's tarfile, and what reads with it: taken for the end")
def _() -> str:
    from dualfast import write

    Path("photos.tar").write_bytes(_tar(damaged=3))
    return refused(lambda: write("photos.tar", "made.beton", progress=False))


@case("hostile", "two tar files joined with cat", "Python's tarfile, and what reads with it: the first alone")
def _() -> str:
    from dualfast import write

    Path("photos.tar").write_bytes(2 * _tar())
    return refused(lambda: write("photos.tar", "made.beton", progress=False))


# ---- .beton files ---------------------------------------------------------------------------------------------------


def _changed(column: str, value: int) -> str:
    """The error of opening a .beton without checksums in which the row of sample 3 has another number."""
    from dualfast.data.beton import Beton, checksums

    tables = Beton(copied("changed.beton"))
    checksums.forget("changed.beton")
    rows, at = tables.metadata.copy(), 24 + 2 * 1041
    rows["f0"][column][3] = value
    data = bytearray(Path("changed.beton").read_bytes())
    data[at : at + rows.nbytes] = rows.tobytes()
    Path("changed.beton").write_bytes(data)
    return refused(lambda: opened("changed.beton"))


@case("hostile", "a pointer to beyond the file", "an epoch without an error")
def _() -> str:
    return _changed("data_ptr", 1 << 45)


@case("hostile", "an image wider than its bytes", "TypeError, as its simplest decoder takes images of one size alone")
def _() -> str:
    return _changed("width", 60_000)


@case("hostile", "a header that claims 2^36 samples", "MemoryError: asks for 1.5 TiB")
def _() -> str:
    data = bytearray(Path("set.beton").read_bytes())
    data[8:16] = (1 << 36).to_bytes(8, "little")
    Path("large.beton").write_bytes(data)
    return refused(lambda: opened("large.beton"))


CUT_SHORT = """
import os
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.transforms import ToTensor
from dualfast.loading.loader import Loader

operations = {"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
loader = Loader("open.beton", 8, pipelines=operations, num_workers=1)
list(loader)
loader.beton.check_unchanged = lambda: os.truncate("open.beton", 4096)  # after the check, before the reading
try:
    list(loader)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@case("hostile", "a file that is cut short while FFCV's operations read it through a memory map", "no end within 100 s")
def _() -> str:
    copied("open.beton")
    done = subprocess.run([sys.executable, "-c", CUT_SHORT], capture_output=True, text=True)
    assert (done.returncode, done.stdout[:7]) == (0, "OSError"), done.stderr
    return done.stdout.strip()


# ---- what lies beside them ------------------------------------------------------------------------------------------


@case("hostile", "a condition in the .json of somebody else's list")
def _() -> str:
    from dualfast import Scores, cli

    Scores(dual=np.arange(N) / N, mean=np.full(N, 0.5)).save("scores.parquet")
    about = {"n_samples": N, "method": "dual", "prune_ratio": 0.5, "where": "dual > 0"}
    Path("list.json").write_text(json.dumps(about))
    given = ["select", "--scores", "scores.parquet", "--like", "list.json", "--out", "keep.npy"]
    assert (cli.main(given), Path("keep.npy").exists()) == (2, False)
    assert cli.main([*given, "--trust"]) == 0
    return "shown, and an error without --trust"


@case("hostile", "a pipe in the place of a score table")
def _() -> str:
    from dualfast import Scores

    os.mkfifo("scores.parquet")
    return refused(lambda: Scores.load("scores.parquet"))


@case("hostile", "names of the samples that unpack ten-thousandfold")
def _() -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dualfast import write
    from dualfast.data.beton import Beton

    write((np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "made.beton", progress=False)
    table = pq.read_table("made.beton.names.parquet")
    one = pa.DictionaryArray.from_arrays(pa.array([0] * 4, pa.int32()), pa.array(["a" * (32 << 20)]))
    pq.write_table(table.set_column(1, "name", one), "made.beton.names.parquet", compression="zstd", store_schema=False)
    return refused(lambda: Beton("made.beton").names)


@case("hostile", "a checkpoint that unpacks a thousandfold")
def _() -> str:
    from dualfast.errors import DamagedCheckpoint
    from dualfast.training import checkpoint_files

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(32 << 20))
    end = checkpoint_files.MARK + zlib.crc32(packed.getvalue()).to_bytes(4, "little")
    Path("0000000001.pt").write_bytes(packed.getvalue() + end)
    return refused(lambda: checkpoint_files.read(Path("0000000001.pt")), (DamagedCheckpoint,))


@case("hostile", "aliases in config.yaml that grow without end")
def _() -> str:
    from dualfast.runs.rundir import RunDir

    run = RunDir("run", {"epochs": 3})
    levels = [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9) if at else 'x'}]\n" for at in range(9)]
    run.config_path.write_text("".join(levels) + "asked: {epochs: 3}\n")
    return refused(RunDir("run").requested).partition(" (")[0]


@case("hostile", "a link under the name of the unfinished file")
def _() -> str:
    from dualfast import write

    Path("precious").write_text("mine")
    os.symlink("precious", "made.beton.partial")
    error = refused(lambda: write((np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]), "made.beton", progress=False))
    assert Path("precious").read_text() == "mine"
    return error

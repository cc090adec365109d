"""FFCV's own operations under our loader, and its import without side effects."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import MEAN, STD, collect, normalised

from dualfast.loading.loader import Loader

ffcv_loader = pytest.importorskip("ffcv.loader", reason="needs ffcv", exc_type=ImportError)


def test_importing_leaves_thread_counts_alone() -> None:
    code = (
        "import torch, numba; torch.set_num_threads(3); n = numba.get_num_threads()\n"
        "import dualfast.loading.ffcv_graph, numba.typed\n"
        "assert torch.get_num_threads() == 3 and numba.get_num_threads() == n\n"
        "assert numba.typed.Dict.__module__ == 'numba.typed.typeddict'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_compile_threads_are_put_back() -> None:
    from ffcv.pipeline import Compiler

    from dualfast.loading.ffcv_graph import compile_threads

    before = Compiler.num_threads
    with contextlib.suppress(KeyError), compile_threads(before + 3):
        assert Compiler.num_threads == before + 3
        raise KeyError
    assert Compiler.num_threads == before


def test_a_program_written_for_ffcv_runs(small: Path, images: np.ndarray) -> None:
    """FFCV's operations, compiled; one fixture of work, since each new FFCV pipeline costs seconds."""
    from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
    from ffcv.loader import OrderOption
    from ffcv.transforms import NormalizeImage, Squeeze, ToTensor, ToTorchImage

    mean, std = np.array(MEAN) * 255, np.array(STD) * 255
    pipelines = {
        "image": [SimpleRGBImageDecoder(), NormalizeImage(mean, std, np.float32), ToTensor(), ToTorchImage()],
        "label": [IntDecoder(), ToTensor(), Squeeze()],
    }
    loader = Loader(
        str(small),
        batch_size=32,
        num_workers=2,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines=pipelines,
        seed=1,
    )
    assert isinstance(loader, ffcv_loader.Loader)
    assert len(loader) == 6
    kept = list(loader)
    for pictures, labels, index in kept:
        torch.testing.assert_close(pictures, normalised(images[index.numpy()]), rtol=1e-5, atol=1e-5)
        assert (labels == index % 10).all()
    start = time.monotonic()
    loader.set_indices(range(64))
    got = collect(loader)
    assert time.monotonic() - start < 1  # nothing was compiled again
    assert sorted(got[2].tolist()) == list(range(64))
    torch.testing.assert_close(got[0], normalised(images[got[2].numpy()]), rtol=1e-5, atol=1e-5)
    loader.close()


CUT_SHORT = """
import os, sys
from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
from ffcv.transforms import ToTensor
from dualfast.loading.loader import Loader

operations = {"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
pipelines = None if sys.argv[2] == "default" else operations
loader = Loader(sys.argv[1], 8, pipelines=pipelines, num_workers=1)
list(loader)
loader.beton.check_unchanged = lambda: os.truncate(sys.argv[1], 4096)  # after the check, before the reading
try:
    list(loader)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("kind", "error"), [("ffcv", "OSError"), ("default", "UnreadableData")])
def test_a_file_cut_short_after_the_check_is_an_error(small: Path, tmp_path: Path, kind: str, error: str) -> None:
    path = tmp_path / "cut.beton"
    path.write_bytes(small.read_bytes())
    command = [sys.executable, "-c", CUT_SHORT, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, (done.returncode, done.stderr)  # -7: SIGBUS
    assert done.stdout.startswith(error), done.stdout
    assert str(path) in done.stdout

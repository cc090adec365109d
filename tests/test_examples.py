"""The examples run and print the expected results."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")


@pytest.mark.parametrize(
    ("name", "package", "launcher"),
    [
        ("ddp.py", "torch", TORCHRUN),
        ("accelerate_loop.py", "accelerate", TORCHRUN),
        ("lightning_module.py", "lightning", TORCHRUN),
        ("transformers_trainer.py", "transformers", TORCHRUN),
        ("ray_train.py", "ray", ()),
    ],
)
def test_an_example_scores_every_sample_each_epoch(
    name: str, package: str, launcher: tuple[str, ...], tmp_path: Path
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "RAY_COLOR_PREFIX": "0"}
    command = [sys.executable, *launcher, str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    # 501 samples on two ranks: the sampler repeats one to fill the last batch; repeats count once.
    assert done.stdout.count("every sample was scored 6 to 6 times; kept 251") == 1, done.stdout


def test_an_ffcv_script_runs_with_either_import(tmp_path: Path) -> None:
    pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    from dualfast import write

    rng = np.random.default_rng(0)
    for name, n in (("train", 210), ("test", 50)):  # red or blue: easily learned
        labels = rng.integers(0, 2, n)
        images = rng.integers(0, 100, (n, 32, 32, 3), dtype=np.uint8)
        images[np.arange(n), :, :, 2 * labels] += 100
        write((images, labels), tmp_path / f"{name}.beton", progress=False)
    program = (EXAMPLES / "ffcv_cifar.py").read_text(encoding="utf-8")
    dualfast_import, ffcv_import = (
        "from dualfast import Loader  # was: from ffcv.loader import Loader\n",
        "from ffcv.loader import Loader\n",
    )
    assert dualfast_import in program
    (tmp_path / "dualfast_import.py").write_text(program)
    (tmp_path / "ffcv_import.py").write_text(program.replace(dualfast_import, ffcv_import))
    arguments = "--train train.beton --test test.beton --classes 2 --epochs 3 --batch-size 50 --width 4 --workers 1"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = [
        subprocess.Popen(
            [sys.executable, f"{name}_import.py", *arguments.split()],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("dualfast", "ffcv")
    ]
    for process in running:
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert out == "50 of 50 test images are right\n"


@pytest.mark.parametrize(("name", "said"), [("prune", "0.9  dual+beta"), ("wrong_labels", "flipped labels are among")])
def test_a_notebook_runs(name: str, said: str) -> None:
    pytest.importorskip("ipykernel")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:  # the same cells, in less time
        cell.source = cell.source.replace("EPOCHS = 15", "EPOCHS = 10").replace("range(3)", "range(2)")
    nbclient.NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(said in output.get("text", "") for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)

"""The examples run on two processes and say what they should."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

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
    # 501 samples on two ranks: the sampler repeats some, which count once.
    assert done.stdout.count("every sample was scored 6 to 6 times; kept 251") == 1, done.stdout

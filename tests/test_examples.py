"""The examples run on two processes and say what they should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_a_loop_of_ones_own_with_distributed_sampler(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(EXAMPLES / "ddp.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    # 501 samples on two ranks: DistributedSampler repeats one, which counts once.
    assert done.stdout.strip() == "every sample was scored 6 to 6 times; kept 251"

"""benchmarks/bench_step_paper.py: what it reads from compiled code."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_step_paper")


@pytest.mark.parametrize(
    ("size", "dtype", "gpu", "reads"),
    [((256, 10), "fp32", "H200", 1), ((2048, 1000), "bf16", "B200", 1), ((2048, 32000), "bf16", "H200", 2)],
)
def test_a_row_is_read_as_rarely_as_possible_and_written_once(
    size: tuple[int, int], dtype: str, gpu: str, reads: int, paper: Any
) -> None:
    rows, classes = size
    shape = paper.kernels.shape_for(classes)
    row = paper.predict(paper.GPUS[gpu], rows, classes, dtype, shape, paper.Plan())
    assert (row["logits_read"], row["gradient_written"]) == (reads, 1)
    ids = 16 * rows / shape.rows if rows <= paper.kernels.PLAN_ROWS else 1
    assert row["bytes_per_row"] <= row["least_bytes_per_row"] + ids + (reads - 1) * classes * paper.BYTES[dtype]
    assert row["copy_us"] < row["predicted_us"] < row["no_overlap_us"]


def test_a_warp_waits_for_what_it_loads_and_runs_loops_as_often_as_the_batch_asks(paper: Any) -> None:
    listing = [
        (0x00, "MOV R0, RZ", 4, 7, 0),
        (0x10, "LDG.E.128 R4, desc[UR4][R2.64]", 1, 0, 0),
        (0x20, "FADD R0, R0, R4", 2, 7, 1),
        (0x30, "@P0 BRA 0x10", 5, 7, 0),
        (0x40, "EXIT", 5, 7, 0),
    ]
    setting = {"planned": 1, "count": 8, "end": 8, "scan": 8, "classes": 3000, "block": 1024, "warps": 4}
    gpu = paper.GPUS["H200"]
    walk = paper.Walk([paper.Instruction(*line) for line in listing], gpu, setting, last=False)
    assert walk.instructions == 2 + 3 * 3
    assert walk.cycles == 4 + 3 * (gpu.memory_cycles + 2 + 5) + 5
    assert walk.pipes == {"integer and compare": 2, "load and store": 48, "multiply and add": 3, "control": 4}

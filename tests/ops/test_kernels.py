"""The Triton kernels: their numbers, in the interpreter, and what the compiler makes of them for three GPUs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")
HERE = Path(__file__).resolve().parent


def test_numbers_in_the_interpreter() -> None:
    """Runs interpreted_kernels.py, whose output is shown when it fails."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--disable-warnings",
            "interpreted_kernels.py",
        ],
        cwd=HERE,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def compiled(kernel: Any, pointers: dict[str, str], constants: dict[str, Any], arch: int, warps: int) -> Any:
    """A kernel compiled for sm_`arch`; no GPU is needed. Pointers that are not named are None."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature: dict[str, str] = {}
    values, attributes = dict(constants), {}
    for position, name in enumerate(kernel.arg_names):
        if name in values or (name.endswith("_ptr") and name not in pointers):
            signature[name] = "constexpr"
            values.setdefault(name, None)
        elif name in pointers:
            signature[name] = "*" + pointers[name]
            attributes[(position,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "fp32" if name in ("scale", "smoothing") else "i32"
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def usage(binary: bytes, folder: Path) -> dict[str, int]:
    """Registers, and the bytes of stack and local memory: what was spilled."""
    file = folder / "kernel.cubin"
    file.write_bytes(binary)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists():
        pytest.skip("this triton brings no cuobjdump")
    text = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return {name: int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL")}  # type: ignore[index]


def compiled_step(
    n_classes: int, dtype: str, arch: int, *, weighted: bool = False, planned: bool = False, voted: bool = False
) -> Any:
    from dualfast.kernels import step as step_kernels

    rows, block, warps = step_kernels.shape_for(n_classes)
    pointers = {"logits_ptr": dtype, "grad_ptr": dtype, "targets_ptr": "i64", "index_ptr": "i64", "loss_ptr": "fp32"}
    pointers |= {"reduced_ptr": "fp32", "lines_ptr": "i32", "status_ptr": "i32"}
    if weighted:
        pointers |= {"weight_ptr": "fp32", "loss_sums_ptr": "fp32", "prob_margin_sums_ptr": "fp32"}
    if voted:
        pointers |= {"votes_ptr": "i32", "late_margin_sums_ptr": "fp32"}
    if planned:
        pointers |= {"again_ptr": "i8", "denominator_ptr": "fp32"}
    constants = {"CLASSES": n_classes, "STRIDE": n_classes, "GRAD_STRIDE": n_classes, "MEAN": True, "SMOOTH": weighted}
    constants |= {"PLANNED": planned, "BY_PRODUCTS": True, "TOP_OTHER": voted, "WINDOW": 10, "WORDS": 16, "WIDTH": 16}
    constants |= {"ROWS": rows, "BLOCK": block, "SCAN": step_kernels.scan_for(rows), "SUM": 256 * warps}
    return compiled(step_kernels.step_kernel, pointers, constants, arch, warps)


compiles = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter compiles nothing")


# The most registers that triton 3.6 or 3.9 needs, and a tenth more. weighted: weights, smoothing, and what is kept
# beside the lines too.
@compiles
@pytest.mark.parametrize(
    ("n_classes", "dtype", "arch", "weighted", "registers"),
    [
        (10, "fp32", 90, False, 88),
        (100, "bf16", 90, True, 88),
        (1000, "fp32", 80, False, 62),
        (1000, "bf16", 90, False, 77),
        (1000, "fp16", 100, True, 69),
        (2048, "bf16", 90, True, 105),
        (8192, "fp32", 90, False, 71),
        (8192, "bf16", 90, True, 104),
    ],
)
def test_step_compiles_without_spills(
    n_classes: int, dtype: str, arch: int, weighted: bool, registers: int, tmp_path: Path
) -> None:
    kernel = compiled_step(n_classes, dtype, arch, weighted=weighted, voted=weighted)
    used = usage(kernel.asm["cubin"], tmp_path)
    assert used["STACK"] == used["LOCAL"] == 0
    assert used["REG"] <= registers
    if n_classes >= 1000:
        text = kernel.asm["ptx"]
        per_thread = (8192 if n_classes == 8192 else n_classes) * (4 if dtype == "fp32" else 2)
        assert len(re.findall(r"ld\.global[\w:.]*\.v4\.b32", text)) >= 1 + (per_thread > 2048)
        assert len(re.findall(r"st\.global[\w:.]*\.v4\.b32", text)) >= 1 + (per_thread > 2048)


@compiles
@pytest.mark.parametrize(("n_classes", "dtype"), [(50257, "bf16"), (131072, "fp32")])
def test_step_of_many_classes_compiles(n_classes: int, dtype: str, tmp_path: Path) -> None:
    assert usage(compiled_step(n_classes, dtype, 90, planned=True).asm["cubin"], tmp_path)["LOCAL"] == 0


@compiles
def test_the_other_kernels_compile(tmp_path: Path) -> None:
    from dualfast.kernels import line as line_kernels
    from dualfast.kernels import step as step_kernels

    by_products = dict.fromkeys(("p_ptr", "margin_ptr", "el2n_ptr", "entropy_ptr"), "fp32")
    pointers = {"index_ptr": "i64", "counted_ptr": "u8", "correct_ptr": "u8", "lines_ptr": "i32", "status_ptr": "i32"}
    constants = {"WINDOW": 12, "WORDS": 32, "WIDTH": 32, "ROWS": 16, "BLOCK": 128}
    plan = {
        "targets_ptr": "i64",
        "index_ptr": "i64",
        "weight_ptr": "fp32",
        "again_ptr": "i8",
        "denominator_ptr": "fp32",
    }
    scale = {"CLASSES": 1000, "STRIDE": 1000, "ROWS": 1, "BLOCK": 1024}
    for kernel in (
        compiled(line_kernels.observe_kernel, pointers | by_products, constants, 90, 4),
        compiled(step_kernels.plan_kernel, plan, {"ROWS": 32, "BLOCK": 128}, 90, 4),
        compiled(step_kernels.scale_grad_kernel, {"grad_ptr": "bf16", "upstream_ptr": "fp32"}, scale, 90, 4),
    ):
        used = usage(kernel.asm["cubin"], tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0


@compiles
def test_the_line_is_stored_after_a_barrier() -> None:
    """Triton loads the line twice, in two layouts: every warp must have read it before one writes."""
    text = compiled_step(1000, "bf16", 90).asm["ptx"].split("acq_rel")[0]
    line_loads = [at.start() for at in re.finditer(r"ld\.global[\w:.]*b32", text)]
    line_store = text.rindex("st.global")
    assert "bar.sync" in text[line_loads[-1] : line_store]


@compiles
def test_losses_are_summed_after_all_programs_have_stored_theirs() -> None:
    """A program counts itself once its warps have met, with an atomic that releases what they stored and acquires what
    the others did; the sum is not read from a cache of this multiprocessor alone."""
    before, after = compiled_step(1000, "bf16", 90).asm["ptx"].split("atom.global.gpu.acq_rel")
    assert "bar.sync" in before[before.rindex("st.global") :]
    assert re.findall(r"ld\.global\.(\w+)\.", after) == ["cg"] * (1024 // 128)

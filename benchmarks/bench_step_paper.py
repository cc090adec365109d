"""The Triton step without a GPU: what its compiled code needs and the time that follows. Predicted, not measured.

Triton compiles the kernels for sm_90 and sm_100, and their listing is walked as one warp of an ordinary program would
run it: delays and waits are those that ptxas wrote into the instructions, loops run as often as the batch asks. A
kernel takes a launch and the longest of: its programs one after another in the places there are (latency), its bytes
of memory and of the L2 cache, the instructions of each pipe. That is with perfect overlap; the sum of latency and the
longest of the others is given as well.
"""

from __future__ import annotations

import argparse
import math
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import triton
from _harness import origin, save
from bench_step import GPU_SIZES
from dualfast.kernels import step as kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
BYTES = {"fp32": 4, "bf16": 2}
ROW = 2 * 64 + 8 + 8 + 4  # bytes beside logits and gradient: the line read and written, target, index, loss
TOTAL_BLOCK = kernels.TOTAL_BLOCK.value


class Gpu(NamedTuple):
    """From data sheets: multiprocessors, bytes/s of memory, the clock of their float32 rate (67 and 75 TFLOP/s).
    Assumed, in the order that microbenchmarks have: bytes/s of the L2 cache (B200: scaled with memory), latencies."""

    arch: int
    sms: int
    memory: float
    l2: float
    l2_cycles: int
    memory_cycles: int
    clock: float = 1.98e9


GPUS = {
    "H100": Gpu(90, 132, 3.35e12, 5.5e12, 270, 650),
    "H200": Gpu(90, 132, 4.8e12, 5.5e12, 270, 650),
    "B200": Gpu(100, 148, 8.0e12, 9.2e12, 300, 800),
}
# Assumed: launches in a replayed graph; latency of shared memory, shuffles, special functions and barriers.
ASSUMED = {"first_launch_s": 2.0e-6, "next_launch_s": 1.0e-6, "near_cycles": 30}


class Plan(NamedTuple):
    """plan_kernel's rows per program, and the rows with which it compares them at once."""

    rows: int = 32
    block: int = 128


def compiled(kernel: Any, pointers: dict[str, str], constants: dict[str, Any], arch: int, warps: int) -> Any:
    """A kernel compiled for sm_`arch`, with aligned pointers; those that are not named are None."""
    values = constants | {name: None for name in kernel.arg_names if name.endswith("_ptr") and name not in pointers}
    types = {name: f"*{dtype}" for name, dtype in pointers.items()} | dict.fromkeys(values, "constexpr")
    types |= {"scale": "fp32", "smoothing": "fp32"}
    aligned = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(kernel.arg_names) if name in pointers}
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    options = {"num_warps": warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def step_kernel(classes: int, dtype: str, arch: int, planned: bool, shape: kernels.Shape) -> Any:
    pointers = {"logits_ptr": dtype, "grad_ptr": dtype, "targets_ptr": "i64", "index_ptr": "i64", "loss_ptr": "fp32"}
    pointers |= {"reduced_ptr": "fp32", "lines_ptr": "i32", "status_ptr": "i32"}
    pointers |= {"again_ptr": "i8", "denominator_ptr": "fp32"} if planned else {}
    constants = {"CLASSES": classes, "STRIDE": classes, "GRAD_STRIDE": classes, "MEAN": True, "SMOOTH": False}
    constants |= {"PLANNED": planned, "BY_PRODUCTS": True, "TOP_OTHER": False, "WINDOW": 10, "WORDS": 16, "WIDTH": 16}
    constants |= {"ROWS": shape.rows, "BLOCK": shape.block, "SCAN": kernels.scan_for(shape.rows)}
    return compiled(kernels.step_kernel, pointers, constants | {"SUM": 256 * shape.warps}, arch, shape.warps)


def passes(kernel: Any, pointer: str, program_bytes: int, threads: int, blocks: int) -> int:
    """How often the PTX loads or stores all of a program's rows of `pointer`."""
    names = [name for name in kernel.src.fn.arg_names if kernel.src.signature[name] != "constexpr"]
    lines = kernel.asm["ptx"].splitlines()
    derived: dict[str, str] = {}  # register -> the parameter that its address comes from
    for line in 2 * lines:  # twice: a register of a loop is set after its use
        if found := re.search(r"ld\.param\.b64\s+(%rd\d+), \[\w+_param_(\d+)\]", line):
            derived[found[1]] = names[int(found[2])] if int(found[2]) < len(names) else ""
        elif found := re.match(r"\s*(?:add|sub|mov|mad|or|cvta)\.\S+\s+(%rd\d+), (.*)", line):
            known = [derived[source] for source in re.findall(r"%rd\d+", found[2]) if source in derived]
            if known:
                derived[found[1]] = known[0]
    label = {found[1]: at for at, line in enumerate(lines) if (found := re.match(r"\$(\w+):", line))}
    jumps = [(label[f[1]], at) for at, line in enumerate(lines) if (f := re.search(r"bra\S*\s+\$(\w+);", line))]
    moved = 0
    for at, line in enumerate(lines):
        found = re.search(r"(?:ld|st)\.global[\w:.]*?(?:\.v(\d))?\.b(\d+) .*?\[ (%rd\d+)", line)
        if found and derived.get(found[3]) == pointer:
            looped = any(start < at < end for start, end in jumps)
            moved += int(found[1] or 1) * int(found[2]) // 8 * threads * (blocks if looped else 1)
    return moved // program_bytes


@dataclass(frozen=True)
class Instruction:
    """One of the listing: cycles until the next may issue, the scoreboard it completes (7: none), those it awaits."""

    at: int
    text: str
    stall: int
    sets: int
    waits: int

    @property
    def op(self) -> str:
        return re.sub(r"^@\S+ ", "", self.text).split()[0]

    @property
    def target(self) -> int:
        found = re.search(r"\b0x([0-9a-f]+)$", self.text)
        return int(found[1], 16) if self.op.startswith("BRA") and found else -1

    @property
    def pipe(self) -> tuple[str, int]:
        """Its pipe, and for how many cycles it keeps one of a multiprocessor's four schedulers from using it again
        (CUDA's table of throughputs for 9.0, taken for 10.0 as well)."""
        if self.op.startswith(("FADD", "FMUL", "FFMA", "IMAD")):
            return "multiply and add", 2 if re.match(r"F(ADD|MUL|FMA)2", self.op) else 1
        if self.op.startswith(("MUFU", "F2F.", "I2F", "F2I", "REDUX", "CREDUX")):
            return "special functions", 8
        if self.op.startswith(("LD", "ST", "ATOM", "RED", "SHFL")):
            return "load and store", 16 if ".128" in self.op else 8 if ".64" in self.op else 4
        if self.op.startswith(("U", "B", "EXIT", "NOP", "S2", "CS2", "MEMBAR")):
            return "control", 1
        return "integer and compare", 2


def disassembled(kernel: Any) -> tuple[list[Instruction], int]:
    """The instructions, and the registers of a thread."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        commands = [[TOOL, how, file.name] for how in ("-sass", "-res-usage")]
        text, usage = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in commands)
    code = []
    for at, words, high in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s+/\* 0x\w+ \*/\s+/\* 0x(\w+) \*/", text):
        bits = int(high, 16) >> 41  # 4 bits of stall, yield, 3 to set, 3 to set when the operands are read, 6 to wait
        code.append(Instruction(int(at, 16), words, bits & 15, bits >> 5 & 7, bits >> 11 & 63))
    return code, int(re.findall(r"REG:(\d+)", usage)[0])


class Walk:
    """One warp of a program: its `instructions`, the cycles of each of `pipes`, and the `cycles` that it takes alone;
    at `fence_at` it has done all but count itself as finished. setting: count rows in the batch (planned: their
    denominator is known), of which `end` are compared with, `scan` at once; classes, `block` at once; warps. last: the
    last program, which also sums the losses."""

    def __init__(self, code: list[Instruction], gpu: Gpu, setting: dict[str, int], *, last: bool) -> None:
        self.code, self.gpu, self.setting, self.last = code, gpu, setting, last
        self.index = {i.at: at for at, i in enumerate(code)}
        self.loop_end = {i.target: at for at, i in enumerate(code) if 0 <= i.target < i.at}
        self.pipes: Counter[str] = Counter()
        self.ready = [0] * 8
        self.cycles = self.instructions = self.fence_at = 0
        self.left = 0 if setting["planned"] else math.ceil(setting["count"] / TOTAL_BLOCK)  # of the denominator
        self.arrived = self.done = False
        self.run(0, len(code))
        if not self.done or self.left:
            raise RuntimeError("the listing is not of the form that this walk knows: it was written for triton 3.9")

    def run(self, start: int, end: int, chosen: bool = False) -> None:
        at = start
        while at < end and not self.done:
            after = self.loop_end.get(self.code[at].at, -1) + 1
            if 0 < after <= end and (at, end) != (start, after):
                for _ in range(self.trips(self.code[at:after])):
                    self.run(at, after)
                at = after
                continue
            self.issue(self.code[at])
            target = self.index.get(self.code[at].target, -1)
            at += 1
            if target >= at and not chosen:
                body = self.code[at:target]
                if self.skips(body):
                    at = target
                elif (blocks := self.blocks(body)) and not any(0 <= i.target < i.at for i in body):
                    self.left -= blocks
                    self.run(at, target, chosen=True)
                    at = target

    def blocks(self, body: list[Instruction]) -> int:
        """Blocks of the denominator that a part of the code reads, which ptxas unrolls; 0 for other code."""
        loads = [i.op for i in body if i.op.startswith("LDG")]
        other = self.arrived or any(re.match("C?REDUX|SHFL|BAR|LDS", i.op) for i in body)
        return 0 if other or set(loads) != {"LDG.E.64"} else len(loads) * 32 * self.setting["warps"] // TOTAL_BLOCK

    def skips(self, body: list[Instruction]) -> bool:
        """Whether an ordinary program jumps over it: divisions of extreme numbers, counts of errors, unrolled blocks
        that the batch has not, and the sum of the losses."""
        if any(i.op.startswith(("CALL", "RED.", "REDG")) for i in body):
            return True
        if self.arrived:
            return not self.last
        loops = [at for at, i in enumerate(body) if 0 <= i.target < i.at]
        if not loops:
            return self.blocks(body) > self.left
        return not any(i.op.startswith("LDG") for i in body[loops[0] :]) and self.blocks(body) > self.left

    def trips(self, body: list[Instruction]) -> int:
        if any(i.op.startswith("LDG") and "STRONG" in i.op for i in body):
            return math.ceil(self.setting["count"] / (256 * self.setting["warps"]))
        if blocks := self.blocks(body):
            trips, self.left = divmod(self.left, blocks)
            return trips
        what, at_once = ("end", "scan") if any(i.op == "LDG.E.64" for i in body) else ("classes", "block")
        return math.ceil(self.setting[what] / self.setting[at_once])

    def issue(self, i: Instruction) -> None:
        self.cycles = max([self.cycles, *(self.ready[board] for board in range(6) if i.waits >> board & 1)])
        self.instructions += 1
        self.pipes[i.pipe[0]] += i.pipe[1]
        latency = int(ASSUMED["near_cycles"])
        if i.op.startswith(("LDG", "ATOM", "MEMBAR")):  # in L2: counters, ids, losses, a row's second reading
            in_l2 = not i.op.startswith("LDG") or "EF" in i.op or "STRONG" in i.op or i.op == "LDG.E.64"
            latency = self.gpu.l2_cycles if in_l2 else self.gpu.memory_cycles
        if i.op.startswith("MEMBAR"):
            self.fence_at = self.cycles
        self.arrived |= i.op.startswith("ATOMG")
        self.ready[i.sets] = max(self.ready[i.sets], self.cycles + latency)
        self.cycles += max(i.stall, 1) + (latency if i.op.startswith(("MEMBAR", "BAR")) else 0)
        self.done = i.op == "EXIT" and (not i.text.startswith("@") or (self.arrived and not self.last))


def predict(
    gpu: Gpu, rows: int, classes: int, dtype: str, shape: kernels.Shape, plan: Plan, *, persistent: bool = False
) -> dict[str, Any]:
    """One step of a batch. persistent: with all that programs could save which stay for the next row."""
    planned, warps = rows > kernels.PLAN_ROWS, shape.warps
    kernel = step_kernel(classes, dtype, gpu.arch, planned, shape)
    code, registers = disassembled(kernel)
    programs, blocks = math.ceil(rows / shape.rows), math.ceil(classes / shape.block)
    places = min(64 // warps, 32, 65536 // (math.ceil(registers / 8) * 256 * warps))
    places = min(places, 228 * 1024 // (kernel.metadata.shared + 1024))
    setting = {"classes": classes, "block": shape.block, "warps": warps, "count": rows, "planned": planned}
    setting |= {"scan": kernels.scan_for(shape.rows), "end": rows}
    mean, slow = (Walk(code, gpu, setting | {"end": end}, last=False) for end in (rows // 2, rows))
    turns = math.ceil(programs / (gpu.sms * places))
    cycles = (turns - 1) * (slow.fence_at if persistent else slow.cycles) + Walk(code, gpu, setting, last=True).cycles

    row, program = classes * BYTES[dtype], shape.rows * blocks * shape.block * BYTES[dtype]
    read, written = (passes(kernel, name, program, 32 * warps, blocks) for name in ("logits_ptr", "grad_ptr"))
    about_others = 1 if planned else 16 * rows / shape.rows  # ids: all for the denominator, half twice for repeats
    moved = (read + written) * row + ROW + about_others

    parts = {"latency": cycles / gpu.clock, "memory": rows * (2 * row + ROW) / gpu.memory, "L2": rows * moved / gpu.l2}
    for pipe, took in (mean.pipes | {"issue": mean.instructions}).items():
        parts[pipe] = took * warps * programs / (4 * gpu.sms * gpu.clock)
    launch = ASSUMED["first_launch_s"]
    fixed = {"launch": launch + planned * ASSUMED["next_launch_s"]}
    fixed["plan_kernel"] = plan_time(gpu, rows, plan) if planned else 0.0
    longest = max(parts.values())
    least = sum(fixed.values()) + longest
    most = sum(fixed.values()) + parts["latency"] + max(part for name, part in parts.items() if name != "latency")
    return {
        **{"registers": registers, "shared_bytes": kernel.metadata.shared, "warps": warps, "programs": programs},
        **{"programs_per_sm": places, "occupancy": places * warps / 64, "turns": turns},
        **{"instructions_per_row": mean.instructions * warps / shape.rows, "logits_read": read},
        **{"gradient_written": written, "bytes_per_row": moved, "least_bytes_per_row": 2 * row + ROW},
        "parts_us": {name: _us(seconds) for name, seconds in (fixed | parts).items()},
        **{
            "predicted_us": _us(least),
            "no_overlap_us": _us(most),
            "copy_us": _us(launch + 2 * rows * row / gpu.memory),
        },
        "limit": max(fixed | parts, key=lambda name: (fixed | parts)[name]),
    }


def _us(seconds: float) -> float:
    return float(f"{seconds * 1e6:.4g}")


def plan_time(gpu: Gpu, rows: int, plan: Plan) -> float:
    """Seconds of the last program, which compares its rows with all others; the programs run side by side."""
    pointers = {"targets_ptr": "i64", "index_ptr": "i64", "again_ptr": "i8", "denominator_ptr": "fp32"}
    code, _ = disassembled(
        compiled(kernels.plan_kernel, pointers, {"ROWS": plan.rows, "BLOCK": plan.block}, gpu.arch, 4)
    )
    setting = {"warps": 4, "count": rows, "planned": 1, "end": rows, "scan": plan.block}
    return Walk(code, gpu, setting, last=True).cycles / gpu.clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="*", default=GPU_SIZES, help="ROWSxCLASSES; all of bench_step.py without it")
    out: list[dict[str, Any]] = []
    for size in parser.parse_args().size:
        rows, classes = (int(part) for part in size.split("x"))
        usual: dict[str, Any] = {"shape": kernels.shape_for(classes), "plan": Plan()}
        tries = {"as it is": usual}
        if classes == 1000:
            tries["two rows per program"] = usual | {"shape": kernels.Shape(2, 1024, 4)}
        if classes == 32000:
            tries["persistent programs, at best"] = usual | {"persistent": True}
            tries["blocks of 2048 classes, 8 warps"] = usual | {"shape": kernels.Shape(1, 2048, 8)}
        if rows > kernels.PLAN_ROWS:
            tries["plan_kernel: 16 rows against 256"] = usual | {"plan": Plan(16, 256)}
        for dtype in BYTES:
            for name, gpu in GPUS.items():
                for what, how in tries.items():
                    row = {"size": size, "dtype": dtype, "gpu": name, "what": what}
                    out.append(row | predict(gpu, rows, classes, dtype, **how))
                    print(*row.values(), out[-1]["predicted_us"], out[-1]["copy_us"], out[-1]["limit"], flush=True)
    about = origin(("triton",)) | {"gpus": {name: gpu._asdict() for name, gpu in GPUS.items()}, "assumed": ASSUMED}
    print("written to", save("step-paper", out, about))


if __name__ == "__main__":
    main()

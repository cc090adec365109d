"""The one door to compiled code: validates, picks triton | cpp | torch, calls. The only importer of _C and kernels."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch  # before _C, so that both share one OpenMP runtime
from numpy.typing import NDArray

import dualfast._C as _C
from dualfast import step_torch

# ---- step -----------------------------------------------------------------------------------------------------------

BACKENDS = ("auto", "cpp", "triton", "torch")
EL2N_VISITS = step_torch.EL2N_VISITS
MAX_VISITS = 4095
BAD_INDEX, BAD_TARGET, DUPLICATES, NON_FINITE, PAUSED, FINISHED = STATUS = range(6)  # words of Lines.status
DEBUG = os.environ.get("DUALFAST_DEBUG") == "1"  # waits for the device after each step and raises what it found

# Checks and allocations are most of what a step of a small batch takes, so they are written for few calls into torch.
_KERNEL_DTYPES = {
    "cpp": (torch.float32, torch.bfloat16),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
    "torch": (),
}
_SCALAR = torch.zeros((), dtype=torch.float32, device="cpu")  # empty_like takes half the time of empty
_slow_devices: set[str] = set()


class Lines(NamedTuple):
    """Where a step records: lines (n_samples, words) int32, loss_sums (n_samples,) or None, status (6,) int32: four
    counters, 1 where nothing is to be recorded, and a counter of programs that is zero between launches."""

    lines: torch.Tensor
    status: torch.Tensor
    loss_sums: torch.Tensor | None
    window: int
    limit: int

    @property
    def n_samples(self) -> int:
        return len(self.lines)


def pick_backend(backend: str, device: torch.device) -> str:
    """The back end that runs on `device`: cpp on CPUs, triton on CUDA, torch elsewhere (slow; said once a device).

    Raises ValueError when one is asked for by name and cannot run there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; give one of {', '.join(BACKENDS)}")
    if backend == "auto":
        if device.type == "cpu":
            return "cpp"
        if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
            return "triton"
        if device.type not in _slow_devices:
            _slow_devices.add(device.type)
            why = "triton is not installed" if device.type == "cuda" else "it has no kernel of ours"
            warnings.warn(f"device {device.type}: {why}; the plain torch path is used, which is slow", stacklevel=4)
        return "torch"
    if backend == "cpp" and device.type != "cpu":
        raise ValueError(f"backend is 'cpp' and the logits are on {device}; it runs on CPU tensors only")
    if backend == "triton" and importlib.util.find_spec("triton") is None:
        raise ValueError("backend is 'triton', which is not installed; pip install 'dualfast[triton]'")
    interpreted = device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if backend == "triton" and device.type != "cuda" and not interpreted:
        raise ValueError(f"backend is 'triton' and the logits are on {device}; it runs on CUDA tensors only")
    return backend


def runs_on(logits: torch.Tensor, backend: str = "auto") -> str:
    """The back end that a step on `logits` takes: pick_backend's, or torch for a dtype that C++ does not have."""
    chosen = pick_backend(backend, logits.device)
    return chosen if logits.dtype in _KERNEL_DTYPES[chosen] else "torch"


def step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: Lines | None,
    *,
    backend: str = "auto",
    reduction: str = "mean",
    scale: float = 1.0,
    weight: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    by_products: bool = True,
    with_grad: bool = True,
    inplace: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cross-entropy, its gradient and the update of the samples' lines, in one pass over the logits.

    logits (B, C) float32, bfloat16 or float16, rows of any stride; targets and index (B,) int64. Returns the loss,
    float32, () or for reduction="none" (B,), and the gradient of scale times it ("none": its sum), in the dtype of
    logits (inplace: written over them), or None. by_products=False leaves out margin, EL2N and entropy. Weights,
    smoothing and reduction as in torch.nn.functional.cross_entropy, but for the loss of an empty batch, which is 0. Of
    rows with the same index the first is recorded, of rows with ignore_index none.

    Raises TypeError for dtypes and ValueError for shapes, devices and ranges, naming the argument.
    """
    check_step(logits, targets, index, lines, weight)
    if not logits.shape[0]:
        loss = torch.zeros(() if reduction != "none" else 0, device=logits.device)
        return loss, logits.new_zeros(logits.shape) if with_grad else None
    chosen = runs_on(logits, backend)
    run = _step_cpp if chosen == "cpp" else _step_triton if chosen == "triton" else _step_torch
    out = run(
        logits,
        targets,
        index,
        lines,
        reduction=reduction,
        scale=scale,
        weight=weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        by_products=by_products,
        with_grad=with_grad,
        inplace=inplace,
    )
    if inplace and with_grad:
        torch.autograd.graph.increment_version(logits)  # autograd sees who else still needs the logits
    if DEBUG and lines is not None:
        check_status(lines)
    return out


def check_status(lines: Lines) -> list[int]:
    """The counters, after waiting for the device; ValueError when an index or a target was out of range."""
    status: list[int] = lines.status.tolist()
    if status[BAD_INDEX]:
        raise ValueError(f"{status[BAD_INDEX]} index values lay outside the table of {lines.n_samples} samples")
    if status[BAD_TARGET]:
        raise ValueError(f"{status[BAD_TARGET]} targets lay outside the classes of the logits")
    return status


def check_step(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: Lines | None,
    weight: torch.Tensor | None,
) -> None:
    for name, value in (("logits", logits), ("targets", targets), ("index", index)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; give a torch.Tensor")
    if not logits.dtype.is_floating_point:
        raise TypeError(f"logits are {logits.dtype}; they must be floating point")
    shape = logits.shape
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(f"logits have the shape {tuple(shape)}; it must be (B, C)")
    device, rows = logits.device, shape[0]
    for name, value in (("targets", targets), ("index", index)):
        if value.dtype != torch.int64:
            raise TypeError(f"{name} are {value.dtype}; they must be torch.int64")
        if value.shape != (rows,):
            raise ValueError(f"{name} have the shape {tuple(value.shape)}; {rows} logits need ({rows},)")
        if value.device != device:
            raise _elsewhere(name, value, logits)
    if weight is not None:
        if weight.shape != shape[1:]:
            raise ValueError(f"weight has the shape {tuple(weight.shape)}; {shape[1]} classes need one each")
        if weight.device != device:
            raise _elsewhere("weight", weight, logits)
    if lines is not None and lines.lines.device != device:
        raise _elsewhere("the score table", lines.lines, logits)


def _elsewhere(name: str, value: torch.Tensor, logits: torch.Tensor) -> ValueError:
    return ValueError(f"{name} is on {value.device} and the logits are on {logits.device}; move one of them")


def _step_cpp(
    logits: torch.Tensor,
    targets: torch.Tensor,
    index: torch.Tensor,
    lines: Lines | None,
    *,
    reduction: str,
    scale: float,
    weight: torch.Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    by_products: bool,
    with_grad: bool,
    inplace: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    rows, classes = logits.shape
    stride, column = logits.stride()
    if classes > 1 and column != 1:
        logits, inplace, stride = logits.contiguous(), False, classes
    targets, index = targets.contiguous(), index.contiguous()
    weight_address = 0
    if weight is not None:
        weight = weight.float().contiguous()
        weight_address = weight.data_ptr()
    grad = None
    grad_address = grad_stride = 0
    if with_grad:
        grad = logits.detach() if inplace else torch.empty_like(logits)
        grad_address, grad_stride = grad.data_ptr(), grad.stride(0)
    losses_address = reduced_address = 0
    if reduction == "none":
        loss = torch.empty(rows, dtype=torch.float32, device=logits.device)
        losses_address = loss.data_ptr()
    else:
        loss = torch.empty_like(_SCALAR)
        reduced_address = loss.data_ptr()
    words = samples = limit = line_address = status_address = sums_address = 0
    window = 2
    if lines is not None:
        table, status, loss_sums, window, limit = lines
        samples, words = table.shape
        line_address, status_address = table.data_ptr(), status.data_ptr()
        sums_address = 0 if loss_sums is None else loss_sums.data_ptr()
    _C.step(
        logits.data_ptr(),
        grad_address,
        logits.dtype == torch.bfloat16,
        rows,
        classes,
        stride,
        grad_stride,
        targets.data_ptr(),
        index.data_ptr(),
        losses_address,
        reduced_address,
        scale,
        reduction == "mean",
        weight_address,
        label_smoothing,
        ignore_index,
        line_address,
        status_address,
        sums_address,
        samples,
        words,
        window,
        limit,
        by_products and lines is not None,
        torch.get_num_threads(),
    )
    return loss, grad


def _step_triton(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    loss, grad, reduced = importlib.import_module("dualfast.kernels.step").step(*arguments, **options)
    return loss if reduced is None else reduced, grad


def _step_torch(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    loss, grad, reduced = step_torch.step(*arguments, **options)
    return loss if reduced is None else reduced, grad


def _has_kernels(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda and importlib.util.find_spec("triton") is not None


def scale_grad(grad: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """grad (B, C) times upstream, a scalar or (B,), in place; on CUDA without waiting to learn that it is 1."""
    if _has_kernels(grad):
        scaled: torch.Tensor = importlib.import_module("dualfast.kernels.step").scale_grad(grad, upstream)
        return scaled
    if upstream.ndim:
        return grad.mul_(upstream[:, None])
    return grad if upstream.is_cpu and upstream.item() == 1.0 else grad.mul_(upstream)


def observe(
    lines: Lines,
    index: torch.Tensor,
    *,
    p: torch.Tensor,
    margin: torch.Tensor,
    el2n: torch.Tensor,
    entropy: torch.Tensor,
    correct: torch.Tensor,
    counted: torch.Tensor | None = None,
) -> None:
    """The line update on its own: folds one visit of each sample in `index` (B,) int64 from by-products computed
    elsewhere.

    p, margin, el2n, entropy (B,) float32, correct (B,) bool; counted (B,) bool leaves rows out. A p that is not
    finite is a skipped visit. Of rows with the same index the first is folded. ValueError for an index out of range;
    on CUDA, where nothing waits for the device, ScoreTable.scores() raises it.
    """
    seen = {"p": p, "margin": margin, "el2n": el2n, "entropy": entropy, "correct": correct}
    if _has_kernels(lines.lines):
        importlib.import_module("dualfast.kernels.line").observe(lines, index, counted=counted, **seen)
        return
    if lines.lines.device.type != "cpu":
        counted = torch.ones_like(correct) if counted is None else counted
        step_torch.check_range("index", index, counted, lines.n_samples, "the score table has the samples 0 to {last}")
        step_torch.observe(lines, index, counted, seen, None)
        return
    arrays = [value.detach().contiguous().numpy() for value in seen.values()]
    _C.observe(
        *arrays,
        None if counted is None else counted.contiguous().numpy(),
        index.contiguous().numpy(),
        lines.lines.numpy(),
        lines.status.numpy(),
        lines.n_samples,
        lines.window,
        lines.limit,
        torch.get_num_threads(),
    )


# ---- select ---------------------------------------------------------------------------------------------------------

Floats: TypeAlias = NDArray[np.float64]
Column: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Bits: TypeAlias = NDArray[np.uint8]  # a sample a bit, the lowest of a byte first

ZERO_WEIGHT_KEY = 2000.0  # what a weight of zero adds to its key: past the key of any positive weight


@dataclass(frozen=True)
class Race:
    """Successive sampling without replacement as an exponential race over `count` samples.

    The key of a sample is log(-log u) - log w; the n smallest are a draw with weights w (Efraimidis and Spirakis,
    2006). u comes from Philox of (seed, id) with 53 bits, w = score * mean^(a-1) * (1-mean)^(b-1), without mean score,
    without either 1. Weights of zero have the key ZERO_WEIGHT_KEY + log(-log u). score and mean (count,) float32 or
    float64, contiguous, never copied; ids (count,) int64, None: first, first + 1, ...; seed of 64 bits.
    """

    count: int
    seed: int
    score: Column | None = None
    mean: Column | None = None
    a: float = 1.0
    b: float = 1.0
    ids: Ints | None = None
    first: int = 0

    def at(self, where: Ints) -> Race:
        """The race of the samples at these positions alone; their keys are the same."""
        ids = where + self.first if self.ids is None else self.ids[where]
        score, mean = (None if column is None else column[where] for column in (self.score, self.mean))
        return replace(self, count=len(where), score=score, mean=mean, ids=ids)


def race_keys(race: Race, where: Ints | None = None, threads: int | None = None) -> Floats:
    """The keys float64 of all samples, or of those at the ascending positions `where`: the same bits for any number of
    threads and any processor."""
    assert where is None or not len(where) or 0 <= where[0] <= where[-1] < race.count
    keys: Floats = _C.race_keys(*_fields(race), threads or torch.get_num_threads(), where)
    return keys


def _fields(race: Race) -> tuple[Any, ...]:
    if not 0 <= race.seed < 2**64:
        raise ValueError(f"seed is {race.seed}; give an integer of 64 bits, 0 to 2**64 - 1")
    return race.mean, race.score, race.ids, race.first, race.count, race.a, race.b, race.seed


def set_level(level: int) -> None:
    """For tests: the instructions that selection uses, 2 AVX-512, 1 AVX2, 0 neither; at most what there is."""
    _C.set_level(level)


@dataclass(frozen=True)
class Sifted:
    """What sift finds. kept, ceil(count / 8) bytes, marks the samples whose key is below `low` for certain, n_kept of
    them; open, ascending positions, holds every sample whose key may lie in [low, high]; the keys of all others are
    above `high`. ratios float32: exp(key) of each open one, over a factor common to all and no further off than the
    factor `error`; NaN where that is not known. race_keys settles the open ones."""

    kept: Bits
    n_kept: int
    open: Ints
    ratios: NDArray[np.float32]
    error: float


def sift(race: Race, low: float, high: float, threads: int | None = None, fresh: Ints | None = None) -> Sifted:
    """The race as far as float32 decides it, at the speed of memory. fresh: an array still without content, whose pages
    are asked for meanwhile.

    Raises ValueError for a score that is negative, NaN or infinite and a mean outside [0, 1].
    """
    *found, bad = _C.sift(*_fields(race), threads or torch.get_num_threads(), low, high, fresh)
    if bad >= 0:
        for name, column, most in (("score", race.score, np.finfo(np.float64).max), ("mean", race.mean, 1.0)):
            if column is not None and not 0 <= column[bad] <= most:
                raise ValueError(f"{name}[{bad}] is {column[bad]}; it must lie in [0, {'1]' if most == 1 else 'inf)'}")
    return Sifted(*found)


def largest(column: Column, k: int, threads: int | None = None) -> Ints:
    """Positions of the k largest of column (N,) float32 or float64, the largest first; ties go to the lower position.
    NaN is passed over, so that there may be fewer. For a small k."""
    top: Ints = _C.largest(column, k, threads or torch.get_num_threads())
    return top


def narrow(found: Sifted, low: float, high: float) -> tuple[int, Ints]:
    """Marks as kept the open samples whose ratio is below `low`; returns how many these are, and the ascending
    positions of those whose ratio may lie in [low, high]."""
    sure, doubtful = _C.narrow(found.kept, found.open, found.ratios, low, high)
    return sure, doubtful


def positions(bits: Bits, n: int, threads: int | None = None, out: Ints | None = None) -> Ints:
    """The ascending positions (n,) int64 of the ones among bits, n in number, in `out` where that is given."""
    where = np.empty(n, np.int64) if out is None else out
    _C.positions(bits, where, threads or torch.get_num_threads())
    return where


def set_bits(bits: Bits, where: Ints) -> None:
    """Sets the bits at these ascending positions, in place."""
    assert not len(where) or 0 <= where[0] <= where[-1] < 8 * len(bits)
    _C.set_bits(bits, where)


# ---- beton ----------------------------------------------------------------------------------------------------------

READ_STATUS = (
    "done",
    "cannot be read from the disk",
    "lies past the end of the file",
    "cannot be decoded",
    "no memory",
)
LEFT = 5
JPEG_LIBRARY: str = _C.jpeg_library  # what load_images decodes JPEGs with; "" where it was built without and leaves all


def order_keys(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]:
    """(n,) keys whose ascending order is the shuffle of (seed, epoch). Each depends on (seed, epoch, id) alone.
    seed and epoch are taken mod 2**64 and 2**32."""
    keys: NDArray[np.uint64] = _C.order_keys(np.ascontiguousarray(ids, np.int64), seed % 2**64, epoch % 2**32)
    return keys


def crop_boxes(
    ids: NDArray[np.int64],
    heights: NDArray[np.uint16],
    widths: NDArray[np.uint16],
    *,
    kind: Literal["center", "pad", "resized"],
    out_size: tuple[int, int],
    flip: bool = False,
    fraction: float = 1.0,
    pad: float = 0.0,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    seed: int = 0,
    epoch: int = 0,
) -> NDArray[np.int32]:
    """(n, 5) rows top, left, height, width, flip in pixels of the stored images; a pure function of (seed, epoch, id)
    and the image's size.

    center: the largest box of the output's shape times `fraction`, in the middle. pad: the largest such box, shifted
    by up to `pad` output pixels each way, possibly beyond the border. resized: area `scale` and aspect `ratio`
    (log-uniform) of the image, ten tries, then the middle (Inception's crop). flip mirrors half of the samples."""
    kinds = {"center": 0, "pad": 1, "resized": 2}
    boxes: NDArray[np.int32] = _C.crop_boxes(
        ids, heights, widths, kinds[kind], flip, *out_size, fraction, pad, scale, ratio, seed % 2**64, epoch % 2**32
    )
    return boxes


def load_images(
    fd: int,
    ptr: NDArray[np.uint64],
    size: NDArray[np.uint64],
    mode: NDArray[np.uint8],
    height: NDArray[np.uint16],
    width: NDArray[np.uint16],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
    threads: int,
) -> NDArray[np.int32]:
    """Reads n samples (size[i] bytes at ptr[i] of the open file), cuts and scales boxes[i] to out[i] of shape
    (height, width, 3), and replaces each value v of channel c by table[c, v]; outside the image stands fill[c].

    Of a JPEG the rows and columns that its box needs are decoded, at 1/2, 1/4 or 1/8 of their size where that still
    has as many pixels as the output.

    Returns (n,) codes into READ_STATUS, or LEFT for a JPEG to decode otherwise and give to place_images: not of three
    or one component, damaged, not of this height and width, or any without JPEG_LIBRARY. ValueError or TypeError when
    shapes or element sizes (1, 2 or 4 bytes) disagree."""
    status: NDArray[np.int32] = _C.load_images(fd, ptr, size, mode, height, width, boxes, out, table, fill, threads)
    return status


def place_images(
    pixels: list[NDArray[np.uint8] | None],
    boxes: NDArray[np.int32],
    out: NDArray[Any],
    table: NDArray[Any],
    fill: NDArray[Any],
    threads: int,
) -> None:
    """load_images for decoded images, each (height, width, 3); out[i] is left alone where pixels[i] is None."""
    _C.place_images(pixels, boxes, out, table, fill, threads)

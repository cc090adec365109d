"""The compiled module; dualfast.ops calls it and documents what each function does. Arrays are C-contiguous and never
converted: another dtype or layout is a TypeError."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# fmt: off

_Column: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
_Numbers: TypeAlias = NDArray[np.uint16] | NDArray[np.int32]

__version__: str
jpeg_library: str

def at_nodes(
    column: _Column, descending: bool, base: int, numbers: _Numbers | None, n_groups: int,
    allowed: NDArray[np.uint8] | None, threads: int, levels: list[tuple[int, int, NDArray[np.int32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
def crop_boxes(
    ids: NDArray[np.int64], heights: NDArray[np.uint16], widths: NDArray[np.uint16], kind: str, flip: bool,
    out_height: int, out_width: int, parameters: list[float], seed: int, epoch: int,
) -> NDArray[np.int32]: ...
def classify(
    mean: _Column | None, score: _Column | None, ids: NDArray[np.int64] | None, first: int, count: int, a: float,
    b: float, seed: int, threads: int, numbers: _Numbers | None, allowed: NDArray[np.uint8] | None,
    low: NDArray[np.float64], high: NDArray[np.float64], origin: float, prefault_buffer: NDArray[np.int64] | None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], float, int]: ...
def count_bits(bits: NDArray[np.uint8]) -> int: ...
def count_groups(
    numbers: _Numbers | None, allowed: NDArray[np.uint8] | None, count: int, n_groups: int, threads: int,
) -> NDArray[np.int64]: ...
def digit_histogram(
    column: _Column, descending: bool, base: int, numbers: _Numbers | None, n_groups: int,
    allowed: NDArray[np.uint8] | None, threads: int, levels: list[tuple[int, int, NDArray[np.int32]]],
    shift: int, bits: int, nodes: int,
) -> NDArray[np.int64]: ...
def extents(
    column: _Column, descending: bool, base: int, numbers: _Numbers | None, n_groups: int,
    allowed: NDArray[np.uint8] | None, threads: int, least: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]: ...
def guard_map(data: NDArray[np.uint8]) -> int: ...
def key_histogram(
    mean: _Column | None, score: _Column | None, ids: NDArray[np.int64] | None, first: int, count: int, a: float,
    b: float, seed: int, threads: int, numbers: _Numbers | None, allowed: NDArray[np.uint8] | None, n_groups: int,
    low: float, high: float, origin: float, bins: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]: ...
def largest(column: _Column, k: int, threads: int) -> NDArray[np.int64]: ...
def load_images(
    fd: int, ptr: NDArray[np.uint64], size: NDArray[np.uint64], mode: NDArray[np.uint8], height: NDArray[np.uint16],
    width: NDArray[np.uint16], boxes: NDArray[np.int32], out: NDArray[Any], table: NDArray[Any], fill: NDArray[Any],
    max_bytes: int, max_scans: int, threads: int,
) -> NDArray[np.int32]: ...
def map_was_cut(number: int) -> bool: ...
def mark_below(
    column: _Column, descending: bool, base: int, numbers: _Numbers | None, n_groups: int,
    allowed: NDArray[np.uint8] | None, threads: int, keys: NDArray[np.uint64], ties: NDArray[np.int64],
) -> NDArray[np.uint8]: ...
def number_labels(labels: NDArray[Any], threads: int) -> tuple[NDArray[np.uint16], NDArray[np.int64]]: ...
def observe(
    p: NDArray[np.float32], margin: NDArray[np.float32], el2n: NDArray[np.float32], entropy: NDArray[np.float32],
    correct: NDArray[np.bool_], counted: NDArray[np.bool_] | None, index: NDArray[np.int64],
    lines: NDArray[np.int32] | None, status: NDArray[np.int32] | None, samples: int, window: int, limit: int,
    threads: int,
) -> None: ...
def order_keys(ids: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.uint64]: ...
def outside(
    column: _Column, low: float, high: float, threads: int, bits: NDArray[np.uint8] | None,
) -> tuple[int, int]: ...
def place_images(
    pixels: list[NDArray[np.uint8] | None], boxes: NDArray[np.int32], out: NDArray[Any], table: NDArray[Any],
    fill: NDArray[Any], threads: int,
) -> None: ...
def positions(bits: NDArray[np.uint8], out: NDArray[np.int64], threads: int) -> None: ...
def race_keys(
    mean: _Column | None, score: _Column | None, ids: NDArray[np.int64] | None, first: int, count: int, a: float,
    b: float, seed: int, threads: int, positions: NDArray[np.int64] | None,
) -> NDArray[np.float64]: ...
def release_map(number: int) -> None: ...
def set_bits(bits: NDArray[np.uint8], positions: NDArray[np.int64]) -> None: ...
def set_level(level: int) -> None: ...
def settle_by_ratio(
    bits: NDArray[np.uint8], undecided: NDArray[np.int64], ratios: NDArray[np.float32], low: float, high: float,
) -> tuple[int, NDArray[np.int64]]: ...
def settle_groups(
    bits: NDArray[np.uint8], numbers: _Numbers | None, allowed: NDArray[np.uint8] | None, count: int,
    undecided: NDArray[np.int64], keys: NDArray[np.float64], missing: NDArray[np.int64], low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]: ...
def stratify(
    column: _Column, descending: bool, base: int, numbers: _Numbers | None, n_groups: int,
    allowed: NDArray[np.uint8] | None, threads: int, keys: NDArray[np.uint64],
    ties: NDArray[np.int64], strata: int, low: NDArray[np.float64] | None, width: NDArray[np.float64] | None,
) -> _Numbers: ...

# Tensors as addresses, 0 for None: see csrc/register_step.cpp.
def step(
    logits: int, grad: int, bfloat16: bool, rows: int, classes: int, logits_stride: int, grad_stride: int,
    targets: int, index: int, loss: int, reduced: int, scale: float, mean: bool, weight: int, smoothing: float,
    ignore_index: int, lines: int, status: int, loss_sums: int, prob_margin_sums: int, late_margin_sums: int,
    votes: int, samples: int, words: int, window: int, limit: int, seen: int, flags: int, top_others: int,
    by_products: bool, threads: int, /,
) -> None: ...

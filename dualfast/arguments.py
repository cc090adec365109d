"""Arguments as callers give them, checked: arrays of any library, numbers, switches, paths, texts. What cannot be used
is a TypeError or ValueError that names the argument, what it is and the way out.

torch is never imported here: who gives a tensor has imported it.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_array(name: str, given: Any) -> NDArray[Any]:
    """The array that `given` is or can become, of any shape and dtype, in the machine's byte order. Of a tensor, the
    values: without its graph, from any device, bfloat16 and float8 as float32.

    Raises TypeError for a tensor that is nested, sparse, quantized or on meta; ValueError for masked entries and for
    lists of several lengths.
    """
    if np.ma.is_masked(given):
        raise ValueError(f"{name} has masked entries, whose values nobody knows; leave them out, or give filled(VALUE)")
    try:
        array = np.asarray(_values(name, given) if _is_tensor(given) else given)
    except (RuntimeError, TypeError, ValueError) as error:
        if isinstance(given, list | tuple) and any(map(_is_tensor, given)):  # NumPy asks each, and some do not answer
            return as_array(name, [as_array(f"{name}[{at}]", one) for at, one in enumerate(given)])
        if _is_tensor(given):
            raise
        raise ValueError(f"{name} cannot be made an array: {str(error).partition(chr(10))[0]}") from None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def unusable_tensor(name: str, given: Any) -> TypeError | None:
    """The error for a tensor whose values are not in memory one by one; None for any other argument."""
    if not _is_tensor(given):
        return None
    if given.is_nested:
        return TypeError(f"{name} is a nested tensor; give a plain one, such as torch.cat(list({name}.unbind()))")
    if given.is_quantized:
        return TypeError(f"{name} is a quantized tensor; give {name}.dequantize()")
    if given.layout is not sys.modules["torch"].strided:
        return TypeError(f"{name} is a sparse tensor ({given.layout}); give {name}.to_dense()")
    if given.is_meta:
        return TypeError(f"{name} is a tensor on the device meta, which holds no values; give one on the CPU or a GPU")
    return None


def _values(name: str, tensor: Any) -> NDArray[Any]:
    if error := unusable_tensor(name, tensor):
        raise error
    torch = sys.modules["torch"]
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    try:
        values: NDArray[Any] = tensor.numpy()
    except (RuntimeError, TypeError) as error:  # a subclass, or a dtype that NumPy lacks
        raise TypeError(
            f"{name} is a {type(tensor).__name__} of {tensor.dtype}, whose values NumPy cannot read; give an array of "
            "plain numbers"
        ) from error
    return values


def _is_tensor(given: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.Tensor)


def checked_int(name: str, value: Any, low: int | None = None, high: int = 2**31 - 1) -> int:
    """The integer that `value` is, Python's or NumPy's; TypeError for anything else, ValueError outside low..high."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except (TypeError, RuntimeError):  # RuntimeError: a tensor without values
        raise TypeError(f"{name} is {value!r:.80}; give an integer") from None
    if low is not None and not low <= number <= high:
        raise ValueError(f"{name} is {number}; give an integer from {low} to {high}")
    return number


def checked_bool(name: str, value: Any) -> bool:
    """The switch that `value` is: True, False, NumPy's, or 1 and 0; TypeError for anything else, such as the text "no"
    and tensors, which Python would take for True."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} is {value!r:.80}; give True or False")


def checked_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """The text `value`, if it is one of `choices`; ValueError for anything else."""
    if isinstance(value, str) and value in choices:
        return value
    *others, last = choices
    raise ValueError(f"{name} is {value!r:.80}; give {', '.join(others)} or {last}")


def as_path(name: str, value: Any) -> Path:
    """The path that `value` is, text or os.PathLike of text; TypeError for anything else."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        raise TypeError(f"{name} is {value!r:.80}; give a path, as text or pathlib.Path")
    return Path(path)


def as_texts(name: str, given: Any) -> list[str]:
    """A list of the texts in `given`; numbers become text. TypeError for what holds none, or None among them."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) != 1:
        raise TypeError(f"{name} is {given!r:.80}; give a list of texts")
    found = list(as_array(name, given) if _is_tensor(given) else given)
    if (missing := next((at for at, one in enumerate(found) if one is None), None)) is not None:
        raise TypeError(f"{name}[{missing}] is None; give a text")
    return list(map(str, found))

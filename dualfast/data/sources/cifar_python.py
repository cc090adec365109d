"""CIFAR's Python version: pickles, of which only what such files consist of is understood, and nothing runs.

The published files are of protocol 2, by Python 2; copies that Python 3 wrote are of any protocol up to 5. They hold a
dictionary of numbers, texts, lists of these and arrays of bytes. Of their instructions, which pickletools names, those
that call something are refused, but for the ones with which texts and numpy's arrays are put together; what these do is
done here.
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_RECONSTRUCT, _NDARRAY, _DTYPE = "numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"
_FROM_BUFFER, _ENCODE = "numpy.core.numeric _frombuffer", "_codecs encode"
_KNOWN = (_RECONSTRUCT, _NDARRAY, _DTYPE, _FROM_BUFFER, _ENCODE)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_STRINGS = frozenset({"SHORT_BINSTRING", "BINSTRING"})  # of Python 2: bytes
_BYTES = frozenset({"SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"})
_ATOMS = frozenset({"BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class _Array:
    """An array of bytes that is being put together."""

    values: NDArray[np.uint8] | None = None


class _DType:
    """The type of its values."""


def read(data: bytes) -> dict[str, Any]:
    """The dictionary in a published file: its lists, texts as str, arrays as uint8. ValueError for anything else."""
    try:
        found = _Machine().run(data)
        if isinstance(found, dict):
            return {_text(key): _plain(value) for key, value in found.items()}
        problem = "it is no dictionary"
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        problem = str(error)
    raise ValueError(f"it is not as published ({problem}), and pickles are never loaded")


class _Machine:
    """A stack and a memory, as the protocol describes them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for instruction, argument, _ in pickletools.genops(data):
            self._do(instruction.name, argument)
        (found,) = self.stack
        return found

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _ATOMS:
            stack.append(argument)
        elif name in _STRINGS:
            stack.append(argument.encode("latin-1"))
        elif name in _BYTES:
            stack.append(bytes(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            count = len(stack) - _TUPLES[name]
            stack[count:] = [tuple(stack[count:])]
        elif name in ("EMPTY_LIST", "EMPTY_DICT", "MARK"):
            stack.append({"EMPTY_LIST": [], "EMPTY_DICT": {}, "MARK": _MARK}[name])
        elif name in ("TUPLE", "APPENDS", "SETITEMS"):
            self._collect(name)
        elif name == "APPEND":
            value = stack.pop()
            _kind(stack[-1], list).append(value)
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _kind(stack[-1], dict)[_kind(key, bytes | str)] = value
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memory[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memory[len(self.memory)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memory[argument])
        elif name == "GLOBAL":
            stack.append(_known(argument))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(_known(f"{module} {function}"))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(_made(called, arguments))
        elif name == "BUILD":
            _set_state(stack[-2], stack.pop())
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"{name} {argument}" if argument is not None else name)

    def _collect(self, name: str) -> None:
        """What stands behind the last mark becomes a tuple, or goes into the list or dictionary before it."""
        at = next((i for i in range(len(self.stack) - 1, -1, -1) if self.stack[i] is _MARK), None)
        if at is None:
            raise ValueError(f"{name} without a mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        if name == "TUPLE":
            self.stack.append(tuple(items))
        elif name == "APPENDS":
            _kind(self.stack[-1], list).extend(items)
        else:
            for key, value in zip(items[::2], items[1::2], strict=True):
                _kind(self.stack[-1], dict)[_kind(key, bytes | str)] = value


def _kind(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} where another type belongs")
    return value


def _known(name: str) -> str:
    """A function or type, by its module and name. ValueError for one that does not belong into such a file."""
    name = name.replace("numpy._core.", "numpy.core.")
    if name not in _KNOWN:
        raise ValueError(f"a call of {name.replace(' ', '.')}")
    return name


def _made(called: Any, arguments: Any) -> _Array | _DType | bytes:
    if called == _RECONSTRUCT and _kind(arguments, tuple)[:1] == (_NDARRAY,):
        return _Array()
    if called == _DTYPE and _kind(arguments, tuple)[:1] in ((b"u1",), ("u1",)):
        return _DType()
    if called == _ENCODE:
        text, encoding = _kind(arguments, tuple)
        if encoding == "latin1":
            return _kind(text, str).encode("latin-1")  # type: ignore[no-any-return]
    if called == _FROM_BUFFER:
        data, dtype, shape, order = _kind(arguments, tuple)
        made = _Array()
        _set_state(made, (1, shape, dtype, order == "F", data))
        return made
    raise ValueError("a call of something else than numpy's arrays of bytes")


def _set_state(made: Any, state: Any) -> None:
    if isinstance(made, _DType):  # (3, "|", None, None, None, -1, -1, 0): of a plain type
        return
    _, shape, dtype, fortran, data = _kind(state, tuple)
    _kind(dtype, _DType)
    values = np.frombuffer(_kind(data, bytes), np.uint8)
    _kind(made, _Array).values = values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.values
    if isinstance(value, list):
        return [_text(item) if isinstance(item, bytes) else item for item in value]
    return value

"""Tables of hostile files: what FFCV's decoders would believe is checked on opening, for every field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dualfast.data.beton import Beton
from dualfast.data.beton.format import (
    ALLOCATION,
    ARRAY_ARGUMENTS,
    DESCRIPTOR,
    EXTENT,
    HEADER,
    IMAGE,
    VERSION,
    row_dtype,
)

N, PAGE, SIDE = 6, 1 << 21, 4
SIZE = SIDE * SIDE * 3
TYPES = {"pixels": 2, "bytes": 3, "array": 4, "json": 5, "tensor": 6}
ARRAYS = ("array", "tensor")


def array_arguments(shape: tuple[int, ...], descr: Any) -> NDArray[np.uint8]:
    out = np.zeros(1024, np.uint8)
    fixed = np.zeros(1, ARRAY_ARGUMENTS)
    fixed["shape"][0, : len(shape)] = shape
    text = json.dumps(descr).encode()
    fixed["type_length"] = len(text)
    packed = np.concatenate([fixed.view(np.uint8), np.frombuffer(text, np.uint8)])
    out[: len(packed)] = packed
    return out


class File:
    """The tables of a .beton with an image, a label and one more field of so many bytes, to be changed and written."""

    def __init__(self, kind: str) -> None:
        self.kind, self.descriptors = kind, np.zeros(3, DESCRIPTOR)
        for row, (name, type_id) in zip(
            self.descriptors, (("image", 2), ("label", 1), ("extra", TYPES[kind])), strict=True
        ):
            row["type_id"] = type_id
            row["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        if kind in ARRAYS:
            self.descriptors[2]["arguments"] = array_arguments((SIZE // 2,), [["", "<i2"]])
        third = IMAGE if kind == "pixels" else np.dtype("<u8") if kind in ARRAYS else EXTENT
        self.rows = np.zeros(N, row_dtype((IMAGE, np.dtype("<i8"), third)))
        self.allocations = np.zeros(2 * N, ALLOCATION)
        self.extra = self.rows["f2"]
        for i in range(N):
            at = PAGE + 2 * i * SIZE
            self.allocations[2 * i : 2 * i + 2] = [(i, at, SIZE), (i, at + SIZE, SIZE)]
            self.rows["f0"][i], self.rows["f1"][i] = (1, SIDE, SIDE, at), i % 2
            self.extra[i] = {"pixels": (1, SIDE, SIDE, at + SIZE)}.get(
                kind, at + SIZE if kind in ARRAYS else (at + SIZE, SIZE)
            )

    @property
    def ptr(self) -> Any:
        """The pointers of the third field."""
        return self.extra if self.kind in ARRAYS else self.extra["data_ptr" if self.kind == "pixels" else "ptr"]

    def write(self, path: Path) -> Path:
        end = PAGE + 2 * N * SIZE
        header = np.array([(VERSION, 3, PAGE, N, end)], HEADER)
        head = header.tobytes() + self.descriptors.tobytes() + self.rows.tobytes()
        data = np.arange(2 * N * SIZE).astype(np.uint8).tobytes()
        path.write_bytes(head + bytes(PAGE - len(head)) + data + self.allocations.tobytes())
        return path


@pytest.mark.parametrize("kind", TYPES)
def test_every_field_that_points_is_checked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.beton"
    assert Beton(File(kind).write(path)).field_names == ["image", "label", "extra"]
    for change in (
        lambda ptr: ptr.__setitem__(2, (1 << 60) + 7),  # far outside
        lambda ptr: ptr.__setitem__(2, ptr[2] + 1),  # inside an extent
        lambda ptr: ptr.__setitem__(2, 0),
        lambda ptr: ptr.__setitem__(2, ptr[3]),  # another sample's
    ):
        file = File(kind)
        change(file.ptr)
        with pytest.raises(ValueError, match="pointers of the field 'extra' and the allocation table disagree"):
            Beton(file.write(path))


@pytest.mark.parametrize("kind", ["bytes", "json"])
def test_sizes_of_bytes_are_those_of_the_allocation_table(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.beton"
    for size in (SIZE - 1, SIZE + 1, 1 << 40, 0):
        file = File(kind)
        file.extra["size"][4] = size
        with pytest.raises(ValueError, match="of the field 'extra' and the allocation table disagree"):
            Beton(file.write(path))


def test_empty_values_are_found(tmp_path: Path) -> None:
    """FFCV gives an empty value the address of the next one, or of the data's end."""
    file = File("bytes")
    for row in (1, 2, N - 1):
        file.extra["size"][row] = 0
        file.allocations["size"][2 * row + 1] = 0
    file.extra["ptr"][1] = file.allocations["ptr"][3] = file.rows["f0"]["data_ptr"][2]
    file.extra["ptr"][2] = file.allocations["ptr"][5] = file.rows["f0"]["data_ptr"][3]
    assert Beton(file.write(tmp_path / "x.beton")).n_samples == N
    for ptr in (file.rows["f0"]["data_ptr"][0], file.extra["ptr"][2] + 1, 1 << 62):
        file.extra["ptr"][1] = ptr
        with pytest.raises(ValueError, match="of the field 'extra' and the allocation table disagree"):
            Beton(file.write(tmp_path / "x.beton"))


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_have_the_size_that_their_field_says(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.beton"
    for shape, descr, words in (
        ((SIZE,), [["", "<i2"]], "sizes of the field 'extra'"),
        ((SIZE // 4,), [["", "<i2"]], "sizes of the field 'extra'"),
        ((1 << 62, 1 << 62), [["", "<i2"]], "sizes of the field 'extra'"),
        ((SIZE,), [["", "|O"]], "describe no array"),  # would be read as addresses
        ((SIZE,), [["", "V1"]], "describe no array"),
        ((SIZE,), [["", "i1,i1"]], "describe no array"),
        ((SIZE,), [["", "<i2"], ["b", "<i2"]], "describe no array"),
        ((SIZE,), [[]], "describe no array"),
        ((), [["", "<i2"]], "describe no array"),
        ((SIZE, 0, 3), [["", "<i2"]], "describe no array"),
        ((SIZE,), "[" * 300, "describe no array"),
    ):
        file = File(kind)
        file.descriptors[2]["arguments"] = array_arguments(shape, descr)
        with pytest.raises(ValueError, match=words):
            Beton(file.write(path))
    file.descriptors[2]["arguments"] = 255
    with pytest.raises(ValueError, match="describe no array"):
        Beton(file.write(path))


def test_a_second_image_field_is_checked_like_the_first(tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    for name, value, words in (
        ("width", SIDE + 1, "length differs from its width"),
        ("height", 0, "an image is empty"),
        ("mode", 2, "neither JPEG nor raw"),
    ):
        file = File("pixels")
        file.extra[name][3] = value
        with pytest.raises(ValueError, match=words):
            Beton(file.write(path))


def test_two_fields_of_one_name(tmp_path: Path) -> None:
    file = File("bytes")
    file.descriptors[2]["name"] = file.descriptors[0]["name"]
    with pytest.raises(ValueError, match="two of its fields have one name"):
        Beton(file.write(tmp_path / "x.beton"))

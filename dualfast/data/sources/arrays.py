"""Images and labels in memory, or as the arrays of an .npz file: images and labels, or those of each split, such as
MedMNIST's train_images and train_labels or Keras's x_train and y_train. Pickles are never loaded."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from dualfast.arguments import as_array
from dualfast.data.inventory import Files, Inventory, numbered_texts, some
from dualfast.data.sources.labels import LabelWords, labels_of
from dualfast.data.sources.paths import SPLIT_NAMES, addresses, pick, split_of
from dualfast.data.sources.source import Kind, Source
from dualfast.storage import npy

MAX_RATIO = 1032  # of deflate: bytes from one
UNNAMED = "unnamed"
ROLES_ALONE = ("images", "labels")
ROLES = {"images": ("images", "image", "x", "data"), "labels": ("labels", "label", "y", "targets")}
"""What arrays are called, beside the name of a split; without one, only ROLES_ALONE are meant."""
CLASS_NAMES = frozenset({"class_names", "classes", "label_names", "target_names"})
"""What an array of the names of the classes is called."""
ONE_FILE = (
    "images and labels go into one file: np.savez('data.npz', train_images=np.load(IMAGES)['arr_0'], "
    "train_labels=np.load(LABELS)['arr_0'])"
)
PIECE = 1 << 20  # bytes of an .npz's images that are read at once, or one image


def from_arrays(
    images: Any,
    labels: Any,
    *,
    kind: str = "arrays",
    location: str = "a pair of arrays",
    class_names: Sequence[str] | None = None,
    name: str = "images",
    files: Files | None = None,
) -> Source:
    """images: uint8 of shape (N, H, W) or (N, H, W, 1, 3 or 4), the last with transparency; labels: (N,) or (N, 1),
    numbers or names, as labels_of takes them. class_names: of integer labels; name: of the array, which with its row
    names a sample; files: that they were read from. Raises TypeError for other dtypes, ValueError for other shapes and
    for labels that are not one class per image."""
    spelt = _OF_TENSORS if hasattr(images, "permute") else _OF_ARRAYS
    images, labels = images if isinstance(images, _Stored) else _as_images(images), _as_array(labels)
    if images.dtype != np.uint8:
        raise TypeError(
            f"images are {images.dtype}; they must be uint8, 0 to 255; {_as_bytes(images.dtype, spelt.as_bytes)}"
        )
    shape = (*images.shape, 1) if len(images.shape) == 3 else images.shape
    if len(shape) != 4 or shape[3] not in (1, 3, 4) or 0 in shape[1:3]:
        raise ValueError(
            f"images have the shape {images.shape}; it must be (N, H, W), (N, H, W, 1), (N, H, W, 3) or (N, H, W, 4)"
            f"{_in_shape(images.shape, spelt.channels_last)}"
        )
    n = len(images)
    one_hot = f"; of one-hot rows give labels.argmax(1), ({n},)" if labels.ndim == 2 else ""
    words = LabelWords(
        what=f"labels have the shape {labels.shape}" if labels.ndim != 1 else f"labels are {labels.dtype}",
        describe=lambda row: f"image {row} of {location}",
        way_out=f"give the {n} images' class numbers or names{one_hot}",
    )
    if labels.ndim > 1 and labels.shape == (n, *[1] * (labels.ndim - 1)):
        labels = labels.reshape(n)
    if labels.ndim != 1:
        raise ValueError(words.refusal())
    if len(labels) != n:
        raise ValueError(f"labels have the shape {labels.shape}; {n} images need ({n},)")
    numbers, names = labels_of(labels, words).numbered()
    return Source(
        kind=kind,
        location=location,
        labels=numbers,
        class_names=tuple(class_names) if class_names is not None else names,
        items=lambda: (image.reshape(shape[1:]) for image in images),
        names=lambda: numbered_texts(f"{name}[", n, "]"),
        describe=words.describe,
        inventory=Inventory(files=files or Files.none()),
    )


def _as_images(images: Any) -> NDArray[Any]:
    if isinstance(images, list | tuple):
        _check_pil(images)
    try:
        return as_array("images", images)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError("images are of several sizes; an array has one: resize them, or write class folders") from None


def _check_pil(images: Sequence[Any]) -> None:
    """ValueError for one of Pillow's images whose array is not what it shows: of a palette, CMYK, or to be turned."""
    for at, image in enumerate(images):
        if not hasattr(image, "getexif"):
            return
        if image.mode not in PIL_MODES:
            raise ValueError(f"images[{at}] is of Pillow's mode {image.mode}; give image.convert('RGB')")
        if image.getexif().get(ORIENTATION, 1) != 1:
            raise ValueError(f"images[{at}] is to be turned as its EXIF says; give ImageOps.exif_transpose(image)")


PIL_MODES = ("L", "RGB", "RGBA")
ORIENTATION = 0x0112  # EXIF's tag


class _Spelt(NamedTuple):
    """The operations that a message names, of an array or a tensor."""

    as_bytes: str
    channels_last: str


_OF_ARRAYS = _Spelt(".astype('uint8')", "images.transpose(0, 2, 3, 1)")
_OF_TENSORS = _Spelt(".to(torch.uint8)", "images.permute(0, 2, 3, 1)")


def _as_bytes(dtype: np.dtype[Any], as_bytes: str) -> str:
    """What makes uint8 of another dtype."""
    if dtype.kind == "f":
        return f"of values in 0..1 give (images * 255).round(){as_bytes}, of values in 0..255 images{as_bytes}"
    if dtype.kind in "US":
        return "of names of files write a .csv of files and labels, and give that"
    if dtype.kind == "b":
        return f"give images{as_bytes} * 255"
    return f"give images{as_bytes}, of values of 16 bits (images >> 8){as_bytes}"


def _in_shape(shape: tuple[int, ...], channels_last: str) -> str:
    """What gives images of a foreign shape the one that is read; nothing where that is unknown."""
    if len(shape) == 4 and shape[1] in (1, 3):
        return f"; give {channels_last}"
    side = math.isqrt(shape[1]) if len(shape) == 2 else 0
    return f"; give images.reshape(-1, {side}, {side})" if side and side * side == shape[1] else ""


def _as_array(labels: Any) -> NDArray[Any]:
    try:
        return as_array("labels", labels)
    except ValueError as error:
        if "inhomogeneous" not in str(error):  # lists of several lengths
            raise
        array = np.empty(len(labels), object)
        array[:] = labels
        return array


def _open(path: str, *, image_column: str | None = None, label_column: str | None = None) -> Source:
    path, split = split_of(path)
    names = _names(path)
    found = _pairs(path, names)
    if split is None and (image_column or label_column or not found):
        pair = (image_column or "images", label_column or "labels")
    else:
        pair = pick(path, split, found)
    both = image_column is None and label_column is None
    for argument, name in zip(("image_column", "label_column"), pair, strict=True):
        if name not in names:
            choice = "image_column=NAME and label_column=NAME" if both else f"{argument}=NAME"
            way_out = f"choose with {choice}" if len(names) > 1 else ONE_FILE
            raise ValueError(f"{Path(path)} has no array {name!r}; it has {', '.join(names) or 'none'}; {way_out}")
    with _reading(path), np.load(path, allow_pickle=False) as file:
        images, _ = (_Stored(path, name, file.zip) for name in pair)  # of the labels, too, it checks the extent
        labels = file[pair[1]]
        named = next((name for name in names if name in CLASS_NAMES), None)
        class_names = _class_names(file, named, labels)
    if class_names is not None and labels.max() >= len(class_names):
        raise ValueError(
            f"{path} has the label {labels.max()}, and {named} names {len(class_names)} classes, from 0; name every "
            "class, or number the labels from 0"
        )
    source = from_arrays(
        *(images, labels),
        class_names=class_names,
        kind="npz",
        location=str(Path(path)) if split is None else f"{path}:{split}",
        name=f"{os.path.basename(path)}:{pair[0]}",
        files=Files.of([path]),
    )
    used = {*pair, *(name for both in found.values() for name in both)}
    used |= set() if class_names is None or named is None else {named}
    others = [name for name in names if name not in used]
    remarks = (f"arrays that are not used: {some(others)}",) if others else ()
    return replace(source, inventory=replace(source.inventory, remarks=remarks))


def _class_names(file: Any, name: str | None, labels: NDArray[Any]) -> list[str] | None:
    """The texts of the array that is called so, where they name the numbers in labels; else None."""
    if name is None or labels.dtype.kind not in "iu" or not labels.size:
        return None
    try:
        found = file[name]
        texts = [text.decode() if isinstance(text, bytes) else text for text in found.tolist()]
    except ValueError:  # pickled objects, or no UTF-8
        return None
    return texts if found.ndim == 1 and found.dtype.kind in "US" and labels.min() >= 0 else None


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        text = "; text is saved with labels.astype(str)" if "pickled" in str(error) else ""
        raise ValueError(f"{Path(path)} cannot be read (pickled objects are never loaded): {error}{text}") from None


def _names(path: str) -> list[str]:
    """The names of the arrays in an .npz."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{Path(path)} is not an .npz file")
    with _reading(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _pairs(path: str, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The arrays of images and labels by split, UNNAMED for those whose names say none."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        words = name.lower().split("_")
        split = next((word for word in words if word in SPLIT_NAMES), UNNAMED)
        rest = "_".join(word for word in words if word != split)
        role = next((role for role, usual in ROLES.items() if rest in usual), None)
        if role is not None and (split != UNNAMED or rest in ROLES_ALONE):
            own = found.setdefault(split, {})
            other = own.get(role, name)
            if other.lower() == name.lower() and other != name:
                raise ValueError(f"{path} holds {other} and {name}, which name one array; rename one")
            own[role] = name
    return {split: (own["images"], own["labels"]) for split, own in found.items() if len(own) == len(ROLES)}


def _splits(path: str) -> dict[str, str]:
    try:
        return addresses(path, _pairs(path, _names(path))) if _recognizes(path) else {}
    except ValueError:  # opening it says what is wrong
        return {}


def _recognizes(path: str) -> bool:
    return path.lower().endswith(".npz") and os.path.isfile(path)


class _Stored:
    """An array of an .npz, of which shape and dtype are read at first; its entries, read a piece at a time, come from
    iterating. ValueError when it says that it is larger than what is stored of it can become."""

    def __init__(self, path: str, name: str, archive: zipfile.ZipFile) -> None:
        self.path, self.name = path, name
        self.member = next(info for info in archive.infolist() if info.filename.removesuffix(".npy") == name)
        n_bytes = min(self.member.file_size, MAX_RATIO * self.member.compress_size)
        with archive.open(self.member) as file:
            self.shape, self._fortran, self.dtype = npy.read_header(cast(BinaryIO, file), n_bytes)
            self._start = file.tell()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        with _reading(self.path), np.load(self.path, allow_pickle=False) as archive:
            if self._fortran:  # its entries lie across the whole of it
                yield from archive[self.name]
                return
            with archive.zip.open(self.member) as file:
                file.read(self._start)
                yield from self._entries(file)

    def _entries(self, file: IO[bytes]) -> Iterator[NDArray[Any]]:
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        left, most = len(self), max(1, PIECE // size)
        while left:
            count = min(left, most)
            data = file.read(count * size)
            if len(data) < count * size:
                raise ValueError(f"{self.name} ends before its entry {len(self) - left + len(data) // size:,}")
            left -= count
            yield from np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
        file.read(1)  # the end, at which zipfile compares the checksum


KIND = Kind(
    accepts="an .npz file",
    recognizes=_recognizes,
    open=_open,
    options=("image_column", "label_column"),
    files=lambda path: Files.of([split_of(path)[0]]),
    splits=_splits,
)

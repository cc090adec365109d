"""What can be read: folders of class folders, Parquet, WebDataset tars, .npz files, CIFAR's binary archives, pairs of
arrays, and the digits.

A Source knows its labels and class names up front and yields its images in order, as encoded bytes or uint8 arrays;
decoding is beton.write's work. Nothing outside the data set is opened, and nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

Payload: TypeAlias = bytes | NDArray[np.uint8]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
)
IMAGE_NAMES = ("image", "img", "jpg", "png")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "cls", "y")
ARCHIVES = (".tar.gz", ".tgz")
SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})


@dataclass(frozen=True, kw_only=True)
class Source:
    """One opened data set. labels: (n,) int64, never negative. items() yields the n images in the same order."""

    kind: str
    location: str
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] | None
    items: Callable[[], Iterator[Payload | Exception]]
    describe: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.labels)


def open_source(source: Any) -> Source:
    """Opens what `source` names: "digits" (or "digits:train", "digits:test"), a folder of class folders, a folder of
    Parquet or tar shards, a .parquet, .tar or .npz file, CIFAR's binary .tar.gz (training images; with ":test" added
    the test images), or a pair (images, labels) of arrays, images uint8 of shape (N, H, W) or (N, H, W, 1 or 3).

    Raises ValueError (one line, with the way out) when there is nothing to read, when the image or label column is
    missing, when all labels are equal or one is negative, or when a link or path leads outside the data set; TypeError
    for anything else than the above."""
    if isinstance(source, Source):
        opened = source
    elif isinstance(source, (str, os.PathLike)):
        opened = _open_path(os.fspath(source))
    elif isinstance(source, tuple | list) and len(source) == 2:
        opened = _from_arrays(source[0], source[1], "arrays", "a pair of arrays", None)
    else:
        raise TypeError(
            f'source is a {type(source).__name__}; give a path, "digits", or a pair (images, labels) of arrays'
        )
    return _checked(opened)


def splits(data: str, test: str | None = None) -> tuple[str, str | None]:
    """Where training and test images come from: what `data` names and `test`, or, without `test`, the two parts of
    the digits, of a CIFAR archive, or of a folder that holds train and val (or test), folders or Parquet files. A
    `test` that has two parts itself means its test part."""
    if test is not None and (test == "digits" or test.endswith(ARCHIVES)):
        test += ":test"
    if data == "digits":
        return "digits:train", test or "digits:test"
    if test is None and data.endswith(ARCHIVES):
        return f"{data}:train", f"{data}:test"
    for suffix in ("", ".parquet"):
        if test is None and (train := Path(data, "train" + suffix)).exists():
            for name in ("val", "test", "valid", "validation"):
                if (other := Path(data, name + suffix)).exists():
                    return str(train), str(other)
    return data, test


def digits(split: str = "train") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1,797 handwritten digits: images (n, 8, 8, 3) uint8 scaled from 0..16 to 0..255, labels (n,)
    int64. The split is stratified and fixed: 1,437 for "train", 360 for "test". ValueError for any other split."""
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}; the digits have "train" and "test"')
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    chosen = np.sort(train if split == "train" else test)
    gray = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=3), labels[chosen]


def decode(payload: Payload, *, max_size: int | None = None) -> Image.Image:
    """An RGB Pillow image: gray, CMYK, palette and 16-bit inputs converted, EXIF orientation applied, scaled down to
    max_size (longer side, pixels) when larger. Raises what Pillow raises for a damaged image."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(payload, np.ndarray):
        image: Image.Image = Image.fromarray(payload if payload.shape[-1] == 3 else np.repeat(payload, 3, axis=2))
    else:
        try:
            image = Image.open(io.BytesIO(payload))
        except UnidentifiedImageError:  # whose message is an address in memory
            raise ValueError("it is no image of a known kind") from None
    if image.mode.startswith("I"):  # convert() would clip sixteen bits at 255
        small = image.mode == "I" and image.format == "TIFF"  # 32 bits, of which eight may be used
        image = ImageOps.exif_transpose(image)
        values = np.asarray(image)
        values = values if small and values.max() <= 255 else values >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if max_size is not None and max(image.size) > max_size:
        image.thumbnail((max_size, max_size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    image = ImageOps.exif_transpose(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _checked(source: Source) -> Source:
    if len(source) == 0:
        raise ValueError(f"{source.location} holds no image")
    low = int(source.labels.min())
    if low < 0:
        row = int(np.argmax(source.labels < 0))
        raise ValueError(
            f"{source.describe(row)} has the label {low}; labels start at 0 (unlabelled data cannot be used)"
        )
    if low == int(source.labels.max()):
        name = source.class_names[low] if source.class_names and low < len(source.class_names) else str(low)
        raise ValueError(f"{source.location} holds one class only ({name}); a classifier needs at least two")
    return source


def _open_path(text: str) -> Source:
    if text == "digits" or text.startswith("digits:"):
        split = text.partition(":")[2] or "train"
        images, labels = digits(split)
        return _from_arrays(images, labels, "digits", f"digits ({split})", tuple("0123456789"))
    if text.removesuffix(":train").removesuffix(":test").endswith(ARCHIVES):
        from dualfast.data.sources import cifar

        name, _, split = text.rpartition(":") if text.endswith((":train", ":test")) else (text, "", "train")
        images, labels, names = cifar.read(name, split)
        return _from_arrays(images, labels, "cifar", f"{name} ({split})", names)
    path = Path(text)
    if not path.exists():
        raise ValueError(f'{text} does not exist; give a folder, a .parquet, .tar or .npz file, or "digits"')
    if path.is_dir():
        return _from_folder(path)
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _from_parquet([path])
    if suffix == ".tar":
        return _from_tar([path])
    if suffix == ".npz":
        return _from_npz(path)
    raise ValueError(
        f'{text} is no data set that can be read; give a folder, a .parquet, .tar, .npz or CIFAR .tar.gz, or "digits"'
    )


# ---- folders --------------------------------------------------------------------------------------------------------


def _from_folder(root: Path) -> Source:
    real_root = os.path.realpath(root)
    entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    classes = [e for e in entries if not e.name.startswith(".") and _is_folder(e, real_root)]
    if not classes:
        for suffix, reader in ((".parquet", _from_parquet), (".tar", _from_tar)):
            shards = [root / e.name for e in entries if e.name.lower().endswith(suffix)]
            if shards:
                return reader(_one_split(root, shards))
        raise ValueError(f"{root} holds no class folder; put each class's images into a folder named after it")
    names = tuple(entry.name for entry in classes)
    if all(name.lower() in SPLIT_NAMES for name in names):
        raise ValueError(
            f"{root} holds splits ({', '.join(names)}), not classes; give one of them, as {root / names[0]}"
        )
    files: list[str] = []
    labels: list[int] = []
    for label, entry in enumerate(classes):
        found = _image_files(entry.path, real_root, [])
        files += found
        labels += [label] * len(found)
    if not files:
        raise ValueError(f"{root} holds {len(names)} folders and no image in them")

    def read(path: str) -> Payload | Exception:
        try:
            return Path(path).read_bytes()
        except OSError as error:
            return error

    return Source(
        kind="folder",
        location=str(root),
        labels=np.asarray(labels, np.int64),
        class_names=names,
        items=lambda: map(read, files),
        describe=lambda row: files[row],
    )


def _image_files(folder: str, root: str, above: list[str]) -> list[str]:
    """Images below folder, sorted; above holds the real paths of the folders being walked, so that a loop ends."""
    real = os.path.realpath(folder)
    if real in above:
        return []
    found: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            continue
        if _is_folder(entry, root):
            found += _image_files(entry.path, root, [*above, real])
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            found.append(entry.path)
    return found


def _is_folder(entry: os.DirEntry[str], root: str) -> bool:
    if entry.is_symlink():
        _inside(entry.path, root)
    return entry.is_dir()


def _inside(path: str, root: str) -> str:
    real = os.path.realpath(path)
    if os.path.commonpath((real, root)) != root:
        raise ValueError(f"{path} leads outside the data set, to {real}; copy the file in")
    return real


def _one_split(root: Path, shards: list[Path]) -> list[Path]:
    prefixes = sorted({re.split(r"[-_.]", shard.name, maxsplit=1)[0] for shard in shards} & SPLIT_NAMES)
    if len(prefixes) > 1:
        raise ValueError(
            f"{root} holds shards of several splits ({', '.join(prefixes)}); put each split into its own folder"
        )
    return shards


# ---- Parquet --------------------------------------------------------------------------------------------------------


def _from_parquet(paths: list[Path]) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = paths[0]
    try:
        schema = pq.read_schema(first)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{first} is no Parquet file: {str(error).splitlines()[0]}") from None
    features = _huggingface_features(schema.metadata)
    columns = ", ".join(schema.names)
    image = _image_column(schema, features)
    if image is None:
        raise ValueError(f"{first} has no image column (binary, or a struct of bytes and path); its columns: {columns}")
    label = _label_column(schema, features)
    if label is None:
        raise ValueError(f"{first} has no label column (named label, labels, target or class); its columns: {columns}")
    tables = []
    for path in paths:
        names = pq.read_schema(path).names
        if image not in names or label not in names:
            raise ValueError(
                f"{path} lacks the column {image!r} or {label!r} that {first} has; its columns: {', '.join(names)}"
            )
        tables.append(pq.read_table(path, columns=[label]).column(0))
    starts = np.cumsum([0, *(len(table) for table in tables)])

    def describe(row: int) -> str:
        shard = int(np.searchsorted(starts, row, side="right")) - 1
        return f"row {row - int(starts[shard])} of {paths[shard]}"

    column = pa.chunked_array([chunk for table in tables for chunk in table.chunks], tables[0].type)
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ValueError(f"{describe(row)} has no label; remove unlabelled rows")
    names_known = features.get(label, {}).get("names")
    if pa.types.is_integer(column.type):
        labels = column.to_numpy().astype(np.int64)
        class_names = tuple(map(str, names_known)) if names_known else None
    else:
        found, labels = np.unique(np.asarray(column.to_pylist(), dtype=str), return_inverse=True)
        class_names = tuple(map(str, found))

    def items() -> Iterator[Payload | Exception]:
        for path in paths:
            folder = os.path.realpath(path.parent)
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256, columns=[image]):
                    for cell in batch.column(0):
                        yield _cell_bytes(cell.as_py(), folder)

    return Source(
        kind="parquet",
        location=str(first if len(paths) == 1 else first.parent),
        labels=labels.astype(np.int64),
        class_names=class_names,
        items=items,
        describe=describe,
    )


def _huggingface_features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _image_column(schema: Any, features: dict[str, Any]) -> str | None:
    import pyarrow as pa

    def holds_images(field: Any) -> bool:
        kind = field.type
        if pa.types.is_struct(kind):
            return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    able = [field.name for field in schema if holds_images(field)]
    declared = [name for name in able if features.get(name, {}).get("_type") == "Image"]
    return next(iter([*declared, *(n for n in IMAGE_NAMES if n in able), *able]), None)


def _label_column(schema: Any, features: dict[str, Any]) -> str | None:
    import pyarrow as pa

    def holds_labels(field: Any) -> bool:
        return bool(
            pa.types.is_integer(field.type) or pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        )

    able = [field.name for field in schema if holds_labels(field)]
    declared = [name for name in able if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in LABEL_NAMES if name in able]
    both = [name for name in named if name in declared]
    return next(iter([*both, *declared, *named]), None)


def _cell_bytes(cell: Any, folder: str) -> Payload | Exception:
    if isinstance(cell, bytes):
        return cell
    if isinstance(cell, dict) and cell.get("bytes") is not None:
        return bytes(cell["bytes"])
    path = cell.get("path") if isinstance(cell, dict) else None
    if not path:
        return ValueError("the image is empty")
    try:
        return Path(_inside(os.path.join(folder, path), folder)).read_bytes()
    except OSError as error:
        return error


# ---- WebDataset -----------------------------------------------------------------------------------------------------


def _from_tar(paths: list[Path]) -> Source:
    """Members that share the name before the first dot form a sample: an image and .cls (an integer or a class name) or
    .json (with the key label or cls). Read with tarfile: members are never extracted, and only files count, hard
    links among them."""
    images: list[tuple[Path, int, int, str]] = []
    values: list[str] = []
    for path in paths:
        files: dict[str, tarfile.TarInfo] = {}
        found: dict[str, tuple[int, int, str]] = {}
        labels: dict[str, str] = {}
        try:
            with tarfile.open(path, "r:") as tar, path.open("rb") as file:
                for member in tar:
                    if member.islnk() and member.linkname not in files:
                        raise ValueError(f"{member.name} in {path} links to {member.linkname}, which is not before it")
                    if not (member.isfile() or member.islnk()):
                        continue
                    data = files[member.name] = files[member.linkname] if member.islnk() else member
                    folder, _, base = member.name.rpartition("/")
                    stem, _, extension = base.partition(".")
                    key = f"{folder}/{stem}"
                    if "." + extension.lower().rpartition(".")[2] in IMAGE_SUFFIXES:
                        if key in found and found[key][2] != member.name:
                            raise ValueError(
                                f"{found[key][2]} and {member.name} in {path} are two images of one sample; leave one"
                            )
                        found[key] = (data.offset_data, data.size, member.name)
                    elif extension.lower() in ("cls", "json"):
                        value = _tar_label(file, data, extension.lower())
                        if value is not None:
                            labels[key] = value
        except tarfile.TarError as error:
            raise ValueError(f"{path} is no tar file that can be read: {error}") from None
        for key, (offset, size, name) in found.items():
            if key not in labels:
                raise ValueError(
                    f"{name} in {path} has no label; put a .cls or .json member of the same name beside it"
                )
            images.append((path, offset, size, name))
            values.append(labels[key])
    if not images:
        raise ValueError(f"{paths[0]} holds no image")
    if all(re.fullmatch(r"-?\d+", value) for value in values):
        try:
            numbers, names = np.asarray([int(value) for value in values], np.int64), None
        except OverflowError:
            row = max(range(len(values)), key=lambda row: abs(int(values[row])))
            raise ValueError(
                f"{images[row][3]} in {images[row][0]} has the label {values[row]}; give the class's number"
            ) from None
    else:
        unique, inverse = np.unique(np.asarray(values), return_inverse=True)
        numbers, names = inverse.astype(np.int64), tuple(map(str, unique))

    def items() -> Iterator[Payload | Exception]:
        current: BinaryIO | None = None
        opened: Path | None = None
        try:
            for path, offset, size, _ in images:
                if path != opened or current is None:
                    if current is not None:
                        current.close()
                    current, opened = path.open("rb"), path
                current.seek(offset)
                data = current.read(size)
                yield data if len(data) == size else ValueError("the tar file ends inside it")
        finally:
            if current is not None:
                current.close()

    return Source(
        kind="webdataset",
        location=str(paths[0] if len(paths) == 1 else paths[0].parent),
        labels=numbers,
        class_names=names,
        items=items,
        describe=lambda row: f"{images[row][3]} in {images[row][0]}",
    )


def _tar_label(file: BinaryIO, member: tarfile.TarInfo, extension: str) -> str | None:
    file.seek(member.offset_data)
    text = file.read(min(member.size, 1 << 20)).decode("utf-8", "replace").strip()
    if extension == "cls":
        return text
    try:
        record = json.loads(text)
    except ValueError:
        return None
    value = record.get("label", record.get("cls")) if isinstance(record, dict) else None
    return str(value) if isinstance(value, int | str) else None


# ---- arrays ---------------------------------------------------------------------------------------------------------


def _from_npz(path: Path) -> Source:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            names = list(file.keys())
            arrays = {name: file[name] for name in ("images", "labels") if name in names}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read (pickled objects never are): {error}") from None
    for name in ("images", "labels"):
        if name not in arrays:
            raise ValueError(f"{path} has no array {name!r}; it has {', '.join(names) or 'none'}")
    return _from_arrays(arrays["images"], arrays["labels"], "npz", str(path), None)


def _from_arrays(images: Any, labels: Any, kind: str, location: str, names: Sequence[str] | None) -> Source:
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise TypeError(f"images are {images.dtype}; they must be uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:3]:
        raise ValueError(f"images have the shape {images.shape}; it must be (N, H, W), (N, H, W, 1) or (N, H, W, 3)")
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(f"labels have the shape {labels.shape}; {len(images)} images need ({len(images)},)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"labels are {labels.dtype}; they must be integers")
    return Source(
        kind=kind,
        location=location,
        labels=labels.astype(np.int64),
        class_names=tuple(names) if names is not None else None,
        items=lambda: iter(images),
        describe=lambda row: f"image {row} of {location}",
    )

"""Which columns of a Parquet file hold the images and the labels: those that were named, else those whose metadata,
name and type say so. What could be meant in two ways is an error that lists the candidates."""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

from dualfast.data.columns import IMAGE_NAMES, LABEL_NAMES, has_usual_name, is_class_name, remark, the_one
from dualfast.data.images import decode
from dualfast.data.sources.labels import ONE_CLASS

AN_IMAGE = "an image is binary, or a struct of bytes and path, as Hugging Face writes it"
LABEL_WAY_OUT = "name a column of class numbers or class names with label_column=NAME"
PIXELS = (
    "; of pixels in lists np.savez('data.npz', train_images=np.stack(IMAGES).astype('uint8'), train_labels=LABELS) "
    "makes an .npz, which is read"
)
TRIED_ROWS = 8  # values of a binary column that are decoded to see whether they are images
PATH_NAMES = (("file_name", "filename", "file", "path", "filepath", "image_path"),)
BINARY = ("binary", "large_binary", "binary_view")
TEXT = ("string", "large_string", "string_view")


class Columns(NamedTuple):
    """The names of the image and the label column, the class names that Hugging Face's metadata declare, and sentences
    on columns that could be meant, too."""

    image: str
    label: str
    class_names: tuple[str, ...] | None
    remarks: tuple[str, ...] = ()


def choose(file: Any, path: object, image_column: str | None, label_column: str | None) -> Columns:
    """The columns of an open pyarrow.parquet.ParquetFile: those given, else those found. ValueError, naming `path`,
    when there is none, more than one, or one of a type that cannot be used."""
    schema = file.schema_arrow
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ValueError(f"{path} has several columns called {', '.join(twice)}; rename them")
    for argument, name in (("image_column", image_column), ("label_column", label_column)):
        if name is not None and name not in schema.names:
            raise ValueError(f"{argument} is {name!r}; {path} has the columns {columns_text(schema)}")
    features = declared_features(schema)
    image, images = (image_column, ()) if image_column else _image_column(file, path, features)
    label, labels = (label_column, ()) if label_column else _label_column(schema, path, features)
    columns = Columns(image, label, _class_names(features, label), images + labels)
    check(schema, path, columns)
    return columns


def check(schema: Any, path: object, columns: Columns) -> None:
    """ValueError, naming `path`, unless it has these columns, of types that can be used, and declares these names."""
    for name in (columns.image, columns.label):
        if name not in schema.names:
            raise ValueError(f"{path} lacks the column {name!r}; its columns: {columns_text(schema)}")
    image, label = schema.field(columns.image), schema.field(columns.label)
    if not _holds_images(image.type):
        raise _not_images(path, image)
    if not _holds_labels(label.type):
        raise ValueError(f"{path}: {label.name} is {type_text(label.type)}; {ONE_CLASS}; {LABEL_WAY_OUT}")
    names = _class_names(declared_features(schema), columns.label)
    if names and columns.class_names and names != columns.class_names:
        raise ValueError(
            f"{path} declares the class names {_few(names)} for {columns.label}, and the first shard "
            f"{_few(columns.class_names)}; write all shards with the same features"
        )


def columns_with_paths(schema: Any) -> list[str]:
    """The names of the columns whose images may be named by a path instead of their bytes."""
    import pyarrow as pa

    structs = [field for field in schema if pa.types.is_struct(field.type) and _holds_images(field.type)]
    return [field.name for field in structs if field.type.get_field_index("path") >= 0]


def type_text(kind: Any) -> str:
    """An Arrow type as messages name it: list<int64>."""
    text = re.sub(r"<(element|item): ", "<", str(kind))
    return text if len(text) <= 60 else text[:57] + "..."


def columns_text(schema: Any) -> str:
    """The columns and their types, for messages."""
    shown = [f"{field.name} ({type_text(field.type)})" for field in schema][:20]
    return ", ".join(shown) + (", ..." if len(schema) > len(shown) else "")


# ---- choosing -------------------------------------------------------------------------------------------------------


def declared_features(schema: Any) -> dict[str, Any]:
    """Hugging Face's description of the columns by name; empty where there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _class_names(features: dict[str, Any], label: str) -> tuple[str, ...] | None:
    names = features.get(label, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _not_images(path: object, field: Any) -> ValueError:
    hint = _of_paths(path) if str(field.type) in TEXT else PIXELS if _holds_pixels(field.type) else ""
    return ValueError(f"{path}: {field.name} is {type_text(field.type)}; {AN_IMAGE}{hint}")


def _of_paths(path: object) -> str:
    return (
        f"; of a table of files give their folder, with labels={str(path)!r}, or put them into it with datasets' "
        "cast_column(name, Image())"
    )


def _of_shards(path: object) -> str:
    """What to give where the images are in tar files beside, as img2dataset writes them."""
    folder = os.path.dirname(str(path))
    has_shards = any(name.endswith(".tar") for name in os.listdir(folder or "."))
    return f"; of the .tar files beside it give {os.path.join(folder, '*.tar')!r}" if has_shards else ""


def _image_column(file: Any, path: object, features: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    import pyarrow as pa

    schema = file.schema_arrow
    declared = {name: feature.get("_type") for name, feature in features.items()}  # Audio is a struct of bytes, too
    fields = [f for f in schema if _holds_images(f.type) and declared.get(f.name) in (None, "Image", "Value")]
    structs = [field.name for field in fields if pa.types.is_struct(field.type)]
    binary = [field.name for field in fields if field.name not in structs]
    images = [field.name for field in fields if declared.get(field.name) == "Image"]
    named = [field for field in schema if has_usual_name(field.name, IMAGE_NAMES)]
    usual = [field.name for field in named if field.name in binary]
    found = images or structs or usual or [name for name in binary if _first_values_decode(file, name)]
    if found:
        name = the_one(found, IMAGE_NAMES, path, "image columns", "image_column")
        others = [*found, *(one for one in binary if one not in found)] if name in binary else found
        return name, remark(others, name, "image columns", "image_column")
    if named:
        raise _not_images(path, named[0])
    undecoded = f" (the first values of {', '.join(binary)} are not images)" if binary else ""
    files = [field for field in schema if str(field.type) in TEXT and has_usual_name(field.name, PATH_NAMES)]
    ways = f"{_of_paths(path) if files else ''}{_of_shards(path)}"
    raise ValueError(f"{path} has no image column{undecoded}; {AN_IMAGE}{ways}; its columns: {columns_text(schema)}")


def _label_column(schema: Any, path: object, features: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    names = [field.name for field in schema]
    declared = [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    usual = [name for name in names if has_usual_name(name, LABEL_NAMES)]
    usable = {field.name for field in schema if _holds_labels(field.type)}
    for found in ([name for name in declared if name in usual], declared, usual):
        if found:
            usable_ones = [name for name in found if name in usable]
            label = the_one(usable_ones or found[:1], LABEL_NAMES, path, "label columns", "label_column")
            others = [name for name in names if name in usable and (name in (*declared, *usual) or is_class_name(name))]
            return label, remark(others, label, "label columns", "label_column")
    raise ValueError(
        f"{path} has no label column (named label, labels, target or class); {LABEL_WAY_OUT}; its columns: "
        f"{columns_text(schema)}"
    )


def _first_values_decode(file: Any, name: str) -> bool:
    """Whether one of the first values of a binary column is an image."""
    batch = next(file.iter_batches(TRIED_ROWS, columns=[name]), None)
    return batch is not None and any(map(_decodes, batch.column(0).drop_null().to_pylist()))


def _decodes(value: bytes) -> bool:
    try:
        decode(value)
    except Exception:  # whatever Pillow raises
        return False
    return True


# ---- types ----------------------------------------------------------------------------------------------------------


def _value_type(kind: Any) -> Any:
    """What a dictionary or an extension type holds; other types themselves."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return _value_type(kind.storage_type)
    return _value_type(kind.value_type) if pa.types.is_dictionary(kind) else kind


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    kind = _value_type(kind)
    if pa.types.is_struct(kind):
        parts = {kind.field(i).name: _value_type(kind.field(i).type) for i in range(kind.num_fields)}
        return "bytes" in parts and (str(parts["bytes"]) in BINARY or pa.types.is_null(parts["bytes"]))
    return str(kind) in BINARY


def _holds_pixels(kind: Any) -> bool:
    """Whether they are lists of lists, as Array3D's are, too."""
    import pyarrow as pa

    def is_list(kind: Any) -> bool:
        return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))

    kind = _value_type(kind)
    return is_list(kind) and is_list(kind.value_type)


def _holds_labels(kind: Any) -> bool:
    import pyarrow as pa

    kind, is_ = _value_type(kind), pa.types
    number = is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind) or is_.is_decimal(kind)
    return bool(number or is_.is_null(kind) or is_.is_fixed_size_binary(kind) or str(kind) in (*TEXT, *BINARY))

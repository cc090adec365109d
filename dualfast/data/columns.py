"""The usual names of image and label columns, and choosing the one that is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

IMAGE_NAMES = (("image",), ("img", "jpg", "png"))
LABEL_NAMES = (("label",), ("fine_label",), ("labels", "target", "targets", "class", "cls", "y"), ("coarse_label",))
"""In any case; a name wins over those in later groups, and is ambiguous beside one of its own."""

FILE_NAMES = (
    ("file_name", "filename", "file", "path", "filepath", "image_path", "filenames", "files", "paths", "filepaths"),
    ("image", "image_id", "imageid", "image_name", "imagename", "img", "img_id", "img_name", "images", "name"),
    ("id", "id_code"),
)
"""Of the files in a table of labels, likewise."""
CLASS_NAMES = ("class", "classname", "labelname", "labeltext", "category", "categoryname")
"""The names of columns that name the class whose number is in the label column, without _ and spaces."""
FOLDS = {"fold", "folds", "kfold"}
"""The names of columns that number the parts of a cross-validation, in lower case."""
DOUBTFUL = {"usage", "set", "phase", "data_set", "dataset"}
SPLIT_COLUMNS = DOUBTFUL | {
    *("split", "splits", "subset", "partition", "is_train", "is_valid", "is_test", "is_val", "train_test"),
}
"""The names of columns that say which split a row is of, in lower case; the doubtful ones may tell something else."""
Names = tuple[tuple[str, ...], ...]


def has_usual_name(name: str, usual: Names) -> bool:
    return any(name.lower() in group for group in usual)


def is_class_name(name: str) -> bool:
    return re.sub(r"[ _-]", "", name.lower()) in CLASS_NAMES


def the_one(found: Sequence[str], usual: Names, path: object, what: str, argument: str) -> str:
    """The only column found, or the one whose name wins. ValueError, naming the argument that chooses, when that is
    open. what: "label columns"."""
    winning = winners(found, usual)
    if len(winning) == 1:
        return winning[0]
    raise ValueError(f"{path} has several {what}: {', '.join(winning)}; choose with {argument}={winning[0]!r}")


def remark(found: Sequence[str], used: str, what: str, argument: str) -> tuple[str, ...]:
    """A sentence on the columns that could be meant beside the one in use; none where there are none."""
    others = [name for name in found if name not in (used, "")]  # "" is an index
    return (f"{what}: {used} is used, {', '.join(others)} not; {argument}=NAME chooses",) if others else ()


def winners(found: Sequence[str], usual: Names) -> Sequence[str]:
    """Those of the first group of `usual` that has any; all where none has a usual name."""
    groups = ([name for name in found if name.lower() in group] for group in usual)
    return next((group for group in groups if group), found)

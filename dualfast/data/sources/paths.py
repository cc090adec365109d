"""Folders of a data set: classes, shards, splits. Links must stay inside the data set."""

from __future__ import annotations

import os
import re
from pathlib import Path

SPLIT_NAMES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
JUNK = frozenset(
    {
        *("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", ".ipynb_checkpoints"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store"),
    }
)
"""Files and folders that archivers and operating systems leave behind, lower case."""


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is left behind by an archiver or an operating system: ._x.jpg,
    Thumbs.db."""
    return name.startswith("._") or name.lower() in JUNK


def is_hidden(name: str) -> bool:
    """Whether it is not looked into: hidden, or junk."""
    return name.startswith(".") or is_junk(name)


def inside(path: str, root: str) -> str:
    """The real path of `path`. ValueError when it is outside `root`, a real path."""
    real = os.path.realpath(path)
    if os.path.commonpath((real, root)) != root:
        raise ValueError(f"{path} leads outside the data set, to {real}; copy the file into it")
    return real


def is_folder(entry: os.DirEntry[str], root: str) -> bool:
    """Whether the entry is a folder. ValueError when it is a link that leads outside `root`, a real path."""
    if entry.is_symlink():
        inside(entry.path, root)
    return entry.is_dir()


def subfolders(root: str) -> list[os.DirEntry[str]]:
    """The folders in `root` that are neither hidden nor junk, sorted by name."""
    real = os.path.realpath(root)
    found = [entry for entry in os.scandir(root) if not is_hidden(entry.name) and is_folder(entry, real)]
    return sorted(found, key=lambda entry: entry.name)


def shards(path: str, suffix: str) -> list[Path]:
    """The file at `path` when its name ends in `suffix`, or the sorted files that do in a folder without subfolders; an
    empty list for anything else."""
    if not os.path.isdir(path):
        return [Path(path)] if path.lower().endswith(suffix) and os.path.isfile(path) else []
    names = sorted(name for name in os.listdir(path) if name.lower().endswith(suffix) and not is_hidden(name))
    found = [Path(path, name) for name in names]
    if not found or subfolders(path):
        return []
    odd = next((file for file in found if file.exists() and not file.is_file()), None)
    if odd is not None:
        raise ValueError(f"{odd} is not a regular file; remove it")
    return found


def check_one_split(paths: list[Path]) -> list[Path]:
    """The shards themselves. ValueError when their names say that they belong to several splits."""
    prefixes = sorted({re.split(r"[-_.]", path.name, maxsplit=1)[0] for path in paths} & SPLIT_NAMES)
    if len(prefixes) > 1:
        raise ValueError(
            f"{paths[0].parent} holds shards of several splits ({', '.join(prefixes)}); "
            "put each split into its own folder"
        )
    return paths


def location(paths: list[Path]) -> str:
    """What messages call a set of shards: the file, or the folder when there are several."""
    return str(paths[0] if len(paths) == 1 else paths[0].parent)

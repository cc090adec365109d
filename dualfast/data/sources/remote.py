"""Data sets behind a URL that fsspec opens (s3://, gs://, https://, hf://datasets/...): copied into a cache, then read
as what they are. A copy is used as long as the names and sizes there are the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from dualfast.errors import MissingPackage
from dualfast.storage.files import write_text

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
LISTING = "listing.json"


def is_url(path: str) -> bool:
    """Whether it is a URL, which is fetched."""
    return URL.match(path) is not None


def fetch(url: str) -> str:
    """The local copy of what lies behind a URL: of a file, of all files below a folder, or of those that a pattern
    names, which make a folder. ValueError when it cannot be read, MissingPackage for what reads it."""
    try:
        import fsspec
    except ImportError:
        raise MissingPackage(f"{url} needs the package fsspec; pip install 'dualfast[hub]' installs it") from None
    try:
        system, path = fsspec.core.url_to_fs(url)
        return _fetch(system, path.rstrip("/"), url)
    except ImportError as error:
        package = PACKAGES.get(url.partition(":")[0].lower())
        hint = f"pip install {package} installs what reads it" if package else str(error)
        raise MissingPackage(f"{url} cannot be opened; {hint}") from None
    except Exception as error:  # of any library behind fsspec
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{url} cannot be read: {reason}") from None


def _fetch(system: Any, path: str, url: str) -> str:
    is_pattern = any(mark in path for mark in "*?[")
    is_file = not is_pattern and system.isfile(path)
    found = [path] if is_file else sorted(system.glob(path) if is_pattern else system.find(path))
    if not found:
        raise ValueError("nothing is there")
    root = os.path.commonpath([name.rpartition("/")[0] for name in found]) if is_pattern or is_file else path
    home = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = home / (os.path.basename(root) or "data")
    places = {name: _inside(target, name[len(root) :].lstrip("/")) for name in found}
    contents = json.dumps([[name, system.info(name).get("size")] for name in found])
    listing = home / LISTING
    if not listing.is_file() or listing.read_text(encoding="utf-8") != contents:
        listing.unlink(missing_ok=True)
        for name, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(place))
        write_text(listing, contents)
    return str(places[path] if is_file else target)


def _inside(folder: Path, name: str) -> Path:
    """The place of a file in the copy. ValueError for a name that would lead out of it."""
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(f"the name {name!r} leads out of it")
    return folder / name


def cache_folder() -> Path:
    """Where copies are kept: $DUALFAST_CACHE, or dualfast in $XDG_CACHE_HOME or ~/.cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("DUALFAST_CACHE") or Path(caches, "dualfast")).expanduser()

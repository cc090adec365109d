"""Data sets behind a URL that fsspec opens (s3://, gs://, https://, hf://datasets/...): copied into a cache, then read
as what they are. The copy holds the files that are there now; one is copied again when its size, time or checksum, as
far as the file system tells them, are others."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

from dualfast.data.sources.paths import shared_levels
from dualfast.errors import MissingPackage
from dualfast.notices import warn
from dualfast.storage.files import write_text

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.I)
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}
ADDRESS = "url.txt"  # beside a copy: of what it is
PART = ".part-"
CONTACT_SECONDS = 30
FACTS = (
    *("size", "mtime", "modified", "lastmodified", "updated", "created", "timecreated", "creationtime", "timemodified"),
    *("etag", "checksum", "md5", "md5hash", "contentmd5", "digest", "crc", "crc32c", "sha", "sha256", "generation"),
    *("versionid", "blobid", "xethash"),
)
"""What tells a file from one that takes its place, as the file systems of fsspec call it, in lower case letters."""


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
    is_query = path.startswith(("http://", "https://"))  # where ? begins one
    is_pattern = any(mark in path for mark in ("*[" if is_query else "*?["))
    is_file = _answered(lambda: system.isfile(path)) and not is_pattern
    if is_file:
        found = {path: system.info(path)}
    else:
        found = system.glob(path, detail=True) if is_pattern else system.find(path, detail=True)
    if not found:
        raise ValueError(_why_empty(system, path))
    folders = [name.split("/")[:-1] for name in found]
    root = "/".join(shared_levels(folders)) if is_pattern or is_file else path  # commonpath makes http:/ of http://
    home = cache_folder() / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = home / (re.sub(r"[^\w.-]", "_", os.path.basename(root)) or "data")
    inside = {name: name[len(root) :].lstrip("/") for name in sorted(found)}
    copies = {_inside(target, at.partition("?")[0] if is_query else at): name for name, at in inside.items()}
    target.mkdir(parents=True, exist_ok=True)
    write_text(home / ADDRESS, _root_url(system, root, url, is_pattern, is_file))
    _delete_others(target, copies)
    silent = 0
    for copy, name in copies.items():
        facts = _facts(found[name])
        if not facts.keys() - {"size"}:  # listings of web pages hold less
            facts = _facts(system.info(name))
            silent += not facts.keys() - {"size"}
        _update(system, name, facts, copy)
    if silent:
        warn(
            f"{url} tells of {silent:,} files their size alone: a file that is replaced by one of the same size is not "
            f"noticed; delete {home} to copy them again"
        )
    return str(next(iter(copies)) if is_file else target)


def _answered(ask: Callable[[], Any]) -> Any:
    """What the first question to a server returns. TimeoutError where it says nothing for CONTACT_SECONDS: some file
    systems wait for many minutes."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(CONTACT_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"it cannot be reached: no answer within {CONTACT_SECONDS} s") from None


def _why_empty(system: Any, path: str) -> str:
    """Why a file system that keeps its errors for itself finds nothing: the server cannot be reached, or has nothing
    there."""
    try:
        system.info(path)
    except Exception as error:
        cause = error.__cause__
        if cause is not None and getattr(cause, "status", None) not in (404, 410):
            return f"it cannot be reached: {' '.join(str(cause).split())[:300] or type(cause).__name__}"
    return "nothing is there"


def _facts(info: Mapping[str, Any]) -> dict[str, str]:
    """What a file system tells of a file that another one in its place would not share."""
    plain = {re.sub("[^a-z0-9]", "", str(key).lower()): value for key, value in info.items()}
    return {key: str(plain[key]) for key in FACTS if plain.get(key) is not None}


def _update(system: Any, name: str, facts: Mapping[str, str], copy: Path) -> None:
    """Copies a file unless the copy is of one with these facts. Their hash is its time, in whole even seconds, which
    every file system keeps: a copy that is made again is not taken for another file, nor another file for this one."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()
    time = int.from_bytes(digest[:4], "big") >> 3 << 1
    if copy.is_file() and copy.stat().st_mtime_ns == time * 10**9:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.parent / f"{PART}{os.getpid()}"
    system.get_file(name, str(part))
    os.utime(part, (time, time))
    os.replace(part, copy)


def _delete_others(folder: Path, copies: Container[Path]) -> None:
    """Deletes what is in a folder beside the copies, and folders that are left empty: of files that are gone, or whose
    copying was ended."""
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if (file := Path(place, name)) not in copies:
                file.unlink()
        for name in folders:
            with suppress(OSError):  # it holds copies
                Path(place, name).rmdir()


# ---- names ----------------------------------------------------------------------------------------------------------


def _root_url(system: Any, root: str, url: str, is_pattern: bool, is_file: bool) -> str:
    """The URL of the folder that was copied."""
    if is_pattern:
        return str(system.unstrip_protocol(root))
    return url.rpartition("/")[0] if is_file else url.rstrip("/")


def with_urls(text: str) -> str:
    """The text, with the URL for the path of each copy."""
    copy = re.compile(rf"{re.escape(str(cache_folder()))}/([0-9a-f]{{16}})/[^/\s:;,'\"]+")
    return copy.sub(lambda found: _url_of(found[1]) or found[0], text)


def _url_of(home: str) -> str | None:
    try:
        return (cache_folder() / home / ADDRESS).read_text(encoding="utf-8")
    except OSError:
        return None


@contextmanager
def named_by_url() -> Iterator[None]:
    """In the ValueErrors of the block, copies have the names of what they are of."""
    try:
        yield
    except ValueError as error:
        text = with_urls(str(error))
        if text == str(error):
            raise
        raise ValueError(text) from None


def _inside(folder: Path, name: str) -> Path:
    """The place of a file in the copy. ValueError for a name that would lead out of it."""
    if os.path.isabs(name) or ".." in name.split("/"):
        raise ValueError(f"the name {name!r} leads out of it")
    return folder / name


def cache_folder() -> Path:
    """Where copies are kept: $DUALFAST_CACHE, or dualfast in $XDG_CACHE_HOME or ~/.cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("DUALFAST_CACHE") or Path(caches, "dualfast")).expanduser()

"""What is at the path of a .beton that is to be written: nothing, what writing would make again, or something else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from dualfast.data import sources
from dualfast.data.beton import checksums
from dualfast.data.beton.publish import Written
from dualfast.data.beton.reader import Beton, open_beton
from dualfast.data.images import Payload
from dualfast.data.inventory import changes
from dualfast.data.names import path_of
from dualfast.data.sources.paths import split_of

Options = Mapping[str, Any]


def already_there(
    path: Path, source: sources.Source, options: Options, *, skip_bad: bool, rewrite: bool
) -> Written | None:
    """The .beton at `path` if it was made of these data with these options; None where it is to be written.

    ValueError where a file there is no .beton, and, unless it is to be replaced, for a .beton of other data or with
    other options."""
    is_beton = path.suffix == ".beton"
    if not path.is_file() or not path.stat().st_size or (rewrite and is_beton):
        return None
    way_out = "rewrite=True replaces it, another path keeps it" if is_beton else "give another path, or delete it"
    try:
        found = open_beton(path)
        made_of, _ = found.made_of, found.sidecar
    except ValueError as error:
        raise ValueError(f"{path} exists and cannot be read as a .beton ({error}); {way_out}") from None
    with closing(found):
        if rewrite:
            return None
        now = source.inventory.files
        if not found.sidecar or (not len(made_of) and (len(now) or found.sidecar.get("content") is None)):
            raise ValueError(f"{path} does not tell which files it was made of; {way_out}")
        if len(made_of) and (change := changes(made_of, now) if len(now) else "these come from memory"):
            raise ValueError(f"{path} was made of other data than {source.location} holds now: {change}; {way_out}")
        if change := _other_samples(found, source) or _other_options(found.sidecar, options):
            raise ValueError(f"{path} {change}; {way_out}")
        skipped = found.sidecar.get("skipped") or []
        is_whole = path_of(path).is_file() and checksums.path_of(path).is_file()
        if not is_whole or (found.n_samples < len(source) and not skip_bad):
            return None
        return Written(
            path, found.n_samples, found.class_names, found.bytes, found.fingerprint, tuple(map(str, skipped)), True
        )


def _other_samples(found: Beton, source: sources.Source) -> str | None:
    """How the samples differ from those of the source, whose files are the same, or which has none."""
    before = found.sidecar.get("made_from") or {}
    splits = [[split_of(str(path))[1] for path in paths] for paths in (before.get("paths") or (), source.paths or ())]
    if len(found.made_of) and before and splits[0] != splits[1]:
        parts = [", ".join(split or "all" for split in found) or "all" for found in splits]
        return f"was made of the part {parts[0]} of these data, and {source.location} is the part {parts[1]}"
    if found.class_names != source.class_names:
        return f"was made of other classes than {source.location} holds now"
    if not len(found.made_of) and found.sidecar["content"] != content_of(source):
        count, now = found.n_samples, len(source)
        what = f"{count:,} images, and these are {now:,}" if count != now else "other images or labels"
        return f"was made of other data than {source.location} holds now: {what}"
    if found.n_samples == len(source) and not np.array_equal(found.labels, source.labels):
        row = int(np.flatnonzero(found.labels != source.labels)[0])
        return f"has other labels than {source.location} gives now: the first at {source.describe(row)}"
    return None


def _other_options(sidecar: Mapping[str, Any], options: Options) -> str | None:
    """Which options of write differ. None where they are not noted, as by earlier versions."""
    before = sidecar.get("options")
    if not isinstance(before, dict):
        return None
    differ = [name for name in options if name in before and before[name] != options[name]]
    if not differ:
        return None
    was, now = (", ".join(_text(name, given[name]) for name in differ) for given in (before, options))
    return f"was written with {was}, and this asks for {now}"


def _text(name: str, value: object) -> str:
    return f"no {name}" if value is None else f"{name}={value}"


# ---- what the samples are -------------------------------------------------------------------------------------------


def content_of(source: sources.Source) -> str:
    """A hash of what the source yields, and of its labels."""
    digest = content_digest(source)
    for payload in source.items():
        digest.update(payload_crc(payload).to_bytes(4, "little"))
    return digest.hexdigest()


def content_digest(source: sources.Source) -> hashlib.blake2b:
    """The beginning of content_of, which the checksums of the payloads, 4 bytes each, complete."""
    return hashlib.blake2b(source.labels.tobytes(), digest_size=16)


def payload_crc(payload: Payload | Exception) -> int:
    if isinstance(payload, np.ndarray):
        return crc32(np.ascontiguousarray(payload).data, _shape_crc(payload.shape))
    return crc32(payload if isinstance(payload, bytes) else str(payload).encode())


@lru_cache
def _shape_crc(shape: tuple[int, ...]) -> int:
    return crc32(str(shape).encode())


def made_from(source: sources.Source) -> dict[str, Any] | None:
    """How the source was opened, as PATH.json keeps it, for a later comparison; None for objects in memory."""
    if source.paths is None or not len(source.inventory.files):
        return None
    labels = source.reading.labels
    return {
        "paths": list(source.paths),
        "labels": labels and os.path.abspath(labels),
        "follow_links": source.reading.follow_links,
        "is_part": source.is_part,
    }

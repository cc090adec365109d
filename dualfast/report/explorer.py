"""The data map of a page: what explorer.js shows of each sample, and which are kept at each prune ratio, as one text.

A ratio that the run selected at shows the run's own list; at the others the same selection is drawn for the page.
Scores are rounded to one of 255 or 4095 levels between their extremes; whole numbers up to 254 apart are exact.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dualfast.data.inventory import valid_text
from dualfast.selection.beta import Statistics
from dualfast.selection.select import select_in_memory
from dualfast.selection.spec import SelectionSpec

if TYPE_CHECKING:
    from dualfast.data.beton import Beton
    from dualfast.scoring.table import Scores
    from dualfast.selection.audit import Audit

POINTS, SEED = 50_000, 0  # of more samples, so many are drawn with this seed
RATIOS = tuple(round(0.05 * i, 2) for i in range(1, 20))  # beside the run's own
MORE_SCORES = ("aum", "aum_prob", "el2n", "entropy", "forgetting")  # beside mean, dual and dyn_unc
CELLS = 14  # per side: each part of the map that has samples gets an image
TILE = (32, 48)  # px: of data sets whose images are all at most as large as the first, and of others
TILES_ACROSS = 14
NAME_LENGTH = 100  # characters, the last ones
NAME_BYTES = 400_000  # deflated; larger, and only the samples with an image have their names

_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with its control characters escaped, those that turn the direction of writing among them: they would
    make a name look like another."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", valid_text(text))


def deflated(data: bytes) -> str:
    """As the page's function unpack takes it: deflated, in base64."""
    return base64.b64encode(zlib.compress(data)).decode()


@dataclass(frozen=True)
class Explorer:
    """header: for the page, as JSON. packed: the columns that header["parts"] lists, deflated. points: ids (n,) int64,
    ascending, of the samples on the map."""

    header: dict[str, Any]
    packed: str
    points: NDArray[np.int64]


def explore(
    scores: Scores,
    labels: NDArray[np.int64] | None,
    class_names: Sequence[str],
    data: Beton | None,
    audit: Audit | None,
    kept: Mapping[float, NDArray[np.int64]],
    redrawn: Sequence[float],
    specs: Mapping[float, SelectionSpec],
) -> Explorer | None:
    """The map of these scores; None when no sample has them. kept: ids by prune ratio, the run's own but for the ratios
    in redrawn. specs: what is kept at the other ratios, drawn here; one at which it cannot be drawn is left out."""
    points = _points(scores)
    if not len(points):
        return None
    pack = _Pack()
    pack.add("gaps", np.diff(points, prepend=0), np.uint32)
    if labels is not None:
        pack.add("labels", labels[points], np.uint32)
    if audit is not None:
        suspects, at, _ = np.intersect1d(points, audit.suspects, assume_unique=True, return_indices=True)
        pack.add("suspects", at, np.uint32)
        if audit.likely is not None:
            pack.add("likely", audit.likely[suspects], np.uint32)
    tiled = _spread(scores, points) if data is not None else np.empty(0, np.int64)
    pack.add("tiled", tiled, np.uint32)
    columns = [pack.add_score(name, getattr(scores, name), points, 12) for name in ("mean", "dual", "dyn_unc")]
    columns += [pack.add_score(name, getattr(scores, name), points, 8) for name in MORE_SCORES]
    ratios = [
        about | {"listed": about["ratio"] in kept and about["ratio"] not in redrawn}
        for about in _draws(pack, points, scores, labels, kept, specs)
    ]
    if data is not None and data.names is not None:
        pack.add("names", _names(data.names.column, points, tiled), np.uint8)
    header = {
        "samples": len(scores),
        "points": len(points),
        "classes": list(map(visible, class_names)),
        "columns": [column for column in columns if column is not None],
        "ratios": ratios,
        "start": _start(ratios),
        "parts": pack.parts,
        "tiles": None if data is None else _tiles(data, points[tiled]),
    }
    return Explorer(header, pack.text(), points)


class _Pack:
    """Arrays one after the other: those of four bytes first, so that all are aligned. parts: name, bytes per value and
    number of values of each."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, int, int]] = []
        self._bytes: list[bytes] = []

    def add(self, name: str, values: NDArray[Any], dtype: type[np.uint32 | np.uint8]) -> None:
        array = np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<"))
        self.parts.append((name, array.itemsize, array.size))
        self._bytes.append(array.tobytes())

    def add_score(
        self, name: str, values: NDArray[np.float64] | None, points: NDArray[np.int64], bits: int
    ) -> dict[str, Any] | None:
        """Adds the levels, 1 to steps + 1, 0 for NaN: their low bytes, then their high ones, which deflates better.
        Returns the entry of the header."""
        if values is None:
            return None
        values = values[points]
        known = np.isfinite(values)
        low, high = (float(values[known].min()), float(values[known].max())) if known.any() else (0.0, 0.0)
        steps = 2**bits - 2
        if high - low <= steps and (values[known] % 1 == 0).all():
            steps = int(high - low)
        scaled = (np.where(known, values, low) - low) * (steps / (high - low) if high > low else 0.0)
        levels = np.where(known, 1 + np.rint(scaled), 0).astype("<u2")
        planes = levels.view(np.uint8).reshape(-1, 2).T
        self.add(name, planes[: 1 if bits <= 8 else 2], np.uint8)
        return {"name": name, "low": low, "high": high, "steps": steps}

    def text(self) -> str:
        return deflated(b"".join(self._bytes))


def _points(scores: Scores) -> NDArray[np.int64]:
    """The samples on the map: those with scores, or a random part of them."""
    columns = [column for column in (scores.mean, scores.dual, scores.dyn_unc) if column is not None]
    scored = np.flatnonzero(np.logical_and.reduce([np.isfinite(column) for column in columns]))
    if len(scored) <= POINTS:
        return scored
    return np.sort(np.random.default_rng(SEED).choice(scored, POINTS, replace=False))


def _draws(
    pack: _Pack,
    points: NDArray[np.int64],
    scores: Scores,
    labels: NDArray[np.int64] | None,
    kept: Mapping[float, NDArray[np.int64]],
    specs: Mapping[float, SelectionSpec],
) -> list[dict[str, Any]]:
    """Adds a bit per point for each prune ratio; returns the entries of the header."""
    statistics = Statistics.of(scores)
    told, bits = [], []
    for ratio in sorted({*kept, *specs}):
        ids, spec = kept.get(ratio), specs.get(ratio)
        if ids is None and spec is not None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a run that selects so says it
                    ids = select_in_memory(spec, scores, labels=labels)
            except ValueError:
                continue
        assert ids is not None
        mask = np.zeros(len(scores), np.bool_)
        mask[ids] = True
        bits.append(np.packbits(mask[points], bitorder="little"))
        about: dict[str, Any] = {"ratio": ratio, "kept": len(ids)}
        density = None if spec is None else spec.configured.fit(statistics, ratio).density
        told.append(about if density is None else about | {"a": density.a, "b": density.b, "c_d": density.c_d})
    pack.add("kept", np.concatenate(bits) if bits else np.empty(0), np.uint8)
    return told


def _start(ratios: list[dict[str, Any]]) -> int:
    """Where the slider starts: at the run's smallest ratio of a half or more, or its last; else at a half."""
    at = [i for i, about in enumerate(ratios) if about["listed"]] or list(range(len(ratios)))
    return next((i for i in at if ratios[i]["ratio"] >= 0.5), at[-1] if at else 0)


def _spread(scores: Scores, points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions in points, ascending: a random one in each cell of the map that has any."""
    y = scores.dual if scores.dyn_unc is None else scores.dyn_unc
    cell = np.zeros(len(points), np.int64)
    for column in (scores.mean[points], y[points]):
        low, high = float(column.min()), float(column.max())
        cell = CELLS * cell + np.minimum((column - low) / ((high - low) or 1.0) * CELLS, CELLS - 1).astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(points))
    return np.sort(order[np.unique(cell[order], return_index=True)[1]])


def _names(column: Any, points: NDArray[np.int64], tiled: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The names of the points as UTF-8, each ended by a NUL; where they take too much, those of the tiled alone."""
    names = [visible(name[-NAME_LENGTH:]) for name in column.take(points).to_pylist()]
    text = "\0".join(names).encode()
    if len(zlib.compress(text)) > NAME_BYTES:
        some = set(tiled.tolist())
        text = "\0".join(name if at in some else "" for at, name in enumerate(names)).encode()
    return np.frombuffer(text, np.uint8)


def _tiles(data: Beton, ids: NDArray[np.int64]) -> dict[str, Any]:
    """The images of these ids, reduced, in rows of one JPEG; an image that cannot be decoded is left grey."""
    from PIL import Image

    small = int(max(data.width.max(), data.height.max())) <= TILE[0]
    size = TILE[0] if small else TILE[1]
    sheet = Image.new("RGB", (TILES_ACROSS * size, -(-len(ids) // TILES_ACROSS) * size), "#888")
    for at, id_ in enumerate(ids.tolist()):
        try:
            image = Image.fromarray(data.image(id_))
        except ValueError:
            continue
        scale = size / max(image.size)
        shape = (max(1, round(scale * image.width)), max(1, round(scale * image.height)))
        image = image.resize(shape, Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR, reducing_gap=2)
        left, top = size * (at % TILES_ACROSS), size * (at // TILES_ACROSS)
        sheet.paste(image, (left + (size - shape[0]) // 2, top + (size - shape[1]) // 2))
    packed = io.BytesIO()
    sheet.save(packed, "jpeg", quality=80)
    source = f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"
    return {"size": size, "across": TILES_ACROSS, "source": source}

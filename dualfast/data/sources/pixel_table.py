"""Tables whose cells are pixels, not names of files, as Kaggle has MNIST and FER2013: what to do with them."""

from __future__ import annotations

import math

from dualfast.data.columns import LABEL_NAMES, SPLIT_COLUMNS, has_usual_name
from dualfast.data.sources.label_table import Table, is_number

PIXELS = "pixels"  # the column that holds those of an image, separated by spaces


def hint(table: Table) -> str:
    """What to do with a table of the pixels of images, one to a column, or all in one; empty for any other."""
    if table.names is not None and PIXELS in table.names:
        return _of_one_column(table)
    first = table.rows[0]
    for channels in (1, 3):
        side = math.isqrt((len(first) - 1) // channels)
        if side >= 8 and side * side * channels == len(first) - 1 and all(map(is_number, first)):
            return _of_many_columns(table, f"-1, {side}, {side}" + ", 3" * (channels == 3))
    return ""


def _of_many_columns(table: Table, shape: str) -> str:
    named = [at for at, name in enumerate(table.names or ()) if has_usual_name(name, LABEL_NAMES)]
    label = named[0] if len(named) == 1 else 0
    skip = 0 if table.names is None else 1
    read = f"np.loadtxt({table.path!r}, 'i8', delimiter=',', skiprows={skip})"
    images = f"np.delete(t, {label}, 1).reshape({shape}).astype('u1')"
    return (
        f'{table.path} holds the pixels of images; python -c "import numpy as np; t = {read}; '
        f"np.savez('pixels.npz', images={images}, labels=t[:, {label}])\" makes pixels.npz, which is read"
    )


def _of_one_column(table: Table) -> str:
    assert table.names is not None
    others = [at for at, name in enumerate(table.names) if name != PIXELS]
    split = next((at for at in others if table.names[at].lower() in SPLIT_COLUMNS), None)
    label = next((table.names[at] for at in others if at != split), "label")
    side = math.isqrt(len(str(table.rows[0][table.names.index(PIXELS)]).split()))
    part = "'pixels'" if split is None else f"r[{table.names[split]!r}]"
    return (
        f'{table.path} holds the pixels of images in its column {PIXELS}; python -c "import csv, numpy as np; '
        f"p = {{}}; [p.setdefault({part}, []).append(r) for r in csv.DictReader(open({table.path!r}))]; "
        f"[np.savez(n + '.npz', images=np.array([r[{PIXELS!r}].split() for r in t], 'u1').reshape(-1, {side}, {side}), "
        f'labels=[int(r[{label!r}]) for r in t]) for n, t in p.items()]" makes '
        f"{'pixels.npz' if split is None else 'an .npz for each ' + table.names[split]}, which is read"
    )

"""Tables whose cells are pixels, not names of files, as Kaggle has MNIST and FER2013: what to do with them."""

from __future__ import annotations

import math

from dualfast.data.columns import SPLIT_COLUMNS
from dualfast.data.sources.label_table import Table, is_number

PIXELS = "pixels"  # the column that holds those of an image, separated by spaces


def hint(table: Table) -> str:
    """What to do with a table of the pixels of images, one to a column, or all in one; empty for any other."""
    if table.names is not None and PIXELS in table.names:
        return _of_one_column(table)
    side = math.isqrt(len(table.rows[0]) - 1)
    if side < 8 or side * side != len(table.rows[0]) - 1 or not all(map(is_number, table.rows[0])):
        return ""
    skip = 0 if table.names is None else 1
    read = f"np.loadtxt({table.path!r}, 'i8', delimiter=',', skiprows={skip})"
    images = f"t[:, 1:].reshape(-1, {side}, {side}).astype('u1')"
    return (
        f'{table.path} holds the pixels of images; python -c "import numpy as np; t = {read}; '
        f"np.savez('pixels.npz', images={images}, labels=t[:, 0])\" makes pixels.npz, which is read"
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

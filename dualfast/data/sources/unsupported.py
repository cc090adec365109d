"""Formats that are recognized and not read: what each is, and the command that makes a data set of it."""

from __future__ import annotations

import os
import re

from dualfast.storage.files import start_of

_PAIR = "np.savez('data.npz', train_images=IMAGES, train_labels=LABELS)"

HINTS: tuple[tuple[str, str], ...] = (
    (
        r"(train|test|unlabeled)_[xy]\.bin|stl10_binary",
        "STL-10's binary version; in its folder, python -c \"import numpy as np; np.savez('stl10.npz', train_labels="
        "np.fromfile('train_y.bin', 'u1') - 1, train_images=np.fromfile('train_X.bin', 'u1').reshape(-1, 3, 96, 96)"
        '.transpose(0, 3, 2, 1))" makes stl10.npz, which is read',
    ),
    (
        r"(train|test|extra)_32x32\.mat",
        "an SVHN file of MATLAB; python -c \"import numpy as np, scipy.io as io; d = io.loadmat('train_32x32.mat'); "
        "np.savez('svhn.npz', train_images=d['X'].transpose(3, 0, 1, 2), train_labels=d['y'].ravel() % 10)\" makes "
        "svhn.npz, which is read",
    ),
    (r".*\.mat", f"a MATLAB file; scipy.io.loadmat reads it, and {_PAIR} writes what is read here"),
    (r".*\.(h5|hdf5)", f"an HDF5 file; h5py.File(path) opens it, and {_PAIR} writes what is read here"),
    (r".*\.npy", f"one array; {_PAIR} writes images and labels into one file, which is read"),
    (r".*\.(pkl|pickle|pt|pth)", f"a pickle, which is never loaded; where you trust it, load it and {_PAIR}"),
    (
        r".*\.tfrecords?(-\d+-of-\d+)?|.*\.tfrecords?\.gz|(train|validation|test)-\d{5}-of-\d{5}",
        "a TFRecord file; tensorflow_datasets' tfds.as_numpy(tfds.load(NAME, split='train')) gives its images, and "
        f"{_PAIR} writes what is read here",
    ),
    (r".*\.(rar|7z)", "an archive that is not read; unpack it (7z x FILE) and give the folder, or pack it as .zip"),
    (r".*\.tar\.zst|.*\.tzst", "an archive of Zstandard; unzstd FILE makes the .tar, which is read"),
    (r".*\.(arrow|feather)", "one file of Arrow; give the folder that save_to_disk wrote, or write it as Parquet"),
    (
        r".*\.json",
        'JSON; python -c "import pandas as pd; pd.read_json(FILE, dtype=False, convert_dates=False)'
        ".to_csv('labels.csv', index=False)\" makes a table of a list of objects, which is read if it lists files and "
        "labels; boxes and captions are not",
    ),
    (r".*\.(xlsx?|ods)", "a spreadsheet; save it as CSV, which is read"),
    (r".*\.(mdb|lmdb)", "an LMDB database; write its images into a folder per class, or a .tar in WebDataset's form"),
    (r".*\.rec", "a RecordIO file of MXNet; mxnet's im2rec and recordio read it: write a folder per class"),
    (
        r".*\.ya?ml",
        "a description of a data set; give the folder of its images, which lie in a folder per class, or a table of "
        "files and labels",
    ),
    (r".*\.beton", "a .beton file already; run, score and train read it with --data"),
    (
        r".*\.(jpe?g|png|gif|bmp|webp|tiff?|avif)",
        "one image; give the folder that holds a folder per class, or a table of files and labels",
    ),
)
"""A pattern for the name in lower case, and what is said."""
DESCRIBING = (".json", ".yaml", ".yml")


def hint(path: str) -> str | None:
    """What a file or folder is, and what to do; None where its name says nothing."""
    name = os.path.basename(os.path.abspath(path)).lower()
    text = next((text for pattern, text in HINTS if re.fullmatch(pattern, name)), None)
    if name.endswith(".json") and os.path.isfile(path) and start_of(path, 64).lstrip().startswith(b"{"):
        return OBJECT
    return text and text.replace("(FILE", f"({path!r}").replace("FILE", path)


OBJECT = (
    "a JSON object; write the file and the label of each image that it names as a .csv, below the line file,label; "
    "boxes and captions are no labels"
)


def hint_in(folder: str) -> str | None:
    """The same of a folder that holds such a file."""
    if (own := hint(folder)) is not None:
        return f"{folder} is {own}"
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    found = [(path, text) for path in paths if (text := hint(path)) and text != HINTS[-1][1]]
    found.sort(key=lambda pair: pair[0].lower().endswith(DESCRIBING))  # what holds the data comes first
    return next((f"{path} is {text}" for path, text in found), None)

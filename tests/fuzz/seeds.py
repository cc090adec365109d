"""The first inputs of the fuzzers, made here: small valid files of each kind that dualfast reads from others.

python tests/fuzz/seeds.py FOLDER writes the JPEGs, each with the crop that jpeg.cpp reads after it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "support")]  # as a script, too
from data_sets import idx_file, jpeg, parquet_file, python_2_pickle, tar_file, zip_file  # noqa: E402
from hostile import progressive_jpeg  # noqa: E402

from dualfast.data.beton import format as layout  # noqa: E402

N = 12  # samples of a seed
PAGE = 1 << 12
JPEG_SIZE = (70, 50)


def jpegs() -> list[bytes]:
    """Gray and colour, baseline and progressive, each chroma subsampling, with restart markers and metadata."""
    from PIL import Image

    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize(JPEG_SIZE)
    found = [progressive_jpeg(32, 5)]
    for mode in ("L", "RGB", "CMYK"):
        for subsampling in (0, 1, 2) if mode == "RGB" else (0,):
            for more in ({}, {"progressive": True}, {"restart_marker_blocks": 2}, {"comment": b"a comment"}):
                out = io.BytesIO()
                options: dict[str, Any] = {"subsampling": subsampling, "quality": 60, **more}
                photo.convert(mode).save(out, "JPEG", **options)
                found.append(out.getvalue())
    return found


def beton(path: Path, more_fields: bool) -> None:
    """A .beton of JPEGs and raw images, in the smallest pages that are read, and without checksums, which would refuse
    what the fuzzer changes. more_fields: with fields of bytes and of arrays beside them, as FFCV's writer makes
    them."""
    random = np.random.default_rng(1)
    kinds = {"image": layout.IMAGE_TYPE, "label": layout.INT_TYPE}
    if more_fields:
        kinds |= {"text": 3, "vector": 4}
    descriptors = np.concatenate([layout.describe_field(name, kind) for name, kind in kinds.items()])
    if more_fields:
        dtype = json.dumps(np.dtype(np.float32).descr).encode()
        arguments = np.zeros(1, layout.ARRAY_ARGUMENTS)
        arguments["shape"][0, 0], arguments["type_length"] = 3, len(dtype)
        stored = np.frombuffer(arguments.tobytes() + dtype, np.uint8)
        descriptors["arguments"][3, : len(stored)] = stored
    metadata = np.zeros(N, layout.row_dtype(layout.FIELD_DTYPES[kind] for kind in kinds.values()))
    start = layout.start_of_pages(layout.HEADER.itemsize + descriptors.nbytes + metadata.nbytes, PAGE)
    allocations, data = [], b""

    def put(row: int, value: bytes) -> int:
        nonlocal data
        allocations.append((row, start + len(data), len(value)))
        data += value
        return start + len(data) - len(value)

    photo = jpegs()[5]
    for row in range(N):
        raw = random.integers(0, 256, 9 * 7 * 3, dtype=np.uint8).tobytes()
        is_raw = row % 2
        width, height = (7, 9) if is_raw else JPEG_SIZE
        metadata["f0"][row] = (is_raw, width, height, put(row, raw if is_raw else photo))
        metadata["f1"][row] = row % 3
        if more_fields:
            metadata["f2"][row] = (put(row, b"a text"), 6)
            metadata["f3"][row] = put(row, bytes(12))
    tables = layout.head(descriptors, metadata, n_samples=N, page_size=PAGE, table_start=start + len(data))
    path.write_bytes(tables.ljust(start, b"\0") + data + np.array(allocations, layout.ALLOCATION).tobytes())


def beton_with_sidecars(path: Path) -> None:
    from dualfast import write

    random = np.random.default_rng(2)
    write(
        (random.integers(0, 256, (N, 5, 5), dtype=np.uint8), np.arange(N) % 3),
        path,
        progress=False,
    )


def scores(path: Path, checksums: bool) -> None:
    """A score table as save() writes it, or as others do: without any checksum."""
    import pyarrow.parquet as pq

    from dualfast import Scores

    random = np.random.default_rng(3)
    columns = {name: random.random(N).astype(np.float32) for name in ("dual", "mean", "aum", "mine")}
    made = Scores(dual=columns["dual"], mean=columns["mean"], aum=columns["aum"], extra={"mine": columns["mine"]})
    made.save(path, labels=np.arange(N) % 3, class_names=["a", "b", "c"], names=[f"{i}.jpg" for i in range(N)])
    if not checksums:
        table = pq.read_table(path)
        note = json.loads(table.schema.metadata[b"dualfast"])
        del note["crc32"]
        pq.write_table(table.replace_schema_metadata({"dualfast": json.dumps(note)}), path, compression="snappy")


def checkpoint(path: Path) -> None:
    import torch

    from dualfast.training.checkpoint_files import FORMAT, write

    state = {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "epoch": 1, "order": [1, 2], "name": "a"}
    write({"format": FORMAT, "what": {"lr": 0.1}, "state": state}, path)


CONFIG = """\
asked:
  data: photos
  epochs: 3
  prune_ratio: [0.3, 0.5]
  c_d: cifar10
  score_epochs: 2
  quiet: false
environment: {python: 3.11.7, cpu: "a processor", gpu: null}
"""
METRICS = """\
{"event": "scored", "seed": 0}
{"event": "trained", "method": "full", "prune_ratio": 0, "seed": 0, "kept": 12, "n_samples": 12, "accuracy": 0.5, \
"best_accuracy": 0.5, "score_seconds": 0, "train_seconds": 1}
"""


def tables(folder: Path) -> None:
    """Images and tables of their labels, in each form."""
    for i in range(4):
        (folder / f"{i}.png").write_bytes(jpeg(40 * i, (5, 6), "PNG"))
    names, labels = [f"{i}.png" for i in range(4)], ["cat", "dog", "cat", "dog"]
    rows = list(zip(names, labels, strict=True))
    (folder / "labels.csv").write_text(
        "file,label,split\n" + "".join(f"{name},{label},train\n" for name, label in rows)
    )
    (folder / "labels.txt").write_text("".join(f"{name} {label}\n" for name, label in rows))
    (folder / "labels.jsonl").write_text(
        "".join(json.dumps({"file_name": name, "label": label}) + "\n" for name, label in rows)
    )
    parquet_file(folder / "labels.parquet", {"file": names, "label": labels})


def archives(folder: Path) -> None:
    """Images and labels in one file, of each kind."""
    images = {f"{name}/{i}.png": jpeg(40 * i, (5, 6), "PNG") for i, name in enumerate(["cat", "dog", "cat", "dog"])}
    zip_file(folder / "photos.zip", images)
    for suffix, mode in (("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz"), ("tar.bz2", "w:bz2")):
        tar_file(folder / f"photos.{suffix}", images, mode)
    samples = {}
    for i, data in enumerate(images.values()):
        samples |= {f"{i}.png": data, f"{i}.cls": str(i % 2).encode(), f"{i}.json": b'{"label": 1}'}
    tar_file(folder / "shard-0.tar", samples)
    of_class = tar_file(folder / "n01.tar", {f"n01_{i}.png": data for i, data in enumerate(images.values())})
    tar_file(folder / "classes.tar", {"n01.tar": of_class.read_bytes(), "n02.tar": of_class.read_bytes()})
    of_class.unlink()
    pixels = np.random.default_rng(2).integers(0, 256, (4, 5, 6), dtype=np.uint8)
    np.savez(folder / "arrays.npz", x_train=pixels, y_train=np.arange(4) % 2, x_test=pixels, y_test=np.arange(4) % 2)
    parquet_file(folder / "images.parquet", {"image": [{"bytes": data, "path": "a"} for data in images.values()],
                                             "label": [0, 1, 0, 1]})  # fmt: skip


def batches(folder: Path) -> None:
    """CIFAR's Python version and MNIST's files, which are read as a folder."""
    data = np.random.default_rng(3).integers(0, 256, (3, 3072), dtype=np.uint8)
    value = {"data": data, "labels": [0, 2, 1], "batch_label": "batch 1", "filenames": ["a.png"] * 3}
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(python_2_pickle(value))
    meta = {"label_names": ["plane", "car", "bird"], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python_2_pickle(meta))


def idx(folder: Path) -> None:
    """MNIST's files, compressed and not."""
    random = np.random.default_rng(4)
    for part, suffix in (("train", ""), ("t10k", ".gz")):
        idx_file(folder / f"{part}-images-idx3-ubyte{suffix}", random.integers(0, 256, (3, 5, 6), dtype=np.uint8))
        idx_file(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(3, dtype=np.uint8))


def write_jpegs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    choices = np.random.default_rng(4)
    for i, data in enumerate(jpegs()):
        for at in range(2):
            crop = choices.integers(0, 256, 16, dtype=np.uint8).tobytes()
            (folder / f"{i}-{at}").write_bytes(data + crop)


if __name__ == "__main__":
    write_jpegs(Path(sys.argv[1]))

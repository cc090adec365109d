"""Pairs of arrays and .npz files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_sets import assert_refused

from dualfast.config import Reading
from dualfast.data import beton, sources
from dualfast.data.sources import arrays


def test_arrays_and_npz(tmp_path: Path) -> None:
    images = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    labels = np.array([0, 1, 0], np.int32)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    for source in ((images, labels), tmp_path / "a.npz"):
        opened = sources.open_source(source)
        assert np.stack([*opened.items()]).shape == (3, 4, 5, 1)
        assert opened.labels.tolist() == [0, 1, 0]


def test_npz_files_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PKno npz")
    assert_refused(tmp_path / "broken.npz", r"is not an \.npz file")
    np.savez(tmp_path / "names.npz", x=np.zeros(3), y=np.zeros(3))
    assert_refused(tmp_path / "names.npz", "it has x, y; choose with image_column=NAME")
    np.savez(tmp_path / "kmnist-train-imgs.npz", np.zeros((2, 4, 4), np.uint8))
    assert_refused(tmp_path / "kmnist-train-imgs.npz", r"it has arr_0; images and labels go into one file: np\.savez\(")
    np.savez(tmp_path / "pickle.npz", images=np.array([{}], dtype=object), labels=np.zeros(1, int))
    assert_refused(tmp_path / "pickle.npz", "pickle")
    np.savez(tmp_path / "directory.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    whole = (tmp_path / "directory.npz").read_bytes()
    (tmp_path / "directory.npz").write_bytes(whole.replace(b"PK\x01\x02", b"XX\x01\x02"))
    assert_refused(tmp_path / "directory.npz", "cannot be read")


def test_arrays_that_are_refused() -> None:
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1])
    assert_refused((images, np.array([0, -1, 1])), "label -1")
    assert_refused((images.astype(float), labels), "uint8", TypeError)
    assert_refused((images[None], labels), "shape")
    assert_refused((images, labels[:2]), "3 images need")
    assert_refused((images, labels / 2), r"labels are float64 \(image 1 of .* has 0\.5\); .* one class per image")
    assert_refused((images, labels.astype(complex)), "labels are complex128; .* one class per image", TypeError)
    assert_refused((images, np.eye(3)), r"shape \(3, 3\); .* one class per image; .*labels\.argmax\(1\)")
    assert_refused((images, [[0, 2], [1], []]), r"image 0 of .* has \[0, 2\]\); .* one class per image")


@pytest.mark.parametrize(
    "labels",
    [[True, False, True], [[1], [0], [1]], [1.0, 0.0, 1.0], np.array([1, 0, 1], object), np.array([1, 0, 1], np.uint8)],
)
def test_labels_of_other_types_are_numbers(labels: Any) -> None:
    opened = sources.open_source((np.zeros((3, 4, 4), np.uint8), labels))
    assert opened.labels.tolist() == [1, 0, 1]
    assert opened.labels.dtype == np.int64


@pytest.mark.parametrize("dtype", [str, object, bytes])
def test_labels_that_are_names(dtype: type, tmp_path: Path) -> None:
    labels = np.array(["dog", "ant", "dog"], dtype)
    opened = sources.open_source((np.zeros((3, 4, 4), np.uint8), labels))
    assert opened.class_names == ("ant", "dog")
    assert opened.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("images", "labels", "test"),
    [
        ("{}_images", "{}_labels", "val"),
        ("x_{}", "y_{}", "test"),
        ("X_{}", "y_{}", "test"),
        ("{}_data", "{}_y", "valid"),
    ],
)
def test_splits_in_the_names_of_arrays(images: str, labels: str, test: str, tmp_path: Path) -> None:
    arrays = {}
    for at, part in enumerate(("train", test)):
        arrays[images.format(part)] = np.full((2 + at, 4, 4), at, np.uint8)
        arrays[labels.format(part)] = (np.arange(2 + at) % 2).astype(np.uint8)[:, None]
    path = str(tmp_path / "mnist.npz")
    np.savez(path, **arrays)
    train, tests = sources.splits(path)
    assert (train, tests) == (f"{path}:train", f"{path}:{test}")
    opened = sources.open_source(tests)
    assert opened.labels.tolist() == [0, 1, 0]
    assert opened.location == f"{path}:{test}"
    assert opened.names().to_pylist()[0] == f"mnist.npz:{images.format(test)}[0]"
    assert next(iter(opened.items()))[0, 0].tolist() == [1]
    assert_refused(path, rf"holds several splits \(train, {test}\); give one, as .*:train")
    names = {"image_column": images.format("train"), "label_column": labels.format("train")}
    assert len(sources.open_source(path, Reading(**names))) == 2


def test_arrays_of_an_npz_may_have_other_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 4, 4), np.uint8), y=np.arange(2))
    opened = sources.open_source(tmp_path / "a.npz", Reading(image_column="x", label_column="y"))
    assert opened.labels.tolist() == [0, 1]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_images_of_an_npz_are_read_a_piece_at_a_time(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)
    for stored in (images, np.asfortranarray(images), images[..., 0], images[:0]):
        save(tmp_path / "a.npz", images=stored, labels=np.arange(len(stored)) % 2)
        if len(stored) == 0:
            assert_refused(tmp_path / "a.npz", "contains no images")
            continue
        opened = sources.open_source(tmp_path / "a.npz")
        for piece in (1, 10_000, arrays.PIECE):
            monkeypatch.setattr(arrays, "PIECE", piece)
            assert (np.stack([*opened.items()]) == stored.reshape(1000, 16, 16, -1)).all()
        monkeypatch.undo()


def test_an_npz_takes_no_more_memory_than_a_piece(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((20_000, 32, 32), np.uint8), labels=np.arange(20_000) % 2)
    tracemalloc.start()
    assert sum(1 for _ in sources.open_source(tmp_path / "a.npz").items()) == 20_000
    _, highest = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert highest < 20_000 * 32 * 32 / 4


@pytest.mark.parametrize(("save", "what"), [(np.savez, "Bad CRC-32"), (np.savez_compressed, "Error -3|Bad CRC-32")])
def test_images_that_a_disk_has_changed_are_noticed(save: Any, what: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)
    save(tmp_path / "a.npz", images=images, labels=np.arange(1000) % 2)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[300_000] ^= 255
    (tmp_path / "a.npz").write_bytes(data)
    opened = sources.open_source(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=rf"a\.npz cannot be read .*({what})"):
        list(opened.items())


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 4, 4)), r"float64; .*\(images \* 255\)\.round\(\)\.astype"),
        (np.zeros((2, 4, 4), np.uint16), r"uint16; .*\(images >> 8\)\.astype"),
        (np.zeros((2, 4, 4), bool), r"bool; .*give images\.astype\('uint8'\) \* 255"),
        (np.array(["a.png", "b.png"]), "of names of files write a .csv of files and labels"),
        (np.zeros((2, 3, 8, 8), np.uint8), r"shape \(2, 3, 8, 8\); .*give images\.transpose\(0, 2, 3, 1\)"),
        (torch.zeros(2, 8, 8, 3), r"\(images \* 255\)\.round\(\)\.to\(torch\.uint8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"give images\.permute\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"it must be \(N, H, W\), .* or \(N, H, W, 4\)"),
        (np.zeros((2, 64), np.uint8), r"give images\.reshape\(-1, 8, 8\)"),
        (
            [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)],
            "images are of several sizes; an array has one",
        ),
    ],
)
def test_images_in_another_form_are_refused_with_what_changes_it(images: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        sources.open_source((images, [0, 1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [4, 80])
def test_transparent_arrays_show_the_background(side: int, tmp_path: Path) -> None:
    images = np.zeros((2, side, side, 4), np.uint8)
    images[..., 3] = 255
    images[1, ..., 3] = 0
    with pytest.warns(UserWarning, match="1 image with transparent parts, composited on #0080ff"):
        written = beton.write((images, [0, 1]), tmp_path / "a.beton", background="#0080ff", progress=False)
    opened = beton.open_beton(written.path)
    assert opened.image(0)[0, 0].tolist() == [0, 0, 0]
    assert np.abs(opened.image(1)[0, 0].astype(int) - [0, 128, 255]).max() < 4


def test_texts_in_an_npz_are_saved_as_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=np.array(["a", "b"], object))
    assert_refused(
        tmp_path / "a.npz", r"pickled objects, which are never loaded; text is saved with labels\.astype\(str\)"
    )


def test_names_and_other_arrays_of_an_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    arrays: dict[str, Any] = {
        "images": np.zeros((2, 4, 4), np.uint8),
        "labels": np.array([1, 0]),
        "fine_labels": np.arange(2),
    }
    np.savez(path, **arrays, class_names=np.array(["ant", "bee"]))
    opened = sources.open_source(path)
    assert opened.class_names == ("ant", "bee")
    assert opened.notes() == ["arrays that are not used: fine_labels"]
    np.savez(path, **arrays, class_names=np.array([b"ant", b"bee"]))
    assert sources.open_source(path).class_names == ("ant", "bee")
    np.savez(path, **arrays, class_names=np.array(["ant", None]))  # a pickle
    opened = sources.open_source(path)
    assert opened.class_names is None
    assert opened.notes() == ["arrays that are not used: fine_labels, class_names"]
    np.savez(path, **arrays, class_names=np.array(["ant"]))
    assert_refused(path, r"a\.npz has the label 1, and class_names names 1 classes, from 0; name every class")


def test_labels_may_have_axes_of_one(tmp_path: Path) -> None:
    """As PatchCamelyon's have."""
    images, labels = np.zeros((3, 4, 4), np.uint8), np.array([0, 1, 1])
    for shape in ((3, 1), (3, 1, 1, 1)):
        assert sources.open_source((images, labels.reshape(shape))).labels.tolist() == [0, 1, 1]
    assert_refused((images, np.ones((3, 1, 2), int)), r"labels have the shape \(3, 1, 2\)")


def test_arrays_that_differ_in_case_alone_are_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((2, 4, 4), np.uint8), np.arange(2)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels, X_train=images)
    for address in ("a.npz", "a.npz:train"):
        assert_refused(tmp_path / address, r"a\.npz holds x_train and X_train, which name one array; rename one")


def test_images_of_pillow_whose_arrays_are_not_what_they_show() -> None:
    """Their arrays would be palette indices, or ink."""
    image = pytest.importorskip("PIL.Image").new("RGB", (8, 8), (255, 0, 0))
    opened = sources.open_source(([image, image.convert("RGB")], [0, 1]))
    assert np.asarray(next(iter(opened.items())))[0, 0].tolist() == [255, 0, 0]
    for mode in ("P", "CMYK", "HSV"):
        with pytest.raises(ValueError, match=rf"images\[1\] is of Pillow's mode {mode}; give image\.convert\('RGB'\)"):
            sources.open_source(([image, image.convert(mode)], [0, 1]))
    turned = image.copy()
    turned.getexif()[0x0112] = 6
    with pytest.raises(ValueError, match=r"images\[0\] is to be turned .*; give ImageOps\.exif_transpose"):
        sources.open_source(([turned, image], [0, 1]))

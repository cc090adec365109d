"""Fields of a .beton: which fields of a file hold the images and the labels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ffcv_files import ffcv_file

from dualfast.data import beton
from dualfast.data.beton.compact import compact

N = 12
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(N) % 3
OTHER = np.arange(N) // 2


@pytest.mark.parametrize(
    ("fields", "options", "chosen"),
    [
        ({"target": LABELS, "img": IMAGES}, {}, ("img", "target")),
        ({"weight": LABELS / 2, "id": OTHER, "image": IMAGES, "label": LABELS}, {}, ("image", "label")),
        ({"mask": IMAGES[::-1], "image": IMAGES, "y": LABELS, "group": OTHER}, {}, ("image", "y")),
        (
            {"left": IMAGES, "right": IMAGES[::-1], "label": OTHER, "kind": LABELS},
            {"image_column": "left", "label_column": "kind"},
            ("left", "kind"),
        ),
    ],
)
def test_names_and_types_say_which_fields_are_meant(
    fields: dict[str, Any], options: dict[str, str], chosen: tuple[str, str], tmp_path: Path
) -> None:
    opened = beton.open_beton(ffcv_file(tmp_path / "a.beton", fields), **options)
    opened.check_columns()
    assert (opened.image_field, opened.label_field) == tuple(map(opened.field_names.index, chosen))
    for same in (opened, pickle.loads(pickle.dumps(opened))):
        assert (same.labels == LABELS).all()
        assert (same.image(3) == IMAGES[3]).all()


def test_several_fields_without_a_usual_name_are_an_error_that_names_them(tmp_path: Path) -> None:
    fields = {"left": IMAGES, "right": IMAGES, "id": OTHER, "kind": LABELS}
    path = ffcv_file(tmp_path / "a.beton", fields)
    with pytest.raises(ValueError, match="several image fields: left, right; choose with image_column='left'"):
        beton.open_beton(path).check_columns()
    with pytest.raises(ValueError, match="several integer fields: id, kind; choose with label_column='id'"):
        beton.open_beton(path, image_column="right").check_columns()
    for options, said in (
        (
            {"label_column": "age"},
            r"label_column is 'age', .* an integer field; .* has left \(image\), .*id \(integer\)",
        ),
        ({"label_column": "left"}, "label_column is 'left', which must be an integer field"),
        ({"image_column": "id"}, "image_column is 'id', which must be an image field"),
    ):
        with pytest.raises(ValueError, match=said):
            beton.open_beton(path, **options)


@pytest.mark.parametrize("fields", [{"image": IMAGES, "label": LABELS / 2}, {"id": OTHER, "label": LABELS}])
def test_a_file_without_images_or_integers_is_refused_with_its_fields(fields: dict[str, Any], tmp_path: Path) -> None:
    path = ffcv_file(tmp_path / "a.beton", fields)
    with pytest.raises(
        ValueError, match=r"needs an image and an integer field; it has .*label \((float|integer)\); wri"
    ):
        beton.open_beton(path)


def test_a_file_without_images_has_none_to_show(tmp_path: Path) -> None:
    opened = beton.Beton(ffcv_file(tmp_path / "a.beton", {"label": LABELS}))
    for wanted in (lambda: opened.image(0), lambda: opened.payload(0), lambda: opened.size, lambda: opened.fingerprint):
        with pytest.raises(ValueError, match="has no image field; its fields: label"):
            wanted()


def test_the_ids_that_compact_adds_are_no_labels(tmp_path: Path) -> None:
    path = ffcv_file(tmp_path / "a.beton", {"photo": IMAGES, "kind": LABELS})
    compact(path, [1, 4, 6], tmp_path / "b.beton", progress=False)
    small = beton.open_beton(tmp_path / "b.beton")
    small.check_columns()
    assert small.field_names == ["photo", "kind", "original_index"]
    assert small.labels.tolist() == LABELS[[1, 4, 6]].tolist()


def test_a_list_of_a_run_with_chosen_columns_is_compacted_with_them(tmp_path: Path) -> None:
    from dualfast.data.index_list import save_keep

    path = ffcv_file(tmp_path / "a.beton", {"photo": IMAGES, "kind": LABELS, "group": OTHER})
    print_ = beton.open_beton(path, label_column="group").fingerprint
    save_keep(tmp_path / "keep.npy", np.array([2, 3]), n_samples=N, fingerprint=print_)
    with pytest.raises(ValueError, match=r"fingerprint|written for"):
        compact(path, tmp_path / "keep.npy", tmp_path / "b.beton", progress=False)
    made = compact(path, tmp_path / "keep.npy", tmp_path / "b.beton", progress=False, label_column="group")
    assert made.n_samples == 2

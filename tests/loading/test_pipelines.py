"""The default pipelines: what they accept, and that nothing on the usual way needs FFCV."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from batches import collect

from dualfast.loading.decode import image_pipelines
from dualfast.loading.loader import Loader

WITHOUT_FFCV = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ffcv", "numba", "cv2"):
            raise ImportError(f"no {name} here")

sys.meta_path.insert(0, Missing())
import numpy as np
import torch
import dualfast
from dualfast import cli
from dualfast.errors import MissingPackage

images = np.random.default_rng(0).integers(0, 256, (60, 40, 48, 3), np.uint8)
dualfast.write((images, np.arange(60) % 3), "some.beton", mode="jpeg", progress=False)
dualfast.verify("some.beton")
dualfast.compact("some.beton", np.arange(0, 60, 2), "half.beton")
for pipelines in (None, dualfast.image_pipelines(32, augment="rrc")):
    with dualfast.Loader("half.beton", 8, pipelines=pipelines) as loader:
        assert sum(len(batch[-1]) for batch in loader) == 30
try:
    dualfast.Loader("half.beton", 8, pipelines={"image": [object()]})
except MissingPackage as error:
    assert "these pipelines need ffcv (no numba here); pip install 'dualfast[ffcv]'" in str(error), error
else:
    raise AssertionError("FFCV was not missed")
short = "--epochs 2 --score-epochs 2 --window 2 --tests 1 --image-size 16 --seed 0 --no-full --prune-ratio 0.5"
assert cli.main(["run", "--data", "half.beton", "--test", "some.beton", *short.split()]) == 0
assert not {"ffcv", "numba", "cv2"} & set(sys.modules)
"""


def test_nothing_but_ffcv_s_own_pipelines_needs_ffcv(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FFCV], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "half" / "report.html").exists()


def test_pipelines_that_are_given_are_the_default_ones(small: Path) -> None:
    batches = []
    for arguments in ({"image_size": 16, "augment": "crop"}, {"pipelines": image_pipelines(16, augment="crop")}):
        with Loader(small, 50, seed=3, **arguments) as loader:
            batches.append(collect(loader))
    assert all(torch.equal(one, two) for one, two in zip(*batches, strict=True))


def test_a_field_can_be_left_out(small: Path) -> None:
    made = image_pipelines(16, dtype=torch.bfloat16)
    with Loader(small, 50, order="sequential", pipelines=made | {"label": None}) as loader:
        assert [(tuple(x.shape), x.dtype) for x in next(iter(loader))] == [
            ((50, 3, 16, 16), torch.bfloat16),
            ((50,), torch.int64),
        ]
    with Loader(small, 50, order="sequential", pipelines=made | {"image": None}) as loader:
        labels, index = next(iter(loader))
        assert torch.equal(labels, index % 10)
    with pytest.raises(ValueError, match="every field's pipeline is None"):
        Loader(small, 50, pipelines={"image": None, "label": None})


def test_a_label_without_a_pipeline_comes_as_ffcv_makes_it(small: Path) -> None:
    pytest.importorskip("dualfast.loading.ffcv_graph", reason="needs ffcv", exc_type=ImportError)
    from ffcv.fields.decoders import IntDecoder
    from ffcv.transforms import ToTensor

    batches = []
    for label in ({}, {"label": [IntDecoder(), ToTensor()]}):
        with Loader(small, 50, order="sequential", pipelines={"image": None, **label}) as loader:
            batches.append(collect(loader))
    assert batches[0][0].shape == (203, 1)
    assert all(torch.equal(one, two) for one, two in zip(*batches, strict=True))


def test_a_decoder_on_a_field_of_another_type_is_refused(small: Path) -> None:
    made = image_pipelines(16)
    with pytest.raises(ValueError, match="the field image is not a number"):
        Loader(small, 50, pipelines={"image": made["label"], "label": None})
    with pytest.raises(ValueError, match="the field label is not its first image"):
        Loader(small, 50, pipelines={"image": None, "label": made["image"]})

"""Data sets of the library datasets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from data_sets import assert_refused, jpeg

from dualfast.config import Reading
from dualfast.data import beton, sources
from dualfast.data.inventory import changes
from dualfast.data.sources import hugging_face
from dualfast.errors import MissingPackage

datasets = pytest.importorskip("datasets")
pytest.importorskip("PIL")


def pets(n: int = 4, first: int = 0) -> Any:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [{"bytes": jpeg(first + i), "path": None} for i in range(n)]
    return datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in range(n)]}, features)


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": pets(), "test": pets(2, 50)})
    splits.save_to_disk(str(tmp_path / "pets"))
    train, test = sources.splits(str(tmp_path / "pets"))
    assert (train, test) == (str(tmp_path / "pets" / "train"), str(tmp_path / "pets" / "test"))
    opened = sources.open_source(train)
    assert opened.class_names == ("cat", "dog")
    assert opened.labels.tolist() == [0, 1, 0, 1]
    assert [*opened.items()] == [jpeg(i) for i in range(4)]
    assert "state.json" in sources.files_of(train).names.to_pylist()
    (Path(train) / "data-00000-of-00001.arrow").write_bytes(b"")
    assert_refused(train, "cannot be read as datasets' save_to_disk writes it")


def test_a_dataset_that_was_shuffled_and_selected(tmp_path: Path) -> None:
    data = pets(8).select([7, 2, 5, 4])
    written = beton.write(data, tmp_path / "x.beton", progress=False)
    opened = beton.open_beton(written.path)
    assert opened.labels.tolist() == [1, 0, 1, 0]
    assert opened.class_names == ("cat", "dog")
    assert [*sources.open_source(data).items()] == [jpeg(i) for i in (7, 2, 5, 4)]
    renamed = data.rename_column("image", "front").add_column("other", [0, 0, 1, 2])
    opened = sources.open_source(renamed, Reading(image_column="front", label_column="other"))
    assert opened.labels.tolist() == [0, 0, 1, 2]


def test_paths_in_the_cells_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    cells = [{"bytes": jpeg(1), "path": None}, {"bytes": None, "path": str(tmp_path / "secret.jpg")}]
    data = datasets.Dataset.from_dict(
        {"image": cells, "label": [0, 1]},
        datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("int64")}),
    )
    source = hugging_face.from_dataset(data, "x", folder=str(tmp_path / "other"))
    items = source.items()
    next(items)
    with pytest.raises(ValueError, match="outside the data set"):
        next(items)


def test_images_that_are_named_by_their_paths_are_files_of_the_data(tmp_path: Path) -> None:
    import pyarrow as pa

    saved = tmp_path / "pets"
    pets(4).save_to_disk(str(saved))
    assert [name for name in sources.files_of(str(saved)).names.to_pylist() if name.endswith(".jpg")] == []
    for i in range(2):
        (saved / f"{i}.jpg").write_bytes(jpeg(i))
    shard = next(saved.glob("*.arrow"))
    with pa.memory_map(str(shard)) as data:
        table = pa.ipc.open_stream(data).read_all()
    at = table.schema.get_field_index("image")
    cells = [{"bytes": None, "path": f"{i}.jpg"} for i in range(2)] + [{"bytes": jpeg(2), "path": "1.jpg"}] * 2
    table = table.set_column(at, table.schema.field(at), pa.array(cells, table.schema.field(at).type))
    shard.unlink()
    with pa.OSFile(str(shard), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    before = sources.open_source(str(saved)).inventory.files
    assert before.names.to_pylist()[-2:] == ["0.jpg", "1.jpg"]
    (saved / "1.jpg").write_bytes(jpeg(200, (90, 90)))
    assert changes(before, sources.files_of(str(saved))) == "files: 1 changed (1.jpg)"


def test_a_hub_id_names_its_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: asked.append(name) or ["train", "validation"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: pets(4 if split == "train" else 2))
    train, test = sources.splits("hf://me/pets")
    assert (train, test) == ("hf://me/pets:train", "hf://me/pets:validation")
    assert [len(sources.open_source(part)) for part in (train, test)] == [4, 2]
    assert asked == ["me/pets"]
    assert_refused("hf://datasets/me/pets", r"holds several splits \(train, validation\); give one, as .*pets:train")


def test_without_the_hub_its_cache_is_looked_into_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def no_answer(*_: Any, timeout: float, **__: Any) -> None:
        assert timeout <= 10
        raise OSError("no route to host")

    offline = []

    def names(_: str) -> list[str]:
        offline.append((datasets.config.HF_HUB_OFFLINE, hub.constants.HF_HUB_OFFLINE))
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr(hub.HfApi, "dataset_info", no_answer)
    monkeypatch.setattr(datasets, "get_dataset_split_names", names)
    said = (
        r"^hf://me/pets cannot be read: the Hugging Face hub cannot be reached \(no route to host\), and its cache here"
    )
    assert_refused("hf://me/pets", said)
    with pytest.raises(ValueError, match=said):
        sources.splits("hf://me/pets")
    assert offline == [(True, True)] * 2
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda _: ["train"])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: pets(4))
    assert len(sources.open_source("hf://me/pets")) == 4  # which the cache holds
    assert not datasets.config.HF_HUB_OFFLINE
    assert not hub.constants.HF_HUB_OFFLINE


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingPackage, match=r"pip install 'dualfast\[hub\]'"):
        sources.open_source("hf://me/pets:train")


def test_a_path_that_may_be_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(
        "me/pets", "me/pets does not exist; .*; hf://me/pets is the data set of that name on the Hugging Face"
    )
    assert_refused("me/pets.tar", r"me/pets\.tar does not exist; .* class folders$")


@pytest.mark.parametrize("relative", [False, True])
def test_a_dataset_of_ones_own_names_its_files(relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    for k in range(2):
        (tmp_path / f"{k}.jpg").write_bytes(jpeg(k))
    paths = [f"{k}.jpg" if relative else str(tmp_path / f"{k}.jpg") for k in range(2)]
    data = datasets.Dataset.from_dict({"image": paths, "label": [0, 1]}).cast_column("image", datasets.Image())
    assert list(sources.open_source(data).items()) == [jpeg(0), jpeg(1)]

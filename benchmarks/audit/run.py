"""Finds wrong labels by one training of ours and by cleanlab's cross-validation, and appends a JSON line for each to
results/audit.jsonl:

    python benchmarks/audit/run.py --data CIFAR10 --images 10000 --labels random1 worst aggregate sym-20 --by dualfast

CIFAR10 holds train.parquet (img, label) and human_labels.parquet (clean, and one column for each set of human labels),
in the same order. sym-20: 20% of the labels replaced by another class, drawn uniformly; asym-20: 20% of five classes by
the one that each resembles. Nothing is chosen by the right labels: they only judge what comes out. Rows that are there
already, of the same images, net, epochs and seed, are not measured again. cleanlab: pip install cleanlab."""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _harness import RESULTS, origin

import dualfast
from dualfast.config import RECIPES, Recipe
from dualfast.runs.environment import git
from dualfast.scoring.scores import Scores
from dualfast.storage.records import Records
from dualfast.training import models
from dualfast.training.fit import CrossEntropy, fit

FOLDS = 5
CLASSES, SIZE = 10, 32
RESEMBLES = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}  # truck: automobile, bird: airplane, deer: horse, cat: dog and back
NOISE_SEED = 7  # of the synthetic labels, apart from the seeds of the trainings
CLEANLAB_SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
Labels = NDArray[np.int64]
Row = dict[str, Any]


def images_of(data: Path, count: int) -> NDArray[np.uint8]:
    column = pq.read_table(data / "train.parquet", columns=["img"]).slice(0, count)["img"].to_pylist()
    return np.stack([np.asarray(Image.open(io.BytesIO(image["bytes"])).convert("RGB")) for image in column])


def labels_of(data: Path, count: int, name: str) -> tuple[Labels, Labels]:
    """The labels to audit, and the right ones."""
    table = pq.read_table(data / "human_labels.parquet").slice(0, count)
    clean = table["clean"].to_numpy().astype(np.int64)
    if name in table.column_names:
        return table[name].to_numpy().astype(np.int64), clean
    kind, _, percent = name.partition("-")
    if kind not in ("sym", "asym") or not percent.isdigit():
        known = ", ".join(sorted(set(table.column_names) - {"clean"}))
        raise ValueError(f"labels is {name!r}; give sym-PERCENT, asym-PERCENT or one of {known}")
    rng, labels, rate = np.random.default_rng(NOISE_SEED), clean.copy(), int(percent) / 100
    if kind == "sym":
        ids = rng.permutation(count)[: round(rate * count)]
        labels[ids] = (clean[ids] + rng.integers(1, CLASSES, len(ids))) % CLASSES
    else:
        altered = rng.random(count) < rate
        for right, wrong in RESEMBLES.items():
            labels[altered & (clean == right)] = wrong
    return labels, clean


class Trainer:
    """Trains one kind of network on a .beton, always alike."""

    def __init__(self, beton: Path, recipe: Recipe, kept: Path) -> None:
        self.beton, self.recipe, self.kept = beton, recipe, kept

    def train(self, criterion: torch.nn.Module, seed: int, ids: Labels | None = None) -> torch.nn.Module:
        torch.manual_seed(seed)
        model = models.build(self.recipe.model, num_classes=CLASSES, image_size=SIZE)
        options: dict[str, Any] = {"seed": seed, "augment": "crop+flip", "num_workers": 1}
        with dualfast.Loader(self.beton, self.recipe.batch_size, image_size=SIZE, **options) as loader:
            loader.set_indices(ids)
            fit(model, loader, criterion, self.recipe)
        return model

    @torch.no_grad()
    def probabilities(self, model: torch.nn.Module, ids: Labels) -> NDArray[np.float64]:
        """Of each class for these samples, (len(ids), CLASSES)."""
        model.eval()
        found = []
        with dualfast.Loader(self.beton, 256, image_size=SIZE, order="sequential", num_workers=1) as loader:
            loader.set_indices(ids)
            for images, _, index in loader:
                found.append((index, model(images.contiguous(memory_format=torch.channels_last)).double().softmax(1)))
        index, rows = (torch.cat(part).numpy() for part in zip(*found, strict=True))
        assert np.array_equal(index, ids)
        return rows


def scores_of(trainer: Trainer, labels: Labels, seed: int) -> tuple[Scores, Row]:
    """The scores of one training and what it took; from trainer.kept, where an earlier call left them."""
    path = trainer.kept / f"{trainer.recipe.model}-{len(labels)}-{trainer.recipe.epochs}-{crc32(labels)}-{seed}.parquet"
    about = path.with_suffix(".json")
    if not about.exists():
        start = time.process_time()
        tracked = {"track_aum_prob": True, "track_late_margin": True, "track_top_other": True}
        table = dualfast.ScoreTable(len(labels), epochs=trainer.recipe.epochs, **tracked)
        trainer.train(dualfast.DualLoss(table), seed)
        took = {"cpu_seconds": round(time.process_time() - start, 2), "trained_at": git("rev-parse", "HEAD")}
        table.scores().save(path, labels=labels)
        about.write_text(json.dumps(took), encoding="utf-8")
    return Scores.load(path), json.loads(about.read_text(encoding="utf-8"))


def held_out(trainer: Trainer, n: int, seed: int) -> NDArray[np.float64]:
    """Each sample's probabilities by the network that was trained on the other folds, (n, CLASSES)."""
    fold = np.random.default_rng(seed).permutation(n) % FOLDS
    out = np.zeros((n, CLASSES))
    for part in range(FOLDS):
        model = trainer.train(CrossEntropy(), seed * FOLDS + part, np.flatnonzero(fold != part))
        ids = np.flatnonzero(fold == part)
        out[ids] = trainer.probabilities(model, ids)
    return out


def audited(trainer: Trainer, labels: Labels, seed: int) -> Iterator[Row]:
    """A row for each score of ours: what it took, how well it finds the wrong labels, the number it estimates."""
    scores, took = scores_of(trainer, labels, seed)
    start = time.process_time()
    found = dualfast.audit(scores, labels)
    took |= {"audit_cpu_seconds": round(time.process_time() - start, 3)}
    yield took | {"score": "audit", "suspicion": 1 - found.quality, "estimate": found.n_wrong}
    assert scores.aum is not None
    yield took | {"score": "aum", "suspicion": -scores.aum, "estimate": None}
    yield took | {"score": "mean", "suspicion": -scores.mean, "estimate": None}


def cross_validated(trainer: Trainer, labels: Labels, seed: int) -> Iterator[Row]:
    """The same of cleanlab's."""
    from cleanlab.count import num_label_issues
    from cleanlab.rank import get_label_quality_scores

    start = time.process_time()
    probabilities = held_out(trainer, len(labels), seed)
    count = int(num_label_issues(labels, probabilities))
    took = {"cpu_seconds": round(time.process_time() - start, 2)}
    for score in CLEANLAB_SCORES:
        suspicion = -get_label_quality_scores(labels, probabilities, method=score)
        yield took | {"score": score, "suspicion": suspicion, "estimate": count}


def judged(suspicion: NDArray[Any], wrong: NDArray[np.bool_]) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "average_precision": round(float(average_precision_score(wrong, suspicion)), 5),
        "auroc": round(float(roc_auc_score(wrong, suspicion)), 5),
    }


BY = {"dualfast": audited, "cleanlab": cross_validated}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--labels", nargs="+", required=True)
    parser.add_argument("--by", nargs="+", choices=BY, default=list(BY))
    parser.add_argument("--model", default="small")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder that keeps the score tables, for another audit of them")
    parser.add_argument("--results", type=Path, default=RESULTS / "audit.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    preset = {name: value for name, value in RECIPES["cpu"].items() if name in Recipe.__dataclass_fields__}
    chosen = {"model": args.model, "epochs": args.epochs, "threads": args.threads}
    recipe = Recipe(**(preset | chosen))
    results = Records(args.results)
    about = origin(("cleanlab",))
    images = images_of(args.data, args.images)
    for name in args.labels:
        labels, clean = labels_of(args.data, args.images, name)
        with tempfile.TemporaryDirectory() as folder:
            if args.work is not None:
                args.work.mkdir(parents=True, exist_ok=True)
            trainer = Trainer(Path(folder) / "train.beton", recipe, args.work or Path(folder))
            dualfast.write((images, labels), trainer.beton, progress=False)
            for by in args.by:
                key = {"images": args.images, "model": args.model, "epochs": args.epochs, "seed": args.seed}
                key |= {"labels": name, "by": by}
                if any(key.items() <= row.items() for row in results.read()):
                    continue
                for found in list(BY[by](trainer, labels, args.seed)):
                    row = key | judged(found.pop("suspicion"), labels != clean) | found
                    row |= {"wrong": int((labels != clean).sum()), "threads": args.threads}
                    results.append(row | about)
                    shown = ("score", "average_precision", "auroc", "wrong", "estimate", "cpu_seconds")
                    print(name, by, *(row[part] for part in shown), flush=True)


if __name__ == "__main__":
    main()

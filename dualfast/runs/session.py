"""The whole method as steps over a run directory: data, scores, selections, retrainings, report.

Each step leaves a file or a line of metrics.jsonl when it has finished and is skipped when that is there, so a run
that was stopped goes on after its last finished step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch

from dualfast.comm.ranks import Ranks, join
from dualfast.config import Data, Recipe, RunConfig, ScoreConfig, Scoring, TrainConfig, method_options
from dualfast.data import beton, sources
from dualfast.data.index_list import load_keep, save_keep, side_of
from dualfast.loading.loader import Loader
from dualfast.report import page as report
from dualfast.runs.rundir import RunDir, held, versions
from dualfast.runs.trial import Training as Training
from dualfast.runs.trial import draw_options, drawn, mixed_seed, needs_scores, same_draw, takes_auto, training_of
from dualfast.scoring.loss import DualLoss
from dualfast.scoring.sharded import ShardedTable
from dualfast.scoring.table import Scores, ScoreTable
from dualfast.selection.select import check_method, kept_count
from dualfast.storage.files import atomic
from dualfast.training import models
from dualfast.training.checkpoint import Checkpoints
from dualfast.training.fit import CrossEntropy, Fit, fit, pick_device

# What one call on a run directory may ask otherwise than the call before it.
MAY_DIFFER = (
    *("prune_ratio", "method", "seed", "full", "num_workers", "threads", "out"),
    *("checkpoint_every", "rank_timeout"),
)
LARGE_IMAGE = 224
ONE_THREAD = 1 << 14  # pixels of a batch


class Progress(Protocol):
    """What a run tells as it goes."""

    def plan(self, images: int) -> None:
        """So many images are to be trained on in all; those of finished steps are not among them."""

    def step(self, what: str) -> None:
        """A step begins."""

    def images(self, count: int) -> None:
        """So many images more have been trained on."""

    def say(self, line: str) -> None:
        """Something to keep on the screen."""


def run(config: RunConfig, progress: Progress) -> tuple[RunDir, list[dict[str, Any]]]:
    """Scores, selects, retrains and reports; returns the run directory and one result row a finished training.

    A row holds method, prune_ratio, seed, kept, n_samples, accuracy and best_accuracy (fractions of the test images,
    after the last epoch and the best tested one), score_seconds and train_seconds.
    """
    models.check(config.model)
    for method in config.method:
        check_method(*method_options(method))
        if method_options(method)[0] == "tdds" and not config.tdds:
            raise ValueError(f"method is {method!r}, whose score is gathered on demand; give --tdds too")
    with workshop(config, progress, needs_test=True) as shop:
        progress = shop.progress
        for ratio in config.prune_ratio:
            kept = kept_count(shop.n_samples, ratio)
            if kept < shop.ranks.size:
                raise ValueError(
                    f"prune_ratio {ratio:g} keeps {kept} of {shop.n_samples} images, and a training needs at least "
                    f"{shop.ranks.size}, one a process; lower prune_ratio"
                )
            if kept < shop.n_classes:
                progress.say(f"prune ratio {ratio:g} keeps {kept} images of {shop.n_classes} classes: some get none")
        wanted = []
        for seed in config.seed:
            wanted += [Training("full", 0.0, seed)] if config.full else []
            wanted += [Training(method, ratio, seed) for ratio in config.prune_ratio for method in config.method]
        finished = {training_of(row) for row in shop.run_dir.records("trained")}
        todo = [training for training in wanted if training not in finished]
        unscored = {t.seed for t in todo if needs_scores(t.method) and not shop.is_scored(t.seed)}
        progress.plan(
            sum(kept_count(shop.n_samples, t.prune_ratio) * shop.epochs(t) for t in todo)
            + len(unscored) * shop.n_samples * config.score_epochs
        )
        if not todo:
            progress.say(f"all {len(wanted)} trainings are finished in {shop.run_dir.path}; delete it to run again")
        elif len(todo) < len(wanted):
            progress.say(f"{len(wanted) - len(todo)} of {len(wanted)} trainings are finished; continuing")
        for training in todo:
            if training.seed in unscored:
                shop.score(config, training.seed)
                unscored.remove(training.seed)
            shop.retrain(training, config)
        rows = [row for row in shop.run_dir.records("trained") if training_of(row) in set(wanted)]
        shop.ranks.first_does("writing the report", shop.report)
    return shop.run_dir, rows


def report_only(out: str | Path) -> Path:
    """Writes report.html of a run directory again, from its configuration, results, scores and images.

    Every finished training of the directory is on the page. ValueError when `out` is no run directory.
    """
    run_dir = RunDir(out)
    data = str(run_dir.config()["asked"].get("data"))
    train = Path(data) if data.endswith(".beton") else run_dir.train_beton
    return _write_report(run_dir, beton.open_beton(train) if train.exists() else None)


def score_only(config: ScoreConfig, progress: Progress) -> Path:
    """Gathers the scores of one seed; returns the path of the Parquet table."""
    with workshop(config, progress, needs_test=False) as shop:
        if not shop.is_scored(config.seed):
            shop.progress.plan(shop.n_samples * config.score_epochs)
            return shop.score(config, config.seed)
        return shop.scores_path(config.seed)


def train_only(config: TrainConfig, progress: Progress) -> tuple[RunDir, dict[str, Any]]:
    """Trains once, on all images or on an index list; returns the run directory, with model.pt, and the result row."""
    with workshop(config, progress, needs_test=False) as shop:
        ids = None if config.keep is None else load_keep(config.keep, fingerprint=shop.train.fingerprint)
        return shop.run_dir, shop.train_on(ids, config.seed)


class Silent:
    """The progress of the ranks that do not speak."""

    def plan(self, images: int) -> None: ...

    def step(self, what: str) -> None: ...

    def images(self, count: int) -> None: ...

    def say(self, line: str) -> None: ...


@contextmanager
def workshop(
    config: RunConfig | ScoreConfig | TrainConfig, progress: Progress, *, needs_test: bool
) -> Iterator[Workshop]:
    """The workshop of a run directory, on each of the ranks that torchrun started, or on one process."""
    recipe = recipe_of(config)
    ranks = join("cuda" if pick_device(recipe).type == "cuda" else "cpu", config.rank_timeout)
    progress = progress if ranks.first else Silent()
    asked, out = _asked(config)
    with ranks.meeting(), ExitStack() as holding:
        ranks.check_same(versions() | asked)

        def opened() -> None:
            holding.enter_context(held(out))
            open_run(config)

        ranks.first_does("opening the run directory", opened)
        run_dir = RunDir(out)
        with (
            Checkpoints(run_dir.checkpoints, config.checkpoint_every, ranks, progress.say) as checkpoints,
            Workshop(run_dir, config, recipe, progress, ranks, checkpoints, needs_test=needs_test) as shop,
        ):
            yield shop


class Workshop:
    """The data of a run directory with one loader for training and one for testing, compiled once for all steps.

    Raises ValueError for data that cannot be trained on and when the test images do not fit the training images.
    """

    def __init__(
        self,
        run_dir: RunDir,
        config: Data,
        recipe: Recipe,
        progress: Progress,
        ranks: Ranks | None = None,
        checkpoints: Checkpoints | None = None,
        *,
        needs_test: bool,
    ) -> None:
        self.run_dir = run_dir
        self.ranks = ranks = ranks or Ranks()
        self.checkpoints = checkpoints
        self.recipe = recipe
        self.progress = progress
        self.device = pick_device(recipe)
        train, test = sources.splits(config.data, config.test)
        self.train = self._written(train, run_dir.train_beton, config)
        self.test = self._written(test, run_dir.test_beton, config) if test is not None else None
        if self.test is None and needs_test:
            raise ValueError(f"data {config.data!r} comes without test images; name them with --test PATH")
        ranks.check_same({"the training data": self.train.fingerprint})
        noted = {"data_fingerprint": self.train.fingerprint}
        noted |= {} if self.test is None else {"test_fingerprint": self.test.fingerprint}
        ranks.first_does("comparing the data with the run's", lambda: run_dir.note(noted))
        self.n_samples = self.train.n_samples
        self._check_enough("the training data", self.n_samples)
        self.class_names = self.train.class_names or tuple(map(str, range(int(self.train.labels.max()) + 1)))
        self.n_classes = len(self.class_names)
        if self.test is not None:
            self._check_test(self.test)
        if self.device.type == "cpu":
            self._set_threads()
        self.train_loader = self._loader(self.train, recipe.batch_size, training=True)
        tested = max(256, recipe.batch_size)
        self.test_loader = self._loader(self.test, tested, training=False) if self.test is not None else None

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.train_loader.close()
        if self.test_loader is not None:
            self.test_loader.close()

    def _set_threads(self) -> None:
        """Torch's threads: one for a batch of few pixels, as fast there, and a busy machine does not stall it."""
        if self.recipe.threads > 0:
            torch.set_num_threads(self.recipe.threads)
        elif self.recipe.batch_size * self.image_size**2 < ONE_THREAD:
            torch.set_num_threads(1)

    def _check_enough(self, what: str, count: int) -> None:
        if count < self.ranks.size:
            raise ValueError(f"{what}: {count} images for {self.ranks.size} processes; start at most one an image")

    def _written(self, source: str, path: Path, config: Data) -> beton.Beton:
        if source.endswith(".beton"):
            return beton.open_beton(source)

        def write() -> None:
            if path.exists():
                return
            self.progress.step(f"writing {path.name}")
            written = beton.write(source, path, max_size=config.max_size, skip_bad=config.skip_bad, progress=False)
            skipped = f", {len(written.skipped)} unreadable left out" if written.skipped else ""
            self.progress.say(f"{path}: {written.n_samples} images, {written.bytes / 1e6:.1f} MB{skipped}")

        self.ranks.first_does(f"writing {path.name}", write)
        return beton.open_beton(path)

    def _check_test(self, test: beton.Beton) -> None:
        if test.class_names and self.train.class_names and test.class_names != self.train.class_names:
            strange = sorted(set(test.class_names) ^ set(self.train.class_names))
            raise ValueError(
                f"the test images have {len(test.class_names)} classes and the training images "
                f"{len(self.train.class_names)}; only one of them has {', '.join(strange[:5]) or 'this order'}"
            )
        if int(test.labels.max()) >= self.n_classes:
            raise ValueError(
                f"the test images have the label {int(test.labels.max())}; the training images have the classes "
                f"0 to {self.n_classes - 1}"
            )

    @property
    def image_size(self) -> int:
        """Side in pixels of the images the network sees."""
        if self.recipe.image_size is not None:
            return self.recipe.image_size
        size = self.train.constant_size
        return size[0] if size is not None and size[0] == size[1] <= models.SMALL_IMAGE else LARGE_IMAGE

    def _loader(self, data: beton.Beton, batch_size: int, *, training: bool) -> Loader:
        augment = self.recipe.augment
        if augment == "auto":
            # A mirrored digit is another character; a mirrored photograph is the same thing.
            augment = (
                "rrc" if self.image_size > models.SMALL_IMAGE else "crop+flip" if self.image_size >= 16 else "crop"
            )
        return Loader(
            data.path,
            -(-batch_size // self.ranks.size),
            distributed=self.ranks.size > 1,
            order="random" if training else "sequential",
            num_workers=self.recipe.num_workers,
            image_size=self.image_size,
            augment=augment if training and augment != "none" else False,
        )

    # ---- scoring ----------------------------------------------------------------------------------------------------

    def is_scored(self, seed: int) -> bool:
        return any(record["seed"] == seed for record in self.run_dir.records("scored"))

    def scores_path(self, seed: int) -> Path:
        """scores.parquet holds the scores of the first seed that was scored."""
        first = [record["seed"] for record in self.run_dir.records("scored")][:1] or [seed]
        return self.run_dir.scores_path(seed, first == [seed])

    def score(self, scoring: Scoring, seed: int) -> Path:
        """Trains for the scoring epochs with DualLoss and writes the scores."""
        recipe = replace(self.recipe, epochs=max(self.recipe.epochs, scoring.score_epochs))
        if scoring.tdds and self.ranks.size > 1:
            raise ValueError("tdds is gathered on one process only; leave out --tdds, or start one process")
        table = (ScoreTable if self.ranks.size == 1 else ShardedTable)(
            self.n_samples,
            window=scoring.window,
            epochs=scoring.score_epochs,
            track_loss=True,
            tdds=self.n_classes if scoring.tdds else None,
            device=str(self.device),
        )
        criterion = DualLoss(table, label_smoothing=recipe.label_smoothing)
        _, done = self._fit(f"scoring, seed {seed}", seed, criterion, recipe, None, stop_after=scoring.score_epochs)
        path = self.scores_path(seed)
        scores = table.scores_on(0)
        record = {"event": "scored", "seed": seed, "epochs": scoring.score_epochs, "seconds": done.seconds}
        record |= {
            "cpu_seconds": done.cpu_seconds,
            "accuracy": done.accuracy,
            "images_per_second": done.images_per_second,
        }

        def write() -> None:
            assert scores is not None
            scores.save(path, labels=self.train.labels, fingerprint=self.train.fingerprint)
            self.run_dir.append(record)

        self._finish("writing the scores", write)
        self.progress.say(
            f"scored {self.n_samples} images, seed {seed}: {done.seconds:.1f} s, "
            f"{done.images_per_second:,.0f} images/s, test accuracy {100 * done.accuracy:.2f}%"
        )
        return path

    def adopt(self, path: Path, seed: int, record: dict[str, Any]) -> None:
        """Takes the scores that another run gathered on the same data, and recorded so, for this run's own."""
        if not self.is_scored(seed):
            scores = Scores.load(path, fingerprint=self.train.fingerprint)
            scores.save(self.scores_path(seed), labels=self.train.labels, fingerprint=self.train.fingerprint)
            self.run_dir.append({"event": "scored", "seed": seed, "from": str(path), **_times(record)})

    def _scores(self, seed: int) -> Scores:
        return Scores.load(self.scores_path(seed), fingerprint=self.train.fingerprint)

    def _score_times(self, training: Training) -> dict[str, float]:
        """The seconds and processor seconds that gathering a training's scores took."""
        if not needs_scores(training.method):
            return {"seconds": 0.0, "cpu_seconds": 0.0}
        return _times(next(r for r in self.run_dir.records("scored") if r["seed"] == training.seed))

    # ---- selection and retraining -----------------------------------------------------------------------------------

    def keep(self, training: Training, config: RunConfig) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The ids a training keeps: drawn and written once, read afterwards."""
        first = training.method == config.method[0] and training.seed == config.seed[0]
        path = self.run_dir.keep_path(training.prune_ratio, training.method, training.seed, first)
        how = partial(draw_options, training, config.c_d, config.per_class)
        if first and path.exists() and not same_draw(path, how(lambda: self._scores(training.seed))):
            # An earlier call began with another method.
            path = self.run_dir.keep_path(training.prune_ratio, training.method, training.seed, False)

        def write() -> None:
            if path.exists():
                return
            scores = self._scores(training.seed) if needs_scores(training.method) else self.n_samples
            options = how(lambda: scores)
            if takes_auto(training, config.c_d):
                self.progress.say(f"{training}: c_d {options['c_d']:g}, read off the scores")
            kept = drawn(training, scores, self.train.labels, options)
            about: dict[str, Any] = {"n_samples": self.n_samples, "fingerprint": self.train.fingerprint}
            save_keep(path, kept, prune_ratio=training.prune_ratio, **about, **options)

        self.ranks.first_does(f"drawing for {training}", write)
        return load_keep(path, fingerprint=self.train.fingerprint)

    def epochs(self, training: Training) -> int:
        """Epochs of a retraining: the recipe's, or more where the number of steps is what stays equal."""
        if self.recipe.compute == "epochs":
            return self.recipe.epochs
        batch_size = self.recipe.batch_size_at(training.prune_ratio)
        batches = -(-kept_count(self.n_samples, training.prune_ratio) // batch_size)
        return round(self.recipe.epochs * -(-self.n_samples // self.recipe.batch_size) / batches)

    def retrain(self, training: Training, config: RunConfig) -> dict[str, Any]:
        """Trains on what a training keeps with plain cross-entropy and records the result."""
        ids = None if training.method == "full" else self.keep(training, config)
        batch_size = self.recipe.batch_size_at(training.prune_ratio)
        recipe = replace(self.recipe, epochs=self.epochs(training), batch_size=batch_size)
        _, done = self._fit(str(training), training.seed, CrossEntropy(recipe.label_smoothing), recipe, ids)
        kept = self.n_samples if ids is None else len(ids)
        row = {
            "event": "trained",
            "method": training.method,
            "prune_ratio": training.prune_ratio,
            "seed": training.seed,
            "kept": kept,
            "n_samples": self.n_samples,
            "accuracy": done.accuracy,
            "best_accuracy": done.best_accuracy,
            "loss": done.loss,
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            **{f"score_{name}": value for name, value in self._score_times(training).items()},
            "train_seconds": done.seconds,
            "train_cpu_seconds": done.cpu_seconds,
            "images_per_second": done.images_per_second,
        }
        self._finish("recording the result", lambda: self.run_dir.append(row))
        self.progress.say(
            f"{training}: kept {kept} of {self.n_samples}, {done.seconds:.1f} s, accuracy {100 * done.accuracy:.2f}%"
        )
        return row

    def _fit(
        self,
        what: str,
        seed: int,
        criterion: torch.nn.Module,
        recipe: Recipe,
        ids: np.ndarray[Any, np.dtype[np.int64]] | None,
        stop_after: int | None = None,
    ) -> tuple[torch.nn.Module, Fit]:
        count = self.n_samples if ids is None else len(ids)
        batch = batch_of_a_rank(count, recipe.batch_size, self.ranks.size)
        if self.train_loader.batch_size != batch:
            self.train_loader.close()
            self.train_loader = self._loader(self.train, batch * self.ranks.size, training=True)
        self.train_loader.set_indices(ids)
        self.train_loader.seed = mixed_seed(seed, stop_after is not None)
        torch.manual_seed(self.train_loader.seed)
        model = models.build(recipe.model, num_classes=self.n_classes, image_size=self.image_size)
        self._check_enough(what, count)
        epochs = recipe.epochs if stop_after is None else stop_after

        def on_epoch(epoch: int, loss: float, accuracy: float | None) -> None:
            self.progress.images(count)
            self.progress.step(f"{what}: epoch {epoch + 1}/{epochs}, loss {loss:.3f}")

        self.progress.step(what)
        window = criterion.table.window if isinstance(criterion, DualLoss) else None
        made = fit(
            model,
            self.train_loader,
            criterion,
            recipe,
            stop_after=stop_after,
            test_loader=self.test_loader,
            on_epoch=on_epoch,
            ranks=self.ranks,
            checkpoints=self.checkpoints,
            what={"training": what, "data": self.train.fingerprint, "window": window},
        )
        return model, made

    def _finish(self, what: str, write: Callable[[], None]) -> None:
        """A training's results are written, and its checkpoints no longer needed."""
        self.ranks.first_does(what, write)
        if self.checkpoints is not None:
            self.checkpoints.clear()

    def report(self) -> None:
        """Writes report.html; without the packages it takes, says so: a run does not fail at its end for a page."""
        self.progress.step("writing the report")
        try:
            _write_report(self.run_dir, self.train)
        except ModuleNotFoundError as error:
            self.progress.say(
                f"no report.html: the package {error.name!r} is not installed; pip install 'dualfast[report]', then "
                f"dualfast report {self.run_dir.path}"
            )

    def train_on(self, ids: np.ndarray[Any, np.dtype[np.int64]] | None, seed: int) -> dict[str, Any]:
        """Trains on the given ids (None: all), writes model.pt (a state_dict) and returns a result row."""
        kept = self.n_samples if ids is None else len(ids)
        self.progress.plan(kept * self.recipe.epochs)
        what = f"training on {kept} of {self.n_samples} images, seed {seed}"
        model, done = self._fit(what, seed, CrossEntropy(self.recipe.label_smoothing), self.recipe, ids)
        row: dict[str, Any] = {"event": "train", "method": "given list" if ids is not None else "full", "seed": seed}
        row |= {"prune_ratio": 1 - kept / self.n_samples, "kept": kept, "n_samples": self.n_samples}
        row |= {"accuracy": done.accuracy, "best_accuracy": done.best_accuracy, "loss": done.loss}
        row |= {"score_seconds": 0.0, "train_seconds": done.seconds, "images_per_second": done.images_per_second}

        def write() -> None:
            with atomic(self.run_dir.path / "model.pt") as part:
                torch.save(model.state_dict(), part)
            self.run_dir.append(row)

        self._finish("writing model.pt", write)
        return row


def _write_report(run_dir: RunDir, train: beton.Beton | None) -> Path:
    """The page shows what the first method kept with the first seed, and that seed's scores (else the first scored)."""
    config, rows = run_dir.config(), run_dir.records("trained")
    asked = config["asked"]
    rows = list({training_of(row): row for row in rows}.values())
    scored = [record["seed"] for record in run_dir.records("scored")]
    first = next((training_of(row) for row in rows if row["method"] != "full"), None)
    seed = first.seed if first is not None and first.seed in scored else scored[0] if scored else None
    fingerprint = None if train is None else train.fingerprint
    scores, labels = None, None if train is None else train.labels
    if seed is not None:
        path = run_dir.scores_path(seed, seed == scored[0])
        scores = Scores.load(path, fingerprint=fingerprint)
        labels = Scores.about(path)["labels"] if labels is None else labels

    def options_of(training: Training) -> dict[str, Any]:
        """How a training's ids were drawn, by its list's sidecar; without one, how they are drawn again."""
        listed = _index_list(run_dir, training)
        recorded = {} if listed is None else side_of(listed)
        return recorded or draw_options(training, asked["c_d"], asked["per_class"], lambda: scores)

    kept, redrawn = {}, []
    if first is not None and labels is not None and (scores is not None or not needs_scores(first.method)):
        same = [t for t in map(training_of, rows) if (t.method, t.seed) == (first.method, first.seed)]
        for training in sorted(same, key=lambda training: training.prune_ratio):
            listed = _index_list(run_dir, training)
            if listed is not None:
                ids = load_keep(listed, n_samples=len(labels), fingerprint=fingerprint)
            else:
                given = scores if scores is not None and needs_scores(first.method) else len(labels)
                ids = drawn(training, given, labels, options_of(training))
                redrawn.append(training.prune_ratio)
            kept[training.prune_ratio] = ids
    c_d = {}
    if scores is not None and seed is not None:
        beta = [row for row in rows if method_options(row["method"])[0] == "dual+beta"]
        ratios = {row["prune_ratio"] for row in beta if row["method"] == beta[0]["method"]}
        c_d = {ratio: options_of(Training(beta[0]["method"], ratio, seed))["c_d"] for ratio in ratios}
    content = report.Content(
        rows=rows,
        asked=asked,
        environment=config.get("environment", {}),
        labels=labels,
        data=train,
        scores=scores,
        scored_seed=seed,
        c_d=c_d,
        kept=kept,
        kept_by="" if first is None else f"{first.method}, seed {first.seed}",
        redrawn=redrawn,
    )
    return report.write(run_dir.report_path, content)


def _index_list(run_dir: RunDir, training: Training) -> Path | None:
    """The index list that a training used: the one of its own name, else keep-<ratio>.npy where the sidecar says that
    it was drawn for this method and seed; None where neither exists."""
    own = run_dir.keep_path(training.prune_ratio, training.method, training.seed, first=False)
    if own.exists():
        return own
    shared = run_dir.keep_path(training.prune_ratio, training.method, training.seed)
    method, given = method_options(training.method)
    # The sidecar holds c_D as a number, whether it was given as one, by name or as auto.
    expected = {key: value for key, value in given.items() if not isinstance(value, str) or key != "c_d"}
    expected |= {"method": method, "seed": training.seed}
    return shared if shared.exists() and expected.items() <= side_of(shared).items() else None


def _times(record: dict[str, Any]) -> dict[str, float]:
    """What a record of scores says of the time they took; those of older run directories say less."""
    return {name: record[name] for name in ("seconds", "cpu_seconds") if name in record}


def batch_of_a_rank(count: int, batch_size: int, ranks: int) -> int:
    """Images of a batch on each rank: a share of batch_size; some more, below twice, where the last batch would be one
    image alone, over which batch normalisation may find no variance."""
    share, fewest = -(-batch_size // ranks), count // ranks

    def last(batch: int) -> int:
        return fewest - (-(-count // (batch * ranks)) - 1) * batch

    return next((batch for batch in range(share, 2 * share) if last(batch) > 1), share)


def recipe_of(config: Recipe) -> Recipe:
    """The part of a configuration that says how to train."""
    return Recipe(**{field.name: getattr(config, field.name) for field in fields(Recipe)})


def open_run(config: Data) -> RunDir:
    """The run directory that a configuration asks for, new or begun before."""
    asked, out = _asked(config)
    return RunDir(out, asked, MAY_DIFFER)


def _asked(config: Data) -> tuple[dict[str, Any], str]:
    """What a run directory notes of a configuration, and where it is."""
    out = config.out or f"runs/{os.path.basename(os.path.abspath(config.data)).lstrip('.').partition('.')[0]}"
    asked = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items() if k != "debug"}
    return asked | {"out": str(out)}, out

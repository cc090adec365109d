"""What all trainings of a run share, opened once: data, device, ranks, loaders and checkpoints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import cache
from types import TracebackType
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from dualfast.comm.ranks import Ranks, join
from dualfast.config import Recipe, RunConfig, ScoreConfig, Scoring, TrainConfig, ratio_text
from dualfast.data.beton import Beton
from dualfast.loading.decode import NORMALIZATIONS, default_augment, default_image_size, size_for
from dualfast.runs.classes import class_names_of, match
from dualfast.runs.datasets import open_datasets, too_few_images
from dualfast.runs.environment import versions
from dualfast.runs.images import ImageLoader
from dualfast.runs.parts import Parts, check_outside, check_sources, parts_of
from dualfast.runs.progress import NullProgress, Progress
from dualfast.runs.rundir import MAY_DIFFER, RunDir, out_of, request_of
from dualfast.scoring.loss import DualLoss
from dualfast.selection.select import kept_count, select
from dualfast.storage.locks import lock_folder
from dualfast.training import models
from dualfast.training.checkpoint import Checkpoints
from dualfast.training.device import pick_device
from dualfast.training.fit import TrainResult, fit
from dualfast.training.trial_batch import try_model

ONE_THREAD = 1 << 14  # pixels per batch: below that, one thread is as fast
TEST_BATCH = 256

Config = RunConfig | ScoreConfig | TrainConfig


@contextmanager
def open_session(config: Config, progress: Progress, *, needs_test: bool) -> Iterator[RunSession]:
    """The session of a configuration's run directory, locked for the block, on each rank that torchrun started.

    Raises ValueError when the ranks were started differently or cannot gather what is wanted, when the directory is in
    use or holds another run, and for data that cannot be trained on.
    """
    recipe, request, out = recipe_of(config), request_of(config), out_of(config)
    device = pick_device(recipe)
    ranks = join("cuda" if device.type == "cuda" else "cpu", config.rank_timeout)
    progress = progress if ranks.is_rank0 else NullProgress()
    with ranks.leave_group_on_exit(), ExitStack() as resources:
        ranks.check_same(versions() | request)
        if isinstance(config, Scoring):
            config.check_processes(ranks.size)

        opened: list[RunDir] = []  # on rank 0
        parts: list[Parts] = []

        def lock_and_open() -> None:
            check_outside(config.data, config.test, out)
            is_new = not os.path.lexists(out)
            try:
                resources.enter_context(lock_folder(out))
                if is_new:
                    resources.callback(_remove_if_empty, out)  # of a call that is refused
                opened.append(RunDir(out, request, MAY_DIFFER))
            except OSError as error:
                raise ValueError(
                    f"out is {out!r}, which cannot be written to ({error.strerror}); give another"
                ) from error
            try:
                parts.append(check_sources(config, opened[0], progress))
            except Exception:
                opened[0].withdraw()
                raise

        ranks.run_on_rank0("opening the run directory", lock_and_open)
        run_dir = opened[0] if opened else RunDir(out)
        parts[:] = parts or [parts_of(config, run_dir)]
        checkpoints = Checkpoints(run_dir.checkpoints, config.checkpoint_interval, ranks, progress.say)
        resources.enter_context(checkpoints)

        @cache
        def check_ratios(n_samples: int, n_classes: int) -> None:
            if isinstance(config, RunConfig):
                _check_ratios(config, n_samples, n_classes, ranks, progress)

        @cache
        def try_once(n_samples: int, n_classes: int, size: tuple[int, int] | None) -> None:
            check_ratios(n_samples, n_classes)
            side = recipe.image_size or size_for(size, square=True)[0]
            outputs = try_model(recipe, n_classes=n_classes, image_size=side)
            if outputs > n_classes:
                unused = f"model {recipe.model} has {outputs} outputs for {n_classes} classes"
                if isinstance(config, Scoring) and config.tdds:
                    raise ValueError(f"{unused}; TDDS needs an output for each class")
                progress.note(f"{unused}; the others are trained towards 0")

        train, test = open_datasets(
            config, run_dir, parts[0], ranks, progress, needs_test=needs_test, try_model=try_once
        )
        known = train.n_samples, len(class_names_of(train)), train.constant_size
        ranks.run_on_rank0("trying the model", lambda: try_once(*known))
        ranks.run_on_rank0("noting the model", lambda: _note_model(recipe.model, run_dir, progress))
        yield resources.enter_context(RunSession(run_dir, recipe, device, train, test, ranks, checkpoints, progress))


def _check_ratios(config: RunConfig, n_samples: int, n_classes: int, ranks: Ranks, progress: Progress) -> None:
    """ValueError for a ratio that keeps less than an image per process; a note where not every class keeps one."""
    for ratio in config.prune_ratio:
        kept = kept_count(n_samples, ratio)
        if kept < ranks.size:
            raise ValueError(
                f"prune_ratio {ratio_text(ratio)} keeps {kept} of {n_samples} images, and a training needs at least "
                f"{ranks.size}, one per process; lower prune_ratio"
            )
        if kept < n_classes:
            progress.note(f"prune ratio {ratio_text(ratio)} keeps {kept} images of {n_classes} classes: some get none")


MODEL_CRC = "model_crc32"  # in config.yaml: of the file that --model module:factory is in


def _note_model(name: str, run_dir: RunDir, progress: Progress) -> None:
    """Notes which code the model is of; says where it has changed since an earlier call."""
    if (file := models.source_of(name)) is None:
        return
    before, now = run_dir.requested().get(MODEL_CRC), crc32(file.read_bytes())
    if before not in (None, now):
        progress.note(f"{file} has changed since an earlier call: this run has trainings of both versions")
    run_dir.note({MODEL_CRC: now}, (MODEL_CRC,))


def _remove_if_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)


class RunSession:
    """The open resources of a run, and fit(), which trains one network with them.

    train, test: the images, test None without any. n_samples: training images. A context manager that closes the
    loaders; open_session() makes one.
    """

    def __init__(
        self,
        run_dir: RunDir,
        recipe: Recipe,
        device: torch.device,
        train: Beton,
        test: Beton | None,
        ranks: Ranks,
        checkpoints: Checkpoints,
        progress: Progress,
    ) -> None:
        self.run_dir, self.recipe, self.train, self.test = run_dir, recipe, train, test
        self.ranks, self.checkpoints, self.progress = ranks, checkpoints, progress
        self.device = device
        self.n_samples, self.n_classes = train.n_samples, len(class_names_of(train))
        if self.device.type == "cpu":
            self._set_threads()
        self._train_loader = self._loader(train, recipe.batch_size, training=True)
        self._test_loader = None
        if test is not None:
            self._test_loader = self._loader(test, max(TEST_BATCH, recipe.batch_size), training=False)
            self._test_loader.numbers = match(train, test, str(test.path)).numbers

    def __enter__(self) -> RunSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._train_loader.close()
        if self._test_loader is not None:
            self._test_loader.close()

    @property
    def image_size(self) -> int:
        """Side in pixels of the images that the network sees."""
        if self.recipe.image_size is not None:
            return self.recipe.image_size
        return default_image_size(self.train, square=True)[0]

    def _set_threads(self) -> None:
        """torch's threads: one for batches of few pixels, which a busy machine then cannot stall."""
        if self.recipe.threads > 0:
            torch.set_num_threads(self.recipe.threads)
        elif self.recipe.batch_size * self.image_size**2 < ONE_THREAD:
            torch.set_num_threads(1)

    def _loader(self, data: Beton, batch_size: int, *, training: bool) -> ImageLoader:
        augment = self.recipe.augment
        if augment == "auto":
            augment = default_augment(self.image_size, characters=True)
        mean, std = NORMALIZATIONS[self.recipe.normalize]
        return ImageLoader(
            data,
            -(-batch_size // self.ranks.size),
            distributed=self.ranks.size > 1,
            order="random" if training else "sequential",
            num_workers=self.recipe.num_workers,
            image_size=self.image_size,
            augment=augment if training and augment != "none" else False,
            mean=mean,
            std=std,
            fill=self.recipe.fill,
        )

    def fit(
        self,
        what: str,
        seed: int,
        criterion: torch.nn.Module,
        recipe: Recipe,
        ids: NDArray[np.int64] | FreshSubsets | None = None,
        stop_after: int | None = None,
    ) -> tuple[torch.nn.Module, TrainResult]:
        """Trains a fresh network on the images `ids` (None: all; a function: those of each epoch) as training.fit.fit
        does, from a checkpoint if there is one.

        what: names the training, in checkpoints and progress. stop_after: epochs of a scoring pass, None to train to
        the end.
        """
        count = self.n_samples if ids is None else len(ids)
        seed = mixed_seed(seed, scoring=stop_after is not None)
        loader = self._loader_of(count, recipe.batch_size)
        loader.set_seed(seed)
        loader.set_indices(ids(0) if callable(ids) else ids)
        torch.manual_seed(seed)
        model = models.build(recipe.model, num_classes=self.n_classes, image_size=self.image_size)
        if count < self.ranks.size:
            raise too_few_images(what, count, self.ranks)
        epochs = recipe.epochs if stop_after is None else stop_after

        def on_epoch(epoch: int, loss: float, accuracy: float | None) -> None:
            self.progress.images(count)
            self.progress.step(f"{what}: epoch {epoch + 1}/{epochs}, loss {loss:.3f}")

        self.progress.step(what)
        window = criterion.table.window if isinstance(criterion, DualLoss) else None
        result = fit(
            model,
            loader,
            criterion,
            recipe,
            stop_after=stop_after,
            test_loader=self._test_loader,
            on_epoch=on_epoch,
            ranks=self.ranks,
            checkpoints=self.checkpoints,
            before_epoch=(lambda epoch: loader.set_indices(ids(epoch))) if callable(ids) else None,
            what={"training": what, "data": self.train.fingerprint, "window": window},
        )
        return model, result

    def _loader_of(self, count: int, batch_size: int) -> ImageLoader:
        """The training loader, with the batch size that `count` images want."""
        per_rank = rank_batch_size(count, batch_size, self.ranks.size)
        if self._train_loader.batch_size != per_rank:
            self._train_loader.close()
            self._train_loader = self._loader(self.train, per_rank * self.ranks.size, training=True)
        return self._train_loader

    def record(self, what: str, write: Callable[[], None]) -> None:
        """Runs `write`, which records a training's results, on rank 0, then deletes the training's checkpoints."""
        self.ranks.run_on_rank0(what, write)
        self.checkpoints.clear()


class FreshSubsets:
    """The baseline rs2: the ids of a random subset for each epoch, a function of (seed, epoch)."""

    def __init__(self, n_samples: int, prune_ratio: float, seed: int) -> None:
        self.n_samples, self.prune_ratio, self.seed = n_samples, prune_ratio, seed

    def __len__(self) -> int:
        return kept_count(self.n_samples, self.prune_ratio)

    def __call__(self, epoch: int) -> NDArray[np.int64]:
        seed = _hashed(f"{self.seed}/rs2/{epoch}")
        return select(self.n_samples, self.prune_ratio, method="random", seed=seed)


def recipe_of(config: Recipe) -> Recipe:
    """The part of a configuration that says how to train."""
    return Recipe(**{field.name: getattr(config, field.name) for field in fields(Recipe)})


def rank_batch_size(count: int, batch_size: int, ranks: int) -> int:
    """Images per batch on each rank: its share of batch_size, or up to twice that where the last batch would otherwise
    be a single image, which batch normalisation cannot take."""
    share, fewest = -(-batch_size // ranks), count // ranks

    def last(batch: int) -> int:
        return fewest - (-(-count // (batch * ranks)) - 1) * batch

    return next((batch for batch in range(share, 2 * share) if last(batch) > 1), share)


def mixed_seed(seed: int, scoring: bool) -> int:
    """The seed of weights and order: scoring and retraining with one seed start differently."""
    return _hashed(f"{seed}/{'score' if scoring else 'train'}") >> 1


def _hashed(text: str) -> int:
    """64 bits that depend on every character."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

"""Hugging Face Trainer: torchrun --nproc-per-node=2 examples/transformers_trainer.py"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from ddp import CLASSES, EPOCHS, FEATURES, Points
from torch import nn
from torch.utils.data import default_collate
from transformers import Trainer, TrainerCallback, TrainingArguments

from dualfast import DualLoss, ShardedTable, select


class ScoringTrainer(Trainer):
    """Batches include the samples' index; the loss is DualLoss."""

    def __init__(self, criterion: DualLoss, **options: Any) -> None:
        super().__init__(**options)
        self.criterion = criterion

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:  # type: ignore[override]
        return self.criterion(model(inputs["points"]), inputs["labels"], inputs["index"])  # type: ignore[no-any-return]


class Exchange(TrainerCallback):
    def __init__(self, table: ShardedTable) -> None:
        self.table = table

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.table.exchange()


def collate(samples: list[tuple[torch.Tensor, int, int]]) -> dict[str, torch.Tensor]:
    return dict(zip(("points", "labels", "index"), default_collate(samples), strict=True))


def main() -> None:
    data = Points()
    with tempfile.TemporaryDirectory() as folder:
        asked = TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=32,
            learning_rate=0.1,
            remove_unused_columns=False,  # else it drops the index
            use_cpu=not torch.cuda.is_available(),
            ddp_find_unused_parameters=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        table = ShardedTable(len(data), window=4, epochs=EPOCHS)  # after TrainingArguments, which join the processes
        trainer = ScoringTrainer(
            DualLoss(table),
            model=nn.Linear(FEATURES, CLASSES),
            args=asked,
            train_dataset=data,
            data_collator=collate,
            callbacks=[Exchange(table)],
        )
        trainer.train()
    scores = table.scores()
    kept = select(scores, 0.5, c_d="auto")
    assert scores.visits is not None
    if trainer.is_world_process_zero():
        print(f"every sample was scored {scores.visits.min()} to {scores.visits.max()} times; kept {len(kept)}")
    torch.distributed.barrier()  # gloo's threads finish: destroying the group before that may hang
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""Lightning: torchrun --nproc-per-node=2 examples/lightning_module.py"""

from __future__ import annotations

import os

import lightning
import torch
from ddp import CLASSES, EPOCHS, FEATURES, Points
from torch import nn
from torch.utils.data import DataLoader

from dualfast import DualLoss, ShardedTable, select


class Classifier(lightning.LightningModule):
    def __init__(self, n_samples: int) -> None:
        super().__init__()
        self.net = nn.Linear(FEATURES, CLASSES)
        self.n_samples = n_samples

    def on_fit_start(self) -> None:  # the process group exists now
        self.table = ShardedTable(self.n_samples, window=4, epochs=EPOCHS)
        self.criterion = DualLoss(self.table)

    def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
        points, labels, index = batch
        return self.criterion(self.net(points), labels, index)  # type: ignore[no-any-return]

    def on_train_epoch_end(self) -> None:
        self.table.exchange()

    def on_fit_end(self) -> None:
        scores = self.table.scores()
        kept = select(scores, 0.5, c_d="auto")
        assert scores.visits is not None
        if self.global_rank == 0:
            print(f"every sample was scored {scores.visits.min()} to {scores.visits.max()} times; kept {len(kept)}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


def main() -> None:
    lightning.seed_everything(0, verbose=False)
    data = Points()
    trainer = lightning.Trainer(
        max_epochs=EPOCHS,
        devices=int(os.environ["LOCAL_WORLD_SIZE"]),
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(len(data)), DataLoader(data, batch_size=32, shuffle=True))  # adds a DistributedSampler
    torch.distributed.barrier()  # let gloo's threads finish; destroying the group earlier can hang
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""Ray Train: python examples/ray_train.py"""

from __future__ import annotations

from typing import Any

import ray.train
import ray.train.torch
import torch
from ddp import CLASSES, EPOCHS, FEATURES, Points
from torch import nn
from torch.utils.data import DataLoader

from dualfast import DualLoss, ShardedTable, select


def train(_: dict[str, Any]) -> None:
    torch.manual_seed(0)
    data = Points()
    loader = ray.train.torch.prepare_data_loader(DataLoader(data, batch_size=32, shuffle=True))
    model = ray.train.torch.prepare_model(nn.Linear(FEATURES, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    table = ShardedTable(len(data), window=4, epochs=EPOCHS)
    criterion = DualLoss(table)
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)
        for points, labels, index in loader:
            loss = criterion(model(points), labels, index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        table.exchange()
    scores = table.scores()
    kept = select(scores, 0.5, c_d="auto")
    assert scores.visits is not None
    if ray.train.get_context().get_world_rank() == 0:
        print(f"every sample was scored {scores.visits.min()} to {scores.visits.max()} times; kept {len(kept)}")


def main() -> None:
    gpu = torch.cuda.is_available()
    trainer = ray.train.torch.TorchTrainer(
        train, train_loop_config={}, scaling_config=ray.train.ScalingConfig(num_workers=2, use_gpu=gpu)
    )
    trainer.fit()


if __name__ == "__main__":
    main()

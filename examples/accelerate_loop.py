"""Hugging Face accelerate: accelerate launch --num_processes=2 examples/accelerate_loop.py, or by torchrun."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from ddp import CLASSES, EPOCHS, FEATURES, Points
from torch import nn
from torch.utils.data import DataLoader

from dualfast import DualLoss, ShardedTable, select


def main() -> None:
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    set_seed(0)
    data = Points()
    loader = DataLoader(data, batch_size=32, shuffle=True)
    model = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    table = ShardedTable(len(data), window=4, epochs=EPOCHS)  # after Accelerator(), which joins the processes
    criterion = DualLoss(table)
    for _ in range(EPOCHS):
        for points, labels, index in loader:  # accelerate pads the last batches with repeats, which count once
            loss = criterion(model(points), labels, index)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        table.exchange()
    scores = table.scores()
    kept = select(scores, 0.5, c_d="auto")
    assert scores.visits is not None
    accelerator.print(f"every sample was scored {scores.visits.min()} to {scores.visits.max()} times; kept {len(kept)}")
    accelerator.wait_for_everyone()  # gloo's threads finish: destroying the group before that may hang
    accelerator.end_training()


if __name__ == "__main__":
    main()

"""Your own loop on several processes: torchrun --nproc-per-node=2 examples/ddp.py

What dualfast adds to a DistributedDataParallel loop is marked with a comment.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from dualfast import DualLoss, ShardedTable, select

EPOCHS, CLASSES, FEATURES = 6, 4, 8


class Points(Dataset[tuple[torch.Tensor, int, int]]):
    """Noisy points around one centre per class; also yields each sample's index, the one thing dualfast requires."""

    def __init__(self, n: int = 501) -> None:
        draw = torch.Generator().manual_seed(0)
        self.labels = torch.arange(n) % CLASSES
        centres = torch.randn(CLASSES, FEATURES, generator=draw)
        self.points = centres[self.labels] + torch.randn(n, FEATURES, generator=draw)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int, int]:
        return self.points[i], int(self.labels[i]), i  # the index


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cuda", dist.get_node_local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.manual_seed(0)
    data = Points()
    sampler: DistributedSampler[tuple[torch.Tensor, int, int]] = DistributedSampler(data, seed=0)
    loader = DataLoader(data, batch_size=32, sampler=sampler)
    model = nn.parallel.DistributedDataParallel(nn.Linear(FEATURES, CLASSES).to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    table = ShardedTable(len(data), window=4, epochs=EPOCHS)  # one line per sample, spread over the ranks
    criterion = DualLoss(table)  # instead of CrossEntropyLoss
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for points, labels, index in loader:
            loss = criterion(model(points.to(device)), labels.to(device), index.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        table.exchange()  # once per epoch: observations go to the ranks that own them
    scores = table.scores()
    kept = select(scores, 0.5, c_d="auto")
    assert scores.visits is not None
    if dist.get_rank() == 0:
        print(f"every sample was scored {scores.visits.min()} to {scores.visits.max()} times; kept {len(kept)}")
    dist.barrier()  # gloo's threads finish: destroying the group before that may hang
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

"""Collectives on rows of tensors, over gloo or nccl."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


def wire_device(group: Any) -> torch.device:
    """The device that tensors must be on to travel in `group`: the GPU for nccl, else the CPU."""
    if dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def exchange(rows: torch.Tensor, to: torch.Tensor, group: Any = None) -> torch.Tensor:
    """Sends each of rows (M, k) to the rank given in `to` (M,) int64; returns the rows received, ordered by sender and
    within a sender as there. One all-to-all for the counts, one for the rows."""
    size = dist.get_world_size(group)
    device = wire_device(group)
    order = torch.argsort(to, stable=True)
    outgoing = rows[order].contiguous().to(device)
    send = torch.bincount(to, minlength=size).to(device)
    receive = torch.empty_like(send)
    dist.all_to_all_single(receive, send, group=group)
    incoming = outgoing.new_empty(int(receive.sum()), rows.shape[1])
    dist.all_to_all_single(incoming, outgoing, receive.tolist(), send.tolist(), group=group)
    return incoming.to(rows.device)


def gather_rows(rows: torch.Tensor, group: Any = None, to: int | None = None) -> list[torch.Tensor] | None:
    """rows (M_r, k) of every rank r, in rank order, on the CPU: on all ranks, or on rank `to` only (None on the
    others)."""
    size, device = dist.get_world_size(group), wire_device(group)
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(size)]
    dist.all_gather(counts, torch.tensor([len(rows)], device=device), group=group)
    lengths = [int(count) for count in counts]
    longest = max(lengths)
    padded = rows.new_zeros(longest, *rows.shape[1:], device=device)
    padded[: len(rows)] = rows
    receives = to is None or dist.get_rank(group) == to
    parts = [torch.empty_like(padded) for _ in range(size)] if receives else None
    if to is None:
        dist.all_gather(parts, padded, group=group)
    else:
        dist.gather(padded, parts, group_dst=to, group=group)
    return None if parts is None else [part[:n].cpu() for part, n in zip(parts, lengths, strict=True)]

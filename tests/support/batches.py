"""A small .beton and what the loader's tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

N, SIDE = 203, 16
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) uint8 to what the loader gives, in float64 until the last step."""
    values = (pixels / 255 - np.array(MEAN)) / np.array(STD)
    return torch.from_numpy(values).to(torch.float32).permute(0, 3, 1, 2)


def collect(loader: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(part) for part in zip(*loader, strict=True))

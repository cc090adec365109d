"""The device a training runs on, and its mixed precision."""

from __future__ import annotations

import torch

from dualfast.config import Recipe


def pick_device(recipe: Recipe) -> torch.device:
    """recipe.device with "auto" resolved. Raises ValueError for a device that this machine lacks."""
    if recipe.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(recipe.device)
        torch.ones(1, device=device).item()  # computes and comes back, which the device "meta" cannot
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).partition(". ")[0]
        raise ValueError(f"device is {recipe.device!r}, which is not available ({reason}); use auto or cpu") from error
    return device


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """The autocast context of the forward pass; on CPUs without bf16 instructions bf16 is 10 to 40 times slower."""
    if recipe.amp == "auto":
        fast = device.type == "cuda" or (device.type == "cpu" and _cpu_has_bf16())
    else:
        fast = recipe.amp == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)


def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags

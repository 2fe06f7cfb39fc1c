"""On which device and in which number format networks are computed."""

from __future__ import annotations

import re

import torch

from mtrl.errors import ConfigError, ResourceError


def device_of(device: str) -> torch.device:
    """The device of the setting `agent.device`; "auto" is the first GPU, else the CPU.

    Raises ConfigError for another word, ResourceError for a GPU that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"agent.device is 'cpu', 'cuda', 'cuda:N' or 'auto'; got {device!r}")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"agent.device={device} is not there: torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} GPUs; choose agent.device=cpu"
        )
    return chosen


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether the setting `agent.precision` means bf16; "auto" where the device has the instructions."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))

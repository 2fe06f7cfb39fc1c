"""Whether this machine multiplies in bfloat16 itself; without it the mode exists and is slow."""

from __future__ import annotations

import torch


def uses_bf16(precision: str) -> bool:
    """What `precision` means here: "auto" takes bf16 only where the processor has the instructions."""
    if precision == "auto":
        return bool(torch.backends.cpu.get_cpu_capability() and torch.cpu._is_avx512_bf16_supported())
    return precision == "bf16"

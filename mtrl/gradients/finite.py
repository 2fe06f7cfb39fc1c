"""Losses that are no numbers, named by task."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtrl.errors import DivergenceError


def require_finite(losses: torch.Tensor, what: str, update: int, tasks: Sequence[str] = ()) -> None:
    """Raises DivergenceError with the tasks whose losses [K] are not finite; `tasks` are their names."""
    values = losses.detach()
    if bool(torch.isfinite(values).all()):
        return
    names = tasks or [f"task {k}" for k in range(len(values))]
    pairs = zip(names, values, strict=True)
    bad = ", ".join(f"{name}: {value.item()}" for name, value in pairs if not torch.isfinite(value))
    raise DivergenceError(what, update, bad)

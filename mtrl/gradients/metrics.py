"""A step's result and metrics: weights, cosines between task gradients, losses that are not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import DivergenceError

from .jacobian import cosines


@dataclass(frozen=True)
class Combined:
    """The result of one step."""

    gradients: dict[str, torch.Tensor]
    """Parameter name -> gradient, for the optimiser."""
    weights: torch.Tensor
    """[K] float64."""
    losses: torch.Tensor
    """[K], of which these are the gradients; without a graph."""
    metrics: dict[str, float]
    """Name -> value, the names of METRICS."""


class ConflictRecord:
    """Cosines between the gradients of K tasks, averaged over the steps that measured them."""

    def __init__(self, tasks: int) -> None:
        self.latest: torch.Tensor | None = None
        """[K, K] float64 of the latest step."""
        self._sum = torch.zeros(tasks, tasks, dtype=torch.float64)
        self._count = torch.zeros(tasks, tasks, dtype=torch.float64)

    def add(self, gramian: torch.Tensor) -> dict[str, float]:
        """Takes a finite Gramian [K, K] of at least two tasks; returns the step's metrics."""
        self.latest = cosines(gramian)
        moved = gramian.diagonal() > 0
        both = moved.unsqueeze(0) & moved.unsqueeze(1)
        self._sum += torch.where(both, self.latest, 0.0)
        self._count += both
        upper = torch.triu_indices(len(gramian), len(gramian), 1)
        pairs = self.latest[upper[0], upper[1]]
        return {
            "cosine_mean": pairs.mean().item(),
            "cosine_min": pairs.min().item(),
            "conflict_share": (pairs < 0).double().mean().item(),
        }

    def take(self) -> npt.NDArray[np.float64] | None:
        """[K, K], the average since the last call, or None where nothing was measured; NaN for pairs of which
        a gradient was always zero.
        """
        if not bool(self._count.any()):
            return None
        mean: npt.NDArray[np.float64] = (self._sum / self._count).numpy()
        self._sum, self._count = torch.zeros_like(self._sum), torch.zeros_like(self._count)
        return mean

    def state_dict(self) -> dict[str, Any]:
        """What the next average depends on."""
        return {"sum": self._sum.clone(), "count": self._count.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sum, self._count = state["sum"].clone(), state["count"].clone()


def require_finite(losses: torch.Tensor, what: str, update: int, tasks: Sequence[str] = ()) -> None:
    """Raises DivergenceError with the tasks whose losses [K] are not finite; `tasks` are their names."""
    values = losses.detach()
    if bool(torch.isfinite(values).all()):
        return
    names = tasks or [f"task {k}" for k in range(len(values))]
    pairs = zip(names, values, strict=True)
    bad = ", ".join(f"{name}: {value.item()}" for name, value in pairs if not torch.isfinite(value))
    raise DivergenceError(what, update, bad)

"""What a step of surgery gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Combined:
    """One step's update."""

    gradients: dict[str, torch.Tensor]
    """Parameter name -> gradient. Hand it to the optimiser, or add what stays outside first."""
    weights: torch.Tensor
    """[K] float64."""
    losses: torch.Tensor
    """[K], of which these are the gradients; without a graph."""
    metrics: dict[str, float]
    """See METRICS."""


METRICS = {
    "cosine_mean": "mean cosine between the gradients of two tasks",
    "cosine_min": "smallest cosine between the gradients of two tasks",
    "conflict_share": "share of task pairs whose gradients point against each other, 0 to 1",
    "weight_min": "smallest weight of a task",
    "weight_max": "largest weight of a task",
    "deficient": "1 where the Gramian lacked full rank and the solution was regularised",
}
"""Name -> meaning; the first three only at steps that solve for weights."""

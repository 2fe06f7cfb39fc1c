"""Sparse updates: a fixed part of every layer is trained, so that tasks share fewer parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .jacobian import TaskRows


class SparseUpdate:
    """Trains a fixed random share of every parameter, against gradient conflicts (arXiv 2411.18615); composes
    with every weighting. One-dimensional parameters (biases, norms) are trained whole.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], share: float, seed: int) -> None:
        """`share` in (0, 1] of the entries of every matrix is trained."""
        generator = torch.Generator().manual_seed(seed)
        self.masks = {
            name: (torch.rand(value.shape, generator=generator) < share).to(value)
            for name, value in parameters.items()
            if value.dim() > 1
        }

    def mask_rows(self, rows: TaskRows) -> None:
        """Zeroes untrained entries of the shared rows, in place, so that conflicts there do not count."""
        for name, values in rows.shared.items():
            if name in self.masks:
                values.mul_(self.masks[name])

    def mask(self, gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The gradients, with 0 at untrained entries."""
        return {
            name: gradient * self.masks[name] if name in self.masks else gradient
            for name, gradient in gradients.items()
        }

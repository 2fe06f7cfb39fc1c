"""Sparse updates: a fixed part of every layer is trained, so that tasks meet in fewer parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mtrl.errors import OutOfRangeError

from .jacobian import TaskRows


class SparseUpdate:
    """Trains a fixed random share of every parameter, as sparse training does against gradient conflict
    (arXiv 2411.18615); composes with every weighting.

    The rest keeps its initial values. One-dimensional parameters (biases, norms) are trained whole.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], share: float, seed: int) -> None:
        """`share` in (0, 1] of the entries of every matrix is trained."""
        if not 0 < share <= 1:
            raise OutOfRangeError("share", share, "a number above 0 and at most 1")
        generator = torch.Generator().manual_seed(seed)
        self.masks = {
            name: (torch.rand(value.shape, generator=generator) < share).to(value)
            for name, value in parameters.items()
            if value.dim() > 1
        }

    def mask_rows(self, rows: TaskRows) -> None:
        """Zeroes what is not trained in the shared rows, in place, so that conflicts there do not count."""
        for name, values in rows.shared.items():
            if name in self.masks:
                values.mul_(self.masks[name])

    def mask(self, gradients: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The gradients, 0 where parameters are not trained."""
        return {
            name: gradient * self.masks[name] if name in self.masks else gradient
            for name, gradient in gradients.items()
        }

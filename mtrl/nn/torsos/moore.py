"""MOORE: experts whose outputs are made orthogonal, mixed by task."""

from __future__ import annotations

import torch

from ..layers import TaskTable, mixture_bound
from ..stack import Stack
from .base import Torso
from .config import TorsoConfig


def orthonormalise(vectors: torch.Tensor) -> torch.Tensor:
    """Gram-Schmidt over the second last axis in one step: [..., n, d] -> orthonormal rows [..., n, d].

    With V V^T = L L^T (Cholesky), U = L^-1 V has U U^T = I and row i in the span of rows 1 to i of V,
    which are the properties that define Gram-Schmidt. Rows are brought to length 1 first, which does
    not change U, and 16 epsilon of the number format is added to the diagonal: a row that depends on
    earlier ones becomes nearly zero instead of NaN. Half precision is computed in float32.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        wide = vectors if vectors.dtype == torch.float64 else vectors.float()
        unit = torch.nn.functional.normalize(wide, dim=-1, eps=1e-8)
        floor = 16 * torch.finfo(wide.dtype).eps
        gram = unit @ unit.mT
        gram = gram + floor * torch.eye(gram.shape[-1], dtype=wide.dtype, device=wide.device)
        # cholesky_ex reports failure in a tensor that nobody reads: the floor rules it out, and reading
        # would make a GPU wait.
        lower = torch.linalg.cholesky_ex(gram).L
        return torch.linalg.solve_triangular(lower, unit, upper=False)


class MooreTorso(Torso):
    """Hendawy et al. 2024 (arXiv 2311.11385): v = tanh(sum_j w_kj u_j), u = Gram-Schmidt of the experts.

    An expert is an MLP of `depth` layers, the last one linear; the paper's output layer is per task.
    """

    def __init__(
        self,
        config: TorsoConfig,
        inputs: int,
        tasks: int,
        members: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        """See Torso; the features alone enter, the task speaks through w_k."""
        super().__init__(config, inputs, tasks, members, generator)
        count = config.moore.experts
        self.experts = Stack(
            (*self.leading, count),
            inputs,
            [config.width] * config.depth,
            activation=config.activation,
            norm=config.layer_norm,
            affine=config.norm_affine,
            activate_last=False,
            generator=generator,
        )
        self.weights = TaskTable(self.leading, tasks, count, bound=mixture_bound(count), generator=generator)

    @property
    def width(self) -> int:
        """Length of the output."""
        return self.config.width

    def transform(
        self, features: torch.Tensor, task_index: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """The task embedding is not read."""
        count = self.config.moore.experts
        spread = features.unsqueeze(1).expand(-1, count, -1, -1, -1)
        outputs = self.experts(spread, self.note)
        basis = orthonormalise(outputs.movedim(1, -2))
        weights = self.weights(task_index)
        self.note("gates", _shares(weights).expand(*features.shape[:-1], -1))
        self.note("experts", basis.movedim(-2, 1))
        mixed = (weights.unsqueeze(-2).to(basis.dtype) @ basis).squeeze(-2)
        return torch.tanh(mixed) if self.config.moore.tanh else mixed


def _shares(weights: torch.Tensor) -> torch.Tensor:
    # what part of the mixture's squared length each orthonormal expert carries
    squares = weights.square()
    return squares / squares.sum(dim=-1, keepdim=True).clamp_min(1e-12)

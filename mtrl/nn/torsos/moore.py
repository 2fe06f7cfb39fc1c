"""MOORE: experts whose outputs are made orthogonal, mixed by task."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import full_precision
from ..layers import TaskTable, mixture_bound
from .base import Torso


def orthonormalise(vectors: Tensor) -> Tensor:
    """Gram-Schmidt over the second last axis in one step: [..., n, d] -> orthonormal rows [..., n, d].

    With V V^T = L L^T (Cholesky), U = L^-1 V (CholeskyQR, in place of the loop of Hendawy et al. 2024) has U
    U^T = I and row i in the span of rows 1 to i of V, which defines Gram-Schmidt. Rows are scaled to length 1
    first, which does not change U, and 16 epsilon of the dtype is added to the diagonal: a row that depends
    on earlier ones becomes nearly zero instead of NaN. Half precision is computed in float32.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        unit = torch.nn.functional.normalize(full_precision(vectors), dim=-1, eps=1e-8)
        eps = 16 * torch.finfo(unit.dtype).eps
        gram = unit @ unit.transpose(-1, -2)
        if torch.onnx.is_in_onnx_export():
            return _row_by_row(gram, unit, eps)
        gram = gram + eps * torch.eye(gram.shape[-1], dtype=unit.dtype, device=unit.device)
        # cholesky_ex does not make a GPU wait for its report of failure, which eps rules out
        lower = torch.linalg.cholesky_ex(gram).L
        return torch.linalg.solve_triangular(lower, unit, upper=False)


def _row_by_row(gram: Tensor, unit: Tensor, eps: float) -> Tensor:
    """The same numbers from elementary operations, for graph formats without a Cholesky operator."""
    rows: list[Tensor] = []
    lower: list[list[Tensor]] = []
    for i in range(unit.shape[-2]):
        entries: list[Tensor] = []
        for j in range(i):
            explained = sum((entries[k] * lower[j][k] for k in range(j)), torch.zeros(()))
            entries.append((gram[..., i, j, None] - explained) / lower[j][j])
        square = gram[..., i, i, None] + eps - sum((entry.square() for entry in entries), torch.zeros(()))
        diagonal = square.sqrt()
        rest = unit[..., i, :] - sum(
            (entry * row for entry, row in zip(entries, rows, strict=True)), torch.zeros(())
        )
        rows.append(rest / diagonal)
        lower.append([*entries, diagonal])
    return torch.stack(rows, dim=-2)


class MooreTorso(Torso):
    """Hendawy et al. 2024 (arXiv 2311.11385): v = tanh(sum_j w_kj u_j), u = Gram-Schmidt of the experts.

    An expert is an MLP of `depth` layers, the last one linear; the paper's output layer is per task.
    """

    natural_output = "task"

    def _build(self, generator: torch.Generator | None) -> None:
        count, lead = self.config.moore.experts, self.leading
        self.experts = self._hidden_stack((*lead, count), self.inputs, generator, activate_last=False)
        self.weights = TaskTable(lead, self.tasks, count, bound=mixture_bound(count), generator=generator)

    def transform(self, features: Tensor, task_index: Tensor, embedding: Tensor) -> Tensor:
        """The task embedding is not read."""
        count = self.config.moore.experts
        spread = features.unsqueeze(1).expand(-1, count, -1, -1, -1)
        outputs = self.experts(spread, self.add_record if self.recording else None)
        basis = orthonormalise(outputs.movedim(1, -2))
        weights = self.weights(task_index)
        self.add_record("gates", _shares(weights).expand(*features.shape[:-1], -1))
        self.add_record("experts", basis.movedim(-2, 1))
        mixed = (weights.unsqueeze(-2).to(basis.dtype) @ basis).squeeze(-2)
        # Gram-Schmidt is done in single precision at least
        mixed = mixed.to(features.dtype)
        return torch.tanh(mixed) if self.config.moore.tanh else mixed


def _shares(weights: Tensor) -> Tensor:
    # what part of the mixture's squared length each orthonormal expert carries
    squares = weights.square()
    return squares / squares.sum(dim=-1, keepdim=True).clamp_min(1e-12)

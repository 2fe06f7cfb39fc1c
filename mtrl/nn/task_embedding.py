"""What a network reads about the task."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mtrl.errors import SpaceError

from .config import TaskEmbeddingConfig
from .layers import Leading, TaskTable


class TaskEmbedding(nn.Module):
    """task_index [K] -> [*leading, K, 1, size]; the axis of length 1 stands for the samples."""

    identity: Tensor

    def __init__(
        self,
        config: TaskEmbeddingConfig,
        tasks: int,
        *,
        leading: Leading = (),
        generator: torch.Generator | None = None,
    ) -> None:
        """`leading` members learn one table each. A learned row starts with an expected length of 1."""
        super().__init__()
        self.config = config
        self.leading = leading
        self.size = tasks if config.kind == "one_hot" else config.size
        self.table: TaskTable | None = None
        if config.kind == "learned":
            bound = math.sqrt(3.0 / config.size)
            self.table = TaskTable(leading, tasks, config.size, bound=bound, generator=generator)
        if config.kind == "one_hot":
            self.register_buffer("identity", torch.eye(tasks), persistent=False)

    def forward(self, task_index: Tensor, given: Tensor | None = None) -> Tensor:
        """`given` [K, size] or [*leading, K, size] replaces the network's own embedding.

        Raises SpaceError when it has another length, or when neither has one.
        """
        if given is not None:
            if given.shape[-1] != self.size or given.shape[-2] != len(task_index):
                raise SpaceError(
                    f"a task embedding [{len(task_index)}, {self.size}] is needed; got {list(given.shape)}"
                )
            wide = given if given.dim() > 2 else given.expand(*self.leading, *given.shape)
            return wide.unsqueeze(-2)
        if self.table is not None:
            rows = self.table(task_index)
            return nn.functional.normalize(rows, dim=-1) if self.config.normalised else rows
        if self.config.kind == "given":
            raise SpaceError("embedding.kind=given: pass the task embedding with every call")
        rows = self.identity.index_select(0, task_index).unsqueeze(-2)
        return rows.expand(*self.leading, *rows.shape)

"""The dimension of a network's tensor along which the tasks of a task-major batch lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class TaskLayout:
    """One dimension of a tensor, read as [outer, tasks, inner]; each task's block is one `tasks` index.

    A batch [K, B, d] has (dim 0, outer 1, inner 1), flattened to [K * B, d] (0, 1, B), the two members
    of a twin head in [2 K, B, d] (0, 2, 1), a time-major sequence flattened to [T * K * B, d] (0, T, B).
    """

    dim: int
    outer: int
    tasks: int
    inner: int
    members: tuple[int, ...] | None = None
    """The tasks that pass here, ascending, where not all do: output layers for discrete tasks, an encoder of
    images."""

    def by_task(self, tensor: torch.Tensor) -> torch.Tensor:
        """[tasks, ..., outer * inner, ...]: the task first, its samples in one dimension at `dim`."""
        dim, shape = self.dim, tensor.shape
        if self.outer == 1 and dim == 0:
            return tensor.reshape(self.tasks, self.inner, *shape[1:])
        wide = tensor.reshape(*shape[:dim], self.outer, self.tasks, self.inner, *shape[dim + 1 :])
        return wide.movedim(dim + 1, 0).flatten(dim + 1, dim + 2)

    def owners(self, device: torch.device) -> torch.Tensor:
        """[size of the dimension], which task every index along it belongs to; not to be written to."""
        return _owners(self.outer, self.tasks, self.inner, device)


@lru_cache(maxsize=256)
def _owners(outer: int, tasks: int, inner: int, device: torch.device) -> torch.Tensor:
    # cached, so usable outside inference mode too
    with torch.inference_mode(False):
        return torch.arange(tasks, device=device).repeat_interleave(inner).repeat(outer)


def candidates(shape: torch.Size, tasks: int, dims: tuple[int, ...]) -> Iterator[TaskLayout]:
    """Every layout of `tasks` tasks along one of `dims`, the usual ones first."""
    for dim in dims:
        if shape[dim] % tasks == 0 and shape[dim] > 0:
            blocks = shape[dim] // tasks
            for outer in range(1, blocks + 1):
                if blocks % outer == 0:
                    yield TaskLayout(dim, outer, tasks, blocks // outer)


def touched_along(gradient: torch.Tensor, dim: int) -> torch.Tensor:
    """[size of the dimension], True where any entry of a gradient is not zero."""
    return gradient.ne(0).movedim(dim, 0).reshape(gradient.shape[dim], -1).any(dim=1)


def fits(layout: TaskLayout, touched: torch.Tensor, members: Iterable[int]) -> bool:
    """Whether the gradient of some losses, as `touched_along` gives it, is zero outside the blocks of their
    tasks; `members` are positions among the layout's tasks.
    """
    touched = touched.view(layout.outer, layout.tasks, layout.inner).any(dim=2).any(dim=0)
    touched[list(members)] = False
    return not bool(touched.any())

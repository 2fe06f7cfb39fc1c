"""The gradient of every task's loss, from one backward pass of the joint graph."""

from .rank_blocks import RankBlocks
from .rows import OwnedRows, TaskRows, cosines
from .task_jacobian import TaskJacobian

__all__ = ["OwnedRows", "RankBlocks", "TaskJacobian", "TaskRows", "cosines"]

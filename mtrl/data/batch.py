"""A batch: unequal shares of many tasks in rectangular arrays with weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mtrl.errors import SpaceError


@dataclass(frozen=True)
class Bucket:
    """One modality's observations, for the tasks that fill it."""

    values: torch.Tensor
    """[K_b, B, ...], or [K_b, T + 1, B, ...] for sequences."""
    rows: torch.Tensor
    """[K_b], which rows of the batch these are, ascending."""


@dataclass(frozen=True)
class Batch:
    """K tasks times at most B samples, or B sequences of at most T steps. Encoders run per bucket, then one
    torso over all tasks.

    Tasks may have unequal shares: a sample of weight 0 is padding. The loss of task k is
    sum_b(weight[k, b] * loss[k, b]) / sum_b(weight[k, b]), over the steps of sequences too. Exact per-task
    gradients come from this order: nothing mixes samples of different tasks before the torso.
    """

    task_index: torch.Tensor
    """[K], stable task indices; need not be all tasks of the set."""
    weight: torch.Tensor
    """[K, B], or [K, T, B] for sequences; at least 0."""
    buckets: Mapping[str, Bucket]
    fields: Mapping[str, torch.Tensor]
    """Name -> [K, B, ...], or [K, T, B, ...] for sequences: actions, rewards, masks and whatever else the
    loss needs."""

    def __post_init__(self) -> None:
        shape = tuple(self.weight.shape)
        if len(shape) not in (2, 3):
            raise SpaceError(f"weight has shape {shape}; expected (K, B), or (K, T, B) for sequences")
        count = shape[0]
        if self.task_index.shape != (count,):
            raise SpaceError(f"task_index has shape {tuple(self.task_index.shape)}; expected ({count},)")
        for name, values in self.fields.items():
            if tuple(values.shape[: len(shape)]) != shape:
                expected = ", ".join(map(str, shape))
                raise SpaceError(
                    f"field {name!r} has shape {tuple(values.shape)}; expected ({expected}, ...)"
                )
        for name, bucket in self.buckets.items():
            if len(bucket.rows) != len(bucket.values):
                raise SpaceError(
                    f"bucket {name!r} has {len(bucket.values)} rows of values for {len(bucket.rows)} tasks"
                )

    def task_losses(self, losses: torch.Tensor) -> torch.Tensor:
        """Weighted mean loss per task, [K]; 0 for a task without weight. `losses` is shaped as `weight`."""
        # loss_k = sum_b w_kb l_kb / sum_b w_kb; padding may hold anything, and 0 * NaN is NaN
        total = (self.weight * losses.where(self.weight > 0, 0.0)).flatten(1).sum(dim=1)
        return total / self.weight.flatten(1).sum(dim=1).clamp_min(torch.finfo(losses.dtype).tiny)

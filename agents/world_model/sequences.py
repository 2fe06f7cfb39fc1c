"""A batch of replayed sequences as the losses take it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtrl.data import Batch

from .networks import Seen, WorldModel


@dataclass
class Sequences:
    """A batch of K tasks x B sequences of T steps, on the learner's device; time comes second: [K, T, B]."""

    task: torch.Tensor
    """[K]"""
    seen: Seen
    """Standardised observations, [K_b, T + 1, B, ...]."""
    action: torch.Tensor
    """Coded, [K, T, B, A + n]."""
    reward: torch.Tensor
    """Divided by the task's scale, [K, T, B]."""
    terminated: torch.Tensor
    """[K, T, B], 1.0 where terminal."""
    weight: torch.Tensor
    """[K, T, B], 0 past the end of an episode."""
    planned: torch.Tensor | None
    """What was planned, [K, T, B, A + n]; NaN where nothing was."""
    discount: torch.Tensor
    """[K, 1]"""
    scale: torch.Tensor
    """Q scale, [K, 1]."""
    temperature: torch.Tensor
    """[K, 1]"""
    discrete: torch.Tensor
    """[K], whether the task acts by an index."""
    continuous_rows: torch.Tensor
    """Rows of the other tasks."""
    discrete_rows: torch.Tensor
    """Rows of these."""


def sequences_of(
    model: WorldModel,
    batch: Batch,
    reward_scale: torch.Tensor,
    discount: torch.Tensor,
    scale: torch.Tensor,
    temperature: torch.Tensor,
) -> Sequences:
    """A replayed batch for the losses; the last four [tasks] are of all tasks of the set."""
    device, task = discount.device, batch.task_index.to(discount.device)
    seen = {}
    for name, bucket in batch.buckets.items():
        rows = bucket.rows.to(device)
        values = bucket.values.to(device)
        seen[name] = (model.observer.standardise(values, task[rows]) if name == "state" else values, rows)
    discrete = torch.from_numpy(model.layout.discrete_tasks)[batch.task_index]
    kinds = [kind.nonzero().flatten().to(device) for kind in (~discrete, discrete)]
    discrete = discrete.to(device)
    fields = {name: values.to(device) for name, values in batch.fields.items()}
    return Sequences(
        task=task,
        seen=seen,
        action=model.coded(fields["continuous"], fields["discrete"], discrete),
        reward=fields["reward"] / reward_scale[task][:, None, None],
        terminated=fields["terminated"].float(),
        weight=batch.weight.to(device),
        planned=fields.get("planned"),
        discount=discount[task][:, None],
        scale=scale[task][:, None],
        temperature=temperature[task][:, None],
        discrete=discrete,
        continuous_rows=kinds[0],
        discrete_rows=kinds[1],
    )

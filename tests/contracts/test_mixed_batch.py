"""Unequal shares of the three tasks through encoders per bucket and one torso."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mtrl.data.batch import Batch, Bucket
from mtrl.tasks import TaskSet

SHARES = (5, 3, 2)
"""Samples of each task; the batch is as wide as the largest share."""


class Network(nn.Module):
    """Encoders per bucket, then one torso that is told the task."""

    def __init__(self, tasks: TaskSet, features: int = 8) -> None:
        super().__init__()
        shape = tasks.layout.pixels_shape
        assert shape is not None
        self.features = features
        self.encoders = nn.ModuleDict(
            {
                "state": nn.Linear(tasks.layout.state_size, features),
                "pixels": nn.Sequential(nn.AvgPool2d(21), nn.Flatten(), nn.Linear(shape[0] * 16, features)),
            }
        )
        self.embedding = nn.Embedding(len(tasks), features)
        self.torso = nn.Sequential(
            nn.Tanh(), nn.Linear(features, features), nn.Tanh(), nn.Linear(features, 1)
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        """Value of every sample, [K, B]."""
        count, width = batch.weight.shape
        encoded = torch.zeros(count, width, self.features)
        for name, bucket in batch.buckets.items():
            flat = self.encoders[name](bucket.values.float().flatten(0, 1))
            encoded[bucket.rows] = flat.view(len(bucket.rows), width, self.features)
        told = encoded + self.embedding(batch.task_index)[:, None]
        values: torch.Tensor = self.torso(told)[..., 0]
        return values


def samples(tasks: TaskSet, generator: torch.Generator) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Bucket, observations and targets of each task's share."""
    drawn = []
    for task, share in zip(tasks, SHARES, strict=True):
        (bucket,) = task.observation.buckets
        values = torch.rand(share, *tasks.layout.bucket_shape(bucket), generator=generator)
        drawn.append((bucket, values, torch.rand(share, generator=generator)))
    return drawn


def batch_of(drawn: list[tuple[str, torch.Tensor, torch.Tensor]], tasks: list[int]) -> Batch:
    """The shares of the listed tasks; padding is NaN, so that it cannot go unnoticed."""
    width = max(len(drawn[k][2]) for k in tasks)
    weight, target = torch.zeros(len(tasks), width), torch.full((len(tasks), width), float("nan"))
    buckets = {}
    for row, k in enumerate(tasks):
        weight[row, : len(drawn[k][2])] = 1.0
        target[row, : len(drawn[k][2])] = drawn[k][2]
    for name in ("state", "pixels"):
        rows = [row for row, k in enumerate(tasks) if drawn[k][0] == name]
        if rows:
            values = torch.zeros(len(rows), width, *drawn[tasks[rows[0]]][1].shape[1:])
            for place, row in enumerate(rows):
                values[place, : len(drawn[tasks[row]][1])] = drawn[tasks[row]][1]
            buckets[name] = Bucket(values, torch.tensor(rows))
    return Batch(torch.tensor(tasks), weight, buckets, {"target": target})


def losses(network: Network, batch: Batch) -> torch.Tensor:
    """Squared error per task, [K]."""
    target = batch.fields["target"]
    error = network(batch) - torch.where(batch.weight > 0, target, 0.0)
    # outside its share a task's target is NaN, and its loss too
    return batch.task_losses(torch.where(target.isnan(), target, error**2))


@pytest.fixture
def drawn(mixed: TaskSet) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    return samples(mixed, torch.Generator().manual_seed(0))


def test_buckets_hold_the_tasks_that_fill_them(
    mixed: TaskSet, drawn: list[tuple[str, torch.Tensor, torch.Tensor]]
) -> None:
    batch = batch_of(drawn, [0, 1, 2])
    for name in mixed.layout.buckets:
        rows = batch.buckets[name].rows
        assert batch.task_index[rows].tolist() == mixed.layout.members(name).tolist()
    assert batch.weight[batch.buckets["pixels"].rows].sum(dim=1).tolist() == [2]
    assert batch.weight.sum(dim=1).tolist() == list(SHARES)


def test_each_task_has_the_loss_and_gradient_it_has_alone(
    mixed: TaskSet, drawn: list[tuple[str, torch.Tensor, torch.Tensor]]
) -> None:
    torch.manual_seed(0)
    network = Network(mixed)
    parameters = list(network.parameters())
    together = losses(network, batch_of(drawn, [0, 1, 2]))
    for k in range(len(mixed)):
        alone = losses(network, batch_of(drawn, [k]))
        torch.testing.assert_close(together[k], alone[0])
        pair = [
            torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            for loss in (together[k], alone[0])
        ]
        for shared, single in zip(*pair, strict=True):
            assert torch.isfinite(shared).all()
            torch.testing.assert_close(shared, single)
            assert np.isfinite(single.numpy()).all()


def test_a_task_does_not_train_the_encoder_of_another_modality(
    mixed: TaskSet, drawn: list[tuple[str, torch.Tensor, torch.Tensor]]
) -> None:
    torch.manual_seed(0)
    network = Network(mixed)
    together = losses(network, batch_of(drawn, [0, 1, 2]))
    pixels = list(network.encoders["pixels"].parameters())
    for k, trained in ((0, False), (1, False), (2, True)):
        gradients = torch.autograd.grad(together[k], pixels, retain_graph=True, materialize_grads=True)
        assert any(bool(gradient.any()) for gradient in gradients) == trained

"""A critic for every task, whose outputs keep their scale: PopArt (van Hasselt et al. 2016, arXiv 1602.07714;
by task as Hessel et al. 2019, arXiv 1809.04474).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from mtrl.data import Bucket
from mtrl.nn import ObservationEncoder, TaskLinear, TaskNetwork, select_rows
from mtrl.spaces import Layout

from ..grpo.config import PolicyConfig

SMALLEST_DEVIATION = 1e-4


class TaskCritic(nn.Module):
    """V_k(s) = mean_k + deviation_k n_k(s), with an output n_k of each task over one torso."""

    mean: Tensor
    """[T], of the task's returns."""
    deviation: Tensor
    """[T]"""
    measured: Tensor
    """[T], whether the task had returns yet."""

    def __init__(self, layout: Layout, config: PolicyConfig) -> None:
        super().__init__()
        self.observer = ObservationEncoder(layout, config.pixels, config.clip)
        torso = replace(config.torso, output="task")
        self.network = TaskNetwork(torso, self.observer.size, {"value": 1}, layout.task_count)
        self.register_buffer("mean", torch.zeros(layout.task_count))
        self.register_buffer("deviation", torch.ones(layout.task_count))
        self.register_buffer("measured", torch.zeros(layout.task_count, dtype=torch.bool))

    def forward(self, buckets: Mapping[str, Bucket], task: Tensor, samples: int) -> Tensor:
        """n_k(s) [K, B] of raw observations [K_b, B, ...] of tasks [K]."""
        found = dict(buckets)
        if "state" in found:
            state = found["state"]
            values = self.observer.standardise(state.values, select_rows(task, state.rows))
            found["state"] = Bucket(values, state.rows)
        hidden = self.network.torso(self.observer(found, len(task), samples), task)
        return self.network.read("value", hidden, task).squeeze(-1)

    def values(self, normalised: Tensor, task: Tensor) -> Tensor:
        """[K, B] -> the same in units of returns."""
        return self.mean[task][:, None] + self.deviation[task][:, None] * normalised

    def normalised(self, returns: Tensor, task: Tensor) -> Tensor:
        """The inverse of `values`."""
        return (returns - self.mean[task][:, None]) / self.deviation[task][:, None]

    @torch.no_grad()
    def rescale(self, mean: Tensor, deviation: Tensor, there: Tensor, share: float) -> None:
        """Moves the scales of the tasks `there` [T] by `share` towards those of their new returns, [T] each,
        all the way at first; the outputs' weights change so that no value does.
        """
        step = torch.where(self.measured, share, 1.0)
        square = self.deviation**2 + self.mean**2
        new_mean = torch.where(there, self.mean + step * (mean - self.mean), self.mean)
        new_square = torch.where(there, square + step * (deviation**2 + mean**2 - square), square)
        new = (new_square - new_mean**2).clamp_min(SMALLEST_DEVIATION**2).sqrt()
        new = torch.where(there, new, self.deviation)
        layer = self.network.outputs["value"]
        assert isinstance(layer, TaskLinear), "a critic has an output of each task"
        # w' = w sigma / sigma', b' = (sigma b + mu - mu') / sigma'  (van Hasselt et al. 2016, proposition 1)
        ratio = (self.deviation / new)[:, None]
        layer.weight.mul_(ratio[..., None])
        layer.bias.copy_(ratio * layer.bias + ((self.mean - new_mean) / new)[:, None])
        self.mean.copy_(new_mean)
        self.deviation.copy_(new)
        self.measured |= there

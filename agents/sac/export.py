"""The actor without exploration, as one module that exporters can trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.rollout import PolicySnapshot
from mtrl.spaces import Layout
from mtrl.tasks import TaskSet

from .networks import Actor
from .policy import actor_from


class SACController(nn.Module):
    """state [N, D_max], task [N] -> tanh of the mean action [N, A_max], 0 in dimensions that a task lacks.

    Serves tasks with state vectors and continuous actions; branches that depend on the data are left out, so
    that the graph is the same for every input.
    """

    mask: Tensor

    def __init__(self, actor: Actor, layout: Layout) -> None:
        """Shares the actor's weights."""
        super().__init__()
        self.observer, self.network = actor.observer, actor.network
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))

    def forward(self, state: Tensor, task: Tensor) -> Tensor:
        """Actions [N, A_max]; each row is computed as one sample of its own task."""
        standardised = self.observer.standardise(state, task)
        hidden = self.network.torso(standardised.unsqueeze(1), task)
        raw = self.network.read("continuous", hidden, task).squeeze(1)
        return torch.tanh(raw.chunk(2, dim=-1)[0]) * self.mask[task]


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> SACController:
    """The controller of a snapshot."""
    return SACController(actor_from(snapshot, tasks), tasks.layout)

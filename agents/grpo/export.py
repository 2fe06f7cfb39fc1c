"""The actor without exploration, as one module that exporters can trace."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from .networks import TaskActor
from .policy import policy_from


class GroupController(nn.Module):
    """state [N, D_max], task [N] -> mean action [N, A_max], 0 in dimensions that a task lacks; for tasks with
    state vectors and continuous actions.
    """

    action_mask: Tensor

    def __init__(self, actor: TaskActor) -> None:
        """Shares the actor's weights."""
        super().__init__()
        self.observer, self.network = actor.observer, actor.network
        self.register_buffer("action_mask", actor.action_mask)

    def forward(self, state: Tensor, task: Tensor) -> Tensor:
        """Actions [N, A_max]; each row is computed as one sample of its own task."""
        standardised = self.observer.standardise(state, task)
        hidden = self.network.torso(standardised.unsqueeze(1), task)
        return torch.tanh(self.network.read("continuous", hidden, task).squeeze(1)) * self.action_mask[task]


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> GroupController:
    """The controller of a snapshot."""
    return GroupController(policy_from(snapshot, tasks).actor)

"""The actor without exploration, as one module that exporters can trace."""

from __future__ import annotations

from torch import Tensor, nn

from mtrl.nn import TaskController
from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from .networks import TaskActor
from .policy import policy_from
from .student_actor import Actor


class GroupController(nn.Module):
    """state [N, D_max], task [N] -> mean action [N, A_max] of an actor that began as a student."""

    def __init__(self, actor: Actor) -> None:
        """Shares the actor's weights."""
        super().__init__()
        self.actor = actor

    def forward(self, state: Tensor, task: Tensor) -> Tensor:
        """Actions [N, A_max]; each row is computed as one sample of its own task."""
        return self.actor.mean(state, task).clamp(-1.0, 1.0)


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> GroupController | TaskController:
    """The controller of a snapshot."""
    actor = policy_from(snapshot, tasks).actor
    if isinstance(actor, TaskActor):
        return TaskController(actor.observer, actor.network, actor.layout)
    return GroupController(actor)

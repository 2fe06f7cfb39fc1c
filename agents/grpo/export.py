"""The actor without exploration, as one module that exporters can trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.rollout import PolicySnapshot
from mtrl.tasks import TaskSet

from .networks import TaskActor
from .policy import policy_from
from .student_actor import Actor


class GroupController(nn.Module):
    """state [N, D_max], task [N] -> mean action [N, A_max], 0 in dimensions that a task lacks; for tasks with
    state vectors and continuous actions.
    """

    def __init__(self, actor: Actor) -> None:
        """Shares the actor's weights."""
        super().__init__()
        self.actor = actor

    def forward(self, state: Tensor, task: Tensor) -> Tensor:
        """Actions [N, A_max]; each row is computed as one sample of its own task."""
        return self.actor.mean(state, task).clamp(-1.0, 1.0)


class MixedController(nn.Module):
    """state [N, D_max], pixels [N, C, H, W], task [N] -> [N, A_max + choices], of state and pixels those that
    the layout has: the mean action, then the probability of every choice; 0 where a task has neither.
    """

    legal: Tensor
    filled: Tensor

    def __init__(self, actor: TaskActor) -> None:
        """Shares the actor's weights."""
        super().__init__()
        self.actor, layout = actor, actor.layout
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.astype(np.float32)))
        has = [[bucket in spec.buckets for bucket in layout.buckets] for spec in layout.observations]
        self.register_buffer("filled", torch.from_numpy(np.array(has, dtype=np.float32)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Each row is computed as one sample of its own task."""
        *observed, task = inputs
        actor, parts = self.actor, []
        for column, (bucket, values) in enumerate(zip(actor.layout.buckets, observed, strict=True)):
            if bucket == "state":
                part = actor.observer.standardise(values, task).unsqueeze(1)
            else:
                assert actor.observer.pixels is not None, "a layout with pixels has their encoder"
                part = actor.observer.pixels(values.unsqueeze(1))
            parts.append(part * self.filled[task, column][:, None, None])
        hidden = actor.network.torso(torch.cat(parts, dim=-1), task)
        found = []
        if "continuous" in actor.network.outputs:
            raw = actor.network.read("continuous", hidden, task).squeeze(1)
            found.append(torch.tanh(raw) * actor.action_mask[task])
        if "discrete" in actor.network.outputs:
            logits, legal = actor.network.read("discrete", hidden, task).squeeze(1), self.legal[task]
            # a task without choices has no legal one, so that its row is 0
            found.append(torch.softmax(logits - 1e9 * (1.0 - legal), dim=-1) * legal)
        return torch.cat(found, dim=-1)


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> GroupController | MixedController:
    """The controller of a snapshot."""
    actor = policy_from(snapshot, tasks).actor
    mixed = tasks.layout.discrete_size > 0 or tasks.layout.pixels_shape is not None
    if mixed and isinstance(actor, TaskActor):
        return MixedController(actor)
    return GroupController(actor)

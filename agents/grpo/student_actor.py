"""A distilled student as the mean of a policy, with a learned Gaussian around it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from mtrl.distillation.student import Student, StudentForm
from mtrl.errors import ConfigError
from mtrl.nn import select_rows
from mtrl.spaces import Layout, Moments
from mtrl.structured import build

from .config import PolicyConfig
from .networks import ActionDistribution, StepBatch, TaskActor, begin_as_actor


class StudentActor(nn.Module):
    """N(first action of the student's chunk at z = 0, diag(std_k^2)): plans anew at every decision, so that
    the density of each action is exact. Of tasks with state vectors and continuous actions.
    """

    action_mask: Tensor

    def __init__(self, layout: Layout, config: PolicyConfig, form: StudentForm) -> None:
        """Fresh weights. Raises ConfigError for a student that reads more than the present state, and for
        tasks that it cannot act in.
        """
        super().__init__()
        if form.network.history != 1:
            raise ConfigError(
                f"init_from: the student reads the last {form.network.history} states, and GRPO's and PPO's "
                "policies the present one; distil it from a teacher with agent.network.history=1"
            )
        if layout.discrete_tasks.any() or layout.pixels_shape is not None:
            raise ConfigError(
                "init_from: a student begins a policy of tasks with state vectors and continuous actions; "
                "leave out the others"
            )
        self.layout, self.config, self.form = layout, config, form
        self.student = Student(form, layout)
        self.log_std = nn.Parameter(
            torch.full((layout.task_count, layout.continuous_size), math.log(config.std))
        )
        mask = torch.from_numpy(layout.continuous_mask.astype("float32"))
        self.register_buffer("action_mask", mask, persistent=False)

    def mean(self, state: Tensor, task: Tensor) -> Tensor:
        """state [N, D_max], task [N] -> [N, A_max], not clipped: a bound would stop its gradient."""
        chunk = self.student.unclipped(state.unsqueeze(1), task, None)
        return chunk[:, 0] * self.action_mask[task]

    def distribution(self, batch: StepBatch) -> ActionDistribution:
        """The policy at what the decisions saw."""
        count, samples = len(batch.task), batch.samples
        state = batch.buckets["state"].values
        mean = self.mean(state.flatten(0, 1), batch.task.repeat_interleave(samples))
        mask = self.action_mask[batch.task][:, None]
        none = batch.task.new_zeros(0)
        return ActionDistribution(
            count, samples, torch.arange(count), none, mean.unflatten(0, (count, samples)),
            select_rows(self.log_std, batch.task)[:, None], mask, mean.new_zeros(0, samples, 0),
        )  # fmt: skip

    def set_moments(self, moments: Moments) -> None:
        """Takes the standardisation statistics of states, [K, D_max] each."""
        self.student.set_moments(moments)

    @property
    def moments(self) -> Moments:
        """Of the states that the student learned from."""
        return self.student.moments


Actor = TaskActor | StudentActor
"""What GRPO and PPO improve."""


def actor_for(layout: Layout, config: PolicyConfig, parent: nn.Module | None) -> Actor:
    """A new actor that begins as `parent`: an actor of GRPO, PPO or SAC, or a student.

    Raises ConfigError that names what does not fit.
    """
    if not isinstance(parent, Student | StudentActor):
        actor = TaskActor(layout, config)
        if parent is not None:
            begin_as_actor(actor, parent)
        return actor
    begun = StudentActor(layout, config, parent.form)
    target = begun.student if isinstance(parent, Student) else begun
    try:
        target.load_state_dict(parent.state_dict())
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise ConfigError(
            f"init_from: the student does not fit these tasks ({first}). Give both the same tasks"
        ) from error
    return begun


def rebuilt_actor(layout: Layout, config: PolicyConfig, form: Mapping[str, Any] | None) -> Actor:
    """An actor of fresh weights, around a student of that form if there is one."""
    if form is None:
        return TaskActor(layout, config)
    return StudentActor(layout, config, build(StudentForm, form))


def form_of(actor: Actor) -> dict[str, Any] | None:
    """What `rebuilt_actor` takes."""
    return asdict(actor.form) if isinstance(actor, StudentActor) else None

"""The policy network, and the distribution over actions that it gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mtrl.data import Bucket
from mtrl.errors import ConfigError
from mtrl.nn import ObservationEncoder, TaskNetwork, masked_log_softmax, select_rows
from mtrl.spaces import Layout, Moments
from mtrl.structured import differences

from .config import PolicyConfig

LOG_2_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class StepBatch:
    """Decisions of K tasks, B of each at most."""

    task: Tensor
    """[K], task indices."""
    weight: Tensor
    """[K, B], 0 for padding."""
    buckets: Mapping[str, Bucket]
    """What the decisions saw, states neither standardised nor clipped: [K_b, B, ...]."""
    fields: Mapping[str, Tensor]
    """Name -> [K, B, ...]."""

    @property
    def samples(self) -> int:
        """B"""
        return self.weight.shape[1]


@dataclass(frozen=True)
class ActionDistribution:
    """A Gaussian for continuous tasks, a categorical for discrete ones."""

    count: int
    """K"""
    samples: int
    """B"""
    continuous: Tensor
    """[K_c], rows of continuous tasks."""
    discrete: Tensor
    """[K_d], rows of discrete tasks."""
    mean: Tensor
    """[K_c, B, A_max]"""
    log_std: Tensor
    """[K_c, 1, A_max]"""
    mask: Tensor
    """[K_c, 1, A_max], 1 where the task has the dimension."""
    log_policy: Tensor
    """[K_d, B, actions], -inf for illegal ones."""

    def log_probability(
        self, drawn: Tensor, index: Tensor, shift: Tensor | None = None, spread: Tensor | None = None
    ) -> Tensor:
        """[K, B], of actions drawn before they are clipped, [K, B, A_max], and of indices [K, B]. With
        correlated noise `shift` [K_c, B, A_max] moves the mean and `spread` [K_c, B, 1] scales the deviation.
        """
        found = self.mean.new_zeros(self.count, self.samples)
        if len(self.continuous):
            mean = self.mean if shift is None else self.mean + shift
            log_std = self.log_std if spread is None else self.log_std + spread.log()
            standard = (select_rows(drawn, self.continuous) - mean) / log_std.exp()
            # log N(u; mean, std) = -((u - mean) / std)^2 / 2 - log std - log(2 pi) / 2
            density = -0.5 * standard.square() - log_std - 0.5 * LOG_2_PI
            found = found.index_copy(0, self.continuous, (density * self.mask).sum(-1))
        if len(self.discrete):
            taken = select_rows(index, self.discrete)[..., None]
            found = found.index_copy(0, self.discrete, self.log_policy.gather(-1, taken).squeeze(-1))
        return found

    def entropy(self) -> Tensor:
        """[K, B], in nats; differential of continuous actions."""
        found = self.mean.new_zeros(self.count, self.samples)
        if len(self.continuous):
            each = (self.log_std + 0.5 * (1.0 + LOG_2_PI)) * self.mask
            found = found.index_copy(0, self.continuous, each.sum(-1).expand(-1, self.samples))
        if len(self.discrete):
            terms = self.log_policy.exp() * self.log_policy.clamp_min(-1e8)
            found = found.index_copy(0, self.discrete, -terms.sum(-1))
        return found


class TaskActor(nn.Module):
    """An encoder, one torso for all tasks, and the parameters of an action distribution by task.

    Continuous tasks: N(tanh(f(s)), diag(std_k^2)), a mean in the range of actions and a deviation of each
    task and dimension. What is executed is clipped to [-1, 1]; the density is that of the drawn action.
    """

    legal: Tensor
    action_mask: Tensor
    discrete_tasks: Tensor

    def __init__(self, layout: Layout, config: PolicyConfig) -> None:
        super().__init__()
        self.layout, self.config = layout, config
        self.observer = ObservationEncoder(layout, config.pixels, config.clip)
        kinds = {"continuous": ~layout.discrete_tasks, "discrete": layout.discrete_tasks}
        served = {name: np.flatnonzero(tasks).tolist() for name, tasks in kinds.items() if tasks.any()}
        sizes = {"continuous": layout.continuous_size, "discrete": layout.discrete_size}
        outputs = {name: sizes[name] for name in served}
        self.network = TaskNetwork(
            config.torso, self.observer.size, outputs, layout.task_count, served=served
        )
        self.log_std = nn.Parameter(
            torch.full((layout.task_count, layout.continuous_size), math.log(config.std))
        )
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.copy()), persistent=False)
        mask = torch.from_numpy(layout.continuous_mask.astype(np.float32))
        self.register_buffer("action_mask", mask, persistent=False)
        kind = torch.from_numpy(layout.discrete_tasks.copy())
        self.register_buffer("discrete_tasks", kind, persistent=False)

    def set_moments(self, moments: Moments) -> None:
        """Takes the standardisation statistics of states, [K, D_max] each."""
        self.observer.set_moments(moments)

    def features(self, batch: StepBatch) -> Tensor:
        """[K, B, size], what the torso reads."""
        buckets = dict(batch.buckets)
        if "state" in buckets:
            state = buckets["state"]
            values = self.observer.standardise(state.values, select_rows(batch.task, state.rows))
            buckets["state"] = Bucket(values, state.rows)
        return self.observer(buckets, len(batch.task), batch.samples)

    def mean(self, state: Tensor, task: Tensor) -> Tensor:
        """state [N, D_max], task [N] -> [N, A_max], of tasks with states and continuous actions; each row is
        computed as one sample of its own task.
        """
        hidden = self.network.torso(self.observer.standardise(state, task).unsqueeze(1), task)
        raw = self.network.read("continuous", hidden, task).squeeze(1)
        return torch.tanh(raw) * self.action_mask[task]

    def distribution(self, batch: StepBatch) -> ActionDistribution:
        """The policy at what the decisions saw."""
        task, samples = batch.task, batch.samples
        hidden = self.network.torso(self.features(batch), task)
        kind = self.discrete_tasks[task]
        continuous, discrete = (~kind).nonzero().squeeze(1), kind.nonzero().squeeze(1)
        its_task = select_rows(task, continuous)
        mask = self.action_mask[its_task][:, None]
        mean = hidden.new_zeros(len(continuous), samples, self.layout.continuous_size)
        if len(continuous):
            raw = self.network.read("continuous", select_rows(hidden, continuous, -3), its_task)
            mean = torch.tanh(raw) * mask
        log_policy = hidden.new_zeros(len(discrete), samples, self.layout.discrete_size)
        if len(discrete):
            acting = select_rows(task, discrete)
            logits = self.network.read("discrete", select_rows(hidden, discrete, -3), acting)
            log_policy = masked_log_softmax(logits, self.legal[acting][:, None])
        log_std = self.log_std[its_task][:, None]
        return ActionDistribution(len(task), samples, continuous, discrete, mean, log_std, mask, log_policy)


@torch.no_grad()
def begin_as_actor(actor: TaskActor, parent: nn.Module) -> None:
    """Copies a parent's weights and statistics: those of an equal actor, or of a SAC actor, whose output for
    continuous tasks has the mean first and a deviation after it, which is left out. Raises ConfigError that
    names the first difference.
    """
    torso = getattr(getattr(getattr(parent, "network", None), "torso", None), "config", None)
    if torso is None:
        raise ConfigError("init_from: expected a policy with a torso (GRPO, PPO, SAC) or a student; got none")
    if differing := differences(torso, actor.config.torso, "agent.network.torso"):
        raise ConfigError(
            f"init_from: the parent has another torso: {differing}. Give agent.network.torso its settings"
        )
    theirs, width = dict(parent.state_dict()), actor.layout.continuous_size
    ours = actor.state_dict()
    for name, value in ours.items():
        if name == "log_std" and name not in theirs:
            continue
        found = theirs.get(name)
        if found is not None and name.startswith("network.outputs.continuous."):
            found = found[..., :width]
        if found is None or found.shape != value.shape:
            came = "absent" if found is None else str(tuple(found.shape))
            raise ConfigError(
                f"init_from: the parent's network differs: {name} is {came} there; expected "
                f"{tuple(value.shape)}. Give both the same tasks and encoder"
            )
        value.copy_(found)

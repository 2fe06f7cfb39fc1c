"""The agent: replay by task, twin critics, one actor for continuous and discrete tasks."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mtrl.data import Replay
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import update_average
from mtrl.rollout import Fragment, PolicySnapshot
from mtrl.spaces import Layout, RunningMoments
from mtrl.tasks import TaskSet
from mtrl.training import DataNeeds, TaskGradients

from .config import SACConfig
from .learning import Learning, actor_losses, critic_losses, standardised
from .networks import Actor, TwinCritic
from .policy import SACPolicy
from .precision import uses_bf16
from .reward_scale import RewardScale


class SACAgent:
    """Multi-task soft actor-critic (Haarnoja et al. 2018; discrete tasks after Christodoulou 2019).

    One update: a batch of every task, the critics' step, every `actor_every`-th update the steps of actor
    and temperatures on the critics as they were before it, then the targets' moving average.
    """

    def __init__(self, config: SACConfig, layout: Layout, tasks: TaskSet, seed: int) -> None:
        """Raises ConfigError when the settings do not fit each other."""
        self.needs = DataNeeds(
            kind="fragments",
            replay_ratio=config.replay_ratio,
            demonstrations=config.replay.demonstrations > 0,
        )
        self.updates = 0
        self._config, self._layout, self._tasks = config, layout, tasks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = Actor(layout, config.network, config.exploration, config.normalisation.clip)
            self._critic = TwinCritic(layout, config.network, config.normalisation.clip)
        self._target = copy.deepcopy(self._critic).requires_grad_(False)
        explore = config.exploration
        start = max(explore.initial_temperature, explore.temperature_floor)
        self._log_temperature = torch.nn.Parameter(torch.full((len(tasks),), math.log(start)))
        self._parts = {
            "critic": dict(self._critic.named_parameters()),
            "actor": dict(self._actor.named_parameters()),
            "temperature": {"log": self._log_temperature},
        }
        # a head of a kind that no task has is empty, and the optimisers refuse what is empty
        self._parts = {
            part: {name: value for name, value in found.items() if value.numel()}
            for part, found in self._parts.items()
        }
        rates = {"temperature": explore.temperature_rate}
        self._optimizers = {
            part: torch.optim.Adam(
                list(found.values()),
                lr=rates.get(part, config.learning_rate),
                eps=config.adam_epsilon,
                fused=True,
            )
            for part, found in self._parts.items()
        }
        self._learning = Learning.of(config, layout)
        self._bf16 = uses_bf16(config.precision)
        self._replay = Replay(tasks, config.replay)
        self._moments = RunningMoments(len(tasks), layout.state_size)
        self._steps = np.zeros(len(tasks), dtype=np.int64)
        self._reward_scale = RewardScale(len(tasks), config.discount, config.network.value_range)
        self._draws = np.random.default_rng([seed, 1])
        self._noise = torch.Generator().manual_seed(seed + 1)
        self._seen_in_batch: dict[str, float] = {}

    @property
    def ready(self) -> bool:
        """Whether some task has a batch of transitions; tasks join the updates as they have one."""
        return bool(self._replay.sizes.max() >= self._config.batch_size)

    def policy(self) -> SACPolicy:
        """Acts with the current weights."""
        return SACPolicy(self._actor, self._layout, self.updates)

    def snapshot(self) -> PolicySnapshot:
        """The actor and its statistics as named arrays."""
        tensors = {name: value.detach().numpy().copy() for name, value in self._actor.state_dict().items()}
        return PolicySnapshot("sac", asdict(self._config), tensors, self.updates)

    def ingest(self, data: object) -> None:
        """Takes a Fragment, or demonstrations as a mapping from task index to `Trajectories`.

        Raises DivergenceError for a number that is not finite.
        """
        if isinstance(data, Mapping):
            self._replay.add_demonstrations(data)
            return
        if not isinstance(data, Fragment):
            raise ConfigError("the SAC agent learns from fragments, and from a mapping to Trajectories")
        self._replay.add(data)
        self._reward_scale.add(data)
        self._observe(data)

    def compute_gradients(self) -> TaskGradients:
        """One row: the gradient of the sum over tasks of each task's mean losses.

        Names are "critic.NAME", and in every `actor_every`-th update "actor.NAME" and "temperature.log".
        Raises ConfigError while no task has a batch of transitions.
        """
        config = self._config
        usable = np.flatnonzero(self._replay.sizes >= config.batch_size)
        chosen = usable.tolist() if len(usable) else None
        batch = self._replay.sample(config.batch_size, self._draws, chosen)
        task = batch.task_index
        scale = torch.from_numpy(self._reward_scale.scale)
        reward = batch.fields["reward"]
        if config.normalisation.returns:
            reward = reward / scale[task][:, None]
        temperature = self._log_temperature.detach().exp()[task][:, None]
        sums: dict[str, torch.Tensor] = {}
        batch = standardised(batch, self._critic.observer)
        arguments = (self._learning, self._actor, self._critic)
        acted = None
        # both halves under one cast, which keeps the weights it has cast; no weight changes in between
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            judged = critic_losses(*arguments, self._target, batch, reward, temperature, self._noise)
            if self.updates % config.actor_every == 0:
                acted = actor_losses(*arguments, judged.observed, batch, temperature, self._noise)
        losses = batch.task_losses(judged.losses)
        self._differentiate("critic", losses.sum(), sums)
        names = [self._tasks[k].name for k in task.tolist()]
        found = {"critic_loss": losses.detach(), "value": batch.task_losses(judged.values)}
        if acted is not None:
            actor = batch.task_losses(acted.losses)
            self._differentiate("actor", actor.sum(), sums)
            entropy = batch.task_losses(acted.entropy)
            slope = torch.zeros(1, len(self._tasks))
            # d/d(log alpha) of log alpha (H - H_target); see losses.temperature_loss
            slope[0, task] = entropy - self._learning.target_entropy[task]
            sums["temperature.log"] = slope
            found |= {"actor_loss": actor.detach(), "entropy": entropy}
        self._seen_in_batch = {
            f"{kind}/{name}": value
            for kind, values in found.items()
            for name, value in zip(names, values.tolist(), strict=True)
        }
        return TaskGradients(sums, torch.tensor([float(len(losses))]), losses.detach())

    def apply(self, gradients: TaskGradients) -> Mapping[str, float]:
        """Clipped Adam steps and the targets' moving average.

        Raises DivergenceError for a loss or gradient that is not finite, or leaves the update out, as
        `on_non_finite` says; no weight is changed then.
        """
        config, count = self._config, gradients.counts[0]
        parts = [part for part in self._parts if any(name.startswith(part + ".") for name in gradients.sums)]
        norms: dict[str, float] = {}
        for part in parts:
            for name, parameter in self._parts[part].items():
                parameter.grad = gradients.sums[f"{part}.{name}"][0] / (
                    1.0 if part == "temperature" else count
                )
            norm = torch.nn.utils.get_total_norm(_gradients(self._parts[part]))
            norms[part] = float(norm)
        broken = self._not_finite(gradients, norms)
        self.updates += 1
        if broken:
            if config.on_non_finite == "stop":
                raise DivergenceError("the SAC agent", self.updates, broken)
            return {"skipped_updates": 1.0}
        for part in parts:
            if config.gradient_clip and part != "temperature" and norms[part] > config.gradient_clip:
                shrink = config.gradient_clip / (norms[part] + 1e-6)
                torch._foreach_mul_(_gradients(self._parts[part]), shrink)
            self._optimizers[part].step()
        floor = config.exploration.temperature_floor
        if floor > 0:
            with torch.no_grad():
                self._log_temperature.clamp_(min=math.log(floor))
        update_average(self._target, self._critic, 1.0 - config.target_rate)
        temperatures = self._log_temperature.detach().exp().tolist()
        return {
            **self._seen_in_batch,
            **{f"{part}_gradient_norm": norms[part] for part in parts if part != "temperature"},
            **{f"temperature/{self._tasks[k].name}": value for k, value in enumerate(temperatures)},
            "skipped_updates": 0.0,
        }

    def update(self) -> Mapping[str, float]:
        """One batch, one step."""
        return self.apply(self.compute_gradients())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, statistics, random states, and the replay unless settings leave it out."""
        return {
            "actor": dict(self._actor.state_dict()),
            "critic": dict(self._critic.state_dict()),
            "target": dict(self._target.state_dict()),
            "log_temperature": self._log_temperature.detach().clone(),
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self._optimizers.items()},
            "updates": self.updates,
            "replay": self._replay.state_dict() if self._config.replay.save else None,
            "moments": self._moments.state_dict(),
            "steps": self._steps.copy(),
            "reward_scale": self._reward_scale.state_dict(),
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self._actor.load_state_dict(state["actor"])
        self._critic.load_state_dict(state["critic"])
        self._target.load_state_dict(state["target"])
        with torch.no_grad():
            self._log_temperature.copy_(state["log_temperature"])
        for part, optimizer in self._optimizers.items():
            # the optimiser would go on in the tensors of the state itself
            optimizer.load_state_dict(copy.deepcopy(state["optimizers"][part]))
        self.updates = state["updates"]
        if state["replay"] is not None:
            self._replay.load_state_dict(state["replay"])
        self._moments.load_state_dict(state["moments"])
        self._steps[:] = state["steps"]
        self._reward_scale.load_state_dict(state["reward_scale"])
        self._draws.bit_generator.state = state["draws"]
        self._noise.set_state(state["noise"])

    def _observe(self, fragment: Fragment) -> None:
        """Counts steps, and takes observation statistics anew where their time has come."""
        k, settings = fragment.task_index, self._config.normalisation
        before = int(self._steps[k])
        self._steps[k] = after = before + fragment.steps
        if not settings.observations or "state" not in fragment.observations:
            return
        if not settings.refresh_at or before >= settings.refresh_at[-1]:
            return
        self._moments.update(k, fragment.observations["state"][:-1].astype(np.float64))
        if any(before < at <= after for at in settings.refresh_at):
            fresh = self._moments.freeze(self._layout.state_mask)
            for network in (self._actor, self._critic, self._target):
                network.observer.set_moments(k, fresh)

    def _differentiate(self, part: str, loss: torch.Tensor, sums: dict[str, torch.Tensor]) -> None:
        names, parameters = list(self._parts[part]), list(self._parts[part].values())
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        for name, parameter, gradient in zip(names, parameters, found, strict=True):
            sums[f"{part}.{name}"] = (torch.zeros_like(parameter) if gradient is None else gradient)[None]

    def _not_finite(self, gradients: TaskGradients, norms: Mapping[str, float]) -> str:
        """Which task's losses, or which gradients, hold a number that is not finite; empty for none."""
        losses = [
            f"{name} is {value}" for name, value in self._seen_in_batch.items() if not math.isfinite(value)
        ]
        steep = [
            f"the gradient norm of {part} is {norm}"
            for part, norm in norms.items()
            if not math.isfinite(norm)
        ]
        if steep:
            steep += [name for name, rows in gradients.sums.items() if not torch.isfinite(rows).all()][:3]
        return ", ".join(losses + steep)


def _gradients(parameters: Mapping[str, torch.nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters.values() if parameter.grad is not None]

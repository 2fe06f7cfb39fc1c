"""The agent: replay by task, twin critics, one actor for continuous and discrete tasks."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import Replay
from mtrl.errors import ConfigError, DivergenceError
from mtrl.rollout import Fragment, PolicySnapshot
from mtrl.spaces import Layout, RunningMoments
from mtrl.tasks import TaskSet
from mtrl.training import DataNeeds, TaskGradients

from .config import SACConfig
from .differentiation import Differentiation, look_inside
from .fast import Fast
from .learning import Learning, Sample, sample_of
from .networks import Actor, Routing, TwinCritic, moved
from .part import Part
from .policy import SACPolicy
from .precision import device_of, uses_bf16
from .reward_scale import RewardScale


class SACAgent:
    """Multi-task soft actor-critic (Haarnoja et al. 2018; discrete tasks after Christodoulou 2019).

    One update: a batch of every task, the critics' step, every `actor_every`-th update the steps of actor
    and temperatures on the critics as they were before it, then the targets' moving average.
    """

    def __init__(self, config: SACConfig, layout: Layout, tasks: TaskSet, seed: int) -> None:
        """Raises ConfigError when the settings do not fit each other, ResourceError for a device that is
        not there.
        """
        self.needs = DataNeeds(
            kind="fragments",
            replay_ratio=config.replay_ratio,
            demonstrations=config.replay.demonstrations > 0,
        )
        self.updates = 0
        self._config, self._layout, self._tasks = config, layout, tasks
        self._device = device_of(config.device)
        clip = config.normalisation.clip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = Actor(layout, config.network, config.exploration, clip).to(self._device)
            self._critic = TwinCritic(layout, config.network, clip).to(self._device)
        self._target = copy.deepcopy(self._critic).requires_grad_(False)
        self._bf16 = uses_bf16(config.precision, self._device)
        # what the losses pass through: the networks themselves, or copies in bf16 that follow them
        self._fast = Fast(self._actor, self._critic, self._target, self._bf16)
        explore = config.exploration
        start = max(explore.initial_temperature, explore.temperature_floor)
        log_temperature = torch.full((len(tasks),), math.log(start), device=self._device)
        self._log_temperature = torch.nn.Parameter(log_temperature)
        temperatures = {"params": [self._log_temperature], "lr": explore.temperature_rate}
        self._parts = {
            "critic": Part("critic", self._fast, config, len(tasks), seed),
            # actor and temperatures move together
            "actor": Part("actor", self._fast, config, len(tasks), seed, temperatures),
        }
        self._replay = Replay(tasks, config.replay)
        self._moments = RunningMoments(len(tasks), layout.state_size)
        self._steps = np.zeros(len(tasks), dtype=np.int64)
        self._reward_scale = RewardScale(len(tasks), config.discount, config.network.value_range)
        self._way: Routing | None = None
        self._routed_for: torch.Tensor | None = None
        self._live: SACPolicy | None = None
        self._draws = np.random.default_rng([seed, 1])
        self._noise = torch.Generator(self._device).manual_seed(seed + 1)
        learning = Learning.of(config, layout, self._device)
        self._differentiation = Differentiation(learning, self._fast, self._parts, self._noise)
        self._learning = learning
        self._sample: Sample | None = None
        self._seen_in_batch: dict[str, float] = {}
        self._broken = ""

    @property
    def ready(self) -> bool:
        """Whether some task has a batch of transitions; tasks join the updates as they have one."""
        return bool(self._replay.sizes.max() >= self._config.batch_size)

    def policy(self) -> SACPolicy:
        """Acts with the current weights; on the processor it is one object that learns on."""
        if self._device.type != "cpu":
            return SACPolicy(copy.deepcopy(self._actor).cpu(), self._layout, self.updates)
        if self._live is None:
            self._live = SACPolicy(self._actor, self._layout, self.updates)
        self._live.version = self.updates
        return self._live

    def snapshot(self) -> PolicySnapshot:
        """The actor and its statistics as named arrays."""
        state = self._actor.state_dict().items()
        tensors = {name: value.detach().cpu().numpy().copy() for name, value in state}
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

    def set_task_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], sums to 1: the losses of task k count K shares[k] times."""
        counted = torch.from_numpy(shares * len(shares)).float().to(self._device)
        self._differentiation.shares = None if bool((counted == 1).all()) else counted

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients of each part that surgery measured since the last call."""
        found = {name: part.cosines() for name, part in self._parts.items()}
        return {name: cosines for name, cosines in found.items() if cosines is not None}

    def compute_gradients(self) -> TaskGradients:
        """Gradients of one batch: one row for all tasks, the gradient of the sum of their mean losses; or,
        where surgery asks for it, one row per task.

        Names are "critic.NAME", and in every `actor_every`-th update "actor.NAME" and "temperature.log".
        Raises ConfigError while no task has a batch of transitions, DivergenceError for a number that is
        not finite (unless `on_non_finite` says that `apply` leaves the update out).
        """
        found = self._gradients()
        # what `update` reads in place may be held, sent and added up by others
        found.sums = {name: rows.clone() for name, rows in found.sums.items()}
        return found

    def _gradients(self) -> TaskGradients:
        """`compute_gradients` in buffers that `apply` and the next call write over."""
        config = self._config
        usable = np.flatnonzero(self._replay.sizes >= config.batch_size)
        chosen = usable.tolist() if len(usable) else None
        batch = self._replay.sample(config.batch_size, self._draws, chosen)
        scale = torch.from_numpy(self._reward_scale.scale) if config.normalisation.returns else None
        sample = self._sample = sample_of(
            self._learning,
            batch,
            self._routed(batch.task_index),
            self._critic.observer,
            None if scale is None else scale.to(self._device),
            self._log_temperature.detach().exp(),
            torch.bfloat16 if self._bf16 else torch.float32,
        )
        self._fast.follow()
        sums: dict[str, torch.Tensor] = {}
        acting = self.updates % config.actor_every == 0
        self._broken, self._differentiation.losses = "", {}
        try:
            losses, observed = self._differentiation.critic(sample, sums)
            if acting:
                self._differentiation.actor(sample, observed, sums)
        except DivergenceError as error:
            self._broken = str(error)
            losses = torch.full((len(batch.task_index),), torch.nan)
        self._read_losses(batch.task_index)
        counts = torch.ones(len(batch.task_index), device=self._device)
        return TaskGradients(sums, counts, losses.detach())

    def apply(self, gradients: TaskGradients) -> Mapping[str, float]:
        """Clipped Adam steps and the targets' moving average.

        Raises DivergenceError for a loss or gradient that is not finite, or leaves the update out, as
        `on_non_finite` says; no weight is changed then.
        """
        config = self._config
        norms: dict[str, float] = {}
        broken = self._broken
        told: dict[str, float] = {}
        parts = [part for name, part in self._parts.items() if _has(gradients.sums, name)]
        if not broken:
            try:
                for part in parts:
                    prefix = len(part.name) + 1
                    own = {k[prefix:]: v for k, v in gradients.sums.items() if k.startswith(part.name + ".")}
                    norms[part.name] = part.gather(
                        own, gradients.counts, self._differentiation.losses[part.name]
                    )
            except DivergenceError as error:
                broken = str(error)
        broken = broken or self._not_finite(gradients, norms)
        self.updates += 1
        if broken:
            if config.on_non_finite == "stop":
                raise DivergenceError("the SAC agent", self.updates, broken)
            return {"skipped_updates": 1.0}
        if "temperature.log" in gradients.sums:
            self._log_temperature.grad = gradients.sums["temperature.log"][0]
        for part in parts:
            told |= part.step()
        if any(part.asks_again for part in parts):
            self._fast.follow()
            for part in parts:
                part.look_back()
        self._fast.update_balance()
        floor = config.exploration.temperature_floor
        if floor > 0 and "temperature.log" in gradients.sums:
            with torch.no_grad():
                self._log_temperature.clamp_(min=math.log(floor))
        self._reset_runaways(parts)
        self._fast.average(config.target_rate)
        temperatures = self._log_temperature.detach().exp().tolist()
        inside: dict[str, float] = {}
        if config.diagnostics_every and self.updates % config.diagnostics_every == 0 and self._sample:
            inside = look_inside(self._fast, self._sample)
        return {
            **self._seen_in_batch,
            **told,
            **{f"{name}_gradient_norm": norm for name, norm in norms.items()},
            **{f"temperature/{self._tasks[k].name}": value for k, value in enumerate(temperatures)},
            **inside,
            "skipped_updates": 0.0,
        }

    def update(self) -> Mapping[str, float]:
        """One batch, one step."""
        return self.apply(self._gradients())

    def state_dict(self) -> dict[str, Any]:
        """Weights, optimisers, statistics, random states, and the replay unless settings leave it out."""
        return {
            "actor": dict(self._actor.state_dict()),
            "critic": dict(self._critic.state_dict()),
            "target": dict(self._target.state_dict()),
            "log_temperature": self._log_temperature.detach().clone(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "shares": None if self._differentiation.shares is None else self._differentiation.shares.clone(),
            "updates": self.updates,
            "replay": self._replay.state_dict() if self._config.replay.save else None,
            "moments": self._moments.state_dict(),
            "steps": self._steps.copy(),
            "reward_scale": self._reward_scale.state_dict(),
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
            "device": self._device.type,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`. On a device of another kind the noise begins anew: generators differ."""
        self._actor.load_state_dict(state["actor"])
        self._critic.load_state_dict(state["critic"])
        self._target.load_state_dict(state["target"])
        with torch.no_grad():
            self._log_temperature.copy_(state["log_temperature"])
        # the optimisers would go on in the tensors of the state itself
        for name, part in self._parts.items():
            part.load_state_dict(copy.deepcopy(state["parts"][name]))
        shares = state["shares"]
        self._differentiation.shares = None if shares is None else shares.clone().to(self._device)
        self.updates = state["updates"]
        if state["replay"] is not None:
            self._replay.load_state_dict(state["replay"])
        self._moments.load_state_dict(state["moments"])
        self._steps[:] = state["steps"]
        self._reward_scale.load_state_dict(state["reward_scale"])
        self._draws.bit_generator.state = state["draws"]
        if state["device"] == self._device.type:
            self._noise.set_state(state["noise"])

    def _routed(self, task: torch.Tensor) -> Routing:
        """The routing of a batch, kept while batches hold the same tasks."""
        if self._way is None or self._routed_for is not task:
            self._way, self._routed_for = moved(self._actor.route(task), self._device), task
        return self._way

    def _reset_runaways(self, parts: Sequence[Part]) -> None:
        """Gives tasks whose loss exploded another mixture, where the torso has such (PaCo)."""
        if self._config.network.torso.kind != "paco" or self._sample is None:
            return
        torsos = {"critic": self._critic.network.torso, "actor": self._actor.network.torso}
        for part in parts:
            torsos[part.name].reset_tasks(
                self._differentiation.losses[part.name], self._sample.way.task, self._noise
            )

    def _read_losses(self, task: torch.Tensor) -> None:
        """Numbers for the metrics, brought from the device at once."""
        named = {"critic": "critic_loss", "actor": "actor_loss"}
        found = self._differentiation.losses
        names = [self._tasks[k].name for k in task.tolist()]
        values = torch.stack([value.float() for value in found.values()]).tolist() if found else []
        self._seen_in_batch = {
            f"{named.get(kind, kind)}/{name}": value
            for kind, row in zip(found, values, strict=True)
            for name, value in zip(names, row, strict=True)
        }

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


def _has(sums: Mapping[str, torch.Tensor], part: str) -> bool:
    return any(name.startswith(part + ".") for name in sums)

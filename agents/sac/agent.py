"""The agent: replay by task, twin critics, one actor for continuous and discrete tasks."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import Replay
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import RewardScale, begin_as
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, State, Use

from .config import SACConfig
from .experience import Experience, UpdateSchedule, padded
from .fast import Fast
from .gradient_computation import GradientComputation, torso_metrics
from .learning import Learning, Sample, sample_of
from .networks import Actor, Routing, TwinCritic, moved
from .part import Part, Ranks, not_finite
from .policy import SACPolicy
from .precision import device_of, uses_bf16

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult


class SACAgent:
    """Multi-task soft actor-critic (Haarnoja et al. 2018; discrete tasks after Christodoulou 2019).

    One update: a batch of every task, the critics' step, every `actor_every`-th update the steps of actor
    and temperatures on the critics as they were before it, then the targets' moving average.
    """

    def __init__(
        self,
        config: SACConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parent: SACPolicy | None = None,
    ) -> None:
        """Begins with the actor and the observation statistics of `parent`, which then stay as they are.
        Raises ConfigError when the settings do not fit each other or the parent, ResourceError for a device
        that is not there.
        """
        if config.batch_size % ranks:
            raise ConfigError(
                f"agent.batch_size={config.batch_size} is what all ranks take together; expected a multiple "
                f"of their number, {ranks}"
            )
        self.updates = 0
        layout = tasks.layout
        self._config, self._layout, self._tasks = config, layout, tasks
        self._ranks, self._seed = ranks, seed
        self._device = device_of(config.device)
        clip = config.normalisation.clip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = Actor(layout, config.network, config.exploration, clip).to(self._device)
            self._critic = TwinCritic(layout, config.network, clip, config.value_clip).to(self._device)
        if parent is not None:
            begin_as(self._actor, parent.actor)
            for name in ("mean", "scale"):
                getattr(self._critic.observer, name).copy_(getattr(parent.actor.observer, name))
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
        self._experience = Experience(
            layout, config.normalisation, config.batch_size // ranks, frozen=parent is not None
        )
        self._schedule = UpdateSchedule(config.replay_ratio)
        self._reward_scale = RewardScale(len(tasks), config.discount, config.network.value_range)
        self._way: Routing | None = None
        self._routed_for: torch.Tensor | None = None
        self._live: SACPolicy | None = None
        self._draws = np.random.default_rng([seed, 1, rank] if rank else [seed, 1])
        self._noise = torch.Generator(self._device).manual_seed(seed + 1 + 1_000_003 * rank)
        learning = Learning.of(config, layout, self._device)
        self._computation = GradientComputation(learning, self._fast, self._parts, self._noise)
        self._learning = learning
        self._sample: Sample | None = None
        self._log_temperature_gradient: torch.Tensor | None = None

    def policy(self) -> SACPolicy:
        """Acts with the current weights; on the processor it is one object that learns on."""
        if self._device.type != "cpu":
            return SACPolicy(copy.deepcopy(self._actor).cpu(), self._layout, self.updates)
        if self._live is None:
            self._live = SACPolicy(self._actor, self._layout, self.updates)
        self._live.version = self.updates
        return self._live

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The actor and its statistics as named arrays."""
        state = self._actor.state_dict().items()
        tensors = {name: value.detach().cpu().numpy().copy() for name, value in state}
        return PolicySnapshot("sac", asdict(self._config), tensors, self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes a Fragment, or demonstrations.

        Raises DivergenceError for a number that is not finite; of several ranks `due` does so, on all.
        """
        if isinstance(data, Datasets):
            self._replay.add_demonstrations(data.trajectories)
            return
        if not isinstance(data, Fragment):
            raise ConfigError("the SAC agent learns from fragments, and from demonstrations (Datasets)")
        try:
            self._replay.add(data)
        except DivergenceError as error:
            if self._ranks == 1:
                raise
            self._experience.fail(error)
            return
        self._reward_scale.add(data)
        self._experience.add(data)

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates at the replay ratio since some task had a batch of transitions; tasks join the updates as
        they have one.
        """
        fresh = self._experience.agree(self._replay.sizes, self._reward_scale, reducer)
        for k, moments in fresh:
            for network in (self._actor, self._critic, self._target):
                network.observer.set_moments(moments, k)
        return self._schedule.due(steps, self.updates, bool(self._experience.usable))

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Nothing follows from it."""

    def set_task_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """[K], sums to 1: the losses of task k count K shares[k] times."""
        counted = torch.from_numpy(shares * len(shares)).float().to(self._device)
        self._computation.shares = None if bool((counted == 1).all()) else counted

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients of each part that surgery measured since the last call."""
        found = {name: part.cosines() for name, part in self._parts.items()}
        return {name: cosines for name, cosines in found.items() if cosines is not None}

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """Clipped Adam steps on one batch, and the targets' moving average.

        Raises ConfigError while no task has a batch of transitions. Raises DivergenceError for a loss or
        gradient that is not finite, or leaves the update out, as `on_non_finite` says; no weight is changed
        then.
        """
        config = self._config
        ranks = self._agreed_ranks(reducer)
        parts, norms, broken = [self._parts["critic"]], dict[str, float](), ""
        if self.updates % config.actor_every == 0:
            parts.append(self._parts["actor"])
        try:
            self._differentiate(ranks)
            norms = {part.name: part.gather() for part in parts}
        except DivergenceError as error:
            broken = str(error)
        losses = self._computation.named_losses(ranks.tasks)
        broken = broken or not_finite(losses, norms, parts)
        self.updates += 1
        if broken:
            if config.on_non_finite == "stop":
                raise DivergenceError("the SAC agent", self.updates, broken)
            return {"skipped_updates": 1.0}
        self._log_temperature.grad = self._log_temperature_gradient
        metrics: dict[str, float] = {}
        for part in parts:
            metrics |= part.step()
        if any(part.needs_post_step for part in parts):
            self._fast.sync()
            for part in parts:
                if part.needs_post_step:
                    part.observe_post_step_losses(ranks)
        self._fast.update_balance(reducer)
        floor = config.exploration.temperature_floor
        if floor > 0 and len(parts) > 1:
            with torch.no_grad():
                self._log_temperature.clamp_(min=math.log(floor))
        assert self._sample is not None, "it was drawn"
        if config.network.torso.kind == "paco":
            networks: dict[str, Actor | TwinCritic] = {"critic": self._critic, "actor": self._actor}
            torsos = {part.name: networks[part.name].network.torso for part in parts}
            seed = [self._seed, self.updates]
            self._computation.reset_runaways(torsos, self._sample.way, reducer, seed)
        self._fast.average(config.target_rate)
        temperatures = self._log_temperature.detach().exp().tolist()
        inside: dict[str, float] = {}
        if config.diagnostics_every and self.updates % config.diagnostics_every == 0:
            inside = torso_metrics(self._fast, self._sample, reducer)
        return {
            **losses,
            **metrics,
            **{f"{name}_gradient_norm": norm for name, norm in norms.items()},
            **{f"temperature/{self._tasks[k].name}": value for k, value in enumerate(temperatures)},
            **inside,
            "skipped_updates": 0.0,
        }

    def shared_state(self) -> State:
        """Weights, optimisers, surgery, temperatures, statistics."""
        shares = self._computation.shares
        return {
            "actor": dict(self._actor.state_dict()),
            "critic": dict(self._critic.state_dict()),
            "target": dict(self._target.state_dict()),
            "log_temperature": self._log_temperature.detach().clone(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "shares": None if shares is None else shares.clone(),
            "updates": self.updates,
            "schedule": self._schedule.state_dict(),
            "experience": self._experience.shared_state(),
            "largest_returns": self._reward_scale.largest.copy(),
        }

    def local_state(self) -> State:
        """Random states, returns under way, and the replay unless settings leave it out."""
        return {
            "replay": self._replay.state_dict() if self._config.replay.save else None,
            "experience": self._experience.local_state(),
            "reward_scale": self._reward_scale.state_dict(),
            "draws": self._draws.bit_generator.state,
            "noise": self._noise.get_state(),
            "device": self._device.type,
        }

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both. Without `local` the replay fills again; on a device of another kind the noise begins
        again, since generators differ.
        """
        self._actor.load_state_dict(shared["actor"])
        self._critic.load_state_dict(shared["critic"])
        self._target.load_state_dict(shared["target"])
        with torch.no_grad():
            self._log_temperature.copy_(shared["log_temperature"])
        # the optimisers would go on in the tensors of the state itself
        for name, part in self._parts.items():
            part.load_state_dict(copy.deepcopy(shared["parts"][name]))
        shares = shared["shares"]
        self._computation.shares = None if shares is None else shares.clone().to(self._device)
        self.updates = shared["updates"]
        self._schedule.load_state_dict(shared["schedule"])
        self._experience.restore(shared["experience"], None if local is None else local["experience"])
        if local is not None:
            if local["replay"] is not None:
                self._replay.load_state_dict(local["replay"])
            self._reward_scale.load_state_dict(local["reward_scale"])
            self._draws.bit_generator.state = local["draws"]
            if local["device"] == self._device.type:
                self._noise.set_state(local["noise"])
        self._reward_scale.largest[:] = shared["largest_returns"]

    def _agreed_ranks(self, reducer: Reducer) -> Ranks:
        usable, portion = self._experience.usable, self._experience.portion
        if not usable:
            self._experience.raise_unusable(self._replay.sizes)
        names = [self._tasks[k].name for k in usable]
        return Ranks(reducer, None if portion is None else portion.to(self._device), self.updates, names)

    def _differentiate(self, ranks: Ranks) -> None:
        """Leaves the gradients of one batch, summed over tasks, with the parts; changes no weight."""
        self._computation.losses, self._log_temperature_gradient = {}, None
        ranks.reducer.sums(self._draw, {})
        assert self._sample is not None, "it was drawn"
        observed = self._computation.critic(self._sample, ranks)
        if self.updates % self._config.actor_every == 0:
            self._log_temperature_gradient = self._computation.actor(self._sample, observed, ranks)

    def _draw(self) -> Mapping[str, torch.Tensor]:
        """Makes the sample of this update; returns nothing that is summed."""
        config, experience = self._config, self._experience
        width = config.batch_size // self._ranks
        batch = self._replay.sample(width, self._draws, experience.own)
        if len(experience.own) < len(experience.usable):
            batch = padded(batch, experience.usable, width, self._layout)
        scale = torch.from_numpy(self._reward_scale.scale) if config.normalisation.returns else None
        self._sample = sample_of(
            self._learning,
            batch,
            self._routed(batch.task_index),
            self._critic.observer,
            None if scale is None else scale.to(self._device),
            self._log_temperature.detach().exp(),
            torch.bfloat16 if self._bf16 else self._log_temperature.dtype,
        )
        self._fast.sync()
        return {}

    def _routed(self, task: torch.Tensor) -> Routing:
        """The routing of a batch, kept while batches hold the same tasks."""
        if self._way is None or self._routed_for is not task:
            self._way, self._routed_for = moved(self._actor.route(task), self._device), task
        return self._way

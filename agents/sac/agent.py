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
from torch import Tensor

from mtrl.data import MappedStorage, Replay
from mtrl.errors import ConfigError, DivergenceError
from mtrl.nn import RewardScale, begin_as, device_of, scatter_rows, select_rows, torso_diagnostics, uses_bf16
from mtrl.reducer import Reducer
from mtrl.rollout import EpisodeGroup, Fragment, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, State, Use

from ..experience import Experience, UpdateSchedule, padded
from .config import SACConfig
from .explicit import ExplicitGradientComputation
from .gradients import GradientComputation, OptimizerGroup, UpdateContext, not_finite
from .losses import TrainingBatch, target_entropies, temperature_gradient
from .networks import Actor, BatchTasks, MixedPrecisionNetworks, TwinCritic
from .policy import SACPolicy

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult


class SACAgent:
    """Multi-task soft actor-critic (Haarnoja et al. 2018, algorithm 1; discrete tasks after Christodoulou
    2019; a temperature per task after Yu et al. 2020).
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
        self._config, self._layout, self._tasks = config, tasks.layout, tasks
        self._samples, self._seed = config.batch_size // ranks, seed
        self._alone = ranks == 1
        self._device = device_of(config.device)
        self._build_networks(parent)
        self._build_optimizers()
        self._replay = Replay(tasks, config.replay)
        normalised = config.normalisation.observations and parent is None
        refresh_at = config.normalisation.refresh_at if normalised else ()
        self._experience = Experience(tasks, self._samples, refresh_at)
        self._schedule = UpdateSchedule(config.replay_ratio)
        self._reward_scale = RewardScale(len(tasks), config.discount, config.network.value_range)
        self._target_entropy = target_entropies(config.exploration, self._layout).to(self._device)
        self._shares: Tensor | None = None
        self._draws = np.random.default_rng([seed, 1, rank] if rank else [seed, 1])
        self._noise = torch.Generator(self._device).manual_seed(seed + 1 + 1_000_003 * rank)
        parts = (config, self._networks, self._groups, self._noise)
        self._computation = GradientComputation(*parts)
        self._explicit = ExplicitGradientComputation.of(*parts)
        self._shared_policy = SACPolicy(self._actor, self._layout, self.updates, config.exploration.hold)
        self._batch: TrainingBatch | None = None
        self._losses: dict[str, Tensor] = {}
        self._temperature_gradient: Tensor | None = None

    def _build_networks(self, parent: SACPolicy | None) -> None:
        config = self._config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            clip = config.normalisation.clip
            self._actor = Actor(self._layout, config.network, config.exploration, clip).to(self._device)
            self._critic = TwinCritic(self._layout, config).to(self._device)
        if parent is not None:
            begin_as(self._actor, parent.actor)
            self._critic.observer.mean.copy_(parent.actor.observer.mean)
            self._critic.observer.scale.copy_(parent.actor.observer.scale)
        self._target = copy.deepcopy(self._critic).requires_grad_(False)
        self._bf16 = uses_bf16(config.precision, self._device)
        self._networks = MixedPrecisionNetworks(self._actor, self._critic, self._target, self._bf16)

    def _build_optimizers(self) -> None:
        config, explore, tasks = self._config, self._config.exploration, len(self._tasks)
        start = max(explore.initial_temperature, explore.temperature_floor)
        log_temperature = torch.full((tasks,), math.log(start), device=self._device)
        self._log_temperature = torch.nn.Parameter(log_temperature)
        temperatures = {"params": [self._log_temperature], "lr": explore.temperature_rate}
        self._groups = {
            "critic": OptimizerGroup("critic", self._networks, config, tasks, self._seed),
            # actor and temperatures move together
            "actor": OptimizerGroup("actor", self._networks, config, tasks, self._seed, temperatures),
        }

    def policy(self) -> SACPolicy:
        """Acts with the current weights; on the CPU one object that shares the weights in training."""
        if self._device.type != "cpu":
            actor, hold = copy.deepcopy(self._actor).cpu(), self._config.exploration.hold
            return SACPolicy(actor, self._layout, self.updates, hold)
        self._shared_policy.version = self.updates
        return self._shared_policy

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The actor and its statistics as named arrays."""
        state = self._actor.state_dict().items()
        tensors = {name: value.detach().cpu().numpy().copy() for name, value in state}
        return PolicySnapshot("sac", asdict(self._config), tensors, self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Adds a Fragment, or demonstrations, to the replay.

        Raises DivergenceError for a number that is not finite; of several ranks `due` does so, on all.
        """
        if isinstance(data, Datasets):
            self._replay.add_demonstrations(data.trajectories)
            for k, trajectories in data.trajectories.items():
                self._reward_scale.add_episodes(k, trajectories.rewards, trajectories.offsets)
            return
        if not isinstance(data, Fragment):
            raise ConfigError("the SAC agent learns from fragments, and from demonstrations (Datasets)")
        try:
            self._replay.add(data)
        except DivergenceError as error:
            if self._alone:
                raise
            self._experience.fail(error)
            return
        self._reward_scale.add(data)
        self._experience.add(data)

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates at the replay ratio since some task had a batch of transitions; tasks join the updates as
        they have one.
        """
        for k, moments in self._experience.agree(self._replay.sizes, self._reward_scale, reducer):
            for network in (self._actor, self._critic, self._target):
                network.observer.set_moments(moments, k)
        return self._schedule.due(steps, self.updates, bool(self._experience.usable))

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Ignored."""

    def set_task_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """`shares` [K] sum to 1; the loss of task k is multiplied by K shares[k]."""
        weights = torch.from_numpy(shares * len(shares)).float().to(self._device)
        self._shares = None if bool((weights == 1).all()) else weights

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients of each group that surgery measured since the last call."""
        measured = {name: group.cosines() for name, group in self._groups.items()}
        return {name: cosines for name, cosines in measured.items() if cosines is not None}

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """Clipped Adam steps on one batch, and the targets' moving average.

        Raises ConfigError while no task has a batch of transitions. Raises DivergenceError for a loss or
        gradient that is not finite, or leaves the update out, as `on_non_finite` says; no weight is changed
        then.
        """
        config, context = self._config, self._context(reducer)
        groups = [self._groups["critic"]]
        if self._updates_actor:
            groups.append(self._groups["actor"])
        norms, broken = dict[str, float](), ""
        try:
            self._compute_gradients(context)
            norms = {group.name: group.clip() for group in groups}
        except DivergenceError as error:
            broken = str(error)
        losses = self._named_losses(context)
        broken = broken or not_finite(losses, norms, groups)
        self.updates += 1
        if broken:
            if config.on_non_finite == "stop":
                raise DivergenceError("the SAC agent", self.updates, broken)
            return {"skipped_updates": 1.0}
        # Algorithm 1 of Haarnoja et al. 2018: theta <- theta - lambda_Q dJ_Q(theta),
        # phi <- phi - lambda_pi dJ_pi(phi), log alpha <- log alpha - lambda dJ(log alpha)
        self._log_temperature.grad = self._temperature_gradient
        surgery: dict[str, float] = {}
        for group in groups:
            surgery |= group.step()
        self._finish_step(groups, context)
        # target <- tau theta + (1 - tau) target, the last line of algorithm 1
        self._networks.average(config.target_rate)
        temperatures = self._log_temperature.detach().exp().tolist()
        return {
            **losses,
            **surgery,
            **{f"{name}_gradient_norm": norm for name, norm in norms.items()},
            **{f"temperature/{self._tasks[k].name}": value for k, value in enumerate(temperatures)},
            **self._torso_metrics(reducer),
            "skipped_updates": 0.0,
        }

    def map_replay(self, storage: MappedStorage | None) -> Replay:
        """Keeps the replay in files, or in memory."""
        self._replay = Replay(self._tasks, self._config.replay, storage=storage)
        return self._replay

    def shared_state(self) -> State:
        """Weights, optimisers, surgery, temperatures, statistics."""
        return {
            "actor": dict(self._actor.state_dict()),
            "critic": dict(self._critic.state_dict()),
            "target": dict(self._target.state_dict()),
            "log_temperature": self._log_temperature.detach().clone(),
            "parts": {name: group.state_dict() for name, group in self._groups.items()},
            "shares": None if self._shares is None else self._shares.clone(),
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
        # an optimiser keeps the tensors that it loads, and would then write into the state
        for name, group in self._groups.items():
            group.load_state_dict(copy.deepcopy(shared["parts"][name]))
        shares = shared["shares"]
        self._shares = None if shares is None else shares.clone().to(self._device)
        self.updates = shared["updates"]
        self._schedule.load_state_dict(shared["schedule"])
        self._experience.restore(shared["experience"], None if local is None else local["experience"])
        if local is not None:
            if local["replay"] is not None and not self._replay.reopened:
                self._replay.load_state_dict(local["replay"])
            self._reward_scale.load_state_dict(local["reward_scale"])
            self._draws.bit_generator.state = local["draws"]
            if local["device"] == self._device.type:
                self._noise.set_state(local["noise"])
        self._reward_scale.largest[:] = shared["largest_returns"]

    @property
    def _updates_actor(self) -> bool:
        return self.updates % self._config.actor_every == 0

    def _context(self, reducer: Reducer) -> UpdateContext:
        usable, portion = self._experience.usable, self._experience.portion
        if not usable:
            self._experience.raise_unusable(self._replay.sizes)
        names = [self._tasks[k].name for k in usable]
        portion = None if portion is None else portion.to(self._device)
        return UpdateContext(reducer, portion, self._shares, self.updates, names)

    def _compute_gradients(self, context: UpdateContext) -> None:
        """Writes the gradients of one batch, summed over tasks, into the groups; changes no weight."""
        self._losses, self._temperature_gradient = {}, None
        context.reducer.sums(self._draw, {})
        batch = self._batch
        assert batch is not None, "`_draw` sets the batch"
        explicit = self._explicit if self._explicit is not None and self._explicit.serves(batch) else None
        computation = explicit or self._computation
        sums = computation.critic(batch, context)
        self._losses = {"critic_loss": sums["losses"], "value": sums["value"]}
        if self._updates_actor:
            sums = computation.actor(batch, context)
            self._losses |= {"actor_loss": sums["losses"], "entropy": sums["entropy"]}
            task = batch.tasks.task
            gradient = temperature_gradient(sums["entropy"], select_rows(self._target_entropy, task))
            self._temperature_gradient = scatter_rows(gradient, task, len(self._tasks))

    def _draw(self) -> Mapping[str, Tensor]:
        """Draws the batch of this update; returns nothing that is summed."""
        config, experience = self._config, self._experience
        batch = self._replay.sample(self._samples, self._draws, experience.own)
        if len(experience.own) < len(experience.usable):
            batch = padded(batch, experience.usable, self._samples, self._layout)
        scale = torch.from_numpy(self._reward_scale.scale) if config.normalisation.returns else None
        self._batch = TrainingBatch.of(
            batch,
            BatchTasks.of(batch.task_index, self._layout).to(self._device),
            self._critic.observer,
            config,
            None if scale is None else scale.to(self._device),
            self._log_temperature.detach().exp(),
            torch.bfloat16 if self._bf16 else self._log_temperature.dtype,
        )
        self._networks.sync()
        return {}

    def _finish_step(self, groups: list[OptimizerGroup], context: UpdateContext) -> None:
        """What follows the optimisers' steps, on the weights that they left."""
        if any(group.needs_post_step for group in groups):
            self._networks.sync()
            for group in groups:
                if group.needs_post_step:
                    group.observe_post_step_losses(context)
        self._networks.update_balance(context.reducer)
        floor = self._config.exploration.temperature_floor
        if floor > 0 and len(groups) > 1:
            with torch.no_grad():
                self._log_temperature.clamp_(min=math.log(floor))
        if self._config.network.torso.kind == "paco":
            self._reset_diverged(groups, context.reducer)

    def _reset_diverged(self, groups: list[OptimizerGroup], reducer: Reducer) -> None:
        """Gives tasks whose loss diverged another mixture of the torsos (PaCo), the same on every rank."""
        assert self._batch is not None, "`_compute_gradients` draws the batch first"
        generator, task = self._noise, self._batch.tasks.task
        if reducer.size > 1:
            number = int(np.random.SeedSequence([self._seed, self.updates]).generate_state(1)[0])
            generator = torch.Generator(self._device).manual_seed(number)
        networks: dict[str, Actor | TwinCritic] = {"critic": self._critic, "actor": self._actor}
        for group in groups:
            torso = networks[group.name].network.torso
            torso.reset_tasks(self._losses[f"{group.name}_loss"], task, generator)

    def _named_losses(self, context: UpdateContext) -> dict[str, float]:
        """Metrics of the losses, brought from the device at once."""
        losses = self._losses
        values = torch.stack([value.float() for value in losses.values()]).tolist() if losses else []
        return {
            f"{kind}/{name}": value
            for kind, row in zip(losses, values, strict=True)
            for name, value in zip(context.tasks, row, strict=True)
        }

    @torch.no_grad()
    def _torso_metrics(self, reducer: Reducer) -> dict[str, float]:
        """Diagnostics of the torsos for the latest batch, every `diagnostics_every` updates:
        "torso/critic/dormant_units" and others; of several ranks the mean over their batches.
        """
        every, batch = self._config.diagnostics_every, self._batch
        if not every or self.updates % every or batch is None:
            return {}
        actor, critic, batch_tasks = self._networks.actor, self._networks.critic, batch.tasks
        arguments = (batch.observation, batch_tasks.count, batch.samples)
        action = batch.continuous if batch_tasks.has_continuous else None
        inputs = {
            "actor": (actor.network, actor.observer(*arguments)),
            "critic": (critic.network, critic.inputs(critic.observer(*arguments), batch_tasks, action)),
        }
        metrics = {
            f"torso/{part}/{name}": value
            for part, (network, features) in inputs.items()
            for name, value in torso_diagnostics(network.torso, features, batch_tasks.task).items()
        }
        values = torch.tensor(list(metrics.values()), dtype=torch.float64)
        whole = reducer.sums(lambda: {"values": values}, {"values": (values.shape, values.dtype)})["values"]
        return dict(zip(metrics, (whole / reducer.size).tolist(), strict=True))

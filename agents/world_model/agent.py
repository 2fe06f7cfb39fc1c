"""The agent: replayed sequences of every task, one model, one policy prior."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import MappedStorage, Replay
from mtrl.errors import ConfigError, DivergenceError, MtrlWarning
from mtrl.gradients import GradientSurgery
from mtrl.nn import RewardScale, arrays_of, device_of, update_average
from mtrl.reducer import Like, Reducer, Sums
from mtrl.rollout import EpisodeGroup, Fragment, PolicySnapshot
from mtrl.tasks import TaskSet
from mtrl.training import Datasets, State, Use

from ..experience import Experience, UpdateSchedule, padded
from .config import WorldModelConfig
from .diagnostics import measure, measured_count
from .learning import Losses, clipped_shares, named_losses, q_ranges
from .networks import WorldModel, discounts
from .policy import WorldModelPolicy, plan_extras
from .sequences import sequences_of

if TYPE_CHECKING:
    from mtrl.evaluation import EvaluationResult

SCALE_RATE = 0.02
"""Share of a new range that goes into a task's Q scale per update."""
SMALLEST_SCALE = 0.005
"""Floor of a Q scale, in units of `normalisation.return_range`."""


class WorldModelAgent:
    """Learns a latent world model and a policy prior for all tasks at once.

    One update: sequences of every task, one step of the model (encoder, dynamics, reward, termination, Q),
    one of the policy prior and the temperatures on the model before it, then the Q targets' moving average.
    """

    def __init__(
        self, config: WorldModelConfig, tasks: TaskSet, seed: int, *, rank: int = 0, ranks: int = 1
    ) -> None:
        """Raises ConfigError when the settings do not fit each other."""
        if config.batch_size % ranks:
            raise ConfigError(
                f"agent.batch_size={config.batch_size} is what all ranks take together; expected a multiple "
                f"of their number, {ranks}"
            )
        self.updates = 0
        layout, count = tasks.layout, len(tasks)
        self._config, self._layout, self._tasks, self._ranks = config, layout, tasks, ranks
        self._device = device_of(config.device)
        generator = torch.Generator().manual_seed(seed)
        self._model = WorldModel(layout, config, generator).to(self._device)
        self._target_body = copy.deepcopy(self._model.q_body).requires_grad_(False)
        self._target_out = copy.deepcopy(self._model.q_out).requires_grad_(False)
        horizons = np.array([task.horizon_decisions for task in tasks])
        self._discount = discounts(horizons, config.discount)
        self._scale = np.ones(count, dtype=np.float32)
        self._measured = np.zeros(count, dtype=bool)
        """[K], whether the Q scale of the task was ever measured."""
        explore = config.exploration
        start = math.log(max(explore.initial_temperature, explore.temperature_floor))
        self._log_temperature = torch.nn.Parameter(torch.full((count,), start, device=self._device))
        self._named = {
            "model": self._model.model_parameters(), "policy": self._model.policy_parameters()
        }  # fmt: skip
        groups: list[dict[str, Any]] = [
            {"params": list(self._named["model"].values())},
            {"params": list(self._named["policy"].values())},
            {"params": [self._log_temperature], "lr": explore.temperature_rate},
        ]
        self._optimizer = torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
        self._surgery: GradientSurgery | None = None
        if config.gradients.covers("critic") and not config.gradients.plain:
            self._surgery = GradientSurgery(self._named["model"], config.gradients, count, seed)
        self._replay = Replay(tasks, config.replay, extras=plan_extras(config, layout))
        refresh_at = config.normalisation.refresh_at if config.normalisation.observations else ()
        self._experience = Experience(tasks, config.batch_size // ranks, refresh_at)
        self._schedule = UpdateSchedule(config.replay_ratio)
        self._reward_scale = RewardScale(count, self._discount, config.normalisation.return_range)
        self._clipped: set[str] = set()
        """Tasks that were warned of."""
        self._shares = torch.ones(count, device=self._device)
        self._losses = Losses(self._model, self._target_body, self._target_out)
        self._draws = np.random.default_rng([seed, 1, rank] if rank else [seed, 1])
        self._noise = torch.Generator(self._device).manual_seed(seed + 1 + 1_000_003 * rank)
        # gates are equal on all ranks, so their noise is too
        self._gate_noise = torch.Generator(self._device).manual_seed(seed + 2)
        targets = [
            explore.discrete_target_entropy * math.log(spec.discrete)
            if spec.is_discrete
            else explore.target_entropy * spec.continuous
            for spec in layout.actions
        ]
        self._target_entropy = torch.tensor(targets, device=self._device)

    def policy(self) -> WorldModelPolicy:
        """Acts with the current weights."""
        model = self._model if self._device.type == "cpu" else copy.deepcopy(self._model).cpu()
        return WorldModelPolicy(model, self._scale, self._discount, self.updates)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The model, Q scales and discounts as named arrays."""
        tensors = arrays_of(self._model.state_dict())
        tensors |= {"q_scale": self._scale.copy(), "discount": self._discount.copy()}
        return PolicySnapshot("world_model", asdict(self._config), tensors, self.updates)

    def ingest(self, data: Fragment | EpisodeGroup | Datasets) -> None:
        """Takes a fragment, or demonstrations."""
        if isinstance(data, Datasets):
            self._replay.add_demonstrations(data.trajectories)
            for k, trajectories in data.trajectories.items():
                self._reward_scale.add_episodes(k, trajectories.rewards, trajectories.offsets)
            return
        if not isinstance(data, Fragment):
            raise ConfigError("the world model learns from fragments, and from demonstrations (Datasets)")
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
        """Updates at the replay ratio since some task had a batch of steps."""
        for k, moments in self._experience.agree(self._replay.sizes, self._reward_scale, reducer):
            self._model.observer.set_moments(moments, k)
        return self._schedule.due(steps, self.updates, bool(self._experience.usable))

    def on_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Nothing follows from it."""

    def set_task_shares(self, shares: npt.NDArray[np.float64]) -> None:
        """`shares` [K] sum to 1; the losses of task k are multiplied by K shares[k]."""
        self._shares = torch.from_numpy(shares * len(shares)).float().to(self._device)

    def task_cosines(self) -> Mapping[str, npt.NDArray[np.float64]]:
        """Cosines between the tasks' gradients of the model that surgery measured since the last call."""
        cosines = None if self._surgery is None else self._surgery.take_cosines()
        return {} if cosines is None else {"model": cosines}

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step of model, policy and temperatures.

        Raises ConfigError while no task has a batch; DivergenceError, on all ranks, for a gradient that is
        not finite, before any weight changes.
        """
        config, usable = self._config, self._experience.usable
        if not usable:
            self._experience.raise_unusable(self._replay.sizes)
        reducer.sums(self._draw, {})
        surgery_metrics: dict[str, float] = {}
        if self._surgery is None or len(usable) < len(self._tasks):
            found = dict(reducer.sums(lambda: self._gradients(reducer.size), self._like(usable, "model")))
            if self._surgery is not None:
                model = {name: found[name] for name in self._named["model"]}
                found |= self._surgery.masked(model)
        else:
            combined = self._surgery.step(self._model_losses, reducer=reducer, portion=self._portion)
            surgery_metrics = {f"gradients/model/{name}": value for name, value in combined.metrics.items()}
            found = {name: value / len(usable) for name, value in combined.gradients.items()}
            found |= reducer.sums(lambda: self._gradients(reducer.size, model=False), self._like(usable))
            found[_GATE] = found[_GATE] + found.pop("balance", 0.0)
            found[_GATE] = self._surgery.masked({_GATE: found[_GATE]})[_GATE]
        norms = {}
        for part, named in self._named.items():
            for name, parameter in named.items():
                parameter.grad = found.get(name)
            norm = torch.nn.utils.clip_grad_norm_(
                list(named.values()), config.gradient_clip or math.inf, foreach=True
            )
            norms[f"{part}_gradient_norm"] = float(norm)
        self._log_temperature.grad = found["log_temperature"]
        self.updates += 1
        if not all(math.isfinite(norm) for norm in norms.values()):
            raise DivergenceError("the world model", self.updates, f"gradient norms {norms}")
        self._optimizer.step()
        with torch.no_grad():
            self._log_temperature.clamp_(min=math.log(config.exploration.temperature_floor))
        gates = self._losses.gates
        assert gates is not None, "the losses make them"
        self._model.experts.after_update(gates)
        facts = {name: found[name] for name in _FACTS}
        targets = reducer.gather(self._losses.targets)
        names = [self._tasks[k].name for k in usable]
        self._warn_of_clipped(names, clipped_shares(targets, config.value_range).tolist())
        self._follow_scale(usable, q_ranges(targets).cpu().numpy())
        if self._surgery is not None and self._surgery.needs_post_step and len(usable) == len(self._tasks):
            with torch.no_grad():
                self._surgery.observe_post_step_losses(
                    self._model_losses, reducer=reducer, portion=self._portion
                )
        update_average(self._target_body, self._model.q_body, 1.0 - config.target_rate)
        update_average(self._target_out, self._model.q_out, 1.0 - config.target_rate)
        facts["temperature"] = self._log_temperature.detach().exp()[usable]
        facts["q_scale"] = torch.from_numpy(self._scale[usable])
        inside: dict[str, float] = {}
        if config.diagnostics_every and self.updates % config.diagnostics_every == 0:
            inside = self._measured_inside(names, reducer)
        return {**named_losses(facts, names), **norms, **surgery_metrics, **inside}

    def _measured_inside(self, names: list[str], reducer: Reducer) -> dict[str, float]:
        """The diagnostics, a task's weighted by the samples that each rank has of it."""
        portions = dict(zip(names, self._portion.tolist(), strict=True))
        keys: list[str] = []

        def make() -> Sums:
            found = measure(self._model, self._batch, names, self.updates)
            keys.extend(found)
            shares = [portions.get(name.partition("/")[2], 1.0 / reducer.size) for name in found]
            numbers = [value * share for value, share in zip(found.values(), shares, strict=True)]
            return {"inside": torch.tensor(numbers, dtype=torch.float64)}

        count = measured_count(self._model, len(names), self._config.sequence)
        inside = reducer.sums(make, {"inside": ((count,), torch.float64)})["inside"]
        return dict(zip(keys, inside.tolist(), strict=True))

    def _follow_scale(self, usable: list[int], ranges: npt.NDArray[np.float32]) -> None:
        floor = SMALLEST_SCALE * self._config.normalisation.return_range
        for k, value in zip(usable, ranges, strict=True):
            share = SCALE_RATE if self._measured[k] else 1.0
            self._scale[k] = max((1.0 - share) * self._scale[k] + share * float(value), floor)
            self._measured[k] = True

    def _warn_of_clipped(self, names: list[str], shares: list[float]) -> None:
        """Once a task: its returns leave the range of the Q functions. Its rewards cannot."""
        for name, share in zip(names, shares, strict=True):
            if share > 0 and name not in self._clipped:
                self._clipped.add(name)
                warnings.warn(
                    f"{name}: {share:.1%} of the returns of an update lie outside what agent.value_range="
                    f"{self._config.value_range:g} represents and are clipped; raise it, or lower "
                    "agent.normalisation.return_range",
                    MtrlWarning,
                    stacklevel=3,
                )

    def _like(self, usable: list[int], *parts: str) -> Like:
        """What every rank contributes to an update: gradients of the policy and `parts`, facts by task."""
        named = {name: p for part in (*parts, "policy") for name, p in self._named[part].items()}
        named["log_temperature"] = self._log_temperature
        if not parts:
            named["balance"] = self._named["model"][_GATE]
        like = {name: (p.shape, p.dtype) for name, p in named.items()}
        return like | dict.fromkeys(_FACTS, ((len(usable),), torch.float32))

    def _draw(self) -> Sums:
        """Makes the batch of this update; returns nothing that is summed."""
        config, experience = self._config, self._experience
        width = config.batch_size // self._ranks
        batch = self._replay.sample_sequences(width, config.sequence, self._draws, experience.own)
        if len(experience.own) < len(experience.usable):
            batch = padded(batch, experience.usable, width, self._layout)
        self._batch = sequences_of(
            self._model,
            batch,
            torch.from_numpy(self._reward_scale.scale).to(self._device),
            torch.from_numpy(self._discount).to(self._device),
            torch.from_numpy(self._scale).to(self._device),
            self._log_temperature.detach().exp(),
        )
        portion = experience.portion
        self._portion = torch.ones(len(batch.task_index)) if portion is None else portion
        self._portion = self._portion.to(self._device)
        return {}

    def _model_losses(self) -> torch.Tensor:
        """[K], of this rank's batch, by the tasks' shares."""
        losses = self._losses.model_losses(self._batch, self._noise, self._gate_noise)
        return losses * self._shares[self._batch.task]

    def _gradients(self, size: int, *, model: bool = True) -> Sums:
        """This rank's part of the gradients of the mean over tasks, and of facts by task; without `model`, of
        which the losses were made before, the model's balance loss alone.
        """
        batch, portion = self._batch, self._portion
        found: dict[str, torch.Tensor] = {}
        experts, named = self._model.experts, self._named["model"]
        if model:
            total = (self._model_losses() * portion).mean()
            assert self._losses.gates is not None, "the losses make them"
            balance = experts.balance_loss(self._losses.gates)
            self._differentiate(total if balance is None else total + balance / size, named, found)
        elif (balance := experts.balance_loss(experts.gates(batch.task))) is not None:
            self._differentiate(balance / size, {"balance": named[_GATE]}, found)
        policy = self._losses.policy_losses(batch, self._noise)
        policy = policy * self._shares[batch.task]
        self._differentiate((policy * portion).mean(), self._named["policy"], found)
        # alpha (entropy - target), alpha held as its logarithm (Haarnoja et al. 2018, equation 18)
        missing = self._losses.latest["entropy"] - self._target_entropy[batch.task]
        slope = torch.zeros_like(self._log_temperature)
        slope[batch.task] = self._log_temperature.detach()[batch.task].exp() * missing * portion
        found["log_temperature"] = slope
        found.update({name: self._losses.latest[name] * portion for name in _FACTS})
        return found

    def _differentiate(
        self, loss: torch.Tensor, named: Mapping[str, torch.nn.Parameter], found: dict[str, torch.Tensor]
    ) -> None:
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        for (name, parameter), gradient in zip(named.items(), gradients, strict=True):
            found[name] = torch.zeros_like(parameter) if gradient is None else gradient

    def map_replay(self, storage: MappedStorage | None) -> Replay:
        """Keeps the replay in files, or in memory."""
        extras = plan_extras(self._config, self._layout)
        self._replay = Replay(self._tasks, self._config.replay, extras, storage)
        return self._replay

    def shared_state(self) -> State:
        """Weights, optimiser, statistics."""
        return {
            "model": dict(self._model.state_dict()),
            "target_body": dict(self._target_body.state_dict()),
            "target_out": dict(self._target_out.state_dict()),
            "log_temperature": self._log_temperature.detach().clone(),
            "optimizer": self._optimizer.state_dict(),
            "surgery": None if self._surgery is None else self._surgery.state_dict(),
            "scale": self._scale.copy(),
            "measured": self._measured.copy(),
            "shares": self._shares.clone(),
            "updates": self.updates,
            "schedule": self._schedule.state_dict(),
            "experience": self._experience.shared_state(),
            "largest_returns": self._reward_scale.largest.copy(),
            "gate_noise": self._gate_noise.get_state(),
            "device": self._device.type,
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
        """Restores both; without `local` the replay fills again."""
        self._model.load_state_dict(shared["model"])
        self._target_body.load_state_dict(shared["target_body"])
        self._target_out.load_state_dict(shared["target_out"])
        with torch.no_grad():
            self._log_temperature.copy_(shared["log_temperature"])
        self._optimizer.load_state_dict(copy.deepcopy(shared["optimizer"]))
        if self._surgery is not None and shared["surgery"] is not None:
            self._surgery.load_state_dict(shared["surgery"])
        self._scale[:], self._measured[:] = shared["scale"], shared["measured"]
        self._shares = shared["shares"].clone().to(self._device)
        self.updates = shared["updates"]
        self._schedule.load_state_dict(shared["schedule"])
        if shared["device"] == self._device.type:
            self._gate_noise.set_state(shared["gate_noise"])
        self._experience.restore(shared["experience"], None if local is None else local["experience"])
        if local is not None:
            if local["replay"] is not None and not self._replay.reopened:
                self._replay.load_state_dict(local["replay"])
            self._reward_scale.load_state_dict(local["reward_scale"])
            self._draws.bit_generator.state = local["draws"]
            if local["device"] == self._device.type:
                self._noise.set_state(local["noise"])
        self._reward_scale.largest[:] = shared["largest_returns"]


_GATE = "experts.by_task.weight"
_FACTS = (
    "consistency_loss", "reward_loss", "q_loss", "termination_loss", "value", "entropy", "policy_loss"
)  # fmt: skip

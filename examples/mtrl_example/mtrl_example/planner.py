"""The agent `example-planner`: a model of the environment learned from sequences, and actions by planning.

Two optimisers: one for the model (next state and reward, unrolled over a sequence), one for the value of a
state. It acts by random shooting: the best of many action sequences under model and value (Nagabandi et al.
2018, arXiv 1708.02596, section IV), warm-started from the plan before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.data import Replay, ReplayConfig
from mtrl.errors import OutOfRangeError
from mtrl.nn import arrays_of, tensors_of
from mtrl.panels import Panel
from mtrl.reducer import Reducer
from mtrl.rollout import Acting, Action, Extra, Fragment, Policy, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet, require_continuous_states
from mtrl.training import Metric, Metrics, Needs, State, Stream, Use

PLAN_VALUE = Extra("plan_value", replayed=True)
"""What the executed plan promised; stored in the replay beside the action."""


@dataclass(frozen=True)
class PlannerConfig:
    """The settings of the agent."""

    width: int = 64
    """Units of the hidden layers, at least 1."""
    sequence: int = 4
    """Steps of a sequence that the model is unrolled over, at least 1."""
    horizon: int = 5
    """Steps of a plan, at least 1."""
    candidates: int = 64
    """Plans that are compared at every decision, at least 1."""
    batch_size: int = 32
    """Sequences of each task per update, at least 1."""
    replay_ratio: float = 0.25
    """Updates per environment step, above 0."""
    learning_rate: float = 1e-3
    """Step size of both optimisers, above 0."""
    discount: float = 0.97
    """Discount per decision, in [0, 1)."""

    def __post_init__(self) -> None:
        for key in ("width", "sequence", "horizon", "candidates", "batch_size"):
            if getattr(self, key) < 1:
                raise OutOfRangeError(f"agent.{key}", getattr(self, key), "at least 1")
        for key in ("replay_ratio", "learning_rate"):
            if getattr(self, key) <= 0:
                raise OutOfRangeError(f"agent.{key}", getattr(self, key), "above 0")
        if not 0 <= self.discount < 1:
            raise OutOfRangeError("agent.discount", self.discount, "0 to below 1")


METRICS: Metrics = {
    "model_loss": Metric(
        "sum(weight x squared error of next state and reward) / sum(weight) over unrolled sequences",
        "1",
        "mtrl_example.planner:PlannerAgent.update",
    ),
    "value_loss": Metric(
        "sum(weight x (V(s) - r - gamma (1 - terminated) V(s'))^2) / sum(weight), V(s') held constant; mean "
        "over ranks",
        "reward^2",
        "mtrl_example.planner:PlannerAgent.update",
    ),
}


class WorldModel(nn.Module):
    """s' = s + f(s, a, k), r = g(s, a, k) and V(s, k) for task k."""

    def __init__(self, layout: Layout, config: PlannerConfig) -> None:
        super().__init__()
        seen, acted = layout.state_size + layout.task_count, layout.continuous_size
        self.step = _perceptron(seen + acted, config.width, layout.state_size + 1)
        self.value = _perceptron(seen, config.width, 1)
        self.tasks = layout.task_count

    def forward(
        self, state: torch.Tensor, action: torch.Tensor, task: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """State [..., D], action [..., A], one-hot task [..., K] -> next state [..., D], reward [...]."""
        out = self.step(torch.cat([state, task, action], dim=-1))
        return state + out[..., :-1], out[..., -1]

    def value_of(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """[...], the value of states."""
        found: torch.Tensor = self.value(torch.cat([state, task], dim=-1)).squeeze(-1)
        return found


class PlanningPolicy:
    """The first action of the best plan; without planning, of the best plan of one step."""

    extras = (PLAN_VALUE,)

    def __init__(self, model: WorldModel, config: PlannerConfig, layout: Layout, version: int) -> None:
        self.version = version
        self._model, self._config, self._layout = model, config, layout
        self._mask = torch.from_numpy(layout.continuous_mask.astype(np.float32))

    def initial_state(self, count: int) -> PolicyState:
        """The plan of each copy, from which the next search begins."""
        shape = (count, self._config.horizon, self._layout.continuous_size)
        return {"plan": np.zeros(shape, dtype=np.float32)}

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Candidates scatter about the plan before; exploring adds noise to what is executed."""
        config, count = self._config, len(task_index)
        before = np.where(ended[:, None, None], 0.0, state["plan"]).astype(np.float32)
        before = np.concatenate([before[:, 1:], np.zeros_like(before[:, :1])], axis=1)
        noise = np.stack([g.standard_normal((config.candidates, *before.shape[1:])) for g in generators])
        noise[:, 0] = 0.0
        task = torch.from_numpy(task_index)
        plans = torch.from_numpy(before[:, None] + 0.5 * noise.astype(np.float32)).clamp(-1.0, 1.0)
        plans = plans * self._mask[task][:, None, None]
        one_hot = nn.functional.one_hot(task, self._model.tasks).float()
        one_hot = one_hot[:, None].expand(-1, config.candidates, -1)
        seen = torch.from_numpy(np.asarray(observation["state"], dtype=np.float32))
        seen = seen[:, None].expand(-1, config.candidates, -1)
        total, factor = torch.zeros(count, config.candidates), 1.0
        for t in range(config.horizon if acting.plan else 1):
            seen, reward = self._model(seen, plans[:, :, t], one_hot)
            total, factor = total + factor * reward, factor * config.discount
        total = total + factor * self._model.value_of(seen, one_hot)
        best = total.argmax(1)
        chosen = plans[torch.arange(count), best].numpy()
        executed = chosen[:, 0]
        if acting.explore:
            width = executed.shape[1]
            jitter = np.stack([g.standard_normal(width, dtype=np.float32) for g in generators])
            executed = np.clip(executed + 0.2 * jitter, -1.0, 1.0) * self._mask[task].numpy()
        return Action(
            continuous=executed,
            discrete=np.zeros(count, dtype=np.int64),
            state={"plan": chosen},
            extras={"plan_value": total.max(1).values.numpy()},
        )


class PlannerAgent:
    """Learns model and value from replayed sequences of its own play."""

    def __init__(self, config: PlannerConfig, tasks: TaskSet, seed: int, rank: int, ranks: int) -> None:
        """Raises UnsupportedError for tasks with pixels or discrete actions."""
        require_continuous_states(tasks, "example-planner")
        self.updates = 0
        self._config, self._layout = config, tasks.layout
        self._batch = max(1, config.batch_size // ranks)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model = WorldModel(tasks.layout, config)
        self._optimizers = {
            part: torch.optim.Adam(getattr(self._model, part).parameters(), lr=config.learning_rate)
            for part in ("step", "value")
        }
        self._replay = Replay(tasks, ReplayConfig(capacity=20_000), extras=(PLAN_VALUE,))
        self._draws = np.random.default_rng([seed, rank])
        self._begun: float | None = None

    def ingest(self, data: Fragment) -> None:
        """Stores a fragment of this rank."""
        self._replay.add(data)

    def due(self, steps: int, reducer: Reducer) -> int:
        """Updates at the replay ratio since every task has a batch on every rank."""
        ready = steps > 0 and bool(self._replay.sizes.min() >= self._batch)
        if self._begun is None and reducer.agree(float(ready), "min"):
            self._begun = steps - self.updates / self._config.replay_ratio
        if self._begun is None:
            return 0
        return max(0, int(self._config.replay_ratio * (steps - self._begun)) - self.updates)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step of each optimiser, on gradients that are means over all ranks."""
        named = dict(self._model.named_parameters())
        like = {name: (value.shape, torch.float32) for name, value in named.items()}
        like |= dict.fromkeys(METRICS, ((), torch.float32))
        sums = reducer.sums(self._gradients, like)
        for name, value in named.items():
            value.grad = sums[name] / reducer.size
        for optimizer in self._optimizers.values():
            optimizer.step()
        self.updates += 1
        return {name: float(sums[name]) / reducer.size for name in METRICS}

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The model as data."""
        tensors = arrays_of(self._model.state_dict())
        return PolicySnapshot("example-planner", asdict(self._config), tensors, self.updates)

    def on_evaluation(self, step: int, result: object) -> None:
        """Learns nothing from evaluations."""

    def shared_state(self) -> State:
        """Weights, optimisers and when updates began."""
        return {
            "model": dict(self._model.state_dict()),
            "optimizers": {part: optimizer.state_dict() for part, optimizer in self._optimizers.items()},
            "updates": self.updates,
            "begun": self._begun,
        }

    def local_state(self) -> State:
        """The replay and the draws of this rank."""
        return {"replay": self._replay.state_dict(), "draws": self._draws.bit_generator.state}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; without `local` the replay fills again before updates continue."""
        self._model.load_state_dict(shared["model"])
        for part, optimizer in self._optimizers.items():
            optimizer.load_state_dict(shared["optimizers"][part])
        self.updates, self._begun = shared["updates"], None if local is None else shared["begun"]
        if local is not None:
            self._replay.load_state_dict(local["replay"])
            self._draws.bit_generator.state = local["draws"]

    def _gradients(self) -> dict[str, torch.Tensor]:
        """Of the two losses on a batch of this rank's sequences."""
        config = self._config
        batch = self._replay.sample_sequences(self._batch, config.sequence, self._draws)
        states = batch.buckets["state"].values.transpose(0, 1)  # [T + 1, K, B, D]
        fields = {name: values.transpose(0, 1) for name, values in batch.fields.items()}
        weight = batch.weight.transpose(0, 1)
        one_hot = nn.functional.one_hot(batch.task_index, self._model.tasks).float()
        one_hot = one_hot[:, None].expand(-1, states.shape[2], -1)
        real, error, state = weight.sum(), torch.zeros(()), states[0]
        for t in range(config.sequence):
            state, reward = self._model(state, fields["continuous"][t], one_hot)
            missed = (state - states[t + 1]).square().mean(-1) + (reward - fields["reward"][t]).square()
            error = error + (weight[t] * missed).sum()
        values = self._model.value_of(states, one_hot.expand(len(states), -1, -1, -1))
        bootstraps = 1.0 - fields["terminated"].float()
        target = fields["reward"] + config.discount * bootstraps * values[1:].detach()
        model_loss = error / real
        value_loss = (weight * (values[:-1] - target).square()).sum() / real
        names, parameters = zip(*self._model.named_parameters(), strict=True)
        found = torch.autograd.grad(model_loss + value_loss, parameters)
        losses = {"model_loss": model_loss.detach(), "value_loss": value_loss.detach()}
        return {**dict(zip(names, found, strict=True)), **losses}


class PlannerFactory:
    """What the entry point `example-planner` names."""

    name = "example-planner"
    config_class = PlannerConfig
    metrics = METRICS
    panels = (Panel("lines", "Model and values", "losses of both networks, by step", tuple(METRICS)),)

    def needs(self, config: PlannerConfig, tasks: TaskSet) -> Needs:
        """A stream, of which it replays sequences."""
        return Needs(online=Stream(sequence=config.sequence))

    def extras(self, config: PlannerConfig, layout: Layout) -> tuple[Extra, ...]:
        """The promise of a plan."""
        return (PLAN_VALUE,)

    def build(
        self,
        config: PlannerConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> PlannerAgent:
        """A new agent."""
        return PlannerAgent(config, tasks, seed, rank, ranks)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> PlanningPolicy:
        """The policy of a snapshot."""
        config = build(PlannerConfig, snapshot.config, "agent")
        model = WorldModel(tasks.layout, config)
        model.load_state_dict(tensors_of(snapshot.tensors))
        return PlanningPolicy(model.requires_grad_(False), config, tasks.layout, snapshot.version)


AGENT = PlannerFactory()


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, outputs)
    )

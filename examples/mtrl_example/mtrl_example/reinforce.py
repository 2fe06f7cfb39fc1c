"""The agent `example-reinforce`: group-relative REINFORCE from a cloned policy, one linear map per task.

Each round plays groups of episodes from equal starts; an episode's advantage is its return standardised
within its group (Shao et al. 2024, arXiv 2402.03300, section 4.1.2), and every decision of it counts alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.reducer import Reducer
from mtrl.rollout import (
    Acting,
    Action,
    EpisodeGroup,
    Extra,
    GroupRequest,
    Policy,
    PolicySnapshot,
    PolicyState,
)
from mtrl.spaces import Layout, Observation
from mtrl.tasks import Split, TaskSet, require_continuous_states, start_id
from mtrl.training import Groups, Metric, Metrics, Needs, State, Use

from .agent import LinearPolicy


@dataclass(frozen=True)
class ReinforceConfig:
    """The settings of the agent."""

    learning_rate: float = 0.05
    """Step size of Adam, above 0."""
    starts: int = 4
    """Starts of each task in a round, at least 1."""
    group: int = 8
    """Episodes from each start, at least 2."""
    deviation: float = 0.2
    """Standard deviation of the actions at the beginning, above 0; learned per task and dimension."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise OutOfRangeError("agent.learning_rate", self.learning_rate, "above 0")
        if self.starts < 1:
            raise OutOfRangeError("agent.starts", self.starts, "at least 1")
        if self.group < 2:
            raise OutOfRangeError("agent.group", self.group, "at least 2")
        if self.deviation <= 0:
            raise OutOfRangeError("agent.deviation", self.deviation, "above 0")


METRICS: Metrics = {
    "surrogate": Metric(
        "mean over decisions of advantage x log pi(a|s)", "1", "mtrl_example.reinforce:ReinforceAgent.update"
    ),
    "deviation": Metric(
        "mean standard deviation of the actions", "1", "mtrl_example.reinforce:ReinforceAgent.update"
    ),
}


class GaussianPolicy:
    """a ~ N(W_k s + b_k, diag(exp(2 l_k))) when exploring, else the mean; clipped to [-1, 1]."""

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]], version: int) -> None:
        """`weight` [K, A_max, D_max], `bias` [K, A_max], `log_deviation` [K, A_max]."""
        self.version = version
        names = ("weight", "bias", "log_deviation")
        self._weight, self._bias, self._log_deviation = (np.asarray(tensors[n], np.float32) for n in names)
        self.extras = (Extra("drawn", (self._bias.shape[1],)),)
        """The action as it was drawn, before it is clipped: what its density belongs to."""

    def initial_state(self, count: int) -> PolicyState:
        """No state."""
        return {}

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
        """Draws from each copy's own generator."""
        states = np.asarray(observation["state"], dtype=np.float32)
        drawn = (self._weight[task_index] @ states[:, :, None])[:, :, 0] + self._bias[task_index]
        if acting.explore:
            noise = np.stack([g.standard_normal(drawn.shape[1], dtype=np.float32) for g in generators])
            drawn = drawn + np.exp(self._log_deviation[task_index]) * noise
        return Action(
            continuous=np.clip(drawn, -1.0, 1.0),
            discrete=np.zeros(len(task_index), dtype=np.int64),
            state=state,
            extras={"drawn": drawn},
        )


class ReinforceAgent:
    """Requests a round of groups, and makes one update of it."""

    def __init__(self, config: ReinforceConfig, tasks: TaskSet, seed: int, parent: Policy | None) -> None:
        """Raises UnsupportedError for pixels or discrete actions, ConfigError for another kind of parent."""
        require_continuous_states(tasks, "example-reinforce")
        self.updates = 0
        self._config, self._layout, self._tasks, self._seed = config, tasks.layout, tasks, seed
        layout = tasks.layout
        weight = np.zeros((layout.task_count, layout.continuous_size, layout.state_size), np.float32)
        bias = np.zeros(weight.shape[:2], np.float32)
        if parent is not None:
            if not isinstance(parent, LinearPolicy):
                raise ConfigError(
                    f"init_from holds a {type(parent).__name__}; this agent begins from one trained by "
                    "agent=example"
                )
            weight, bias = parent.weight.copy(), parent.bias.copy()
        self._weights = {
            "weight": torch.from_numpy(weight).requires_grad_(),
            "bias": torch.from_numpy(bias).requires_grad_(),
            "log_deviation": torch.full(bias.shape, math.log(config.deviation)).requires_grad_(),
        }
        self._optimizer = torch.optim.Adam(list(self._weights.values()), lr=config.learning_rate)
        self._groups: list[EpisodeGroup] = []

    def request(self, reducer: Reducer) -> Sequence[GroupRequest]:
        """Every task on the next training starts, the same for all tasks."""
        first = self.updates * self._config.starts
        return [
            GroupRequest(
                task_index=k,
                start=start_id(Split.TRAIN, first + place),
                size=self._config.group,
                acting=Acting(explore=True),
                # another seed each round, or a start that comes again would be played alike
                seed=self._seed + self.updates,
            )
            for place in range(self._config.starts)
            for k in range(len(self._tasks))
        ]

    def ingest(self, data: EpisodeGroup) -> None:
        """Takes a group of this rank's slice of the round."""
        self._groups.append(data)

    def due(self, steps: int, reducer: Reducer) -> int:
        """One update of a round that is there."""
        return int(reducer.agree(float(len(self._groups)), "sum") > 0)

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step along the mean over all decisions of the round."""
        like = {name: (value.shape, torch.float32) for name, value in self._weights.items()}
        like |= {"count": ((), torch.float32), "surrogate": ((), torch.float32)}
        sums = reducer.sums(self._gradients, like)
        count = sums["count"].clamp_min(1.0)
        for name, value in self._weights.items():
            value.grad = -sums[name] / count
        self._optimizer.step()
        self._groups.clear()
        self.updates += 1
        deviation = float(self._weights["log_deviation"].detach().exp().mean())
        return {"surrogate": float(sums["surrogate"] / count), "deviation": deviation}

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The policy as data."""
        tensors = {name: value.detach().numpy().copy() for name, value in self._weights.items()}
        return PolicySnapshot("example-reinforce", asdict(self._config), tensors, self.updates)

    def on_evaluation(self, step: int, result: object) -> None:
        """Learns nothing from evaluations."""

    def shared_state(self) -> State:
        """Weights and optimiser."""
        weights = {name: value.detach() for name, value in self._weights.items()}
        return {"weights": weights, "optimizer": self._optimizer.state_dict(), "updates": self.updates}

    def local_state(self) -> State:
        """Nothing: a round is whole."""
        return {}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores the shared half."""
        with torch.no_grad():
            for name, value in self._weights.items():
                value.copy_(shared["weights"][name])
        self._optimizer.load_state_dict(shared["optimizer"])
        self.updates = shared["updates"]

    def _gradients(self) -> dict[str, torch.Tensor]:
        """Of the sum over this rank's decisions of advantage x log pi."""
        total, count = torch.zeros(()), 0
        for group in self._groups:
            returns = torch.from_numpy(group.returns)
            advantage = (returns - returns.mean()) / (returns.std() + 1e-6)
            lengths = torch.from_numpy(np.diff(group.offsets))
            log_probability = self._log_probability(group)
            total = total + (advantage.repeat_interleave(lengths).float() * log_probability).sum()
            count += len(log_probability)
        found = {name: torch.zeros_like(value) for name, value in self._weights.items()}
        if count:
            gradients = torch.autograd.grad(total, list(self._weights.values()))
            found = dict(zip(self._weights, gradients, strict=True))
        return {**found, "count": torch.tensor(float(count)), "surrogate": total.detach()}

    def _log_probability(self, group: EpisodeGroup) -> torch.Tensor:
        """[sum T_e], of the drawn actions, in the dimensions that the task has."""
        k = group.task_index
        native = group.observations["state"]
        decided = np.delete(np.arange(len(native)), group.offsets[1:] + np.arange(len(group)))
        states = torch.from_numpy(np.asarray(native[decided], dtype=np.float32))
        width, size = self._layout.actions[k].continuous, states.shape[1]
        mean = states @ self._weights["weight"][k, :width, :size].T + self._weights["bias"][k, :width]
        log_deviation = self._weights["log_deviation"][k, :width]
        drawn = torch.from_numpy(group.extras["drawn"][:, :width])
        standard = (drawn - mean) / log_deviation.exp()
        return (-0.5 * standard**2 - log_deviation - 0.5 * math.log(2 * math.pi)).sum(1)


class ReinforceFactory:
    """What the entry point `example-reinforce` names."""

    name = "example-reinforce"
    config_class = ReinforceConfig
    metrics = METRICS

    def needs(self, config: ReinforceConfig, tasks: TaskSet) -> Needs:
        """Groups from equal starts; it may begin from a cloned policy."""
        return Needs(online=Groups(size=config.group), parents=("init_from",))

    def extras(self, config: ReinforceConfig, layout: Layout) -> tuple[Extra, ...]:
        """The drawn action."""
        return (Extra("drawn", (layout.continuous_size,)),)

    def build(
        self,
        config: ReinforceConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> ReinforceAgent:
        """A new agent."""
        return ReinforceAgent(config, tasks, seed, (parents or {}).get("init_from"))

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> GaussianPolicy:
        """The policy of a snapshot."""
        return GaussianPolicy(snapshot.tensors, snapshot.version)


AGENT = ReinforceFactory()

"""The agent `example`: behaviour cloning by one linear map per task, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.data import Trajectories
from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.nn import require_continuous_states
from mtrl.rollout import Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.tasks import TaskSet
from mtrl.training import DataNeeds, Metric, Metrics, TaskGradients


@dataclass(frozen=True)
class LinearConfig:
    """The settings of the agent."""

    learning_rate: float = 0.05
    """Step size of Adam, above 0."""
    batch_size: int = 64
    """Decisions per task and update, at least 1."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise OutOfRangeError("agent.learning_rate", self.learning_rate, "above 0")
        if self.batch_size < 1:
            raise OutOfRangeError("agent.batch_size", self.batch_size, "at least 1")


METRICS: Metrics = {
    "loss": Metric(
        "mean over tasks, decisions and action dimensions of (W_k s + b_k - a)^2",
        "1",
        "mtrl_example.agent:LinearAgent.apply",
    ),
}


class LinearPolicy:
    """a = clip(W_k s + b_k) for task k; remembers nothing."""

    extras: tuple[Extra, ...] = ()

    def __init__(self, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], version: int) -> None:
        """`weight` [K, A_max, D_max], `bias` [K, A_max]; rows and columns that a task lacks are zero."""
        self.version = version
        self._weight, self._bias = weight, bias

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
        """The same action whether it explores or not."""
        states = np.asarray(observation["state"], dtype=np.float32)
        raw = (self._weight[task_index] @ states[:, :, None])[:, :, 0]
        return Action(
            continuous=np.clip(raw + self._bias[task_index], -1.0, 1.0).astype(np.float32),
            discrete=np.zeros(len(task_index), dtype=np.int64),
            state=state,
        )


class LinearAgent:
    """Learns W_k and b_k from demonstrations."""

    def __init__(self, config: LinearConfig, layout: Layout, tasks: TaskSet, seed: int) -> None:
        """Raises UnsupportedError for tasks with pixels or discrete actions."""
        require_continuous_states(tasks, "the linear agent")
        self.needs = DataNeeds(kind="dataset")
        self.updates = 0
        self._config, self._layout = config, layout
        shape = (layout.task_count, layout.continuous_size, layout.state_size)
        self._weight = torch.zeros(shape, requires_grad=True)
        self._bias = torch.zeros(shape[:2], requires_grad=True)
        self._optimizer = torch.optim.Adam([self._weight, self._bias], lr=config.learning_rate)
        self._draws = np.random.default_rng(seed)
        self._data: list[tuple[torch.Tensor, torch.Tensor]] = []

    def policy(self) -> LinearPolicy:
        """The present map."""
        return policy_of(self.snapshot())

    def snapshot(self) -> PolicySnapshot:
        """The present map as data."""
        tensors = {
            "weight": self._weight.detach().numpy().copy(),
            "bias": self._bias.detach().numpy().copy(),
        }
        return PolicySnapshot("example", asdict(self._config), tensors, self.updates)

    def ingest(self, data: object) -> None:
        """Takes demonstrations: task index -> Trajectories."""
        if not isinstance(data, Mapping) or not all(isinstance(part, Trajectories) for part in data.values()):
            raise ConfigError("the linear agent learns from a mapping of task index to Trajectories")
        for k in range(self._layout.task_count):
            states = np.zeros((data[k].step_count, self._layout.state_size), dtype=np.float32)
            native = data[k].observations["state"]
            # The observation after an episode's last decision has no action.
            seen = np.delete(np.arange(len(native)), data[k].offsets[1:] + np.arange(data[k].episode_count))
            states[:, : native.shape[1]] = native[seen]
            labels = self._layout.pad_continuous(data[k].labels)
            self._data.append((torch.as_tensor(states), torch.as_tensor(labels)))

    def compute_gradients(self) -> TaskGradients:
        """One row: the gradient of the sum of the tasks' losses."""
        losses = []
        for k, (states, labels) in enumerate(self._data):
            rows = torch.as_tensor(self._draws.integers(len(states), size=self._config.batch_size))
            error = states[rows] @ self._weight[k].T + self._bias[k] - labels[rows]
            losses.append((error**2).mean())
        total = torch.stack(losses)
        self._optimizer.zero_grad()
        total.sum().backward()
        assert self._weight.grad is not None and self._bias.grad is not None
        sums = {"weight": self._weight.grad[None], "bias": self._bias.grad[None]}
        return TaskGradients(sums, torch.tensor([float(len(losses))]), total.detach())

    def apply(self, gradients: TaskGradients) -> Mapping[str, float]:
        """One step of Adam."""
        self._weight.grad = gradients.sums["weight"][0] / gradients.counts[0]
        self._bias.grad = gradients.sums["bias"][0] / gradients.counts[0]
        self._optimizer.step()
        self.updates += 1
        return {"loss": float(gradients.losses.mean())}

    def update(self) -> Mapping[str, float]:
        """One batch, one step."""
        return self.apply(self.compute_gradients())

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        return {
            "weight": self._weight.detach(),
            "bias": self._bias.detach(),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
            "draws": self._draws.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        with torch.no_grad():
            self._weight.copy_(state["weight"])
            self._bias.copy_(state["bias"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
        self._draws.bit_generator.state = state["draws"]


def policy_of(snapshot: PolicySnapshot) -> LinearPolicy:
    """The policy that a snapshot describes."""
    weight, bias = (np.asarray(snapshot.tensors[name], dtype=np.float32) for name in ("weight", "bias"))
    return LinearPolicy(weight, bias, snapshot.version)


class LinearFactory:
    """What the entry point `example` names."""

    name = "example"
    config_class = LinearConfig
    metrics = METRICS

    def build(self, config: LinearConfig, layout: Layout, tasks: TaskSet, seed: int) -> LinearAgent:
        """A fresh agent."""
        return LinearAgent(config, layout, tasks, seed)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LinearPolicy:
        """The policy of a snapshot."""
        return policy_of(snapshot)


AGENT = LinearFactory()

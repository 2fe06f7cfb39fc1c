"""The agent `example`: behaviour cloning by one linear map per task, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import OutOfRangeError
from mtrl.reducer import Reducer
from mtrl.rollout import Acting, Action, Extra, Policy, PolicySnapshot, PolicyState
from mtrl.spaces import Layout, Observation
from mtrl.tasks import TaskSet, require_continuous_states
from mtrl.training import Datasets, Metric, Metrics, Needs, Offline, State, Use


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
        "mtrl_example.agent:LinearAgent.update",
    ),
}


class LinearPolicy:
    """a = clip(W_k s + b_k) for task k; remembers nothing."""

    extras = ()

    def __init__(self, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32], version: int) -> None:
        """`weight` [K, A_max, D_max], `bias` [K, A_max]; rows and columns that a task lacks are zero."""
        self.version = version
        self.weight, self.bias = weight, bias

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
        raw = (self.weight[task_index] @ states[:, :, None])[:, :, 0]
        return Action(
            continuous=np.clip(raw + self.bias[task_index], -1.0, 1.0).astype(np.float32),
            discrete=np.zeros(len(task_index), dtype=np.int64),
            state=state,
        )


class LinearAgent:
    """Learns W_k and b_k from demonstrations."""

    def __init__(self, config: LinearConfig, tasks: TaskSet, seed: int, rank: int) -> None:
        """Raises UnsupportedError for tasks with pixels or discrete actions."""
        require_continuous_states(tasks, "the linear agent")
        layout = tasks.layout
        self.updates = 0
        self._config, self._layout = config, layout
        shape = (layout.task_count, layout.continuous_size, layout.state_size)
        self._weight = torch.zeros(shape, requires_grad=True)
        self._bias = torch.zeros(shape[:2], requires_grad=True)
        self._optimizer = torch.optim.Adam([self._weight, self._bias], lr=config.learning_rate)
        self._draws = np.random.default_rng([seed, rank])
        self._data: list[tuple[torch.Tensor, torch.Tensor]] = []

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The present map as data."""
        tensors = {
            "weight": self._weight.detach().numpy().copy(),
            "bias": self._bias.detach().numpy().copy(),
        }
        return PolicySnapshot("example", asdict(self._config), tensors, self.updates)

    def ingest(self, data: Datasets) -> None:
        """Takes this rank's share of the demonstrations."""
        for k in range(self._layout.task_count):
            part = data.trajectories[k]
            states = np.zeros((part.step_count, self._layout.state_size), dtype=np.float32)
            native = part.observations["state"]
            seen = part.windows(history=1, chunk=1).observation_rows[:, 0]
            states[:, : native.shape[1]] = native[seen]
            labels = self._layout.pad_continuous(part.labels)
            self._data.append((torch.as_tensor(states), torch.as_tensor(labels)))

    def due(self, steps: int, reducer: Reducer) -> int:
        """Every update that was granted, once the demonstrations are there."""
        return max(0, steps - self.updates) if self._data else 0

    def update(self, reducer: Reducer) -> Mapping[str, float]:
        """One step of Adam on the mean loss of all ranks."""
        like = {
            "weight": (self._weight.shape, torch.float32),
            "bias": (self._bias.shape, torch.float32),
            "loss": ((), torch.float32),
        }
        sums = reducer.sums(self._gradients, like)
        share = 1.0 / (len(self._data) * reducer.size)
        self._weight.grad, self._bias.grad = sums["weight"] * share, sums["bias"] * share
        self._optimizer.step()
        self.updates += 1
        return {"loss": float(sums["loss"]) * share}

    def on_evaluation(self, step: int, result: object) -> None:
        """Learns nothing from evaluations."""

    def shared_state(self) -> State:
        """Weights and optimiser: equal on all ranks, saved once."""
        return {
            "weight": self._weight.detach(),
            "bias": self._bias.detach(),
            "optimizer": self._optimizer.state_dict(),
            "updates": self.updates,
        }

    def local_state(self) -> State:
        """The draws of this rank; the demonstrations are stored beside the run."""
        return {"draws": self._draws.bit_generator.state}

    def restore(self, shared: State, local: State | None) -> None:
        """Restores both; with another number of ranks the draws start again."""
        with torch.no_grad():
            self._weight.copy_(shared["weight"])
            self._bias.copy_(shared["bias"])
        self._optimizer.load_state_dict(shared["optimizer"])
        self.updates = shared["updates"]
        if local is not None:
            self._draws.bit_generator.state = local["draws"]

    def _gradients(self) -> dict[str, torch.Tensor]:
        """Of the sum of the tasks' losses on a batch of this rank."""
        losses = []
        for k, (states, labels) in enumerate(self._data):
            rows = torch.as_tensor(self._draws.integers(len(states), size=self._config.batch_size))
            error = states[rows] @ self._weight[k].T + self._bias[k] - labels[rows]
            losses.append((error**2).mean())
        total = torch.stack(losses).sum()
        weight, bias = torch.autograd.grad(total, [self._weight, self._bias])
        return {"weight": weight, "bias": bias, "loss": total.detach()}


def policy_of(snapshot: PolicySnapshot) -> LinearPolicy:
    """The policy that a snapshot describes."""
    weight, bias = (np.asarray(snapshot.tensors[name], dtype=np.float32) for name in ("weight", "bias"))
    return LinearPolicy(weight, bias, snapshot.version)


class LinearFactory:
    """What the entry point `example` names."""

    name = "example"
    config_class = LinearConfig
    metrics = METRICS

    def needs(self, config: LinearConfig, tasks: TaskSet) -> Needs:
        """Demonstrations, and nothing online."""
        return Needs(offline=Offline())

    def extras(self, config: LinearConfig, layout: Layout) -> tuple[Extra, ...]:
        """Nothing beside the action."""
        return ()

    def build(
        self,
        config: LinearConfig,
        tasks: TaskSet,
        seed: int,
        *,
        rank: int = 0,
        ranks: int = 1,
        parents: Mapping[str, Policy] | None = None,
    ) -> LinearAgent:
        """A fresh agent."""
        return LinearAgent(config, tasks, seed, rank)

    def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> LinearPolicy:
        """The policy of a snapshot."""
        return policy_of(snapshot)


AGENT = LinearFactory()

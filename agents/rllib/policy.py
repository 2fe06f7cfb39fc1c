"""Acting with a network of RLlib, and the same network as one forward pass for export."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtrl.errors import UnsupportedError
from mtrl.rollout import LOG_PROBABILITY, Acting, Action, Extra, PolicySnapshot, PolicyState, SharedSpace
from mtrl.spaces import Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .config import RLlibConfig
from .network import ActingNetwork


class RLlibPolicy:
    """A network of RLlib behind the policy contract; RLlib itself is not needed.

    Without exploring it takes the most likely index, or the mean, for SAC through the tanh (RLlib's own
    inference forgets the tanh, so that its actions are larger than any it learned from). Exploring draws from
    the distribution with the copies' own generators. An action's log-probability is that of the drawn action
    before it is clipped; none where nothing is drawn.
    """

    extras: tuple[Extra, ...] = (LOG_PROBABILITY,)

    def __init__(self, config: RLlibConfig, space: SharedSpace, network: ActingNetwork, version: int) -> None:
        """Shares the network's weights."""
        self.version = version
        self._squash = config.algorithm == "sac"
        self._space, self._network = space, network
        self._mask = torch.from_numpy(space.layout.continuous_mask)

    def initial_state(self, count: int) -> PolicyState:
        """No state."""
        return {}

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
        """Decides for N copies in one forward pass."""
        rows = self._space.observe(observation, task_index)
        assert isinstance(rows, np.ndarray)
        outputs = self._network(torch.from_numpy(rows))
        extras: dict[str, npt.NDArray[Any]] = {}
        chosen: npt.NDArray[Any]
        if self._space.discrete:
            if acting.explore:
                chosen, extras[LOG_PROBABILITY.name] = self._draw_index(outputs, task_index, generators)
            else:
                chosen = outputs.argmax(dim=1).numpy()
        elif acting.explore:
            chosen, extras[LOG_PROBABILITY.name] = self._draw_vector(outputs, task_index, generators)
        else:
            mean = outputs.chunk(2, dim=1)[0]
            chosen = (torch.tanh(mean) if self._squash else mean).numpy()
        continuous, discrete = self._space.decide(chosen, task_index)
        return Action(continuous, discrete, state, extras)

    def _draw_index(
        self,
        logits: torch.Tensor,
        task_index: npt.NDArray[np.int64],
        generators: Sequence[np.random.Generator],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Legal indices [N] by inverting the cumulative distributions, and their log-probability [N]."""
        shares = torch.softmax(logits.double(), dim=1).numpy()
        chosen = np.zeros(len(shares), dtype=np.int64)
        log_probability = np.zeros(len(shares), dtype=np.float32)
        for copy, generator in enumerate(generators):
            legal = self._space.layout.actions[task_index[copy]].discrete
            # an index beyond the task's own stands for one of them, so their probabilities add up
            folded = np.bincount(np.arange(shares.shape[1]) % legal, weights=shares[copy])
            cumulative = folded.cumsum()
            chosen[copy] = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
            log_probability[copy] = math.log(folded[chosen[copy]] / cumulative[-1])
        return chosen, log_probability

    def _draw_vector(
        self,
        outputs: torch.Tensor,
        task_index: npt.NDArray[np.int64],
        generators: Sequence[np.random.Generator],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Actions [N, A_max], and the log density [N] of the dimensions that the task has."""
        mean, log_deviation = outputs.chunk(2, dim=1)
        drawn = [generator.standard_normal(mean.shape[1], dtype=np.float32) for generator in generators]
        noise = torch.from_numpy(np.stack(drawn))
        raw = mean + log_deviation.exp() * noise
        density = -0.5 * noise**2 - log_deviation - 0.5 * math.log(2.0 * math.pi)
        if self._squash:
            # log(1 - tanh(x)^2) without cancellation
            density = density - 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw))
        own = torch.where(self._mask[task_index], density, 0.0)
        return (torch.tanh(raw) if self._squash else raw).numpy(), own.sum(dim=1).numpy()


def snapshot_of(network: ActingNetwork, plain: Mapping[str, Any], version: int) -> PolicySnapshot:
    """The acting weights as named arrays; `plain` is the config as JSON says it."""
    tensors = {name: value.detach().cpu().numpy().copy() for name, value in network.named_weights().items()}
    return PolicySnapshot("rllib", plain, tensors, version)


def network_from(snapshot: PolicySnapshot, tasks: TaskSet) -> tuple[RLlibConfig, SharedSpace, ActingNetwork]:
    """Settings, space and network of a snapshot.

    Raises IntegrityError for weights that are not those of a network for these tasks.
    """
    config = build(RLlibConfig, snapshot.config, "agent")
    space = SharedSpace(tasks)
    with torch.random.fork_rng(devices=[]):
        network = ActingNetwork(config, space)
    network.load_weights(snapshot.tensors)
    return config, space, network.requires_grad_(False).eval()


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibPolicy:
    """The policy of a snapshot."""
    config, space, network = network_from(snapshot, tasks)
    return RLlibPolicy(config, space, network, snapshot.version)


class RLlibController(torch.nn.Module):
    """The deterministic policy as one forward pass of tensors."""

    def __init__(self, config: RLlibConfig, space: SharedSpace, network: ActingNetwork) -> None:
        """Shares the network's weights."""
        super().__init__()
        self.network = network
        self._squash = config.algorithm == "sac"
        layout = space.layout
        self.one_hot: torch.Tensor
        self.mask: torch.Tensor
        self.register_buffer("one_hot", torch.eye(layout.task_count)[:, : space.task_columns])
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """State [N, D_max] and task [N] -> action [N, A_max] in [-1, 1], zero where masked."""
        mean = self.network(torch.cat([state, self.one_hot[task]], dim=1)).chunk(2, dim=1)[0]
        action: torch.Tensor = torch.tanh(mean) if self._squash else mean.clamp(-1.0, 1.0)
        return action * self.mask[task]


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> RLlibController:
    """A snapshot as a controller; raises UnsupportedError for discrete tasks."""
    if tasks.layout.discrete_tasks.any():
        name = next(task.name for task in tasks if task.action.is_discrete)
        raise UnsupportedError(
            f"a controller maps a state to a continuous action; {name} acts by index. "
            "Distil the policy into a student instead"
        )
    return RLlibController(*network_from(snapshot, tasks))

"""Acting with a network of Stable-Baselines3, and the same network as one forward pass for export."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import BasePolicy

from mtrl.errors import IntegrityError, UnsupportedError
from mtrl.rollout import (
    LOG_PROBABILITY,
    Acting,
    Action,
    Extra,
    PolicySnapshot,
    PolicyState,
    SharedObservation,
    SharedSpace,
)
from mtrl.spaces import Observation
from mtrl.structured import build
from mtrl.tasks import TaskSet

from .algorithms import acting_tensors, network_of
from .config import SB3Config


class SB3Policy:
    """The library's network behind the policy contract.

    Without exploring it acts exactly as `model.predict(observation, deterministic=True)`. Exploring draws
    from the distribution of SAC and PPO, or takes DQN's random action with probability
    `exploration_final_eps`, all from the copies' own generators. An action's log-probability is that of the
    drawn action before it is clipped; none where nothing is drawn.
    """

    extras: tuple[Extra, ...] = (LOG_PROBABILITY,)

    def __init__(self, config: SB3Config, space: SharedSpace, network: BasePolicy, version: int) -> None:
        """Shares the network's weights."""
        self.version = version
        self._config, self._space = config, space
        self._network: Any = network
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
        extras: dict[str, npt.NDArray[Any]] = {}
        training = self._network.training
        self._network.set_training_mode(False)
        if not acting.explore:
            chosen, _ = self._network.predict(rows, deterministic=True)
        elif self._space.discrete:
            chosen, extras[LOG_PROBABILITY.name] = self._draw_index(rows, task_index, generators)
        else:
            chosen, extras[LOG_PROBABILITY.name] = self._draw_vector(rows, task_index, generators)
        self._network.set_training_mode(training)
        continuous, discrete = self._space.decide(chosen, task_index)
        return Action(continuous, discrete, state, extras)

    def _draw_index(
        self,
        rows: SharedObservation,
        task_index: npt.NDArray[np.int64],
        generators: Sequence[np.random.Generator],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Legal indices [N] by inverting the cumulative distributions, and their log-probability [N]."""
        seen, _ = self._network.obs_to_tensor(rows)
        if self._config.algorithm == "dqn":
            values = self._network.q_net(seen)
            count, epsilon = values.shape[1], self._config.dqn.exploration_final_eps
            greedy = torch.nn.functional.one_hot(values.argmax(dim=1), count)
            shares = (epsilon / count + (1.0 - epsilon) * greedy).double().cpu().numpy()
        else:
            distribution: Any = self._network.get_distribution(seen).distribution
            shares = distribution.probs.double().cpu().numpy()
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
        rows: SharedObservation,
        task_index: npt.NDArray[np.int64],
        generators: Sequence[np.random.Generator],
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Actions [N, A_max], and the log density [N] of the dimensions that the task has."""
        seen, _ = self._network.obs_to_tensor(rows)
        squashed = self._config.algorithm == "sac"
        if squashed:
            mean, log_deviation, _ = self._network.actor.get_action_dist_params(seen)
        else:
            normal: Any = self._network.get_distribution(seen).distribution
            mean, log_deviation = normal.mean, normal.stddev.log()
        mean, log_deviation = mean.cpu(), log_deviation.cpu()
        noise = torch.from_numpy(
            np.stack([g.standard_normal(mean.shape[1], dtype=np.float32) for g in generators])
        )
        raw = mean + log_deviation.exp() * noise
        density = -0.5 * noise**2 - log_deviation - 0.5 * math.log(2.0 * math.pi)
        if squashed:
            # log(1 - tanh(x)^2) without cancellation
            density = density - 2.0 * (math.log(2.0) - raw - torch.nn.functional.softplus(-2.0 * raw))
            raw = torch.tanh(raw)
        log_probability = (density * self._mask[torch.from_numpy(task_index)]).sum(dim=1)
        return raw.numpy(), log_probability.numpy()


def snapshot_of(
    config: SB3Config, network: BasePolicy, version: int, plain: Mapping[str, Any]
) -> PolicySnapshot:
    """The acting weights as named arrays; `plain` is the config as JSON says it."""
    tensors = {
        name: value.detach().cpu().numpy().copy() for name, value in acting_tensors(config, network).items()
    }
    return PolicySnapshot("sb3", plain, tensors, version)


def network_from(snapshot: PolicySnapshot, tasks: TaskSet) -> tuple[SB3Config, SharedSpace, BasePolicy]:
    """Settings, space and network of a snapshot.

    Raises IntegrityError for weights that are not those of a network for these tasks.
    """
    config = build(SB3Config, snapshot.config, "agent")
    space = SharedSpace(tasks)
    network = network_of(config, space)
    expected = {name: tuple(value.shape) for name, value in acting_tensors(config, network).items()}
    found = {name: value.shape for name, value in snapshot.tensors.items()}
    if expected != found:
        differing = sorted(set(expected.items()) ^ set(found.items()))
        raise IntegrityError(
            f"the weights are not those of {config.algorithm} for these {len(tasks)} tasks; they differ at "
            f"{differing[0][0]} and {len(differing) - 1} more. Use the tasks that the policy was trained on"
        )
    weights = {name: torch.as_tensor(np.array(value)) for name, value in snapshot.tensors.items()}
    network.load_state_dict(weights, strict=False)
    return config, space, network


def policy_from(snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Policy:
    """The policy of a snapshot."""
    config, space, network = network_from(snapshot, tasks)
    return SB3Policy(config, space, network, snapshot.version)


class SB3Controller(torch.nn.Module):
    """The deterministic policy of SAC or PPO as one forward pass of tensors."""

    def __init__(self, config: SB3Config, space: SharedSpace, network: BasePolicy) -> None:
        """Shares the network's weights."""
        super().__init__()
        source: Any = network
        self._squash = config.algorithm == "sac"
        if self._squash:
            self.extractor = source.actor.features_extractor
            self.torso, self.head = source.actor.latent_pi, source.actor.mu
        else:
            self.extractor = source.pi_features_extractor
            self.torso, self.head = source.mlp_extractor.policy_net, source.action_net
        layout = space.layout
        self.one_hot: torch.Tensor
        self.mask: torch.Tensor
        self.register_buffer("one_hot", torch.eye(layout.task_count)[:, : space.task_columns])
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """State [N, D_max] and task [N] -> action [N, A_max] in [-1, 1], zero where masked."""
        seen = torch.cat([state, self.one_hot[task]], dim=1)
        raw = self.head(self.torso(self.extractor(seen)))
        action: torch.Tensor = torch.tanh(raw) if self._squash else raw.clamp(-1.0, 1.0)
        return action * self.mask[task]


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> SB3Controller:
    """A snapshot as a controller; raises UnsupportedError for discrete tasks and for pixels."""
    space = SharedSpace(tasks)
    if space.discrete or not space.flat:
        what = "acts by index" if space.discrete else "sees pixels"
        name = next(
            task.name for task in tasks if task.action.is_discrete or task.observation.pixels is not None
        )
        raise UnsupportedError(
            f"a controller maps a state to a continuous action; {name} {what}. "
            "Distil the policy into a student instead"
        )
    return SB3Controller(*network_from(snapshot, tasks))

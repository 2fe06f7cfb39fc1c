"""Acting with a network of Stable-Baselines3, and the same network as one forward pass for export."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from torch import nn

from mtrl.nn import Gaussian, TanhGaussian
from mtrl.rollout import PolicySnapshot, SharedObservation, SharedSpace
from mtrl.structured import build
from mtrl.tasks import TaskSet

from ..libraries import LibraryController, LibraryPolicy, require_weights
from .algorithms import acting_tensors, network_of
from .config import SB3Config


class SB3Policy(LibraryPolicy):
    """Without exploring it acts exactly as `model.predict(observation, deterministic=True)`.

    Exploring draws from the distribution of SAC and PPO, or takes DQN's random action with probability
    `exploration_final_eps`.
    """

    def __init__(self, config: SB3Config, space: SharedSpace, network: BasePolicy, version: int) -> None:
        """Shares the network's weights."""
        super().__init__(space, version)
        self._config = config
        self._network: Any = network

    def deterministic(self, rows: SharedObservation) -> npt.NDArray[Any]:
        """The action that the library's `predict` returns without exploration."""
        action: npt.NDArray[Any] = self._network.predict(rows, deterministic=True)[0]
        return action

    def probabilities(self, rows: SharedObservation) -> npt.NDArray[np.float64]:
        """Of PPO, or epsilon-greedy of DQN."""
        tensors = self._tensors(rows)
        if self._config.algorithm == "dqn":
            values = self._network.q_net(tensors)
            count, epsilon = values.shape[1], self._config.dqn.exploration_final_eps
            greedy = torch.nn.functional.one_hot(values.argmax(dim=1), count)
            shares = epsilon / count + (1.0 - epsilon) * greedy
        else:
            shares = self._network.get_distribution(tensors).distribution.probs
        result: npt.NDArray[np.float64] = shares.double().cpu().numpy()
        return result

    def gaussian(self, rows: SharedObservation, mask: torch.Tensor) -> Gaussian:
        """The policy's normal distribution, passed through tanh for SAC."""
        tensors = self._tensors(rows)
        if self._config.algorithm == "sac":
            mean, log_std, _ = self._network.actor.get_action_dist_params(tensors)
            return TanhGaussian(mean.cpu(), log_std.cpu(), mask)
        normal = self._network.get_distribution(tensors).distribution
        return Gaussian(normal.mean.cpu(), normal.stddev.log().cpu(), mask)

    def _tensors(self, rows: SharedObservation) -> Any:  # noqa: ANN401 - a tensor, or a dict of them
        self._network.set_training_mode(False)
        return self._network.obs_to_tensor(rows)[0]


def network_from(snapshot: PolicySnapshot, tasks: TaskSet) -> tuple[SB3Config, SharedSpace, BasePolicy]:
    """Settings, space and network of a snapshot; raises IntegrityError for weights of other tasks."""
    config = build(SB3Config, snapshot.config, "agent")
    space = SharedSpace(tasks)
    network = network_of(config, space)
    weights = require_weights(acting_tensors(config, network), snapshot.tensors, config.algorithm)
    network.load_state_dict(weights, strict=False)
    return config, space, network


class _Preprocessed(nn.Module):
    """Rows of the observation space as the library's networks take them: images from 0 to 1."""

    def __init__(self, network: BasePolicy, space: SharedSpace) -> None:
        super().__init__()
        self._space, self._scale = space.observation_space, network.normalize_images

    def forward(self, rows: Any) -> Any:  # noqa: ANN401 - a tensor, or a dict of them
        return preprocess_obs(rows, self._space, normalize_images=self._scale)


def controller_from(snapshot: PolicySnapshot, tasks: TaskSet) -> LibraryController:
    """The policy of a snapshot as a controller."""
    source: Any
    config, space, source = network_from(snapshot, tasks)
    layers: tuple[nn.Module, ...] = {
        "sac": lambda: (source.actor.features_extractor, source.actor.latent_pi, source.actor.mu),
        "ppo": lambda: (source.pi_features_extractor, source.mlp_extractor.policy_net, source.action_net),
        "dqn": lambda: (source.q_net.features_extractor, source.q_net.q_net),
    }[config.algorithm]()
    network = nn.Sequential(_Preprocessed(source, space), *layers)
    return LibraryController(network, space, squash=config.algorithm == "sac")

"""From settings to the library's own objects, and errors for what it refuses."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from mtrl.errors import ConfigError, ResourceError, UnsupportedError
from mtrl.nn import device_of
from mtrl.rollout import SharedSpace

from ..libraries import require_settings
from .config import SB3Config, line_from

CLASSES: Mapping[str, type[BaseAlgorithm]] = {"sac": SAC, "ppo": PPO, "dqn": DQN}

OURS = {
    "policy": "it follows from the observations",
    "env": "it follows from the tasks",
    "seed": "write seed=N",
    "device": "write agent.device=NAME",
    "verbose": "progress is shown anyway",
    "tensorboard_log": "write tracking=tensorboard",
    "stats_window_size": "the records of a run are means since the last record",
    "use_sde": "exploration draws from the generators of the copies",
    "sde_sample_freq": "exploration draws from the generators of the copies",
    "use_sde_at_warmup": "exploration draws from the generators of the copies",
    "action_noise": "it is an object, which no setting can name",
    "replay_buffer_class": "it is a class, which no setting can name",
    "rollout_buffer_class": "it is a class, which no setting can name",
    "_init_setup_model": "the networks are always built",
}
"""Argument of a constructor -> why `agent.settings` does not take it."""


def space_of(config: SB3Config, space: SharedSpace) -> SharedSpace:
    """The space itself; raises UnsupportedError where the algorithm cannot act in it."""
    kinds = {"sac": "continuous", "dqn": "discrete"}
    served, came = kinds.get(config.algorithm), "discrete" if space.discrete else "continuous"
    if served not in (None, came):
        other = "dqn" if space.discrete else "sac"
        raise UnsupportedError(
            f"{config.algorithm.upper()} of Stable-Baselines3 learns {served} tasks; "
            f"{space.tasks.names[0]} is {came}. Take agent.algorithm=ppo or agent.algorithm={other}"
        )
    return space


def arguments_of(config: SB3Config) -> dict[str, Any]:
    """The constructor's arguments but policy and environments.

    Raises UnknownNameError for a key of `settings` that the constructor lacks, ConfigError for one that
    has a key elsewhere.
    """
    name = config.algorithm
    own: Mapping[str, Any] = vars(getattr(config, name))
    require_settings(config.settings, name, own, inspect.signature(CLASSES[name]).parameters, OURS)
    arguments = {key: _scheduled(value) for key, value in {**own, **config.settings}.items()}
    policy = dict(arguments.pop("policy_kwargs", None) or {})
    if config.net_arch:
        policy["net_arch"] = list(config.net_arch)
    return {**arguments, "policy_kwargs": policy, "device": device_of(config.device)}


def _scheduled(value: Any) -> Any:  # noqa: ANN401 - an argument of the library
    """The library's own schedule for "lin_0.001": a function of the share of the budget that is left."""
    begins = line_from(value)
    return value if begins is None else lambda left: left * begins


def model_of(config: SB3Config, space: SharedSpace, environments: VecEnv) -> BaseAlgorithm:
    """A new learner on these environments, its networks drawn from torch's generator.

    Raises ConfigError for arguments that the library refuses, ResourceError for a replay beyond memory.
    """
    arguments = arguments_of(config)
    alias = "MlpPolicy" if space.flat else "MultiInputPolicy"
    try:
        return CLASSES[config.algorithm](alias, environments, **arguments)
    except (AssertionError, TypeError, ValueError) as error:
        raise ConfigError(f"Stable-Baselines3 refuses the settings of {config.algorithm}: {error}") from error
    except MemoryError as error:
        raise ResourceError(
            f"the replay of Stable-Baselines3 does not fit into memory: {error}; "
            f"lower agent.{config.algorithm}.buffer_size"
        ) from error


def network_of(config: SB3Config, space: SharedSpace) -> BasePolicy:
    """The algorithm's policy network on the CPU, with fresh weights; changes no global random state."""
    kind = CLASSES[config.algorithm]
    alias = "MlpPolicy" if space.flat else "MultiInputPolicy"
    policy_class: Any = kind.policy_aliases[alias]
    with torch.random.fork_rng(devices=[]):
        network: BasePolicy = policy_class(
            space.observation_space,
            space.action_space,
            lambda _: 0.0,
            **arguments_of(config)["policy_kwargs"],
        )
    network.set_training_mode(False)
    return network.requires_grad_(False)


def acting_tensors(config: SB3Config, network: BasePolicy) -> dict[str, torch.Tensor]:
    """The weights that act, without critics and targets."""
    prefix = {"sac": "actor.", "dqn": "q_net.", "ppo": ""}[config.algorithm]
    return {name: value for name, value in network.state_dict().items() if name.startswith(prefix)}


def replay_bytes(config: SB3Config, space: SharedSpace) -> int:
    """Memory of a full replay: two observations, an action and three numbers a transition; 0 for PPO."""
    if config.algorithm == "ppo":
        return 0
    buckets = [
        (space.layout.bucket_shape(bucket), space.layout.bucket_dtype(bucket))
        for bucket in space.layout.buckets
    ]
    observation = sum(math.prod(shape) * kind.itemsize for shape, kind in buckets) + 4 * space.task_columns
    action = 8 if space.discrete else 4 * space.layout.continuous_size
    capacity: int = getattr(config, config.algorithm).buffer_size
    return capacity * (2 * observation + action + 12)

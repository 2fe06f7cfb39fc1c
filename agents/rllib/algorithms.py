"""From settings to the library's own objects, and errors for what it refuses; loads RLlib."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# read by Ray while it is imported: no statistics leave the machine
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.appo import APPO, APPOConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.sac import SAC, SACConfig
from ray.rllib.core.rl_module.apis import TargetNetworkAPI
from ray.rllib.core.rl_module.rl_module import RLModule

from mtrl.errors import ConfigError, UnsupportedError
from mtrl.rollout import SharedSpace
from mtrl.structured import plain

from ..libraries import require_settings
from .config import RLlibConfig
from .environment import RunnerEnvironment, log_summary

CONFIGS: Mapping[str, type[AlgorithmConfig]] = {"sac": SACConfig, "ppo": PPOConfig, "appo": APPOConfig}

OURS = {
    "model": "write agent.fcnet_hiddens and agent.fcnet_activation",
    "q_model_config": "write agent.fcnet_hiddens and agent.fcnet_activation",
    "policy_model_config": "write agent.fcnet_hiddens and agent.fcnet_activation",
    "train_batch_size": "write agent.ALGORITHM.train_batch_size_per_learner",
    "optimization_config": "write agent.sac.actor_lr, agent.sac.critic_lr and agent.sac.alpha_lr",
    "store_buffer_in_checkpoints": "checkpoints hold no experience",
    "learner_class": "it is a class, which no setting can name",
    "learner_connector": "it is a function, which no setting can name",
    "add_default_connectors_to_learner_pipeline": "the learner needs them",
    "learner_config_dict": "RLlib's own learners read nothing from it",
    "num_aggregator_actors_per_learner": "RLlib has moved it elsewhere",
    "max_requests_in_flight_per_aggregator_actor": "RLlib has moved it elsewhere",
}
"""Argument of `training` -> why `agent.settings` does not take it."""


class _WithoutResults:
    """An algorithm that leaves nothing in ~/ray_results, where RLlib would put an empty folder."""

    _logdir: Any

    def _setup_logdir(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mtrl-rllib-")
        self._logdir = self._folder.name

    def cleanup(self) -> None:
        super().cleanup()  # type: ignore[misc]
        self._folder.cleanup()


class _SAC(_WithoutResults, SAC):
    pass


class _PPO(_WithoutResults, PPO):
    pass


class _APPO(_WithoutResults, APPO):
    pass


ALGORITHMS: Mapping[str, type[Algorithm]] = {"sac": _SAC, "ppo": _PPO, "appo": _APPO}
"""Each starts its env runners and learners when it is built; Ray must be up."""


def space_of(space: SharedSpace) -> SharedSpace:
    """The space itself; raises UnsupportedError for pixels."""
    if not space.flat:
        seen = next(task.name for task in space.tasks if task.observation.pixels is not None)
        raise UnsupportedError(
            f"RLlib's default networks take one vector, and {seen} shows pixels. Take agent=sb3 or "
            "agent=sac, or the task's states"
        )
    return space


def arguments_of(config: RLlibConfig) -> dict[str, Any]:
    """The arguments of the algorithm's `training`.

    Raises UnknownNameError for a key of `settings` that it lacks, ConfigError for one that has a
    key elsewhere.
    """
    name = config.algorithm
    own: dict[str, Any] = plain(getattr(config, name))
    require_settings(config.settings, name, own, _parameters(CONFIGS[name]), OURS)
    replay = own.get("replay_buffer_config")
    if replay is not None and not replay["type"].startswith("Prioritized"):
        own["replay_buffer_config"] = {key: replay[key] for key in ("type", "capacity")}
    return {**own, **config.settings}


def settings_of(config: RLlibConfig, space: SharedSpace, seed: int, begun: list[int]) -> AlgorithmConfig:
    """RLlib's own settings of a run, checked by RLlib.

    `begun` [K] are the episodes of each task in earlier sessions. Raises ConfigError for what RLlib refuses.
    """
    environments = config.copies * len(space.tasks)
    runners = max(1, config.env_runners)
    try:
        settings = (
            CONFIGS[config.algorithm]()
            .environment(
                RunnerEnvironment,
                env_config={
                    "tasks": space.tasks,
                    "seed": seed,
                    "begun": begun,
                    "environments": environments,
                    "copies": environments * runners,
                },
                observation_space=space.observation_space,
                action_space=space.action_space,
            )
            .env_runners(num_env_runners=config.env_runners, num_envs_per_env_runner=environments)
            .learners(num_learners=config.learners, num_gpus_per_learner=config.gpus_per_learner)
            .rl_module(model_config={key: value for key, value in plain(config).items() if "fcnet" in key})
            .training(**arguments_of(config))
            .callbacks(on_episode_end=log_summary)
            # an iteration is one round of steps and updates, so that a run stops soon
            .reporting(min_time_s_per_iteration=0, min_sample_timesteps_per_iteration=1)
            # a broken environment ends the run with its own error instead of a thousand retries
            .fault_tolerance(restart_failed_env_runners=False, restart_failed_sub_environments=False)
            .debugging(seed=seed % 2**31, log_level="ERROR")
        )
        if isinstance(settings, APPOConfig):
            # otherwise RLlib starts another process of 500 MB, from which its runners fetch their weights
            settings.use_env_runner_state_server = False
        with quiet():
            settings.validate()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"RLlib refuses the settings of {config.algorithm}: {error}") from error
    return settings


def fresh_weights(settings: AlgorithmConfig, seed: int) -> dict[str, torch.Tensor]:
    """RLlib's name -> weight of a new RLModule, targets included; changes no global random state."""
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        module = module_of(settings)
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


def module_of(settings: AlgorithmConfig, *, inference_only: bool = False) -> Any:  # noqa: ANN401 - a torch.nn.Module
    """RLlib's own module for these settings, Ray or not."""
    spec = settings.get_default_rl_module_spec()
    spec.observation_space, spec.action_space = settings.observation_space, settings.action_space
    spec.model_config, spec.inference_only = settings.model_config, inference_only
    module: RLModule = spec.build()
    if isinstance(module, TargetNetworkAPI) and not inference_only:
        module.make_target_networks()
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, RLlib's advice about its own deprecations is not shown; errors are."""
    loggers = [logging.getLogger(name) for name in ("ray.rllib", "ray._common.deprecation")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _parameters(kind: type[AlgorithmConfig]) -> list[str]:
    """Every keyword of `training`, which passes those of its base on by `**kwargs`."""
    methods = [vars(each)["training"] for each in kind.__mro__ if "training" in vars(each)]
    parameters = [each for method in methods for each in inspect.signature(method).parameters.values()]
    names = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return list(dict.fromkeys(name for name in names if name != "self"))

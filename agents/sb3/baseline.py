"""The learner: one model of Stable-Baselines3 on copies of every task."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from mtrl.errors import ConfigError
from mtrl.nn import arrays_of
from mtrl.rollout import PolicySnapshot, SharedEnvironment, SharedSpace
from mtrl.structured import plain
from mtrl.tasks import TaskSet
from mtrl.training import BaselineRun, Use

from ..libraries import LearnerFigures
from .algorithms import acting_tensors, model_of, space_of
from .config import SB3Config
from .metrics import METRICS

LATEST = ("train/n_updates", "rollout/exploration_rate")
"""Figures of which the latest value is logged, not the mean."""


class SB3Baseline:
    """SAC, PPO or DQN on all tasks at once, in the library's own loop.

    Seeding is the library's: it sets the global generators of Python, NumPy and torch.
    """

    def __init__(self, config: SB3Config, tasks: TaskSet, seed: int) -> None:
        """Raises UnsupportedError for tasks that the library or the algorithm cannot serve, ConfigError for
        arguments that the library refuses.
        """
        self._config, self._seed = config, seed
        self._space = space_of(config, SharedSpace(tasks))
        self._environments = [
            SharedEnvironment(self._space, k, copy=copy, copies=config.copies, seed=seed)
            for k in range(len(tasks))
            for copy in range(config.copies)
        ]
        set_random_seed(seed)
        builders: list[Callable[[], Any]] = [
            partial(lambda each: each, environment) for environment in self._environments
        ]
        self._model: Any = model_of(config, self._space, DummyVecEnv(builders))
        learner = f"{config.algorithm.upper()} of Stable-Baselines3"
        self._figures = LearnerFigures(METRICS, learner, LATEST)
        self._model.set_logger(FigureLogger(self._figures))

    @property
    def model(self) -> Any:  # noqa: ANN401 - whichever algorithm it is
        """The library's algorithm object."""
        return self._model

    @property
    def steps(self) -> int:
        """Environment steps taken so far, all tasks together."""
        return int(self._model.num_timesteps)

    def run(self, run: BaselineRun) -> bool:
        """Trains until the budget is spent; False when stopped before.

        The budget is exceeded by less than one step of all environments. Raises ConfigError for a budget
        that is too small for one rollout of PPO, DivergenceError for a loss that is not finite.
        """
        if self.steps >= run.budget:
            return True
        if self._config.algorithm == "ppo":
            self._require_a_rollout(run.budget)
        # a run begins with new episodes, a resumed one with other draws
        self._model._last_obs = None
        set_random_seed(self._seed + self.steps)
        self._model.action_space.seed(self._seed + self.steps)
        reporter = RunReporter(run, self._figures)
        try:
            with warnings.catch_warnings():
                # agent.device=auto takes a GPU where there is one; the library advises against it for PPO
                warnings.filterwarnings("ignore", "You are trying to run PPO on the GPU")
                self._model.learn(
                    run.budget - self.steps, reporter, log_interval=None, reset_num_timesteps=False
                )
        finally:
            self._model.env.close()
        finished = self.steps >= run.budget
        if finished:
            run.log(self.steps, self._figures.take())
        return finished

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The acting weights as named arrays."""
        tensors = arrays_of(acting_tensors(self._config, self._model.policy))
        return PolicySnapshot("sb3", plain(self._config), tensors, self._version)

    def state(self) -> dict[str, Any]:
        """Weights, optimisers and counts; the replay is not kept."""
        model = self._model
        temperature = getattr(model, "log_ent_coef", None)
        return {
            "parameters": copy.deepcopy(model.get_parameters()),
            "log_ent_coef": None if temperature is None else temperature.detach().clone(),
            "steps": self.steps,
            "updates": self._version,
            "calls": int(getattr(model, "_n_calls", 0)),
            "episodes": [environment.begun for environment in self._environments],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; continues with new episodes."""
        model = self._model
        # a copy, because the optimisers update these tensors in place
        model.set_parameters(copy.deepcopy(state["parameters"]), exact_match=True, device=model.device)
        if state["log_ent_coef"] is not None:
            with torch.no_grad():
                model.log_ent_coef.copy_(state["log_ent_coef"])
        model.num_timesteps, model._n_updates = int(state["steps"]), int(state["updates"])
        if hasattr(model, "_n_calls"):
            model._n_calls = int(state["calls"])
        if hasattr(model, "learning_starts"):
            # the replay is empty again, and is filled by random actions first
            model.learning_starts = self.steps + getattr(self._config, self._config.algorithm).learning_starts
        for environment, begun in zip(self._environments, state["episodes"], strict=True):
            environment.begun = int(begun)

    @property
    def _version(self) -> int:
        return int(self._model._n_updates)

    def _require_a_rollout(self, budget: int) -> None:
        count, settings = len(self._environments), self._config.ppo
        rollout = settings.n_steps * count
        if budget < rollout:
            raise ConfigError(
                f"PPO learns from rollouts of agent.ppo.n_steps={settings.n_steps} on {count} environments, "
                f"{rollout:,} steps, and the budget is {budget:,}: nothing would be learned. Lower "
                f"agent.ppo.n_steps to at most {max(1, budget // count)}, or raise steps"
            )


class FigureLogger(Logger):
    """Passes what the library records to `LearnerFigures`, and writes nothing itself."""

    def __init__(self, figures: LearnerFigures) -> None:
        super().__init__(folder=None, output_formats=[])
        self._figures = figures
        self._updates = 0

    def record(self, key: str, value: Any, exclude: str | tuple[str, ...] | None = None) -> None:  # noqa: ANN401
        """Keeps a documented figure; raises DivergenceError for a loss that is not finite."""
        if key not in METRICS or value is None:
            return
        if key == "train/n_updates":
            self._updates = int(value)
        self._figures.add(key, float(value), self._updates)

    def dump(self, step: int = 0) -> None:
        """Nothing: figures are taken when the run logs."""


class RunReporter(BaseCallback):
    """Reports every step of the library's loop to a `BaselineRun`."""

    def __init__(self, run: BaselineRun, figures: LearnerFigures) -> None:
        """Ends the loop with the budget's last step, in the middle of a rollout if need be."""
        super().__init__()
        self._run, self._figures = run, figures
        self._before = 0

    def _on_training_start(self) -> None:
        self._before = self.num_timesteps

    def _on_step(self) -> bool:
        """Called after each step of all environments; False ends the loop."""
        run, step = self._run, self.num_timesteps
        for info in self.locals["infos"]:
            if "summary" in info:
                run.add(info["summary"])
        if step // run.log_every > self._before // run.log_every and step < run.budget:
            run.log(step, self._figures.take())
        self._before = step
        run.advance(step)
        return step < run.budget and not run.stop()

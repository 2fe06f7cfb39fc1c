"""The learner: one algorithm of RLlib on all tasks of a set."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from ray.rllib.algorithms.algorithm import Algorithm

from mtrl.distributed import cluster
from mtrl.errors import MtrlError, ResourceError
from mtrl.nn import arrays_of
from mtrl.rollout import PolicySnapshot, RuntimeConfig, SharedSpace
from mtrl.structured import plain
from mtrl.tasks import TaskSet
from mtrl.training import BaselineRun, Use

from ..libraries import LearnerFigures
from .algorithms import ALGORITHMS, fresh_weights, quiet, settings_of, space_of
from .config import RLlibConfig
from .environment import summaries_of
from .metrics import METRICS
from .policy import ActingNetwork

MODULE = "default_policy"
"""RLlib's name of the one module of a single agent."""

_COEFFICIENTS = ("curr_log_alpha", "curr_kl_coeffs_per_module")
"""Numbers that a learner adapts: SAC's log temperature, PPO's and APPO's weight of the divergence. RLlib's
own checkpoints leave them out."""


class RLlibBaseline:
    """SAC, PPO or APPO on all tasks at once, in RLlib's own iterations.

    Seeding is the library's: it sets the global generators of Python, NumPy and torch. Between two runs
    nothing of RLlib is alive; what the learner has learned is kept here as tensors.
    """

    def __init__(self, config: RLlibConfig, tasks: TaskSet, seed: int) -> None:
        """Raises UnsupportedError for tasks that RLlib's networks cannot serve, ConfigError for arguments
        that the library refuses.
        """
        self._config, self._seed = config, seed
        self._space = space_of(SharedSpace(tasks))
        settings = settings_of(config, self._space, seed, [0] * len(tasks))
        self._state: Mapping[str, Any] = {
            "weights": fresh_weights(settings, seed),
            "optimizers": {},
            "coefficients": {},
        }
        self._steps = self._iterations = 0
        self._finished = [0] * len(tasks)
        self._algorithm: Algorithm | None = None

    @property
    def steps(self) -> int:
        """Environment steps taken so far, all tasks together."""
        return self._steps

    def run(self, run: BaselineRun) -> bool:
        """Trains until the budget is spent; False when stopped before.

        The budget is exceeded by less than one iteration: for SAC a step of all environments, for PPO and
        APPO a batch, and what runners have sent meanwhile. Raises EnvironmentFault for a broken environment,
        DivergenceError for a loss that is not finite, ResourceError when Ray has too few processors.
        """
        if self._steps >= run.budget:
            return True
        with self._running() as algorithm:
            return self._iterate(algorithm, run)

    def snapshot(self, use: Use = "evaluate") -> PolicySnapshot:
        """The acting weights as named arrays."""
        weights = self._current()["weights"]
        with torch.random.fork_rng(devices=[]):
            names = ActingNetwork(self._config, self._space).named_weights()
        tensors = arrays_of({name: weights[name] for name in names})
        return PolicySnapshot("rllib", plain(self._config), tensors, self._iterations)

    def state(self) -> dict[str, Any]:
        """Weights, optimisers, adapted coefficients and counts; the replay is not kept."""
        return {
            **copy.deepcopy(dict(self._current())),
            "steps": self._steps,
            "iterations": self._iterations,
            "finished": list(self._finished),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; continues with new episodes."""
        self._state = copy.deepcopy({key: state[key] for key in ("weights", "optimizers", "coefficients")})
        self._steps, self._iterations = int(state["steps"]), int(state["iterations"])
        self._finished = [int(count) for count in state["finished"]]

    def _current(self) -> Mapping[str, Any]:
        if self._algorithm is None:
            return self._state
        (state,) = list(_each_learner(self._algorithm, state_of))[:1]
        return state

    @contextmanager
    def _running(self) -> Iterator[Algorithm]:
        """RLlib with this learner's state, and Ray below it; keeps the state and ends both."""
        config = self._config
        processes = config.env_runners + config.learners
        capacity = cluster.connect(RuntimeConfig(kind="ray", actors=processes, address=config.address))
        try:
            if capacity.processors < processes:
                raise ResourceError(
                    f"agent.env_runners={config.env_runners} and agent.learners={config.learners} need a "
                    f"processor each; the cluster has {capacity.processors}. Lower them"
                )
            cluster.await_processors(processes)
            # a copy may have begun one episode more than have finished of its task
            begun = [count + 1 if self._steps else 0 for count in self._finished]
            settings = settings_of(config, self._space, self._seed + self._steps, begun)
            # starts are those of the run's seed, whatever was drawn since
            settings.env_config["seed"] = self._seed
            with _original_errors(), quiet():
                algorithm = ALGORITHMS[config.algorithm](settings)
            try:
                list(_each_learner(algorithm, partial(set_state, state=self._state)))
                assert algorithm.env_runner_group is not None
                algorithm.env_runner_group.sync_weights(from_worker_or_learner_group=algorithm.learner_group)
                self._algorithm = algorithm
                with _original_errors():
                    yield algorithm
            finally:
                try:
                    self._state = self._current()
                finally:
                    self._algorithm = None
                    algorithm.stop()
        finally:
            cluster.disconnect()

    def _iterate(self, algorithm: Algorithm, run: BaselineRun) -> bool:
        learner = f"{self._config.algorithm.upper()} of RLlib"
        before, figures = self._steps, LearnerFigures(METRICS, learner)
        earlier = self._steps
        while True:
            results = algorithm.train()
            self._iterations += 1
            self._steps = earlier + int(results["env_runners"]["num_env_steps_sampled_lifetime"])
            for summary in summaries_of(results):
                self._finished[summary.task_index] += 1
                run.add(summary)
            learned = results.get("learners", {}).get(MODULE, {})
            # RLlib repeats the names of earlier updates, with NaN, where an iteration had none
            if math.isfinite(learned.get("num_module_steps_trained", math.nan)):
                for name in (key for key in learned if f"learner/{key}" in METRICS):
                    figures.add(f"learner/{name}", float(learned[name]), self._iterations)
            spent = self._steps >= run.budget
            if spent or self._steps // run.log_every > before // run.log_every:
                run.log(self._steps, figures.take())
            before = self._steps
            run.advance(self._steps)
            if spent:
                return True
            if run.stop():
                return False


def state_of(learner: Any) -> dict[str, Any]:  # noqa: ANN401 - an object of RLlib
    """Weights, optimisers and adapted coefficients of a learner, copied to the CPU."""
    weights = learner.module[MODULE].unwrapped().state_dict()
    optimizers = {name: copy.deepcopy(each.state_dict()) for name, each in learner._named_optimizers.items()}
    for moments in (each for state in optimizers.values() for each in state["state"].values()):
        moments.update({key: value.cpu() for key, value in moments.items() if torch.is_tensor(value)})
    adapted = {name: getattr(learner, name, None) for name in _COEFFICIENTS}
    return {
        "weights": {name: value.detach().cpu().clone() for name, value in weights.items()},
        "optimizers": optimizers,
        "coefficients": {
            name: torch.as_tensor(values[MODULE]).detach().cpu().clone()
            for name, values in adapted.items()
            if values is not None
        },
    }


def set_state(learner: Any, state: Mapping[str, Any]) -> None:  # noqa: ANN401 - an object of RLlib
    """Restores `state_of`; a state of weights alone leaves the rest as it begins."""
    learner.module[MODULE].unwrapped().load_state_dict(state["weights"])
    for name, saved in state["optimizers"].items():
        learner._named_optimizers[name].load_state_dict(copy.deepcopy(saved))
    with torch.no_grad():
        for name, value in state["coefficients"].items():
            getattr(learner, name)[MODULE].copy_(value)


def _each_learner(algorithm: Algorithm, work: Callable[..., Any]) -> Iterator[Any]:
    """What `work` returns from each learner, wherever it runs."""
    assert algorithm.learner_group is not None
    for result in algorithm.learner_group.foreach_learner(work):
        yield result.get()


@contextmanager
def _original_errors() -> Iterator[None]:
    """Raises the MtrlError that caused an error of RLlib in place of it."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MtrlError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from None

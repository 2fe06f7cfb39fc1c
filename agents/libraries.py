"""What the adapters of learning libraries share: their policies see and act in a `SharedSpace`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mtrl.errors import ConfigError, DivergenceError, IntegrityError, UnknownNameError, UnsupportedError
from mtrl.nn import Gaussian, draw_index, tensors_of
from mtrl.rollout import (
    LOG_PROBABILITY,
    Acting,
    Action,
    Extra,
    PolicyState,
    SharedObservation,
    SharedSpace,
)
from mtrl.spaces import Observation
from mtrl.training import Metrics


class LibraryPolicy(ABC):
    """A library's network behind the policy contract.

    Exploring draws from the network's distribution with the copies' own generators. The log-probability is
    that of the drawn action before it is clipped; none where nothing is drawn.
    """

    extras: tuple[Extra, ...] = (LOG_PROBABILITY,)

    def __init__(self, space: SharedSpace, version: int) -> None:
        self.version = version
        self._space = space
        self._mask = torch.from_numpy(space.layout.continuous_mask)

    @abstractmethod
    def deterministic(self, rows: SharedObservation) -> npt.NDArray[Any]:
        """N rows of the observation space -> the N elements of the action space taken without exploration."""

    @abstractmethod
    def probabilities(self, rows: SharedObservation) -> npt.NDArray[np.float64]:
        """[N, n] of the indices of a discrete space."""

    @abstractmethod
    def gaussian(self, rows: SharedObservation, mask: torch.Tensor) -> Gaussian:
        """The distribution of N actions of a continuous space; `mask` [N, A_max]: the tasks' dimensions."""

    def initial_state(self, count: int) -> PolicyState:
        """Empty: the policy has no state."""
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
        """Acts for N copies in one forward pass."""
        rows = self._space.observe(observation, task_index)
        extras: dict[str, npt.NDArray[Any]] = {}
        if not acting.explore:
            action = self.deterministic(rows)
        elif self._space.discrete:
            action, extras[LOG_PROBABILITY.name] = self._draw_indices(rows, task_index, generators)
        else:
            gaussian = self.gaussian(rows, self._mask[torch.from_numpy(task_index)])
            size = gaussian.mean.shape[1]
            noise = np.stack([g.standard_normal(size, dtype=np.float32) for g in generators])
            drawn, log_prob = gaussian.sample(torch.from_numpy(noise))
            action, extras[LOG_PROBABILITY.name] = drawn.numpy(), log_prob.numpy()
        continuous, discrete = self._space.decide(action, task_index)
        return Action(continuous, discrete, state, extras)

    def _draw_indices(
        self,
        rows: SharedObservation,
        task_index: npt.NDArray[np.int64],
        generators: Sequence[np.random.Generator],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Legal indices [N] and their log-probability [N]."""
        probabilities = self.probabilities(rows)
        indices = np.zeros(len(probabilities), dtype=np.int64)
        log_prob = np.zeros(len(probabilities), dtype=np.float32)
        for copy, generator in enumerate(generators):
            count = self._space.layout.actions[task_index[copy]].discrete
            # index i stands for i mod n of a task of n actions: p(a) = sum of p(i) over i mod n = a
            folded = np.arange(probabilities.shape[1]) % count
            own = np.bincount(folded, weights=probabilities[copy]).astype(np.float64)
            indices[copy] = draw_index(own, generator)
            log_prob[copy] = math.log(own[indices[copy]] / own.sum())
        return indices, log_prob


class LibraryController(nn.Module):
    """The deterministic policy of a library's continuous actor as one forward pass of tensors."""

    one_hot: torch.Tensor
    mask: torch.Tensor

    def __init__(self, mean: nn.Module, space: SharedSpace, *, squash: bool) -> None:
        """`mean`: rows of the observation space [N, D] -> mean action [N, A_max], before the tanh where
        `squash`; its weights are shared. Raises UnsupportedError for discrete tasks and for pixels.
        """
        super().__init__()
        if space.discrete or not space.flat:
            what = "acts by index" if space.discrete else "observes pixels"
            name = next(
                task.name
                for task in space.tasks
                if task.action.is_discrete or task.observation.pixels is not None
            )
            raise UnsupportedError(
                f"a controller maps a state vector to a continuous action; {name} {what}, which no artefact "
                "can serve"
            )
        self.network, self._squash = mean, squash
        layout = space.layout
        self.register_buffer("one_hot", torch.eye(layout.task_count)[:, : space.task_columns])
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))

    def forward(self, state: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        """State [N, D_max] and task [N] -> action [N, A_max] in [-1, 1], zero where masked."""
        mean = self.network(torch.cat([state, self.one_hot[task]], dim=1))
        action: torch.Tensor = torch.tanh(mean) if self._squash else mean.clamp(-1.0, 1.0)
        return action * self.mask[task]


class LearnerFigures:
    """Means of what a library's learner records, under documented names, since they were last taken."""

    def __init__(self, metrics: Metrics, learner: str, latest: Collection[str] = ()) -> None:
        """`learner` is named by the error of a loss that is not finite; of `latest` the last value counts."""
        self._metrics, self._learner, self._latest = metrics, learner, latest
        self._values: dict[str, list[float]] = {}

    def add(self, key: str, number: float, updates: int) -> None:
        """Keeps a documented figure; raises DivergenceError for a loss that is not finite after `updates`.

        Another figure that is not finite, such as the explained variance of equal returns, is left out.
        """
        if key not in self._metrics:
            return
        if math.isfinite(number):
            self._values.setdefault(key, []).append(number)
        elif key.endswith("loss"):
            raise DivergenceError(self._learner, updates, f"{key} is {number}")

    def take(self) -> dict[str, float]:
        """The means, of which nothing is kept."""
        values, self._values = self._values, {}
        return {
            key: found[-1] if key in self._latest else float(np.mean(found)) for key, found in values.items()
        }


def require_settings(
    settings: Mapping[str, Any],
    algorithm: str,
    own: Collection[str],
    taken: Collection[str],
    refused: Mapping[str, str],
) -> None:
    """Requires that every key of `agent.settings` is an argument that the library takes (`taken`), no field
    of the algorithm's section (`own`) and none of `refused` (argument -> why).

    Raises UnknownNameError or ConfigError.
    """
    free = [key for key in taken if key not in own and key not in refused]
    for key in settings:
        if key in own:
            raise ConfigError(
                f"agent.settings.{key} has a place of its own: write agent.{algorithm}.{key}=VALUE"
            )
        if key in refused and key in taken:
            raise ConfigError(f"agent.settings.{key} is not for settings: {refused[key]}")
        if key not in free:
            raise UnknownNameError(f"argument of {algorithm.upper()} in agent.settings", key, [*free, *own])


def require_weights(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, npt.NDArray[np.generic]], algorithm: str
) -> dict[str, torch.Tensor]:
    """The weights as tensors; raises IntegrityError unless names and shapes are those of `expected`."""
    shapes = [{name: tuple(value.shape) for name, value in weights.items()} for weights in (expected, found)]
    differing = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))
    if differing:
        raise IntegrityError(
            f"the weights are not those of {algorithm} for these tasks; they differ at {differing[0][0]} and "
            f"{len(differing) - 1} more. Use the tasks and the layers that the policy was trained on"
        )
    return tensors_of(found)

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

from mtrl.errors import ConfigError, DivergenceError, IntegrityError, UnknownNameError
from mtrl.nn import Gaussian, draw_index, legal_shares, tensors_of
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
    """The deterministic policy of a library's network as one forward pass of tensors."""

    one_hot: torch.Tensor
    mask: torch.Tensor
    legal: torch.Tensor
    folds: torch.Tensor

    def __init__(self, network: nn.Module, space: SharedSpace, *, squash: bool = False) -> None:
        """`network`: rows of the observation space, [N, D] or bucket -> [N, ...], to the mean action
        [N, A_max], before the tanh where `squash`, or to scores [N, n] of a discrete space, of which the
        highest is taken; its weights are shared.
        """
        super().__init__()
        self.network, self.space, self._squash = network, space, squash
        layout = space.layout
        self.register_buffer("one_hot", torch.eye(layout.task_count)[:, : space.task_columns])
        self.register_buffer("mask", torch.from_numpy(layout.continuous_mask.astype(np.float32)))
        self.register_buffer("legal", torch.from_numpy(layout.legal_mask.astype(np.float32)))
        # index i stands for i mod n of a task of n actions
        choices = np.arange(layout.discrete_size)
        counts = np.array([max(1, action.discrete) for action in layout.actions])
        apart = choices[None, None, :] % counts[:, None, None] != choices[None, :, None]
        self.register_buffer("folds", torch.from_numpy(np.where(apart, np.float32(-1e9), np.float32(0.0))))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """A tensor for every bucket of the layout in its order, then task [N] -> action [N, A_max] in
        [-1, 1], zero where masked, or the probability of every choice [N, n].
        """
        *observed, task = inputs
        one_hot = self.one_hot[task]
        rows: Any = dict(zip(self.space.layout.buckets, observed, strict=True))
        if self.space.flat:
            rows = torch.cat([rows["state"], one_hot], dim=1)
        elif self.space.task_columns:
            rows["task"] = one_hot
        found: torch.Tensor = self.network(rows)
        if self.space.discrete:
            folded = (found[:, None, :] + self.folds[task]).amax(dim=-1)
            return legal_shares(folded, self.legal[task])
        action = torch.tanh(found) if self._squash else found.clamp(-1.0, 1.0)
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

"""What a weighting is: from the losses and gradients of K tasks to one weight per task.

In this folder g_k is the gradient of task k and G the Gramian [K, K], G_ij = g_i . g_j.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args

import numpy as np

if TYPE_CHECKING:
    import torch

RANK_TOLERANCE = 1e-8
"""Squares below this share of the largest count as zero: rows are float32, whose rounding has squares of
1e-14, and updates divide by what is left."""

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class WeightingInputs:
    """Losses and gradients g_1 .. g_K of one step, as far as a weighting needs them."""

    losses: np.ndarray
    """[K] float64."""
    gramian: np.ndarray | None = None
    """[K, K] float64, inner products of the gradients; None for weightings that need none."""
    previous: np.ndarray | None = None
    """[K, K] float64, inner products of the gradients with those of the step before, a column each; None at
    the first step and for weightings that need none."""


@dataclass(frozen=True)
class NoSettings:
    """Settings of a method that has none."""


class Weighting(ABC, Generic[Settings]):
    """Maps K task gradients to weights [K]; the update is sum_k weights[k] g_k.

    Solved in float64 on the CPU: K x K is small, and one transfer is all it takes.
    """

    config_class: ClassVar[type]
    """Frozen dataclass of the method's settings: the class argument `Settings`."""
    needs_gramian: ClassVar[bool] = True
    """Whether per-task gradients are needed at all; if not, one plain backward pass suffices."""
    needs_rows: ClassVar[bool] = False
    """Whether the method combines rows [K, *shape] itself, by `combine`, rather than through weights."""
    needs_previous: ClassVar[bool] = False
    """Whether the gradients of the step before are needed, K x P numbers more."""
    needs_positive_losses: ClassVar[str] = ""
    """Why losses must be above 0; empty where they need not."""
    needs_post_step: ClassVar[bool] = False
    """Whether `observe_post_step_losses` must be called, which costs one more forward pass."""
    state_names: ClassVar[tuple[str, ...]] = ()
    """Attributes that change from step to step: arrays, numbers or None."""

    def __init_subclass__(cls) -> None:
        (cls.config_class,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]

    def __init__(self, config: Settings, tasks: int, seed: int) -> None:
        self.config, self.tasks, self.seed = config, tasks, seed
        self.step = 0
        self.deficient = False
        """Whether the latest gradients left the update open: the Gramian lacked full rank, so that the
        solution was regularised, a choice was a tie, or the weighted gradients cancelled but for rounding."""

    @abstractmethod
    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        """[K] float64, finite."""

    def combine(self, rows: torch.Tensor) -> torch.Tensor:
        """[*shape] from one parameter's rows [K, *shape]; only called where `needs_rows`."""
        raise NotImplementedError("combine(rows) of a method that needs rows")

    def observe_post_step_losses(self, losses: np.ndarray) -> None:
        """Takes the losses of the same batch after the update; only called where `needs_post_step`."""

    def state_dict(self) -> dict[str, Any]:
        """What the next weights depend on."""
        import torch

        state = {name: getattr(self, name) for name in self.state_names}
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in state.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        import torch

        for name in self.state_names:
            value = state[name]
            setattr(self, name, value.numpy().copy() if isinstance(value, torch.Tensor) else value)


class GramianWeighting(Weighting[Settings]):
    """A weighting by inner products alone; tasks whose gradient is zero are left out and weigh 0."""

    def weights(self, inputs: WeightingInputs) -> np.ndarray:
        gramian = require_gramian(inputs)
        active = np.flatnonzero(np.diag(gramian) > 0)
        weights = np.zeros(len(gramian))
        self.deficient = False
        if len(active):
            weights[active] = self.solve(gramian[np.ix_(active, active)], active)
        self.deficient |= cancels(weights, gramian)
        return weights

    @abstractmethod
    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Weights of the `active` tasks, whose Gramian this is; its diagonal is positive."""


def cancels(weights: np.ndarray, gramian: np.ndarray) -> bool:
    """Whether the weighted gradients add up to no more than rounding."""
    added = float(np.abs(weights) @ np.sqrt(np.diag(gramian)))
    return bool(weights @ gramian @ weights < RANK_TOLERANCE * added**2)


def require_gramian(inputs: WeightingInputs) -> np.ndarray:
    """The Gramian, present for every weighting with `needs_gramian`."""
    assert inputs.gramian is not None, "expected a Gramian: needs_gramian is set"
    return inputs.gramian

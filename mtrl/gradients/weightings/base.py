"""What a weighting is: from what is known of K task gradients to one weight per task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch


@dataclass(frozen=True)
class Evidence:
    """What is known of K task gradients g_1 .. g_K at one step."""

    losses: np.ndarray
    """[K] float64."""
    gramian: np.ndarray | None = None
    """[K, K] float64, inner products of the gradients; absent for weightings that need none."""
    persistence: np.ndarray | None = None
    """[K] float64, the cosine of each gradient with that of the step before; 0 at the first step."""


class Weighting(ABC):
    """Maps K task gradients to weights [K]; the update is sum_k weights[k] g_k.

    Solved in float64 on the processor: K x K is small, and one transfer is all it takes.
    """

    needs_gramian: ClassVar[bool] = True
    """Whether per-task gradients are needed at all; if not, one plain backward pass does."""
    needs_rows: ClassVar[bool] = False
    """Whether the method works on rows [K, *shape] itself, by `combine(rows)`, rather than through
    weights."""
    needs_persistence: ClassVar[bool] = False
    """Whether the gradients of the step before are needed, K x P numbers more."""
    needs_positive_losses: ClassVar[str] = ""
    """Why losses must be above 0; empty where they need not."""

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.deficient = False
        """Whether the latest Gramian lacked full rank, so that the solution was regularised."""

    @abstractmethod
    def weights(self, evidence: Evidence) -> np.ndarray:
        """[K] float64, finite."""

    def combine(self, rows: torch.Tensor) -> torch.Tensor:
        """[*shape] from one parameter's rows [K, *shape]; only called where `needs_rows`."""
        raise NotImplementedError("combine(rows) of a method that needs rows")

    def observe_post_step_losses(self, losses: np.ndarray) -> None:  # noqa: B027 - most weightings learn nothing from it
        """Takes the losses of the same batch after the update; only called where `needs_post_step`."""

    needs_post_step: ClassVar[bool] = False
    """Whether `observe_post_step_losses` must be called, at the price of one more forward pass."""

    def state_dict(self) -> dict[str, Any]:
        """What the next weights depend on."""
        return {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
            for name, value in ((name, getattr(self, name)) for name in self._state_names())
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        for name in self._state_names():
            value = state[name]
            setattr(self, name, value.numpy().copy() if isinstance(value, torch.Tensor) else value)

    def _state_names(self) -> tuple[str, ...]:
        """Attributes that change from step to step: arrays, numbers or None."""
        return ()


class GramianWeighting(Weighting):
    """A weighting that sees inner products alone; tasks without a gradient are left out and weigh 0."""

    def weights(self, evidence: Evidence) -> np.ndarray:
        """[K] float64; 0 for tasks whose gradient is zero."""
        gramian = require_gramian(evidence)
        active = np.flatnonzero(np.diag(gramian) > 0)
        found = np.zeros(len(gramian))
        if len(active):
            found[active] = self.solve(gramian[np.ix_(active, active)], active)
        return found

    @abstractmethod
    def solve(self, gramian: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Weights of the `active` tasks, whose Gramian this is; its diagonal is positive."""


def require_gramian(evidence: Evidence) -> np.ndarray:
    """The Gramian, which a weighting that asks for it is given."""
    assert evidence.gramian is not None, "the caller reads needs_gramian"
    return evidence.gramian

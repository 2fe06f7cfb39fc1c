"""A lane: one task times M copies, stepped in place into preallocated buffers.

Autoreset is SAME_STEP: when a copy's episode ends, the stored observation is already the first of
the next episode, and the true last one is kept sparsely in `finals`. Terminated (the problem ended)
and truncated (the clock or the caller ended it) are never merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation
from mtrl.tasks import Task


@dataclass(frozen=True)
class FinalObservation:
    """The observation with which an episode truly ended."""

    copy: int
    observation: Observation
    """Bucket -> [...], padded, without a copy axis."""


class Lane(Protocol):
    """The contract of every backend. Arrays are buffers, overwritten by the next `step`."""

    task: Task
    task_index: int
    copies: int
    supports_starts: bool
    backend: str
    """"python" (the official environment) or the name of a vector backend."""
    observation: Observation
    """Bucket -> [M, ...], padded."""
    reward: npt.NDArray[np.float32]
    """[M]"""
    terminated: npt.NDArray[np.bool_]
    """[M]"""
    truncated: npt.NDArray[np.bool_]
    """[M]"""
    success: npt.NDArray[np.bool_]
    """[M], the success signal after this step."""
    start_id: npt.NDArray[np.int64]
    """[M], start of the episode that the stored observation belongs to."""
    episode_id: npt.NDArray[np.int64]
    """[M], unique per (task, episode) in a run."""
    active: npt.NDArray[np.bool_]
    """[M], False once a copy has no start left."""
    finals: list[FinalObservation]
    """Episodes that ended in the last step."""

    def begin(self) -> None:
        """Resets every copy to the next start of the schedule; called once, before the first step."""

    def step(self, continuous: npt.NDArray[np.float32], discrete: npt.NDArray[np.int64]) -> None:
        """Steps every active copy. `continuous` [M, A_max] in [-1, 1], `discrete` [M].

        Raises SpaceError for an action outside the task's action space, EnvironmentFault when an
        environment fails.
        """

    def state_dict(self) -> dict[str, object]:
        """Start and actions so far of every copy: enough to rebuild the lane exactly."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Rebuilds by resetting to the start and repeating the actions."""

    def close(self) -> None:
        """Frees the simulators."""

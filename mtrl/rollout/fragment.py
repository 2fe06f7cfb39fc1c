"""A fragment: T consecutive decisions of one lane, time-major."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation
from mtrl.tasks import TaskSet

from .episodes import STEP_FIELDS
from .policy import Version

STEP_ARRAYS = (*STEP_FIELDS, "start_id", "episode_id")
"""The arrays of `Fragment` that are the same for every task."""


@dataclass
class Fragment:
    """T decisions of one lane with N copies. Contiguous arrays, 0.5-4 MB, made for transport.

    Holds the buckets that the task fills, padded, and no others: a state task among pixel tasks
    would carry a hundred times its size in zeros.

    `observations[bucket][t]` is what decision t saw; row T is what the next fragment will see first.
    Where an episode ended at t, row t + 1 is the first observation of the next episode and the true
    last one stands in the final observations: bootstrap a truncated step from there, and a terminated
    step from nothing.
    """

    task_index: int
    policy_version: Version
    """Weights that were in use when the fragment began."""
    observations: Observation
    """Bucket -> [T + 1, N, ...]; the buckets that the task fills."""
    continuous: npt.NDArray[np.float32]
    """[T, N, A_max]"""
    discrete: npt.NDArray[np.int64]
    """[T, N]"""
    reward: npt.NDArray[np.float32]
    """[T, N]"""
    terminated: npt.NDArray[np.bool_]
    """[T, N]"""
    truncated: npt.NDArray[np.bool_]
    """[T, N]"""
    success: npt.NDArray[np.bool_]
    """[T, N]"""
    start_id: npt.NDArray[np.int64]
    """[T + 1, N], start of the episode that observation t belongs to."""
    episode_id: npt.NDArray[np.int64]
    """[T + 1, N], episode that observation t belongs to; unique per task in a run."""
    final_index: npt.NDArray[np.int64]
    """[F, 2], (t, copy) of each episode end, in order."""
    final_observations: Observation
    """Bucket -> [F, ...], the true last observations."""
    extras: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Name -> [T, N, *shape], what the policy declared."""
    first_copy: int = 0
    """Index of the lane's first copy among all copies of the task."""
    first_step: int = 0
    """Decisions of each copy since the lane was opened, before this fragment."""
    epoch: int = 0
    """Times that the lane was reopened or moved: fragments of one lane follow on each other within one."""

    @property
    def steps(self) -> int:
        """Decisions in the fragment, T * N."""
        return int(self.reward.size)

    @property
    def nbytes(self) -> int:
        """Bytes of all its arrays."""
        rows = [*self.observations.values(), *self.final_observations.values(), *self.extras.values()]
        return sum(
            array.nbytes for array in (*rows, self.final_index, *(getattr(self, n) for n in STEP_ARRAYS))
        )

    def next_observations(self) -> Observation:
        """Bucket -> [T, N, ...]: the true successor of every decision, for bootstrapping.

        Where an episode ended this is its last observation, not the next episode's first.
        """
        successors: Observation = {}
        for bucket, rows in self.observations.items():
            following = rows[1:].copy()
            following[self.final_index[:, 0], self.final_index[:, 1]] = self.final_observations[bucket]
            successors[bucket] = following
        return successors


def fragment_bytes(tasks: TaskSet, task_index: int, copies: int, steps: int) -> int:
    """Size of the arrays of one fragment, but for its few final observations and the policy's extras."""
    layout = tasks.layout
    observation = sum(
        int(np.prod(layout.bucket_shape(b))) * layout.bucket_dtype(b).itemsize
        for b in tasks[task_index].observation.buckets
    )
    # discrete index, reward, three flags; start and episode
    decision = 4 * layout.continuous_size + 8 + 4 + 3
    return copies * ((steps + 1) * (observation + 16) + steps * decision)

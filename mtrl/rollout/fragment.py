"""A fragment: T consecutive decisions of one lane, time-major."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation

from .lane import Lane
from .policy import Action


@dataclass
class Fragment:
    """T decisions of one lane with N copies. Contiguous arrays, 0.5-4 MB, made for transport.

    Holds the buckets that the task fills, padded, and no others: a state task beside pixel tasks
    would carry a hundred times its size in zeros.

    `observations[bucket][t]` is what decision t saw; row T is what the next fragment will see first.
    Where an episode ended at t, row t + 1 is the first observation of the next episode and the true
    last one stands in the final observations: bootstrap a truncated step from there, and a terminated
    step from nothing.
    """

    task_index: int
    policy_version: int
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
    log_probability: npt.NDArray[np.float32]
    """[T, N]"""
    start_id: npt.NDArray[np.int64]
    """[T, N], start of the episode that decision t belongs to."""
    episode_id: npt.NDArray[np.int64]
    """[T, N]"""
    final_index: npt.NDArray[np.int64]
    """[F, 2], (t, copy) of each episode end, in order."""
    final_observations: Observation
    """Bucket -> [F, ...], the true last observations."""

    @property
    def steps(self) -> int:
        """Decisions in the fragment, T * N."""
        return int(self.reward.size)

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


class FragmentRecorder:
    """Fills the arrays of one fragment while a lane is stepped."""

    def __init__(self, lane: Lane, steps: int, version: int) -> None:
        """`steps` is T."""
        count = lane.copies
        self._lane, self._steps, self._t = lane, steps, 0
        self._finals: list[tuple[int, int]] = []
        self._rows = {b: lane.observation[b] for b in lane.task.observation.buckets}
        self._final_rows: dict[str, list[npt.NDArray[np.generic]]] = {b: [] for b in self._rows}
        self.fragment = Fragment(
            task_index=lane.task_index,
            policy_version=version,
            observations={
                b: np.zeros((steps + 1, *rows.shape), dtype=rows.dtype) for b, rows in self._rows.items()
            },
            continuous=np.zeros((steps, count, 0), dtype=np.float32),
            discrete=np.zeros((steps, count), dtype=np.int64),
            reward=np.zeros((steps, count), dtype=np.float32),
            terminated=np.zeros((steps, count), dtype=bool),
            truncated=np.zeros((steps, count), dtype=bool),
            success=np.zeros((steps, count), dtype=bool),
            log_probability=np.zeros((steps, count), dtype=np.float32),
            start_id=np.zeros((steps, count), dtype=np.int64),
            episode_id=np.zeros((steps, count), dtype=np.int64),
            final_index=np.zeros((0, 2), dtype=np.int64),
            final_observations={},
        )

    def before_step(self, action: Action) -> None:
        """Stores the observation that was acted on, the action, and whose episode it is."""
        fragment, lane, t = self.fragment, self._lane, self._t
        if t == 0:
            fragment.continuous = np.zeros(
                (self._steps, lane.copies, action.continuous.shape[1]), dtype=np.float32
            )
        for bucket, rows in self._rows.items():
            fragment.observations[bucket][t] = rows
        fragment.continuous[t], fragment.discrete[t] = action.continuous, action.discrete
        fragment.log_probability[t] = action.log_probability
        fragment.start_id[t], fragment.episode_id[t] = lane.start_id, lane.episode_id

    def after_step(self) -> None:
        """Stores what the step returned; call `finish` after T of these."""
        fragment, lane, t = self.fragment, self._lane, self._t
        fragment.reward[t], fragment.success[t] = lane.reward, lane.success
        fragment.terminated[t], fragment.truncated[t] = lane.terminated, lane.truncated
        for final in lane.finals:
            self._finals.append((t, final.copy))
            for bucket, kept in self._final_rows.items():
                kept.append(final.observation[bucket])
        self._t += 1

    def finish(self) -> Fragment:
        """The complete fragment."""
        fragment = self.fragment
        assert self._t == self._steps, "a fragment holds exactly T steps"
        fragment.final_index = np.array(self._finals, dtype=np.int64).reshape(-1, 2)
        for bucket, rows in self._rows.items():
            fragment.observations[bucket][self._steps] = rows
            kept = self._final_rows[bucket]
            shape = (len(kept), *rows.shape[1:])
            fragment.final_observations[bucket] = np.array(kept, dtype=rows.dtype).reshape(shape)
        return fragment

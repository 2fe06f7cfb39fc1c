"""Demonstrations of one task, flat in memory: arrays over all steps, and where each episode begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError
from mtrl.rollout import Episodes

STEP_FIELDS = ("actions", "labels", "rewards", "terminated", "truncated", "success")
"""The arrays with one row per decision."""

LAST_REWARDS = 10
"""Rewards whose mean stands for those after the end of an episode that was cut."""


@dataclass(frozen=True)
class Windows:
    """Rows to gather for chunked imitation, one entry for each of the N decisions."""

    observation_rows: npt.NDArray[np.int64]
    """[N, history], rows of `observations`, oldest first; the last is what the decision saw. Before an
    episode's first observation that one is repeated."""
    action_rows: npt.NDArray[np.int64]
    """[N, chunk], rows of `actions` and `labels` from this decision on; after an episode's last that one
    is repeated."""
    real: npt.NDArray[np.bool_]
    """[N, chunk], True where the action row is real, False where it repeats the last one."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """E episodes of one task in its own, unpadded sizes.

    Episode e has T_e = offsets[e + 1] - offsets[e] >= 1 decisions and T_e + 1 observations: decision t of
    episode e is row `offsets[e] + t` of the arrays over decisions, and row `offsets[e] + e + t` of the
    observations is what it saw. Raises SpaceError when the arrays do not fit each other.
    """

    observations: Mapping[str, npt.NDArray[np.generic]]
    """Bucket -> [sum(T_e + 1), ...]: `state` float32 [.., D], `pixels` uint8 [.., C, H, W]."""
    actions: npt.NDArray[Any]
    """Executed actions: float32 [sum T_e, A] in [-1, 1], or int64 [sum T_e] for a discrete task."""
    labels: npt.NDArray[Any]
    """The expert's clean action at the same observation, shaped and typed as `actions`; they differ where
    noise was added."""
    rewards: npt.NDArray[np.float32]
    """[sum T_e]"""
    terminated: npt.NDArray[np.bool_]
    """[sum T_e], the problem itself ended."""
    truncated: npt.NDArray[np.bool_]
    """[sum T_e], the episode was cut."""
    success: npt.NDArray[np.bool_]
    """[sum T_e], the success signal after each decision."""
    offsets: npt.NDArray[np.int64]
    """[E + 1], first decision of each episode; offsets[0] = 0 and offsets[E] = sum T_e."""
    start_id: npt.NDArray[np.int64]
    """[E], the start that each episode began from."""

    def __post_init__(self) -> None:
        if (
            self.offsets.ndim != 1
            or len(self.offsets) < 1
            or self.offsets[0] != 0
            or (self.lengths < 1).any()
        ):
            raise SpaceError(f"offsets begin at 0 and ascend by at least one decision; got {self.offsets}")
        count = self.step_count
        if self.start_id.shape != (self.episode_count,):
            raise SpaceError(f"start_id has shape {self.start_id.shape}; expected ({self.episode_count},)")
        for name in STEP_FIELDS:
            if len(getattr(self, name)) != count:
                raise SpaceError(
                    f"{name} has {len(getattr(self, name))} rows; expected {count}, one per decision"
                )
        if self.actions.shape != self.labels.shape or self.actions.dtype != self.labels.dtype:
            raise SpaceError(
                f"labels are shaped as actions; got {self.labels.dtype} {self.labels.shape} "
                f"and {self.actions.dtype} {self.actions.shape}"
            )
        if (self.actions.dtype.name, self.actions.ndim) not in (("float32", 2), ("int64", 1)):
            raise SpaceError(
                "actions are float32 [steps, A], or int64 [steps] for a discrete task; "
                f"got {self.actions.dtype} {self.actions.shape}"
            )
        for bucket, rows in self.observations.items():
            if len(rows) != count + self.episode_count:
                raise SpaceError(
                    f"observations[{bucket!r}] has {len(rows)} rows; expected {count + self.episode_count}, "
                    "one per decision and one more per episode"
                )

    @property
    def episode_count(self) -> int:
        """Number of episodes E."""
        return len(self.offsets) - 1

    @property
    def step_count(self) -> int:
        """Decisions in all episodes, sum T_e."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """[E], decisions per episode T_e."""
        return np.diff(self.offsets)

    @property
    def is_discrete(self) -> bool:
        """Whether actions are indices."""
        return self.actions.ndim == 1

    def windows(self, history: int, chunk: int) -> Windows:
        """For every decision, the rows of its last `history` observations and of its next `chunk` actions."""
        episode = np.repeat(np.arange(self.episode_count), self.lengths)
        step = np.arange(self.step_count)
        first, last = self.offsets[episode], self.offsets[episode + 1] - 1
        seen = step[:, None] + np.arange(1 - history, 1)
        ahead = step[:, None] + np.arange(chunk)
        return Windows(
            observation_rows=np.maximum(seen, first[:, None]) + episode[:, None],
            action_rows=np.minimum(ahead, last[:, None]),
            real=ahead <= last[:, None],
        )

    def future(self, chunk: int, stride: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """For every decision, the rows of the observations `stride`, 2 `stride`, ... decisions later,
        [N, chunk], and whether they are there; after an episode's last observation that one is repeated.
        """
        episode = np.repeat(np.arange(self.episode_count), self.lengths)
        ahead = np.arange(self.step_count)[:, None] + stride * np.arange(1, chunk + 1)
        last = self.offsets[episode + 1][:, None]
        return np.minimum(ahead, last) + episode[:, None], ahead <= last

    def transitions(self) -> npt.NDArray[np.float64]:
        """Every decision as a row [sum T_e, 2 D + A + 3]: state, executed action, reward, terminated,
        success, next state. Of continuous tasks with states.
        """
        now = np.arange(self.step_count) + np.repeat(np.arange(self.episode_count), self.lengths)
        states = self.observations["state"]
        flags = np.stack([self.rewards, self.terminated, self.success], axis=1)
        parts = [states[now], self.actions, flags, states[now + 1]]
        return np.concatenate(parts, axis=1, dtype=np.float64)

    def returns(self, discount: float, horizon: int) -> npt.NDArray[np.float64]:
        """[E], the discounted return of every episode had it gone on to `horizon` decisions: one that was cut
        goes on with the mean of its last rewards, so that a success that ended the recording counts for more
        than a failure that took all the time.
        """
        found = np.zeros(self.episode_count)
        for e, (first, last) in enumerate(pairwise(self.offsets)):
            rewards = self.rewards[first:last].astype(np.float64)
            if not self.terminated[last - 1] and len(rewards) < horizon:
                missing = horizon - len(rewards)
                rewards = np.concatenate([rewards, np.full(missing, rewards[-LAST_REWARDS:].mean())])
            found[e] = rewards @ discount ** np.arange(len(rewards))
        return found

    def select(self, episodes: Sequence[int] | npt.NDArray[np.integer]) -> Trajectories:
        """The listed episodes, in the listed order."""
        keep = np.asarray(episodes, dtype=np.int64)
        lengths = self.lengths[keep]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        steps = np.arange(offsets[-1]) + np.repeat(self.offsets[keep] - offsets[:-1], lengths)
        first_rows = self.offsets[keep] + keep
        new_rows = offsets[:-1] + np.arange(len(keep))
        rows = np.arange(offsets[-1] + len(keep)) + np.repeat(first_rows - new_rows, lengths + 1)
        return Trajectories(
            observations={bucket: values[rows] for bucket, values in self.observations.items()},
            offsets=offsets,
            start_id=self.start_id[keep],
            **{name: getattr(self, name)[steps] for name in STEP_FIELDS},
        )

    @staticmethod
    def merged(parts: Sequence[Trajectories]) -> Trajectories:
        """The episodes of all parts in a row, which are of one task."""
        sizes = [part.step_count for part in parts]
        offsets = [
            part.offsets[1:] + before for part, before in zip(parts, np.cumsum([0, *sizes]), strict=False)
        ]
        return Trajectories(
            observations={
                bucket: np.concatenate([part.observations[bucket] for part in parts])
                for bucket in parts[0].observations
            },
            offsets=np.concatenate([[0], *offsets]).astype(np.int64),
            start_id=np.concatenate([part.start_id for part in parts]),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in STEP_FIELDS},
        )

    @staticmethod
    def from_episodes(episodes: Episodes) -> Trajectories:
        """Collected episodes as demonstrations, sharing their arrays.

        A discrete task's executed index is its label too.
        """
        discrete = episodes.continuous.shape[1] == 0
        return Trajectories(
            observations=dict(episodes.observations),
            actions=episodes.discrete if discrete else episodes.continuous,
            labels=episodes.discrete if discrete else episodes.label,
            rewards=episodes.reward,
            terminated=episodes.terminated,
            truncated=episodes.truncated,
            success=episodes.success,
            offsets=episodes.offsets,
            start_id=episodes.start_id,
        )

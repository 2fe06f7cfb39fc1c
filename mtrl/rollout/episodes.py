"""Whole episodes of one task, ragged, stored flat with offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.spaces import Observation

from .policy import Version


@dataclass(frozen=True)
class EpisodeSummary:
    """Summary of an episode: all that evaluation keeps of it."""

    task_index: int
    start: int
    repeat: int
    """Distinguishes several episodes of one start."""
    episode_return: float
    """Undiscounted sum of rewards."""
    length: int
    """Decisions."""
    success_any: bool
    """The success signal was on after at least one decision."""
    success_end: bool
    """The success signal was on after the last decision."""
    first_success: int | None
    """Decisions until the signal was first on, None if never."""
    terminated: bool
    truncated: bool

    @staticmethod
    def of(
        rewards: npt.ArrayLike,
        successes: npt.ArrayLike,
        *,
        task_index: int,
        start: int,
        repeat: int = 0,
        terminated: bool,
    ) -> EpisodeSummary:
        """Of an episode that has ended: rewards [T], and the success signal after each decision [T]."""
        signal = np.asarray(successes, dtype=bool)
        first = int(signal.argmax()) + 1 if signal.any() else None
        return EpisodeSummary(
            task_index=task_index,
            start=start,
            repeat=repeat,
            episode_return=float(np.asarray(rewards, dtype=np.float64).sum()),
            length=len(signal),
            success_any=first is not None,
            success_end=bool(signal[-1]),
            first_success=first,
            terminated=terminated,
            truncated=not terminated,
        )


@dataclass
class Episodes:
    """E whole episodes of one task in their own, unpadded sizes.

    Episode e has T_e = offsets[e + 1] - offsets[e] decisions and T_e + 1 observations. Decision t of
    episode e is row `offsets[e] + t` of the per-step arrays and saw row `offsets[e] + e + t` of the
    observations; the last observation is kept.
    """

    task_index: int
    policy_version: Version
    summaries: tuple[EpisodeSummary, ...]
    offsets: npt.NDArray[np.int64]
    """[E + 1], offsets[0] = 0."""
    observations: Observation
    """Bucket -> [sum(T_e + 1), ...]; state has the task's own length."""
    continuous: npt.NDArray[np.float32]
    """[sum T_e, A_task], executed actions in [-1, 1]."""
    discrete: npt.NDArray[np.int64]
    """[sum T_e]"""
    reward: npt.NDArray[np.float32]
    """[sum T_e]"""
    terminated: npt.NDArray[np.bool_]
    """[sum T_e]"""
    truncated: npt.NDArray[np.bool_]
    """[sum T_e]"""
    success: npt.NDArray[np.bool_]
    """[sum T_e]"""
    extras: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Name -> [sum T_e, *shape], what the policy declared."""

    def __len__(self) -> int:
        return len(self.summaries)

    @property
    def start_id(self) -> npt.NDArray[np.int64]:
        """[E]"""
        return np.array([summary.start for summary in self.summaries], dtype=np.int64)

    @property
    def label(self) -> npt.NDArray[np.float32]:
        """[sum T_e, A_task], the clean action where the policy records one as "label" [A_max], having
        perturbed what it executed on purpose (DART); `continuous` otherwise.
        """
        if "label" not in self.extras:
            return self.continuous
        return np.ascontiguousarray(self.extras["label"][:, : self.continuous.shape[1]])

    def select(self, keep: Sequence[int]) -> Episodes:
        """The listed episodes, in the listed order."""
        first, last, none = self.offsets[:-1], self.offsets[1:], np.zeros(0, dtype=np.int64)
        steps = np.concatenate([none, *(np.arange(first[e], last[e]) for e in keep)])
        rows = np.concatenate([none, *(np.arange(first[e] + e, last[e] + e + 1) for e in keep)])
        lengths = [last[e] - first[e] for e in keep]
        return Episodes(
            task_index=self.task_index,
            policy_version=self.policy_version,
            summaries=tuple(self.summaries[e] for e in keep),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
            observations={bucket: values[rows] for bucket, values in self.observations.items()},
            extras={name: values[steps] for name, values in self.extras.items()},
            **{name: getattr(self, name)[steps] for name in STEP_FIELDS},
        )

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """Joins episodes of one task in the given order."""
        first = parts[0]
        assert all(part.task_index == first.task_index for part in parts), "all episodes must be of one task"
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return Episodes(
            task_index=first.task_index,
            policy_version=max(part.policy_version for part in parts),
            summaries=tuple(summary for part in parts for summary in part.summaries),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            observations={
                bucket: np.concatenate([part.observations[bucket] for part in parts])
                for bucket in first.observations
            },
            extras={name: np.concatenate([part.extras[name] for part in parts]) for name in first.extras},
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in STEP_FIELDS},
        )


STEP_FIELDS = ("continuous", "discrete", "reward", "terminated", "truncated", "success")
"""The per-step arrays that all `Episodes` have."""

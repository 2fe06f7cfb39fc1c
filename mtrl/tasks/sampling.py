"""Task samplers: which share of the experience, or of the updates, each task of a set receives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, UnknownNameError
from mtrl.structured import POSITIVE, SHARE, UNIT, Checked, Range, at_least, check

from .task import Task

Shares = npt.NDArray[np.float64]
"""[K], all above 0, sums to 1."""


@dataclass(frozen=True)
class SamplingConfig(Checked, place="sampling"):
    """Settings of the tasks' shares of collected experience and, if configured, of the updates."""

    kind: str = "uniform"
    """"uniform": equal shares. "learning_progress": more for a task whose score changes, either way.
    "worst_task": more for a task whose score is low."""
    collection: bool = True
    """Collect in proportion to the shares."""
    updates: bool = False
    """Also let a task count in the updates in proportion to its share, where the agent can."""
    floor: Annotated[float, SHARE] = 0.2
    """Part of the shares that is equal for all tasks, above 0, at most 1; 0.2 in ALP-GMM."""
    temperature: Annotated[float, POSITIVE] = 0.25
    """Temperature of the softmax over -score of "worst_task", above 0; at 0.25 a score of 0 weighs 55 times
    one of 1."""
    short_episodes: Annotated[float, at_least(1)] = 10.0
    """Memory of the short moving average in episodes of a task, at least 1."""
    long_episodes: float = 50.0
    """Memory of the long moving average in episodes, above `short_episodes`."""
    solved_share: Annotated[float, SHARE] = 1.0
    """Part of its share that a solved task keeps, above 0, at most 1; 1 treats solved tasks as any other."""
    solved_score: Annotated[float, UNIT] = 0.9
    """A task is solved while the mean score of its last episodes is at least this; 0 to 1."""
    solved_episodes: Annotated[int, at_least(1)] = 20
    """Number of last episodes that decide whether a task is solved, at least 1."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("sampling.kind", self.kind, KINDS)
        super().__post_init__()
        check(self, "sampling", long_episodes=Range(self.short_episodes, includes_low=False))
        if not self.is_uniform and not (self.collection or self.updates):
            raise ConfigError(
                "the shares of sampling would change nothing; "
                "set sampling.collection=true, sampling.updates=true, or sampling.kind=uniform"
            )

    @property
    def is_uniform(self) -> bool:
        """Whether every task always has the same share, so that no sampler is needed."""
        return self.kind == "uniform" and self.solved_share == 1


class TaskSampler:
    """Shares from the scores of finished episodes; deterministic.

    A score is the success of an episode, or its return normalised by the task's range and clipped to 0..1.
    A task without a finished episode, or without a known range of returns, keeps the share 1 / K; the
    others divide what is left. Each of them receives `floor` of an equal part and the rest by preference:

    - uniform: equal preferences;
    - learning progress: |short - long|, the distance of a short and a long moving average of the score.
      Absolute, so that a task that is being forgotten comes back (Matiisen et al. 2017, "Teacher-Student
      Curriculum Learning"; Portelas et al. 2019, ALP-GMM; the two averages: Kanitscheider et al. 2021);
    - worst task: softmax(-short / temperature) (Sharma et al. 2017, "Learning to Multi-Task by Active
      Sampling", where the distance to a target score takes the place of -score).

    Last, solved tasks keep `solved_share` of what they would get, and the unsolved ones with a score take
    the rest in proportion. When all are solved nothing is left to take it, and the shares stay.
    """

    def __init__(self, config: SamplingConfig, tasks: Sequence[Task]) -> None:
        """Begins without episodes."""
        self.config = config
        self._scores = tuple(task.score for task in tasks)
        self._short = np.zeros(len(tasks))
        self._long = np.zeros(len(tasks))
        self._recent: list[deque[float]] = [deque(maxlen=config.solved_episodes) for _ in tasks]

    def observe(self, task_index: int, episode_return: float, success: bool) -> None:
        """Records a finished episode of a task."""
        score = self._scores[task_index]
        if not score.is_normalised:
            return
        # s in [0, 1]; m <- m + (s - m) / n with n = 1 at first, then the memory in episodes
        value = min(1.0, max(0.0, score.normalise(episode_return, success)))
        k, first = task_index, not self._recent[task_index]
        self._short[k] += (value - self._short[k]) / (1.0 if first else self.config.short_episodes)
        self._long[k] += (value - self._long[k]) / (1.0 if first else self.config.long_episodes)
        self._recent[k].append(value)

    @property
    def shares(self) -> Shares:
        """Share of each task from now on."""
        count = len(self._scores)
        known = np.array([bool(recent) for recent in self._recent])
        shares = np.full(count, 1.0 / count)
        if not known.any():
            return shares
        preferred = KINDS[self.config.kind](self.config, self._short[known], self._long[known])
        # share_k = n / K (floor / n + (1 - floor) p_k) over the n tasks with a score
        mixed = self.config.floor / len(preferred) + (1.0 - self.config.floor) * preferred
        shares[known] = known.sum() / count * mixed
        return self._reduced(shares, known) if self.config.solved_share < 1 else shares

    @property
    def solved(self) -> npt.NDArray[np.bool_]:
        """[K], whether the last `solved_episodes` episodes, and no fewer, reach `solved_score` on average."""
        needed = self.config.solved_episodes
        return np.array(
            [
                len(recent) == needed and sum(recent) / needed >= self.config.solved_score - 1e-9
                for recent in self._recent
            ]
        )

    def state_dict(self) -> dict[str, Any]:
        """Averages and last scores, as JSON has them."""
        return {
            "short": self._short.tolist(),
            "long": self._long.tolist(),
            "recent": [list(recent) for recent in self._recent],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict` of a sampler of the same tasks and settings."""
        self._short[:], self._long[:] = state["short"], state["long"]
        for recent, saved in zip(self._recent, state["recent"], strict=True):
            recent.clear()
            recent.extend(float(value) for value in saved)

    def _reduced(self, shares: Shares, known: npt.NDArray[np.bool_]) -> Shares:
        """The shares, with those of solved tasks moved to unsolved ones, first to those with a score."""
        solved = self.solved
        takers = known & ~solved if (known & ~solved).any() else ~solved
        if not solved.any() or not takers.any():
            return shares
        # what solved tasks give up is divided in proportion to the takers' shares
        kept = np.where(solved, self.config.solved_share * shares, shares)
        freed = shares.sum() - kept.sum()
        return np.where(takers, kept * (1.0 + freed / kept[takers].sum()), kept)


def sampler_for(config: SamplingConfig, tasks: Sequence[Task]) -> TaskSampler | None:
    """The configured sampler; None for shares that never change."""
    return None if config.is_uniform else TaskSampler(config, tasks)


def _equal(config: SamplingConfig, short: Shares, long: Shares) -> Shares:
    return np.full(len(short), 1.0 / len(short))


def _by_progress(config: SamplingConfig, short: Shares, long: Shares) -> Shares:
    # p_k = |short_k - long_k| / sum_j |short_j - long_j|
    progress = np.abs(short - long)
    total = progress.sum()
    # no task moves, as before any has been learned: no task is preferred
    return progress / total if total > 1e-12 else _equal(config, short, long)


def _by_failure(config: SamplingConfig, short: Shares, long: Shares) -> Shares:
    # p_k = softmax(-short_k / temperature); the smallest is subtracted for the range of exp
    weights = np.exp((short.min() - short) / config.temperature)
    return weights / weights.sum()


KINDS: Mapping[str, Callable[[SamplingConfig, Shares, Shares], Shares]] = {
    "uniform": _equal,
    "learning_progress": _by_progress,
    "worst_task": _by_failure,
}
"""Name -> preferences [K], which sum to 1, from the short and the long average of each task's score."""

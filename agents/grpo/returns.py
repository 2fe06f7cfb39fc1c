"""From episodes to advantages; equations of Shao et al. 2024 (GRPO, arXiv 2402.03300) unless named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtrl.rollout import EpisodeGroup
from mtrl.tasks import Task

from .config import ReturnConfig

Rows = npt.NDArray[np.float64]


def counts_success(task: Task, config: ReturnConfig) -> bool:
    """Whether episodes of the task are worth their success rather than their rewards."""
    return config.kind == "success" or (config.kind == "auto" and task.score.kind == "success")


def reward_unit(task: Task) -> float:
    """What rewards are divided by: the task's range of returns, or its horizon where none is known."""
    low, high = task.score.low, task.score.high
    if task.score.kind == "return" and low is not None and high is not None:
        return high - low
    return float(task.horizon_decisions)


def episode_rewards(group: EpisodeGroup, task: Task, config: ReturnConfig) -> list[Rows]:
    """[G] arrays [T_e] whose discounted sum is the return of an episode."""
    parts = np.split(group.reward.astype(np.float64), group.offsets[1:-1])
    if not counts_success(task, config):
        return [part / reward_unit(task) for part in parts]
    found = []
    for part, summary in zip(parts, group.summaries, strict=True):
        rewards = np.zeros(len(part))
        if summary.first_success is not None:
            # a success is worth R = 1 + b (1 - t / T)
            left = 1.0 - summary.first_success / task.horizon_decisions
            rewards[summary.first_success - 1] = 1.0 + config.time_bonus * left
        found.append(rewards)
    return found


def returns_to_go(rewards: Rows, discount: float) -> Rows:
    """G_t = r_t + gamma G_{t+1}, [T]."""
    found, running = np.empty(len(rewards)), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        found[t] = running = rewards[t] + discount * running
    return found


def centred(rewards: Sequence[Rows], discount: float, baseline: str) -> list[Rows]:
    """[G] arrays [T_e]: R_i less the mean of the group for every decision, or with the baseline "step" G_it
    less the mean over the episodes that are under way at t. Exactly 0 for equal returns.
    """
    returns = [returns_to_go(part, discount) for part in rewards]
    if baseline == "episode":
        whole = np.array([part[0] for part in returns])
        offsets = whole - whole.mean() if np.ptp(whole) > 0 else np.zeros(len(whole))
        return [np.full(len(part), offset) for part, offset in zip(returns, offsets, strict=True)]
    longest = max(map(len, returns))
    table = np.full((len(returns), longest), np.nan)
    for row, part in zip(table, returns, strict=True):
        row[: len(part)] = part
    equal = np.nanmax(table, axis=0) == np.nanmin(table, axis=0)
    offsets = np.where(equal, 0.0, table - np.nanmean(table, axis=0))
    return [row[: len(part)] for row, part in zip(offsets, returns, strict=True)]


def deviation(parts: Sequence[Rows]) -> float:
    """Root mean square of centred returns: of episodes where each has one for all its decisions, else of
    decisions.
    """
    if all((part == part[0]).all() for part in parts):
        values = np.array([part[0] for part in parts])
    else:
        values = np.concatenate(parts)
    return float(np.sqrt(np.mean(values**2)))

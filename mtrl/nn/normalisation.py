"""Per-task scales of observations and rewards."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtrl.rollout import Fragment
from mtrl.spaces import Layout, Moments


class TaskNormaliser(nn.Module):
    """Standardises padded states by the mean and scale of their own task, buffers of the network."""

    mean: Tensor
    """[T, D_max]"""
    scale: Tensor
    """[T, D_max]"""

    def __init__(self, layout: Layout, clip: float = 5.0) -> None:
        """Mean 0 and scale 1 until `set_moments`; standardised entries are clipped to +-`clip`."""
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(layout.task_count, layout.state_size))
        self.register_buffer("scale", torch.ones(layout.task_count, layout.state_size))

    def set_moments(self, moments: Moments, task: int | slice = slice(None)) -> None:
        """Copies the statistics of one task, or of all."""
        self.mean[task] = torch.as_tensor(moments.mean[task])
        self.scale[task] = torch.as_tensor(moments.scale[task])

    def standardise(self, states: Tensor, task: Tensor) -> Tensor:
        """(states - mean) / scale, clipped: states [K, ..., D_max] of tasks [K] -> the same shape."""
        mean, scale = self.mean.index_select(0, task), self.scale.index_select(0, task)
        for _ in range(states.ndim - 2):
            mean, scale = mean.unsqueeze(1), scale.unsqueeze(1)
        return ((states - mean) / scale).clamp(-self.clip, self.clip)


class RewardScale:
    """Tracks G_t = r_t + gamma G_{t-1} within each episode, and the largest |G| so far per task.

    Dividing rewards by (largest |G| / value_range) brings values to the order of value_range; it is no bound,
    since G_t sums over past rewards and a value over future ones. After BRC (Nauman et al.
    2025, section 4), without its entropy term.
    """

    def __init__(
        self, task_count: int, discount: float | npt.NDArray[np.float32], value_range: float
    ) -> None:
        """`discount` of all tasks, or [K]."""
        self.largest = np.zeros(task_count, dtype=np.float64)
        self._discount = np.broadcast_to(discount, task_count)
        self._value_range = value_range
        self._running: dict[tuple[int, int], float] = {}

    @property
    def scale(self) -> npt.NDArray[np.float32]:
        """[T], what rewards are divided by; 1 for a task without any but 0 so far."""
        scale = np.where(self.largest > 0, self.largest / self._value_range, 1.0)
        return np.clip(scale, np.finfo(np.float32).tiny, np.finfo(np.float32).max).astype(np.float32)

    def add(self, fragment: Fragment) -> None:
        """Updates the returns with a fragment; fragments of one lane come in order."""
        k, steps = fragment.task_index, len(fragment.reward)
        running = np.array([self._running.pop((k, int(e)), 0.0) for e in fragment.episode_id[0]])
        ended = fragment.terminated | fragment.truncated
        for t in range(steps):
            running = fragment.reward[t] + float(self._discount[k]) * running
            self.largest[k] = max(self.largest[k], float(np.abs(running).max()))
            running[ended[t]] = 0.0
        for copy in np.flatnonzero(~ended[-1]):
            self._running[k, int(fragment.episode_id[-1, copy])] = float(running[copy])

    def add_episodes(
        self, task: int, reward: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]
    ) -> None:
        """Updates the returns with whole episodes; episode e is rows offsets[e] to offsets[e + 1]."""
        discount = float(self._discount[task])
        for begin, end in pairwise(offsets):
            running = 0.0
            for value in reward[begin:end].tolist():
                running = value + discount * running
                self.largest[task] = max(self.largest[task], abs(running))

    def state_dict(self) -> dict[str, Any]:
        """The largest returns, and those of episodes under way."""
        return {"largest": self.largest.copy(), "running": dict(self._running)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.largest[:] = state["largest"]
        self._running = {(int(k), int(e)): float(v) for (k, e), v in state["running"].items()}

"""Small Gymnasium environments that keep or break the rules, for tests of the gym suite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

Step = tuple[Any, Any, bool, bool, dict[str, Any]]


class Counter(gymnasium.Env[Any, Any]):
    """Observes (steps so far, a number drawn at reset); the reward is the number of steps."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Box(
            np.array([0.0, -1.0], np.float32), np.array([100.0, 1.0], np.float32)
        )
        self.action_space: gymnasium.Space[Any] = spaces.Box(
            np.array([-2.0, 0.0], np.float32), np.array([6.0, 0.5], np.float32)
        )
        self.steps = 0
        self.actions: list[Any] = []
        self.drawn = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps, self.actions = 0, []
        self.drawn = float(self.np_random.uniform(-1.0, 1.0))
        return self.observed(), {}

    def step(self, action: Any) -> Step:
        self.steps += 1
        self.actions.append(action)
        return self.observed(), float(self.steps), False, False, {}

    def observed(self) -> Any:
        return np.array([self.steps, self.drawn], dtype=np.float32)

    def render(self) -> Any:
        return np.full((8, 10, 3), self.steps, dtype=np.uint8)


class Showing(Counter):
    """Observes what a function of the steps so far returns, whatever its space says."""

    def __init__(self, space: gymnasium.Space[Any], shown: Callable[[int], Any]) -> None:
        super().__init__()
        self.observation_space = space
        self.shown = shown

    def observed(self) -> Any:
        return self.shown(self.steps)


class Ending(Counter):
    """Ends after some steps in one of Gymnasium's two ways; the last step is a success."""

    def __init__(self, steps: int, terminated: bool, truncated: bool, key: str = "is_success") -> None:
        super().__init__()
        self.last, self.flags, self.key = steps, (terminated, truncated), key

    def step(self, action: Any) -> Step:
        observation, reward, *_ = super().step(action)
        over = self.steps >= self.last
        return observation, reward, over and self.flags[0], over and self.flags[1], {self.key: np.bool_(over)}


class Forgetful(Counter):
    """Draws from a generator of its own, which no seed reaches: at the reset or in an episode."""

    def __init__(self, at_reset: bool) -> None:
        super().__init__()
        self.at_reset = at_reset
        self.own = np.random.default_rng()

    def observed(self) -> Any:
        if self.at_reset or self.steps > 3:
            return np.array([self.steps, self.own.uniform(-1.0, 1.0)], dtype=np.float32)
        return super().observed()


class Remembering(Counter):
    """Seeded, but begins an episode where the one before ended."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def step(self, action: Any) -> Step:
        self.total += 1
        return super().step(action)

    def observed(self) -> Any:
        return np.array([self.total, self.drawn], dtype=np.float32)

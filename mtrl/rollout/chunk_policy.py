"""Acting with planned chunks: a queue of actions per copy, refilled by a planner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, OutOfRangeError
from mtrl.spaces import Observation

from .policy import Acting, Action, Extra, PolicyState

Planner = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]
]
"""(state history [N, h, D_max], task [N], noise z [N, Z]) -> chunk [N, H, A_max]. Z may be 0."""


@dataclass(frozen=True)
class Execution:
    """How a planned chunk is carried out."""

    steps: int = 4
    """Actions executed before the next plan, 1 to the chunk's length."""
    noise: str = "chunk"
    """Where z comes from: "chunk" draws for every plan, "episode" once per episode, "zero" never."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OutOfRangeError("execution.steps", self.steps, "1 to the chunk's length")
        if self.noise not in ("chunk", "episode", "zero"):
            raise ConfigError(f"execution.noise is 'chunk', 'episode' or 'zero'; got {self.noise!r}")


class ChunkPolicy:
    """Executes the first `steps` actions of each planned chunk, then plans again.

    State per copy: the last h states, the queue, its read position, and the episode's noise.
    """

    extras: tuple[Extra, ...] = ()

    def __init__(
        self,
        planner: Planner,
        *,
        history: int,
        state_size: int,
        chunk: int,
        actions: int,
        noise_size: int,
        execution: Execution,
        version: int = 0,
        teacher: object | None = None,
    ) -> None:
        """Sizes are h, D_max, H, A_max and Z; `teacher` is the planner as a
        `mtrl.distillation.ChunkTeacher`, where it can be distilled.
        """
        if execution.steps > chunk:
            raise OutOfRangeError("execution.steps", execution.steps, f"1 to the chunk's length {chunk}")
        self.version = version
        self.teacher = teacher
        """What can be distilled, or None."""
        self._planner, self._execution = planner, execution
        self._history, self._state_size = history, state_size
        self._chunk, self._actions, self._noise_size = chunk, actions, noise_size

    def initial_state(self, count: int) -> PolicyState:
        """Empty queues."""
        return {
            "history": np.zeros((count, self._history, self._state_size), dtype=np.float32),
            "queue": np.zeros((count, self._chunk, self._actions), dtype=np.float32),
            "position": np.full(count, self._chunk, dtype=np.int64),
            "noise": np.zeros((count, self._noise_size), dtype=np.float32),
        }

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Plans for the copies whose queue ran out, pops one action for everyone."""
        now = observation["state"]
        # Copies, so that the caller's state stays what it was.
        history = np.concatenate([state["history"][:, 1:], now[:, None]], axis=1).astype(np.float32)
        history[ended] = now[ended][:, None]
        queue, position = state["queue"].copy(), state["position"].copy()
        noise = state["noise"].copy()
        position[ended] = self._chunk
        plan = np.flatnonzero(position >= self._execution.steps)
        if len(plan):
            for copy in map(int, plan):
                if self._execution.noise == "chunk" or (self._execution.noise == "episode" and ended[copy]):
                    noise[copy] = generators[copy].standard_normal(self._noise_size, dtype=np.float32)
            queue[plan] = self._planner(history[plan], task_index[plan], noise[plan])
            position[plan] = 0
        rows = np.arange(len(now))
        continuous = np.clip(queue[rows, position], -1.0, 1.0).astype(np.float32)
        return Action(
            continuous=continuous,
            discrete=np.zeros(len(now), dtype=np.int64),
            state={"history": history, "queue": queue, "position": position + 1, "noise": noise},
        )

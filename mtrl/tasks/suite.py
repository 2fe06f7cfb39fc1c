"""A suite: a family of tasks behind one adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .task import Option, Task

Buffers = Mapping[str, npt.NDArray[np.generic]]
"""Bucket -> array of an observation: `state` float32, `pixels` uint8; to read, or to write into."""
TaskAction = npt.NDArray[np.float32] | int
"""float32 [A_task] in [-1, 1], or an index."""
VectorAction = npt.NDArray[np.float32] | npt.NDArray[np.int64]
"""float32 [M, A_task] in [-1, 1], or indices int64 [M]."""


class Environment(Protocol):
    """One copy of one task, in the task's own unpadded sizes. The lane adds everything else.

    The adapter applies the task's action repeat and scales actions from [-1, 1]; the lane counts
    decisions, truncates at the horizon, pads, resets and keeps statistics.
    """

    def reset(self, start: int, out: Buffers) -> None:
        """Puts the simulator into the initial state named by `start` and writes the first observation.

        `out`: `state` float32 [D_task] and/or `pixels` uint8 [C, H, W], views to write into. The
        result must not depend on anything that happened before.
        """

    def step(self, action: TaskAction, out: Buffers) -> tuple[float, bool, bool]:
        """Acts for one decision and writes the next observation into `out`.

        `action`: float32 [A_task] in [-1, 1], or an index. Returns reward (of the whole repeat: its sum,
        or the mean in Meta-World), terminated (the problem itself ended) and success (the suite's success
        signal now).
        """

    def render(self) -> npt.NDArray[np.uint8]:
        """An RGB frame [H, W, 3]; raises MissingExtraError or UnsupportedError when it cannot."""

    def close(self) -> None:
        """Frees the simulator."""


@runtime_checkable
class SelfTruncating(Protocol):
    """An environment with a step limit of its own, which may end an episode before the task's horizon."""

    truncated: bool
    """After a step: whether the environment cut the episode off. Never together with terminated."""


class VectorEnvironment(Protocol):
    """M copies of one task behind a compiled vector backend, stepped together without the interpreter's
    lock, in the task's own unpadded sizes. The lane counts decisions, ends episodes and pads.
    """

    supports_starts: bool
    """Whether `reset` begins the given start; a backend that draws its own initial states has False, and
    serves continuous training only."""

    def reset(self, copies: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], out: Buffers) -> None:
        """Puts `copies` [R] into the initial states named by `starts` [R], whatever they did before.

        `out`: `state` float32 [M, D_task] and/or `pixels` uint8 [M, C, H, W]; only the rows of
        `copies` are written.
        """

    def step(
        self,
        action: VectorAction,
        out: Buffers,
        reward: npt.NDArray[np.float32],
        terminated: npt.NDArray[np.bool_],
        success: npt.NDArray[np.bool_],
    ) -> None:
        """Steps every copy for one decision, and writes the results into the given arrays.

        `action`: float32 [M, A_task] in [-1, 1], or indices int64 [M]. `out` as in `reset`, all rows;
        `reward`, `terminated`, `success` [M]. A copy that terminated shows its true last observation
        and is reset by the caller before the next step.
        """

    def close(self) -> None:
        """Frees the simulators."""


class Expert(Protocol):
    """A scripted policy of one task, the source of demonstrations. Stateful within an episode."""

    def reset(self, generator: np.random.Generator) -> None:
        """Begins an episode; a multimodal expert draws its mode here."""

    def act(self, observation: Buffers) -> npt.NDArray[np.float32]:
        """The clean action [A_task] in [-1, 1] for an unpadded observation."""


class Suite(Protocol):
    """A family of tasks that `envs/` offers by name through the registry."""

    name: str
    """Prefix of its task names."""
    supports_starts: bool
    """Whether `reset` begins the given start; False for training-only backends."""
    has_experts: bool
    """Whether its tasks come with scripted experts."""
    environment_megabytes: float
    """Resident memory of one environment, measured; to estimate what a run needs."""

    def names(self) -> tuple[str, ...]:
        """All task names "suite/task", from a catalogue: imports no simulator."""

    def sets(self) -> Mapping[str, tuple[str, ...]]:
        """Named task sets of this suite, such as mt10."""

    def task(self, name: str, options: Mapping[str, Option] | None = None) -> Task:
        """One task; `options` override the suite's settings. Imports no simulator."""

    def environment(self, task: Task) -> Environment:
        """A new copy of the task, ready to `reset`."""

    def expert(self, task: Task) -> Expert:
        """A scripted expert; raises UnsupportedError when the task has none."""


@runtime_checkable
class VectorSuite(Protocol):
    """A suite some of whose tasks have vector backends besides the official environment ("python")."""

    backend_extras: Mapping[str, str]
    """Backend -> the package that it needs and the extra of that name installs; without those backends that
    come with the suite."""

    def vector_backends(self, task: Task) -> tuple[str, ...]:
        """Names such as ("native", "envpool"), installed or not; empty where the task, with its options,
        has none. Imports no simulator.
        """

    def vector_environment(self, task: Task, copies: int, backend: str, seed: int) -> VectorEnvironment:
        """M = `copies` copies; `seed` is for backends without starts.

        Raises MissingExtraError when the backend's package is not installed, UnsupportedError for a
        backend that the task does not have.
        """


@runtime_checkable
class MeasuredSuite(Protocol):
    """A suite whose tasks differ much in memory."""

    def task_megabytes(self, task: Task) -> float:
        """Resident memory of one environment of this task with its options, measured."""


@runtime_checkable
class MultimodalSuite(Protocol):
    """A suite whose tasks can be solved in several ways that a policy may keep or lose."""

    def modes(self, task: Task) -> tuple[str, ...]:
        """Names of the ways, such as ("left", "right")."""

    def mode(self, task: Task, states: npt.NDArray[np.float32]) -> str:
        """Name of the mode of an episode with these states [T + 1, D_task]."""

    def plan_view(self, task: Task, states: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The path [T + 1, 2] seen from above, in metres, for an image."""

    def obstacle(self, task: Task) -> tuple[float, float, float]:
        """Centre x, centre y and radius of the obstacle, in metres, for an image."""

"""What a teacher would do in the states that a student came to, kept for all rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import SpaceError
from mtrl.rollout import Acting, ChunkPolicy, Execution, Fragment, Policy
from mtrl.spaces import Layout, Observation

Rows = npt.NDArray[np.float32]


class TeacherLabels:
    """Asks a teacher, any policy, what it would do without exploration in every state of a fragment.

    It follows each copy through the fragment, so that a plan before or a history stays its own, while the
    copy goes where another policy takes it. A teacher of chunks plans in every state.
    """

    def __init__(self, teacher: Policy, layout: Layout, seed: int) -> None:
        """Draws of the teacher depend on `seed`, the copy and the place in the stream alone."""
        if isinstance(teacher, ChunkPolicy):
            teacher = ChunkPolicy(teacher.sampler, Execution(steps=1, noise="zero"), teacher.version)
        self._teacher, self._layout, self._seed = teacher, layout, seed

    def of(self, fragment: Fragment) -> Rows:
        """[T, N, A_max + D_max]: the continuous action, then a one where the discrete choice is.

        Raises SpaceError for an action that is not finite or no choice of the task.
        """
        k, (steps, copies) = fragment.task_index, fragment.reward.shape
        place = (self._seed, k, fragment.epoch, fragment.first_step)
        generators = [np.random.default_rng([*place, fragment.first_copy + n]) for n in range(copies)]
        width, spec = self._layout.continuous_size, self._layout.actions[k]
        labels = np.zeros((steps, copies, width + self._layout.discrete_size), dtype=np.float32)
        state, begins = self._teacher.initial_state(copies), np.ones(copies, dtype=np.bool_)
        empty = self._layout.zeros(copies)
        for t in range(steps):
            action = self._teacher.act(
                empty | {bucket: values[t] for bucket, values in fragment.observations.items()},
                np.full(copies, k, dtype=np.int64),
                state,
                begins,
                acting=Acting(),
                generators=generators,
            )
            state, begins = action.state, fragment.terminated[t] | fragment.truncated[t]
            if spec.is_discrete:
                _require((action.discrete >= 0) & (action.discrete < spec.discrete), k, action.discrete)
                labels[t, np.arange(copies), width + action.discrete] = 1.0
            else:
                own = action.continuous[:, : spec.continuous]
                _require(np.isfinite(own).all(axis=1), k, own)
                labels[t, :, : spec.continuous] = own
        return labels


def _require(right: npt.ArrayLike, task: int, made: npt.NDArray[Any]) -> None:
    """Raises SpaceError with the first action that is not `right`."""
    fits = np.asarray(right)
    if not fits.all():
        raise SpaceError(
            f"the teacher's action in a state of task {task} (from 0) must be finite, or one of the task's "
            f"choices; got {made[fits.argmin()]}: evaluate the teacher, and train it again if it is broken"
        )


_NAMES = {"state": "states", "pixels": "pixels"}
"""Bucket -> name of its rows."""


class Labelled:
    """Observations of all tasks with their labels, the oldest overwritten beyond `capacity` rows."""

    def __init__(self, capacity: int, layout: Layout) -> None:
        """Memory is taken as rows come."""
        columns = layout.continuous_size + layout.discrete_size
        self.count = 0
        """Rows added so far."""
        seen = layout.zeros(capacity)
        self._arrays: dict[str, npt.NDArray[Any]] = {
            **{_NAMES[bucket]: seen[bucket] for bucket in layout.buckets},
            "task": np.zeros(capacity, dtype=np.int64),
            "label": np.zeros((capacity, columns), dtype=np.float32),
        }

    def __len__(self) -> int:
        return min(self.count, len(self._arrays["task"]))

    def add(self, task_index: int, observed: Observation, labels: Rows) -> None:
        """Adds the buckets that a task fills, [n, ...] each, and labels [n, A_max + D_max]."""
        where = np.arange(self.count, self.count + len(labels)) % len(self._arrays["task"])
        for bucket, name in _NAMES.items():
            if name in self._arrays:
                self._arrays[name][where] = observed.get(bucket, 0)
        self._arrays["task"][where], self._arrays["label"][where] = task_index, labels
        self.count += len(labels)

    def sample(self, size: int, draws: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
        """`states` [size, D_max] and `pixels` [size, C, H, W], of which the layout has, `task` [size] and
        `label` [size, A_max + D_max], rows drawn evenly.
        """
        rows = draws.integers(len(self), size=size)
        return {name: values[rows] for name, values in self._arrays.items()}

    def state_dict(self) -> dict[str, Any]:
        """Copies of the rows that are filled."""
        return {"count": self.count, **{n: a[: len(self)].copy() for n, a in self._arrays.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict`."""
        self.count = int(state["count"])
        for name, values in self._arrays.items():
            values[: len(self)] = state[name]

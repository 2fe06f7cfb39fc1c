"""A finished policy that acts one observation at a time, as in a loop of Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtrl.errors import ConfigError, SpaceError, UnknownNameError
from mtrl.rollout import Acting, Policy, PolicySnapshot, PolicyState, generator_for, policy_from
from mtrl.spaces import Observation
from mtrl.tasks import Task, TaskSet

if TYPE_CHECKING:
    from mtrl.training import Agent


class TrainedPolicy:
    """A policy and the tasks that it was trained on; made by `mtrl.load` and `mtrl.train`.

    `mtrl.evaluate` takes it as it is. It acts in an environment of `mtrl.make`::

        policy = mtrl.load("runs/sac-CartPole-v1")
        environment = mtrl.make(policy.tasks[0])
        observation, _ = environment.reset(seed=0)
        policy.reset()
        ended = False
        while not ended:
            observation, reward, terminated, truncated, _ = environment.step(policy.act(observation))
            ended = terminated or truncated
    """

    def __init__(
        self, snapshot: PolicySnapshot, tasks: TaskSet, identity: str, *, agent: Agent | None = None
    ) -> None:
        """`identity` is the hash of what it was loaded from, or a name; `agent` is the learner behind it."""
        self.tasks, self.identity, self.agent = tasks, identity, agent
        self._snapshot = snapshot
        self.reset()

    def __repr__(self) -> str:
        names = ", ".join(self.tasks.names[:3]) + (", ..." if len(self.tasks) > 3 else "")
        return (
            f"<{self._snapshot.kind} policy of {len(self.tasks)} tasks ({names}), {self.updates:,} updates>"
        )

    @property
    def updates(self) -> int:
        """Updates behind it."""
        return self._snapshot.version if self.agent is None else self.agent.updates

    def snapshot(self) -> PolicySnapshot:
        """The policy as data."""
        return self._snapshot

    def reset(self, seed: int = 0) -> None:
        """Begins an episode: forgets chunks, plans and memory of the last one. `seed` is of random draws."""
        self._seed = seed
        self._task_index = -1
        self._state: PolicyState = {}
        self._generator = np.random.default_rng()

    def act(
        self,
        observation: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        task: Task | str | int | None = None,
        *,
        explore: bool = False,
    ) -> int | npt.NDArray[np.float32]:
        """The action for one observation of an environment of `mtrl.make`: an index, or [A] in [-1, 1].

        Args:
            observation: state [D] or pixels [C, H, W], or a mapping with both under "state" and "pixels".
            task: the task, its name or its index; may be left out where the policy has one task. Another
                task than before begins an episode.
            explore: draw from the policy instead of taking its best action.

        Raises SpaceError for an observation of another shape, UnknownNameError for a task that it was not
        trained on, ConfigError where the task is not said.
        """
        k = self._index_of(task)
        rows = self._padded(observation, k)
        begins = k != self._task_index
        if begins:
            self._task_index, self._state = k, self._policy.initial_state(1)
            self._generator = generator_for(self._seed, self.tasks[k].name, 0)
        action = self._policy.act(
            rows,
            np.array([k], dtype=np.int64),
            self._state,
            np.array([begins]),
            acting=Acting(explore=explore),
            generators=[self._generator],
        )
        self._state, spec = action.state, self.tasks.layout.actions[k]
        if spec.is_discrete:
            return int(action.discrete[0])
        return np.array(action.continuous[0, : spec.continuous], dtype=np.float32)

    @cached_property
    def _policy(self) -> Policy:
        return policy_from(self._snapshot, self.tasks)

    def _index_of(self, task: Task | str | int | None) -> int:
        names = self.tasks.names
        if task is None:
            if len(names) > 1:
                raise ConfigError(
                    f"this policy has {len(names)} tasks; say which one: act(observation, task={names[0]!r})"
                )
            return 0
        if isinstance(task, int | np.integer):
            if not 0 <= task < len(names):
                raise ConfigError(f"the index of a task is 0 to {len(names) - 1}; got {task}")
            return int(task)
        name = task if isinstance(task, str) else task.name
        if name not in names:
            raise UnknownNameError("task of this policy", name, names)
        return names.index(name)

    def _padded(self, observation: npt.ArrayLike | Mapping[str, npt.ArrayLike], k: int) -> Observation:
        """One row [1, ...] of the layout."""
        layout, spec = self.tasks.layout, self.tasks.layout.observations[k]
        shapes: dict[str, tuple[int, ...]] = {}
        if spec.state is not None:
            shapes["state"] = (spec.state,)
        if spec.pixels is not None:
            shapes["pixels"] = spec.pixels
        given: Mapping[str, Any]
        given = observation if isinstance(observation, Mapping) else {next(iter(shapes)): observation}
        came = {bucket: np.shape(values) for bucket, values in given.items()}
        if came != shapes:
            expected = ", ".join(f"{bucket} {list(shape)}" for bucket, shape in shapes.items())
            found = ", ".join(f"{bucket} {list(shape)}" for bucket, shape in came.items()) or "nothing"
            raise SpaceError(f"an observation of {self.tasks[k].name} is {expected}; got {found}")
        rows = layout.zeros(1)
        for bucket, values in given.items():
            row = np.asarray(values, dtype=layout.bucket_dtype(bucket))
            rows[bucket][0] = layout.pad_state(row) if bucket == "state" else row
        return rows

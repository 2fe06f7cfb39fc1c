"""A policy with a state: actions that wander, and a count of the episode's decisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from mtrl import registry
from mtrl.rollout import LOG_PROBABILITY, Acting, Action, Extra, PolicySnapshot, PolicyState
from mtrl.spaces import Observation
from mtrl.tasks import TaskSet

WALK = PolicySnapshot("walk", tensors={"step": np.array(0.3)}, version=2)


class WalkingPolicy:
    """Each dimension takes a random step per decision; the log-probability is minus the decision's number."""

    extras: tuple[Extra, ...] = (LOG_PROBABILITY,)

    def __init__(self, snapshot: PolicySnapshot, tasks: TaskSet) -> None:
        self.version = snapshot.version
        self._layout = tasks.layout
        self._step = snapshot.tensors["step"]

    def initial_state(self, count: int) -> PolicyState:
        return {
            "place": np.zeros((count, self._layout.continuous_size), dtype=np.float32),
            "decisions": np.zeros(count, dtype=np.int64),
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
        place = np.where(ended[:, None], 0.0, state["place"])
        decisions = np.where(ended, 0, state["decisions"])
        steps = np.stack([generator.normal(size=place.shape[1]) for generator in generators])
        place = np.clip(place + self._step * steps, -1, 1).astype(np.float32)
        legal = np.maximum(self._layout.legal_mask[task_index].sum(axis=1), 1)
        return Action(
            continuous=np.where(self._layout.continuous_mask[task_index], place, 0.0).astype(np.float32),
            discrete=(np.abs(place[:, 0]) * 100).astype(np.int64) % legal,
            state={"place": place, "decisions": decisions + 1},
            extras={"log_probability": -decisions.astype(np.float32)},
        )


@contextmanager
def walking_policy() -> Iterator[None]:
    """Lets the registry rebuild `WALK` while the block lasts."""
    registry.register("policy", WALK.kind, WalkingPolicy)
    try:
        yield
    finally:
        registry.unregister("policy", WALK.kind)

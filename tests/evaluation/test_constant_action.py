"""The best constant action: of every task its own, found on validation starts."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from mtrl import registry
from mtrl.envs.gym import add_environment
from mtrl.evaluation import best_constant
from mtrl.evaluation.constant_action import constant_actions
from mtrl.evaluation.protocol import EvaluationConfig, evaluation_jobs
from mtrl.rollout import LocalRollouts, RuntimeConfig
from mtrl.spaces import ActionSpec


class Lever(gymnasium.Env[Any, Any]):
    """Pays for one direction of its action."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, action_space: spaces.Space[Any], pays: Any) -> None:
        self.action_space, self._pays = action_space, pays

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, Any]:
        return np.zeros(1, np.float32), float(self._pays(action)), False, False, {}


def test_every_task_gets_the_action_that_pays_most() -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    names = [
        add_environment("index", lambda: Lever(spaces.Discrete(4), lambda a: a == 2), horizon=3),
        add_environment("vector", lambda: Lever(box, lambda a: -a[1]), horizon=3),
        add_environment("still", lambda: Lever(box, lambda a: -abs(a).sum()), horizon=3),
        add_environment("alike", lambda: Lever(spaces.Discrete(3), lambda a: 1), horizon=3),
    ]
    tasks = registry.task_set(names)
    config = EvaluationConfig(episodes=2, copies=2)
    rollouts = LocalRollouts(tasks, RuntimeConfig())
    try:
        snapshot = best_constant(rollouts, tasks, config)
        expected = {names[0]: 2, names[1]: [0.0, -1.0], names[2]: [0.0, 0.0], names[3]: 0}
        assert snapshot.config["actions"] == expected
        results = list(rollouts.run(evaluation_jobs(tasks, config), snapshot))
    finally:
        rollouts.close()
    returns = [{summary.episode_return for summary in result.summaries} for result in results]
    assert returns == [{3.0}, {3.0}, {0.0}, {3.0}]


@pytest.mark.parametrize(("spec", "count"), [(ActionSpec(discrete=18), 18), (ActionSpec(continuous=3), 7)])
def test_candidates_are_every_index_or_each_actuator_at_its_ends(spec: ActionSpec, count: int) -> None:
    found = constant_actions(spec)
    assert len(found) == count and len({str(action) for action in found}) == count

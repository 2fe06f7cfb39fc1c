"""MuJoCo resets an unstable simulation in the middle of a step: a fault of that episode in every suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mtrl import registry
from mtrl.errors import EnvironmentFault
from mtrl.rollout import GymnasiumView, PythonLane
from mtrl.tasks import FixedStarts, Split, TaskSet, start_id

TASKS = {
    "metaworld/reach-v3": lambda environment: environment._simulator.data,
    "gym/HalfCheetah-v5": lambda environment: environment.simulator.unwrapped.data,
    "gym/InvertedPendulum-v5": lambda environment: environment.simulator.unwrapped.data,
    "dmc/cartpole-swingup": lambda environment: environment._simulator.physics.data.ptr,
}
"""MuJoCo's data of a built environment."""
STARTS = [start_id(Split.TEST, index) for index in range(3)]


def lane_of(name: str) -> tuple[PythonLane, Any, npt.NDArray[np.float32]]:
    """A lane of one copy, the simulation's data, and idle actions."""
    tasks = TaskSet([registry.task(name)])
    environment = registry.suite(tasks[0].suite).environment(tasks[0])
    lane = PythonLane(tasks[0], 0, tasks.layout, [environment], FixedStarts([STARTS]))
    return lane, TASKS[name](environment), np.zeros((1, tasks[0].action.continuous), dtype=np.float32)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("place", ["qpos", "qvel"])
def test_an_unstable_simulation_is_a_fault_at_that_decision(name: str, place: str) -> None:
    lane, data, idle = lane_of(name)
    lane.begin()
    for _ in range(3):
        lane.step(idle, np.zeros(1, dtype=np.int64))
    getattr(data, place)[0] = 1e12
    with pytest.raises(EnvironmentFault, match=f"mjWARN_BAD{place.upper()}") as raised:
        lane.step(idle, np.zeros(1, dtype=np.int64))
    # what the fault reports cannot be seen: MuJoCo went on from the model's first state
    assert np.isfinite(lane.observation["state"]).all() and np.isfinite(lane.reward).all()
    assert f"start {STARTS[0]}" in raised.value.when
    # the next episode of the same simulation is sound
    lane._next_episodes([0])
    lane.step(idle, np.zeros(1, dtype=np.int64))
    lane.close()


def test_a_view_reports_it_too() -> None:
    view = GymnasiumView("metaworld/reach-v3")
    view.reset(seed=1)
    view._environment._simulator.data.qvel[0] = 1e12  # type: ignore[attr-defined]
    with pytest.raises(EnvironmentFault, match="mjWARN_BADQVEL") as raised:
        view.step(np.zeros(4, dtype=np.float32))
    assert raised.value.when.startswith("decision 1, start ")
    view.close()


def test_a_warning_of_the_step_before_is_found_however_time_runs_on() -> None:
    """A reset in the first of several substeps leaves the time that a healthy step leaves."""
    lane, data, idle = lane_of("gym/HalfCheetah-v5")
    lane.begin()
    data.qvel[0] = 1e12
    with pytest.raises(EnvironmentFault, match="unstable"):
        lane.step(idle, np.zeros(1, dtype=np.int64))
    assert data.time == pytest.approx(5 * 0.01)
    lane.close()

"""DeepMind Control's protocol: flat observations, action ranges, repeats and the end of an episode."""

from __future__ import annotations

import numpy as np
import pytest
from dm_control import suite as control_suite

from mtrl.envs.dmc import SUITE, catalogue
from mtrl.envs.dmc.environment import ControlEnvironment
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, TaskSet

from .playing import assert_same_trajectory, buffers, fixed_actions, play


def test_the_catalogue_is_what_the_generator_writes() -> None:
    assert catalogue.generate() == SUITE.catalogue.path.read_text(encoding="utf-8")


def test_the_set_is_the_official_benchmark() -> None:
    official = tuple(f"dmc/{domain}-{task}" for domain, task in control_suite.BENCHMARKING)
    assert SUITE.sets()["dmc28"] == official == SUITE.names()
    assert len(official) == 28


@pytest.mark.parametrize("name", SUITE.names())
def test_every_task_repeats_an_episode_after_another_one(name: str) -> None:
    task = SUITE.task(name)
    environment = SUITE.environment(task)
    actions = fixed_actions(task, 8)
    fresh = play(environment, task, 4, actions)
    other = play(environment, task, 5, fixed_actions(task, 8, seed=1))
    assert_same_trajectory(play(environment, task, 4, actions), fresh)
    assert (fresh.bucket("state")[0] != other.bucket("state")[0]).any()
    assert np.isfinite(fresh.bucket("state")).all()
    assert all(0.0 <= reward <= 1.0 and not terminated for reward, terminated, _ in fresh.outcomes)
    environment.close()


def test_the_state_is_dm_control_s_dictionary_in_its_order() -> None:
    task = SUITE.task("dmc/walker-walk")
    environment = SUITE.environment(task)
    state = play(environment, task, 0, fixed_actions(task, 3)).bucket("state")[-1]
    observation = environment._simulator.task.get_observation(environment._simulator.physics)
    assert list(observation) == ["orientations", "height", "velocity"]
    expected = np.concatenate([np.ravel(values) for values in observation.values()])
    np.testing.assert_array_equal(state, expected.astype(np.float32))


def test_actions_are_scaled_to_the_range_of_each_actuator(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 28 tasks have [-1, 1] everywhere, so a reacher is given two other ranges."""
    load = control_suite.load

    def rebuilt(*arguments: object, **settings: object) -> object:
        simulator = load(*arguments, **settings)
        simulator.physics.model.actuator_ctrlrange[:] = [[-2.0, 6.0], [-0.8, 0.8]]
        return simulator

    monkeypatch.setattr(control_suite, "load", rebuilt)
    task = SUITE.task("dmc/reacher-easy")
    environment, out = SUITE.environment(task), buffers(task)
    environment.reset(0, out)
    for action, expected in ((-1.0, [-2.0, -0.8]), (0.0, [2.0, 0.0]), (0.5, [4.0, 0.4]), (1.0, [6.0, 0.8])):
        environment.step(np.full(2, action, dtype=np.float32), out)
        np.testing.assert_allclose(environment._simulator.physics.control(), expected, atol=1e-9)


def test_a_decision_sums_the_rewards_of_its_repeats() -> None:
    once, thrice = (SUITE.task("dmc/walker-walk", {"action_repeat": repeat}) for repeat in (1, 3))
    assert thrice.rate_hz == once.rate_hz / 3
    assert (once.horizon_decisions, thrice.horizon_decisions) == (1000, 334)
    actions = fixed_actions(thrice, 6)
    slow = play(SUITE.environment(thrice), thrice, 9, actions)
    held = play(SUITE.environment(once), once, 9, [action for action in actions for _ in range(3)])
    np.testing.assert_array_equal(slow.bucket("state"), held.bucket("state")[::3])
    sums = np.array([reward for reward, _, _ in held.outcomes]).reshape(-1, 3).sum(axis=1)
    np.testing.assert_allclose([reward for reward, _, _ in slow.outcomes], sums, rtol=1e-12)
    assert sums.max() > 0.0


def test_the_step_limit_truncates_and_does_not_terminate() -> None:
    """dm_control ends an episode after 1000 steps with a discount of 1: the lane's business, not the task's.

    With three steps a decision the last decision is a third of one, and it must not begin a new episode.
    """
    task = SUITE.task("dmc/cartpole-balance", {"action_repeat": 3})
    environment = SUITE.environment(task)
    lane = PythonLane(task, 0, TaskSet([task]).layout, [environment], FixedStarts([[0, 1]]))
    lane.begin()
    action, index = np.zeros((1, 1), dtype=np.float32), np.zeros(1, dtype=np.int64)
    for decision in range(1, 335):
        lane.step(action, index)
        assert not lane.terminated[0]
        assert bool(lane.truncated[0]) == (decision == 334)
    assert 0.0 < lane.reward[0] <= 1.0
    assert lane.start_id[0] == 1
    lane.close()


def test_a_discount_of_zero_terminates_at_once() -> None:
    """lqr's own end: the mass has come to rest at the origin. The repeats that are left are not played."""
    environment = ControlEnvironment("dmc/lqr-lqr_2_1", "lqr", "lqr_2_1", 4)
    out = {"state": np.zeros(4, dtype=np.float32)}
    idle = np.zeros(1, dtype=np.float32)
    environment.reset(0, out)
    simulator = environment._simulator
    _, terminated, success = environment.step(idle, out)
    assert not terminated and not success
    assert simulator.physics.time() == pytest.approx(4 * simulator.control_timestep())
    simulator.physics.data.qpos[:] = 0.0
    simulator.physics.data.qvel[:] = 0.0
    simulator.physics.forward()
    _, terminated, success = environment.step(idle, out)
    assert terminated is True and success is False
    assert simulator.physics.time() == pytest.approx(5 * simulator.control_timestep())
    np.testing.assert_array_equal(out["state"], 0.0)
    # the next episode begins as any other
    environment.reset(0, out)
    assert out["state"].any()
    assert environment.step(idle, out)[1] is False


def test_buffers_of_a_task_have_the_catalogue_s_size() -> None:
    for name in SUITE.names():
        entry = SUITE.catalogue.entry(name)
        assert buffers(SUITE.task(name))["state"].shape == (entry.state,)
        assert SUITE.task(name).action.continuous == entry.action
        assert SUITE.task(name).simulator_rate_hz * entry.control_timestep == pytest.approx(1.0)

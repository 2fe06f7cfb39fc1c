"""DeepMind Control's protocol: flat observations, action ranges, repeats and the end of an episode."""

from __future__ import annotations

import numpy as np
import pytest
from dm_control import suite as control_suite
from dm_control.mujoco.wrapper import mjbindings
from dm_control.suite import lqr_solver

from mtrl.envs.dmc import SUITE, catalogue
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, Score, Split, TaskSet, start_id

from ..sweeps import sampled
from .episodes import buffers, fixed_actions, play


def test_the_catalogue_is_what_the_generator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, order, sets and version; tasks are compared one by one below."""
    monkeypatch.setattr(catalogue, "describe", lambda domain, task: SUITE.entry(f"dmc/{domain}-{task}"))
    assert catalogue.generate() == SUITE.catalogue.path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("domain", "task"), sampled(control_suite.ALL_TASKS, share=4))
def test_an_entry_of_the_catalogue_describes_the_simulator(domain: str, task: str) -> None:
    assert catalogue.describe(domain, task) == SUITE.entry(f"dmc/{domain}-{task}")


def test_the_tasks_are_all_of_dm_control_and_the_sets_are_the_published_ones() -> None:
    every = {f"dmc/{domain}-{task}" for domain, task in control_suite.ALL_TASKS}
    assert set(SUITE.names()) == every
    benchmark = tuple(f"dmc/{domain}-{task}" for domain, task in control_suite.BENCHMARKING)
    assert SUITE.sets()["dmc28"] == benchmark == SUITE.names()[:28]
    assert SUITE.sets()["dmc-all"] == SUITE.names()
    # whole domains of the benchmark: acrobot but for its sparse task, and seven others
    domains = {"ball_in_cup", "cartpole", "cheetah", "finger", "hopper", "pendulum", "reacher", "walker"}
    of_domains = {name for name in benchmark if name.removeprefix("dmc/").rpartition("-")[0] in domains}
    assert set(SUITE.sets()["dmc18"]) == of_domains | {"dmc/acrobot-swingup"}
    assert len(SUITE.sets()["dmc18"]) == 18


def test_the_state_is_dm_control_s_dictionary_in_its_order() -> None:
    task = SUITE.task("dmc/walker-walk")
    environment = SUITE.environment(task)
    state = play(environment, task, 0, fixed_actions(task, 3)).bucket("state")[-1]
    observation = environment._simulator.task.get_observation(environment._simulator.physics)
    assert list(observation) == ["orientations", "height", "velocity"]
    expected = np.concatenate([np.ravel(values) for values in observation.values()])
    np.testing.assert_array_equal(state, expected.astype(np.float32))


def test_actions_are_scaled_to_the_range_of_each_actuator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all tasks have [-1, 1] everywhere, so a reacher is given two other ranges."""
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
    task = SUITE.task("dmc/lqr-lqr_2_1", {"action_repeat": 4})
    environment, out = SUITE.environment(task), buffers(task)
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


def test_lqr_has_limits_and_a_score_of_its_own() -> None:
    """dm_control limits neither its force nor its time, and its optimal controller earns less than 1000."""
    task = SUITE.task("dmc/lqr-lqr_2_1")
    environment, out = SUITE.environment(task), buffers(task)
    _, gain, _ = lqr_solver.solve(environment._simulator)
    returns = {"idle": 0.0, "optimal": 0.0}
    episodes = 4
    for controller in returns:
        for index in range(episodes):
            environment.reset(start_id(Split.TEST, index), out)
            for _ in range(task.horizon_decisions):
                force = gain @ out["state"].astype(np.float64) if controller == "optimal" else np.zeros(1)
                assert abs(force).max() <= 6.0
                reward, terminated, _ = environment.step((force / 10.0).astype(np.float32), out)
                returns[controller] += reward / episodes
                assert not terminated
        assert environment._simulator._step_count == environment._simulator._step_limit == 1000
    assert task.score.normalise(returns["idle"], success=False) == pytest.approx(0.0, abs=0.05)
    assert task.score.normalise(returns["optimal"], success=False) == pytest.approx(1.0, abs=0.1)
    scores = {name: SUITE.task(name).score for name in SUITE.names() if "lqr" not in name}
    assert set(scores.values()) == {Score("return", 0.0, 1000.0)}


def test_the_quadruped_observes_what_dm_control_means() -> None:
    """Its sensors by kind, found without NumPy's removed `in1d`, in the model's order."""
    task = SUITE.task("dmc/quadruped-escape")
    environment = SUITE.environment(task)
    environment.reset(0, buffers(task))
    physics = environment._simulator.physics
    kinds = mjbindings.enums.mjtSensor
    for names, sensors in (
        (("imu_accel", "imu_gyro"), (kinds.mjSENS_GYRO, kinds.mjSENS_ACCELEROMETER)),
        (("velocimeter",), (kinds.mjSENS_VELOCIMETER,)),
    ):
        assert physics._get_sensor_names(*sensors) == list(names)
    assert len(physics._get_sensor_names(kinds.mjSENS_RANGEFINDER)) == 20
    assert physics.rangefinder().shape == (20,)
    # resetting escape's terrain needs no renderer where nothing is drawn
    assert physics._contexts is None


def test_the_catalogue_s_numbers_reach_the_task() -> None:
    for name in SUITE.names():
        entry, task = SUITE.entry(name), SUITE.task(name)
        assert buffers(task)["state"].shape == (entry.state,)
        assert task.action.continuous == entry.action
        assert task.simulator_rate_hz * entry.control_timestep == pytest.approx(1.0)
        assert task.horizon_decisions == entry.step_limit == 1000

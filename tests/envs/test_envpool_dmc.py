"""EnvPool's DeepMind Control against dm_control, step by step after the same reset.

EnvPool is compiled with MuJoCo 3.6 where dm_control runs on 3.3; observations are float32 here.
"""

import numpy as np
import pytest

from mtrl.envs.dmc import SUITE
from mtrl.envs.envpool import pool_seeds
from mtrl.tasks import Task

from .pools import Batch, flat, official_control, require_envpool

SEED = 3
TASKS = (
    "acrobot-swingup",
    "ball_in_cup-catch",
    "cartpole-swingup",
    "cheetah-run",
    "finger-turn_hard",
    "fish-swim",
    "hopper-hop",
    "humanoid-run",
    "manipulator-insert_peg",
    "pendulum-swingup",
    "point_mass-hard",
    "quadruped-walk",
    "reacher-hard",
    "stacker-stack_2",
    "swimmer-swimmer6",
    "walker-run",
)


def pool_of(task: Task, copies: int = 2) -> Batch:
    return Batch(task, copies, SUITE.vector_environment(task, copies, "envpool", SEED))


def compare(name: str, steps: int, tolerance: float) -> None:
    task = SUITE.task(f"dmc/{name}")
    entry = SUITE.entry(task.name)
    pool = pool_of(task)
    simulator, result = official_control(entry.domain, entry.task, pool_seeds(SEED, 2)[0])
    pool.reset()
    expected = flat(simulator, result.observation)
    np.testing.assert_allclose(pool.out["state"][0], expected, rtol=tolerance, atol=tolerance)
    generator = np.random.default_rng(1)
    bounds = simulator.action_spec()
    middle, half_range = (bounds.maximum + bounds.minimum) / 2.0, (bounds.maximum - bounds.minimum) / 2.0
    for step in range(steps):
        action = generator.uniform(-1.0, 1.0, task.action.continuous).astype(np.float32)
        result = simulator.step(middle + half_range * action)
        pool.step(action)
        expected = flat(simulator, result.observation)
        np.testing.assert_allclose(
            pool.out["state"][0], expected, rtol=tolerance, atol=tolerance, err_msg=f"{name}, step {step}"
        )
        assert pool.reward[0] == pytest.approx(result.reward, abs=tolerance)
        assert not pool.terminated.any() and not pool.success.any()
    pool.environment.close()
    simulator.close()


@pytest.mark.parametrize("name", TASKS)
def test_a_hundred_steps_are_those_of_dm_control(name: str) -> None:
    """In dm_control's order of observations, with its scale of actions and its rewards."""
    require_envpool()
    compare(name, 100, 1e-5)


@pytest.mark.slow
def test_every_task_is_that_of_dm_control() -> None:
    require_envpool()
    for name in SUITE.names():
        short_name = name.split("/")[1]
        if SUITE.vector_backends(SUITE.task(name)):
            # dogs and the humanoid of the CMU fall chaotically
            chaotic = short_name.startswith(("dog", "humanoid_CMU"))
            compare(short_name, 5 if chaotic else 15, 1e-3 if chaotic else 1e-5)


def test_rewards_of_a_repeat_are_summed_and_its_last_observation_is_shown() -> None:
    require_envpool()
    single, held = (
        pool_of(SUITE.task("dmc/walker-run")),
        pool_of(SUITE.task("dmc/walker-run", {"action_repeat": 4})),
    )
    single.reset()
    held.reset()
    generator = np.random.default_rng(2)
    for _ in range(10):
        action = generator.uniform(-1.0, 1.0, 6).astype(np.float32)
        total = np.zeros(2, dtype=np.float32)
        for _ in range(4):
            single.step(action)
            total += single.reward
        held.step(action)
        np.testing.assert_array_equal(held.out["state"], single.out["state"])
        np.testing.assert_array_equal(held.reward, total)


def test_the_last_decision_is_cut_short_at_the_step_limit_and_nothing_follows_unasked() -> None:
    """1000 control steps are 333 decisions of three, and one."""
    require_envpool()
    task = SUITE.task("dmc/cartpole-balance", {"action_repeat": 3})
    pool, single = pool_of(task), pool_of(SUITE.task("dmc/cartpole-balance"))
    pool.reset()
    single.reset()
    action = np.array([0.01], dtype=np.float32)
    for _ in range(task.horizon_decisions):
        pool.step(action)
    for _ in range(1000):
        single.step(action)
    np.testing.assert_array_equal(pool.out["state"], single.out["state"])
    np.testing.assert_array_equal(pool.reward, single.reward)
    # the official environment truncates here, which is the lane's business
    assert not pool.terminated.any()
    last = pool.out["state"].copy()
    pool.reset(1)
    first = pool.out["state"][1].copy()
    pool.step(action)
    np.testing.assert_array_equal(pool.out["state"][0], last[0])
    assert pool.reward[0] == 0.0 and pool.reward[1] > 0.0
    assert (pool.out["state"][1] != first).any()

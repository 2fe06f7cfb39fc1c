"""What the environment contract promises, on one or two tasks of every suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import pytest

from mtrl import registry
from mtrl.tasks import Environment, Option, Task

from .episodes import assert_same_trajectory, buffers, first_observation, fixed_actions, play, same

CASES: tuple[tuple[str, Mapping[str, Option]], ...] = (
    ("metaworld/push-v3", {}),  # its reset rejects positions
    ("metaworld/door-open-v3", {}),  # its reset moves bodies of the model
    ("dmc/walker-walk", {"action_repeat": 2}),
    ("dmc/reacher-easy", {}),  # its reset moves geoms of the model
    ("dmc/quadruped-fetch", {}),  # dm_control's own does not run with this NumPy
    ("dmc/lqr-lqr_2_1", {"action_repeat": 2}),  # its model is drawn at random, its motors have no limits
    ("atari/Breakout", {"observation": "both", "action_set": "minimal"}),
    ("atari/Assault", {}),  # the emulator's own reset lets the game before leak into the next
    ("atari/Qbert", {}),  # restoring a saved state alone does the same here
    ("gym/CartPole-v1", {}),
    ("gym/Ant-v5", {"action_repeat": 2}),
    ("maze2d/umaze", {}),
    ("point/obstacle", {}),
)
STEPS = 30


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case[0])
def task(request: pytest.FixtureRequest) -> Task:
    name, options = request.param
    return registry.task(name, options)


@pytest.fixture(scope="module")
def environment(task: Task) -> Iterator[Environment]:
    """One environment for all tests of a task, so that each of them finds it used."""
    made = registry.suite(task.suite).environment(task)
    yield made
    made.close()


@pytest.fixture(scope="module")
def another(task: Task) -> Iterator[Environment]:
    """A second environment of the same task in the same process."""
    made = registry.suite(task.suite).environment(task)
    yield made
    made.close()


def test_a_start_is_the_same_on_a_fresh_and_on_a_used_environment(
    task: Task, environment: Environment, another: Environment
) -> None:
    fresh = [first_observation(environment, task, start) for start in (7, 8)]
    # whatever came before: another start, a cut-off episode, a whole horizon's worth of extreme actions
    play(another, task, 8, fixed_actions(task, STEPS))
    assert same(first_observation(another, task, 7), fresh[0])
    play(another, task, 123, fixed_actions(task, 2 * STEPS, seed=1))
    assert same(first_observation(another, task, 8), fresh[1])
    assert same(first_observation(another, task, 8), fresh[1])


def test_a_whole_trajectory_follows_from_start_and_actions(
    task: Task, environment: Environment, another: Environment
) -> None:
    actions = fixed_actions(task, STEPS)
    first = play(environment, task, 11, actions)
    play(environment, task, 12, fixed_actions(task, STEPS, seed=2))
    assert_same_trajectory(play(environment, task, 11, actions), first)
    assert_same_trajectory(play(another, task, 11, actions), first)


def test_two_environments_of_a_task_do_not_touch_each_other(
    task: Task, environment: Environment, another: Environment
) -> None:
    actions = fixed_actions(task, STEPS)
    alone = play(environment, task, 3, actions)
    out, beside = buffers(task), buffers(task)
    environment.reset(3, out)
    another.reset(4, beside)
    over = False
    for step, action in enumerate(actions[: len(alone.outcomes)]):
        assert environment.step(action, out) == alone.outcomes[step]
        assert same(out, alone.observations[step + 1])
        if step == STEPS // 2 or over:
            another.reset(5, beside)
        _, over, _ = another.step(actions[-step], beside)


def test_different_starts_differ(task: Task, environment: Environment) -> None:
    """From the first observation on; in Atari not always, and not at once.

    There a start is a number of idle frames, 30 at most, and the sticky actions. Some games hear no
    action at first, and then two starts may well look alike for a while.
    """
    actions = fixed_actions(task, 100 if task.suite == "atari" else STEPS)
    shown = [play(environment, task, start, actions) for start in range(6)]
    if task.suite == "atari":
        for bucket in task.observation.buckets:
            assert len({trajectory.bucket(bucket).tobytes() for trajectory in shown}) > len(shown) / 2
    else:
        assert len({trajectory.bucket("state")[0].tobytes() for trajectory in shown}) == len(shown)


def test_observations_are_written_in_place(task: Task, environment: Environment) -> None:
    """Into the given memory, all of it, and nothing beside it."""
    action = fixed_actions(task, 1)[0]
    wide, views = {}, {}
    for bucket, values in buffers(task).items():
        # the middle row of a larger buffer, one longer than the task's own in its first dimension
        whole = np.full((3, values.shape[0] + 1, *values.shape[1:]), 77, dtype=values.dtype)
        wide[bucket], views[bucket] = whole, whole[1, :-1]
    proxy = MappingProxyType(views)
    for begin in (True, False):
        for whole in wide.values():
            whole[...] = 77
        expected = play(environment, task, 21, [] if begin else [action]).observations[-1]
        environment.reset(21, proxy)
        if not begin:
            environment.step(action, proxy)
        for bucket, whole in wide.items():
            np.testing.assert_array_equal(whole[1, :-1], expected[bucket])
            whole[1, :-1] = 77
            assert (whole == 77).all(), f"{bucket}: wrote beside its view"


def test_observations_rewards_and_flags_are_what_the_task_says(task: Task, environment: Environment) -> None:
    trajectory = play(environment, task, 5, fixed_actions(task, STEPS))
    spec = task.observation
    for observation in trajectory.observations:
        assert tuple(observation) == spec.buckets
        if spec.state is not None:
            assert observation["state"].shape == (spec.state,)
            assert observation["state"].dtype == np.float32
            assert np.isfinite(observation["state"]).all()
        if spec.pixels is not None:
            assert observation["pixels"].shape == spec.pixels
            assert observation["pixels"].dtype == np.uint8
            assert observation["pixels"].min() < observation["pixels"].max()
    for reward, terminated, success in trajectory.outcomes:
        assert (type(reward), type(terminated), type(success)) == (float, bool, bool)
        assert np.isfinite(reward)


def test_the_options_of_a_task_rebuild_it(task: Task) -> None:
    assert registry.task(task.name, dict(task.options)) == task


def test_an_action_is_read_and_left_alone(task: Task, environment: Environment) -> None:
    actions = fixed_actions(task, 3)
    kept = [np.array(action) for action in actions]
    for action in actions:
        if isinstance(action, np.ndarray):
            action.flags.writeable = False
    play(environment, task, 5, actions)
    for action, before in zip(actions, kept, strict=True):
        np.testing.assert_array_equal(action, before)

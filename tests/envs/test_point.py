"""The point task: two ways round an obstacle, and none through it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from mtrl.envs.point import GOAL, OBSTACLE_CENTRE, OBSTACLE_RADIUS, START, SUITE, geometry
from mtrl.rollout import NoiseConfig
from mtrl.tasks import MultimodalSuite, Split, start_id

from .episodes import buffers, first_observation, play

TASK = SUITE.task("point/obstacle")
EPISODES = 200

Act = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def drive(start: int, act: Act) -> tuple[npt.NDArray[np.float32], bool, bool]:
    """States [T + 1, 4], whether the goal was reached and whether the obstacle was touched."""
    environment, out = SUITE.environment(TASK), buffers(TASK)
    environment.reset(start, out)
    states = [np.array(out["state"], dtype=np.float32)]
    for _ in range(TASK.horizon_decisions):
        _, touched, success = environment.step(act(states[-1]), out)
        states.append(np.array(out["state"], dtype=np.float32))
        if touched or success:
            return np.stack(states), success, touched
    return np.stack(states), False, False


def expert_drive(start: int, deviation: float) -> tuple[npt.NDArray[np.float32], bool, bool]:
    """An expert whose actions are disturbed."""
    generator = np.random.default_rng(start)
    expert = SUITE.expert(TASK)
    expert.reset(generator)

    def act(state: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        noise = generator.normal(0.0, deviation, 2) if deviation else np.zeros(2)
        return np.clip(expert.act({"state": state}) + noise, -1.0, 1.0).astype(np.float32)

    return drive(start, act)


@pytest.mark.parametrize("deviation", [0.0, NoiseConfig().low, NoiseConfig().high])
def test_the_expert_arrives_on_both_sides_undisturbed_and_disturbed(deviation: float) -> None:
    drives = [expert_drive(start_id(Split.TRAIN, index), deviation) for index in range(EPISODES)]
    assert np.mean([success for _, success, _ in drives]) >= 0.95
    left = np.mean([SUITE.mode(TASK, states) == "left" for states, _, _ in drives])
    # a fair coin lies within four standard deviations
    assert abs(left - 0.5) < 4 * math.sqrt(0.25 / EPISODES)


def test_an_expert_stays_in_range_and_keeps_its_side() -> None:
    expert, environment = SUITE.expert(TASK), SUITE.environment(TASK)
    for index in range(20):
        out = buffers(TASK)
        environment.reset(index, out)
        expert.reset(np.random.default_rng(index))
        signs = set()
        for _ in range(TASK.horizon_decisions):
            action = expert.act(out)
            assert action.shape == (2,) and action.dtype == np.float32
            assert np.abs(action).max() <= 1.0 + 1e-6
            _, _, success = environment.step(action, out)
            signs.add(math.copysign(1.0, float(out["state"][1])))
            if success:
                break
        assert len(signs) == 1


def test_the_first_action_already_tells_the_sides_apart() -> None:
    state = {"state": np.array([*START, GOAL[0] - START[0], GOAL[1] - START[1]], dtype=np.float32)}
    expert, actions = SUITE.expert(TASK), []
    for seed in range(20):
        expert.reset(np.random.default_rng(seed))
        actions.append(expert.act(state))
    left, right = (np.array([a for a in actions if a[1] * sign > 0]) for sign in (1.0, -1.0))
    assert len(left) + len(right) == 20 and len(left) > 0 and len(right) > 0
    np.testing.assert_allclose(left[0], right[0] * [1.0, -1.0], atol=1e-6)
    # their mean drives straight at the obstacle
    mean = (left[0] + right[0]) / 2
    assert mean[0] > 0.0 and abs(mean[1]) < 1e-6


def test_a_straight_drive_touches_the_obstacle_from_every_start() -> None:
    """What a policy does that plays the mean of both ways."""
    for index in range(50):
        states, success, touched = drive(
            start_id(Split.TEST, index),
            lambda state: (state[2:] / np.abs(state[2:]).max()).astype(np.float32),
        )
        assert touched and not success
        assert len(states) - 1 == 5


def test_touching_terminates_costs_one_and_pins_the_point() -> None:
    environment, out = SUITE.environment(TASK), buffers(TASK)
    environment.reset(0, out)
    ahead = np.array([1.0, 0.0], dtype=np.float32)
    terminated, reward, before = False, 0.0, np.zeros(4)
    while not terminated:
        before = np.array(out["state"], dtype=np.float64)
        reward, terminated, success = environment.step(ahead, out)
        assert not success
    after = np.array(out["state"], dtype=np.float64)
    assert math.dist(after[:2], OBSTACLE_CENTRE) <= OBSTACLE_RADIUS
    gained = math.hypot(*before[2:]) - math.hypot(*after[2:])
    assert reward == pytest.approx(gained - 1.0, abs=1e-6)
    environment.step(np.array([-1.0, 1.0], dtype=np.float32), out)
    np.testing.assert_array_equal(out["state"], after.astype(np.float32))
    environment.reset(0, out)
    assert environment.step(ahead, out)[1] is False


def test_a_step_moves_by_a_twentieth_of_a_second() -> None:
    """Two metres a second for 1/20 s are 0.1 m; commands beyond 1 count as 1, walls hold."""
    states = play(
        SUITE.environment(TASK),
        TASK,
        0,
        [np.array(action, dtype=np.float32) for action in ((0.0, 0.5), (0.0, -3.0), (-1.0, 0.0))],
    ).bucket("state")
    np.testing.assert_allclose(
        np.diff(states[:, :2].astype(np.float64), axis=0), [[0, 0.05], [0, -0.1], [-0.1, 0]], atol=1e-6
    )
    # the goal stays where it is, seen from the point
    np.testing.assert_allclose(states[:, :2] + states[:, 2:], [states[0, :2] + states[0, 2:]] * 4, atol=1e-6)
    cornered, _, _ = drive(0, lambda state: np.array([-1.0, 1.0], dtype=np.float32))
    np.testing.assert_allclose(cornered[-1, :2], [-geometry.ARENA, geometry.ARENA], atol=1e-6)


def test_success_is_nearness_to_the_goal_and_the_episode_goes_on() -> None:
    states, success, touched = expert_drive(start_id(Split.TEST, 0), 0.0)
    assert success and not touched
    distances = np.hypot(states[:, 2], states[:, 3])
    assert distances[-1] <= geometry.GOAL_RADIUS < distances[-2]


def test_starts_and_goals_lie_in_their_zones() -> None:
    firsts = np.stack(
        [first_observation(SUITE.environment(TASK), TASK, start)["state"] for start in range(100)]
    ).astype(np.float64)
    goals = firsts[:, :2] + firsts[:, 2:]
    assert np.abs(firsts[:, 0] - START[0]).max() <= geometry.START_SPREAD[0] + 1e-6
    assert np.abs(firsts[:, 1] - START[1]).max() <= geometry.START_SPREAD[1] + 1e-6
    assert np.abs(goals[:, 1] - GOAL[1]).max() <= geometry.GOAL_SPREAD + 1e-6
    np.testing.assert_allclose(goals[:, 0], GOAL[0], atol=1e-6)
    # on both sides of the axis, so that a start does not tell the way
    assert 0.2 < np.mean(firsts[:, 1] > START[1]) < 0.8


@pytest.mark.parametrize(
    ("path", "side"),
    [
        ([(-0.8, -0.5), (-0.1, 0.3), (0.1, 0.4), (1.0, -0.5)], "left"),
        ([(-0.8, 0.5), (0.0, -0.3), (1.0, 0.2)], "right"),
        ([(-0.8, 0.0), (-0.4, 0.2)], "left"),  # never got there: where it ended
        ([(-0.8, 0.0), (-0.4, -0.2)], "right"),
    ],
)
def test_the_mode_is_the_side_on_which_a_path_passes(path: list[tuple[float, float]], side: str) -> None:
    states = np.array([(*place, 0.0, 0.0) for place in path], dtype=np.float32)
    assert SUITE.mode(TASK, states) == side
    assert side in SUITE.modes(TASK)
    np.testing.assert_array_equal(SUITE.plan_view(TASK, states), np.array(path, dtype=np.float32))


def test_the_suite_tells_its_ways_and_its_obstacle() -> None:
    assert isinstance(SUITE, MultimodalSuite)
    assert SUITE.modes(TASK) == ("left", "right")
    assert SUITE.obstacle(TASK) == (*OBSTACLE_CENTRE, OBSTACLE_RADIUS)

"""The mazes: their maps, their physics, and an expert that always arrives."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.maze2d import MAZES, SUITE, Maze, dynamics
from mtrl.errors import OutOfRangeError, UnknownNameError
from mtrl.rollout import NoiseConfig
from mtrl.tasks import Split, start_id

from .episodes import assert_same_trajectory, buffers, first_observation, fixed_actions, play, same

CORNER = Maze(("#####", "#..##", "##..#", "#####"), horizon=10)
"""Four cells: right, down, right."""


def walk(maze: Maze, start: tuple[int, int], goal: tuple[int, int]) -> int:
    """Cells on the shortest way, by an ordinary search over the drawing."""
    reached, queue = {start: 0}, deque([start])
    while queue:
        row, column = queue.popleft()
        for cell in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if maze.rows[cell[0]][cell[1]] == "." and cell not in reached:
                reached[cell] = reached[row, column] + 1
                queue.append(cell)
    return reached[goal]


def drive(name: str, start: int, deviation: float) -> int | None:
    """Decisions until a (disturbed) expert has reached the goal; None when it has not."""
    task = SUITE.task(name)
    environment, expert, out = SUITE.environment(task), SUITE.expert(task), buffers(task)
    generator = np.random.default_rng(start)
    environment.reset(start, out)
    expert.reset(generator)
    for decision in range(1, task.horizon_decisions + 1):
        action = expert.act(out)
        assert action.shape == (2,) and action.dtype == np.float32 and np.abs(action).max() <= 1.0
        noisy = action + generator.normal(0.0, deviation, 2) if deviation else action
        if environment.step(np.clip(noisy, -1.0, 1.0).astype(np.float32), out)[2]:
            return decision
    return None


@pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
def test_a_map_is_walled_in_and_its_cells_are_connected(maze: Maze) -> None:
    columns = maze.shape[1]
    assert all(len(line) == columns and set(line) <= {"#", "."} for line in maze.rows)
    border = maze.rows[0] + maze.rows[-1] + "".join(line[0] + line[-1] for line in maze.rows)
    assert set(border) == {"#"}
    assert (maze.steps >= 0).all()
    np.testing.assert_array_equal(maze.steps, maze.steps.T)
    generator = np.random.default_rng(0)
    for _ in range(20):
        one, other = generator.integers(len(maze.free), size=2)
        assert maze.steps[one, other] == walk(maze, maze.free[one], maze.free[other])
    assert all(maze.goals(cell) for cell in maze.free)


def test_the_mazes_grow() -> None:
    longest = [int(MAZES[name].steps.max()) for name in ("umaze", "medium", "large")]
    assert longest == sorted(longest) == [6, 13, 32]


def test_ways_and_positions_of_a_small_map() -> None:
    assert CORNER.free == ((1, 1), (1, 2), (2, 2), (2, 3))
    assert CORNER.centre((1, 1)) == (-1.0, 0.5) and CORNER.centre((2, 3)) == (1.0, -0.5)
    assert CORNER.cell_at(-1.4, 0.9) == (1, 1) and CORNER.cell_at(0.3, -0.2) == (2, 2)
    # wall: the nearest free cell
    assert CORNER.cell_at(-1.0, -0.6) in ((1, 1), (2, 2))
    assert CORNER.goals((1, 1)) == [(2, 2), (2, 3)]
    assert CORNER.straight_way((1, 1), (2, 3)) == (1, 2)
    assert CORNER.straight_way((1, 2), (2, 3)) == (2, 2)
    assert CORNER.straight_way((2, 2), (2, 3)) == (2, 3)
    assert CORNER.straight_way((2, 3), (2, 3)) == (2, 3)
    assert MAZES["open"].straight_way((1, 1), (1, 5)) == (1, 5)


@pytest.mark.parametrize("name", SUITE.names())
def test_twenty_starts_are_equal_bit_for_bit_and_so_are_their_episodes(name: str) -> None:
    task = SUITE.task(name)
    maze = MAZES[name.split("/")[1]]
    fresh, used = SUITE.environment(task), SUITE.environment(task)
    actions = fixed_actions(task, 30)
    starts = [start_id(split, index) for split in Split for index in range(7)][:20]
    shown = [first_observation(fresh, task, start) for start in starts]
    assert len({observation["state"].tobytes() for observation in shown}) == 20
    for start, expected in zip(reversed(starts), reversed(shown), strict=True):
        play(used, task, start + 3, actions)
        assert same(first_observation(used, task, start), expected)
        x, y, *velocity, goal_x, goal_y = (float(value) for value in expected["state"])
        assert velocity == [0.0, 0.0]
        cell, goal = maze.cell_at(x, y), maze.cell_at(goal_x, goal_y)
        assert goal in maze.goals(cell)
        for (middle_x, middle_y), (at_x, at_y) in (
            (maze.centre(cell), (x, y)),
            (maze.centre(goal), (goal_x, goal_y)),
        ):
            assert max(abs(at_x - middle_x), abs(at_y - middle_y)) <= dynamics.JITTER + 1e-6
        # never solved before it begins
        assert math.hypot(goal_x - x, goal_y - y) > dynamics.GOAL_RADIUS
    assert_same_trajectory(play(used, task, 5, actions), play(fresh, task, 5, actions))


@pytest.mark.parametrize("name", SUITE.names())
def test_the_expert_solves_fifty_starts_undisturbed_and_disturbed(name: str) -> None:
    for deviation, episodes in ((0.0, 50), (NoiseConfig().high, 10)):
        needed = [drive(name, start_id(Split.TEST, index), deviation) for index in range(episodes)]
        arrived = [decisions for decisions in needed if decisions is not None]
        assert len(arrived) / len(needed) >= 0.95


def test_a_free_ball_moves_by_newtons_law() -> None:
    """Full force to the right: v' = (F - c v) / m, so v(t) = F / c (1 - exp(-c t / m))."""
    task = SUITE.task("maze2d/open")
    environment, out = SUITE.environment(task), buffers(task)
    environment.reset(0, out)
    environment._data.qpos[:] = (-2.0, 0.0)
    for _ in range(20):
        environment.step(np.array([1.0, 0.0], dtype=np.float32), out)
    assert environment._data.time == pytest.approx(1.0)
    expected = dynamics.FORCE / dynamics.DAMPING * (1 - math.exp(-dynamics.DAMPING / dynamics.MASS))
    assert out["state"][2] == pytest.approx(expected, rel=0.01)
    assert out["state"][3] == 0.0 and out["state"][1] == 0.0


def test_walls_hold() -> None:
    task = SUITE.task("maze2d/umaze")
    maze = MAZES["umaze"]
    environment, out = SUITE.environment(task), buffers(task)
    generator = np.random.default_rng(0)
    for start in range(5):
        environment.reset(start, out)
        action = np.zeros(2, dtype=np.float32)
        for step in range(100):
            if step % 20 == 0:
                action = generator.choice([-1.0, 1.0], 2).astype(np.float32)
            environment.step(action, out)
            x, y = (float(value) for value in out["state"][:2])
            column, row = x + 2.0, 2.0 - y
            assert maze.rows[round(row)][round(column)] == "."
            # the ball's rim may press into a wall by little
            assert abs(x) < 1.5 - dynamics.RADIUS + 0.02 and abs(y) < 1.5 - dynamics.RADIUS + 0.02


@pytest.mark.parametrize(
    ("reward", "distance", "expected"),
    [
        ("sparse", 0.49, 1.0),
        ("sparse", 0.51, 0.0),
        ("dense", 0.49, math.exp(-0.49)),
        ("dense", 0.0, 1.0),
        ("dense", 2.0, math.exp(-2.0)),
    ],
)
def test_reward_and_success_follow_from_the_distance(reward: str, distance: float, expected: float) -> None:
    task = SUITE.task("maze2d/open", {"reward": reward})
    environment, out = SUITE.environment(task), buffers(task)
    environment.reset(0, out)
    environment._data.qpos[:] = (-1.0, 0.0)
    environment._goal = (-1.0 + distance, 0.0)
    paid, terminated, success = environment.step(np.zeros(2, dtype=np.float32), out)
    assert paid == pytest.approx(expected)
    assert success == (distance <= 0.5) and not terminated


def test_a_image_shows_ball_goal_and_walls() -> None:
    task = SUITE.task("maze2d/umaze")
    environment, out = SUITE.environment(task), buffers(task)
    environment.reset(0, out)
    environment._data.qpos[:] = (-1.0, 1.0)
    environment._goal = (-1.0, -1.0)
    frame = environment.render()
    assert frame.shape == (160, 160, 3) and frame.dtype == np.uint8
    # cells are 32 pixels wide: the ball top left, the goal below it, wall between them
    assert tuple(frame[48, 48]) == (200, 60, 50)
    assert tuple(frame[112, 48]) == (60, 170, 90)
    assert tuple(frame[80, 48]) == (90, 90, 90)
    assert tuple(frame[48, 112]) == (245, 245, 245)
    environment.step(np.array([1.0, 0.0], dtype=np.float32), out)
    for _ in range(10):
        environment.step(np.array([1.0, 0.0], dtype=np.float32), out)
    assert (environment.render() != frame).any()


def test_listing_options_and_mistakes() -> None:
    assert SUITE.sets() == {"maze2d": SUITE.names()}
    sparse, dense = (registry.task("maze2d/large", {"reward": reward}) for reward in ("sparse", "dense"))
    assert sparse == registry.task("maze2d/large") and sparse.protocol_hash != dense.protocol_hash
    assert sparse.rate_hz == pytest.approx(20.0)
    with pytest.raises(UnknownNameError, match="maze2d/medium"):
        registry.task("maze2d/medum")
    with pytest.raises(UnknownNameError):
        SUITE.task("medium")
    with pytest.raises(OutOfRangeError, match="one of sparse, dense"):
        registry.task("maze2d/open", {"reward": "shaped"})

"""EnvPool's Atari against the official emulator: with one idle frame and no stickiness nothing is drawn."""

from typing import Any

import numpy as np
import pytest

from mtrl.envs.atari import SUITE
from mtrl.tasks import Task

from .episodes import buffers
from .pools import Batch, require_envpool


def pool_of(task: Task, copies: int, seed: int = 0) -> Batch:
    return Batch(task, copies, SUITE.vector_environment(task, copies, "envpool", seed))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Pong", {}),
        ("SpaceInvaders", {}),
        ("MsPacman", {"action_set": "minimal"}),
        ("Boxing", {"frame_skip": 2, "frame_stack": 3}),
        ("Seaquest", {"frame_skip": 1, "frame_stack": 1}),
    ],
)
def test_images_memory_and_rewards_are_the_emulators(name: str, options: dict[str, Any]) -> None:
    require_envpool()
    task = SUITE.task(f"atari/{name}", {"sticky": 0.0, "noop_max": 1, "observation": "both", **options})
    pool, environment, seen = pool_of(task, 1), SUITE.environment(task), buffers(task)
    pool.reset()
    environment.reset(0, seen)
    scored = 0.0
    for action in np.random.default_rng(0).integers(0, task.action.discrete, 200):
        for bucket in ("pixels", "state"):
            np.testing.assert_array_equal(pool.out[bucket][0], seen[bucket])
        reward, terminated, _ = environment.step(int(action), seen)
        pool.step(action)
        scored += abs(reward)
        assert pool.reward[0] == reward and pool.terminated[0] == terminated
        if terminated:
            break
    assert scored > 0 or task.action_repeat < 4


def test_a_game_ends_at_its_end_and_waits_for_the_reset() -> None:
    """Five balls lost; neither a lost life nor the step after the end begins anything."""
    require_envpool()
    task = SUITE.task(
        "atari/Breakout", {"sticky": 0.0, "noop_max": 1, "action_set": "minimal", "observation": "both"}
    )
    pool, environment, seen = pool_of(task, 2), SUITE.environment(task), buffers(task)
    pool.reset()
    environment.reset(0, seen)
    for step in range(2000):
        _, terminated, _ = environment.step(step % 2, seen)
        pool.step(np.array(step % 2))
        np.testing.assert_array_equal(pool.terminated, [terminated, terminated])
        if terminated:
            break
    assert step > 100  # lives lost before the last did not end it
    np.testing.assert_array_equal(pool.out["state"][0], seen["state"])
    last = {bucket: rows.copy() for bucket, rows in pool.out.items()}
    pool.step(np.array(1))
    for bucket, rows in last.items():
        np.testing.assert_array_equal(pool.out[bucket], rows)
    assert not pool.reward.any()
    pool.reset(1)
    first = pool.out["state"][1].copy()
    pool.step(np.array(1))
    np.testing.assert_array_equal(pool.out["state"][0], last["state"][0])
    assert (pool.out["state"][1] != first).any()


def test_a_start_is_one_to_noop_max_idle_frames_and_a_quarter_of_the_frames_sticks() -> None:
    """Idle frames count themselves in a byte of Boxing's memory; stickiness tells equal copies apart."""
    require_envpool()
    idle = SUITE.task("atari/Boxing", {"sticky": 0.0, "noop_max": 4, "observation": "ram"})
    pool, environment, seen = pool_of(idle, 4), SUITE.environment(idle), buffers(idle)
    expected = set()
    for start in range(40):
        environment.reset(start, seen)
        expected.add(seen["state"].tobytes())
    drawn = set()
    for _ in range(12):
        pool.reset()
        drawn |= {row.tobytes() for row in pool.out["state"]}
    assert len(expected) == 4
    assert drawn == expected

    sticky = SUITE.task("atari/Boxing", {"sticky": 0.25, "noop_max": 1, "observation": "ram"})
    pool = pool_of(sticky, 4)
    pool.reset()
    assert len(np.unique(pool.out["state"], axis=0)) == 1
    for step in range(20):
        pool.step(np.array(step % 18))
    assert len(np.unique(pool.out["state"], axis=0)) > 1

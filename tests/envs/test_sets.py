"""Task sets that mix suites or change their settings."""

from __future__ import annotations

import pytest

from mtrl import registry
from mtrl.launch.compose import compose


def test_mixed_has_every_kind_of_observation_and_action_and_five_suites() -> None:
    tasks = registry.task_set("mixed")
    assert tasks.layout.buckets == ("state", "pixels")
    assert {task.action.is_discrete for task in tasks} == {True, False}
    assert len({task.suite for task in tasks}) == 5
    # the widest of each: Meta-World's observation and arm, Atari's screen and joystick
    layout = tasks.layout
    assert (layout.state_size, layout.continuous_size, layout.discrete_size) == (39, 4, 18)
    assert layout.pixels_shape == (4, 84, 84)


def test_atari_ram_is_the_26_games_of_atari_100k_seen_through_their_memory() -> None:
    tasks = registry.task_set("atari-ram")
    assert len(tasks) == 26 and {task.suite for task in tasks} == {"atari"}
    assert all(task.observation.state == 128 and task.observation.pixels is None for task in tasks)
    assert {"atari/Pong", "atari/Breakout", "atari/UpNDown"} <= set(tasks.names)
    # the user's settings come before the set's
    changed = registry.task_set("atari-ram", {"atari": {"observation": "both", "sticky": 0.0}})
    assert changed[0].observation.pixels is not None and changed[0].option("sticky", 1.0) == 0.0


@pytest.mark.parametrize("name", ["mixed", "atari-ram", "maze2d", "classic-control", "gym/CartPole-v1"])
def test_a_set_and_a_task_are_chosen_by_name_on_the_command_line(name: str) -> None:
    assert compose([f"tasks={name}"]).tasks.names == (name,)
    assert len(registry.task_set(name)) >= 1

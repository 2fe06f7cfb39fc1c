"""An environment of one's own by one call: its name, its starts, its endings, its images."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.gym import SUITE, add_environment
from mtrl.errors import ConfigError, EnvironmentFault, MissingExtraError, OutOfRangeError, UnsupportedError
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, Score, TaskSet

from .episodes import buffers, first_observation, fixed_actions, play, same
from .gym_environments import Counter, Ending, Forgetful, Remembering

needs_opengl = pytest.mark.skipif(
    not os.environ.get("MUJOCO_GL") and not os.environ.get("DISPLAY"),
    reason="drawing needs off-screen OpenGL; mend: apt-get install libosmesa6",
)
IDLE = np.zeros(2, dtype=np.float32)


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SUITE, "added", {})


def test_an_added_environment_is_a_task_like_any_other() -> None:
    name = add_environment("my/Counter", Counter, horizon=12, rate_hz=25.0, score=Score("success"))
    assert name == "gym/my/Counter" and name in registry.all_task_names()
    task = registry.task(name)
    assert (task.observation.state, task.action.continuous) == (2, 2)
    assert (task.horizon_decisions, task.rate_hz, task.score) == (12, 25.0, Score("success"))
    assert registry.task(name, {"horizon": 5}).horizon_decisions == 5
    environment = SUITE.environment(task)
    shown = play(environment, task, 0, fixed_actions(task, 3))
    assert [reward for reward, _, _ in shown.outcomes] == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(shown.bucket("state")[:, 0], [0, 1, 2, 3])
    assert not same(first_observation(environment, task, 1), shown.observations[0])


def test_the_reward_version_is_part_of_the_protocol_and_a_name_may_be_given_again() -> None:
    one = registry.task(add_environment("Counter", Counter, horizon=12))
    other = registry.task(add_environment("Counter", Counter, horizon=12, reward_version="2"))
    assert one.protocol_hash != other.protocol_hash
    assert one.score == Score("return") and one.simulator_rate_hz == 10.0


@pytest.mark.parametrize(
    ("name", "settings", "kind", "message"),
    [
        ("", {"horizon": 5}, ConfigError, "named without"),
        ("gym/Counter", {"horizon": 5}, ConfigError, "named without 'gym/'"),
        ("my counter", {"horizon": 5}, ConfigError, "without .*spaces"),
        ("CartPole-v1", {"horizon": 5}, ConfigError, "is an id of Gymnasium"),
        ("Counter", {"horizon": 0}, OutOfRangeError, "horizon=0"),
        ("Counter", {"horizon": 5, "rate_hz": 0.0}, OutOfRangeError, "rate_hz=0.0"),
    ],
)
def test_a_mistake_is_answered_at_once(
    name: str, settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        add_environment(name, Counter, **settings)


def test_what_is_made_has_to_be_an_environment() -> None:
    with pytest.raises(ConfigError, match=r"make\(\) returns a gymnasium.Env; got dict"):
        add_environment("Counter", dict, horizon=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Forgetful(at_reset=True), "first observations"),
        (lambda: Forgetful(at_reset=False), "episodes, with equal actions"),
        (Remembering, "first observations"),
    ],
)
def test_an_environment_that_cannot_reset_to_a_start_is_refused_when_it_is_built(
    make: Any, what: str
) -> None:
    task = registry.task(add_environment("Counter", make, horizon=5))
    for _ in range(2):
        with pytest.raises(UnsupportedError, match=f"gym/Counter cannot reset to a given start: .*{what}"):
            SUITE.environment(task)


def test_an_environment_that_fails_at_once_is_a_fault_with_its_traceback() -> None:
    class Broken(Counter):
        def step(self, action: Any) -> Any:
            raise ZeroDivisionError("in the user's code")

    task = registry.task(add_environment("Broken", Broken, horizon=5))
    with pytest.raises(EnvironmentFault, match="in the user's code") as raised:
        SUITE.environment(task)
    assert raised.value.task == "gym/Broken"


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [(False, True, (False, True)), (True, False, (True, False)), (True, True, (True, False))],
)
def test_an_environment_with_a_clock_of_its_own_truncates_in_the_lane(
    terminated: bool, truncated: bool, expected: tuple[bool, bool]
) -> None:
    name = add_environment("Ending", lambda: Ending(3, terminated, truncated), horizon=9)
    task = registry.task(name)
    lane = PythonLane(
        task, 0, TaskSet([task]).layout, [SUITE.environment(task)], FixedStarts([[0, 3]]), success_tail=None
    )
    lane.begin()
    for decision in (1, 2, 3):
        lane.step(IDLE[None], np.zeros(1, dtype=np.int64))
        flags = bool(lane.terminated[0]), bool(lane.truncated[0])
        assert flags == (expected if decision == 3 else (False, False))
        assert bool(lane.success[0]) == (decision == 3)
    assert lane.start_id[0] == 3
    lane.close()


@pytest.mark.parametrize("key", ["is_success", "success"])
def test_success_is_what_the_info_says(key: str) -> None:
    task = registry.task(add_environment("Ending", lambda: Ending(2, False, False, key), horizon=9))
    outcomes = play(SUITE.environment(task), task, 0, [IDLE, IDLE]).outcomes
    assert [success for _, _, success in outcomes] == [False, True]
    assert all(type(success) is bool for _, _, success in outcomes)


def test_a_image_shows_the_present_and_changes_nothing() -> None:
    task = registry.task(add_environment("Counter", Counter, horizon=9))
    environment = SUITE.environment(task)
    unseen = play(environment, task, 2, [IDLE] * 4)
    environment.reset(2, out := buffers(task))
    first = environment.render()
    for step in range(4):
        assert environment.step(IDLE, out) == unseen.outcomes[step]
        assert same(out, unseen.observations[step + 1])
        frame = environment.render()
        assert frame.shape == (8, 10, 3) and frame.dtype == np.uint8 and (frame == step + 1).all()
    assert (first == 0).all()


@needs_opengl
def test_a_mujoco_environment_draws_itself() -> None:
    task = registry.task("gym/Hopper-v5")
    environment = SUITE.environment(task)
    actions = fixed_actions(task, 8)
    unseen = play(environment, task, 2, actions)
    environment.reset(2, out := buffers(task))
    first = environment.render()
    for action in actions:
        environment.step(action, out)
    later = environment.render()
    assert same(out, unseen.observations[-1])
    assert first.shape == (480, 480, 3) and first.dtype == np.uint8
    assert (first != later).any() and len(np.unique(first)) > 4
    environment.close()


def test_without_opengl_a_mujoco_environment_gives_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    task = registry.task("gym/Hopper-v5")
    environment = SUITE.environment(task)
    environment.reset(2, buffers(task))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UnsupportedError, match="apt-get install libosmesa6"):
        environment.render()
    environment.close()


def test_what_cannot_be_drawn_is_explained() -> None:
    class Blind(Counter):
        metadata = {"render_modes": ["human"]}  # noqa: RUF012

    class Empty(Counter):
        def render(self) -> Any:
            return None

    class Bare(Counter):
        def render(self) -> Any:
            raise gymnasium.error.DependencyNotInstalled('no pygame, run `pip install "gymnasium[toy]"`')

    class Careless(Counter):
        def render(self) -> Any:
            raise ModuleNotFoundError("No module named 'turtles'", name="turtles")

    for make, message in (
        (Blind, r"no render mode 'rgb_array', only \['human'\]"),
        (Empty, "drew NoneType in render mode 'rgb_array'"),
        (Bare, r"'pygame', which is not installed; install it with: pip install 'mtrl-platform\[gym\]'"),
        (Careless, "pip install turtles"),
    ):
        task = registry.task(add_environment("Counter", make, horizon=9))
        environment = SUITE.environment(task)
        environment.reset(0, out := buffers(task))
        with pytest.raises((UnsupportedError, MissingExtraError), match=message):
            environment.render()
        # and playing goes on
        environment.step(IDLE, out)

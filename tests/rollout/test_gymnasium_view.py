"""One task of any suite as a gymnasium.Env, and what the peers' own checkers say of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common import env_checker as baselines_checker

from mtrl import registry
from mtrl.errors import ConfigError, EnvironmentFault, SpaceError, UnknownNameError, UnsupportedError
from mtrl.rollout import GymnasiumView, PythonLane
from mtrl.tasks import FixedStarts, Option, Split, Task, TaskSet, start_id

from ..synthetic import CounterEnvironment, CounterSuite, counter_suite, counter_task

CASES: tuple[tuple[str, Mapping[str, Option]], ...] = (
    ("metaworld/reach-v3", {}),
    ("dmc/cartpole-swingup", {}),
    ("dmc/walker-walk", {}),
    ("dmc/cartpole-balance", {"observation": "pixels"}),
    ("atari/Pong", {}),
    ("atari/Boxing", {"observation": "ram", "action_set": "minimal"}),
    ("atari/Breakout", {"observation": "both"}),
    ("gym/Pendulum-v1", {}),
    ("gym/CartPole-v1", {}),
    ("gym/FrozenLake-v1", {}),
    ("gym/Hopper-v5", {}),
    ("maze2d/umaze", {}),
    ("maze2d/large", {"reward": "dense"}),
    ("point/obstacle", {}),
)
DRAWN_BY_ITSELF = ("atari", "maze2d", "point")
"""Suites whose pictures need no renderer; the checkers draw these, and the rest is drawn elsewhere."""
OPENGL = bool(os.environ.get("MUJOCO_GL") or os.environ.get("DISPLAY"))


@pytest.fixture(params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
def task(request: pytest.FixtureRequest) -> Task:
    name, options = request.param
    if name.startswith("dmc/") and options and not OPENGL:
        pytest.skip("dmc pixels need off-screen OpenGL; mend: apt-get install libosmesa6")
    return registry.task(name, options)


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as made:
        yield made


def test_the_checkers_of_gymnasium_and_stable_baselines3_pass(task: Task) -> None:
    """Every warning is an error, but that a state may take any value."""
    drawable = task.suite in DRAWN_BY_ITSELF
    view = GymnasiumView(task, render_mode="rgb_array" if drawable else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*A Box observation space m..imum value is -?infinity")
        check_env(view, skip_render_check=not drawable, skip_close_check=not drawable)
        baselines_checker.check_env(view, warn=True, skip_render_check=not drawable)
    view.close()
    view.close()


def test_a_view_plays_what_a_lane_plays(task: Task) -> None:
    """Equal starts and actions: equal observations, rewards and signals, without the padding."""
    start, generator = start_id(Split.TEST, 4), np.random.default_rng(0)
    environment = registry.suite(task.suite).environment(task)
    lane = PythonLane(task, 0, TaskSet([task]).layout, [environment], FixedStarts([[start]]))
    view = GymnasiumView(task)
    lane.begin()
    shown, info = view.reset(options={"start": start})
    assert info == {"start": start}
    width = task.action.continuous
    for _ in range(12):
        seen = shown if isinstance(shown, dict) else {task.observation.buckets[0]: shown}
        assert seen.keys() == lane.observation.keys()
        for bucket, values in seen.items():
            np.testing.assert_array_equal(values, lane.observation[bucket][0])
        continuous = generator.uniform(-1.0, 1.0, (1, width)).astype(np.float32)
        index = np.array([generator.integers(task.action.discrete)] if task.action.is_discrete else [0])
        lane.step(continuous, index)
        shown, reward, terminated, truncated, info = view.step(index[0] if width == 0 else continuous[0])
        assert (terminated, truncated) == (bool(lane.terminated[0]), bool(lane.truncated[0]))
        assert reward == pytest.approx(float(lane.reward[0]))
        assert info == {"start": start, "success": bool(lane.success[0])}
        if terminated or truncated:
            break
    lane.close()
    view.close()


def test_spaces_are_the_tasks_own() -> None:
    both = GymnasiumView(registry.task("atari/Pong", {"observation": "both", "action_set": "minimal"}))
    assert isinstance(both.observation_space, gymnasium.spaces.Dict)
    assert both.observation_space["state"] == gymnasium.spaces.Box(-np.inf, np.inf, (128,), np.float32)
    assert both.observation_space["pixels"] == gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert both.action_space == gymnasium.spaces.Discrete(6)
    point = GymnasiumView("point/obstacle")
    assert point.observation_space == gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    assert point.action_space == gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


def test_a_seed_is_a_training_start_and_without_one_starts_follow_from_the_last(suite: CounterSuite) -> None:
    view, other = GymnasiumView(counter_task()), GymnasiumView(counter_task())
    observation, info = view.reset(seed=7)
    assert info["start"] == start_id(Split.TRAIN, 7) == observation[1]
    drawn = [view.reset()[1]["start"] for _ in range(5)]
    other.reset(seed=7)
    assert drawn == [other.reset()[1]["start"] for _ in range(5)]
    assert len(set(drawn)) == 5 and all(start % 3 == Split.TRAIN.value for start in drawn)
    assert view.reset(seed=7, options={"start": 5})[1]["start"] == 5


def test_an_episode_is_truncated_at_the_horizon_and_begins_anew(suite: CounterSuite) -> None:
    view = GymnasiumView(counter_task(horizon=3, success_at=2))
    for _ in range(2):
        view.reset(seed=0)
        steps = [view.step(np.zeros(2, dtype=np.float32)) for _ in range(3)]
        assert [reward for _, reward, *_ in steps] == [1.0, 2.0, 3.0]
        assert [terminated for _, _, terminated, _, _ in steps] == [False, False, False]
        assert [truncated for _, _, _, truncated, _ in steps] == [False, False, True]
        assert [info["success"] for *_, info in steps] == [False, True, False]


def test_an_episode_ends_on_success_where_the_task_says_so(suite: CounterSuite) -> None:
    task = replace(counter_task(horizon=3, success_at=3), end_on_success=True)
    view = GymnasiumView(task)
    view.reset(seed=0)
    flags = [view.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(3)]
    # at the horizon too the problem's own end comes first
    assert flags == [(False, False), (False, False), (True, False)]


def test_a_clock_of_the_environment_truncates(suite: CounterSuite, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clocked(CounterEnvironment):
        @property
        def truncated(self) -> bool:
            return self.t == 2

    monkeypatch.setattr(CounterSuite, "environment", lambda self, task: Clocked(task, self))
    view = GymnasiumView(counter_task(horizon=9))
    view.reset(seed=0)
    assert [view.step(np.zeros(2))[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_an_observation_belongs_to_whoever_got_it(suite: CounterSuite) -> None:
    view = GymnasiumView(counter_task())
    first, _ = view.reset(seed=0)
    later = view.step(np.zeros(2, dtype=np.float32))[0]
    assert isinstance(first, np.ndarray) and isinstance(later, np.ndarray)
    assert first[0] == 0.0 and later[0] == 1.0


def test_a_continuous_action_is_clipped(suite: CounterSuite) -> None:
    view = GymnasiumView(counter_task())
    view.reset(seed=0)
    # the counter adds up what it is given
    assert view.step(np.array([3.0, 0.5]))[0][2] == 1.5


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.0, np.nan]), 0.0])
def test_an_action_that_does_not_fit_is_refused(suite: CounterSuite, action: object) -> None:
    view = GymnasiumView(counter_task())
    view.reset(seed=0)
    with pytest.raises(SpaceError, match="an action of task counter/short is 2 finite numbers"):
        view.step(action)


@pytest.mark.parametrize("action", [3, -1, 0.5, np.array([1])])
def test_an_index_that_does_not_fit_is_refused(suite: CounterSuite, action: object) -> None:
    view = GymnasiumView(counter_task("counter/frames"))
    view.reset(seed=0)
    with pytest.raises(SpaceError, match="an index from 0 to 2"):
        view.step(action)


@pytest.mark.parametrize("field", ["state", "reward"])
def test_a_number_that_is_not_finite_is_a_fault(suite: CounterSuite, field: str) -> None:
    view = GymnasiumView(counter_task(nan_at=2, nan_field=field))
    view.reset(seed=0)
    view.step(np.zeros(2))
    with pytest.raises(EnvironmentFault, match=f"decision 2, start 0:\nnot finite: '{field}'"):
        view.step(np.zeros(2))


def test_mistakes_are_answered() -> None:
    with pytest.raises(UnknownNameError, match="maze2d/umaze"):
        GymnasiumView("maze2d/umase")
    with pytest.raises(ConfigError, match="got 'human'"):
        GymnasiumView("point/obstacle", render_mode="human")
    view = GymnasiumView("point/obstacle")
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset the view"):
        view.step(np.zeros(2))
    with pytest.raises(UnknownNameError, match="'strat'; did you mean 'start'"):
        view.reset(options={"strat": 3})
    for start in (-1, 0.5, "7"):
        with pytest.raises(ConfigError, match="a whole number from 0"):
            view.reset(options={"start": start})
    assert view.render() is None
    with (
        counter_suite(supports_starts=False),
        pytest.raises(UnsupportedError, match="cannot reset to a given start"),
    ):
        GymnasiumView(counter_task())


def test_stable_baselines3_learns_on_a_view() -> None:
    """A few updates of PPO, with its own normalisation of actions and its own resets."""
    from stable_baselines3 import PPO

    model = PPO(
        "MlpPolicy", GymnasiumView("gym/CartPole-v1"), n_steps=64, batch_size=64, seed=0, device="cpu"
    )
    model.learn(128)
    assert model.num_timesteps == 128

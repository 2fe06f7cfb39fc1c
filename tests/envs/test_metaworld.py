"""Meta-World's protocol: official sets, experts, horizon, rewards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import metaworld.env_dict as official_sets
import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.metaworld import SUITE, catalogue
from mtrl.envs.metaworld.environment import MetaworldEnvironment
from mtrl.envs.metaworld.simulator import official_simulator
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, Split, TaskSet, start_id

from .episodes import assert_same_trajectory, buffers, first_observation, fixed_actions, play
from .metaworld_census import fresh_official

EASY = ("reach", "push", "pick-place", "drawer-open", "button-press-topdown", "window-open")
EXPERT_STARTS = 5


@pytest.fixture(scope="module")
def push() -> Iterator[MetaworldEnvironment]:
    made = SUITE.environment(SUITE.task("metaworld/push-v3"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "size", "official"),
    [
        ("mt10", 10, official_sets.MT10_V3),
        ("mt25", 25, official_sets.MT25_V3),
        ("mt50", 50, official_sets.MT50_V3),
    ],
)
def test_sets_are_the_official_ones_in_their_order(name: str, size: int, official: dict[str, object]) -> None:
    assert SUITE.sets()[name] == tuple(f"metaworld/{short}" for short in official)
    assert len(official) == size
    assert registry.task_set(name).names == SUITE.sets()[name]


def test_the_catalogue_is_what_the_generator_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, order, sets and version; sizes are compared task by task in test_metaworld_all_tasks."""
    classes = {name: lambda name=name: f"metaworld/{name}" for name in catalogue.ALL_V3_ENVIRONMENTS}
    monkeypatch.setattr(catalogue, "ALL_V3_ENVIRONMENTS", classes)
    monkeypatch.setattr(catalogue, "entry", SUITE.entry)
    assert catalogue.generate() == SUITE.catalogue.path.read_text(encoding="utf-8")
    assert Path(catalogue.__file__).with_name("catalogue.json") == SUITE.catalogue.path


@pytest.mark.parametrize("short", EASY)
def test_the_scripted_expert_succeeds(short: str) -> None:
    task = SUITE.task(f"metaworld/{short}-v3")
    environment, expert = SUITE.environment(task), SUITE.expert(task)
    successes = 0
    for index in range(EXPERT_STARTS):
        out = buffers(task)
        environment.reset(start_id(Split.TRAIN, index), out)
        expert.reset(np.random.default_rng(index))
        for _ in range(task.horizon_decisions):
            action = expert.act(out)
            assert action.shape == (4,) and action.dtype == np.float32
            assert np.abs(action).max() <= 1.0
            if environment.step(action, out)[2]:
                successes += 1
                break
    environment.close()
    assert successes >= 0.8 * EXPERT_STARTS


def test_an_episode_is_truncated_after_500_decisions_and_the_next_one_works() -> None:
    """The official simulator raises when it is stepped past its horizon; the lane never does."""
    task = SUITE.task("metaworld/reach-v3")
    tasks = TaskSet([task])
    environment = SUITE.environment(task)
    starts = [start_id(Split.TEST, 0), start_id(Split.TEST, 1)]
    lane = PythonLane(task, 0, tasks.layout, [environment], FixedStarts([starts]))
    lane.begin()
    action, index = np.zeros((1, 4), dtype=np.float32), np.zeros(1, dtype=np.int64)
    for decision in range(1, 501):
        lane.step(action, index)
        assert not lane.terminated[0]
        assert bool(lane.truncated[0]) == (decision == 500)
    (final,) = lane.final_observations
    assert lane.start_id[0] == starts[1]
    np.testing.assert_array_equal(
        lane.observation["state"][0], first_observation(SUITE.environment(task), task, starts[1])["state"]
    )
    assert (final.observation["state"] != lane.observation["state"][0]).any()
    lane.step(action, index)
    assert not lane.truncated[0] and not lane.final_observations
    lane.close()


def test_the_goal_is_the_one_that_the_start_vector_says(push: MetaworldEnvironment) -> None:
    """push-v3's vector is the puck's x, y, z and the goal's x, y, z; the goal's lies on the table."""
    task = SUITE.task("metaworld/push-v3")
    for start in range(3):
        state = first_observation(push, task, start)["state"]
        assert isinstance(state, np.ndarray)
        np.testing.assert_allclose(state[-3:-1], push.start_vector[3:5], atol=1e-6)
        np.testing.assert_allclose(state[4:6], push.start_vector[:2], atol=1e-3)
        # what was one step ago is, at the start, what is now
        np.testing.assert_array_equal(state[18:36], state[:18])


def test_the_start_vector_is_a_copy(push: MetaworldEnvironment) -> None:
    task = SUITE.task("metaworld/push-v3")
    first_observation(push, task, 0)
    vector = push.start_vector
    push.start_vector[:] = 9.0
    np.testing.assert_array_equal(push.start_vector, vector)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_reward_is_the_official_one_of_its_version(version: str) -> None:
    task = SUITE.task("metaworld/drawer-open-v3", {"reward_version": version})
    assert task.reward_version == f"metaworld-{version}"
    environment, expert = SUITE.environment(task), SUITE.expert(task)
    state = first_observation(environment, task, 2)["state"]
    official = fresh_official("drawer-open-v3", environment.start_vector, version)
    official.reset()
    rewards, out = [], {"state": state}
    for _ in range(60):
        action = expert.act(out)
        rewards.append(environment.step(action, out)[0])
        assert rewards[-1] == official.step(action)[1]
    assert max(rewards) > min(rewards)
    # v2 lies in [0, 10], v1 does not
    assert (min(rewards) >= 0.0 and max(rewards) <= 10.0) == (version == "v2")


def test_a_touch_is_seen_as_the_official_class_sees_it() -> None:
    """While the gripper holds the puck: every geom of the model, both ways of asking."""
    task = SUITE.task("metaworld/pick-place-v3")
    environment, expert = SUITE.environment(task), SUITE.expert(task)
    simulator = environment._simulator
    official = type(simulator).__mro__[1].touching_object
    out = buffers(task)
    environment.reset(0, out)
    touched = set()
    for step in range(80):
        environment.step(expert.act(out), out)
        if step % 5 == 0:
            for geom in range(simulator.model.ngeom):
                answer = simulator.touching_object(geom)
                assert answer == official(simulator, geom)
                touched |= {geom} if answer else set()
    assert touched, "nothing was ever held"
    # a contact without force is no touch
    simulator.data.efc_force[:] = 0.0
    assert not any(simulator.touching_object(geom) or official(simulator, geom) for geom in touched)


def test_models_that_share_a_compilation_do_not_share_bodies() -> None:
    one, other = (official_simulator("reach-v3", "v2") for _ in range(2))
    before = other.model.body_pos.copy()
    one.model.body_pos[:] += 1.0
    one.model.site_pos[:] += 1.0
    np.testing.assert_array_equal(other.model.body_pos, before)
    np.testing.assert_array_equal(official_simulator("reach-v3", "v2").model.body_pos, before)


def test_play_is_the_same_with_the_shortened_horizon() -> None:
    """The horizon is the lane's business alone."""
    short, usual = SUITE.task("metaworld/reach-v3", {"horizon": 10}), SUITE.task("metaworld/reach-v3")
    assert (short.horizon_decisions, usual.horizon_decisions) == (10, 500)
    actions = fixed_actions(usual, 15)
    one, other = (play(SUITE.environment(task), task, 1, actions) for task in (short, usual))
    assert_same_trajectory(one, other)

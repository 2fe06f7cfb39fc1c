"""The gym suite: Gymnasium's own environments, unchanged in what they show and pay."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from mtrl import registry
from mtrl.envs.gym import SUITE
from mtrl.envs.gym.catalogue import SETS, entries, random_return
from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.rollout import PythonLane
from mtrl.tasks import FixedStarts, Score, SelfTruncating, Split, TaskSet, start_id

from .episodes import buffers, first_observation, fixed_actions, play, same

ORACLES = ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "FrozenLake-v1", "Taxi-v3", "Hopper-v5", "Reacher-v5")


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of a user that registers two ids; its name."""
    (tmp_path / "somebodys_environments.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Short-v3', entry_point=CartPoleEnv, max_episode_steps=7, reward_threshold=6.0)\n"
        "gymnasium.register('away/Endless-v0', entry_point=CartPoleEnv)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(SUITE, "_built", {})
    yield "somebodys_environments"
    for identifier in ("Short-v3", "away/Endless-v0"):
        gymnasium.registry.pop(identifier, None)


@pytest.mark.parametrize("name", SUITE.names())
def test_twenty_starts_are_equal_bit_for_bit_on_fresh_and_used_environments(name: str) -> None:
    task = registry.task(name)
    fresh, used = SUITE.environment(task), SUITE.environment(task)
    actions = fixed_actions(task, 5)
    starts = [start_id(split, index) for split in Split for index in range(7)][:20]
    shown = [first_observation(fresh, task, start) for start in starts]
    for start, expected in zip(reversed(starts), reversed(shown), strict=True):
        play(used, task, start + 3, actions)
        assert same(first_observation(used, task, start), expected)
    fresh.close()
    used.close()


@pytest.mark.parametrize("identifier", ORACLES)
def test_an_episode_is_the_official_one(identifier: str) -> None:
    """Gymnasium's own environment, in all its wrappers, reset by the start's seed and given equal actions."""
    task = registry.task(f"gym/{identifier}")
    environment, official = SUITE.environment(task), gymnasium.make(identifier)
    actions = fixed_actions(task, 30)
    shown = play(environment, task, 4, actions)

    def as_state(observation: object) -> np.ndarray:
        if isinstance(official.observation_space, gymnasium.spaces.Discrete):
            return np.eye(int(official.observation_space.n), dtype=np.float32)[observation]
        return np.asarray(observation, dtype=np.float32)

    observation, _ = official.reset(seed=environment.seed_of(4))
    np.testing.assert_array_equal(shown.observations[0]["state"], as_state(observation))
    for action, outcome, after in zip(actions, shown.outcomes, shown.observations[1:], strict=False):
        if isinstance(action, np.ndarray):
            space = official.action_space
            action = ((space.high + space.low) / 2 + (space.high - space.low) / 2 * action).astype(np.float32)
        observation, reward, terminated, _, _ = official.step(action)
        np.testing.assert_allclose(after["state"], as_state(observation), rtol=1e-6, atol=1e-6)
        assert outcome[0] == pytest.approx(float(reward), rel=1e-6, abs=1e-6)
        assert outcome[1] == terminated
    official.close()


def test_the_catalogue_is_what_gymnasium_says() -> None:
    content = json.loads(SUITE.catalogue.path.read_text(encoding="utf-8"))
    assert content["package"] == f"gymnasium {version('gymnasium')}"
    assert {name: tuple(members) for name, members in content["sets"].items()} == SETS
    found = entries(content["tasks"])
    for identifier, entry in found.items():
        kept = SUITE.entry(f"gym/{identifier}")
        assert replace(kept, random_return=None) == entry
        assert kept.random_return is not None


def test_random_play_is_the_low_end_and_gymnasiums_threshold_the_high_end_of_a_score() -> None:
    entry = SUITE.entry("gym/CartPole-v1")
    assert random_return("CartPole-v1", entry) == entry.random_return
    assert SUITE.task("gym/CartPole-v1").score == Score("return", low=entry.random_return or 0.0, high=475.0)
    # no threshold: the return itself
    assert SUITE.task("gym/Pendulum-v1").score == Score("return")
    ranged = [score for name in SUITE.names() if (score := SUITE.task(name).score).is_normalised]
    assert ranged and all(score.high > score.low for score in ranged)


def test_rates_are_those_of_the_simulations() -> None:
    """CartPole: tau = 0.02 s; Pendulum: dt = 0.05 s; Ant: 5 steps of 0.01 s; MountainCar: 30 frames/s."""
    for identifier, rate in {
        "CartPole-v1": 50,
        "Pendulum-v1": 20,
        "Ant-v5": 20,
        "MountainCar-v0": 30,
    }.items():
        assert SUITE.task(f"gym/{identifier}").simulator_rate_hz == rate


def test_a_discrete_observation_is_one_hot() -> None:
    task = SUITE.task("gym/FrozenLake-v1")
    environment = SUITE.environment(task)
    states = play(environment, task, 1, fixed_actions(task, 20)).bucket("state")
    assert states.shape[1] == 16
    np.testing.assert_array_equal(states.sum(axis=1), 1.0)
    np.testing.assert_array_equal(states[0], np.eye(16)[0])
    assert len(np.unique(states.argmax(axis=1))) > 1


def test_a_decision_sums_the_rewards_of_its_repeats_and_stops_at_the_horizon() -> None:
    once = SUITE.task("gym/Pendulum-v1")
    thrice = SUITE.task("gym/Pendulum-v1", {"action_repeat": 3})
    assert (once.horizon_decisions, thrice.horizon_decisions) == (200, 67)
    assert thrice.rate_hz == once.rate_hz / 3
    actions = fixed_actions(thrice, 67)
    slow = play(SUITE.environment(thrice), thrice, 9, actions)
    held = play(SUITE.environment(once), once, 9, [action for action in actions for _ in range(3)][:200])
    rewards = [reward for reward, _, _ in held.outcomes]
    expected = [sum(rewards[first : first + 3]) for first in range(0, 200, 3)]
    np.testing.assert_allclose([reward for reward, _, _ in slow.outcomes], expected, rtol=1e-12)
    np.testing.assert_array_equal(slow.bucket("state")[-1], held.bucket("state")[200])


def test_repeats_end_with_the_episode() -> None:
    task = SUITE.task("gym/CartPole-v1", {"action_repeat": 16})
    outcomes = play(SUITE.environment(task), task, 0, [0] * 5).outcomes
    # a cart pushed to one side falls within 8 to 11 steps
    assert outcomes[0][1] and 8 <= outcomes[0][0] <= 11


def test_the_lane_truncates_at_the_horizon_and_gymnasium_does_not() -> None:
    task = SUITE.task("gym/MountainCar-v0")
    assert task.horizon_decisions == 200
    environment = SUITE.environment(task)
    assert isinstance(environment, SelfTruncating)
    lane = PythonLane(task, 0, TaskSet([task]).layout, [environment], FixedStarts([[3, 6]]))
    lane.begin()
    # as wide as the layout's continuous actions, which is not at all
    continuous, index = np.zeros((1, 0), dtype=np.float32), np.ones(1, dtype=np.int64)
    for decision in range(1, 201):
        lane.step(continuous, index)
        assert bool(lane.truncated[0]) == (decision == 200)
        assert not environment.truncated and not lane.terminated[0]
    assert lane.start_id[0] == 6 and len(lane.final_observations) == 1
    lane.close()
    shorter = SUITE.task("gym/MountainCar-v0", {"horizon": 50})
    assert shorter.horizon_decisions == 50
    assert shorter.protocol_hash != task.protocol_hash


def test_starts_of_different_splits_never_share_a_seed() -> None:
    environment = SUITE.environment(SUITE.task("gym/CartPole-v1"))
    seeds = {split: {environment.seed_of(start_id(split, index)) for index in range(500)} for split in Split}
    assert all(seed % 3 == split.value for split, found in seeds.items() for seed in found)
    assert all(len(found) == 500 and max(found) < 2**31 for found in seeds.values())


def test_an_id_of_a_users_module_is_resolved_by_building_it(registered: str) -> None:
    task = registry.task(f"gym/{registered}:Short-v3")
    assert (task.observation.state, task.action.discrete, task.horizon_decisions) == (4, 2, 7)
    # random play was not measured, so the threshold alone makes no score
    assert task.score == Score("return")
    environment = SUITE.environment(task)
    assert first_observation(environment, task, 0)["state"].any()
    # once imported, the id is registered; and an id may hold slashes
    assert registry.task("gym/Short-v3").horizon_decisions == 7
    assert registry.task("gym/away/Endless-v0").horizon_decisions == 1000
    assert registry.task("gym/away/Endless-v0", {"horizon": 20}).horizon_decisions == 20


def test_a_wrong_version_is_answered_with_the_module_that_has_the_right_one(registered: str) -> None:
    for identifier in ("Short-v3", "away/Endless-v0"):
        gymnasium.registry.pop(identifier, None)
    sys.modules.pop(registered, None)
    with pytest.raises(UnknownNameError, match=rf"did you mean 'gym/{registered}:Short-v3'"):
        registry.task(f"gym/{registered}:Short-v4")


@pytest.mark.parametrize("asked", ["gym/CartPol-v1", "gym/CartPole", "gym/CartPole-v7", "gym/cartpole-v1"])
def test_an_unknown_id_is_answered_with_the_nearest(asked: str) -> None:
    with pytest.raises(UnknownNameError, match="did you mean") as raised:
        registry.task(asked)
    assert "gym/CartPole-v1" in raised.value.nearest


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("gym/no_such_module:Task-v0", ConfigError, "'no_such_module' cannot be imported"),
        ("gym/Blackjack-v1", UnsupportedError, r"observes Tuple\(.*FlattenObservation"),
        ("gym/Ant-v2", UnsupportedError, "cannot be built here: The mujoco v2"),
    ],
)
def test_an_id_that_cannot_be_had_is_explained(name: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        registry.task(name)


def test_a_missing_package_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*arguments: object, **settings: object) -> None:
        raise gymnasium.error.DependencyNotInstalled('Box2D is not installed, run `pip install "box2d"`')

    monkeypatch.setattr(gymnasium, "make", absent)
    with pytest.raises(UnsupportedError, match=r'gym/LunarLander-v3 needs .*pip install "box2d"'):
        registry.task("gym/LunarLander-v3")


@pytest.mark.parametrize(("key", "value"), [("action_repeat", 0), ("action_repeat", 17), ("horizon", -1)])
def test_an_option_out_of_range_is_refused(key: str, value: int) -> None:
    with pytest.raises(OutOfRangeError, match=f"{key}={value}"):
        registry.task("gym/CartPole-v1", {key: value})


def test_a_score_is_given_by_options_and_changes_no_protocol_without_them() -> None:
    name = "gym/CartPole-v1"
    plain = registry.task(name)
    assert plain.score.high == 475.0 and not {"score", "score_low"} & set(dict(plain.options))
    assert registry.task(name, {"score": "return"}).score == Score("return")
    assert registry.task(name, {"score": "success"}).score == Score("success")
    ranged = registry.task(name, {"score_low": -50.0, "score_high": -5.0})
    assert ranged.score == Score("return", low=-50.0, high=-5.0)
    # what a run or an artefact keeps gives the same task
    assert registry.task(name, dict(ranged.options)) == ranged
    for wrong in ({"score": "success", "score_high": 1.0}, {"score_low": 2.0, "score_high": 2.0}):
        with pytest.raises(ConfigError):
            registry.task(name, wrong)


def test_an_environment_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SUITE.task("gym/CartPole-v1")
    monkeypatch.setattr(
        gymnasium.registry["CartPole-v1"], "entry_point", "gymnasium.envs.classic_control:AcrobotEnv"
    )
    with pytest.raises(ConfigError, match="another version"):
        SUITE.environment(task)


def test_no_expert() -> None:
    with pytest.raises(UnsupportedError, match="gym/CartPole-v1 has no scripted expert"):
        SUITE.expert(SUITE.task("gym/CartPole-v1"))


def test_buffers_have_the_catalogues_size() -> None:
    for name in SUITE.names():
        task = SUITE.task(name)
        assert buffers(task)["state"].shape == (SUITE.entry(name).state,)

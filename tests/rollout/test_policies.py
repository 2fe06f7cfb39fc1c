"""Random play and scripted experts; what a policy is when it travels."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from mtrl import registry
from mtrl.errors import ConfigError, OutOfRangeError, UnknownNameError, UnsupportedError
from mtrl.rollout import (
    Acting,
    Action,
    ExpertPolicy,
    NoiseConfig,
    Policy,
    PolicySnapshot,
    RandomPolicy,
    generator_for,
    policy_from,
)
from mtrl.tasks import TaskSet

from ..synthetic import CounterSuite, counter_suite

NAMES = ["counter/short", "counter/long", "counter/frames"]


@pytest.fixture
def suite() -> Iterator[CounterSuite]:
    with counter_suite() as found:
        yield found


@pytest.fixture
def tasks(suite: CounterSuite) -> TaskSet:
    return TaskSet([suite.task(name) for name in NAMES])


def act(policy: Policy, tasks: TaskSet, rows: list[int], keys: list[int], explore: bool = True) -> Action:
    """One first decision of copies that belong to the tasks `rows`."""
    return policy.act(
        tasks.layout.zeros(len(rows)),
        np.array(rows),
        policy.initial_state(len(rows)),
        np.ones(len(rows), dtype=bool),
        acting=Acting(explore),
        generators=[generator_for(1, tasks[k].name, key) for k, key in zip(rows, keys, strict=True)],
    )


def test_generators_depend_on_every_part_of_their_key() -> None:
    keys = [
        (1, "a/b", 0, 0),
        (2, "a/b", 0, 0),
        (1, "a/c", 0, 0),
        (1, "a/b", 1, 0),
        (1, "a/b", 0, 1),
        (0, "a/b", 1, 0),
    ]
    draws = [generator_for(*key).integers(2**63) for key in keys]
    assert len(set(draws)) == len(keys)
    assert generator_for(*keys[0]).integers(2**63) == draws[0]


def test_random_play_is_uniform_over_what_each_task_allows(tasks: TaskSet) -> None:
    rows = [0, 1, 2] * 200
    action = act(RandomPolicy(tasks, version=4), tasks, rows, list(range(600)))
    short, long, frames = (action.continuous[k::3] for k in range(3))
    assert not short[:, 2:].any()
    assert not frames.any()
    assert np.abs(action.continuous).max() <= 1
    for values in (short[:, :2], long):
        assert np.abs(values.mean(axis=0)).max() < 0.15
        np.testing.assert_allclose(values.var(axis=0), 1 / 3, atol=0.06)
    assert np.bincount(action.discrete[2::3], minlength=3).min() > 40
    assert action.discrete.max() == 2
    assert not action.discrete[0::3].any()
    # densities 1/2 per dimension, probabilities 1/3
    np.testing.assert_allclose(
        action.extras["log_probability"][:3], np.log([1 / 4, 1 / 16, 1 / 3]), rtol=1e-6
    )


def test_a_decision_does_not_depend_on_the_copies_beside_it(tasks: TaskSet, suite: CounterSuite) -> None:
    for policy, rows in (
        (RandomPolicy(tasks), [0, 2, 1, 0]),
        (ExpertPolicy(tasks, {"counter": suite}, NoiseConfig()), [0, 1, 1, 0]),
    ):
        together = act(policy, tasks, rows, [5, 6, 7, 8])
        for row, (k, key) in enumerate(zip(rows, [5, 6, 7, 8], strict=True)):
            alone = act(policy, tasks, [k], [key])
            np.testing.assert_array_equal(alone.continuous[0], together.continuous[row])
            assert alone.discrete[0] == together.discrete[row]


def test_an_expert_s_label_stays_clean(tasks: TaskSet, suite: CounterSuite) -> None:
    policy = ExpertPolicy(tasks, {"counter": suite}, NoiseConfig(fraction=1.0, low=0.3, high=0.3))
    rows = [0] * 300
    action = act(policy, tasks, rows, list(range(300)))
    assert np.unique(action.extras["label"][:, :2]).tolist() == [-0.25, 0.25]
    assert not action.extras["label"][:, 2:].any()
    assert not action.continuous[:, 2:].any(), "no noise where the task has no action"
    noise = action.continuous[:, :2] - action.extras["label"][:, :2]
    np.testing.assert_allclose(noise.std(), 0.3, rtol=0.1)
    assert np.abs(action.continuous).max() <= 1
    assert set(action.extras) == {extra.name for extra in policy.extras} == {"label"}


def test_noise_is_drawn_once_per_episode_and_only_to_explore(tasks: TaskSet, suite: CounterSuite) -> None:
    policy = ExpertPolicy(tasks, {"counter": suite}, NoiseConfig(fraction=0.5, low=0.1, high=0.5))
    rows, keys = [0] * 200, list(range(200))
    quiet = act(policy, tasks, rows, keys, explore=False)
    np.testing.assert_array_equal(quiet.continuous, quiet.extras["label"])
    first = act(policy, tasks, rows, keys)
    deviation = first.state["deviation"]
    perturbed = deviation > 0
    assert 70 < perturbed.sum() < 130
    assert deviation[perturbed].min() >= 0.1
    assert deviation.max() <= 0.5
    np.testing.assert_array_equal((first.continuous != first.extras["label"]).any(axis=1), perturbed)
    later = policy.act(
        tasks.layout.zeros(200),
        np.array(rows),
        first.state,
        np.zeros(200, dtype=bool),
        acting=Acting(explore=True),
        generators=[np.random.default_rng(key) for key in keys],
    )
    np.testing.assert_array_equal(later.state["deviation"], deviation)


def test_two_lanes_of_one_policy_keep_their_noise_apart(tasks: TaskSet, suite: CounterSuite) -> None:
    policy = ExpertPolicy(tasks, {"counter": suite}, NoiseConfig(fraction=1.0))
    one = act(policy, tasks, [0], [1])
    other = act(policy, tasks, [1], [2])
    assert one.state["deviation"] != other.state["deviation"]


def test_a_task_without_expert_says_so(tasks: TaskSet, suite: CounterSuite) -> None:
    with pytest.raises(UnsupportedError, match="counter/frames"):
        act(ExpertPolicy(tasks, {"counter": suite}, NoiseConfig()), tasks, [2], [0])


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"fraction": 1.5}, "noise.fraction"), ({"low": -0.1}, "noise.low"), ({"low": 0.6}, "noise.low")],
)
def test_noise_out_of_range_is_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(OutOfRangeError, match=key):
        NoiseConfig(**settings)


@pytest.mark.parametrize(
    "snapshot",
    [
        PolicySnapshot("random", version=3),
        PolicySnapshot("expert", config={"fraction": 0.5, "low": 0.2, "high": 0.3}, version=3),
    ],
    ids=lambda snapshot: snapshot.kind,
)
def test_a_snapshot_makes_the_same_policy_anywhere(tasks: TaskSet, snapshot: PolicySnapshot) -> None:
    here, there = policy_from(snapshot, tasks), policy_from(pickle.loads(pickle.dumps(snapshot)), tasks)
    assert here.version == there.version == 3
    first, second = (act(policy, tasks, [0, 1], [1, 2]) for policy in (here, there))
    np.testing.assert_array_equal(first.continuous, second.continuous)


def test_an_agent_rebuilds_its_own_policy(tasks: TaskSet) -> None:
    class Agent:
        name, config_class, metrics = "still", object, ()

        def build(self, *parts: object) -> None:
            """Not asked for here."""

        needs = extras = build

        def policy(self, snapshot: PolicySnapshot, tasks: TaskSet) -> Policy:
            if "layers" in snapshot.config:
                raise UnknownNameError("key", "network.layers", ["network.depth"])
            return RandomPolicy(tasks, snapshot.version + 100)

    registry.register("agent", "still", Agent())
    try:
        assert policy_from(PolicySnapshot("still", version=1), tasks).version == 101
        with pytest.raises(ConfigError, match=r"another version of mtrl.*'network.layers'.*train it again"):
            policy_from(PolicySnapshot("still", {"layers": 2}), tasks)
    finally:
        registry.unregister("agent", "still")
    with pytest.raises(UnknownNameError, match="'still'"):
        policy_from(PolicySnapshot("still"), tasks)


def test_snapshots_are_compared_whole() -> None:
    def snapshot(**changes: object) -> PolicySnapshot:
        parts = {
            "kind": "net",
            "config": {"sizes": {"width": 8}},
            "tensors": {"weight": np.ones(3)},
            "version": 1,
        }
        return PolicySnapshot(**{**parts, **changes})  # type: ignore[arg-type]

    assert snapshot().same_as(snapshot())
    assert snapshot().same_as(pickle.loads(pickle.dumps(snapshot())))
    for change in (
        {"kind": "other"},
        {"version": 2},
        {"incarnation": 1},
        {"config": {"sizes": {"width": 9}}},
        {"tensors": {"weight": np.array([1.0, 1.0, 2.0])}},
        {"tensors": {"weight": np.ones(4)}},
        {"tensors": {"bias": np.ones(3)}},
        {"tensors": {}},
    ):
        assert not snapshot().same_as(snapshot(**change)), change

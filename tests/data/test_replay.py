"""Replay by task: every observation once, true successors, overwriting, sampling, saving."""

from __future__ import annotations

import numpy as np
import pytest

from mtrl.data import Replay, ReplayConfig, Trajectories, replay_bytes
from mtrl.data.replay_ring import ReplayRing
from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError
from mtrl.tasks import TaskSet

from .counting import filled, fragments_of, require_true_transitions


def test_a_batch_is_task_major_with_true_successors(tasks: TaskSet) -> None:
    batch = filled(tasks, 30).sample(64, np.random.default_rng(0))
    assert batch.task_index.tolist() == [0, 1, 2]
    assert batch.buckets["state"].values.shape == (2, 2, 64, 5)
    assert batch.buckets["state"].rows.tolist() == [0, 1]
    assert batch.buckets["pixels"].values.shape == (1, 2, 64, 2, 3, 3)
    assert batch.buckets["pixels"].rows.tolist() == [2]
    assert batch.fields["continuous"].shape == (3, 64, 4)
    assert set(batch.fields["discrete"][2].tolist()) == {0, 1, 2}
    require_true_transitions(batch)


def test_every_transition_is_drawn(tasks: TaskSet) -> None:
    replay = filled(tasks)
    # 4 fragments a task of 2 copies and 4 decisions
    assert replay.sizes.tolist() == [32, 32, 32]
    generator = np.random.default_rng(0)
    drawn = [replay.sample(32, generator, [0]).buckets["state"].values[0, 0] for _ in range(20)]
    assert len({tuple(row) for states in drawn for row in states.tolist()}) == 32


def test_an_observation_is_stored_once(tasks: TaskSet) -> None:
    ring = ReplayRing(tasks.layout, 0, 1000)
    for fragment in fragments_of(tasks, 12)[::3]:
        ring.add(fragment)
    # each copy made 16 decisions: 17 observations, and the true last ones of 3 episodes
    assert ring.written == 2 * (17 + 3)


@pytest.mark.parametrize("capacity", [11, 16, 23, 40])
def test_a_ring_that_goes_round_holds_no_torn_transition(tasks: TaskSet, capacity: int) -> None:
    replay = Replay(tasks, ReplayConfig(capacity=capacity))
    for number, fragment in enumerate(fragments_of(tasks, 60)):
        replay.add(fragment)
        if number >= 2:
            require_true_transitions(replay.sample(int(replay.sizes.min()), np.random.default_rng(number)))
    sizes = replay.sizes
    assert (sizes > 0).all()
    assert (sizes < capacity).all()
    drawn = replay.sample(int(sizes.min()), np.random.default_rng(0))
    require_true_transitions(drawn)


def test_a_lost_fragment_tears_nothing(tasks: TaskSet) -> None:
    replay = Replay(tasks, ReplayConfig(capacity=1000))
    for number, fragment in enumerate(fragments_of(tasks, 60)):
        if number % 7 != 3:
            replay.add(fragment)
    require_true_transitions(replay.sample(100, np.random.default_rng(0)))


def test_too_few_transitions_are_an_error_with_advice(tasks: TaskSet) -> None:
    replay = filled(tasks, count=1)
    replay.sample(8, np.random.default_rng(0), [0])
    with pytest.raises(ConfigError, match=r"counter/short holds 8 transitions; expected at least 9.*warmup"):
        replay.sample(9, np.random.default_rng(0), [0])
    with pytest.raises(ConfigError, match="counter/long holds 0 transitions"):
        replay.sample(8, np.random.default_rng(0))


def test_a_fragment_larger_than_the_ring_is_refused(tasks: TaskSet) -> None:
    with pytest.raises(ConfigError, match=r"do not fit into a replay of 4.*capacity"):
        filled(tasks, count=1, capacity=4)


def test_a_saved_replay_samples_and_fills_as_the_original(tasks: TaskSet) -> None:
    fragments = fragments_of(tasks, 40)
    whole, restored = (Replay(tasks, ReplayConfig(capacity=45)) for _ in range(2))
    for fragment in fragments[:20]:
        whole.add(fragment)
    restored.load_state_dict(whole.state_dict())
    for fragment in fragments[20:]:
        whole.add(fragment)
        restored.add(fragment)
        mine, theirs = (r.sample(5, np.random.default_rng(7)) for r in (whole, restored))
        for name in mine.fields:
            np.testing.assert_array_equal(mine.fields[name], theirs.fields[name])
        for name in mine.buckets:
            np.testing.assert_array_equal(mine.buckets[name].values, theirs.buckets[name].values)


def test_another_capacity_cannot_take_over_a_saved_replay(tasks: TaskSet) -> None:
    state = filled(tasks, capacity=30).state_dict()
    with pytest.raises(ConfigError, match=r"agent.replay.capacity"):
        Replay(tasks, ReplayConfig(capacity=20)).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"agent.replay.capacity"):
        Replay(tasks, ReplayConfig(capacity=50)).load_state_dict(state)


def test_a_replay_of_an_earlier_version_is_refused(tasks: TaskSet) -> None:
    state = filled(tasks).state_dict()
    for ring in state["rings"]:
        ring["waiting"] = [link[3] for link in ring.pop("links").tolist()]
    with pytest.raises(ConfigError, match=r"saved by an earlier version of mtrl.*train it again"):
        Replay(tasks, ReplayConfig(capacity=1000)).load_state_dict(state)


def test_half_of_a_batch_comes_from_demonstrations(tasks: TaskSet) -> None:
    replay = Replay(tasks, ReplayConfig(capacity=1000, demonstrations=0.5))
    for fragment in fragments_of(tasks, 6):
        replay.add(fragment)
    count = np.array([0, 2, 5])
    shown = Trajectories(
        observations={"state": np.arange(21, dtype=np.float32).reshape(7, 3) + 100},
        actions=np.full((5, 2), 0.5, np.float32),
        labels=np.full((5, 2), 0.5, np.float32),
        rewards=np.arange(5, dtype=np.float32) + 50,
        terminated=np.zeros(5, bool),
        truncated=np.array([0, 1, 0, 0, 1], bool),
        success=np.zeros(5, bool),
        offsets=count,
        start_id=np.zeros(2, np.int64),
    )
    replay.add_demonstrations({0: shown})
    batch = replay.sample(16, np.random.default_rng(0))
    rewards = batch.fields["reward"]
    assert (rewards[0, :8] < 50).all()
    assert (rewards[0, 8:] >= 50).all()
    assert (rewards[1] < 50).all(), "a task without demonstrations fills its share itself"
    # decision d of episode e saw row d + e, whose successor is the next row
    rows = (rewards[0, 8:] - 50).long()
    rows = rows + (rows >= 2)
    np.testing.assert_array_equal(batch.buckets["state"].values[0, 0, 8:, 0], 100 + 3 * rows)
    np.testing.assert_array_equal(batch.buckets["state"].values[0, 1, 8:, 0], 103 + 3 * rows)


@pytest.mark.parametrize(("name", "word"), [("reward", "reward"), ("continuous", "action")])
def test_a_number_that_is_not_finite_names_task_and_tensor(tasks: TaskSet, name: str, word: str) -> None:
    replay, fragment = filled(tasks), fragments_of(tasks, 1)[0]
    before = replay.sizes
    getattr(fragment, name)[2, 1] = np.nan
    with pytest.raises(DivergenceError, match=rf"task counter/short.*{word} holds nan at \[2, 1"):
        replay.add(fragment)
    np.testing.assert_array_equal(replay.sizes, before)


def test_memory_is_told_per_task(tasks: TaskSet) -> None:
    single = [replay_bytes(TaskSet([task]), ReplayConfig(capacity=100)) for task in tasks]
    # observation, action, reward, three flags, successor, list of candidates
    assert single[0] == 100 * (12 + 8 + 4 + 3 + 16)
    assert single[2] == 100 * (18 + 4 + 4 + 3 + 16)
    assert replay_bytes(tasks, ReplayConfig(capacity=100)) == sum(single)


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"replay.capacity=1"):
        ReplayConfig(capacity=1)
    with pytest.raises(OutOfRangeError, match=r"replay.demonstrations=1.0"):
        ReplayConfig(demonstrations=1.0)

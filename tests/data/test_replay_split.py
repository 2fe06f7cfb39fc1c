"""Replays shared among another number of replays."""

import numpy as np
import pytest

from mtrl.data import Replay, ReplayConfig
from mtrl.tasks import TaskSet

from .counting import fragments_of, require_true_transitions


def load(tasks: TaskSet, replays: list[Replay], parts: int, capacity: int = 1000) -> list[Replay]:
    states, found = [replay.state_dict() for replay in replays], []
    for part in range(parts):
        replay = Replay(tasks, ReplayConfig(capacity=capacity))
        replay.load_part(states, part, parts)
        found.append(replay)
    return found


@pytest.mark.parametrize("capacity", [23, 1000])
def test_every_transition_goes_to_one_part(tasks: TaskSet, capacity: int) -> None:
    # rings of 23 have wrapped; those of 1000 have not
    whole = [Replay(tasks, ReplayConfig(capacity=capacity)) for _ in range(2)]
    for number, fragment in enumerate(fragments_of(tasks, 40)):
        whole[number % 2].add(fragment)
    held = sum(replay.sizes for replay in whole)
    parts = load(tasks, whole, 3)
    np.testing.assert_array_equal(sum(replay.sizes for replay in parts), held)
    for replay in parts:
        require_true_transitions(replay.sample(int(replay.sizes.min()), np.random.default_rng(0)))
    (again,) = load(tasks, parts, 1)
    np.testing.assert_array_equal(again.sizes, held)
    batch = again.sample_sequences(int(held.min()), 3, np.random.default_rng(0))
    seen, real = batch.buckets["state"].values[:2], batch.weight[:2] > 0
    counted = (seen[:, 1:, :, 0] - seen[:, :-1, :, 0]).numpy()
    assert (counted[real.numpy()] == 1).all(), "sequences stay in order"


def test_the_newest_rows_stay_where_they_do_not_all_fit(tasks: TaskSet) -> None:
    whole, fragments = Replay(tasks, ReplayConfig(capacity=1000)), fragments_of(tasks, 40)
    for fragment in fragments:
        whole.add(fragment)
    (small,) = load(tasks, [whole], 1, capacity=30)
    assert (small.sizes <= 30).all() and (small.sizes > 15).all()
    require_true_transitions(small.sample(15, np.random.default_rng(0)))
    for fragment in fragments_of(tasks, 20):
        small.add(fragment)
    require_true_transitions(small.sample(15, np.random.default_rng(0)))

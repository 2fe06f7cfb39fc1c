"""Standardised states and scaled rewards, by task."""

import numpy as np
import pytest
import torch

from mtrl.nn import RewardScale, TaskNormaliser
from mtrl.spaces import ActionSpec, Layout, Moments, ObservationSpec, RunningMoments
from mtrl.tasks import TaskSet

from ..agents.sac_made import CONTINUOUS, fragment_of, task_of

LAYOUT = Layout(
    observations=tuple(ObservationSpec(state=size) for size in (3, 2, 1, 1)),
    actions=(ActionSpec(continuous=2),) * 4,
)


def test_states_are_standardised_by_their_own_task_and_clipped() -> None:
    normaliser = TaskNormaliser(LAYOUT, clip=5.0)
    mean, scale = np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32)
    mean[1], scale[1] = 10.0, 2.0
    normaliser.set_moments(Moments(mean, scale))
    states = torch.tensor([[[12.0, -1000.0, 7.0]], [[0.5, -0.5, 9.0]]])
    found = normaliser.standardise(states, torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.tensor([[[1.0, -5.0, -1.5]], [[0.5, -0.5, 5.0]]]))


def test_running_moments_standardise() -> None:
    running = RunningMoments(4, 3)
    values = np.random.default_rng(0).normal(3.0, 4.0, (1000, 3))
    running.update(0, values)
    normaliser = TaskNormaliser(LAYOUT, clip=float("inf"))
    normaliser.set_moments(running.freeze(LAYOUT.state_mask))
    found = normaliser.standardise(torch.as_tensor(values, dtype=torch.float32)[None], torch.tensor([0]))
    torch.testing.assert_close(found.mean(dim=(0, 1)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=(0, 1), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert "mean" in normaliser.state_dict()


def test_rewards_are_scaled_by_the_largest_discounted_return() -> None:
    scale = RewardScale(2, discount=0.5, value_range=10.0)
    # G: 4, 2 + 2 = 4, 3 + 2 = 5 | the episode ends | -8, and the next fragment goes on: 2 - 4 = -2
    tasks = TaskSet([task_of("a", CONTINUOUS), task_of("b", CONTINUOUS)])
    scale.add(fragment_of(tasks, 0, 4, reward=[4, 2, 3, -8], ends={2: "truncated"}))
    assert scale.largest.tolist() == [8.0, 0.0]
    restored = RewardScale(2, discount=0.5, value_range=10.0)
    restored.load_state_dict(scale.state_dict())
    following = fragment_of(tasks, 0, 1, reward=[-5])
    following.episode_id += 1
    restored.add(following)
    # -5 + 0.5 * -8 = -9
    assert restored.largest.tolist() == [9.0, 0.0]
    assert restored.scale[0] == pytest.approx(0.9)


@pytest.mark.parametrize("exponent", [-120, -27, 27, 90])
def test_rewards_of_any_unit_are_scaled_alike(exponent: int) -> None:
    tasks = TaskSet([task_of("a", CONTINUOUS), task_of("b", CONTINUOUS)])
    reward = np.random.default_rng(0).normal(size=20).astype(np.float32)
    scaled = []
    for unit in (np.float32(1.0), np.float32(2.0**exponent)):
        scale = RewardScale(2, discount=0.99, value_range=10.0)
        scale.add(fragment_of(tasks, 0, 20, reward=(reward * unit).tolist()))
        scaled.append(reward * unit / scale.scale[0])
        # a task without rewards
        assert scale.scale[1] == 1.0
    np.testing.assert_array_equal(*scaled)

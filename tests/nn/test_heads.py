"""Heads: which numbers mean what, for which task."""

import math

import numpy as np
import pytest
import torch

from mtrl.errors import MtrlError, SpaceError
from mtrl.nn import (
    CategoricalHead,
    GaussianHead,
    GaussianHeadConfig,
    ScalarValueHead,
    TanhGaussian,
    TwoHotConfig,
    TwoHotValueHead,
)

TASKS = torch.tensor([1, 0])
MASK = np.array([[True, True, True], [True, False, False]])


def test_the_gaussian_head_reads_mean_then_spread_and_masks_by_task() -> None:
    head = GaussianHead(GaussianHeadConfig(), MASK)
    raw = torch.tensor([0.1, 0.2, 0.3, -1.0, -30.0, 5.0]).expand(2, 4, 6)
    policy = head(raw, TASKS)
    assert head.outputs == 6 and isinstance(policy, TanhGaussian)
    torch.testing.assert_close(policy.log_std[0, 0], torch.tensor([-1.0, -20.0, 2.0]))
    torch.testing.assert_close(policy.mode()[0, 0], torch.tensor([math.tanh(0.1), 0.0, 0.0]))
    torch.testing.assert_close(policy.mode()[1, 0], torch.tanh(torch.tensor([0.1, 0.2, 0.3])))
    assert policy.sample(torch.Generator().manual_seed(0))[1].shape == (2, 4)


def test_smooth_bounds_start_where_asked_and_keep_their_gradient() -> None:
    config = GaussianHeadConfig(lowest_log_std=-5.0, highest_log_std=1.0, start_log_std=-2.5, bounding="tanh")
    raw = torch.zeros(2, 4, 6, requires_grad=True)
    policy = GaussianHead(config, MASK)(raw, TASKS)
    torch.testing.assert_close(policy.log_std, torch.full((2, 4, 3), -2.5))
    far = GaussianHead(config, MASK)(raw + 100.0, TASKS).log_std
    torch.testing.assert_close(far, torch.full((2, 4, 3), 1.0))
    policy.log_std.sum().backward()
    assert (raw.grad[..., 3:] > 0).all()


def test_unsquashed_actions_may_leave_the_box() -> None:
    policy = GaussianHead(GaussianHeadConfig(squash=False), MASK)(torch.full((2, 4, 6), 1.5), TASKS)
    assert policy.mode().max() == 1.5


def test_the_categorical_head_knows_each_tasks_actions() -> None:
    policy = CategoricalHead(MASK)(torch.zeros(2, 4, 3), TASKS)
    torch.testing.assert_close(policy.probabilities[0, 0], torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(policy.probabilities[1, 0], torch.full((3,), 1 / 3))


def test_value_heads_read_ensembles() -> None:
    raw = torch.randn(2, 3, 4, 1)
    torch.testing.assert_close(ScalarValueHead()(raw), raw[..., 0])
    head = TwoHotValueHead(TwoHotConfig(bins=5, lowest=-2.0, highest=2.0))
    logits = torch.full((2, 3, 4, 5), -1e9)
    logits[..., 3] = logits[..., 4] = 0.0
    torch.testing.assert_close(head(logits).mean(), torch.full((2, 3, 4), 1.5))
    # halfway between the bins at 1 and 2, each of which has probability one half
    loss = -head(logits).log_prob(torch.full((2, 3, 4), 1.5))
    torch.testing.assert_close(loss, torch.full((2, 3, 4), math.log(2)))


@pytest.mark.parametrize("shape", [(2, 4, 5), (3, 4, 6), (4, 6)])
def test_raw_numbers_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="raw outputs"):
        GaussianHead(GaussianHeadConfig(), MASK)(torch.zeros(shape), TASKS)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (GaussianHeadConfig, {"lowest_log_std": 3.0}, "lowest_log_std=3.0"),
        (GaussianHeadConfig, {"start_log_std": 2.5}, "start_log_std=2.5"),
        (GaussianHeadConfig, {"bounding": "tnah"}, "did you mean 'tanh'"),
        (TwoHotConfig, {"bins": 2}, "bins=2"),
        (TwoHotConfig, {"lowest": 10.0}, "lowest=10.0"),
    ],
)
def test_bad_settings_are_refused(kind: type, settings: dict[str, object], message: str) -> None:
    with pytest.raises(MtrlError, match=message):
        kind(**settings)

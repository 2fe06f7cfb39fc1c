"""Losses of SAC by hand: two-hot targets, bootstrapping, soft values, the squashed Gaussian, temperatures."""

from __future__ import annotations

import math

import pytest
import torch

from mtrl.agents.sac.losses import (
    ActionDimensions,
    bootstrapped,
    categorical_loss,
    discrete_soft_value,
    expected_value,
    scalar_loss,
    soft_value,
    squashed_gaussian,
    temperature_loss,
    two_hot,
)

SUPPORT = torch.linspace(-1.0, 1.0, 5)
"""-1, -0.5, 0, 0.5, 1"""


def test_a_two_hot_vector_shares_between_neighbours() -> None:
    # 0.2 lies 0.4 of the way from 0 to 0.5
    expected = torch.tensor([0.0, 0.0, 0.6, 0.4, 0.0])
    torch.testing.assert_close(two_hot(torch.tensor(0.2), SUPPORT), expected)


@pytest.mark.parametrize(("value", "place"), [(-7.0, 0), (-1.0, 0), (0.5, 3), (1.0, 4), (9.0, 4)])
def test_a_value_on_the_support_or_beyond_it_is_one_hot(value: float, place: int) -> None:
    torch.testing.assert_close(two_hot(torch.tensor(value), SUPPORT), torch.eye(5)[place])


def test_the_mean_of_a_two_hot_vector_is_its_value() -> None:
    support = torch.linspace(-10.0, 10.0, 101)
    values = torch.empty(3, 7).uniform_(-10, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(two_hot(values, support) @ support, values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        expected_value(two_hot(values, support).log(), support), values, rtol=1e-4, atol=1e-4
    )


def test_cross_entropy_against_the_two_hot_target() -> None:
    # uniform prediction over 5 bins: ln 5 whatever the target
    torch.testing.assert_close(
        categorical_loss(torch.zeros(2, 5), two_hot(torch.tensor([0.2, -3.0]), SUPPORT)),
        torch.full((2,), math.log(5.0)),
    )
    logits = torch.tensor([0.0, 0.0, math.log(2.0), 0.0, 0.0])
    # the prediction gives the third bin 2/6 and every other 1/6
    expected = -(0.6 * math.log(2 / 6) + 0.4 * math.log(1 / 6))
    torch.testing.assert_close(
        categorical_loss(logits, two_hot(torch.tensor(0.2), SUPPORT)), torch.tensor(expected)
    )


def test_squared_error_is_halved() -> None:
    assert scalar_loss(torch.tensor(3.0), torch.tensor(1.0)) == 2.0


def test_termination_cuts_the_future_and_nothing_else_does() -> None:
    target = bootstrapped(
        torch.tensor([1.0, 1.0]), torch.tensor([False, True]), torch.tensor([10.0, math.nan]), 0.9
    )
    torch.testing.assert_close(target, torch.tensor([10.0, 1.0]))


def test_soft_values() -> None:
    assert soft_value(torch.tensor(2.0), torch.tensor(-3.0), torch.tensor(0.5)) == 3.5
    # policy (1/4, 3/4, 0) with the third action illegal: 1/4 (4 + .1 ln 4) + 3/4 (8 + .1 ln 4/3)
    log_policy = torch.tensor([[0.25, 0.75, 0.0]]).log()
    values = torch.tensor([[4.0, 8.0, 1e6]])
    expected = 0.25 * (4 + 0.1 * math.log(4)) + 0.75 * (8 + 0.1 * math.log(4 / 3))
    found = discrete_soft_value(values, log_policy, torch.tensor([0.1]))
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_illegal_actions_pass_no_gradient_and_no_nan() -> None:
    logits = torch.tensor([[0.3, -0.2, -torch.inf]], requires_grad=True)
    value = discrete_soft_value(torch.ones(1, 3), logits.log_softmax(-1), torch.tensor([0.1]))
    (slope,) = torch.autograd.grad(value.sum(), logits)
    assert torch.isfinite(slope).all()
    assert slope[0, 2] == 0


def test_a_policy_that_is_not_a_number_has_no_value() -> None:
    found = discrete_soft_value(torch.ones(1, 2), torch.full((1, 2), torch.nan), torch.tensor([0.1]))
    assert found.isnan().all()


def dimensions(*mask: float) -> ActionDimensions:
    """Of one task."""
    return ActionDimensions.of(torch.tensor([mask], dtype=torch.float32))


def test_the_squashed_density_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_deviation, noise = (0.5 * torch.randn(1, 6, 3, generator=generator) for _ in range(3))
    action, log_probability = squashed_gaussian(mean, log_deviation, noise, dimensions(1, 1, 1))
    oracle = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, log_deviation.exp()),
        [torch.distributions.transforms.TanhTransform()],
    )
    torch.testing.assert_close(log_probability, oracle.log_prob(action).sum(-1), rtol=1e-3, atol=1e-3)


def test_masked_dimensions_are_zero_and_count_nothing() -> None:
    mean, log_deviation, noise = torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.tensor([[[0.5, 3.0]]])
    action, log_probability = squashed_gaussian(mean, log_deviation, noise, dimensions(1, 0))
    assert action[0, 0, 1] == 0
    density = -0.125 - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(0.5) ** 2)
    torch.testing.assert_close(log_probability, torch.tensor([[density]]))


def test_a_batch_whose_tasks_have_all_dimensions_needs_no_mask() -> None:
    generator = torch.Generator().manual_seed(1)
    mean, log_deviation, noise = (torch.randn(2, 5, 3, generator=generator) for _ in range(3))
    whole = ActionDimensions.of(torch.ones(2, 3))
    assert whole.mask is None
    masked = ActionDimensions(torch.ones(2, 1, 3), whole.constant)
    for quick, slow in zip(
        squashed_gaussian(mean, log_deviation, noise, whole),
        squashed_gaussian(mean, log_deviation, noise, masked),
        strict=True,
    ):
        assert torch.equal(quick, slow)


def test_the_density_stays_finite_far_out() -> None:
    mean = torch.tensor([[[60.0]]], requires_grad=True)
    zero = torch.zeros(1, 1, 1)
    _, log_probability = squashed_gaussian(mean, zero, zero, dimensions(1))
    (slope,) = torch.autograd.grad(log_probability.sum(), mean)
    assert torch.isfinite(log_probability).all()
    assert torch.isfinite(slope).all()


def test_too_little_entropy_raises_the_temperature() -> None:
    log_temperature = torch.tensor([0.5, 0.5], requires_grad=True)
    loss = temperature_loss(log_temperature, torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    (slope,) = torch.autograd.grad(loss.sum(), log_temperature)
    # descending the slope raises the first and lowers the second
    assert slope.tolist() == [-1.0, 1.0]

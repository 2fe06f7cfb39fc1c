"""Losses of SAC by hand: bootstrapping, soft values, temperatures."""

from __future__ import annotations

import math

import torch

from mtrl.agents.sac.losses import (
    bootstrapped,
    discrete_soft_value,
    soft_value,
    temperature_gradient,
)


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


def test_too_little_entropy_raises_the_temperature() -> None:
    gradient = temperature_gradient(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 2.0]))
    # descending it raises the first and lowers the second
    assert gradient.tolist() == [-1.0, 1.0]

"""Values, losses and their derivatives by hand and by autograd."""

from __future__ import annotations

import math

import pytest
import torch

from mtrl.nn import CategoricalValueHead, ScalarValueHead, ValueHead

FIVE = CategoricalValueHead(5, 1.0)
"""Values -1, -0.5, 0, 0.5, 1."""


def test_a_two_hot_vector_shares_between_neighbours() -> None:
    # 0.2 lies 0.4 of the way from 0 to 0.5
    expected = torch.tensor([0.0, 0.0, 0.6, 0.4, 0.0])
    torch.testing.assert_close(FIVE.two_hot(torch.tensor(0.2)), expected)


@pytest.mark.parametrize(("value", "place"), [(-7.0, 0), (-1.0, 0), (0.5, 3), (1.0, 4), (9.0, 4)])
def test_a_value_on_the_support_or_beyond_it_is_one_hot(value: float, place: int) -> None:
    torch.testing.assert_close(FIVE.two_hot(torch.tensor(value)), torch.eye(5)[place])


def test_the_mean_of_a_two_hot_vector_is_its_value() -> None:
    head = CategoricalValueHead(101, 10.0)
    values = torch.empty(3, 7).uniform_(-10, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.two_hot(values) @ head.support, values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.values(head.two_hot(values).log()), values, rtol=1e-4, atol=1e-4)


def test_cross_entropy_against_the_two_hot_target() -> None:
    # uniform prediction over 5 bins: ln 5 whatever the target
    torch.testing.assert_close(
        FIVE.losses(torch.zeros(2, 5), torch.tensor([0.2, -3.0])), torch.full((2,), math.log(5.0))
    )
    logits = torch.tensor([0.0, 0.0, math.log(2.0), 0.0, 0.0])
    # the prediction gives the third bin 2/6 and every other 1/6
    expected = -(0.6 * math.log(2 / 6) + 0.4 * math.log(1 / 6))
    torch.testing.assert_close(FIVE.losses(logits, torch.tensor(0.2)), torch.tensor(expected))


def test_squared_error_is_halved_and_predictions_clipped() -> None:
    raw, target = torch.tensor([[3.0]]), torch.tensor([1.0])
    assert ScalarValueHead().losses(raw, target) == 2.0
    assert ScalarValueHead(clip=2.0).losses(raw, target) == 0.5
    assert ScalarValueHead(clip=2.0).values(raw) == 3.0


@pytest.mark.parametrize("head", [ScalarValueHead(), CategoricalValueHead(7, 2.0)])
def test_derivatives_are_autograds(head: ValueHead) -> None:
    source = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 3, 4, head.outputs, generator=source, requires_grad=True)
    target = torch.randn(3, 4, generator=source)
    losses, gradient = head.losses_and_gradient(raw.detach(), target)
    expected = head.losses(raw, target)
    torch.testing.assert_close(losses, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), raw)[0])
    values, weights = head.values(raw), torch.randn(2, 3, 4, generator=source)
    torch.testing.assert_close(
        head.value_gradient(raw.detach(), values.detach(), weights),
        torch.autograd.grad((values * weights).sum(), raw)[0],
    )

"""A network's weights as one vector."""

from __future__ import annotations

import copy

import torch
from torch import nn

from mtrl.nn import FlatParameters


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def test_the_network_computes_and_loads_as_before() -> None:
    plain, flat = network(), network()
    weights = FlatParameters(flat)
    inputs = torch.randn(5, 3)
    torch.testing.assert_close(flat(inputs), plain(inputs), rtol=0, atol=0)
    assert weights.vector.shape == (3 * 4 + 4 + 4 * 2 + 2,)
    flat.load_state_dict(network(1).state_dict())
    torch.testing.assert_close(flat(inputs), network(1)(inputs), rtol=0, atol=0)
    assert torch.equal(weights.vector[:12].view(4, 3), flat[0].weight)


def test_one_optimiser_step_equals_that_of_all_parameters() -> None:
    plain, flat = network(), network()
    weights = FlatParameters(flat)
    inputs = torch.randn(5, 3)
    slow = torch.optim.Adam(plain.parameters(), lr=0.1)
    quick = torch.optim.Adam([weights.vector], lr=0.1)
    for _ in range(3):
        slow.zero_grad()
        plain(inputs).square().mean().backward()
        slow.step()
        loss = flat(inputs).square().mean()
        found = torch.autograd.grad(loss, list(weights.named.values()))
        weights.write_gradients(dict(zip(weights.named, found, strict=True)))
        quick.step()
    for expected, value in zip(plain.parameters(), flat.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=0, atol=0)


def test_another_follows_in_part_or_rounded() -> None:
    first, second = FlatParameters(network(1)), FlatParameters(network(2))
    expected = torch.lerp(second.vector.detach(), first.vector.detach(), 0.25)
    second.sync(first, 0.25)
    assert torch.equal(second.vector, expected)
    rounded = copy.deepcopy(network(3)).bfloat16()
    half = FlatParameters(rounded)
    half.sync(first)
    assert torch.equal(rounded[0].weight, first.vector.detach()[:12].view(4, 3).bfloat16())
    gradients = {name: torch.ones_like(value) for name, value in half.named.items()}
    first.write_gradients(gradients)
    assert first.gradient.dtype == torch.float32


def test_gradients_are_laid_in_the_order_of_the_parameters() -> None:
    weights = FlatParameters(network())
    gradients = [torch.randn_like(value) for value in weights.named.values()]
    expected = torch.cat([gradient.flatten() for gradient in gradients])
    weights.write_gradients(gradients)
    assert weights.vector.grad is not None and torch.equal(weights.vector.grad, expected)
    named = {name: 2 * rows for name, rows in zip(weights.named, gradients, strict=True)}
    weights.write_gradients(dict(reversed(named.items())))
    assert torch.equal(weights.gradient, 2 * expected)
    weights.copy_(expected)
    assert torch.equal(weights.vector.grad, expected)
    weights.copy_(weights.gradient)
    assert torch.equal(weights.vector.grad, expected)

"""The losses of the world model, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtrl.agents.world_model import WorldModelConfig
from mtrl.agents.world_model.config import ExpertsConfig
from mtrl.agents.world_model.losses import (
    bootstrap_index,
    cloning_weight,
    continuous_policy_loss,
    discrete_policy_loss,
    mean_by_task,
    n_step_targets,
)
from mtrl.agents.world_model.networks import WorldModel, discounts

from .sac_made import MIXED


def returns(reward: list[float], terminated: list[int], weight: list[int], value: float) -> list[float]:
    def column(values: list) -> torch.Tensor:  # type: ignore[type-arg]
        return torch.tensor(values, dtype=torch.float32)[:, None, None]

    found = n_step_targets(
        column(reward), column(terminated), column(weight), torch.tensor([[value]]), torch.tensor([[0.5]])
    )
    return found[:, 0, 0].tolist()


def test_returns_bootstrap_at_the_end_of_the_sequence() -> None:
    # 3 + .5 * 8 = 7, 2 + .5 * 7 = 5.5, 1 + .5 * 5.5 = 3.75
    assert returns([1, 2, 3], [0, 0, 0], [1, 1, 1], 8.0) == [3.75, 5.5, 7.0]


def test_a_termination_ends_the_return() -> None:
    # the value behind a terminal state does not count: 2, 1 + .5 * 2; the padding waits
    assert returns([1, 2, 0], [0, 1, 0], [1, 1, 0], 8.0)[:2] == [2.0, 2.0]


def test_a_truncation_bootstraps_where_the_episode_was_cut() -> None:
    # 2 + .5 * 8 = 6, 1 + .5 * 6 = 4
    assert returns([1, 2, 0], [0, 0, 0], [1, 1, 0], 8.0)[:2] == [4.0, 6.0]


def test_the_bootstrap_is_the_observation_after_the_last_real_step() -> None:
    weight = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]])[:, None].float()
    assert bootstrap_index(weight).tolist() == [[3, 2, 1]]


def test_a_task_without_samples_has_loss_zero() -> None:
    losses = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert mean_by_task(losses, torch.tensor([[1.0, 1.0], [0.0, 0.0]])).tolist() == [2.0, 0.0]
    steps = torch.stack([losses, 10 * losses])
    weight = torch.stack([torch.ones(2, 2), torch.tensor([[0.0, 1.0], [0.0, 0.0]])])
    # three real samples of the first task, two of the second
    assert mean_by_task(steps, weight).tolist() == pytest.approx([34 / 3, 6.0])


def test_policy_losses() -> None:
    one = torch.ones(1, 1)
    # half of minus two, and a third of six less
    assert continuous_policy_loss(6 * one, -2 * one, 0.5 * one, 3 * one).item() == -3.0
    q, p = torch.tensor([[[4.0, 8.0]]]), torch.tensor([[[0.25, 0.75]]])
    expected = 0.25 * (0.5 * math.log(0.25) - 2.0) + 0.75 * (0.5 * math.log(0.75) - 4.0)
    found = discrete_policy_loss(q, p, p.log(), 0.5 * one, 2 * one)
    assert found.item() == pytest.approx(expected)


def test_cloning_weights_compare_plans_of_one_task_only() -> None:
    q = torch.tensor([[0.0, math.log(3.0), 50.0], [1000.0, 1000.0, 0.0]])
    planned = torch.tensor([[True, True, False], [True, True, True]])
    found = cloning_weight(q, planned, torch.ones(2, 1))
    # softmax over the two planned ones is (1/4, 3/4), times 2
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.5, 0.0], [1.5, 1.5, 0.0]]))
    assert not cloning_weight(q, torch.zeros_like(planned), torch.ones(2, 1)).any(), "nothing was planned"


def test_discounts_follow_the_horizon() -> None:
    # a horizon of 100 gives 19/20, one of 250 gives 49/50
    found = discounts(np.array([10, 100, 250, 1000, 5000]), 0.0)
    np.testing.assert_allclose(found, [0.95, 0.95, 0.98, 0.995, 0.995], rtol=1e-6)
    np.testing.assert_allclose(discounts(np.array([10, 100]), 0.9), [0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize("size", ["nano", "S", "L"])
def test_the_dense_switch_keeps_the_number_of_active_parameters(size: str) -> None:
    plain = WorldModelConfig(size=size)
    experts, dense = (
        WorldModel(MIXED.layout, config)
        for config in (plain, WorldModelConfig(size=size, experts=ExpertsConfig(dense=True)))
    )
    layer = experts.experts.config
    idle = layer.routed - layer.chosen
    active = sum(p.numel() for p in experts.parameters())
    active -= sum(idle * p[0].numel() for p in experts.experts.weights)
    assert abs(sum(p.numel() for p in dense.parameters()) / active - 1.0) < 0.02


def test_value_and_reward_begin_at_zero() -> None:
    model = WorldModel(MIXED.layout, WorldModelConfig())
    task = torch.tensor([0, 1])
    embedded = model.embed(task)
    latent, action = torch.rand(2, 3, 128), torch.rand(2, 3, model.actions)
    step = model.step(latent, action, embedded, model.experts.gates(task))
    assert model.values(step.reward).abs().max() < 1e-6
    assert model.values(model.q_logits(latent, action, embedded)).abs().max() < 1e-6


def test_a_latent_is_made_of_groups_that_sum_to_one() -> None:
    model = WorldModel(MIXED.layout, WorldModelConfig())
    task = torch.tensor([0, 2])
    seen = {"state": (torch.randn(2, 5, MIXED.layout.state_size), torch.tensor([0, 1]))}
    latent = model.encode(seen, task, model.embed(task))
    torch.testing.assert_close(latent.unflatten(-1, (-1, 8)).sum(-1), torch.ones(2, 5, 16))

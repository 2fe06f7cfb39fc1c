"""Returns, advantages, objectives and densities of GRPO, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mtrl.agents.grpo.config import PolicyConfig, ReturnConfig
from mtrl.agents.grpo.learning import path_log_probability
from mtrl.agents.grpo.losses import clipped_objective, entropy_penalty, reference_divergence
from mtrl.agents.grpo.returns import centred, deviation, episode_rewards, returns_to_go
from mtrl.rollout import Acting, GroupRequest

from .grpo_made import MIXED, SMALL, agent_of, group_of, played


def request_of(k: int, size: int = 4) -> GroupRequest:
    return GroupRequest(k, start=3, size=size, acting=Acting(explore=True), seed=1)


def test_a_success_is_worth_more_the_sooner_it_comes() -> None:
    agent = agent_of()
    group = group_of(MIXED, request_of(0), agent.policy(), (0, 10, 2, 4))
    returns = [part.sum() for part in episode_rewards(group, MIXED[0], ReturnConfig(time_bonus=0.5))]
    np.testing.assert_allclose(returns, [0.0, 1.0, 1.4, 1.3])


def test_rewards_count_in_units_of_the_score_range_or_the_horizon() -> None:
    agent = agent_of()
    pay = (0.0, 1.0, 2.0, 4.0)
    scored = group_of(MIXED, request_of(2), agent.policy(), (0, 0, 0, 0), pay)
    found = [part.sum() for part in episode_rewards(scored, MIXED[2], ReturnConfig())]
    np.testing.assert_allclose(found, np.array(pay) * 10 / 20)
    dense = group_of(MIXED, request_of(0), agent.policy(), (0, 0, 0, 0), pay)
    found = [part.sum() for part in episode_rewards(dense, MIXED[0], ReturnConfig(kind="dense"))]
    np.testing.assert_allclose(found, np.array(pay) * 10 / 10)


def test_advantages_of_episodes_and_of_steps() -> None:
    np.testing.assert_allclose(returns_to_go(np.array([1.0, 0.0, 2.0]), 0.5), [1.5, 1.0, 2.0])
    rewards = [np.array([1.0, 1.0]), np.array([1.0]), np.array([0.0, 2.0, 1.0])]
    whole = centred(rewards, 1.0, "episode")
    # returns 2, 1, 3
    assert [part.tolist() for part in whole] == [[0.0, 0.0], [-1.0], [1.0, 1.0, 1.0]]
    assert deviation(whole) == pytest.approx(math.sqrt(2 / 3))
    steps = centred(rewards, 1.0, "step")
    # to go: 2 1 / 1 / 3 3 1; means over those under way: 2, 2, 1
    assert [part.tolist() for part in steps] == [[0.0, -1.0], [-1.0], [1.0, 1.0, 0.0]]


@pytest.mark.parametrize("baseline", ["episode", "step"])
def test_equal_returns_have_advantages_of_exactly_zero(baseline: str) -> None:
    rewards = [np.full(7, 0.1)] * 5
    parts = centred(rewards, 0.97, baseline)
    assert all((part == 0).all() for part in parts) and deviation(parts) == 0


def test_the_objective_is_clipped_on_the_side_that_would_gain() -> None:
    ratio = torch.tensor([0.5, 0.9, 1.2, 2.0])
    up = clipped_objective(ratio.log(), torch.zeros(4), torch.ones(4), 0.2, 0.28)
    down = clipped_objective(ratio.log(), torch.zeros(4), -torch.ones(4), 0.2, 0.28)
    torch.testing.assert_close(up, torch.tensor([0.5, 0.9, 1.2, 1.28]))
    torch.testing.assert_close(down, torch.tensor([-0.8, -0.9, -1.2, -2.0]))


def test_the_divergence_is_zero_at_the_reference_and_its_mean_the_true_one() -> None:
    torch.manual_seed(0)
    assert reference_divergence(torch.tensor(-1.3), torch.tensor(-1.3)) == 0
    drawn = torch.randn(400_000)
    one, other = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.3, 1.2)
    found = reference_divergence(one.log_prob(drawn), other.log_prob(drawn))
    assert bool((found >= 0).all())
    true = torch.distributions.kl_divergence(one, other)
    torch.testing.assert_close(found.mean(), true, rtol=0.03, atol=0.0)


def test_entropy_outside_the_band_has_a_gradient_towards_it() -> None:
    entropy = torch.tensor([0.5, 1.0, 1.5, 1.5, -3.0], requires_grad=True)
    mean = torch.tensor([1.0, 1.0, 1.0, math.nan, -2.0])
    penalty = entropy_penalty(entropy, mean, (0.8, 1.2))
    torch.testing.assert_close(penalty, torch.tensor([0.3, 0.0, 0.3, 0.0, 0.6]))
    penalty.sum().backward()
    assert entropy.grad is not None and entropy.grad.tolist() == [-1.0, 0.0, 1.0, 0.0, -1.0]


def test_correlated_noise_has_the_density_of_its_whole_path() -> None:
    """The product of the conditional densities is the multivariate normal with covariance std^2 rho^|i-j|."""
    rho, std = 0.8, 0.5
    agent = agent_of(network=PolicyConfig(torso=SMALL.network.torso, correlation=rho, std=std))
    from mtrl import registry

    policy = registry.load("agent", "grpo").policy(agent.snapshot("collect"), MIXED)
    group = group_of(MIXED, request_of(0, 2), policy, (0, 0))
    states = torch.from_numpy(group.observations["state"][:10])
    mean = agent.policy().act(
        {"state": states.numpy()}, np.zeros(10, np.int64), {}, np.ones(10, bool),
        acting=Acting(), generators=[np.random.default_rng(0)] * 10,
    ).continuous  # fmt: skip
    place = torch.arange(10.0)
    covariance = std**2 * rho ** (place[:, None] - place[None]).abs()
    whole = torch.distributions.MultivariateNormal(torch.zeros(10), covariance)
    drawn = torch.from_numpy(group.extras["drawn"][:10] - mean)
    expected = whole.log_prob(drawn.T).sum()
    np.testing.assert_allclose(group.extras["log_probability"][:10].sum(), float(expected), rtol=1e-4)


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_the_learner_computes_the_densities_that_were_recorded(rho: float) -> None:
    """At the weights that acted every ratio is 1, of continuous and discrete tasks."""
    agent = agent_of(network=PolicyConfig(torso=SMALL.network.torso, correlation=rho, normalise_until=0))
    played(agent)
    agent.due(0, __import__("mtrl.reducer").reducer.ALONE)
    table, _ = agent._collection.close()
    batch = next(table.minibatches(1, np.random.default_rng(0)))
    assert batch is not None and batch.task.tolist() == [0, 1, 2]
    found, _ = path_log_probability(agent._actor, table, batch, rho)
    real = batch.weight > 0
    torch.testing.assert_close(
        found.detach()[real], batch.fields["log_probability"][real], rtol=1e-4, atol=1e-4
    )

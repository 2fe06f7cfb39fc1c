"""Planning finds what the model promises, in both kinds of tasks, and keeps to its masks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from mtrl.agents.world_model import WorldModelAgent, WorldModelConfig, WorldModelPolicy
from mtrl.agents.world_model.config import LossConfig, PlanningConfig
from mtrl.agents.world_model.networks import Step, WorldModel
from mtrl.agents.world_model.planning import Planner, Search
from mtrl.nn import TaskGates
from mtrl.rollout import Acting, Action, generator_for

from .sac_made import MIXED, fragment_of

BEST = torch.tensor([0.4, -0.7])


class Known(WorldModel):
    """A model that pays for actions near BEST, or for index 2, and never ends."""

    def step(self, latent: Tensor, action: Tensor, embedded: Tensor, gates: TaskGates) -> Step:
        near = -(action[..., :2] - BEST).square().sum(-1)
        index = action[..., 2:].argmax(-1)
        paid = torch.where(action[..., 2:].sum(-1) > 0, (index == 2).float(), near)
        return Step(latent, paid, torch.full_like(paid, -100.0))

    def values(self, logits: Tensor) -> Tensor:
        return logits

    def q_logits(self, latent: Tensor, action: Tensor, embedded: Tensor) -> Tensor:
        return torch.zeros(2, *latent.shape[:2])


def known(**changes: object) -> tuple[Known, Planner]:
    settings = PlanningConfig(**{"samples": 128, "iterations": 6, **changes})  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = Known(MIXED.layout, WorldModelConfig(planning=settings))
    return model, Planner(model)


def search_of(model: WorldModel, tasks: list[int]) -> Search:
    task = torch.tensor(tasks)
    ones = torch.ones(len(tasks), 1)
    return Search(task, model.embed(task), model.experts.gates(task), 0.9 * ones, 0.1 * ones)


@torch.no_grad()
def test_mppi_finds_the_best_action_of_a_known_model() -> None:
    model, planner = known()
    draws = np.random.default_rng(0)
    noise = draws.standard_normal((1, 5, 7, 128, 3, 2), dtype=np.float32)
    mean, std = planner.continuous(
        torch.zeros(1, 5, 128), search_of(model, [0]), torch.zeros(1, 5, 3, 2), noise
    )
    assert (mean - BEST).abs().mean() < 0.1
    assert std.max() < 0.6, "the search has narrowed from 2"


@torch.no_grad()
def test_mppi_leaves_dimensions_that_a_task_lacks_at_zero() -> None:
    model, planner = known()
    noise = np.random.default_rng(0).standard_normal((1, 2, 7, 128, 3, 2), dtype=np.float32)
    mean, std = planner.continuous(
        torch.zeros(1, 2, 128), search_of(model, [2]), torch.zeros(1, 2, 3, 2), noise
    )
    assert not mean[..., 1].any() and not std[..., 1].any() and mean[..., 0].any()


@torch.no_grad()
def test_the_cross_entropy_method_finds_the_best_index_and_no_illegal_one() -> None:
    model, planner = known()
    uniform = np.random.default_rng(0).random((1, 4, 6, 128, 3), dtype=np.float32)
    fitted = planner.discrete(torch.zeros(1, 4, 128), search_of(model, [1]), uniform)
    assert fitted.shape == (1, 4, 3, 3)
    torch.testing.assert_close(fitted.sum(-1), torch.ones(1, 4, 3))
    assert (fitted[..., 2] > 0.8).all()


@torch.no_grad()
def test_a_likely_termination_stops_counting_what_follows() -> None:
    model, planner = known()

    def ended(latent: Tensor, action: Tensor, embedded: Tensor, gates: TaskGates) -> Step:
        one = torch.ones(latent.shape[:2])
        return Step(latent, one, 100.0 * one)

    model.step = ended  # type: ignore[method-assign]
    plans = torch.zeros(1, 1, 1, 3, 5)
    assert planner.returns(torch.zeros(1, 1, 128), search_of(model, [0]), plans).item() == pytest.approx(1.0)


SMALL = WorldModelConfig(batch_size=8, planning=PlanningConfig(samples=16, policy_samples=4, elites=4))


def policy_of(**changes: object) -> WorldModelPolicy:
    agent = WorldModelAgent(dataclasses.replace(SMALL, **changes), MIXED, 1)  # type: ignore[arg-type]
    for k in range(len(MIXED)):
        agent.ingest(fragment_of(MIXED, k, 40, ends={9: "truncated"}, seed=k))
    return agent.policy()


def acted(policy: WorldModelPolicy, tasks: list[int], acting: Acting, calls: int = 1) -> Action:
    index = np.array(tasks, dtype=np.int64)
    layout = MIXED.layout
    generators = [generator_for(7, str(k), c) for c, k in enumerate(tasks)]
    state, ended = policy.initial_state(len(tasks)), np.ones(len(tasks), bool)
    for call in range(calls):
        seen = np.random.default_rng([call, 3]).normal(size=(len(MIXED), layout.state_size))[index]
        seen = (seen * layout.state_mask[index]).astype(np.float32)
        action = policy.act({"state": seen}, index, state, ended, acting=acting, generators=generators)
        state, ended = action.state, np.zeros(len(tasks), bool)
    return action


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize("explore", [False, True])
def test_a_copy_decides_alike_alone_and_among_other_tasks(plan: bool, explore: bool) -> None:
    planning = dataclasses.replace(SMALL.planning, collect="plan")
    policy, acting = policy_of(planning=planning), Acting(explore=explore, plan=plan)
    together = acted(policy, [0, 1, 2], acting, calls=3)
    for k in range(3):
        index = np.array([k])
        generators = [generator_for(7, str(k), k)]
        state, ended = policy.initial_state(1), np.ones(1, bool)
        for call in range(3):
            seen = np.random.default_rng([call, 3]).normal(size=(3, MIXED.layout.state_size))[index]
            seen = (seen * MIXED.layout.state_mask[index]).astype(np.float32)
            alone = policy.act({"state": seen}, index, state, ended, acting=acting, generators=generators)
            state, ended = alone.state, np.zeros(1, bool)
        np.testing.assert_allclose(alone.continuous[0], together.continuous[k], atol=2e-5)
        assert alone.discrete[0] == together.discrete[k]


def test_the_plan_is_shifted_and_forgotten_at_a_new_episode() -> None:
    # every sequence is fitted, the plan before among them
    policy = policy_of(planning=PlanningConfig(samples=8, policy_samples=2, elites=8, iterations=1))
    action = acted(policy, [0, 0], Acting(), calls=1)
    assert action.state["plan"].any()
    first = {"state": np.zeros((2, MIXED.layout.state_size), np.float32)}
    index, kept = np.zeros(2, np.int64), {"plan": np.full_like(action.state["plan"], 0.5)}

    def plan_after(ended: list[bool]) -> np.ndarray:  # type: ignore[type-arg]
        generators = [generator_for(1, "x", c) for c in range(2)]
        state = {"plan": kept["plan"].copy()}
        return policy.act(first, index, state, np.array(ended), acting=Acting(), generators=generators).state[
            "plan"
        ]

    warm, mixed = plan_after([False, False]), plan_after([True, False])
    np.testing.assert_array_equal(warm[1], mixed[1])
    assert not np.array_equal(warm[0], mixed[0]), "the first copy began again"


def test_modes_choose_between_prior_and_plan() -> None:
    settings = dataclasses.replace(SMALL.planning, collect="policy", evaluate="plan")
    policy = policy_of(planning=settings)
    explored = acted(policy, [0], Acting(explore=True))
    assert np.isfinite(explored.extras["log_probability"][0]), "the prior drew it"
    planned = acted(policy, [0], Acting(explore=False))
    assert planned.state["plan"].any()
    assert not acted(policy, [0], Acting(explore=False, plan=False)).state["plan"].any()


def test_plans_are_recorded_where_they_are_imitated() -> None:
    settings = dataclasses.replace(SMALL.planning, collect="plan")
    policy = policy_of(planning=settings, losses=LossConfig(cloning=1.0))
    action = acted(policy, [0, 1], Acting(explore=True))
    planned = action.extras["planned"]
    assert planned.shape == (2, MIXED.layout.continuous_size + MIXED.layout.discrete_size)
    assert np.isfinite(planned).all()
    assert planned[1, 2:].sum() == pytest.approx(1.0, abs=1e-5), "probabilities of the indices"
    np.testing.assert_allclose(planned[0, :2], action.state["plan"][0, 0], atol=1e-6)

"""Agents learn the same from states and rewards in any unit: scales come from the data alone."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from mtrl.agents.diffusion import AGENT as DIFFUSION
from mtrl.agents.sac import NormalisationConfig, SACAgent, SACConfig
from mtrl.agents.world_model import WorldModelAgent
from mtrl.data import Trajectories
from mtrl.reducer import ALONE
from mtrl.rollout import Fragment
from mtrl.tasks import TaskSet
from mtrl.training import Agent, Datasets

from .demonstrations import choice_data, choice_tasks
from .sac_made import CONTINUOUS, DISCRETE, MIXED, SMALL, fragment_of, task_of
from .test_diffusion_agent import SMALL as SMALL_DIFFUSION
from .test_world_model_agent import SMALL as SMALL_WORLD_MODEL

STEPS = 40
SAC = dataclasses.replace(SMALL, learning_rate=SACConfig.learning_rate)


def fragment(k: int, seed: int, states: float, rewards: float, tasks: TaskSet = MIXED) -> Fragment:
    """Random play whose first entry has an offset, in other units."""
    made = fragment_of(tasks, k, STEPS, ends={9: "truncated", 19: "terminated"}, seed=seed)
    made.observations["state"][..., 0] += 3.0
    for rows in (made.observations["state"], made.final_observations["state"]):
        rows *= np.float32(states)
    return dataclasses.replace(made, reward=made.reward * np.float32(rewards))


def sac(states: float, rewards: float) -> Agent:
    agent = SACAgent(SAC, MIXED, 1)
    for k in range(len(MIXED)):
        agent.ingest(fragment(k, k, states, rewards))
    return agent


def world_model(states: float, rewards: float) -> Agent:
    agent = WorldModelAgent(SMALL_WORLD_MODEL, MIXED, 1)
    for k in range(len(MIXED)):
        agent.ingest(fragment(k, k, states, rewards))
    return agent


def diffusion(states: float, rewards: float) -> Agent:
    agent = DIFFUSION.build(SMALL_DIFFUSION, choice_tasks(), 1)
    agent.ingest(Datasets({k: rescaled(data, states) for k, data in choice_data().items()}))
    return agent


def rescaled(data: Trajectories, states: float) -> Trajectories:
    observations = {"state": data.observations["state"] * np.float32(states)}
    return dataclasses.replace(data, observations=observations)


AGENTS: Mapping[str, Callable[[float, float], Agent]] = {
    "sac": sac,
    "world model": world_model,
    "diffusion": diffusion,
}


def learn(agent: Agent, updates: int) -> list[Mapping[str, float]]:
    """Metrics of every update; none is in the unit of the rewards."""
    agent.due(updates, ALONE)
    return [dict(agent.update(ALONE)) for _ in range(updates)]


@cache
def plain(name: str, updates: int) -> list[Mapping[str, float]]:
    return learn(AGENTS[name](1.0, 1.0), updates)


def slow(values: Sequence[Any]) -> list[Any]:
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("exponent", [-27, 27, *slow([e for e in range(-26, 27) if e])])
def test_metrics_are_bit_equal_in_units_of_a_power_of_two(name: str, exponent: int) -> None:
    for rewards in (exponent, -exponent):
        assert learn(AGENTS[name](2.0**exponent, 2.0**rewards), 6) == plain(name, 6)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("sac", 1e-8),
        ("sac", 1e8),
        ("diffusion", 1e8),
        *slow([("world model", 1e-8), ("world model", 1e8), ("diffusion", 1e-8)]),
        *slow([(name, unit) for name in AGENTS for unit in (1e-5, 1e-2, 1e3)]),
    ],
)
def test_losses_stay_within_rounding_in_any_unit(name: str, unit: float) -> None:
    before, after = plain(name, 100), learn(AGENTS[name](unit, unit), 100)
    for key in (key for key in before[0] if "loss" in key):
        found, expected = (np.array([m[key] for m in run if key in m]) for run in (after, before))
        # losses of a policy change their sign: near 0 they are compared with their size over the run
        atol = 1e-4 * np.abs(expected).max() if expected.min() < 0 else 0.0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=atol, err_msg=key)


@pytest.mark.parametrize("reward", [0.0, -1.0])
def test_rewards_that_never_change_are_learned_from(reward: float) -> None:
    tasks = TaskSet([task_of("push", CONTINUOUS, 3), task_of("jump", DISCRETE, 2)])
    agent = SACAgent(SAC, tasks, 1)
    for k in range(len(tasks)):
        agent.ingest(fragment_of(tasks, k, STEPS, reward=[reward] * STEPS, seed=k))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metrics = learn(agent, 8)[-1]
    said = [str(warning.message) for warning in caught]
    named = ["no reward other than 0 so far, and so no scale of rewards: made/push, made/jump"]
    assert said == ([] if reward else named)
    assert all(np.isfinite(value) for value in metrics.values())
    # gamma = 0.99: |G| reaches (1 - 0.99^40) / 0.01 = 33.1, which becomes 10
    scale = 33.1 / 10.0 if reward else 1.0
    np.testing.assert_allclose(agent._reward_scale.scale, scale, rtol=1e-3)


def test_statistics_follow_until_the_first_refresh_and_then_what_outgrows_them() -> None:
    tasks = TaskSet([task_of("push", CONTINUOUS, 3)])
    config = dataclasses.replace(SAC, normalisation=NormalisationConfig(refresh_at=(60, 100)))
    agent = SACAgent(config, tasks, 1)

    def ingest(seed: int, third: float) -> np.ndarray:
        """The scales after 40 more steps of play, whose third entry deviates by this much from 7."""
        made = fragment_of(tasks, 0, STEPS, seed=seed)
        made.observations["state"][..., 2] = 7.0 + third * made.observations["state"][..., 2]
        agent.ingest(made)
        agent.due(0, ALONE)
        observer = agent.policy().actor.observer
        assert observer.mean[0, 2] == pytest.approx(7.0, abs=1.0)
        return observer.scale[0].numpy().copy()

    # 40 and 80 steps: the statistics follow, and the third entry is a constant of size 7
    first = ingest(0, 0.0)
    with pytest.warns(RuntimeWarning, match=r"made/push \[2\]$"):
        second = ingest(1, 0.0)
    assert first[2] == second[2] == 7.0 and first[0] != second[0]
    third = ingest(2, 0.0)  # 120 steps, past the last refresh
    np.testing.assert_array_equal(ingest(3, 0.0), third)
    # it varies for the first time; twice as much is no reason to change, a hundred times as much is
    fifth = ingest(4, 0.01)
    assert 0.001 < fifth[2] < 0.01
    np.testing.assert_array_equal(ingest(5, 0.02), fifth)
    assert ingest(6, 1.0)[2] > 16 * fifth[2]


def test_resumed_statistics_are_those_of_the_run() -> None:
    whole, resumed = sac(1.0, 1.0), SACAgent(SAC, MIXED, 1)
    whole.due(0, ALONE)
    resumed.restore(whole.shared_state(), whole.local_state())
    for agent in (whole, resumed):
        for k in range(len(MIXED)):
            agent.ingest(fragment(k, 10 + k, 1e3, 1.0))
    assert learn(whole, 3) == learn(resumed, 3)

"""PPO by hand: advantages, PopArt, what ends an episode; and that it learns, resumes and refuses."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents.grpo.config import PolicyConfig, ReturnConfig
from mtrl.agents.grpo.networks import StepBatch
from mtrl.agents.ppo import AGENT, EpisodeConfig, PPOAgent, PPOConfig
from mtrl.agents.ppo.critic import TaskCritic
from mtrl.agents.ppo.losses import generalised_advantages
from mtrl.agents.ppo.rollout import Columns
from mtrl.data import Bucket
from mtrl.errors import ConfigError
from mtrl.gradients import SurgeryConfig
from mtrl.launch.main import main
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, GroupRequest
from mtrl.tasks import TaskSet
from mtrl.training import RUN_METRICS, undocumented

from .grpo_made import MIXED, SMALL, group_of
from .sac_made import fragment_of

TINY = PolicyConfig(torso=SMALL.network.torso, normalise_until=0)
CONFIG = PPOConfig(network=TINY, rollout=60, epochs=2, minibatches=2)


def test_advantages_by_hand() -> None:
    """gamma .5, lambda .5; the second column terminates at its first step and is cut at its last."""
    reward = np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    value = np.array([[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]])
    following = np.array([[4.0, 9.0], [6.0, 6.0], [8.0, 10.0]])
    final = np.array([[False, True], [False, False], [False, False]])
    ended = np.array([[False, True], [False, False], [False, True]])
    found = generalised_advantages(reward, value, following, final, ended, 0.5, 0.5)
    # deltas: 1 + 2 - 2, 1 + 3 - 4, 1 + 4 - 6 / 1 - 2, 1 + 3 - 4, 1 + 5 - 6
    expected = [[1 - 0.0625, -1.0], [-0.25, 0.0], [-1.0, 0.0]]
    np.testing.assert_allclose(found, expected)


def test_without_decay_and_discount_advantages_are_returns_less_values() -> None:
    draws = np.random.default_rng(0)
    reward, value = draws.normal(size=(2, 9, 1))
    following = np.concatenate([value[1:], [[7.0]]])
    none = np.zeros((9, 1), bool)
    found = generalised_advantages(reward, value, following, none, none, 1.0, 1.0)
    to_go = reward[::-1].cumsum(0)[::-1] + 7.0
    np.testing.assert_allclose(found, to_go - value)


def test_popart_keeps_every_value_and_standardises_returns() -> None:
    torch.manual_seed(0)
    critic = TaskCritic(MIXED.layout, TINY)
    with torch.no_grad():
        critic.network.outputs["value"].weight.normal_()
    task = torch.arange(3)
    buckets = {"state": Bucket(torch.randn(3, 20, MIXED.layout.state_size), task)}

    def values() -> torch.Tensor:
        return critic.values(critic(buckets, task, 20), task).detach()

    before, untouched = values(), critic.deviation[2].item()
    there = torch.tensor([True, True, False])
    for mean, deviation in ((500.0, 90.0), (-3.0, 0.01)):
        critic.rescale(torch.full((3,), mean), torch.full((3,), deviation), there, 0.5)
        torch.testing.assert_close(values(), before, rtol=1e-4, atol=1e-3)
    assert critic.deviation[2] == untouched and not critic.measured[2]
    fresh = TaskCritic(MIXED.layout, TINY)
    fresh.rescale(torch.tensor([500.0, 1.0, 0.0]), torch.tensor([90.0, 2.0, 1.0]), there, 0.1)
    torch.testing.assert_close(fresh.mean[:2], torch.tensor([500.0, 1.0]))
    torch.testing.assert_close(fresh.deviation[:2], torch.tensor([90.0, 2.0]), rtol=1e-3, atol=0.0)


def test_a_success_is_final_and_a_time_limit_is_not() -> None:
    policy = PPOAgent(CONFIG, MIXED, 1).policy()
    request = GroupRequest(0, start=3, size=3, acting=Acting(explore=True), seed=1)
    group = group_of(MIXED, request, policy, (0, 3, 5))
    columns = Columns.of_group(group, MIXED[0], MIXED.layout, ReturnConfig(kind="success"))
    ends = np.flatnonzero(columns.ended)
    assert ends.tolist() == [9, 12, 17] and columns.final[ends, 0].tolist() == [False, True, True]
    assert columns.reward[:, 0][ends].tolist() == pytest.approx([0.0, 1.35, 1.25])
    # what follows an episode's last decision is its own last observation
    np.testing.assert_array_equal(columns.following["state"][9, 0], group.observations["state"][10])
    assert not columns.before[[0, 10, 13]].any() and columns.before.sum() == 15
    fragment = fragment_of(MIXED, 2, 6, ends={2: "terminated", 4: "truncated"})
    found = Columns.of_fragment(fragment, MIXED[2])
    assert np.flatnonzero(found.final).tolist() == [2] and np.flatnonzero(found.ended).tolist() == [2, 4]
    assert found.before[:, 0].tolist() == [False, True, True, False, True, False]
    np.testing.assert_allclose(found.reward, fragment.reward / 20)


def test_a_policy_begins_undecided_unless_it_has_a_parent() -> None:
    batch = StepBatch(
        torch.arange(3),
        torch.ones(3, 50),
        {"state": Bucket(torch.randn(3, 50, MIXED.layout.state_size), torch.arange(3))},
        {},
    )
    agent = PPOAgent(CONFIG, MIXED, 1)
    found = agent.policy().actor.distribution(batch)
    assert found.mean.abs().max() < 0.05
    legal = found.log_policy.isfinite()
    uniform = -legal.sum(-1, keepdim=True).log().expand_as(found.log_policy)
    torch.testing.assert_close(found.log_policy[legal], uniform[legal], atol=0.05, rtol=0.0)
    child = PPOAgent(CONFIG, MIXED, 2, parent=agent.policy().actor)
    torch.testing.assert_close(child.policy().actor.distribution(batch).mean, found.mean)


def fed(agent: PPOAgent, seed: int = 0, tasks: TaskSet = MIXED) -> PPOAgent:
    """A round of a stream, acted in by the agent."""
    for k in range(len(tasks)):
        fragment = fragment_of(tasks, k, 25, ends={9: "truncated", 17: "terminated"}, seed=10 * seed + k)
        seen = {"state": fragment.observations["state"][:-1, 0]}
        acted = agent.policy().act(
            seen, np.full(25, k), {}, np.ones(25, bool), acting=Acting(explore=True),
            generators=[np.random.default_rng([seed, k, t]) for t in range(25)],
        )  # fmt: skip
        fragment.discrete[:, 0] = acted.discrete
        fragment.extras = {name: values[:, None] for name, values in acted.extras.items()}
        agent.ingest(fragment)
    return agent


def test_a_restored_agent_continues_alike_in_a_stream_and_in_groups() -> None:
    groups = EpisodeConfig(groups=3, group_size=3)
    for changes in (
        {},
        {
            "episodes": groups,
            "returns": ReturnConfig(),
            "network": PolicyConfig(SMALL.network.torso, correlation=0.5),
        },
        {"gradients": SurgeryConfig("pcgrad", part="both")},
    ):
        settings: dict[str, Any] = {"network": TINY, "rollout": 60, "epochs": 2, "minibatches": 2, **changes}
        config = PPOConfig(**settings)

        def learn(agent: PPOAgent, seed: int, config: PPOConfig = config) -> dict[str, float]:
            if config.episodes.groups:
                policy = AGENT.policy(agent.snapshot("collect"), MIXED)
                for request in agent.request(ALONE):
                    agent.ingest(group_of(MIXED, request, policy, (0, 3, 6), (0.1, 0.2, 0.3)))
            else:
                fed(agent, seed)
            assert agent.due(75, ALONE) == 1
            metrics = dict(agent.update(ALONE))
            assert agent.due(75, ALONE) == 0
            return metrics

        agent = PPOAgent(config, MIXED, 1)
        first = learn(agent, 0)
        assert not undocumented(first, AGENT.metrics, RUN_METRICS)
        other = PPOAgent(config, MIXED, 1)
        other.restore(copy.deepcopy(agent.shared_state()), copy.deepcopy(agent.local_state()))
        assert learn(agent, 1) == learn(other, 1)


@pytest.mark.parametrize("part", ["actor", "critic", "both"])
def test_surgery_of_one_task_changes_nothing_and_of_three_the_named_networks_alone(part: str) -> None:
    surgery = SurgeryConfig("pcgrad", part=part)
    alone = TaskSet([MIXED[0]])

    def learned(
        tasks: TaskSet, gradients: SurgeryConfig
    ) -> tuple[PPOAgent, dict[str, float], dict[str, Any]]:
        config = dataclasses.replace(CONFIG, gradients=gradients, rollout=20, gradient_clip=0.0, epochs=1)
        agent = PPOAgent(config, tasks, 1)
        metrics = dict(fed(agent, tasks=tasks).update(ALONE))
        state = agent.shared_state()
        return agent, metrics, {**state["actor"], **{f"value.{k}": v for k, v in state["critic"].items()}}

    one = [learned(alone, gradients)[2] for gradients in (SurgeryConfig(), surgery)]
    for name, value in one[0].items():
        torch.testing.assert_close(value, one[1][name], atol=1e-5, rtol=1e-4, msg=name)
    agent, metrics, changed = learned(MIXED, surgery)
    plain = learned(MIXED, SurgeryConfig())[2]
    differs = {name for name, value in plain.items() if not torch.allclose(value, changed[name], atol=1e-6)}
    covered = {"actor", "critic"} if part == "both" else {part}
    assert {"critic" if name.startswith("value.") else "actor" for name in differs} == covered
    assert set(agent.task_cosines()) == covered
    assert {name.split("/")[1] for name in metrics if name.startswith("gradients/")} == covered
    assert not undocumented(metrics, AGENT.metrics, RUN_METRICS)


def test_the_critic_learns_what_states_are_worth() -> None:
    """Rewards that a state decides, and a discount of almost 0."""
    returns = ReturnConfig(kind="dense", discount=0.01)
    agent = PPOAgent(
        PPOConfig(TINY, rollout=60, epochs=40, minibatches=2, learning_rate=5e-3, returns=returns), MIXED, 1
    )
    losses = []
    for _ in range(2):
        fed(agent)
        for place, part in enumerate(agent._columns):
            agent._columns[place] = dataclasses.replace(part, reward=part.seen["state"][..., 0].astype(float))
        metrics = agent.update(ALONE)
        losses.append(sum(metrics[f"value_loss/{task}"] for task in MIXED.names))
    assert losses[1] < 0.3 * losses[0]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent.returns.kind=success needs whole episodes"):
        PPOConfig(returns=ReturnConfig(kind="success"))
    with pytest.raises(ConfigError, match=r"agent.network.correlation needs whole episodes"):
        PPOConfig(network=PolicyConfig(correlation=0.5))


def test_the_command_learns_by_a_stream_and_a_child_of_it_by_groups(tmp_path: Path) -> None:
    words = [
        "train", "tasks=[gym/CartPole-v1]", "agent.network.torso.width=16", "steps=300", "training.threads=1",
        "evaluation.episodes=2", "tracking.tensorboard=false", f"output={tmp_path}",
    ]  # fmt: skip
    stream = [
        "agent=ppo",
        "agent.rollout=100",
        "agent.epochs=2",
        "online.warmup=100",
        "collection.stagger=false",
    ]
    assert main([*words, *stream, "name=one", "stages=[train,evaluate]"]) == 0
    child = ["agent=grpo", "agent.groups=2", "agent.group_size=2", f"init_from={tmp_path / 'one'}"]
    assert main([*words, *child, "name=two", "stages=[train]"]) == 0

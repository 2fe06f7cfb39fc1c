"""The GRPO agent: what its rounds learn from, what it saves, what it refuses."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from mtrl import registry
from mtrl.agents.grpo import AGENT, GRPOAgent
from mtrl.agents.grpo.config import (
    AdvantageConfig,
    PolicyConfig,
    PoolConfig,
    RegularisationConfig,
    ReturnConfig,
    SamplerConfig,
    WeightConfig,
)
from mtrl.agents.grpo.learning import path_log_probability
from mtrl.errors import ConfigError, OutOfRangeError, UnsupportedError
from mtrl.gradients import SurgeryConfig
from mtrl.reducer import ALONE
from mtrl.rollout import Acting
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet
from mtrl.training import undocumented

from .grpo_made import MIXED, SMALL, agent_of, filtered, made_suites, played, task_of

PUSH = TaskSet([task_of("push", ActionSpec(continuous=2))])


def weights_of(agent: GRPOAgent) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in agent.snapshot().tensors.items()}


def learn(agent: GRPOAgent, rounds: int = 1, tasks: TaskSet = MIXED, **settings: Any) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for _ in range(rounds):
        while not agent.due(1, ALONE):
            played(agent, tasks, **settings)
        metrics = dict(agent.update(ALONE))
    return metrics


def test_an_equal_group_gives_no_gradient_divergence_and_entropy_included() -> None:
    extra = RegularisationConfig(kl=1.0, entropy=0.1, smoothing=0.1)
    agent = agent_of(PUSH, regularisation=extra)
    learn(agent, tasks=PUSH)
    with torch.no_grad():
        next(agent._actor.parameters()).add_(0.1)  # away from the reference
    before = weights_of(agent)
    metrics = learn(agent, tasks=PUSH, outcome=(0, 0, 0, 0))
    assert metrics["useful_groups/grouped/push"] == 0 and metrics["decisions"] == 0
    assert all((before[name] == value).all() for name, value in weights_of(agent).items())


def test_an_equal_group_beside_others_changes_nothing() -> None:
    """The gradient of a round is that of its useful groups alone."""
    one, two = agent_of(PUSH, groups=1), agent_of(PUSH, groups=2)
    requests = list(one.request(ALONE)), list(two.request(ALONE))
    from .grpo_made import group_of

    policy = AGENT.policy(one.snapshot("collect"), PUSH)
    for agent, wanted in zip((one, two), requests, strict=True):
        agent.ingest(group_of(PUSH, wanted[0], policy, (0, 3, 0, 7)))
        for request in wanted[1:]:
            agent.ingest(group_of(PUSH, request, policy, (4, 4, 4, 4)))
        agent.due(1, ALONE)
        agent.update(ALONE)
    for name, value in weights_of(one).items():
        np.testing.assert_array_equal(value, weights_of(two)[name], name)


def test_what_succeeded_becomes_more_likely_in_every_kind_of_task() -> None:
    agent = agent_of(learning_rate=1e-3)
    policy = AGENT.policy(agent.snapshot("collect"), MIXED)
    played(agent)
    groups = list(agent._collection._groups)
    agent.due(1, ALONE)
    agent.update(ALONE)
    del policy
    for group in groups:
        table_agent = agent_of()
        table_agent._actor.load_state_dict(agent._actor.state_dict())
        table_agent._collection.add(group)
        table_agent._collection._requested = True
        table_agent._collection.sampler._targets = np.bincount([group.task_index], minlength=3)
        assert table_agent.due(1, ALONE)
        table, _ = table_agent._collection.close()
        batch = next(table.minibatches(1, np.random.default_rng(0)))
        assert batch is not None
        after, _ = path_log_probability(agent._actor, table, batch, 0.0)
        gain = (after.detach() - batch.fields["log_probability"]) * batch.fields["advantage"] * batch.weight
        assert float(gain.sum()) > 0, MIXED[group.task_index].name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"network": PolicyConfig(torso=SMALL.network.torso, correlation=0.6)},
        {"sampler": filtered(kind="weights", oversampling=2.0, acceptance_aware=True, refills=1)},
        {"advantage": AdvantageConfig(scale="task", normalise_tasks=True, baseline="step")},
        {"regularisation": RegularisationConfig(kl=0.1, entropy=0.01, smoothing=0.05)},
        {"pool": PoolConfig(size=2, share=0.5, every=1)},
        {"gradients": SurgeryConfig("pcgrad")},
        {"returns": ReturnConfig(kind="dense", discount=0.9)},
    ],
    ids=["plain", "correlated", "mt-grpo", "agentrl", "regularised", "pool", "pcgrad", "dense"],
)
def test_a_restored_agent_continues_alike(changes: dict[str, Any]) -> None:
    agent = agent_of(**changes)
    learn(agent, 1)
    agent.request(ALONE)
    other = agent_of(**changes)
    other.restore(copy.deepcopy(agent.shared_state()), copy.deepcopy(agent.local_state()))
    first, second = learn(agent), learn(other)
    assert first == second and agent.updates == other.updates == 2
    assert all((value == weights_of(other)[name]).all() for name, value in weights_of(agent).items())
    assert not undocumented(first, AGENT.metrics)
    assert all(np.isfinite(value) for value in first.values())


def test_a_round_under_way_is_saved_with_its_groups() -> None:
    settings = {"sampler": filtered(refills=4)}
    agent = agent_of(**settings)
    played(agent, outcome=(0, 0, 0, 0))  # nothing to learn from, except from rewards
    assert agent.due(1, ALONE) == 0
    other = agent_of(**settings)
    other.restore(copy.deepcopy(agent.shared_state()), copy.deepcopy(agent.local_state()))
    alone = agent_of(**settings)
    alone.restore(copy.deepcopy(agent.shared_state()), None)
    assert learn(agent) == learn(other)
    assert len(alone.request(ALONE)) == 6, "with other ranks the round begins again"


def test_updates_of_one_task_by_surgery_are_those_without() -> None:
    plain, surgery = agent_of(PUSH), agent_of(PUSH, gradients=SurgeryConfig("pcgrad"))
    learn(plain, 2, PUSH), learn(surgery, 2, PUSH)
    for name, value in weights_of(plain).items():
        np.testing.assert_allclose(value, weights_of(surgery)[name], atol=1e-6)


def test_weights_move_towards_the_task_that_fails() -> None:
    agent = agent_of(
        sampler=SamplerConfig(kind="weights"), weights=WeightConfig(tradeoff=1.0, improvement=0.0), groups=12
    )
    for _ in range(6):
        policy = AGENT.policy(agent.snapshot("collect"), MIXED)
        from .grpo_made import group_of

        for request in agent.request(ALONE):
            outcome = (0, 0, 0, 5) if request.task_index == 0 else (2, 3, 4, 0)
            agent.ingest(group_of(MIXED, request, policy, outcome, (2.0, 1.9, 1.8, 1.7)))
        agent.due(1, ALONE)
        metrics = agent.update(ALONE)
    assert metrics["weight/grouped/push"] > 1 / 3 > metrics["weight/grouped/jump"]


def test_earlier_policies_act_and_their_densities_are_recorded() -> None:
    agent = agent_of(PUSH, pool=PoolConfig(size=3, share=1.0, every=1), learning_rate=0.05)
    learn(agent, 3, PUSH)
    snapshot = agent.snapshot("collect")
    pool, now = AGENT.policy(snapshot, PUSH), agent.policy()
    assert snapshot.config["earlier"] == 3 and agent.snapshot().config["earlier"] == 0
    seen = {"state": np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)}

    def acted(policy: Any) -> Any:
        generators = [np.random.default_rng(i) for i in range(64)]
        return policy.act(
            seen, np.zeros(64, np.int64), policy.initial_state(64), np.ones(64, bool),
            acting=Acting(explore=True), generators=generators,
        )  # fmt: skip

    found = acted(pool)
    means = list(pool._actors[1:])
    from mtrl.agents.grpo.networks import StepBatch
    from mtrl.data import Bucket

    batch = StepBatch(
        torch.tensor([0]),
        torch.ones(1, 64),
        {"state": Bucket(torch.from_numpy(seen["state"])[None], torch.tensor([0]))},
        {},
    )
    drawn = torch.from_numpy(found.extras["drawn"])[None]
    each = torch.stack(
        [
            actor.distribution(batch).log_probability(drawn, torch.zeros(1, 64, dtype=torch.int64))[0]
            for actor in means
        ]
    ).detach()
    recorded = torch.from_numpy(found.extras["log_probability"])
    assert bool(((each - recorded).abs().amin(0) < 1e-4).all())
    assert not np.allclose(found.extras["log_probability"], acted(now).extras["log_probability"])


def test_the_deviation_may_fall_where_a_task_succeeds() -> None:
    agent = agent_of(PUSH, network=PolicyConfig(torso=SMALL.network.torso, std=0.3, std_floor=0.25))
    agent._weights.success[:] = 0.6
    np.testing.assert_allclose(agent._floors, [0.1])
    agent._weights.success[:] = np.nan
    with torch.no_grad():
        agent._actor.log_std.fill_(-5.0)
    agent._learner._bound_deviations(agent._floors)
    torch.testing.assert_close(agent._actor.log_std.exp(), torch.full((1, 2), 0.25))


def test_an_actor_of_sac_is_a_parent_and_keeps_its_mean_action() -> None:
    from mtrl.agents.sac import SACConfig

    tasks = TaskSet([task_of("push", ActionSpec(continuous=2)), task_of("jump", ActionSpec(discrete=3), 2)])
    sac = registry.load("agent", "sac")
    config = SACConfig()
    parent = sac.policy(sac.build(config, tasks, 3).snapshot(), tasks)
    with made_suites():
        agent = AGENT.build(
            AGENT.config_class(network=PolicyConfig(torso=config.network.torso)),
            tasks,
            1,
            parents={"init_from": parent},
        )
    seen = {"state": np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)}
    arguments = (seen, np.array([0, 1]), {}, np.ones(2, bool))
    generators = [np.random.default_rng(0)] * 2
    one, two = (p.act(*arguments, acting=Acting(), generators=generators) for p in (parent, agent.policy()))
    np.testing.assert_allclose(one.continuous, two.continuous, atol=1e-6)
    np.testing.assert_array_equal(one.discrete, two.discrete)
    with made_suites(), pytest.raises(ConfigError, match=r"init_from.*agent.network.torso") as refused:
        AGENT.build(AGENT.config_class(), tasks, 1, parents={"init_from": parent})
    # what differs, and nothing else
    assert "torso.width=256, expected" not in str(refused.value) and "layer_norm=True, expected False" in str(
        refused.value
    )


def test_the_controller_is_the_policy_without_exploration() -> None:
    tasks = TaskSet([task_of("push", ActionSpec(continuous=2)), task_of("pull", ActionSpec(continuous=1), 2)])
    agent = agent_of(tasks, network=PolicyConfig(torso=SMALL.network.torso, correlation=0.5))
    learn(agent, 1, tasks)
    snapshot = agent.snapshot("export")
    task, draws = np.array([0, 1, 1, 0, 1]), np.random.default_rng(0)
    seen = (3.0 * draws.normal(size=(5, 3)) * tasks.layout.state_mask[task]).astype(np.float32)
    policy = AGENT.policy(snapshot, tasks)
    assert policy.initial_state(5) == {}, "a student can learn it, for it keeps no state"
    acted = policy.act(
        {"state": seen}, task, {}, np.ones(5, bool), acting=Acting(), generators=[draws] * 5
    ).continuous  # fmt: skip
    found = AGENT.controller(snapshot, tasks)(torch.from_numpy(seen), torch.from_numpy(task))
    np.testing.assert_allclose(found.detach().numpy(), acted, atol=1e-6)
    assert acted[1, 1] == 0


def test_a_task_without_a_gradient_is_named_with_what_to_do() -> None:
    agent = agent_of(PUSH, idle_rounds=3)
    with pytest.warns(
        RuntimeWarning, match=r"grouped/push: no group of the last 3 rounds.*agent.network.std"
    ):
        learn(agent, 3, PUSH, outcome=(0, 0, 0, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(agent, 1, PUSH, outcome=(0, 0, 0, 0))


def test_wrong_settings_and_tasks_are_refused() -> None:
    with pytest.raises(OutOfRangeError, match=r"agent.group_size=1.*at least 2"):
        agent_of(group_size=1)
    with pytest.raises(UnsupportedError, match=r"startless/push.*cannot reset to a given start.*agent=ppo"):
        agent_of(TaskSet([task_of("push", ActionSpec(continuous=2), suite="startless")]))
    with pytest.raises(ConfigError, match=r"agent.advantage.scale=none.*grouped/pull.*scale=group"):
        agent_of(advantage=AdvantageConfig(scale="none"))
    agent_of(advantage=AdvantageConfig(scale="none", normalise_tasks=True))
    raw = task_of("swing", ActionSpec(continuous=1), score="raw")
    with pytest.raises(ConfigError, match=r"agent.sampler.kind=weights.*grouped/swing have no range"):
        agent_of(TaskSet([raw]), sampler=SamplerConfig(kind="weights"))
    agent_of(PUSH, advantage=AdvantageConfig(scale="none"))
    with pytest.raises(ConfigError, match=r"oversampling=3 collects groups"):
        SamplerConfig(oversampling=3.0)
    with pytest.raises(ConfigError, match=r"agent.pool.size and agent.network.correlation"):
        agent_of(pool=PoolConfig(size=1), network=PolicyConfig(correlation=0.5))
    with pytest.raises(UnsupportedError, match="objective of GRPO may be negative"):
        agent_of(gradients=SurgeryConfig("famo"))

"""The SAC agent as a run meets it: what it needs, when updates are due, what it saves, as what it begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mtrl.agents.sac import AGENT, NetworkConfig, SACAgent
from mtrl.data import ReplayConfig
from mtrl.errors import ConfigError, DivergenceError
from mtrl.reducer import ALONE
from mtrl.rollout import RandomPolicy
from mtrl.training import (
    Agent,
    AgentFactory,
    FollowsBudget,
    KeepsReplay,
    LivePolicy,
    MeasuresConflict,
    Needs,
    OffersController,
    Offline,
    Stream,
    TakesShares,
    load_state,
    save_state,
)

from .sac_made import MIXED, SMALL, agent_of, fragment_of, torso, update


def test_it_is_what_the_contract_says() -> None:
    factory: AgentFactory = AGENT
    agent: Agent = AGENT.build(SMALL, MIXED, 1)
    assert isinstance(factory, KeepsReplay) and isinstance(factory, OffersController)
    assert not isinstance(factory, FollowsBudget)
    assert all(isinstance(agent, what) for what in (LivePolicy, MeasuresConflict, TakesShares))
    assert AGENT.needs(SMALL, MIXED) == Needs(online=Stream(), parents=("init_from",))
    mixing = dataclasses.replace(SMALL, replay=ReplayConfig(capacity=2000, demonstrations=0.5))
    assert AGENT.needs(mixing, MIXED).offline == Offline(rewards=True, failures=True)
    assert AGENT.replay_bytes(SMALL, MIXED) > 2000 and AGENT.saves_replay(SMALL)


def test_updates_follow_steps_at_the_replay_ratio() -> None:
    agent = SACAgent(dataclasses.replace(SMALL, replay_ratio=0.25), MIXED, 1)
    agent.ingest(fragment_of(MIXED, 0, 10))
    assert agent.due(10, ALONE) == 0, "no batch yet"
    agent.ingest(fragment_of(MIXED, 0, 10, seed=1))
    assert agent.due(0, ALONE) == 0, "random play continues"
    assert agent.due(20, ALONE) == 0, "steps count from here"
    assert agent.due(30, ALONE) == 2
    agent.update(ALONE)
    assert agent.due(30, ALONE) == 1
    agent.update(ALONE)
    assert [agent.due(steps, ALONE) for steps in (30, 33, 34)] == [0, 1, 1]


@pytest.mark.parametrize("saved", [True, False])
def test_a_replay_that_was_not_saved_fills_again(tmp_path: Path, saved: bool) -> None:
    config = dataclasses.replace(SMALL, replay_ratio=1.0, replay=ReplayConfig(2000, save=saved))
    agent = SACAgent(config, MIXED, 1)
    agent.ingest(fragment_of(MIXED, 0, 30))
    assert agent.due(30, ALONE) == 0 and agent.due(35, ALONE) == 5
    for _ in range(5):
        agent.update(ALONE)
    save_state(tmp_path / "shared", agent.shared_state())
    save_state(tmp_path / "local", agent.local_state())
    resumed = SACAgent(config, MIXED, 1)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert resumed.updates == 5
    assert resumed.due(35, ALONE) == 0
    resumed.ingest(fragment_of(MIXED, 0, 20, seed=1))
    assert resumed.due(55, ALONE) == (20 if saved else 0)
    resumed.ingest(fragment_of(MIXED, 0, 20, seed=2))
    assert resumed.due(75, ALONE) == (40 if saved else 0), "as many steps as at first, 30, have passed"
    assert resumed.due(77, ALONE) == (42 if saved else 2)


def test_with_another_number_of_ranks_what_was_shared_goes_on() -> None:
    original, fresh = agent_of(), SACAgent(SMALL, MIXED, 1)
    for _ in range(3):
        update(original)
    fresh.restore(original.shared_state(), None)
    assert fresh.snapshot().same_as(original.snapshot())
    with pytest.raises(ConfigError, match="holds 0 transitions"):
        update(fresh)
    for k in range(3):
        fresh.ingest(fragment_of(MIXED, k, 40, reward=[0.0] * 40))
    assert np.isfinite(list(update(fresh).values())).all()
    original.due(0, ALONE)
    np.testing.assert_array_equal(fresh._reward_scale.largest, original._reward_scale.largest)


def test_policies_of_older_versions_are_read() -> None:
    snapshot = agent_of().snapshot()
    exploration = {
        k.replace("log_std", "log_deviation"): v for k, v in snapshot.config["exploration"].items()
    }
    older = dataclasses.replace(snapshot, config={**snapshot.config, "exploration": exploration})
    assert AGENT.policy(older, MIXED).actor.reach == AGENT.policy(snapshot, MIXED).actor.reach


def test_a_batch_that_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"agent.batch_size=16 .* a multiple of their number, 3"):
        AGENT.build(SMALL, MIXED, 1, rank=0, ranks=3)


def test_a_fragment_that_is_not_finite_is_refused_at_once_alone() -> None:
    bad = fragment_of(MIXED, 0, 10, reward=[np.nan] * 10)
    with pytest.raises(DivergenceError, match="made/push"):
        agent_of().ingest(bad)


def test_it_begins_as_its_parent() -> None:
    parent = agent_of(seed=3)
    for _ in range(3):
        update(parent)
    policy = AGENT.policy(parent.snapshot(), MIXED)
    agent = AGENT.build(SMALL, MIXED, 1, parents={"init_from": policy})
    for name, value in parent.snapshot().tensors.items():
        np.testing.assert_array_equal(agent.snapshot().tensors[name], value, err_msg=name)
    np.testing.assert_array_equal(agent._critic.observer.mean, agent._actor.observer.mean)
    assert agent._actor.observer.mean.any()
    before = agent.snapshot().tensors["observer.mean"]
    agent.ingest(fragment_of(MIXED, 0, 40, seed=7))
    update(agent)
    np.testing.assert_array_equal(agent.snapshot().tensors["observer.mean"], before)
    moved = agent.snapshot().tensors["network.torso.stack.linears.0.weight"]
    assert not np.array_equal(moved, policy.actor.state_dict()["network.torso.stack.linears.0.weight"])
    wider = dataclasses.replace(SMALL, network=NetworkConfig(torso=torso(48), bins=51))
    with pytest.raises(ConfigError, match=r"init_from: the parent's network .*expected \(1, 6, 48\)"):
        AGENT.build(wider, MIXED, 1, parents={"init_from": policy})
    with pytest.raises(ConfigError, match="got a RandomPolicy"):
        AGENT.build(SMALL, MIXED, 1, parents={"init_from": RandomPolicy(MIXED)})

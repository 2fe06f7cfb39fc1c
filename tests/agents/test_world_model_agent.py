"""The world model learns, repeats itself, resumes exactly, and refuses what it cannot do."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtrl.agents.world_model import AGENT, WorldModelAgent, WorldModelConfig
from mtrl.agents.world_model.config import (
    ExpertsConfig,
    LossConfig,
    NormalisationConfig,
    PlanningConfig,
)
from mtrl.agents.world_model.diagnostics import effective_rank
from mtrl.agents.world_model.learning import clipped_shares
from mtrl.agents.world_model.networks import WorldModel
from mtrl.data import ReplayConfig
from mtrl.errors import ConfigError, DivergenceError, OutOfRangeError, SpaceError, UnknownNameError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import RewardScale
from mtrl.panels import metric_pattern
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, generator_for
from mtrl.spaces import ActionSpec
from mtrl.tasks import TaskSet
from mtrl.training import undocumented

from ..sweeps import sampled
from .sac_made import CONTINUOUS, DISCRETE, MIXED, fragment_of, task_of

SMALL = WorldModelConfig(
    batch_size=8,
    normalisation=NormalisationConfig(refresh_at=(20,)),
    replay=ReplayConfig(capacity=500),
    planning=PlanningConfig(samples=16, policy_samples=4, elites=4, iterations=2),
)
PIXELS = TaskSet(
    [
        task_of("see", DISCRETE, 0, (1, 36, 36)),
        task_of("feel", CONTINUOUS, 3),
        task_of("both", DISCRETE, 2, (1, 36, 36)),
    ]
)


def agent_of(tasks: TaskSet = MIXED, seed: int = 1, **changes: object) -> WorldModelAgent:
    agent = WorldModelAgent(dataclasses.replace(SMALL, **changes), tasks, seed)  # type: ignore[arg-type]
    for k in range(len(tasks)):
        agent.ingest(fragment_of(tasks, k, 40, ends={9: "truncated", 19: "terminated"}, seed=k))
    agent.due(0, ALONE)
    return agent


def weights(agent: WorldModelAgent) -> Mapping[str, np.ndarray]:  # type: ignore[type-arg]
    return agent.snapshot().tensors


VARIANTS: dict[str, dict[str, object]] = {
    "moe": {},
    "state gate": {"experts": ExpertsConfig(state_gate=True)},
    "dense": {"experts": ExpertsConfig(dense=True)},
    "S": {"size": "S"},
}


TASKS = {"mixed": MIXED, "pixels": PIXELS}
KINDS = [(kind, name) for n, name in enumerate(VARIANTS) for kind in sorted(TASKS, reverse=n % 2 == 1)]
"""Of which a day has two variants on states alone and the two others on images."""


@pytest.mark.parametrize(("tasks", "variant"), sampled(KINDS, share=2))
def test_losses_fall_on_a_small_replay_of_any_tasks(tasks: str, variant: str) -> None:
    agent = agent_of(TASKS[tasks], **VARIANTS[variant])
    first = agent.update(ALONE)
    for _ in range(24):
        last = agent.update(ALONE)
    assert not undocumented(last, AGENT.metrics)
    assert all(math.isfinite(value) for value in last.values())
    for task in TASKS[tasks].names:
        assert last[f"reward_loss/{task}"] < first[f"reward_loss/{task}"]
        assert last[f"q_loss/{task}"] < first[f"q_loss/{task}"]


@pytest.mark.parametrize("method", ["pcgrad", "famo", "mgda"])
def test_surgery_combines_the_models_task_gradients(method: str) -> None:
    agent = agent_of(gradients=SurgeryConfig(method), diagnostics_every=0)
    for _ in range(3):
        metrics = agent.update(ALONE)
    assert not undocumented(metrics, AGENT.metrics)
    assert any(name.startswith("gradients/model/") for name in metrics)
    cosines = agent.task_cosines()
    assert method == "famo" or np.allclose(np.diag(cosines["model"]), 1.0)


def test_famo_learns_from_the_losses_after_an_update() -> None:
    agent = agent_of(gradients=SurgeryConfig("famo"), diagnostics_every=0)
    weights = []
    for _ in range(6):
        metrics = agent.update(ALONE)
        weights.append(metrics["gradients/model/weight_max"] - metrics["gradients/model/weight_min"])
    assert weights[-1] > weights[0]


def test_task_shares_weigh_the_losses() -> None:
    agent = agent_of(diagnostics_every=0, experts=ExpertsConfig(balance="none"))
    agent.set_task_shares(np.array([1.0, 0.0, 0.0]))
    before = weights(agent)["experts.by_task.weight"].copy()
    for _ in range(3):
        agent.update(ALONE)
    moved = (weights(agent)["experts.by_task.weight"] != before).any(1)
    assert moved.tolist() == [True, False, False]


def test_demonstrations_set_the_scale_of_rewards() -> None:
    agent = WorldModelAgent(SMALL, MIXED, 1)
    fragment = fragment_of(MIXED, 0, 40, seed=0, reward=[0.0] * 40)
    agent.ingest(fragment)
    made = dataclasses.replace(fragment, reward=fragment.reward + 2.0)
    agent._reward_scale.add_episodes(0, made.reward[:, 0], np.array([0, 20, 40]))
    # a geometric series of 20 terms
    expected = 2.0 * (1.0 - 0.95**20) / 0.05
    assert agent._reward_scale.largest[0] == pytest.approx(expected, rel=1e-5)


def test_the_plain_sum_and_surgery_with_equal_weights_agree() -> None:
    plain, summed = agent_of(), agent_of(gradients=SurgeryConfig("sum", trained_share=0.999999))
    for agent in (plain, summed):
        agent.update(ALONE)
    mine, theirs = weights(plain), weights(summed)
    for name in mine:
        np.testing.assert_allclose(mine[name], theirs[name], atol=2e-3, err_msg=name)


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    agents = [agent_of(seed=seed) for seed in (1, 1, 2)]
    for agent in agents:
        agent.update(ALONE)
        agent.update(ALONE)
    one, same, other = (weights(agent) for agent in agents)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["q_out.weight"], other["q_out.weight"])


def test_a_restored_agent_goes_on_bit_for_bit() -> None:
    original = agent_of(diagnostics_every=2)
    for _ in range(3):
        original.update(ALONE)
    shared, local = original.shared_state(), original.local_state()
    restored = WorldModelAgent(dataclasses.replace(SMALL, diagnostics_every=2), MIXED, 99)
    restored.restore(shared, local)
    for agent in (original, restored):
        agent.ingest(fragment_of(MIXED, 1, 30, seed=9))
        agent.due(0, ALONE)
    metrics = [[agent.update(ALONE) for _ in range(3)] for agent in (original, restored)]
    assert metrics[0] == metrics[1]
    mine, theirs = weights(original), weights(restored)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


def test_a_snapshot_acts_as_the_live_policy() -> None:
    agent = agent_of()
    agent.update(ALONE)
    live, rebuilt = agent.policy(), AGENT.policy(agent.snapshot(), MIXED)
    index, seen = np.arange(3), np.zeros((3, MIXED.layout.state_size), np.float32)
    actions = []
    for policy in (live, rebuilt):
        generators = [generator_for(1, "x", c) for c in range(3)]
        actions.append(
            policy.act(
                {"state": seen},
                index,
                policy.initial_state(3),
                np.ones(3, bool),
                acting=Acting(),
                generators=generators,
            )
        )
    np.testing.assert_array_equal(actions[0].continuous, actions[1].continuous)
    np.testing.assert_array_equal(actions[0].discrete, actions[1].discrete)


def test_diagnostics_say_what_experts_do() -> None:
    agent = agent_of(diagnostics_every=1)
    metrics = agent.update(ALONE)
    assert not undocumented(metrics, AGENT.metrics)
    for task in MIXED.names:
        use = [metrics[f"expert_{i}_use/{task}"] for i in range(4)]
        assert sum(use) == pytest.approx(1.0, abs=1e-5) and sum(u > 0 for u in use) == 2
        assert 0 <= metrics[f"gate_entropy/{task}"] <= 1
        assert metrics[f"latent_error_1/{task}"] >= 0
    assert metrics["gate_entropy_marginal"] == pytest.approx(1.0, abs=0.05), "nothing is decided at first"


def test_panels_show_metrics_that_are_logged() -> None:
    logged = agent_of(diagnostics_every=1).update(ALONE)
    for panel in AGENT.panels:
        assert set(panel.metrics) <= set(AGENT.metrics)
        for name in panel.metrics:
            assert any(metric_pattern(name).fullmatch(key) for key in logged), name


def test_exchanged_and_unused_experts_raise_the_latent_error() -> None:
    agent = agent_of(diagnostics_every=60, experts=ExpertsConfig(noise_updates=50, balance="none"))
    with torch.no_grad():
        # tasks 0 and 2 share two experts, task 1 has the others
        table = agent._model.experts.by_task.weight
        table.copy_(torch.tensor([[4.0, 4, -4, -4], [-4, -4, 4, 4], [4, 4, -4, -4]]).reshape(table.shape))
    for _ in range(60):
        metrics = agent.update(ALONE)
    unused = [metrics[f"unused_expert_error/{task}"] for task in MIXED.names]
    exchanged = [metrics[f"exchanged_gate_error/{task}"] for task in MIXED.names]
    assert min(unused) > 1.2
    # task 0 gets the gate of task 2, which chooses the same experts
    assert exchanged[0] == pytest.approx(1.0, abs=0.2)
    assert min(exchanged[1:]) > 1.2


def test_effective_rank_counts_directions() -> None:
    rows = torch.zeros(4, 6)
    rows[0, 0], rows[1, 0], rows[2, 1], rows[3, 1] = 1, -1, 1, -1
    assert effective_rank(rows) == pytest.approx(2.0, abs=1e-4)


def test_cloning_pulls_the_prior_to_the_plan() -> None:
    changes = {
        "losses": LossConfig(cloning=50.0),
        "planning": dataclasses.replace(SMALL.planning, collect="plan"),
        "learning_rate": 3e-3,
    }
    agent = WorldModelAgent(dataclasses.replace(SMALL, **changes), MIXED, 1)  # type: ignore[arg-type]
    for k in range(3):
        fragment = fragment_of(MIXED, k, 40, seed=k)
        planned = np.zeros((40, 1, 5), np.float32)
        planned[..., 0] = 0.8 if k != 1 else 0.0
        planned[..., 4] = 1.0 if k == 1 else 0.0
        agent.ingest(dataclasses.replace(fragment, extras={"planned": planned}))
    agent.due(0, ALONE)
    for _ in range(150):
        agent.update(ALONE)
    policy, seen = agent.policy(), np.zeros((3, MIXED.layout.state_size), np.float32)
    action = policy.act(
        {"state": seen}, np.arange(3), policy.initial_state(3), np.ones(3, bool),
        acting=Acting(plan=False), generators=[generator_for(1, "x", c) for c in range(3)],
    )  # fmt: skip
    assert action.continuous[[0, 2], 0] == pytest.approx([0.8, 0.8], abs=0.15)
    assert action.discrete[1] == 2


def test_rewards_of_any_size_give_the_same_updates() -> None:
    metrics = []
    for factor in (1.0, 2.0**20, 2.0**-6):
        agent = WorldModelAgent(SMALL, MIXED, 1)
        for k in range(3):
            fragment = fragment_of(MIXED, k, 40, seed=k)
            agent.ingest(dataclasses.replace(fragment, reward=fragment.reward * np.float32(factor)))
        agent.due(0, ALONE)
        metrics.append([agent.update(ALONE) for _ in range(3)])
    assert metrics[0] == metrics[1] == metrics[2]


def test_bad_settings_are_refused_with_what_to_do() -> None:
    with pytest.raises(UnknownNameError, match=r"agent\.size"):
        WorldModelConfig(size="M")
    with pytest.raises(ConfigError, match="chosen=1 gives the gate no gradient"):
        WorldModelConfig(experts=ExpertsConfig(chosen=1))
    with pytest.raises(ConfigError, match="imitates planned actions"):
        WorldModelConfig(losses=LossConfig(cloning=1.0))
    with pytest.raises(OutOfRangeError, match=r"agent\.planning\.elites"):
        PlanningConfig(elites=65)
    with pytest.raises(OutOfRangeError, match=r"at most 73\.7"):
        WorldModelConfig(normalisation=NormalisationConfig(return_range=100.0))
    with pytest.raises(OutOfRangeError, match="ascending"):
        NormalisationConfig(refresh_at=(20, 10))
    with pytest.raises(ConfigError, match=r"gradients\.part=actor"):
        WorldModelConfig(gradients=SurgeryConfig("pcgrad", part="actor"))
    with pytest.raises(ConfigError, match=r"agent\.device"):
        WorldModelAgent(dataclasses.replace(SMALL, device="gpu"), MIXED, 1)
    with pytest.raises(ConfigError, match="multiple of their number"):
        WorldModelAgent(SMALL, MIXED, 1, ranks=3)


def test_a_policy_of_another_layout_or_size_is_refused() -> None:
    snapshot = agent_of().snapshot()
    with pytest.raises(ConfigError, match="does not fit made/see"):
        AGENT.policy(snapshot, PIXELS)
    other = dataclasses.replace(snapshot, config={**snapshot.config, "size": "S"})
    with pytest.raises(ConfigError, match="does not fit made/push"):
        AGENT.policy(other, MIXED)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_named(value: float) -> None:
    agent = agent_of()
    with pytest.raises(DivergenceError, match=r"made/push.*reward"):
        agent.ingest(fragment_of(MIXED, 0, 3, reward=[1.0, value, 1.0]))


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=12))
def test_no_reward_lies_outside_the_range_of_its_head(rewards: list[float]) -> None:
    discount, head = np.array([0.95], np.float32), WorldModelConfig()
    scale = RewardScale(1, discount, math.expm1(head.value_range) / 2.0)
    scale.add(fragment_of(MIXED, 0, len(rewards), reward=rewards))
    assert np.abs(np.float32(rewards) / scale.scale[0]).max() <= math.expm1(head.value_range) * (1 + 1e-5)


def test_returns_outside_the_range_are_warned_of_once_a_task() -> None:
    agent = agent_of(diagnostics_every=0)
    limit = math.expm1(SMALL.value_range)
    targets = torch.tensor([[limit - 1, limit + 1], [math.nan, -limit - 1], [0.0, math.nan], [0.0, 0.0]])
    shares = clipped_shares(targets, SMALL.value_range).tolist()
    assert shares == pytest.approx([0.0, 2 / 3])
    with pytest.warns(RuntimeWarning, match=r"made/jump: 66\.7% of the returns.*value_range=5"):
        agent._warn_of_clipped(["made/push", "made/jump"], shares)
    with warnings.catch_warnings(action="error"):
        agent._warn_of_clipped(["made/push", "made/jump"], shares)
        agent.update(ALONE)


def test_tasks_without_a_common_layout_and_unknown_actions_are_refused() -> None:
    images = [task_of("small", DISCRETE, 0, (1, 36, 36)), task_of("large", DISCRETE, 0, (3, 64, 64))]
    with pytest.raises(SpaceError, match=r"one shape; got 1x36x36 \(made/small\) and 3x64x64"):
        TaskSet(images)
    with pytest.raises(SpaceError, match="either continuous or discrete; got continuous=1, discrete=2"):
        task_of("both", ActionSpec(continuous=1, discrete=2))


@pytest.mark.parametrize(
    ("size", "widths"),
    [("nano", (128, 128, 2, 4, 96)), ("S", (384, 384, 3, 8, 256)), ("L", (512, 1024, 5, 16, 512))],
)
def test_one_key_chooses_the_widths(size: str, widths: tuple[int, ...]) -> None:
    model = WorldModel(MIXED.layout, WorldModelConfig(size=size))
    members, hidden, bins = model.q_out.weight.shape
    experts, width = model.experts.config.routed, model.experts.outputs
    assert (model.next_latent.weight.shape[-1], hidden, members, experts, width) == widths
    assert bins == 101
    assert len(model.experts.weights[0]) == experts + 1, "one is shared"

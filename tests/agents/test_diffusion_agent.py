"""The diffusion agent: determinism, resuming, refusing, and what it learns."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion import AGENT, DiffusionAgent, DiffusionConfig
from mtrl.errors import ConfigError, OutOfRangeError, UnsupportedError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, Execution, RandomPolicy, generator_for
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet
from mtrl.training import (
    Agent,
    AgentFactory,
    Datasets,
    FollowsBudget,
    LivePolicy,
    MeasuresConflict,
    Needs,
    OffersTwin,
    Offline,
    load_state,
    save_state,
)

from .demonstrations import choice_data, choice_tasks

SMALL = DiffusionConfig(
    network=ChunkShape(width=32, blocks=1, chunk=2, embedding=4),
    execution=Execution(steps=1),
    batch_size=32,
    warmup=10,
    decay_updates=400,
)


def agent(config: DiffusionConfig = SMALL, seed: int = 0) -> DiffusionAgent:
    """An agent that holds the demonstrations."""
    tasks = choice_tasks()
    made = AGENT.build(config, tasks, seed)
    made.ingest(Datasets(choice_data()))
    assert made.due(10, ALONE) == 10
    return made


def resume(place: Path, stopped: DiffusionAgent, resumed: DiffusionAgent) -> None:
    """Goes on from files."""
    save_state(place / "shared", stopped.shared_state())
    save_state(place / "local", stopped.local_state())
    resumed.restore(load_state(place / "shared"), load_state(place / "local"))


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not() -> None:
    first, second, third = agent(), agent(), agent(seed=1)
    losses = [[made.update(ALONE)["loss"] for _ in range(5)] for made in (first, second, third)]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("objective", ["diffusion", "flow", "mip"])
def test_a_resumed_agent_goes_on_exactly(objective: str, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, objective=objective)
    uninterrupted, stopped = agent(config), agent(config)
    for _ in range(3):
        uninterrupted.update(ALONE), stopped.update(ALONE)
    resumed = agent(config, seed=5)
    resume(tmp_path, stopped, resumed)
    for _ in range(3):
        assert uninterrupted.update(ALONE) == resumed.update(ALONE)
    for name, value in uninterrupted.snapshot().tensors.items():
        np.testing.assert_array_equal(value, resumed.snapshot().tensors[name])


@pytest.mark.parametrize(
    ("objective", "backbone"),
    [("diffusion", "mlp"), ("flow", "mlp"), ("mip", "mlp"), ("regression", "mlp"), ("flow", "transformer")],
)
def test_a_snapshot_acts_like_the_agent(objective: str, backbone: str) -> None:
    shape = dataclasses.replace(SMALL.network, backbone=backbone)
    made = agent(dataclasses.replace(SMALL, objective=objective, network=shape))
    for _ in range(3):
        made.update(ALONE)
    tasks = choice_tasks()
    rebuilt = AGENT.policy(made.snapshot(), tasks)
    observation = {"state": np.array([[0.1, 0.2, 0.0], [0.3, -0.2, 0.4]], dtype=np.float32)}
    actions = []
    for policy in (made.policy(), rebuilt):
        generators = [generator_for(0, "made/choice", key) for key in range(2)]
        action = policy.act(
            observation,
            np.array([0, 1]),
            policy.initial_state(2),
            np.array([True, True]),
            acting=Acting(),
            generators=generators,
        )
        actions.append(action.continuous)
    np.testing.assert_array_equal(actions[0], actions[1])
    assert actions[0][0, 1] == 0, "the first task has one action dimension"


def test_sampling_keeps_both_modes_where_cloning_averages_them() -> None:
    chosen = {}
    cases = {
        "diffusion": ("diffusion", "mlp"),
        "flow": ("flow", "mlp"),
        "regression": ("regression", "mlp"),
        "transformer": ("diffusion", "transformer"),
    }
    for case, (objective, backbone) in cases.items():
        config = DiffusionConfig(
            objective=objective,
            network=ChunkShape(width=64, blocks=2, chunk=2, embedding=4, backbone=backbone),
            execution=Execution(steps=1),
            batch_size=128,
            warmup=20,
            decay_updates=500,
        )
        made = agent(config)
        for _ in range(500):
            made.update(ALONE)
        policy = made.policy()
        count = 200
        states = np.zeros((count, 3), dtype=np.float32)
        states[:, :2] = np.random.default_rng(3).normal(size=(count, 2))
        action = policy.act(
            {"state": states},
            np.zeros(count, dtype=np.int64),
            policy.initial_state(count),
            np.ones(count, dtype=bool),
            acting=Acting(),
            generators=[generator_for(0, "made/choice", key) for key in range(count)],
        )
        chosen[case] = action.continuous[:, 0]
    for case in ("diffusion", "flow", "transformer"):
        assert (np.abs(np.abs(chosen[case]) - 0.8) < 0.2).mean() > 0.85
        assert 0.3 < (chosen[case] > 0).mean() < 0.7
    assert np.abs(chosen["regression"]).mean() < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "gan"}, "'mip' or 'regression'"),
        ({"mip_time": 1.0}, "agent.mip_time=1.0"),
        ({"sampler_steps": 0}, "agent.sampler_steps=0"),
        ({"objective": "mip", "warm_start": 0.5}, r"agent.warm_start=0.5"),
        ({"learning_rate": 0.0}, "agent.learning_rate=0.0"),
        ({"execution": Execution(steps=9)}, "agent.execution.steps=9"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, OutOfRangeError), match=message):
        DiffusionConfig(**change)


def test_tasks_that_no_head_serves_are_refused_by_name() -> None:
    discrete = Task(
        name="made/buttons",
        observation=ObservationSpec(state=2),
        action=ActionSpec(discrete=3),
        simulator_rate_hz=10.0,
        action_repeat=1,
        horizon_decisions=10,
        score=Score("success"),
        reward_version="1",
    )
    tasks = TaskSet([discrete])
    with pytest.raises(UnsupportedError, match="made/buttons is discrete"):
        AGENT.needs(SMALL, tasks)


def test_missing_demonstrations_and_too_small_batches_are_refused() -> None:
    tasks = choice_tasks()
    with pytest.raises(ConfigError, match="no demonstrations yet"):
        AGENT.build(SMALL, tasks, 0).update(ALONE)
    with pytest.raises(ConfigError, match=r"made/follow"):
        AGENT.build(SMALL, tasks, 0).ingest(Datasets({0: choice_data()[0]}))
    with pytest.raises(ConfigError, match="below the number of tasks"):
        AGENT.build(DiffusionConfig(batch_size=1), tasks, 0)


@pytest.mark.parametrize(
    "gradients",
    [SurgeryConfig("pcgrad"), SurgeryConfig("famo", every=2), SurgeryConfig("sum", perturbation=0.01)],
    ids=["pcgrad", "famo", "samo"],
)
def test_surgery_updates_tell_cosines_and_resume_exactly(tmp_path: Path, gradients: SurgeryConfig) -> None:
    config = dataclasses.replace(SMALL, gradients=gradients)
    uninterrupted, stopped = agent(config), agent(config)
    plain = agent()
    for _ in range(3):
        uninterrupted.update(ALONE), stopped.update(ALONE), plain.update(ALONE)
    resumed = agent(config, seed=5)
    resume(tmp_path, stopped, resumed)
    for _ in range(3):
        told = uninterrupted.update(ALONE)
        assert told == resumed.update(ALONE)
        plain.update(ALONE)
    assert set(told) <= set(AGENT.metrics) and "gradients/weight_min" in told
    found, expected = resumed.snapshot().tensors, uninterrupted.snapshot().tensors
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name])
    assert any(not np.array_equal(value, plain.snapshot().tensors[name]) for name, value in expected.items())
    if gradients.method == "famo":  # reads losses alone
        assert not uninterrupted.task_cosines()
    else:
        cosines = uninterrupted.task_cosines()["network"]
        assert cosines.shape == (len(choice_tasks()),) * 2 and np.allclose(np.diag(cosines), 1)
        assert not uninterrupted.task_cosines()


def test_combined_gradients_are_on_the_scale_of_the_plain_one() -> None:
    plain = agent()
    summed = agent(dataclasses.replace(SMALL, gradients=SurgeryConfig("sum", {"mean": True})))
    for made in (plain, summed):
        made._draw()
    (expected, losses, _), (found, others, _) = (made._gradients(ALONE) for made in (plain, summed))
    torch.testing.assert_close(others, losses)
    for name, value in expected.items():
        torch.testing.assert_close(found[name] * len(choice_tasks()), value)


def test_it_is_what_the_contract_says() -> None:
    factory: AgentFactory = AGENT
    made: Agent = agent()
    assert AGENT.needs(SMALL, choice_tasks()) == Needs(offline=Offline(), parents=("init_from",))
    assert isinstance(factory, OffersTwin) and isinstance(factory, FollowsBudget)
    assert isinstance(made, LivePolicy) and isinstance(made, MeasuresConflict)
    twin = AGENT.twin(SMALL)
    assert twin.objective == "regression" and AGENT.with_budget(twin, 70).decay_updates == 70
    assert AGENT.with_budget(SMALL, 70) is SMALL, "a schedule of its own stays"


def test_updates_are_due_once_demonstrations_are_there() -> None:
    made = AGENT.build(SMALL, choice_tasks(), 0)
    assert made.due(5, ALONE) == 0
    made.ingest(Datasets(choice_data()))
    assert made.due(5, ALONE) == 5
    made.update(ALONE)
    assert made.due(5, ALONE) == 4


def test_it_begins_as_its_parent_and_sees_alike() -> None:
    parent = agent()
    for _ in range(3):
        parent.update(ALONE)
    policy = AGENT.policy(parent.snapshot(), choice_tasks())
    made = AGENT.build(SMALL, choice_tasks(), 4, parents={"init_from": policy})
    data = choice_data()
    data[0].observations["state"] += 1.0
    made.ingest(Datasets(data))
    made.due(1, ALONE)
    for name, value in parent.snapshot().tensors.items():
        np.testing.assert_array_equal(made.snapshot().tensors[name], value, err_msg=name)
    wider = dataclasses.replace(SMALL, network=ChunkShape(width=48, blocks=1, chunk=2, embedding=4))
    with pytest.raises(ConfigError, match=r"init_from: the parent's network differs: .*; expected \(48"):
        AGENT.build(wider, choice_tasks(), 0, parents={"init_from": policy})
    with pytest.raises(ConfigError, match="got a RandomPolicy"):
        AGENT.build(SMALL, choice_tasks(), 0, parents={"init_from": RandomPolicy(choice_tasks())})

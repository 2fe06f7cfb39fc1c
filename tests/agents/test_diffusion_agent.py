"""The diffusion agent: its losses by hand, determinism, resuming, refusing, and what it learns."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion import AGENT, DiffusionAgent, DiffusionConfig
from mtrl.agents.diffusion.config import NoiseLevels
from mtrl.agents.diffusion.losses import denoising_loss, regression_loss
from mtrl.errors import ConfigError, OutOfRangeError, UnsupportedError
from mtrl.gradients import SurgeryConfig
from mtrl.nn import ChunkNetwork, ChunkShape
from mtrl.rollout import Acting, Execution, generator_for
from mtrl.spaces import ActionSpec, ObservationSpec
from mtrl.tasks import Score, Task, TaskSet
from mtrl.training import load_state, save_state

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
    made = AGENT.build(config, tasks.layout, tasks, seed)
    made.ingest(choice_data())
    return made


def test_denoising_loss_by_hand() -> None:
    # F = 0 at the start, so the loss is the mean square of (clean - c_skip noisy) / c_out.
    tasks = choice_tasks()
    net = ChunkNetwork(ChunkShape(width=8, blocks=1, chunk=2, embedding=2), tasks.layout)
    chunk = torch.tensor([[[0.6, 0.0], [0.2, 0.0]]])
    noise = torch.tensor([[[1.0, 9.0], [-1.0, 9.0]]])
    loss = denoising_loss(
        net,
        NoiseLevels(),
        torch.zeros(1, 1, 3),
        torch.tensor([0]),
        chunk,
        torch.tensor([[1.0, 1.0]]),
        torch.tensor([0.5]),
        noise,
    )
    # noisy = 1.1, -0.3; c_skip = 1/2; c_out = 0.353553; targets 0.05 / 0.353553 and 0.35 / 0.353553
    assert loss.item() == pytest.approx(((0.05 / 0.353553) ** 2 + (0.35 / 0.353553) ** 2) / 2, rel=1e-4)


def test_steps_past_the_end_do_not_count() -> None:
    tasks = choice_tasks()
    net = ChunkNetwork(ChunkShape(width=8, blocks=1, chunk=2, embedding=2), tasks.layout)
    arguments = (net, torch.zeros(1, 1, 3), torch.tensor([0]), torch.tensor([[[0.6, 0.0], [5.0, 0.0]]]))
    assert regression_loss(*arguments, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.36)


def test_equal_seeds_give_equal_runs_and_other_seeds_do_not() -> None:
    first, second, third = agent(), agent(), agent(seed=1)
    losses = [[made.update()["loss"] for _ in range(5)] for made in (first, second, third)]
    assert losses[0] == losses[1] != losses[2]


def test_a_resumed_agent_goes_on_exactly(tmp_path: Path) -> None:
    uninterrupted, stopped = agent(), agent()
    for _ in range(3):
        uninterrupted.update(), stopped.update()
    save_state(tmp_path / "state", stopped.state_dict())
    resumed = agent(seed=5)
    resumed.load_state_dict(load_state(tmp_path / "state"))
    for _ in range(3):
        assert uninterrupted.update() == resumed.update()
    for name, value in uninterrupted.snapshot().tensors.items():
        np.testing.assert_array_equal(value, resumed.snapshot().tensors[name])


def test_gradients_are_separate_from_their_use() -> None:
    made = agent()
    before = copy.deepcopy(made.state_dict()["network"])
    gradients = made.compute_gradients()
    for name, value in made.state_dict()["network"].items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    # Two ranks with the same gradients sum them and their counts; the step must be that of one rank.
    alone, doubled = copy.deepcopy(made), copy.deepcopy(made)
    alone.apply(copy.deepcopy(gradients))
    gradients.sums = {name: 2 * rows for name, rows in gradients.sums.items()}
    gradients.counts = 2 * gradients.counts
    doubled.apply(gradients)
    for name, value in alone.snapshot().tensors.items():
        np.testing.assert_allclose(value, doubled.snapshot().tensors[name], rtol=1e-5, atol=1e-7)


def test_a_snapshot_acts_like_the_agent() -> None:
    made = agent()
    for _ in range(3):
        made.update()
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


def test_diffusion_keeps_both_modes_where_cloning_averages_them() -> None:
    chosen = {}
    for objective in ("diffusion", "regression"):
        config = DiffusionConfig(
            objective=objective,
            network=ChunkShape(width=64, blocks=2, chunk=2, embedding=4),
            execution=Execution(steps=1),
            batch_size=128,
            warmup=20,
            decay_updates=500,
        )
        made = agent(config)
        for _ in range(500):
            made.update()
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
        chosen[objective] = action.continuous[:, 0]
    assert (np.abs(np.abs(chosen["diffusion"]) - 0.8) < 0.2).mean() > 0.85
    assert 0.3 < (chosen["diffusion"] > 0).mean() < 0.7
    assert np.abs(chosen["regression"]).mean() < 0.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "gan"}, "'diffusion' or 'regression'"),
        ({"sampler_steps": 0}, "agent.sampler_steps=0"),
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
        AGENT.build(SMALL, tasks.layout, tasks, 0)


def test_missing_demonstrations_and_too_small_batches_are_refused() -> None:
    tasks = choice_tasks()
    with pytest.raises(ConfigError, match="no demonstrations yet"):
        AGENT.build(SMALL, tasks.layout, tasks, 0).update()
    with pytest.raises(ConfigError, match=r"index \[1\]"):
        AGENT.build(SMALL, tasks.layout, tasks, 0).ingest({0: choice_data()[0]})
    with pytest.raises(ConfigError, match="below the number of tasks"):
        AGENT.build(DiffusionConfig(batch_size=1), tasks.layout, tasks, 0)


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
        uninterrupted.update(), stopped.update(), plain.update()
    save_state(tmp_path / "state", stopped.state_dict())
    resumed = agent(config, seed=5)
    resumed.load_state_dict(load_state(tmp_path / "state"))
    for _ in range(3):
        told = uninterrupted.update()
        assert told == resumed.update()
        plain.update()
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
    expected, found = plain.compute_gradients(), summed.compute_gradients()
    torch.testing.assert_close(found.losses, expected.losses)
    for name, value in expected.sums.items():
        torch.testing.assert_close(found.sums[name] * len(choice_tasks()), value)

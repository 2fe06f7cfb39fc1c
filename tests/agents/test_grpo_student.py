"""A distilled student as what GRPO and PPO improve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents import grpo, ppo
from mtrl.agents.grpo.student_actor import StudentActor, actor_for
from mtrl.distillation.student import Student, StudentForm
from mtrl.distillation.teacher import FirstStep
from mtrl.errors import ConfigError
from mtrl.launch.main import main
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, ChunkPolicy, Execution
from mtrl.spaces import ActionSpec, Moments
from mtrl.tasks import TaskSet
from mtrl.training import read_jsonl

from .grpo_made import MIXED, SMALL, group_of, made_suites, task_of

TWO = TaskSet([task_of("push", ActionSpec(continuous=2)), task_of("pull", ActionSpec(continuous=1), state=2)])
EXECUTION = Execution(steps=2)


@pytest.fixture(autouse=True)
def suites() -> Iterator[None]:
    with made_suites():
        yield


def student_of(tasks: TaskSet = TWO, history: int = 1) -> Student:
    shape = ChunkShape(width=16, blocks=1, chunk=3, history=history)
    torch.manual_seed(0)
    size = 3 * tasks.layout.continuous_size
    student = Student(StudentForm(shape, EXECUTION, size, FirstStep(0.3, 0.9, 0.2, 1.0)), tasks.layout)
    count, width = len(tasks), tasks.layout.state_size
    student.set_moments(
        Moments(np.full((count, width), 0.5, np.float32), np.full((count, width), 2.0, np.float32))
    )
    return student.eval()


def act(policy: Any, state: np.ndarray, task: np.ndarray, explore: bool = False) -> Any:
    count = len(task)
    return policy.act(
        {"state": state},
        task,
        policy.initial_state(count),
        np.ones(count, bool),
        acting=Acting(explore=explore),
        generators=[np.random.default_rng(i) for i in range(count)],
    )


@pytest.mark.parametrize("factory", [grpo.AGENT, ppo.AGENT])
def test_it_begins_as_the_student_at_z_0_and_its_densities_are_exact(factory: Any) -> None:
    student = student_of()
    config = factory.config_class(network=SMALL.network)
    parents = {"init_from": ChunkPolicy(student, EXECUTION)}
    agent = factory.build(config, TWO, 1, parents=parents)
    state = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    task = np.array([0, 1, 0, 1, 0, 1])
    state[task == 1, 2] = 0.0
    expected = student.sample(state[:, None], task, np.zeros((6, student.spec.noise_size), np.float32))[:, 0]
    policy = factory.policy(agent.snapshot(), TWO)
    np.testing.assert_allclose(act(policy, state, task).continuous, expected, atol=1e-6)
    controller = factory.controller(agent.snapshot(), TWO)
    moved = controller(torch.from_numpy(state), torch.from_numpy(task)).detach().numpy()
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    drawn = act(policy, state, task, explore=True)
    std = np.full((6, 2), SMALL.network.std)
    mean = (
        student.unclipped(torch.from_numpy(state[:, None]), torch.from_numpy(task), None)[:, 0]
        .detach()
        .numpy()
    )
    density = -0.5 * ((drawn.extras["drawn"] - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    density[task == 1, 1] = 0.0
    np.testing.assert_allclose(drawn.extras["log_probability"], density.sum(1), atol=1e-4)
    assert not drawn.extras["drawn"][task == 1, 1].any()


def test_a_round_moves_it_and_a_grandchild_begins_where_it_ended() -> None:
    agent = grpo.AGENT.build(SMALL, TWO, 1, parents={"init_from": ChunkPolicy(student_of(), EXECUTION)})
    before = {name: value.clone() for name, value in agent.shared_state()["actor"].items()}
    policy = grpo.AGENT.policy(agent.snapshot("collect"), TWO)
    for request in agent.request(ALONE):
        agent.ingest(group_of(TWO, request, policy, (0, 3, 6, 0), (0.1, 0.2, 0.3, 0.4)))
    assert agent.due(100, ALONE) == 1
    agent.update(ALONE)
    after = agent.shared_state()["actor"]
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "log_std" in moved and any(name.startswith("student.network") for name in moved)
    child = grpo.AGENT.build(SMALL, TWO, 2, parents={"init_from": agent.policy()})
    for name, value in child.shared_state()["actor"].items():
        torch.testing.assert_close(value, after[name])


def test_students_that_do_not_fit_are_refused() -> None:
    network = SMALL.network
    with pytest.raises(ConfigError, match=r"reads the last 2 states.*history=1"):
        actor_for(TWO.layout, network, student_of(history=2))
    with pytest.raises(ConfigError, match=r"continuous actions; leave out the others"):
        StudentActor(MIXED.layout, network, student_of().form)
    with pytest.raises(ConfigError, match=r"does not fit these tasks"):
        actor_for(TaskSet([TWO[0]]).layout, network, student_of())


@pytest.mark.slow
def test_the_command_improves_the_student_of_a_diffusion_policy(tmp_path: Path) -> None:
    common = [
        f"output={tmp_path}",
        "tracking.tensorboard=false",
        "training.threads=1",
        "evaluation.episodes=4",
    ]
    assert main(["train", "experiment=debug", "tasks=[point/obstacle]", "name=parent", *common]) == 0
    words = [
        "agent=grpo",
        "tasks=[point/obstacle]",
        f"init_from=student@{tmp_path / 'parent'}",
        "agent.groups=4",
    ]
    words += ["agent.group_size=4", "steps=1500", "online.log_every=500", "name=child"]
    assert main(["train", *words, *common]) == 0
    assert read_jsonl(tmp_path / "child" / "metrics.jsonl")[-1]["updates"] >= 1
    refused = [word.replace("student@", "") for word in words if not word.startswith("name=")]
    assert main(["train", *refused, "name=refused", *common]) == 2

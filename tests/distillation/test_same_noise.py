"""Distillation: the student begins as the one-step teacher, learns its map, keeps modes, resumes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtrl.agents.diffusion import AGENT, DiffusionConfig, DiffusionTeacher
from mtrl.agents.diffusion.policy import build_policy
from mtrl.distillation import (
    SAME_NOISE,
    DistillationConfig,
    SameNoiseDistiller,
    student_from,
    student_policy,
)
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import Acting, Execution, RandomPolicy, generator_for
from mtrl.training import Agent, AgentFactory, Datasets, Needs, Offline, load_state, save_state

from ..agents.demonstrations import choice_data, choice_tasks

SHAPE = ChunkShape(width=64, blocks=2, chunk=2, embedding=4)


@pytest.fixture(scope="module")
def teacher() -> DiffusionTeacher:
    """A teacher that has learned the two-way choice."""
    torch.set_num_threads(1)
    tasks = choice_tasks()
    config = DiffusionConfig(
        network=SHAPE, execution=Execution(steps=1), batch_size=128, warmup=20, decay_updates=500
    )
    agent = AGENT.build(config, tasks, 0)
    agent.ingest(Datasets(choice_data()))
    agent.due(500, ALONE)
    for _ in range(500):
        agent.update(ALONE)
    teacher = AGENT.policy(agent.snapshot(), tasks).teacher
    assert isinstance(teacher, DiffusionTeacher)
    return teacher


def distiller(teacher: DiffusionTeacher, **changes: Any) -> SameNoiseDistiller:
    settings = {
        "network": SHAPE,
        "execution": Execution(steps=1),
        "updates": 600,
        "batch_size": 128,
    } | changes
    made = SameNoiseDistiller(DistillationConfig(**settings), teacher, choice_tasks(), 0)
    made.ingest(Datasets(choice_data()))
    assert made.due(600, ALONE) == 600
    return made


def inputs(teacher: DiffusionTeacher, count: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(4)
    states = torch.randn(count, 1, 3, generator=draws)
    return (
        states,
        torch.zeros(count, dtype=torch.int64),
        torch.randn(count, teacher.noise_size, generator=draws),
    )


def test_an_untrained_student_is_the_one_step_teacher(teacher: DiffusionTeacher) -> None:
    states, task, z = inputs(teacher, 20)
    one_step = DiffusionTeacher(
        DiffusionConfig(network=SHAPE, execution=Execution(steps=1), sampler_steps=1), teacher.network
    )
    with torch.no_grad():
        chunk = distiller(teacher).student(states, task, z)
    torch.testing.assert_close(chunk, one_step.chunk(states, task, z), rtol=1e-4, atol=1e-4)


def test_the_student_learns_the_teachers_map_and_keeps_its_modes(teacher: DiffusionTeacher) -> None:
    made = distiller(teacher)
    states, task, z = inputs(teacher)
    target = teacher.chunk(states, task, z)
    before = (made.student(states, task, z) - target)[..., 0].abs().mean().item()
    for _ in range(600):
        made.update(ALONE)
    with torch.no_grad():
        chunk = made.student(states, task, z)
    after = (chunk - target)[..., 0].abs().mean().item()
    assert after < 0.5 * before
    chosen = chunk[:, 0, 0]
    assert ((chosen.abs() - 0.8).abs() < 0.25).float().mean() > 0.8
    assert 0.3 < (chosen > 0).float().mean() < 0.7
    # The same noise leads to the teacher's mode, not to any mode.
    assert (chosen.sign() == target[:, 0, 0].sign()).float().mean() > 0.85


def test_a_resumed_distillation_goes_on_exactly(teacher: DiffusionTeacher, tmp_path: Path) -> None:
    uninterrupted, stopped = distiller(teacher), distiller(teacher)
    for _ in range(6):
        uninterrupted.update(ALONE), stopped.update(ALONE)
    save_state(tmp_path / "shared", stopped.shared_state())
    save_state(tmp_path / "local", stopped.local_state())
    resumed = distiller(teacher)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert [uninterrupted.update(ALONE) for _ in range(6)] == [resumed.update(ALONE) for _ in range(6)]


def test_the_policy_of_a_snapshot_executes_the_student(teacher: DiffusionTeacher) -> None:
    made = distiller(teacher)
    tasks = choice_tasks()
    policy, student = student_policy(made.snapshot(), tasks), student_from(made.snapshot(), tasks)
    state = np.array([[0.3, -0.4, 0.0]], dtype=np.float32)
    action = policy.act(
        {"state": state},
        np.array([0]),
        policy.initial_state(1),
        np.array([True]),
        acting=Acting(),
        generators=[generator_for(7, "made/choice", 0)],
    )
    z = generator_for(7, "made/choice", 0).standard_normal(teacher.noise_size, dtype=np.float32)
    with torch.no_grad():
        chunk = student(torch.as_tensor(state)[:, None], torch.tensor([0]), torch.as_tensor(z)[None])
    np.testing.assert_allclose(action.continuous[0], chunk[0, 0].numpy(), atol=1e-6)


def test_a_student_that_cannot_match_is_refused(teacher: DiffusionTeacher) -> None:
    with pytest.raises(ConfigError, match=r"distillation.network.chunk=4, the teacher's is 2"):
        distiller(teacher, network=ChunkShape(width=64, blocks=2, chunk=4, embedding=4))


def test_the_factory_takes_any_policy_that_offers_chunks(teacher: DiffusionTeacher) -> None:
    tasks, config = choice_tasks(), DistillationConfig(network=SHAPE, execution=Execution(steps=1))
    factory: AgentFactory = SAME_NOISE
    assert SAME_NOISE.needs(config, tasks) == Needs(offline=Offline(), parents=("teacher",))
    policy = build_policy(teacher._config, teacher.network, 0)
    made: Agent = factory.build(config, tasks, 0, parents={"teacher": policy})
    assert made.due(3, ALONE) == 0
    made.ingest(Datasets(choice_data()))
    assert made.due(3, ALONE) == 3
    assert set(made.update(ALONE)) == set(SAME_NOISE.metrics)
    with pytest.raises(UnsupportedError, match="a RandomPolicy is no chunk teacher"):
        factory.build(config, tasks, 0, parents={"teacher": RandomPolicy(tasks)})
    with pytest.raises(UnsupportedError, match="a ChunkPolicy is no chunk teacher"):
        factory.build(config, tasks, 0, parents={"teacher": factory.policy(made.snapshot(), tasks)})
    with pytest.raises(ConfigError, match="needs a teacher"):
        factory.build(config, tasks, 0)
    with pytest.raises(ConfigError, match=r"distillation.batch_size=256 .* a multiple of their number, 3"):
        factory.build(config, tasks, 0, ranks=3, parents={"teacher": policy})

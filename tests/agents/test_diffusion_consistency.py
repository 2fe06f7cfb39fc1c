"""Consistency distillation: the loss by hand, what is learned, resuming, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtrl.agents.diffusion import AGENT, CONSISTENCY, DiffusionConfig, DiffusionSampler
from mtrl.agents.diffusion.config import NoiseLevels
from mtrl.agents.diffusion.consistency import ConsistencyDistiller, boundary
from mtrl.distillation import DistillationConfig, student_policy
from mtrl.errors import ConfigError, OutOfRangeError, UnsupportedError
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import ChunkPolicy, Execution
from mtrl.training import AgentFactory, Datasets, Needs, Offline, load_state, save_state

from .demonstrations import choice_data, choice_tasks

SHAPE = ChunkShape(width=64, blocks=2, chunk=2, embedding=4)
SETTINGS = DistillationConfig(
    network=SHAPE, execution=Execution(steps=1), updates=1500, batch_size=128, learning_rate=1e-3
)


@pytest.fixture(scope="module")
def teacher() -> DiffusionSampler:
    """A teacher that has learned the two-way choice."""
    torch.set_num_threads(1)
    config = DiffusionConfig(
        network=SHAPE, execution=Execution(steps=1), batch_size=128, warmup=20, decay_updates=500
    )
    agent = AGENT.build(config, choice_tasks(), 0)
    agent.ingest(Datasets(choice_data()))
    agent.due(500, ALONE)
    for _ in range(500):
        agent.update(ALONE)
    teacher = AGENT.policy(agent.snapshot(), choice_tasks()).sampler
    assert isinstance(teacher, DiffusionSampler)
    return teacher


def distiller(teacher: DiffusionSampler, config: DistillationConfig = SETTINGS) -> ConsistencyDistiller:
    made = ConsistencyDistiller(config, teacher, choice_tasks(), 0)
    made.ingest(Datasets(choice_data()))
    assert made.due(config.updates, ALONE) == config.updates
    return made


def test_the_answer_at_the_smallest_level_is_the_point_itself() -> None:
    skip, out, into, level = boundary(torch.tensor([0.02, 0.52]), NoiseLevels())
    assert (skip[0].item(), out[0].item()) == (1.0, 0.0)
    # at sigma = smallest + sigma_data: 1/2, 0.25 / sqrt(0.5204), 1 / sqrt(0.5204), ln(0.52) / 4
    found = [value[1].item() for value in (skip, out, into, level)]
    assert found == pytest.approx([0.5, 0.346557, 1.386226, -0.163482], rel=1e-5)


def test_the_loss_by_hand(teacher: DiffusionSampler) -> None:
    made = distiller(teacher, replace(SETTINGS, settings={"levels": 2}, batch_size=4))
    # two levels: from the largest noise the teacher leads to the smallest, whose point is the answer
    total, entries = made._loss()
    draws = made._noise.get_state()
    again = distiller(teacher, replace(SETTINGS, settings={"levels": 2}, batch_size=4))
    batch = again._data.sample(4, again._draws)
    task = batch.task_index.repeat_interleave(2)
    states, chunk = batch.buckets["state"].values.flatten(0, 1), batch.fields["chunk"].flatten(0, 1)
    real = batch.fields["real"].flatten(0, 1)
    assert not torch.randint(1, (4,), generator=again._noise).any()
    noise = torch.randn(chunk.shape, generator=again._noise)
    assert torch.equal(again._noise.get_state(), draws)
    mask = teacher.network.chunk_mask(task)
    start, sigma = (chunk + 20.0 * noise) * mask, torch.full((4,), 20.0)
    with torch.no_grad():
        condition = teacher.network.condition(states, task)
        skip, out, into = 0.25 / 400.25, 20 * 0.5 / 400.25**0.5, 1 / 400.25**0.5
        clean = skip * start + out * teacher.network(condition, task, into * start, sigma.log() / 4)
        reached = start + (0.02 - 20.0) * (start - clean) / 20.0
        wider = 19.98**2 + 0.25
        raw = teacher.network(condition, task, into * start, sigma.log() / 4)
        answer = 0.25 / wider * start + 19.98 * 0.5 / 400.25**0.5 * raw
    error = ((answer - reached) ** 2 * mask * real[:, :, None]).flatten(1).sum(1)
    error = error / (mask * real[:, :, None]).flatten(1).sum(1) / 19.98
    assert entries.item() == 4
    torch.testing.assert_close(total.detach(), error.sum(), rtol=1e-4, atol=1e-6)


def test_one_pass_keeps_the_teachers_modes(teacher: DiffusionSampler) -> None:
    made, draws = distiller(teacher), torch.Generator().manual_seed(4)
    states, task = torch.randn(300, 1, 3, generator=draws), torch.zeros(300, dtype=torch.int64)
    z = torch.randn(300, teacher.spec.noise_size, generator=draws)
    target = torch.from_numpy(teacher.sample(states.numpy(), task.numpy(), z.numpy()))[..., 0]

    def error() -> float:
        with torch.no_grad():
            return (made.student(states, task, z)[..., 0] - target).abs().mean().item()

    before = error()
    for _ in range(1500):
        made.update(ALONE)
    assert error() < 0.5 * before
    chosen = made.student(states, task, z)[:, 0, 0]
    assert ((chosen.abs() - 0.8).abs() < 0.25).float().mean() > 0.8
    assert 0.3 < (chosen > 0).float().mean() < 0.7
    policy = student_policy(made.snapshot(), choice_tasks())
    assert isinstance(policy, ChunkPolicy)


def test_a_resumed_distillation_goes_on_exactly(teacher: DiffusionSampler, tmp_path: Path) -> None:
    uninterrupted, stopped = distiller(teacher), distiller(teacher)
    for _ in range(4):
        uninterrupted.update(ALONE), stopped.update(ALONE)
    save_state(tmp_path / "shared", stopped.shared_state())
    save_state(tmp_path / "local", stopped.local_state())
    resumed = distiller(teacher)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert [uninterrupted.update(ALONE) for _ in range(4)] == [resumed.update(ALONE) for _ in range(4)]


def test_the_factory_takes_denoising_teachers_alone(teacher: DiffusionSampler) -> None:
    tasks, factory = choice_tasks(), CONSISTENCY
    contract: AgentFactory = factory
    assert contract.needs(SETTINGS, tasks) == Needs(offline=Offline(), parents=("teacher",))
    policy = ChunkPolicy(teacher, Execution(steps=1))
    made = factory.build(SETTINGS, tasks, 0, parents={"teacher": policy})
    made.ingest(Datasets(choice_data()))
    assert made.due(3, ALONE) == 3 and set(made.update(ALONE)) == set(factory.metrics)
    flow = DiffusionSampler(DiffusionConfig("flow", SHAPE, execution=Execution(steps=1)), teacher.network)
    student = student_policy(made.snapshot(), tasks)
    for other, said in (
        (ChunkPolicy(flow, Execution(steps=1)), "another objective"),
        (student, "of another"),
    ):
        with pytest.raises(UnsupportedError, match=said):
            factory.build(SETTINGS, tasks, 0, parents={"teacher": other})
    with pytest.raises(ConfigError, match="needs a teacher"):
        factory.build(SETTINGS, tasks, 0)
    with pytest.raises(OutOfRangeError, match=r"distillation\.settings\.levels=1"):
        factory.build(replace(SETTINGS, settings={"levels": 1}), tasks, 0, parents={"teacher": policy})

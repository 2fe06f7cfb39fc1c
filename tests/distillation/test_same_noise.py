"""Distillation: the student begins as the one-step teacher, learns its map, keeps modes, resumes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mtrl.agents.diffusion import AGENT, DiffusionConfig, DiffusionSampler
from mtrl.distillation import (
    SAME_NOISE,
    DistillationConfig,
    SameNoiseDistiller,
    WarmStart,
    student_from,
    student_policy,
    teacher_of,
)
from mtrl.errors import ConfigError, UnsupportedError
from mtrl.nn import ChunkShape
from mtrl.reducer import ALONE
from mtrl.rollout import (
    Acting,
    Action,
    ChunkPolicy,
    ChunkSampler,
    ChunkSpec,
    Execution,
    PolicyState,
    generator_for,
)
from mtrl.spaces import Observation
from mtrl.training import Agent, AgentFactory, Datasets, Needs, Offline, load_state, save_state

from ..agents.demonstrations import choice_data, choice_tasks

SHAPE = ChunkShape(width=64, blocks=2, chunk=2, embedding=4)


@pytest.fixture(scope="module")
def teacher() -> DiffusionSampler:
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
    teacher = AGENT.policy(agent.snapshot(), tasks).sampler
    assert isinstance(teacher, DiffusionSampler)
    return teacher


def distiller(teacher: ChunkSampler, **changes: Any) -> SameNoiseDistiller:
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


def inputs(teacher: DiffusionSampler, count: int = 300) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(4)
    states = torch.randn(count, 1, 3, generator=draws)
    return (
        states,
        torch.zeros(count, dtype=torch.int64),
        torch.randn(count, teacher.spec.noise_size, generator=draws),
    )


def labels(teacher: ChunkSampler, states: torch.Tensor, task: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The teacher's chunks as a tensor."""
    return torch.from_numpy(teacher.sample(states.numpy(), task.numpy(), z.numpy()))


def test_an_untrained_student_is_the_one_step_teacher(teacher: DiffusionSampler) -> None:
    states, task, z = inputs(teacher, 20)
    one_step = DiffusionSampler(
        DiffusionConfig(network=SHAPE, execution=Execution(steps=1), sampler_steps=1), teacher.network
    )
    with torch.no_grad():
        chunk = distiller(teacher).student(states, task, z)
    torch.testing.assert_close(chunk, labels(one_step, states, task, z), rtol=1e-4, atol=1e-4)


def test_the_student_learns_the_teachers_map_and_keeps_its_modes(teacher: DiffusionSampler) -> None:
    made = distiller(teacher)
    states, task, z = inputs(teacher)
    target = labels(teacher, states, task, z)
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


def test_a_guided_teacher_is_what_is_distilled(teacher: DiffusionSampler) -> None:
    config = DiffusionConfig(network=SHAPE, execution=Execution(steps=1), guidance=1.5)
    guided = DiffusionSampler(config, teacher.network)
    with pytest.raises(ConfigError, match=r"distillation.network.history=1, the teacher's is 2"):
        distiller(guided)
    made = distiller(guided, network=replace(SHAPE, history=2))
    made.update(ALONE)
    pool = {name: values[:20] for name, values in made._pool.items()}
    torch.testing.assert_close(labels(guided, pool["states"], pool["task"], pool["z"]), pool["target"])
    plain = labels(teacher, pool["states"][:, 1:], pool["task"], pool["z"])
    assert (pool["target"] - plain).abs().mean() > 0.01


def test_a_resumed_distillation_goes_on_exactly(teacher: DiffusionSampler, tmp_path: Path) -> None:
    uninterrupted, stopped = distiller(teacher), distiller(teacher)
    for _ in range(6):
        uninterrupted.update(ALONE), stopped.update(ALONE)
    save_state(tmp_path / "shared", stopped.shared_state())
    save_state(tmp_path / "local", stopped.local_state())
    resumed = distiller(teacher)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    assert [uninterrupted.update(ALONE) for _ in range(6)] == [resumed.update(ALONE) for _ in range(6)]


def test_the_policy_of_a_snapshot_executes_the_student(teacher: DiffusionSampler) -> None:
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
    z = generator_for(7, "made/choice", 0).standard_normal(teacher.spec.noise_size, dtype=np.float32)
    with torch.no_grad():
        chunk = student(torch.as_tensor(state)[:, None], torch.tensor([0]), torch.as_tensor(z)[None])
    np.testing.assert_allclose(action.continuous[0], chunk[0, 0].numpy(), atol=1e-6)


def test_a_student_that_cannot_match_is_refused(teacher: DiffusionSampler) -> None:
    with pytest.raises(ConfigError, match=r"distillation.network.chunk=4, the teacher's is 2"):
        distiller(teacher, network=ChunkShape(width=64, blocks=2, chunk=4, embedding=4))


def test_the_factory_takes_any_policy_that_offers_chunks(teacher: DiffusionSampler) -> None:
    tasks, config = choice_tasks(), DistillationConfig(network=SHAPE, execution=Execution(steps=1))
    factory: AgentFactory = SAME_NOISE
    assert SAME_NOISE.needs(config, tasks) == Needs(offline=Offline(), parents=("teacher",))
    policy = ChunkPolicy(teacher, Execution(steps=1))
    made: Agent = factory.build(config, tasks, 0, parents={"teacher": policy})
    assert made.due(3, ALONE) == 0
    made.ingest(Datasets(choice_data()))
    assert made.due(3, ALONE) == 3
    assert set(made.update(ALONE)) == set(SAME_NOISE.metrics)
    again = factory.build(config, tasks, 0, parents={"teacher": factory.policy(made.snapshot(), tasks)})
    assert again.snapshot().tensors.keys() == made.snapshot().tensors.keys(), "a student may be a teacher"
    with pytest.raises(ConfigError, match="needs a teacher"):
        factory.build(config, tasks, 0)
    with pytest.raises(ConfigError, match=r"distillation.batch_size=256 .* a multiple of their number, 3"):
        factory.build(config, tasks, 0, ranks=3, parents={"teacher": policy})


class Halving:
    """A sampler of three numbers and no network: the chunk repeats half of the state, moved by the noise."""

    spec = ChunkSpec(history=1, state_size=3, chunk=2, actions=2, noise_size=4)

    def sample(
        self, states: npt.NDArray[np.float32], task: npt.NDArray[np.int64], z: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Clipped."""
        half = np.repeat(0.5 * states[:, -1:, :2], 2, axis=1)
        return np.clip(half + 0.1 * z.reshape(-1, 2, 2), -1, 1).astype(np.float32)


def test_any_sampler_is_a_teacher_and_needs_no_network() -> None:
    teacher = Halving()
    assert isinstance(teacher, ChunkSampler) and not isinstance(teacher, WarmStart)
    made = distiller(teacher)
    draws = torch.Generator().manual_seed(4)
    states, task = 0.5 * torch.randn(50, 1, 3, generator=draws), torch.ones(50, dtype=torch.int64)
    z = torch.randn(50, 4, generator=draws)
    before = (made.student(states, task, z) - labels(teacher, states, task, z)).abs().mean().item()
    for _ in range(300):
        made.update(ALONE)
    after = (made.student(states, task, z) - labels(teacher, states, task, z)).abs().mean().item()
    assert after < 0.35 * before
    assert (made.student.moments.scale != 1).any(), "states are standardised by the demonstrations"


class Steering:
    """A memoryless policy: the first numbers of the state."""

    version, extras = 0, ()

    def __init__(self, remembers: bool = False) -> None:
        self.remembers = remembers

    def initial_state(self, count: int) -> PolicyState:
        """Nothing, or a row that makes it unfit to be a teacher."""
        return {"memory": np.zeros((count, 1))} if self.remembers else {}

    def act(
        self,
        observation: Observation,
        task_index: npt.NDArray[np.int64],
        state: PolicyState,
        ended: npt.NDArray[np.bool_],
        *,
        acting: Acting,
        generators: Sequence[np.random.Generator],
    ) -> Action:
        """Never explores."""
        assert not acting.explore
        moved = np.clip(observation["state"][:, :2], -1, 1).astype(np.float32)
        return Action(moved, np.zeros(len(moved), dtype=np.int64), state)


def test_a_memoryless_policy_is_a_teacher_of_single_actions() -> None:
    tasks = choice_tasks()
    teacher = teacher_of(Steering(), tasks)
    assert teacher.spec == ChunkSpec(1, 3, 1, 2)
    states = np.array([[[0.5, -2.0, 0.0]]], dtype=np.float32)
    chunk = teacher.sample(states, np.array([1]), np.zeros((1, 0), dtype=np.float32))
    assert chunk.tolist() == [[[0.5, -1.0]]]
    made = distiller(teacher, network=ChunkShape(width=16, blocks=1, chunk=1, embedding=4))
    assert made.update(ALONE)["loss"] > 0
    with pytest.raises(UnsupportedError, match="a Steering keeps state between steps"):
        teacher_of(Steering(remembers=True), tasks)

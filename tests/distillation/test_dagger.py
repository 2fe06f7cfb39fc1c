"""DAgger: what is asked of the teacher, the loss by hand, learning on own states, resuming, refusals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mtrl import registry
from mtrl.distillation import DAGGER, Dagger, DistillationConfig, imitation_loss, student_policy
from mtrl.distillation.labels import TeacherLabels
from mtrl.errors import ConfigError, SpaceError
from mtrl.nn import ChunkShape
from mtrl.pipeline import Config
from mtrl.pipeline.config import distiller_of
from mtrl.reducer import ALONE
from mtrl.rollout import (
    Acting,
    Action,
    CollectionConfig,
    Fragment,
    LocalFragments,
    PolicySnapshot,
    PolicyState,
    RuntimeConfig,
    Version,
)
from mtrl.spaces import ActionSpec, Observation
from mtrl.tasks import TaskSet
from mtrl.training import Agent, AgentFactory, Datasets, Needs, Stream, load_state, save_state

from ..agents.demonstrations import choice_data
from .made import made

CARTPOLE, POINT = "gym/CartPole-v1", "point/obstacle"
SMALL = DistillationConfig(
    network=ChunkShape(width=64, blocks=1, embedding=4), steps=4000, updates=400, batch_size=128
)


MIXED = TaskSet(
    [made("made/steer", 3, ActionSpec(continuous=2)), made("made/choose", 3, ActionSpec(discrete=3))]
)


class Counting:
    """Does as many tenths, or takes the choice of as many, as it has made decisions of the episode."""

    version, extras = 0, ()

    def initial_state(self, count: int) -> PolicyState:
        """A count each, which has to be forgotten first."""
        return {"made": np.full(count, 99)}

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
        """Adds the first number of the state."""
        assert acting == Acting(explore=False, plan=True)
        count = np.where(ended, 0, state["made"] + 1)
        first = np.asarray(observation["state"])[:, 0]
        steer = np.stack([count / 10 + first, np.zeros(len(count))], axis=1)
        return Action(steer.astype(np.float32), count % 3, {"made": count})


def fragment(task: int, steps: int, ends: Sequence[tuple[int, int]] = ()) -> Fragment:
    """Two copies; the state's first number says which copy, and `ends` (t, copy) where episodes end."""
    states = np.zeros((steps + 1, 2, 3), dtype=np.float32)
    states[:, 1, 0] = 0.01
    truncated = np.zeros((steps, 2), dtype=bool)
    for place in ends:
        truncated[place] = True
    none = np.zeros((steps, 2), dtype=bool)
    numbers = np.zeros((steps + 1, 2), dtype=np.int64)
    return Fragment(
        task,
        Version(),
        {"state": states},
        np.zeros((steps, 2, 2), dtype=np.float32),
        np.zeros((steps, 2), dtype=np.int64),
        np.zeros((steps, 2), dtype=np.float32),
        none,
        truncated,
        none,
        numbers,
        numbers,
        np.array(ends, dtype=np.int64).reshape(-1, 2),
        {"state": np.zeros((len(ends), 3), dtype=np.float32)},
    )


@pytest.mark.parametrize("task", [0, 1])
def test_the_teacher_follows_the_copies_and_begins_with_every_episode(task: int) -> None:
    steps, ends = 20, [(2, 1), (15, 0)]
    labels = TeacherLabels(Counting(), MIXED.layout, 1).of(fragment(task, steps, ends))
    assert labels.shape == (steps, 2, 5)
    for copy in range(2):
        count = -1
        for t in range(steps):
            count = 0 if (t - 1, copy) in ends else count + 1
            if task == 0:
                expected = [count / 10 + 0.01 * copy, 0, 0, 0, 0]
            else:
                expected = [0, 0, *np.eye(3)[count % 3]]
            np.testing.assert_allclose(labels[t, copy], expected, atol=1e-6)


@pytest.mark.parametrize(("task", "continuous", "choice"), [(0, np.nan, 0), (1, 0.0, -1), (1, 0.0, 3)])
def test_what_is_no_action_is_no_label(task: int, continuous: float, choice: int) -> None:
    class Broken(Counting):
        def act(self, observation: Observation, *args: object, **named: object) -> Action:  # type: ignore[override]
            count = len(np.asarray(observation["state"]))
            return Action(np.full((count, 2), continuous, dtype=np.float32), np.full(count, choice), {})

    with pytest.raises(SpaceError, match="the teacher's action"):
        TeacherLabels(Broken(), MIXED.layout, 1).of(fragment(task, 3))


def test_the_loss_is_the_mean_square_over_dimensions_or_minus_the_log_of_the_choice() -> None:
    # columns: two dimensions, then three choices
    raw = torch.tensor([[0.5, 2.0, 9.0, 9.0, 9.0], [7.0, 7.0, 0.0, math.log(3.0), 5.0]])
    label = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0]])
    one_dimension = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])
    two_choices = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    # (0.5 - 1)^2 = 0.25; p = 3 / (1 + 3)
    loss = imitation_loss(raw, label, torch.stack([one_dimension, two_choices]), 3)
    torch.testing.assert_close(loss, torch.tensor([0.25, -math.log(0.75)]))
    both = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    # 2.125 is half of 0.5^2 + 2^2
    torch.testing.assert_close(imitation_loss(raw[:1], label[:1], both, 3), torch.tensor([2.125]))


class Balancing:
    """Balances a pole, and steers a point to its goal."""

    version, extras = 0, ()

    def __init__(self, tasks: TaskSet) -> None:
        self.discrete = tasks.layout.discrete_tasks

    def initial_state(self, count: int) -> PolicyState:
        """None."""
        return {}

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
        """Pushes towards where the pole falls; moves against the second number of the state."""
        seen = np.asarray(observation["state"], dtype=np.float32)
        falls = seen[:, 2] + 0.5 * seen[:, 3] + 0.05 * seen[:, 0] + 0.1 * seen[:, 1] > 0
        steer = np.stack([np.tanh(seen[:, 0]), np.tanh(-seen[:, 1])], axis=1)
        discrete = self.discrete[task_index]
        return Action(
            np.where(discrete[:, None], 0, steer).astype(np.float32),
            np.where(discrete, falls, 0).astype(np.int64),
            {},
        )


def rounds(agent: Dagger, tasks: TaskSet, count: int, source: LocalFragments) -> Iterator[dict[str, float]]:
    """Rounds of one fragment a task and the updates that are due, the teacher acting in the first two."""
    steps = 0
    for number, data in enumerate(islice(source.stream(), count * len(tasks))):
        agent.ingest(data)
        steps += data.steps
        if number % len(tasks) == len(tasks) - 1:
            for _ in range(agent.due(steps, ALONE)):
                yield dict(agent.update(ALONE))
            if number >= 2 * len(tasks):
                source.publish(agent.snapshot("collect"))


def stream(tasks: TaskSet, seed: int = 1) -> LocalFragments:
    torch.set_num_threads(1)
    found = LocalFragments(
        tasks, RuntimeConfig(), CollectionConfig(copies=4, steps=50), PolicySnapshot("random"), seed
    )
    found.use(Balancing(tasks))
    return found


def test_a_student_of_both_kinds_does_as_its_teacher_where_it_comes_to_itself() -> None:
    tasks = registry.task_set([CARTPOLE, POINT], {})
    agent, source = Dagger(SMALL, Balancing(tasks), tasks, 0), stream(tasks)
    metrics = list(rounds(agent, tasks, 10, source))
    assert len(metrics) == agent.updates == 400
    source.use(student_policy(agent.snapshot(), tasks))
    labels = TeacherLabels(Balancing(tasks), tasks.layout, 0)
    for data in islice(source.stream(), 2):
        label = labels.of(data)
        if tasks.layout.discrete_tasks[data.task_index]:
            # about upright, where the teacher pushes left and right in turn, they differ now and then
            assert (label[:, :, 2:].argmax(2) == data.discrete).mean() > 0.8
            assert not data.terminated.any(), "the pole stands"
        else:
            assert np.abs(label[:, :, :2] - data.continuous).mean() < 0.06
    source.close()


def test_a_resumed_distillation_goes_on_exactly(tmp_path: Path) -> None:
    tasks = registry.task_set([CARTPOLE, POINT], {})
    whole, stopped = (Dagger(SMALL, Balancing(tasks), tasks, 0) for _ in range(2))
    data = list(islice(stream(tasks).stream(), 8))
    for agent in (whole, stopped):
        for part in data[:4]:
            agent.ingest(part)
        assert agent.due(800, ALONE) == 80
        for _ in range(80):
            agent.update(ALONE)
    save_state(tmp_path / "shared", stopped.shared_state())
    save_state(tmp_path / "local", stopped.local_state())
    resumed = Dagger(SMALL, Balancing(tasks), tasks, 0)
    resumed.restore(load_state(tmp_path / "shared"), load_state(tmp_path / "local"))
    for agent in (whole, resumed):
        assert agent.due(800, ALONE) == 0
        for part in data[4:]:
            agent.ingest(part)
        assert agent.due(1600, ALONE) == 80
    assert [whole.update(ALONE) for _ in range(20)] == [resumed.update(ALONE) for _ in range(20)]


def test_the_factory_asks_for_a_stream_that_the_teacher_begins() -> None:
    factory: AgentFactory = DAGGER
    assert factory.needs(SMALL, MIXED) == Needs(online=Stream(warmup=800), parents=("teacher",))
    agent: Agent = factory.build(SMALL, MIXED, 0, parents={"teacher": Counting()})
    assert agent.due(0, ALONE) == agent.due(2000, ALONE) == 0, "nothing is due without a state"
    agent.ingest(fragment(0, 20)), agent.ingest(fragment(1, 20))
    assert agent.due(1000, ALONE) == 100 and agent.due(10**6, ALONE) == 400
    assert set(agent.update(ALONE)) == set(factory.metrics)
    with pytest.raises(ConfigError, match="the states that it comes to"):
        agent.ingest(Datasets(choice_data()))
    with pytest.raises(ConfigError, match="needs a teacher"):
        factory.build(SMALL, MIXED, 0)
    with pytest.raises(ConfigError, match="a multiple of their number, 3"):
        factory.build(SMALL, MIXED, 0, ranks=3, parents={"teacher": Counting()})


@pytest.mark.parametrize(
    ("agent", "method", "expected"),
    [
        ({"name": "sac"}, "auto", "dagger"),
        ({"name": "sac", "replay": {"demonstrations": 0.5}}, "auto", "same_noise"),
        ({"name": "diffusion"}, "auto", "same_noise"),
        ({"name": "diffusion"}, "dagger", "dagger"),
    ],
)
def test_a_teacher_that_learned_without_demonstrations_is_asked_online(
    agent: dict, method: str, expected: str
) -> None:
    tasks = registry.task_set([POINT], {})
    config = Config(agent=agent, distillation=DistillationConfig(method=method))
    assert distiller_of(config, tasks)[0].name == expected
